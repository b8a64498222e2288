"""The training and validation images of a recipe."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from kdas_edge.console import info
from kdas_edge.data.duplicates import NEAR_DUPLICATE, pixel_digest, similarity
from kdas_edge.data.frames import find_sources, sample_video
from kdas_edge.data.heldout import has_tests, read_test_images
from kdas_edge.data.layout import ImageSet, Pair
from kdas_edge.data.lineage import Lineage, extend
from kdas_edge.data.parallel import parallel_map
from kdas_edge.data.resident import ResidentSet, VideoFrame, load_pairs
from kdas_edge.data.sampler import Origin, Sampler
from kdas_edge.data.sources import Source, find_all, refuse_near_tests
from kdas_edge.data.splits import Split, check_split, join, read_split, validation_split
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.recipe import DataRecipe


@dataclass(frozen=True)
class TrainingData:
    """The training and validation images of a run, and the split that made them.

    Attributes:
        train: what is trained on, frames without masks last.
        validation: what chooses the best epoch.
        split: which labelled image is where.
        source: the labelled images.
        frames: name of each frame without a mask to its `pixel_digest`.
        left_out: the images of `data.leave_centre_out`.
        origin: sources, centres and their shares of a batch.
    """

    train: ResidentSet
    validation: ResidentSet
    split: Split
    source: ImageSet
    frames: Mapping[str, str] = field(default_factory=dict)
    left_out: ResidentSet | None = None
    origin: Origin = field(default_factory=Origin)

    def sampler(self) -> Sampler:
        """What orders the images of `train`, as it is now, in an epoch."""
        return Sampler(self.train, self.origin)


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
    sources, left_out = find_all(recipe)
    frames = {} if recipe.unlabelled is None else _unlabelled_frames(recipe)
    everything = tuple(pair for one in sources for pair in one.image_set.pairs)
    source = replace(sources[0].image_set, pairs=everything)
    if resumed is not None and resumed.is_file():
        split = read_split(resumed)
        check_split(split, source)
    else:
        split = _split_sources(sources, recipe, before, only_unseen)
    by_name = {pair.name: pair for pair in source.pairs}
    size = size or recipe.size
    pairs = [
        *(by_name[name] for name in split.train),
        *frames,
        *(by_name[name] for name in split.validation),
    ]
    cache = None if recipe.cache is None else Path(recipe.cache)
    largest = None if recipe.memory_gb is None else int(recipe.memory_gb * 1e9)
    resident = load_pairs(pairs, size, cache, largest)
    cut = len(pairs) - len(split.validation)
    if cut == 0:
        raise UserError(f"{recipe.root}: no training image is left; lower data.validation")
    train, validation = resident.part(slice(0, cut)), resident.part(slice(cut, None))
    _refuse_without_polyp(train, validation, recipe)
    if recipe.labelled_fraction < 1:
        train = _with_few_masks(train, recipe.labelled_fraction, recipe.split_seed)
    return TrainingData(
        train=train,
        validation=validation,
        split=split,
        source=source,
        frames={frame.name: digest for frame, digest in frames.items()},
        left_out=load_pairs(left_out, size, cache, largest) if left_out else None,
        origin=_origin(sources, recipe),
    )


def _split_sources(
    sources: Sequence[Source], recipe: DataRecipe, before: Lineage, only_unseen: bool
) -> Split:
    """Split each source by itself, so that every one of them validates."""
    splits: list[Split] = []
    for one in sources:
        split = validation_split(
            one.image_set,
            recipe.validation,
            recipe.split_seed,
            group_by=one.group_by,
            before=before,
            only_unseen=only_unseen,
        )
        before = split.lineage
        splits.append(split)
    refuse_near_tests(sources, splits)
    labels = [one.label or "data.root" for one in sources]
    whole = join(dict(zip(labels, splits, strict=True)))
    return replace(whole, lineage=_with_near_duplicates(whole, recipe))


def _origin(sources: Sequence[Source], recipe: DataRecipe) -> Origin:
    return Origin(
        {pair.name: number for number, one in enumerate(sources) for pair in one.image_set.pairs},
        {name: centre for one in sources for name, centre in one.centres.items()},
        {number: one.share for number, one in enumerate(sources) if one.share is not None},
        recipe.polyp_free_share,
    )


def with_frames(data: TrainingData, used: Collection[str]) -> TrainingData:
    """Record frames without masks among the images that were trained on.

    Args:
        data: of `load_training_data`.
        used: their names, `unlabelled/<stem>`.
    """
    digests = [digest for name, digest in data.frames.items() if name in used]
    lineage = extend(data.split.lineage, dict.fromkeys(digests, "train"))
    return replace(data, split=replace(data.split, lineage=lineage))


def _unlabelled_frames(recipe: DataRecipe) -> dict[Pair | VideoFrame, str]:
    """The frames of `data.unlabelled`, images and videos, with their digests."""
    found: dict[Pair | VideoFrame, str] = {}
    for source in find_sources(Path(str(recipe.unlabelled))):
        if source.kind == "video":
            stride = recipe.unlabelled_stride
            for number, digest in sample_video(source.path, pixel_digest, stride)[0]:
                name = f"unlabelled/{source.path.stem}_{number:06}"
                found[VideoFrame(name, source.path, number)] = digest
            continue
        pairs = [Pair(f"unlabelled/{pair.name}", pair.image, None) for pair in source.pairs]
        digests = parallel_map(
            lambda pair: pixel_digest(read_image(pair.image)), pairs, "hashing frames without masks"
        )
        found.update(zip(pairs, digests, strict=True))
    return found


def _with_near_duplicates(split: Split, recipe: DataRecipe) -> Lineage:
    """Add the test images that look like a training image."""
    lineage = split.lineage
    if not has_tests(Path(recipe.root)) or not split.prints or not split.train:
        return lineage
    try:
        tests = read_test_images(Path(recipe.root))
    except UserError as error:  # a training does not need them
        info(f"test images are not compared with training images: {error}")
        return lineage
    trained = [split.prints[name] for name in split.train]
    alike = similarity(tests.prints, trained).max(axis=1) > NEAR_DUPLICATE
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


def _with_few_masks(whole: ResidentSet, fraction: float, seed: int) -> ResidentSet:
    """Hide all masks but those of a random fraction of the images, of one at least."""
    known = whole.labelled.nonzero()[:, 0]
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    kept = torch.zeros_like(whole.labelled)
    kept[known[order[: max(1, round(fraction * len(known)))]]] = True
    return whole.with_masks_of(kept)
