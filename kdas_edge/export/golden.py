"""Golden vectors: a few frames with the probabilities that every runtime must reproduce."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from kdas_edge.bundle.manifest import GOLDEN_LEVELS, Golden, Precision
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import KdasEdgeError, UserError
from kdas_edge.export.agreement import Frame, Map, reference
from kdas_edge.image_files import read_image
from kdas_edge.models.architecture import Architecture

_SYNTHETIC_GOLDEN = 4
_SYNTHETIC_DRAWN = 16
_SYNTHETIC_SILENT = 8
# not the network's size, so that the golden frames also exercise the resize
_SYNTHETIC_SIDE = 400


def golden_frames(
    paths: Sequence[Path] | None,
    networks: Sequence[nn.Module],
    architecture: Architecture,
    threshold: float,
) -> list[Frame]:
    """Read the given frames, or draw scenes and keep those on which the networks are decided.

    A synthetic scene is new to a network that learnt from patients; where it hesitates, masks
    differ by rounding alone, and a golden vector that cannot tell a wrong runtime from rounding is
    of no use. The choice asks the torch networks only, never the runtimes that are to be judged.

    Args:
        paths: images, or None for drawn scenes.
        networks: float and quantised torch networks of the bundle.
        architecture: of all of them.
        threshold: of the mask.

    Raises:
        UserError: an empty list, or an image that cannot be read.
    """
    if paths is not None:
        if not paths:
            raise UserError("no golden frame given; leave --golden out for synthetic ones")
        return [read_image(path) for path in paths]

    def best(seeds: range, polyp: bool, count: int) -> list[Frame]:
        """The scenes on which all networks see what was drawn, the most decided first."""

        def undecided(frame: Frame) -> tuple[bool, float]:
            maps = [reference(network, architecture, [frame])[0] for network in networks]
            wrong = any(bool((values > threshold).any()) != polyp for values in maps)
            unsure = max(float(((values > 0.1) & (values < 0.9)).mean()) for values in maps)
            return wrong, unsure

        scenes = [scene(seed, _SYNTHETIC_SIDE, polyp)[0] for seed in seeds]
        return sorted(scenes, key=undecided)[:count]

    first = _SYNTHETIC_DRAWN
    # the last one without a polyp: silence must be reproduced as well
    return [
        *best(range(first), True, _SYNTHETIC_GOLDEN - 1),
        *best(range(first, first + _SYNTHETIC_SILENT), False, 1),
    ]


def write_golden(
    staging: Path,
    frames: Sequence[Frame],
    expected: Mapping[Precision, Sequence[Map]],
    references: Mapping[Precision, Precision],
) -> list[Golden]:
    """Write `golden/`: frames, and maps as grey PNG of 16 bits, 65535 being 1.

    A map is mostly 0 and 1, so that it takes a hundredth of the room of float32; rounding moves a
    probability by at most 1/131070, a thirteenth of the smallest tolerance.

    Args:
        staging: the bundle's folder.
        frames: (H, W, 3) uint8 RGB.
        expected: of each torch model, by the precision that it stands for, (S, S) polyp
            probabilities per frame (and perhaps more frames, which are not stored).
        references: precision of each exported file to the torch model that it must reproduce.

    Raises:
        KdasEdgeError: a network gave something that is not a probability, NaN among it.
    """
    (staging / "golden").mkdir()
    vectors = []
    for index, frame in enumerate(frames):
        picture = f"golden/frame_{index:02d}.png"
        Image.fromarray(frame).save(staging / picture)
        for model in set(references.values()):
            Image.fromarray(_levels(expected[model][index], model)).save(
                staging / _vector(index, model), optimize=True
            )
        vectors.append(
            Golden(
                frame=picture,
                expected={file: _vector(index, model) for file, model in references.items()},
            )
        )
    return vectors


def _levels(probabilities: Map, model: Precision) -> NDArray[np.uint16]:
    # written so that a NaN fails as well
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise KdasEdgeError(
            f"the {model} network gave values that are no probabilities (NaN, or outside 0…1); "
            "train or quantise it again"
        )
    return np.rint(probabilities.astype(np.float64) * GOLDEN_LEVELS).astype(np.uint16)


def _vector(index: int, model: Precision) -> str:
    return f"golden/frame_{index:02d}_{model}.png"
