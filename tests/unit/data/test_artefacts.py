"""Bubbles and coding artefacts in training: where they are, and what JPEG would do."""

import cv2
import numpy as np
import pytest
import torch

from kdas_edge.data import augment
from kdas_edge.data.artefacts import add_bubbles, code
from kdas_edge.data.synthetic import scene
from kdas_edge.recipe import AugmentRecipe

SIDE = 128


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """RGB frames in uint8, of a size that is no multiple of a block."""
    found = [scene(seed, polyp=True)[0] for seed in range(4)]
    return [cv2.resize(frame, (SIDE + 5, SIDE), interpolation=cv2.INTER_AREA) for frame in found]


def as_tensor(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("quality", [5, 20, 40, 60, 90])
def test_coding_is_what_libjpeg_does(frames: list[np.ndarray], quality: int) -> None:
    images = torch.stack([as_tensor(frame) for frame in frames])
    coded = code(images, torch.full((len(frames),), float(quality)))
    for frame, ours in zip(frames, coded, strict=True):
        stored = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        theirs = cv2.imdecode(stored, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float64)
        found = ours.permute(1, 2, 0).double().numpy() * 255
        lost = np.abs(theirs - frame).mean()
        assert np.abs(found - theirs).mean() < max(1.0, 0.35 * lost)
        # as much is lost as with libjpeg, and not at random
        assert np.abs(found - frame).mean() == pytest.approx(lost, rel=0.15, abs=0.5)


def test_each_image_is_coded_with_its_own_quality(frames: list[np.ndarray]) -> None:
    images = torch.stack([as_tensor(frame) for frame in frames[:2]])
    both = code(images, torch.tensor([5.0, 60.0]))
    assert torch.allclose(both[:1], code(images[:1], torch.tensor([5.0])))
    assert torch.allclose(both[1:], code(images[1:], torch.tensor([60.0])))


def test_bubbles_are_round_and_small_and_the_rest_stays(frames: list[np.ndarray]) -> None:
    for seed in range(20):
        image = as_tensor(frames[seed % len(frames)])
        before = image.clone()
        add_bubbles(image, seed)
        changed = ((image - before).abs().amax(0) > 1e-6).numpy().astype(np.uint8)
        assert 0 < changed.mean() < 0.6
        assert torch.isfinite(image).all()
        # outside of the field of view there is nothing to see
        assert not changed[before.amax(0).numpy() < 0.05].any()
        again = before.clone()
        add_bubbles(again, seed)
        assert torch.equal(again, image)


def test_on_an_even_ground_only_rim_film_and_glint_are_seen() -> None:
    ground = torch.full((3, 256, 256), 0.5)
    for seed in range(10):
        image = ground.clone()
        add_bubbles(image, seed)
        rise = image[0] - 0.5
        assert rise.max() > 0.2, "a glint or a bright rim"
        assert rise.min() < -0.02, "the rim away from the lamp"
        # grey stays grey: a bubble has no colour of its own
        assert torch.allclose(image[0], image[1]) and torch.allclose(image[0], image[2])


def test_a_recipe_draws_them_as_often_as_it_says() -> None:
    recipe = AugmentRecipe(bubbles=0.2, coding=0.4)
    drawn = augment.draw(recipe, 4000, torch.Generator().manual_seed(0))
    assert 0.17 < float((drawn.bubbles >= 0).float().mean()) < 0.23
    assert 0.37 < float((drawn.quality > 0).float().mean()) < 0.43
    qualities = drawn.quality[drawn.quality > 0]
    assert 5 <= float(qualities.min()) < 7 and 55 < float(qualities.max()) <= 60


def test_the_images_of_a_batch_get_their_own_and_the_masks_none() -> None:
    image = cv2.resize(scene(5, polyp=True)[0], (96, 96), interpolation=cv2.INTER_AREA)
    images = torch.from_numpy(image).permute(2, 0, 1).expand(6, 3, 96, 96).contiguous()
    masks = torch.zeros(6, 1, 96, 96, dtype=torch.uint8)
    masks[:, :, 30:60, 30:60] = 1
    still = {"flip": False, "rotate": 0.0}
    recipe = AugmentRecipe(bubbles=0.5, coding=0.5, **still)
    drawn = augment.draw(recipe, 6, torch.Generator().manual_seed(4))
    plain = augment.draw(AugmentRecipe(**still), 6, torch.Generator().manual_seed(4))
    x, y = augment.apply(drawn, images, masks)
    clean, _ = augment.apply(plain, images, masks)
    assert torch.equal(y, masks.float())
    touched = (drawn.bubbles >= 0) | (drawn.quality > 0)
    assert 0 < int(touched.sum()) < 6
    assert ((x - clean).abs().amax((1, 2, 3)) > 1e-3).tolist() == touched.tolist()
    # a part of the batch, as another process would take it, is the part of the whole
    part = slice(2, 5)
    assert torch.equal(augment.apply(drawn, images[part], masks[part], part)[0], x[part])
