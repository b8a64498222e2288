"""Does a bundle do on this machine what it did where it was made?

Opening checks every hash. Then: the metadata inside each model file equals the manifest's, and so
do its format and operator set; files use standard operators only; and every runtime that is present
reproduces the golden vectors, which are the probabilities of the torch models.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import SCHEMA_VERSION, TOLERANCES, ModelFile
from kdas_edge.bundle.reader import Bundle, open_bundle
from kdas_edge.bundle.versions import Versions, file_versions
from kdas_edge.data.layout import read_image
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import FORMATS, Backend, open_backend
from kdas_edge.runtime.segmenter import preprocess
from kdas_edge.runtime.targets import Target, parse_target

_DEFAULT_TARGETS = ("openvino:CPU", "onnxruntime:CPU", "torch:cpu")
_STANDARD_DOMAINS = ("", "ai.onnx")
# the two channels are probabilities, so that they add up to 1 but for rounding
_SUM_TOLERANCE = 1e-3

Verdict = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        what: the file, the runtime and the property.
        expected: the rule, with its number.
        observed: what was found, with its number.
        verdict: `skipped` is a check that this machine cannot make; `observed` says why.
    """

    what: str
    expected: str
    observed: str
    verdict: Verdict


@dataclass(frozen=True)
class VerificationReport:
    """All checks of one bundle on one machine.

    Attributes:
        bundle: the bundle's name.
        checks: in the order in which they were made.
        targets: target -> what the runtime says it does (`Backend.effective`).
    """

    bundle: str
    checks: list[Check]
    targets: dict[str, dict[str, object]]

    @property
    def passed(self) -> bool:
        """True if no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.verdict == "fail"]

    def as_json(self) -> dict[str, Any]:
        """A JSON object with everything."""
        return {"passed": self.passed, **asdict(self)}


def verify(bundle_path: Path, targets: Sequence[Target] | None = None) -> VerificationReport:
    """Check a bundle's files, metadata and results.

    Args:
        bundle_path: the bundle's directory.
        targets: where to run the golden vectors; by default the CPU of every runtime that is
            installed and for which the bundle has a model.

    Raises:
        UserError: the bundle is damaged or cannot be read, or a named target is absent or has no
            model in the bundle. A disagreement is no exception here: see `failures`.
    """
    bundle = open_bundle(bundle_path)
    count = len(bundle.manifest.files)
    checks = [
        Check("schema", f"at most {SCHEMA_VERSION}", bundle.manifest.schema_version, "pass"),
        Check("hashes", f"{count} files as in the manifest", f"{count} files equal", "pass"),
    ]
    for model in bundle.manifest.models:
        checks.append(_check_metadata(bundle, model))
        if model.format != "torch":
            checks.append(_check_versions(bundle, model))
            checks.append(_check_operators(bundle, model))
    effective: dict[str, dict[str, object]] = {}
    for target in _choose_targets(bundle, targets):
        for model in bundle.manifest.models:
            if model.format == FORMATS[target.runtime]:
                backend = open_backend(bundle, model.precision, target, model.preset)
                try:
                    effective.setdefault(str(target), dict(backend.effective))
                    checks += _check_golden(bundle, model, target, backend)
                finally:
                    backend.close()
    return VerificationReport(bundle.name, checks, effective)


def model_metadata_in_file(bundle: Bundle, model: ModelFile) -> dict[str, str] | None:
    """Read the metadata that a model file itself holds, as a host would.

    Returns:
        The strings, or None for a format that cannot be read without torch installed.
    """
    path = bundle.file(model.path)
    if model.format == "openvino":
        from kdas_edge.runtime.backends import openvino

        graph = openvino.core().read_model(path)
        # an absent `model_info` is an error in OpenVINO, and here simply no metadata
        if not graph.has_rt_info(["model_info"]):
            return {}
        return {key: str(value) for key, value in graph.get_rt_info(["model_info"]).value.items()}
    if model.format == "onnx":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        # the graph is not run here
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return dict(session.get_modelmeta().custom_metadata_map)
    if importlib.util.find_spec("safetensors") is None:
        return None
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def _check_metadata(bundle: Bundle, model: ModelFile) -> Check:
    what = f"{model.path}: metadata"
    expected = f"{len(model.metadata)} keys as in the manifest"
    try:
        found = model_metadata_in_file(bundle, model)
    except Exception as error:  # three libraries, no common base; a file that cannot be read fails
        return Check(what, expected, f"cannot be read: {_first_line(error)}", "fail")
    if found is None:
        return Check(what, expected, "safetensors is not installed here", "skipped")
    different = sorted(
        key
        for key in found.keys() | model.metadata.keys()
        if found.get(key) != model.metadata.get(key)
    )
    if different:
        key = different[0]
        observed = f"{key} is {found.get(key)!r}, not {model.metadata.get(key)!r}"
        return Check(what, expected, observed, "fail")
    return Check(what, expected, "equal", "pass")


def _check_versions(bundle: Bundle, model: ModelFile) -> Check:
    """The file is of the format and the operator set that the manifest records."""
    what = f"{model.path}: format"
    recorded = Versions(model.ir_version, model.opset, model.written_by)
    # a bundle of schema 1.0 records less
    known = {name: value for name, value in asdict(recorded).items() if value}
    expected = ", ".join(f"{name} {value}" for name, value in known.items()) or "readable"
    try:
        found = file_versions(bundle.file(model.path))
    except (ValueError, OSError) as error:
        return Check(what, expected, f"cannot be read: {_first_line(error)}", "fail")
    for name, value in known.items():
        if getattr(found, name) != value:
            return Check(what, expected, f"{name} is {getattr(found, name)}", "fail")
    observed = (
        f"IR version {found.ir_version}, opset {found.opset}, {found.written_by or 'unsigned'}"
    )
    return Check(what, expected, observed, "pass")


def _check_operators(bundle: Bundle, model: ModelFile) -> Check:
    """No operator that only one vendor's runtime knows."""
    what, expected = f"{model.path}: operators", f"standard {model.format} only"
    if model.format == "openvino" or importlib.util.find_spec("onnx") is None:
        # the operator sets that the file asks for, without the package that reads single nodes
        try:
            sets = file_versions(bundle.file(model.path)).foreign
        except (ValueError, OSError) as error:
            return Check(what, expected, f"cannot be read: {_first_line(error)}", "fail")
        observed = f"operator sets {', '.join(sets)}" if sets else "operator sets all standard"
        return Check(what, expected, observed, "fail" if sets else "pass")
    import onnx

    try:
        graph = onnx.load(str(bundle.file(model.path)), load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError and others
        return Check(what, expected, f"cannot be read: {_first_line(error)}", "fail")
    foreign = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for node in _nodes(graph)
            if node.domain not in _STANDARD_DOMAINS
        }
    )
    if foreign:
        return Check(what, expected, ", ".join(foreign), "fail")
    return Check(what, expected, f"{len(graph.node)} nodes, all standard", "pass")


def _nodes(graph: Any) -> Iterator[Any]:
    """Nodes of an ONNX graph and of the graphs inside its If and Loop nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _nodes(inner)


def _choose_targets(bundle: Bundle, targets: Sequence[Target] | None) -> list[Target]:
    formats = {model.format for model in bundle.manifest.models}
    if targets is not None:
        for target in targets:
            if FORMATS[target.runtime] not in formats:
                raise UserError(
                    f"target {target}: bundle {bundle.name!r} has no {FORMATS[target.runtime]} "
                    f"model; it has {', '.join(sorted(formats))}"
                )
        return list(targets)
    chosen = [parse_target(text) for text in _DEFAULT_TARGETS]
    return [
        target
        for target in chosen
        if FORMATS[target.runtime] in formats
        and importlib.util.find_spec(target.runtime) is not None
    ]


def _check_golden(
    bundle: Bundle, model: ModelFile, target: Target, backend: Backend
) -> Iterator[Check]:
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
        expected = _read_expected(bundle, vector.expected[model.precision])
        if model.preset == "camera":
            x: NDArray[np.generic] = np.ascontiguousarray(frame[np.newaxis, ..., ::-1])
        else:
            x = preprocess(frame, manifest)
        output = backend.infer(x)
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
    exact = model.preset == "core" and backend.effective.get("precision") == "f32"
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


def _read_expected(bundle: Bundle, relative: str) -> NDArray[np.float32]:
    size = bundle.manifest.size
    try:
        # pickles in a bundle are refused
        values = np.load(bundle.file(relative), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(
            f"{bundle.path}: {relative!r} is not a NumPy array ({_first_line(error)}); "
            "export the bundle again"
        ) from None
    if getattr(values, "shape", None) != (size, size):
        raise UserError(
            f"{bundle.path}: {relative!r} is not a {size}×{size} map; export the bundle again"
        )
    expected: NDArray[np.float32] = values
    return expected


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
