"""Write a bundle as the model repository of an inference server.

    repository/
      config.json                (OpenVINO Model Server)
      student_camera_int8/
        config.pbtxt             (Triton)
        1/model.xml .bin | model.onnx
      client.py README.md manifest.json

The model files are the bundle's own, hashes checked, byte for byte.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from kdas_edge.bundle.manifest import FILE_NAME, Format, ModelFile
from kdas_edge.bundle.reader import Bundle, model_files
from kdas_edge.errors import UserError
from kdas_edge.export.serving import ovms, triton
from kdas_edge.export.serving.served import VERSION, Served
from kdas_edge.files import check_output_directory, staged_directory, write_text_atomic

Layout = Literal["ovms", "triton"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_CLIENT = "client.py"


def is_bundle(source: Path) -> bool:
    """True for a folder with a manifest; `open_bundle` checks whether it is intact."""
    return (source / FILE_NAME).is_file()


def write_repository(
    bundle: Bundle,
    out: Path,
    layout: Layout,
    presets: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    overwrite: bool = False,
) -> list[Served]:
    """Write a bundle's models as a server's model repository.

    Args:
        bundle: opened, so that its hashes have been checked.
        out: the repository; it appears when it is complete.
        layout: `ovms` (OpenVINO IR) or `triton` (ONNX, and IR for Triton's OpenVINO backend).
        presets: only these; by default all.
        precisions: only these; by default all.
        overwrite: replace `out`.

    Returns:
        The models, in the order of the manifest.

    Raises:
        UserError: nothing in the bundle fits, or `out` is in use.
    """
    check_output_directory(out, overwrite)
    formats: tuple[Format, ...] = ("openvino",) if layout == "ovms" else ("onnx", "openvino")
    served = [
        _served(bundle, model, layout)
        for format_ in formats
        for model in bundle.manifest.models
        if model.format == format_
        and (presets is None or model.preset in presets)
        and (precisions is None or model.precision in precisions)
    ]
    if not served:
        held = ", ".join(
            f"{model.precision} {model.preset} ({model.format})" for model in bundle.manifest.models
        )
        raise UserError(
            f"bundle {bundle.name!r} has no model for --layout {layout} with these presets and "
            f"precisions; it holds {held}"
        )
    with staged_directory(out, overwrite) as staging:
        for entry in served:
            folder = staging / entry.name / VERSION
            folder.mkdir(parents=True)
            for relative in model_files(entry.model):
                source = bundle.file(relative)
                shutil.copyfile(source, folder / f"model{source.suffix}")
        shutil.copyfile(Path(__file__).with_name(_CLIENT), staging / _CLIENT)
        shutil.copyfile(bundle.path / FILE_NAME, staging / FILE_NAME)
        server = ovms if layout == "ovms" else triton
        server.write_configuration(staging, served, bundle.manifest)
        write_text_atomic(staging / "README.md", server.readme(served, bundle.manifest))
    return served


def _served(bundle: Bundle, model: ModelFile, layout: Layout) -> Served:
    # servers take a model's name from a folder and put it into a URL
    base = re.sub(r"[^A-Za-z0-9-]+", "_", bundle.name).strip("_") or "model"
    name = f"{base}_{model.preset}_{model.precision}"
    if layout == "triton" and model.format == "openvino":
        name += "_openvino"
    return Served(name, model, bundle.manifest.inputs[model.preset])
