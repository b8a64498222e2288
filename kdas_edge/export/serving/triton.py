"""Triton Inference Server: one `config.pbtxt` per model and how to start the server."""

from collections.abc import Sequence
from pathlib import Path

from kdas_edge.bundle.manifest import Manifest
from kdas_edge.export.serving.served import Served
from kdas_edge.export.serving.text import client_section, model_table
from kdas_edge.files import write_text_atomic

CONFIGURATION = "config.pbtxt"
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}


def write_configuration(repository: Path, served: Sequence[Served], manifest: Manifest) -> None:
    """Write a complete `config.pbtxt` beside each model's versions."""
    for model in served:
        write_text_atomic(repository / model.name / CONFIGURATION, _configuration(model, manifest))


def _configuration(served: Served, manifest: Manifest) -> str:
    """Protobuf text of Triton's ModelConfig.

    `max_batch_size: 0` says that the shapes include the batch, which is 1: frames are answered one
    by one, and without `dynamic_batching` none waits for another.
    """
    contract, output = served.contract, manifest.output
    return f"""\
name: "{served.name}"
{_runtime(served)}
max_batch_size: 0
input [
  {{
    name: "{contract.name}"
    data_type: {_TYPES[contract.dtype]}
    dims: {list(contract.shape)}
  }}
]
output [
  {{
    name: "{output.name}"
    data_type: TYPE_FP32
    dims: {list(output.shape)}
  }}
]
"""


def _runtime(served: Served) -> str:
    if served.model.format == "onnx":
        return """\
platform: "onnxruntime_onnx"
default_model_filename: "model.onnx"
instance_group [ { count: 1 kind: KIND_AUTO } ]"""
    return """\
backend: "openvino"
default_model_filename: "model.xml"
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters [
  { key: "PERFORMANCE_HINT" value { string_value: "LATENCY" } },
  { key: "NUM_STREAMS" value { string_value: "1" } }
]"""


def readme(served: Sequence[Served], manifest: Manifest) -> str:
    """How to start Triton on the repository."""
    return f"""# {manifest.name} for Triton Inference Server

{manifest.disclaimer}

Start the server in this folder, with the release that your driver supports for RELEASE:

    docker run --rm --gpus all -p 8000:8000 -p 8001:8001 -v "$PWD":/models:ro \\
        nvcr.io/nvidia/tritonserver:RELEASE-py3 tritonserver --model-repository /models

Without a GPU, leave `--gpus all` out: the `onnxruntime` models then run on the CPU.

{model_table(served, manifest)}
{client_section(served)}
- Models that end in `_openvino` are for Triton's OpenVINO backend, which is the faster one for int8
  on Intel CPUs. It takes its arithmetic from the device: on a CPU with AMX or AVX512-BF16 an fp32
  model runs in bf16, as the backend passes no precision hint on. If the image lacks the backend,
  delete these folders, or Triton ends with an error.
- A new version: put it into a folder `2` beside `1`, and start the server with
  `--model-control-mode poll`; it serves the new one and then drops the old one.
"""
