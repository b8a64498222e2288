#!/usr/bin/env python3
"""Send one frame to OpenVINO Model Server or Triton and write the mask.

    python client.py frame.png --model student_camera_int8 --out mask.png

Both servers use the KServe protocol, version 2, over HTTP, with tensors as bytes behind the JSON
("binary tensor data extension"). The file stands alone: Python, NumPy and Pillow are all it needs.
`manifest.json` beside it gives the normalisation for `core` models and the threshold.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# of other formats Pillow would start programs: Ghostscript for an EPS file under any name
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
_HEADER = "Inference-Header-Content-Length"
_TYPES: dict[str, type] = {"FP32": np.float32, "UINT8": np.uint8}


def prepare(
    frame_rgb: NDArray[np.uint8], tensor: dict[str, Any], manifest: dict[str, Any]
) -> NDArray[Any]:
    """Make the input that a model's metadata asks for.

    Args:
        frame_rgb: (H, W, 3) uint8.
        tensor: of the server's metadata: datatype and shape.
        manifest: the bundle's.

    Returns:
        camera models: the frame, (1, H, W, 3) uint8 BGR. Others are resized with an antialiased
        bilinear filter, as in training: (1, S, S, 3) float32 RGB of 0…1, or (1, 3, S, S),
        normalised.
    """
    if tensor["datatype"] == "UINT8":
        return np.ascontiguousarray(frame_rgb[None, ..., ::-1])
    size = int(manifest["size"])
    small = Image.fromarray(frame_rgb).resize((size, size), Image.Resampling.BILINEAR)
    unit = np.asarray(small, np.float32) / np.float32(255)
    if int(tensor["shape"][-1]) == 3:
        return unit[None]
    mean = np.asarray(manifest["normalisation"]["mean"], np.float32)
    std = np.asarray(manifest["normalisation"]["std"], np.float32)
    return np.ascontiguousarray(((unit - mean) / std).transpose(2, 0, 1)[None])


def infer(url: str, model: str, x: NDArray[Any], tensor: dict[str, Any], output: str) -> Any:
    """Ask the server; returns the output as an array."""
    content = x.tobytes()
    header = {
        "inputs": [
            {
                "name": tensor["name"],
                "shape": list(x.shape),
                "datatype": tensor["datatype"],
                "parameters": {"binary_data_size": len(content)},
            }
        ],
        "outputs": [{"name": output, "parameters": {"binary_data": True}}],
    }
    head = json.dumps(header).encode()
    request = urllib.request.Request(
        f"{url}/v2/models/{model}/infer",
        data=head + content,
        headers={"Content-Type": "application/octet-stream", _HEADER: str(len(head))},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        body, length = reply.read(), reply.headers.get(_HEADER)
    answer = json.loads(body[: int(length)] if length else body)
    found = next(entry for entry in answer["outputs"] if entry["name"] == output)
    kind = _TYPES[found["datatype"]]
    if "data" in found:  # a server may answer in JSON all the same
        return np.asarray(found["data"], kind).reshape(found["shape"])
    return np.frombuffer(body[int(length or 0) :], kind).reshape(found["shape"])


def metadata(url: str, model: str) -> dict[str, Any]:
    """Read a model's metadata from the server: names, types and shapes of its tensors."""
    with urllib.request.urlopen(f"{url}/v2/models/{model}", timeout=60) as reply:
        found: dict[str, Any] = json.loads(reply.read())
    return found


def main() -> int:
    """Run the command line; 0 if the mask was written, 1 if the server refused, 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frame", type=Path, help="image file")
    parser.add_argument("--model", required=True, help="name of the model on the server")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server's HTTP port")
    parser.add_argument("--out", type=Path, default=Path("mask.png"), help="the mask, a PNG file")
    parser.add_argument(
        "--manifest", type=Path, default=Path(__file__).with_name("manifest.json"), help="bundle's"
    )
    arguments = parser.parse_args()
    url = arguments.url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        print(f"error: {url} is no http address", file=sys.stderr)
        return 2
    try:
        with Image.open(arguments.frame, formats=_FORMATS) as image:
            frame = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        manifest = json.loads(arguments.manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        described = metadata(url, arguments.model)
        tensor, output = described["inputs"][0], described["outputs"][0]["name"]
        x = prepare(frame, tensor, manifest)
        probability = infer(url, arguments.model, x, tensor, output)[0, 1]
    except urllib.error.HTTPError as error:
        print(f"error: {error.code} {error.read().decode(errors='replace')[:300]}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: no answer from {url}: {error}", file=sys.stderr)
        return 1
    # the probability is enlarged and then cut, so that the contour stays smooth
    full = Image.fromarray(probability).resize(
        (frame.shape[1], frame.shape[0]), Image.Resampling.BILINEAR
    )
    mask = np.asarray(full) > manifest["threshold"]
    Image.fromarray(mask.astype(np.uint8) * 255).save(arguments.out)
    print(f"{arguments.out}: {mask.mean():.2%} of {frame.shape[1]}×{frame.shape[0]} pixels polyp")
    return 0


if __name__ == "__main__":
    sys.exit(main())
