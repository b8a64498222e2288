"""Masks of every encoding are read as what is not background, or refused by name."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kdas_edge.data.dataset import load_training_data
from kdas_edge.data.masks import (
    AmbiguousMaskError,
    FullMaskError,
    decode_mask,
    parse_mask_values,
    read_mask,
)
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError
from kdas_edge.recipe import DataRecipe

TRUTH = np.zeros((64, 80), bool)
TRUTH[20:40, 30:60] = True
LABEL = TRUTH.astype(np.uint8)


def _colour(*values: int) -> Image.Image:
    return Image.fromarray((LABEL[..., None] * np.array(values)).astype(np.uint8))


def _palette(*colours: int) -> Image.Image:
    image = Image.fromarray(LABEL, "P")
    image.putpalette([*colours, *[0] * (768 - len(colours))])
    return image


def _alpha(grey: int) -> Image.Image:
    return Image.fromarray(
        np.dstack([np.full((*LABEL.shape, 3), grey, np.uint8), LABEL * np.uint8(255)])
    )


def _deep_colour() -> np.ndarray:
    return np.repeat(LABEL[..., None], 3, axis=2).astype(np.uint16)


ENCODINGS = {
    "1-bit.png": Image.fromarray(TRUTH),
    "grey-255.png": Image.fromarray(LABEL * 255),
    "grey-128.bmp": Image.fromarray(LABEL * 128),
    "label-1.png": Image.fromarray(LABEL),
    "label-1-of-16-bits.png": Image.fromarray(LABEL.astype(np.uint16)),
    "65535.png": Image.fromarray(LABEL.astype(np.uint16) * 65535),
    "4095-of-16-bits.tif": Image.fromarray(LABEL.astype(np.uint16) * 4095),
    "label-1-of-32-bits.tif": Image.fromarray(LABEL.astype(np.int32)),
    "float-1.tif": Image.fromarray(LABEL.astype(np.float32)),
    "float-255.tif": Image.fromarray(LABEL.astype(np.float32) * 255),
    "red.png": _colour(255, 0, 0),
    "blue.png": _colour(0, 0, 255),
    "dark-red.png": _colour(128, 0, 0),
    "colour-of-label-1.png": _colour(1, 1, 1),
    "red.jpg": _colour(255, 0, 0),
    "palette.png": _palette(0, 0, 0, 128, 0, 0),
    "palette-without-colours.png": _palette(0, 0, 0, 0, 0, 0),
    "alpha-of-black.png": _alpha(0),
    "alpha-of-white.png": _alpha(255),
    "grey-and-alpha.png": Image.fromarray(np.dstack([LABEL * 255, np.full_like(LABEL, 255)])),
    "grey.jpg": Image.fromarray(LABEL * 255),
    "lossy.webp": Image.fromarray(LABEL * 255),
    "grey.gif": Image.fromarray(LABEL * 255),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_of_one_mask_is_read_alike(tmp_path: Path, name: str) -> None:
    ENCODINGS[name].save(tmp_path / name)
    assert (read_mask(tmp_path / name) == TRUTH).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_labels_in_colours_of_16_bits_are_not_lost(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    cv2.imwrite(str(path), _deep_colour())
    assert (read_mask(path) == TRUTH).all()


def test_several_labels_and_colours_are_all_polyp(tmp_path: Path) -> None:
    labels = LABEL.copy()
    labels[50:60, 5:20] = 2
    Image.fromarray(labels).save(tmp_path / "labels.png")
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)[labels]
    Image.fromarray(colours).save(tmp_path / "colours.png")
    for path in tmp_path.iterdir():
        assert (read_mask(path) == (labels > 0)).all()
        assert decode_mask(path, parse_mask_values("2,#00ff00")).sum() == 150


def test_smoothed_edges_are_cut_half_way(tmp_path: Path) -> None:
    for white in (255, 128):
        soft = cv2.GaussianBlur(LABEL * np.uint8(white), (0, 0), 1.5)
        Image.fromarray(soft).save(tmp_path / "soft.png")
        assert (read_mask(tmp_path / "soft.png") == (soft > white / 2)).all()


def _with_corner(value: int) -> np.ndarray:
    mask = LABEL * np.uint8(255)
    mask[:6, :6] = value
    return mask


AMBIGUOUS = {
    "no-black.png": Image.fromarray(LABEL + 1),
    "two-greys.png": Image.fromarray(_with_corner(128)),
    "label-and-void.png": Image.fromarray(np.where(_with_corner(1) == 1, 1, LABEL * 255)),
    "two-greys.jpg": Image.fromarray(np.repeat(_with_corner(128), 2, 0).repeat(2, 1)),
    "labels.jpg": Image.fromarray(LABEL),
    "white-first.png": _palette(255, 255, 255, 0, 0, 0),
    "negative.tif": Image.fromarray(-LABEL.astype(np.float32)),
    "nan.tif": Image.fromarray(np.where(TRUTH, np.nan, 0).astype(np.float32)),
    "picture.png": Image.fromarray(scene(1, 96)[0]),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_mask_names_file_values_and_option(tmp_path: Path, name: str) -> None:
    AMBIGUOUS[name].save(tmp_path / name)
    with pytest.raises(AmbiguousMaskError, match=r"it holds .*--mask-values") as caught:
        read_mask(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_mask_values_say_what_is_polyp(tmp_path: Path) -> None:
    Image.fromarray(LABEL + 1).save(tmp_path / "a.png")
    assert (read_mask(tmp_path / "a.png", parse_mask_values("2")) == TRUTH).all()
    assert (read_mask(tmp_path / "a.png", parse_mask_values("1")) == ~TRUTH).all()
    _palette(255, 255, 255, 0, 0, 0).save(tmp_path / "p.png")
    assert (read_mask(tmp_path / "p.png", parse_mask_values("1")) == TRUTH).all()
    Image.fromarray(_with_corner(128)).save(tmp_path / "g.png")
    assert (read_mask(tmp_path / "g.png", parse_mask_values("200-255")) == TRUTH)[6:].all()
    for wrong in ("", "red", "2-1", "-1", "1;2", "#ff00"):
        with pytest.raises(UserError, match="mask values"):
            parse_mask_values(wrong)


def test_a_full_mask_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(tmp_path / "full.png")
    with pytest.raises(FullMaskError, match="every pixel"):
        read_mask(tmp_path / "full.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "empty.png")
    assert not read_mask(tmp_path / "empty.png").any()


def _folder(root: Path, polyps: list[bool], value: int = 255) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for index, polyp in enumerate(polyps):
        image, mask = scene(100 + index, 96, polyp=polyp)
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        Image.fromarray(mask * np.uint8(value)).save(root / "masks" / f"{index}.png")
    return root


def test_training_reads_labels_and_refuses_a_set_without_a_polyp(tmp_path: Path) -> None:
    labels = _folder(tmp_path / "labels", [True] * 8, value=1)
    data = load_training_data(DataRecipe(root=str(labels), size=96, validation=0.25))
    assert data.train.masks.flatten(1).any(1).all()
    assert data.validation.masks.flatten(1).any(1).all()
    empty = _folder(tmp_path / "empty", [False] * 8)
    with pytest.raises(UserError, match="none of the 6 training masks has a polyp"):
        load_training_data(DataRecipe(root=str(empty), size=96, validation=0.25))
    with pytest.raises(UserError, match="marks every pixel"):
        load_training_data(DataRecipe(root=str(labels), size=96, mask_values="0-1"))
