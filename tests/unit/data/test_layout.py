"""Finding and reading pairs, with the files that people really have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdas_edge.data import layout
from kdas_edge.data.check import check
from kdas_edge.data.layout import (
    find_pairs,
    find_sets,
    read_mask,
    read_pair,
    resize_image,
    resize_mask,
    training_set,
)
from kdas_edge.errors import UserError
from kdas_edge.image_files import SUFFIXES, read_image


def _pixels(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _write_pair(root: Path, name: str, image_suffix: str = ".png") -> None:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels()).save(root / "images" / f"{name}{image_suffix}")
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:20] = True
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")


def test_both_layouts_are_found(tmp_path: Path) -> None:
    _write_pair(tmp_path / "pranet" / "TrainDataset", "a")
    _write_pair(tmp_path / "pranet" / "TestDataset" / "Kvasir", "b")
    _write_pair(tmp_path / "plain", "c")
    assert list(find_sets(tmp_path / "pranet")) == ["train", "Kvasir"]
    assert training_set(tmp_path / "pranet").pairs[0].name == "a"
    assert list(layout.test_sets(tmp_path / "pranet")) == ["Kvasir"]
    assert list(find_sets(tmp_path / "plain")) == ["plain"]
    assert training_set(tmp_path / "plain").pairs[0].name == "c"


def test_a_relative_root_still_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_pair(tmp_path / "hospital", "a")
    monkeypatch.chdir(tmp_path / "hospital")
    assert list(find_sets(Path())) == ["hospital"]


def test_every_suffix_is_read_in_either_case(tmp_path: Path) -> None:
    for index, suffix in enumerate(SUFFIXES):
        _write_pair(tmp_path, f"n{index}", suffix if index % 2 else suffix.upper())
    found = find_pairs(tmp_path)
    assert len(found.pairs) == len(SUFFIXES)
    for pair in found.pairs:
        image, mask = read_pair(pair)
        assert image.shape == (20, 30, 3)
        assert mask.sum() == 75


def test_what_a_mac_leaves_behind_is_no_image(tmp_path: Path) -> None:
    _write_pair(tmp_path, "a")
    (tmp_path / "images" / "._a.png").write_bytes(b"Mac OS X")
    (tmp_path / "images" / "Thumbs.db").write_bytes(b"x")
    assert [pair.name for pair in find_pairs(tmp_path).pairs] == ["a"]


def test_every_kind_of_pixel_becomes_rgb_of_eight_bits(tmp_path: Path) -> None:
    rgb = _pixels()
    grey = rgb[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([rgb, grey])).save(tmp_path / "rgba.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(rgb).quantize(256).save(tmp_path / "palette.png")
    assert (read_image(tmp_path / "grey.png") == grey[..., None]).all()
    assert (read_image(tmp_path / "rgba.png") == rgb).all()
    assert (read_image(tmp_path / "deep.png") == grey[..., None]).all()
    palette = read_image(tmp_path / "palette.png")
    expected = np.asarray(Image.open(tmp_path / "palette.png").convert("RGB"))
    assert (palette == expected).all()


def test_grey_masks_are_cut_half_way_and_jpeg_masks_survive(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert (read_mask(tmp_path / "ramp.png") == (ramp > 127)).all()
    truth = np.zeros((64, 64), bool)
    truth[16:48, 16:48] = True
    for suffix in ("jpg", "bmp", "png"):
        path = tmp_path / f"mask.{suffix}"
        Image.fromarray(truth.astype(np.uint8) * 255).save(path)
        assert (read_mask(path) == truth).all()
    colour = np.repeat(truth[..., None].astype(np.uint8) * 255, 3, axis=2)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert (read_mask(tmp_path / "colour.png") == truth).all()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.write_bytes(b""), "0 bytes"),
        (lambda p: p.write_bytes(b"\x89PNG not really"), "cannot be read"),
        (lambda p: p.write_bytes(p.read_bytes()[:200]), "cannot be read"),
        (lambda p: p.unlink(), "does not exist"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, damage, words: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(_pixels()).save(path)
    damage(path)
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_masks_twins_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        find_sets(tmp_path / "absent")
    with pytest.raises(UserError, match="neither"):
        find_sets(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        find_sets(tmp_path)
    _write_pair(tmp_path, "a")
    _write_pair(tmp_path, "b")
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(UserError, match="has no mask b"):
        find_pairs(tmp_path)
    assert find_pairs(tmp_path, require_masks=False).pairs[1].mask is None
    _write_pair(tmp_path, "b")
    Image.fromarray(_pixels()).save(tmp_path / "images" / "b.jpg")
    with pytest.raises(UserError, match="two images named 'b'"):
        find_pairs(tmp_path)


def test_sizes_that_differ_are_named(tmp_path: Path) -> None:
    _write_pair(tmp_path, "a")
    Image.fromarray(np.zeros((30, 20), bool)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(UserError, match="20×30 pixels but its image is 30×20"):
        read_pair(find_pairs(tmp_path).pairs[0])


def test_resizing_keeps_means_and_masks_keep_their_area() -> None:
    image = _pixels(200, 300)
    small = resize_image(image, 50, 60)
    assert small.shape == (50, 60, 3)
    assert abs(float(small.mean()) - float(image.mean())) < 1
    assert resize_image(image, 200, 300) is image
    mask = np.zeros((200, 300), bool)
    mask[40:160, 60:240] = True
    assert abs(resize_mask(mask, 50, 60).mean() - mask.mean()) < 0.005


def _oriented(path: Path, pixels: np.ndarray, orientation: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_image_and_mask_have_an_orientation_both_or_neither(
    tmp_path: Path, orientation: int
) -> None:
    stored, mask = _pixels(), np.zeros((20, 30), bool)
    mask[2:6, 3:9] = True
    grey = mask.astype(np.uint8) * 255
    _oriented(tmp_path / "images" / "a.png", stored, orientation)
    _oriented(tmp_path / "masks" / "a.png", grey, orientation)
    upright, turned = read_pair(find_pairs(tmp_path).pairs[0])
    turn = {2: np.s_[:, ::-1], 3: np.s_[::-1, ::-1], 4: np.s_[::-1]}
    shown = np.rot90(mask, -1) if orientation == 6 else mask[turn[orientation]]
    assert (turned == shown).all()
    assert upright.shape[:2] == shown.shape
    # drawn on what is shown; of a quarter turn the size tells it
    Image.fromarray(shown).save(tmp_path / "masks" / "a.png")
    if orientation == 6:
        assert (read_pair(find_pairs(tmp_path).pairs[0])[1] == shown).all()
        Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
        with pytest.raises(UserError, match="30×20 pixels but its image is 20×30"):
            read_pair(find_pairs(tmp_path).pairs[0])
        return
    with pytest.raises(UserError, match=f"EXIF orientation {orientation} and its mask 1"):
        read_pair(find_pairs(tmp_path).pairs[0])
    found = check(tmp_path)
    assert [finding.kind for finding in found.errors] == ["orientation differs"]
