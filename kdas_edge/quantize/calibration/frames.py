"""The calibration frames of a run: chosen for coverage, never held-out ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdas_edge.console import info
from kdas_edge.data.dataset import TrainingData
from kdas_edge.data.duplicates import Fingerprint, fingerprint, pixel_digest
from kdas_edge.data.frames import MOST_PER_VIDEO, STRIDE, find_sources, read_video_frames
from kdas_edge.data.heldout import HeldOut, has_tests, read_test_images
from kdas_edge.data.layout import TRAIN, resize_image
from kdas_edge.data.parallel import parallel_map
from kdas_edge.data.resident import ResidentSet
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.models.architecture import Architecture
from kdas_edge.models.inputs import normalise, resized
from kdas_edge.quantize.calibration.candidates import (
    Candidate,
    Look,
    choose,
    gather,
    look_at,
    screen,
)
from kdas_edge.quantize.calibration.make import refuse_test_images
from kdas_edge.quantize.calibration.manifest import find_frames, is_set
from kdas_edge.recipe import CalibrationRecipe


@dataclass(frozen=True)
class CalibrationSet:
    """Calibration frames.

    Attributes:
        images: (N, 3, S, S) uint8 RGB.
        names: N stems, as evidence of what was seen.
        origin: where they come from and how they were chosen, for the run's record.
    """

    images: Tensor
    names: tuple[str, ...]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def samples(self, architecture: Architecture) -> list[Tensor]:
        """Return N normalised float32 tensors (1, 3, S, S): NNCF traces a batch of one."""
        samples = []
        for image in self.images:
            x = resized(image[None].float() / 255, architecture.size)
            samples.append(normalise(x, architecture))
        return samples


def calibration_set(
    data: TrainingData, recipe: CalibrationRecipe, size: int, seed: int = 0
) -> CalibrationSet:
    """Choose calibration frames, or read those that were chosen before.

    `recipe.source` is None for the training split, a calibration set or manifest made by
    `kdas-edge calibrate` (its frames are taken as they are, their hashes checked), or a folder of
    images or videos, or one video, from which `recipe.samples` are chosen.

    Frames that show a test image of the data root, or nearly so, are left out of training images
    and refused anywhere else. Frames that show an image of the run's validation split are left
    out: the gate uses them.

    Args:
        data: the training split, and the validation split and root that must stay unseen.
        recipe: number of frames, method and source.
        size: side S of frames read from files, in pixels.
        seed: of the choice.

    Raises:
        UserError: no frame, an unreadable or changed one, or a test image among them.
    """
    root = data.source.root.parent if data.source.name == TRAIN else data.source.root
    tests = read_test_images(root) if has_tests(root) else HeldOut()
    if recipe.source is None:
        return _from_split(data.train, tests, recipe, seed)
    source = Path(recipe.source)
    validation = _validation(data.validation)
    if source.suffix == ".json" or is_set(source):
        return _from_manifest(source, root, tests, validation, size)
    return _from_recordings(source, tests, validation, recipe, size, seed)


def _from_split(
    train: ResidentSet, tests: HeldOut, recipe: CalibrationRecipe, seed: int
) -> CalibrationSet:
    def look(index: int) -> Look:
        image = np.ascontiguousarray(train.images[index].permute(1, 2, 0).cpu().numpy())
        mask = train.masks[index, 0].cpu().numpy() > 0 if train.labelled[index] else None
        return look_at(image, mask)

    looks = parallel_map(look, range(len(train)), "measuring training images")
    left_out = screen(train.names, looks, tests, same_size=False)
    _say_left_out(sum(one.held_out for one in left_out.values()), "training", "a test image")
    eligible = [index for index in range(len(train)) if index not in left_out]
    if not eligible:
        raise UserError(
            "every training image shows a test image; set calibration.source to other frames"
        )
    picks = choose([looks[index] for index in eligible], recipe.samples, recipe.method, seed)
    chosen = [eligible[index] for index in picks]
    return CalibrationSet(
        train.images[chosen].cpu(),
        tuple(train.names[index] for index in chosen),
        _origin("training split", recipe.method, len(train), len(left_out)),
    )


def _from_manifest(
    source: Path, root: Path, tests: HeldOut, validation: HeldOut, size: int
) -> CalibrationSet:
    manifest, files = find_frames(source, root)

    def read(file: Path) -> tuple[Fingerprint, str, NDArray[np.uint8]]:
        image = read_image(file)
        return fingerprint(image), pixel_digest(image), resize_image(image, size, size)

    frames = parallel_map(read, files, "reading calibration frames")
    prints = [found for found, _, _ in frames]
    shown = tests.matches(prints, [digest for _, digest, _ in frames])
    for file, match in zip(files, shown, strict=True):
        if match is not None:
            raise UserError(
                f"{source}: its frame {file.name} is {match.text}, a test image; make the set "
                "again with `kdas-edge calibrate … --data` and the data root of this run"
            )
    validates = validation.matches(prints)
    kept = [index for index, match in enumerate(validates) if match is None]
    left_out = len(files) - len(kept)
    _say_left_out(left_out, "calibration", "an image of the validation split")
    if not kept:
        raise _nothing_left(source)
    return CalibrationSet(
        _stack([frames[index][2] for index in kept]),
        tuple(manifest.frames[index].name for index in kept),
        _origin(source.name, manifest.method, len(files), left_out),
    )


def _from_recordings(
    source: Path,
    tests: HeldOut,
    validation: HeldOut,
    recipe: CalibrationRecipe,
    size: int,
    seed: int,
) -> CalibrationSet:
    sources = find_sources(source)
    candidates, _ = gather(sources, STRIDE, MOST_PER_VIDEO)
    names, looks = [one.name for one in candidates], [one.look for one in candidates]
    refuse_test_images(candidates, sources, screen(names, looks, tests))
    left_out = screen(names, looks, tests + validation)
    held_out = sum(one.held_out for one in left_out.values())
    _say_left_out(held_out, "calibration", "an image of the validation split or of a test set")
    eligible = [one for index, one in enumerate(candidates) if index not in left_out]
    if not eligible:
        raise _nothing_left(source)
    if len(eligible) < recipe.samples:
        info(
            f"{source}: {len(eligible)} frames are fewer than calibration.samples "
            f"{recipe.samples}: all are used"
        )
    picks = choose([one.look for one in eligible], recipe.samples, recipe.method, seed)
    chosen = [eligible[index] for index in picks]
    return CalibrationSet(
        _stack(_read(chosen, size)),
        tuple(one.name for one in chosen),
        _origin(source.name, recipe.method, len(candidates), len(left_out)),
    )


def _read(chosen: Sequence[Candidate], size: int) -> list[NDArray[np.uint8]]:
    """Chosen candidates as (size, size, 3), in their order; a video is decoded once."""
    numbers: dict[Path, list[int]] = {}
    for one in chosen:
        if one.video_frame is not None:
            numbers.setdefault(one.file, []).append(one.video_frame)
    # resized at once: three hundred frames of a modern endoscope would be 2 GB
    frames = {
        (file, number): resize_image(image, size, size)
        for file, wanted in numbers.items()
        for number, image in read_video_frames(file, wanted)
    }
    return [
        resize_image(read_image(one.file), size, size)
        if one.video_frame is None
        else frames[one.file, one.video_frame]
        for one in chosen
    ]


def _stack(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Images (S, S, 3) as one tensor (N, 3, S, S)."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))


def _validation(images: ResidentSet) -> HeldOut:
    prints = [
        fingerprint(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))
        for image in images.images
    ]
    return HeldOut(images.names, ("",) * len(images), tuple(prints))


def _origin(source: str, method: str, candidates: int, left_out: int) -> dict[str, Any]:
    return {"source": source, "method": method, "candidates": candidates, "left_out": left_out}


def _say_left_out(number: int, of: str, what: str) -> None:
    if number:
        info(f"{number} {of} frames show {what} or nearly so: left out of the calibration")


def _nothing_left(source: Path) -> UserError:
    return UserError(
        f"{source}: all its frames show images of the validation split; name other frames"
    )
