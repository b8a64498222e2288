"""Comparing frames with held-out images, which nothing may be trained or tuned on. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdas_edge.data.duplicates import (
    NEAR_DUPLICATE,
    Fingerprint,
    fingerprint,
    pixel_digest,
    similarity,
)
from kdas_edge.data.layout import find_pairs, set_folders
from kdas_edge.data.parallel import parallel_map
from kdas_edge.errors import UserError
from kdas_edge.files import real_path
from kdas_edge.image_files import read_image

TEST_FOLDER = "TestDataset"
_BLOCK = 4096


@dataclass(frozen=True)
class Match:
    """A frame that shows what a held-out image shows.

    Attributes:
        twin: the held-out image, relative to its root.
        correlation: of the fingerprints, above `NEAR_DUPLICATE`, or 1 if the pixels are equal.
        identical: the decoded pixels are equal.
    """

    twin: str
    correlation: float
    identical: bool

    @property
    def text(self) -> str:
        """How alike they are, in words."""
        if self.identical:
            return f"the same picture as {self.twin}"
        return f"a near duplicate of {self.twin} (correlation {self.correlation:.3f})"


@dataclass(frozen=True)
class HeldOut:
    """The images that must stay unseen.

    Attributes:
        names: one per image, as a person would look for it.
        digests: of the decoded pixels, see `pixel_digest`; "" where only a fingerprint exists.
        prints: fingerprints.
    """

    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    prints: tuple[Fingerprint, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __add__(self, other: "HeldOut") -> "HeldOut":
        return HeldOut(
            self.names + other.names, self.digests + other.digests, self.prints + other.prints
        )

    def matches(
        self, prints: Sequence[Fingerprint], digests: Sequence[str] | None = None
    ) -> list[Match | None]:
        """Compare frames with all held-out images.

        Args:
            prints: fingerprints of the frames.
            digests: of the frames' decoded pixels at their own size; without them, equal pixels
                are only found as near duplicates.

        Returns:
            For each frame the most alike held-out image, or None if none is alike.
        """
        found: list[Match | None] = [None] * len(prints)
        if not self.names:
            return found
        known = {digest: name for name, digest in zip(self.names, self.digests, strict=True)}
        for start in range(0, len(prints), _BLOCK):
            table = similarity(prints[start : start + _BLOCK], self.prints)
            for row, correlations in enumerate(table):
                nearest = int(np.argmax(correlations))
                index, value = start + row, float(correlations[nearest])
                if digests is not None and digests[index] in known:
                    found[index] = Match(known[digests[index]], 1.0, True)
                elif value > NEAR_DUPLICATE:
                    found[index] = Match(self.names[nearest], round(value, 4), False)
        return found


def has_tests(root: Path) -> bool:
    """True if a data root has a `TestDataset`."""
    return (root / TEST_FOLDER).is_dir()


def read_test_images(root: Path) -> HeldOut:
    """Read all test images of a data root in the PraNet layout.

    Raises:
        UserError: `root` has no TestDataset, or one of its images is unreadable.
    """
    if not has_tests(root):
        raise UserError(
            f"{root} holds no {TEST_FOLDER}/ to compare with; name the folder above it as --data"
        )
    paths = [
        pair.image
        for folder in set_folders(root).values()
        if (root / TEST_FOLDER) in (folder, folder.parent)
        for pair in find_pairs(folder, require_masks=False).pairs
    ]

    def read(path: Path) -> tuple[str, Fingerprint]:
        image = read_image(path)
        return pixel_digest(image), fingerprint(image)

    read_all = parallel_map(read, paths, "reading test images")
    return HeldOut(
        tuple(path.relative_to(root).as_posix() for path in paths),
        tuple(digest for digest, _ in read_all),
        tuple(found for _, found in read_all),
    )


def inside_tests(path: Path) -> bool:
    """True if a path lies in (or is) a folder named `TestDataset`."""
    resolved = real_path(path)
    return TEST_FOLDER in (resolved.name, *(parent.name for parent in resolved.parents))
