"""Deterministic export: the same checkpoint, exported twice more, gives the same files twice.

Each export is a process of its own with another hash seed, so that nothing which depends on the
order of a set or on what a process did before stays hidden.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdas_edge.bundle.manifest import ModelFile
from kdas_edge.bundle.reader import Bundle, model_files
from kdas_edge.errors import last_line
from kdas_edge.evidence.checks import Check
from kdas_edge.files import sha256

# what an export needs beyond the device's packages
_NEEDED = ("torch", "timm", "nncf", "onnx", "safetensors")
_EXPECTED = "two new exports are equal, byte for byte"
# two exports of a large network on a slow machine; far beyond is a hang
_TIMEOUT = 3600


def check_exports(bundle: Bundle, quantized_run: Path | None = None) -> Iterator[Check]:
    """Export the bundle's checkpoint twice and compare the files with each other.

    Args:
        bundle: with a torch checkpoint, or nothing can be exported.
        quantized_run: the run that the int8 files came from; a bundle does not hold it.

    Yields:
        One check per model file. `observed` also tells whether the new files equal the bundle's,
        which they do with the same packages on a like processor; that is no part of the verdict.
    """
    exported = [model for model in bundle.manifest.models if model.format != "torch"]
    source = next((model for model in bundle.manifest.models if model.format == "torch"), None)
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        reason = f"not checked: needs kdas-edge[train] ({', '.join(absent)} not installed)"
    elif source is None:
        reason = "not checked: the bundle holds no torch checkpoint"
    else:
        reason = ""
    if source is None or reason:
        yield Check("export", _EXPECTED, reason, "skipped")
        return
    possible = [m for m in exported if m.precision != "int8" or quantized_run is not None]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("first", "second")]
        for seed, out in enumerate(outputs, 1):
            problem = _export(bundle.file(source.path), quantized_run, possible, out, seed)
            if problem is not None:
                yield Check("export", _EXPECTED, problem, "fail")
                return
        for model in exported:
            what = f"{model.path}: export"
            if model in possible:
                yield _compare(bundle, model, outputs)
            else:
                reason = "not checked: needs the quantised run, which a bundle does not hold"
                yield Check(what, _EXPECTED, reason, "skipped")


def _export(
    checkpoint: Path,
    quantized_run: Path | None,
    models: Sequence[ModelFile],
    out: Path,
    seed: int,
) -> str | None:
    """Run `kdas-edge export`; returns what went wrong, or None."""
    command = [
        # -P: a bundle may be the working folder, and its files are no modules
        *(sys.executable, "-P", "-m", "kdas_edge", "export", str(checkpoint), "--out", str(out)),
        *("--precision", ",".join(dict.fromkeys(model.precision for model in models))),
        *("--preset", ",".join(dict.fromkeys(model.preset for model in models))),
        *("--no-timing", "--no-torch"),
        *(("--int8", str(quantized_run)) if quantized_run is not None else ()),
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
    except subprocess.TimeoutExpired:
        return f"the export took longer than {_TIMEOUT} s"
    # 3: a file differs from torch by more than the tolerance; the golden vectors judge that
    if done.returncode not in (0, 3):
        return f"the export failed: {last_line(done.stderr) or done.returncode}"
    return None


def _compare(bundle: Bundle, model: ModelFile, outputs: Sequence[Path]) -> Check:
    what = f"{model.path}: export"
    same_as_bundle = True
    for relative in model_files(model):
        if not all((out / relative).is_file() for out in outputs):
            return Check(what, _EXPECTED, f"{relative} could not be exported", "fail")
        first, second = (sha256(out / relative) for out in outputs)
        if first != second:
            observed = f"{relative}: SHA-256 {first[:16]}… and {second[:16]}…"
            return Check(what, _EXPECTED, observed, "fail")
        same_as_bundle &= first == bundle.manifest.files[relative].sha256
    observed = "equal, and as in the bundle" if same_as_bundle else "equal; the bundle's differs"
    return Check(what, _EXPECTED, observed, "pass")
