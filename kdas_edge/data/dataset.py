"""The whole training set, decoded and resized once, resident in memory (on a GPU if there is one).

1450 images at 352×352 are 540 MB of uint8: less than a loader's worth of trouble, and no step ever
waits for a file.
"""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdas_edge.console import info, progress
from kdas_edge.data.duplicates import NEAR_DUPLICATE, pixel_digest, similarity
from kdas_edge.data.heldout import has_tests, read_test_images
from kdas_edge.data.layout import (
    ImageSet,
    Pair,
    list_images,
    read_pair,
    resize_image,
    resize_mask,
    training_set,
)
from kdas_edge.data.lineage import Lineage, extend
from kdas_edge.data.parallel import parallel_map
from kdas_edge.data.splits import Split, check_split, read_split, validation_split
from kdas_edge.environment import usable_cpus
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.recipe import DataRecipe


@dataclass(frozen=True)
class ResidentSet:
    """Images and masks of one size in memory.

    Attributes:
        images: (N, 3, S, S) uint8 RGB.
        masks: (N, 1, S, S) uint8, 0 or 1; all zero where `labelled` is false.
        labelled: (N,) bool; false for frames that have no ground truth.
        names: N stems.
        teacher: (N, 1, S, S) uint8, the teacher's probability of a polyp by 255; None where the
            teacher is asked in each step, or not at all (`distill.teacher_maps`).
    """

    images: Tensor
    masks: Tensor
    labelled: Tensor
    names: tuple[str, ...]
    teacher: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "ResidentSet":
        """Return the same set with its tensors on `device`."""
        return replace(
            self,
            images=self.images.to(device),
            masks=self.masks.to(device),
            labelled=self.labelled.to(device),
            teacher=None if self.teacher is None else self.teacher.to(device),
        )

    def where(self, kept: Tensor) -> "ResidentSet":
        """Return the images for which `kept`, (N,) bool, is true; this set itself if all are."""
        if kept.all():  # gigabytes need not be copied
            return self
        return ResidentSet(
            self.images[kept],
            self.masks[kept],
            self.labelled[kept],
            tuple(name for name, keep in zip(self.names, kept.tolist(), strict=True) if keep),
            None if self.teacher is None else self.teacher[kept],
        )


@dataclass(frozen=True)
class TrainingData:
    """The training and validation images of a run, and the split that made them."""

    train: ResidentSet
    validation: ResidentSet
    split: Split
    source: ImageSet


def load_training_data(
    recipe: DataRecipe,
    size: int | None = None,
    before: Lineage = Lineage(),
    only_unseen: bool = False,
    resumed: Path | None = None,
) -> TrainingData:
    """Find, split, decode and resize the training set of a recipe.

    Args:
        recipe: the `data` section; its `root` is resolved against the working directory.
        size: side of the resident images in pixels; the recipe's own by default. Larger when the
            teacher looks at larger images than the student.
        before: of the networks that the new one comes from; their images keep their side.
        only_unseen: see `validation_split`.
        resumed: `split.json` of a run that goes on; where it exists, its sides are taken.

    Raises:
        UserError: anything wrong with the folder or a file, named; with `resumed`, also an image
            that has changed since.
    """
    source = training_set(Path(recipe.root), recipe.mask_values)
    if recipe.limit is not None:
        # spread over the set: the first files of a sorted folder are often one video
        step = max(1, len(source.pairs) // recipe.limit)
        source = replace(source, pairs=source.pairs[::step][: recipe.limit])
    frames = [] if recipe.unlabelled is None else list_images(Path(recipe.unlabelled))
    if resumed is not None and resumed.is_file():
        split = read_split(resumed)
        check_split(split, source)
    else:
        split = validation_split(
            source,
            recipe.validation,
            recipe.split_seed,
            group_by=recipe.group_by,
            before=before,
            only_unseen=only_unseen,
        )
        split = replace(split, lineage=_with_near_duplicates(split, recipe))
    by_name = {pair.name: pair for pair in source.pairs}
    size = size or recipe.size
    pairs = [by_name[name] for name in (*split.train, *split.validation)]
    extra = [Pair(_frame_name(path), path, None) for path in frames]
    pairs = [*pairs[: len(split.train)], *extra, *pairs[len(split.train) :]]
    resident = load_pairs(pairs, size)
    cut = len(pairs) - len(split.validation)
    if cut == 0:
        raise UserError(f"{recipe.root}: no training image is left; lower data.validation")
    train, validation = _slice(resident, slice(0, cut)), _slice(resident, slice(cut, None))
    _refuse_without_polyp(train, validation, recipe)
    if recipe.labelled_fraction < 1:
        train = _with_few_masks(train, recipe.labelled_fraction, recipe.split_seed)
    return TrainingData(
        train=train,
        validation=validation,
        split=split,
        source=source,
    )


def with_frames(data: TrainingData, recipe: DataRecipe, used: Collection[str]) -> TrainingData:
    """Record frames without masks among the images that were trained on.

    Args:
        data: of `load_training_data`.
        recipe: names their folder.
        used: their names, `unlabelled/<stem>`.
    """
    frames = [
        path for path in list_images(Path(str(recipe.unlabelled))) if _frame_name(path) in used
    ]
    digests = parallel_map(
        lambda path: pixel_digest(read_image(path)), frames, "hashing frames without masks"
    )
    lineage = extend(data.split.lineage, dict.fromkeys(digests, "train"))
    return replace(data, split=replace(data.split, lineage=lineage))


def _frame_name(path: Path) -> str:
    return f"unlabelled/{path.stem}"


def _with_near_duplicates(split: Split, recipe: DataRecipe) -> Lineage:
    """Add the test images that look like a training image."""
    lineage = split.lineage
    if not has_tests(Path(recipe.root)) or not split.prints:
        return lineage
    try:
        tests = read_test_images(Path(recipe.root))
    except UserError as error:  # a training does not need them
        info(f"test images are not compared with training images: {error}")
        return lineage
    alike = similarity(tests.prints, split.prints).max(axis=1) > NEAR_DUPLICATE
    near = [digest for digest, found in zip(tests.digests, alike.tolist(), strict=True) if found]
    return extend(lineage, {}, near)


def _refuse_without_polyp(train: ResidentSet, validation: ResidentSet, recipe: DataRecipe) -> None:
    """A network that marks nothing would be perfect on masks that are all empty."""
    if train.labelled.any() and not train.masks.any():
        raise UserError(
            f"{recipe.root}: none of the {int(train.labelled.sum())} training masks has a polyp; "
            "check the masks with kdas-edge data check, or say which values are polyp with "
            "data.mask_values"
        )
    if len(validation) and not validation.masks.any():
        raise UserError(
            f"{recipe.root}: none of the {len(validation)} validation images has a polyp; set "
            "another data.split_seed, or a larger data.validation"
        )


def load_pairs(pairs: Sequence[Pair], size: int) -> ResidentSet:
    """Decode and resize pairs with the threads of this machine (PIL releases the interpreter).

    Raises:
        UserError: an unreadable file, or a mask of another size than its image.
    """
    images = torch.empty(len(pairs), 3, size, size, dtype=torch.uint8)
    masks = torch.zeros(len(pairs), 1, size, size, dtype=torch.uint8)

    def load(index: int) -> None:
        pair = pairs[index]
        if pair.mask is None:
            image, mask = read_image(pair.image), None
        else:
            image, mask = read_pair(pair)
        small = np.ascontiguousarray(resize_image(image, size, size).transpose(2, 0, 1))
        images[index] = torch.from_numpy(small)
        if mask is not None:
            masks[index, 0] = torch.from_numpy(resize_mask(mask, size, size))

    with (
        ThreadPoolExecutor(usable_cpus()) as pool,
        progress(len(pairs), "reading images") as advance,
    ):
        try:
            for _ in pool.map(load, range(len(pairs))):
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return ResidentSet(
        images=images,
        masks=masks,
        labelled=torch.tensor([pair.mask is not None for pair in pairs], dtype=torch.bool),
        names=tuple(pair.name for pair in pairs),
    )


def _slice(whole: ResidentSet, part: slice) -> ResidentSet:
    return ResidentSet(
        whole.images[part], whole.masks[part], whole.labelled[part], whole.names[part]
    )


def _with_few_masks(whole: ResidentSet, fraction: float, seed: int) -> ResidentSet:
    """Hide all masks but those of a random fraction of the images, of one at least."""
    known = whole.labelled.nonzero()[:, 0]
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    kept = torch.zeros_like(whole.labelled)
    kept[known[order[: max(1, round(fraction * len(known)))]]] = True
    return replace(whole, masks=whole.masks * kept[:, None, None, None], labelled=kept)
