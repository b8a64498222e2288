"""OpenVINO Model Server: `config.json` and how to start the server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdas_edge.bundle.manifest import Manifest
from kdas_edge.export.serving.served import Served
from kdas_edge.export.serving.text import client_section, model_table
from kdas_edge.files import write_json

CONFIGURATION = "config.json"


def write_configuration(repository: Path, served: Sequence[Served], manifest: Manifest) -> None:
    """Write `config.json`: one entry per model, paths relative to the file."""
    output = manifest.output.name
    entries = [{"config": _entry(model, output)} for model in served]
    write_json(repository / CONFIGURATION, {"model_config_list": entries})


def _entry(served: Served, output: str) -> dict[str, Any]:
    contract = served.contract
    return {
        "name": served.name,
        "base_path": served.name,
        "shape": {contract.name: f"({','.join(str(length) for length in contract.shape)})"},
        # a layout without a colon names the axes and adds no transposition
        "layout": {contract.name: contract.layout, output: "NCHW"},
        "target_device": "CPU",
        # The server's schema knows no precision of a model and refuses unknown keys. Without the
        # hint, a CPU with AMX or AVX512-BF16 would run an fp32 model in bf16.
        "plugin_config": {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"},
    }


def readme(served: Sequence[Served], manifest: Manifest) -> str:
    """How to start OpenVINO Model Server on the repository."""
    return f"""# {manifest.name} for OpenVINO Model Server

{manifest.disclaimer}

Start the server in this folder:

    docker run --rm -p 9000:9000 -p 8000:8000 -v "$PWD":/models:ro \\
        openvino/model_server:latest --config_path /models/{CONFIGURATION} \\
        --port 9000 --rest_port 8000

or, installed on the machine: `ovms --config_path {CONFIGURATION} --port 9000 --rest_port 8000`.
The paths in `{CONFIGURATION}` are relative to it.

{model_table(served, manifest)}
{client_section(served)}
- GPU or NPU: set `target_device`, and take the hint `INFERENCE_PRECISION_HINT` out (they compute
  in f16). An NPU wants static shapes, so a `core` model.
- A new version: put it into a folder `2` beside `1`. The server finds it by itself
  (`--file_system_poll_wait_seconds`), serves it, and then drops the old one.
"""
