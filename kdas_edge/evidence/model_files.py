"""Checks of a bundle's files: hashes, the metadata inside each model, format and operators."""

import importlib.util
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from kdas_edge.bundle.manifest import SCHEMA_VERSION, ModelFile
from kdas_edge.bundle.metadata import model_metadata
from kdas_edge.bundle.reader import Bundle
from kdas_edge.bundle.versions import Versions, file_versions
from kdas_edge.errors import UserError, first_line
from kdas_edge.evidence.checks import Check
from kdas_edge.files import sha256

_STANDARD_DOMAINS = ("", "ai.onnx")
# tells which schema wrote the file, not what a host must do
_SCHEMA_KEY = "kdas_edge_schema"


def check_schema(bundle: Bundle) -> Check:
    """The manifest is of a schema that is read here, and of the one that the model files name."""
    own = bundle.manifest.schema_version
    expected = f"at most {SCHEMA_VERSION}, the same in manifest and model files"
    for model in bundle.manifest.models:
        other = model.metadata.get(_SCHEMA_KEY, own)
        if other != own:
            return Check("schema", expected, f"{own}, and {other} in {model.path}", "fail")
    return Check("schema", expected, own, "pass")


def check_hashes(bundle: Bundle) -> list[Check]:
    """One check per file of the manifest, with both hashes; unreadable files fail."""
    checks = []
    for relative, record in bundle.manifest.files.items():
        what, expected = relative, f"{record.bytes} bytes, SHA-256 {record.sha256}"
        try:
            size = (bundle.path / relative).stat().st_size
            observed = f"{size} bytes, SHA-256 {sha256(bundle.file(relative))}"
        except OSError as error:
            observed = f"cannot be read: {error.strerror}"
        except UserError as error:  # a link that leaves the bundle, or no regular file
            observed = f"cannot be read: {first_line(error)}"
        checks.append(Check(what, expected, observed, "pass" if observed == expected else "fail"))
    return checks


def check_writers(bundle: Bundle) -> Iterator[Check]:
    """OpenVINO and ONNX files of one precision and preset say what the manifest's contract says.

    Files whose metadata cannot be read, or differs from their own entry in the manifest, are
    reported by `check_metadata` and left out here.
    """
    manifest = bundle.manifest
    groups: dict[tuple[Any, Any], list[ModelFile]] = {}
    for model in manifest.models:
        if model.format != "torch":
            groups.setdefault((model.precision, model.preset), []).append(model)
    for (precision, preset), models in groups.items():
        contract = model_metadata(
            preset,
            precision,
            manifest.normalisation,
            manifest.threshold,
            manifest.size,
            manifest.schema_version,
        )
        del contract[_SCHEMA_KEY]
        readable = [model for model in models if check_metadata(bundle, model).verdict == "pass"]
        names = " and ".join(model.format for model in readable)
        what = f"{precision} {preset}: writers"
        expected = "the models and the manifest's contract say the same"
        if not readable:
            yield Check(what, expected, "no model whose metadata can be compared", "skipped")
            continue
        found = [(model.format, model_metadata_in_file(bundle, model) or {}) for model in readable]
        different = [
            f"{key}: {source} says {values.get(key)!r}, the contract {value!r}"
            for key, value in contract.items()
            for source, values in found
            if values.get(key) != value
        ]
        if different:
            yield Check(what, expected, different[0], "fail")
        else:
            yield Check(what, expected, f"{names}: {len(contract)} keys equal", "pass")


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


def check_metadata(bundle: Bundle, model: ModelFile) -> Check:
    """The file holds the very strings that the manifest names for it."""
    what = f"{model.path}: metadata"
    expected = f"{len(model.metadata)} keys as in the manifest"
    try:
        found = model_metadata_in_file(bundle, model)
    except Exception as error:  # three libraries, no common base; a file that cannot be read fails
        return Check(what, expected, f"cannot be read: {first_line(error)}", "fail")
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


def check_versions(bundle: Bundle, model: ModelFile) -> Check:
    """The file is of the format and the operator set that the manifest records."""
    what = f"{model.path}: format"
    recorded = Versions(model.ir_version, model.opset, model.written_by)
    # a bundle of schema 1.0 records less
    known = {name: value for name, value in asdict(recorded).items() if value}
    expected = ", ".join(f"{name} {value}" for name, value in known.items()) or "readable"
    try:
        found = file_versions(bundle.file(model.path))
    except (ValueError, OSError) as error:
        return Check(what, expected, f"cannot be read: {first_line(error)}", "fail")
    for name, value in known.items():
        if getattr(found, name) != value:
            return Check(what, expected, f"{name} is {getattr(found, name)}", "fail")
    observed = (
        f"IR version {found.ir_version}, opset {found.opset}, {found.written_by or 'unsigned'}"
    )
    return Check(what, expected, observed, "pass")


def check_operators(bundle: Bundle, model: ModelFile) -> Check:
    """No operator that only one vendor's runtime knows."""
    what, expected = f"{model.path}: operators", f"standard {model.format} only"
    if model.format == "openvino" or importlib.util.find_spec("onnx") is None:
        # the operator sets that the file asks for, without the package that reads single nodes
        try:
            sets = file_versions(bundle.file(model.path)).foreign
        except (ValueError, OSError) as error:
            return Check(what, expected, f"cannot be read: {first_line(error)}", "fail")
        observed = f"operator sets {', '.join(sets)}" if sets else "operator sets all standard"
        return Check(what, expected, observed, "fail" if sets else "pass")
    import onnx

    try:
        graph = onnx.load(str(bundle.file(model.path)), load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError and others
        return Check(what, expected, f"cannot be read: {first_line(error)}", "fail")
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
