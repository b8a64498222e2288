"""Augmentation: image and mask move together, and every number comes from the seed."""

import colorsys

import pytest
import torch

from kdas_edge.data import augment
from kdas_edge.recipe import AugmentRecipe

STRONG = AugmentRecipe(
    rotate=180, scale=(0.7, 1.4), shift=0.1, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1,
    blur=0.5, noise=0.05,
)  # fmt: skip
OFF = AugmentRecipe(flip=False, rotate=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 4, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose red channel is the mask itself: a bright blob off the centre."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    blob = ((y - side * 0.4) ** 2 + (x - side * 0.6) ** 2 < (side / 5) ** 2).to(torch.uint8)
    masks = blob.expand(count, 1, side, side).contiguous()
    images = torch.cat([masks * 255, torch.full_like(masks, 90), torch.full_like(masks, 60)], 1)
    return images, masks


def test_everything_off_changes_nothing() -> None:
    images, masks = batch()
    x, y = augment.apply(augment.draw(OFF, 4, generator()), images, masks)
    assert torch.allclose(x, images.float() / 255, atol=1e-5)
    assert torch.equal(y, masks.float())


def test_the_mask_follows_the_image() -> None:
    images, masks = batch(16)
    recipe = AugmentRecipe(rotate=180, scale=(0.7, 1.4), shift=0.1)
    x, y = augment.apply(augment.draw(recipe, 16, generator(3)), images, masks)
    assert torch.equal((x[:, :1] > 0.5).float(), y)
    assert not torch.equal(y[0], y[1])


def test_flips_happen_about_half_of_the_time_in_each_direction() -> None:
    drawn = augment.draw(AugmentRecipe(rotate=0), 2000, generator())
    assert torch.equal(drawn.affine[:, 0, 0].abs(), torch.ones(2000))
    for axis in (0, 1):
        share = (drawn.affine[:, axis, axis] < 0).float().mean()
        assert 0.45 < float(share) < 0.55


def test_a_zoom_changes_the_area_by_its_square() -> None:
    images, masks = batch(1, 256)
    _, y = augment.apply(
        augment.draw(AugmentRecipe(flip=False, rotate=0, scale=(1.25, 1.25)), 1, generator()),
        images,
        masks,
    )
    assert float(y.sum() / masks.sum()) == pytest.approx(1.25**2, rel=0.02)


def test_the_seed_decides_everything() -> None:
    images, masks = batch()
    one = augment.apply(augment.draw(STRONG, 4, generator(5)), images, masks)
    two = augment.apply(augment.draw(STRONG, 4, generator(5)), images, masks)
    other = augment.apply(augment.draw(STRONG, 4, generator(6)), images, masks)
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_a_process_that_takes_a_part_sees_what_the_whole_batch_would() -> None:
    images, masks = batch(6)
    drawn = augment.draw(STRONG, 6, generator(1))
    whole_x, whole_y = augment.apply(drawn, images, masks)
    part = slice(2, 5)
    x, y = augment.apply(drawn, images[part], masks[part], part)
    assert torch.allclose(x, whole_x[part], atol=1e-6)
    assert torch.equal(y, whole_y[part])


def test_colours_stay_in_range_and_masks_binary() -> None:
    images, masks = batch(8)
    x, y = augment.apply(augment.draw(STRONG, 8, generator(2)), images, masks)
    assert float(x.min()) >= 0 and float(x.max()) <= 1
    assert set(y.unique().tolist()) <= {0.0, 1.0}


def test_a_third_of_the_colour_circle_turns_red_into_green() -> None:
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    third = torch.tensor([2 * torch.pi / 3])
    turned = augment._rotate_hue(red, third).flatten().tolist()
    assert turned == pytest.approx([0, 1, 0], abs=1e-6)
    grey = torch.full((1, 3, 1, 1), 0.4)
    assert torch.allclose(augment._rotate_hue(grey, third), grey, atol=1e-6)
    # a small turn moves the hue in the direction that colorsys calls positive
    small = augment._rotate_hue(torch.tensor([0.8, 0.4, 0.3]).view(1, 3, 1, 1), third / 10)
    before = colorsys.rgb_to_hsv(0.8, 0.4, 0.3)[0]
    after = colorsys.rgb_to_hsv(*small.flatten().tolist())[0]
    assert after > before


def test_the_blur_keeps_the_mean_and_lowers_the_contrast_of_the_chosen_images_only() -> None:
    x = torch.rand(3, 3, 32, 32, generator=generator())
    blurred = augment._blur(x, torch.tensor([0.0, 1.5, 0.0]))
    assert torch.equal(blurred[0], x[0]) and torch.equal(blurred[2], x[2])
    assert float(blurred[1].std()) < 0.5 * float(x[1].std())
    assert float(blurred[1].mean()) == pytest.approx(float(x[1].mean()), abs=0.01)
