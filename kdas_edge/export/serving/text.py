"""Sections that the READMEs of all repositories share."""

from collections.abc import Sequence

from kdas_edge.bundle.manifest import Manifest
from kdas_edge.export.serving.served import Served


def model_table(served: Sequence[Served], manifest: Manifest) -> str:
    """Names, files and inputs of the models, as Markdown."""
    lines = ["| model | precision | input | what the client does |", "|---|---|---|---|"]
    duties = {
        "camera": "nothing: a BGR frame of any size",
        "core": "resizes (antialiased) and normalises RGB",
        "holoscan": "resizes (antialiased), RGB of 0…1",
    }
    for entry in served:
        contract = entry.contract
        shape = "×".join("any" if n < 0 else str(n) for n in contract.shape)
        lines.append(
            f"| `{entry.name}` | {entry.model.precision} | `{contract.name}` {shape} "
            f"{contract.dtype} {contract.layout} | {duties[entry.model.preset]} |"
        )
    size = manifest.size
    lines.append(
        f"\nOutput of each: `{manifest.output.name}` 1×2×{size}×{size} float32, probabilities of "
        f"{' and '.join(manifest.classes)}; polyp where the second is above {manifest.threshold}."
    )
    return "\n".join(lines) + "\n"


def client_section(served: Sequence[Served]) -> str:
    """How to send a frame."""
    name = next((e.name for e in served if e.model.preset == "camera"), served[0].name)
    return f"""\
Send a frame; the client needs Python, NumPy and Pillow and uses the KServe protocol, version 2,
over HTTP, which both servers do:

    python client.py FRAME.png --model {name} --url http://127.0.0.1:8000 --out mask.png
"""
