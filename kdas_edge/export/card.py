"""MODEL_CARD.md of a bundle, from its manifest: what is known, and what is not."""

from kdas_edge.bundle.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """Return the card as Markdown."""
    provenance = manifest.provenance
    model = provenance.recipe.get("model", {})
    data = provenance.recipe.get("data", {})
    files = "\n".join(
        f"| `{m.path}` | {m.precision} | {m.format} | {m.preset} | "
        f"{_megabytes(manifest, m.path):.2f} | {m.ir_version or ''} | {m.opset or ''} |"
        for m in manifest.models
    )
    accuracy = "\n".join(
        f"| {r.dataset} | {r.protocol} | {r.precision} | {r.runtime} | {r.images} | "
        + ", ".join(f"{name} {value:.4f}" for name, value in r.metrics.items())
        + " |"
        for r in manifest.accuracy
    )
    measured = (
        "| data set | protocol | precision | runtime | images | metrics |\n"
        f"|---|---|---|---|---|---|\n{accuracy}"
        if accuracy
        else "Not measured when the bundle was written; `kdas-edge bench` measures it."
    )
    speeds = provenance.notes.get("int8_speed", [])
    speed = "\n".join(f"- {row['line']}" for row in speeds) or "Not timed at export."
    changes = "\n".join(
        f"- {precision}: {100 * row['disagreement']:.2f} % of mask pixels differ from fp32 "
        f"({row['frames']} frames, worst {100 * row['worst']:.2f} %)"
        for precision, row in provenance.notes.get("change_from_fp32", {}).items()
    )
    made = provenance.created
    return f"""# {manifest.name}

**{manifest.disclaimer}**

Segments polyps in colonoscopy frames: one frame in, one probability per pixel out.

## Model
- Architecture: Polyp-PVT on `{provenance.notes.get("backbone", model.get("backbone", "unknown"))}`,
  {provenance.parameters / 1e6:.2f} M parameters,
  {provenance.multiply_accumulates / 1e9:.2f} G multiply-accumulates at
  {manifest.size}×{manifest.size}
- Input: see `inputs` in `manifest.json`; `camera` files take a BGR frame of any size, `core` files
  a normalised {manifest.size}×{manifest.size} image
- Output: (1, 2, {manifest.size}, {manifest.size}) probabilities of background and polyp; polyp
  where the second is above {manifest.threshold}
- Training data: `{data.get("root", "unknown")}`, split {provenance.data_split_sha256 or "unknown"}
- Made: {made}, kdas-edge {provenance.code_version}

## Files
| file | precision | format | preset | MB | IR version | opset |
|---|---|---|---|---|---|---|
{files}

## int8
{speed}
{changes}

## Accuracy
{measured}

The validation split chose the best epoch, so that its figures are slightly hopeful.

## Limits
- Not evaluated on recordings of your centre, endoscope or light source; evaluate before any use.
- Public polyp data sets hold few frames without a polyp, with stool, bubbles or instruments: expect
  more false positives on continuous video than on still images.
- Flat and small polyps are missed more often than large ones.
- Frames are judged one by one, without memory of the frames before.
- The resize is part of the model: another filter than PIL's antialiased bilinear changes masks.
"""


def _megabytes(manifest: Manifest, path: str) -> float:
    weights = path.removesuffix(".xml") + ".bin"
    names = {path, weights} if path.endswith(".xml") else {path}
    return sum(manifest.files[name].bytes for name in names if name in manifest.files) / 1e6
