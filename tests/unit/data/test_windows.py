"""Windows with and without polyp, and pictures on screens: image, mask and map move together."""

import pytest
import torch

from kdas_edge.data import augment
from kdas_edge.data.screen import make_screen
from kdas_edge.data.windows import SMALLEST, draw_windows, place_windows
from kdas_edge.recipe import AugmentRecipe

SIZE = 96


def _masks(count: int) -> torch.Tensor:
    """A square polyp at another place of each frame; the last frame has none."""
    masks = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.uint8)
    for index in range(count - 1):
        x, y = 5 + 11 * (index % 7), 5 + 13 * (index % 5)
        masks[index, 0, y : y + 20, x : x + 20] = 1
    return masks


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_windows_are_of_both_kinds_in_equal_measure() -> None:
    drawn = draw_windows(0.5, 4000, seed=1)
    kinds = drawn[:, 0, 0]
    assert abs(float((kinds > 0).float().mean()) - 0.5) < 0.03
    assert abs(float((kinds == 1).float().mean()) - float((kinds == 2).float().mean())) < 0.03
    side, left, top = drawn[..., 1], drawn[..., 2], drawn[..., 3]
    assert side.min() >= SMALLEST and side.max() <= 1 and side.min() < SMALLEST + 0.01
    assert (left >= 0).all() and (left + side <= 1.0001).all() and (top + side <= 1.0001).all()


@pytest.mark.parametrize("kind", [1, 2])
def test_a_window_holds_the_polyp_or_nothing_of_it(kind: int) -> None:
    masks = _masks(40)
    windows = draw_windows(1.0, 40, seed=3)
    windows[..., 0] = kind
    same = torch.eye(2, 3).repeat(40, 1, 1)
    placed = place_windows(windows, masks, same)
    scale = placed[:, 0, 0]
    assert (scale[:-1] < 1).float().mean() > 0.8  # for few polyps there is no such place
    recipe = AugmentRecipe(flip=False, rotate=0)
    drawn = augment.draw(recipe, 40, _generator())
    seen = augment.warp(augment.replace(drawn, placed=placed), masks.float())
    areas = (seen > 0.5).flatten(1).sum(1) * scale**2
    moved = scale < 1
    if kind == 1:
        # at least half of the 400 pixels, at the size that they had
        assert (areas[moved] > 0.45 * 400).all()
        assert scale[-1] == 1  # without a polyp there is no window with one
    else:
        assert (areas[moved] == 0).all() and moved[-1]


def test_without_windows_and_screens_the_numbers_are_those_of_earlier_runs() -> None:
    plain, both = AugmentRecipe(brightness=0.2), AugmentRecipe(brightness=0.2, windows=1, screen=1)
    first, second = (augment.draw(recipe, 8, _generator(5)) for recipe in (plain, both))
    assert first.windows is None and (first.screens == -1).all() and (second.screens >= 0).all()
    for name in ("affine", "brightness", "noise_seed", "bubbles", "quality"):
        one, other = getattr(first, name), getattr(second, name)
        assert one == other if isinstance(one, int) else torch.equal(one, other)
    masks = _masks(8)
    assert augment.with_windows(first, masks) is first


def test_image_mask_and_map_are_placed_alike_and_the_border_is_black() -> None:
    recipe = AugmentRecipe(rotate=20, brightness=0.4, contrast=0.4, windows=0.5, screen=1)
    masks = _masks(12)
    images = masks.expand(-1, 3, -1, -1) * 200 + 30
    drawn = augment.with_windows(augment.draw(recipe, 12, _generator(2)), masks)
    x, y = augment.apply(drawn, images, masks)
    maps = augment.warp(drawn, masks.float())
    assert torch.equal(maps > 0.5, y > 0.5)
    for index, seed in enumerate(drawn.screens.tolist()):
        screen = make_screen(seed, SIZE)
        hidden = (screen.inside == 0) & (screen.covered == 0)
        if screen.second is not None:
            left, top, width, height = screen.second
            hidden[top : top + height, left : left + width] = False
        assert not x[index][:, hidden].any()
        assert not y[index, 0][screen.inside == 0].any()
        assert 0.15 < float(screen.inside.mean()) < 0.95


def test_a_part_of_the_batch_is_what_the_whole_gives_there() -> None:
    recipe = AugmentRecipe(windows=0.7, screen=0.5, noise=0.05)
    masks = _masks(8)
    images = masks.expand(-1, 3, -1, -1) * 200 + 30
    drawn = augment.draw(recipe, 8, _generator(9))
    whole = augment.apply(augment.with_windows(drawn, masks), images, masks)
    part = slice(4, 8)
    mine = augment.with_windows(drawn, masks[part], part)
    own = augment.apply(mine, images[part], masks[part], part)
    assert torch.allclose(own[0], whole[0][part], atol=1e-6)
    assert torch.equal(own[1], whole[1][part])


def test_a_screen_is_a_function_of_its_seed_and_screens_differ() -> None:
    shapes = set()
    for seed in range(40):
        one = make_screen.__wrapped__(seed, SIZE)
        again = make_screen.__wrapped__(seed, SIZE)
        assert one.box == again.box and torch.equal(one.overlay, again.overlay)
        shapes.add((one.box, one.second is None))
    assert len(shapes) > 30 and {without for _, without in shapes} == {True, False}
