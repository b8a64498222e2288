"""The metadata that a model file carries, so that a host needs no other file to feed it.

One object, three writers: the manifest, OpenVINO's `rt_info/model_info` and ONNX's
`metadata_props` hold the same strings, and `kdas-edge verify` checks that they do. The key names
are OpenVINO Model API's, which DL Streamer and Geti read, too; our own begin with `kdas_edge_`.
"""

from kdas_edge.bundle.manifest import SCHEMA_VERSION, Normalisation, Precision, Preset

# What a pixel's value is where the graph takes over, per preset: the largest value that stands for
# full intensity. None: the host normalises, too.
_FULL_INTENSITY: dict[Preset, float | None] = {"core": None, "camera": 255.0, "holoscan": 1.0}
VALUE_RANGES: dict[Preset, tuple[float, float] | None] = {
    preset: None if full is None else (0.0, full) for preset, full in _FULL_INTENSITY.items()
}


def model_metadata(
    preset: Preset,
    precision: Precision,
    normalisation: Normalisation,
    threshold: float,
    size: int,
    schema: str = SCHEMA_VERSION,
) -> dict[str, str]:
    """The one metadata object that every writer embeds (OpenVINO Model API's key names).

    `mean_values`, `scale_values` and `reverse_input_channels` are for the host that prepares the
    input from a BGR frame of 0…255. A `camera` graph prepares it itself: its mean is 0, its scale
    1, its channels are not swapped, and `embedded_processing` tells Model API to leave the frame
    alone. A `holoscan` graph wants RGB of 0…1 and normalises by itself.

    Args:
        preset: of the file.
        precision: of the file.
        normalisation: of the network.
        threshold: of the mask.
        size: side S, in pixels.
        schema: of the bundle; a file of an older one holds fewer keys.
    """
    full = _FULL_INTENSITY[preset]
    mean, scale = [0.0] * 3, [255.0 / (full or 255.0)] * 3
    if full is None:
        mean = [round(255 * value, 4) for value in normalisation.mean]
        scale = [round(255 * value, 4) for value in normalisation.std]
    metadata = {
        "model_type": "Segmentation",
        "task_type": "segmentation",
        "labels": "background polyp",
        "mean_values": " ".join(str(value) for value in mean),
        "scale_values": " ".join(str(value) for value in scale),
        "reverse_input_channels": str(preset != "camera"),
        "resize_type": "standard",
        "orig_width": str(size),
        "orig_height": str(size),
        "soft_threshold": str(threshold),
        "blur_strength": "-1",
        "return_soft_prediction": "True",
        "kdas_edge_preset": preset,
        "kdas_edge_precision": precision,
        "kdas_edge_schema": schema,
    }
    if schema not in ("1.0", "1.1"):
        metadata["embedded_processing"] = str(preset == "camera")
        metadata["kdas_edge_value_range"] = "normalised" if full is None else f"0 {full:g}"
    return metadata
