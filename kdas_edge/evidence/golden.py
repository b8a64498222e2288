"""Checks of a bundle's results: the golden vectors, on one runtime."""

import io
import struct
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import GOLDEN_LEVELS, ModelFile
from kdas_edge.bundle.reader import Bundle
from kdas_edge.bundle.tolerances import TOLERANCES
from kdas_edge.errors import UserError, first_line
from kdas_edge.evidence.checks import Check
from kdas_edge.files import read_bytes
from kdas_edge.image_files import read_image
from kdas_edge.runtime.backends import Backend
from kdas_edge.runtime.inputs import model_input
from kdas_edge.runtime.targets import Target

# the two channels are probabilities, so that they add up to 1 but for rounding
_SUM_TOLERANCE = 1e-3
# a float32 map of the largest input that a network has, with its header
_LARGEST_MAP = 2**29


def check_golden(
    bundle: Bundle, model: ModelFile, target: Target, backend: Backend
) -> Iterator[Check]:
    """Run a model on every golden frame and compare with the probabilities of the torch model.

    Raises:
        UserError: a golden file is no array of the expected shape.
    """
    manifest = bundle.manifest
    where = f"{target} {model.precision} {model.preset}"
    vectors = [g for g in manifest.golden if model.precision in g.expected]
    if not vectors:
        yield Check(where, "golden vectors", "the bundle has none of this precision", "fail")
        return
    limit = TOLERANCES[model.precision]
    own = manifest.tolerances.get(model.precision, limit)
    size = manifest.size
    largest = 0.0
    disagreements = []
    for vector in vectors:
        frame = read_image(bundle.file(vector.frame))
        expected = read_expected(bundle, vector.expected[model.precision])
        output = backend.infer(model_input(frame, manifest, model.preset))
        problem = _contract_problem(output, size)
        if problem:
            rule = f"(1, 2, {size}, {size}) float32 probabilities that add up to 1"
            yield Check(f"{where}: output", rule, problem, "fail")
            return
        polyp = output[0, 1]
        largest = max(largest, float(np.abs(polyp - expected).max()))
        differs = (polyp > manifest.threshold) != (expected > manifest.threshold)
        disagreements.append(float(differs.mean()))
    yield Check(f"{where}: output", "two channels that add up to 1", "they do", "pass")
    # A pixel's probability is comparable only where the arithmetic and the resize are those of the
    # reference: not after bf16, nor after the resize inside a camera graph.
    exact = model.preset != "camera" and backend.effective.get("precision") == "f32"
    if limit.probability < 1 and exact:
        bound = min(own.probability, limit.probability)
        yield Check(
            f"{where}: probability",
            f"differs by at most {bound:g}",
            f"{largest:.2g}",
            "pass" if largest <= bound else "fail",
        )
    bound = min(own.disagreement, limit.disagreement)
    mean = float(np.mean(disagreements))
    yield Check(
        f"{where}: mask",
        f"at most {bound:.2%} of pixels differ",
        f"{mean:.3%} (largest probability difference {largest:.2g})",
        "pass" if mean <= bound else "fail",
    )


def _contract_problem(output: NDArray[np.float32], size: int) -> str | None:
    if output.shape != (1, 2, size, size) or output.dtype != np.float32:
        return f"{output.shape} {output.dtype}"
    if not np.isfinite(output).all():
        return "not a number in the output"
    error = float(np.abs(output.sum(axis=1) - 1).max())
    return f"the channels' sum differs from 1 by {error:.2g}" if error > _SUM_TOLERANCE else None


def read_expected(bundle: Bundle, relative: str) -> NDArray[np.float32]:
    """A map of the expected probabilities: a 16-bit PNG, or an array of schema 1.2.

    Args:
        bundle: the file's hash is compared with its manifest.
        relative: one of `manifest.golden[i].expected`.

    Returns:
        (S, S) float32 in 0…1.

    Raises:
        UserError: the file is no such map.
    """
    size = bundle.manifest.size
    content = read_bytes(bundle.file(relative), _LARGEST_MAP)
    try:
        if relative.endswith(".npy"):
            # pickles in a bundle are refused
            values = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            values = _decode(content, size)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(
            f"{bundle.path}: {relative!r} is not a map of probabilities ({first_line(error)}); "
            "export the bundle again"
        ) from None
    if getattr(values, "shape", None) != (size, size) or not np.isfinite(values).all():
        raise UserError(
            f"{bundle.path}: {relative!r} is not a {size}×{size} map of finite numbers; export the "
            "bundle again"
        )
    expected: NDArray[np.float32] = values
    return expected


def _decode(content: bytes, size: int) -> NDArray[np.float32]:
    """A grey PNG of 16 bits as probabilities; its header is asked before memory is taken."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[16:26] != struct.pack(
        ">IIBB", size, size, 16, 0
    ):
        raise ValueError(f"no grey PNG of 16 bits, {size}×{size}")
    levels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16:
        raise ValueError("a damaged PNG")
    return levels.astype(np.float32) / np.float32(GOLDEN_LEVELS)
