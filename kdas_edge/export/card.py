"""MODEL_CARD.md of a bundle, from its manifest: what is known, what was measured, what is not."""

from collections.abc import Iterator, Sequence
from typing import Any

from kdas_edge.bundle.manifest import AccuracyRecord, Manifest

CARD_NAME = "MODEL_CARD.md"
# which metrics of each protocol the card shows, in this order; others follow in the manifest
_METRICS = {
    "deploy": ("Dice", "IoU", "sensitivity", "precision", "specificity"),
    "paper": ("mDice", "mIoU", "wFmeasure", "Smeasure", "maxEmeasure", "MAE"),
}
_PROTOCOLS = {
    "deploy": "what the device does: fixed threshold, every frame counted",
    "paper": "PraNet's evaluation: maps stretched, mean over 256 thresholds",
}
_ROUNDED = "rounded to 16 bits for this bundle, after the training's own validation"


def model_card(manifest: Manifest) -> str:
    """Return the card as Markdown."""
    measured = (_accuracy, _failures, _speed, _change)
    sections = (_head, _model, _data, *measured, _limits, _licences)
    return "\n".join(part for section in sections for part in section(manifest))


def _head(manifest: Manifest) -> Iterator[str]:
    yield f"""# {manifest.name}

**{manifest.disclaimer}**

Segments polyps in colonoscopy frames: one frame in, one probability per pixel out.

## Intended use
- For research, for engineering tests of endoscopy software, and as a part that its integrator
  validates for a purpose of their own.
- Not for diagnosis, detection during a procedure, measuring, or any decision about a patient. It is
  no medical device and has no regulatory clearance in any country.
- Made for white-light colonoscopy frames in colour. Narrow-band imaging, chromoendoscopy, capsules
  and other organs are outside of what it has seen.
"""


def _model(manifest: Manifest) -> Iterator[str]:
    provenance, size = manifest.provenance, manifest.size
    model = provenance.recipe.get("model", {})
    files = "\n".join(
        f"| `{m.path}` | {m.precision} | {m.format} | {m.preset} | "
        f"{_megabytes(manifest, m.path):.2f} | {m.ir_version or ''} | {m.opset or ''} |"
        for m in manifest.models
    )
    rounded = "float_weight_bits" in provenance.notes
    yield f"""## Model
- Architecture: Polyp-PVT on `{provenance.notes.get("backbone", model.get("backbone", "unknown"))}`,
  {provenance.parameters / 1e6:.2f} M parameters,
  {provenance.multiply_accumulates / 1e9:.2f} G multiply-accumulates at {size}×{size}
- Input: see `inputs` in `manifest.json`; `camera` files take a BGR frame of any size, `core` files
  a normalised {size}×{size} image
- Output: (1, 2, {size}, {size}) probabilities of background and polyp; polyp where the second is
  above {manifest.threshold}
- Weights of fp32: {_ROUNDED if rounded else "as they were trained"}
- Made: {provenance.created}, kdas-edge {provenance.code_version}

| file | precision | format | preset | MB | IR version | opset |
|---|---|---|---|---|---|---|
{files}
"""


def _data(manifest: Manifest) -> Iterator[str]:
    provenance = manifest.provenance
    data = provenance.recipe.get("data", {})
    calibration = (provenance.notes.get("quantization") or {}).get("calibration") or {}
    frames = calibration.get("frames")
    evaluated: dict[str, int] = {}
    for record in manifest.accuracy:
        evaluated[record.dataset] = max(record.images, evaluated.get(record.dataset, 0))
    listed = ", ".join(f"{name} ({count} images)" for name, count in evaluated.items())
    yield f"""## Data
- Training: `{data.get("root", "unknown")}`, split {provenance.data_split_sha256 or "not recorded"}
- Calibration of int8: {f"{frames} frames of the training side" if frames else "none recorded"}
- Evaluated on: {listed or "nothing yet"}
- Golden frames (`golden/`) are drawn scenes, unless whoever exported the bundle chose others.
- Terms: public polyp sets (Kvasir-SEG, CVC-ClinicDB, CVC-300, CVC-ColonDB, ETIS) are given for
  research and education, each with terms and a paper to cite of its own: Jha 2020 (Kvasir-SEG),
  Bernal 2015 (CVC-ClinicDB), Bernal 2012 (CVC-ColonDB), Vázquez 2017 (CVC-300), Silva 2014 (ETIS),
  Fan 2020 (the split into training and test). Whether a network trained on them may be used
  otherwise is for you to clear with their owners. No image of theirs is in this bundle unless it
  was put into `golden/`.
"""


def _accuracy(manifest: Manifest) -> Iterator[str]:
    yield "## Accuracy"
    if not manifest.accuracy:
        yield "Not measured when this was written; `kdas-edge bench` measures it, `kdas-edge card`"
        yield "writes the result here.\n"
        return
    for protocol, meaning in _PROTOCOLS.items():
        records = [record for record in manifest.accuracy if record.protocol == protocol]
        if not records:
            continue
        names = [n for n in _METRICS[protocol] if any(n in record.metrics for record in records)]
        yield f"Protocol {protocol} ({meaning}):\n"
        yield f"| data set | precision | runtime | images | {' | '.join(names)} |"
        yield "|---" * (4 + len(names)) + "|"
        for record in records:
            cells = " | ".join(_metric(record, name) for name in names)
            yield (
                f"| {record.dataset} | {record.precision} | {record.runtime} | {record.images} | "
                f"{cells} |"
            )
        yield ""
        yield from _leaks(records)
    yield "In brackets: 95 % bootstrap interval over the images. It says how much another draw of"
    yield "images from the same source would change the mean, nothing about another hospital. A"
    yield "validation split chose the best epoch, so that its figures are slightly hopeful.\n"
    differences = manifest.provenance.notes.get("benchmark", {}).get("differences", [])
    if differences:
        yield "Difference to the fp32 teacher, paired per image:\n"
        yield "| data set | protocol | precision | runtime | difference (95 %) |"
        yield "|---|---|---|---|---|"
        for item in differences:
            yield (
                f"| {item['dataset']} | {item['protocol']} | {item['precision']} | "
                f"{item['target']} | {item['metric']} {item['mean']:+.3f} "
                f"({item['low']:+.3f} … {item['high']:+.3f}) |"
            )
        yield ""


def _failures(manifest: Manifest) -> Iterator[str]:
    found: dict[str, Any] = manifest.provenance.notes.get("benchmark", {}).get("failures", {})
    if not found:
        return
    yield "## Where it fails"
    yield f"Measured with {found['precision']} on {found['target']}, protocol deploy.\n"
    if found["sizes"]:
        yield "| data set | polyp | images | Dice | found (IoU of at least 0.5) |"
        yield "|---|---|---|---|---|"
        for row in found["sizes"]:
            share = "–" if row["detected"] is None else f"{100 * row['detected']:.0f} %"
            yield (
                f"| {row['dataset']} | {row['size']}, {row['what']} | {row['images']} | "
                f"{row['mean']:.3f} ({row['low']:.3f}–{row['high']:.3f}) | {share} |"
            )
        yield ""
    # bundles of the first release have the other key
    corrupted = found.get("corrupted", found.get("spoilt"))
    if corrupted:
        clean, images = corrupted[0]["dice"][0], corrupted[0]["images"]
        yield "Corrupted images (`kdas-edge bench --robustness`), what it suffers from most first;"
        yield f"mean Dice over {images} images of all data sets, {clean:.3f} as they are:\n"
        yield "| what | everyday | poor | bad |"
        yield "|---|---|---|---|"
        for row in sorted(corrupted, key=lambda row: sum(row["dice"][1:])):
            cells = " | ".join(f"{value:.3f}" for value in row["dice"][1:])
            yield f"| {row['corruption'].replace('_', ' ')} | {cells} |"
        yield ""


def _leaks(records: Sequence[AccuracyRecord]) -> Iterator[str]:
    """Which of the images the network knew; see `data.lineage`."""
    said = set()
    for record in records:
        for number, what in (
            (record.trained_on, "**trained on**: {} of the {} images"),
            (
                record.near_duplicates,
                "near duplicates: {} of the {} images look like a training image",
            ),
        ):
            line = f"{record.dataset}: {what.format(number, record.images)}."
            if number and line not in said:
                said.add(line)
                yield f"- {line}"
    if said:
        yield ""


def _metric(record: AccuracyRecord, name: str) -> str:
    if name not in record.metrics:
        return "–"
    text = f"{record.metrics[name]:.3f}"
    if name in record.intervals:
        low, high = record.intervals[name]
        text += f" ({low:.3f}–{high:.3f})"
    return text


def _speed(manifest: Manifest) -> Iterator[str]:
    yield "## Speed"
    notes = manifest.provenance.notes
    benchmark: dict[str, Any] = notes.get("benchmark", {})
    if benchmark.get("rows"):
        yield f"Synchronous, batch 1, model only, on {benchmark['cpu']} ({benchmark['created']}):\n"
        yield "| precision | target | p50 ms | p90 ms | p99 ms | × teacher |"
        yield "|---|---|---|---|---|---|"
        for row in benchmark["rows"]:
            times = " | ".join(f"{row[name]:.2f}" for name in ("p50", "p90", "p99"))
            ratio = f"{row['speedup']:.2f}" if row.get("speedup") is not None else "–"
            yield f"| {row['precision']} | {row['target']} | {times} | {ratio} |"
        yield ""
    speeds = notes.get("int8_speed", [])
    yield "\n".join(f"- {row['line']}" for row in speeds) or "int8 was not timed at export."
    yield ""


def _change(manifest: Manifest) -> Iterator[str]:
    changes = manifest.provenance.notes.get("change_from_fp32", {})
    if not changes:
        return
    yield "## What the precisions change"
    for precision, row in changes.items():
        yield (
            f"- {precision}: {100 * row['disagreement']:.2f} % of mask pixels differ from fp32 "
            f"({row['frames']} frames, worst {100 * row['worst']:.2f} %)"
        )
    yield ""


def _limits(manifest: Manifest) -> Iterator[str]:
    yield """## Limits
- Not evaluated on recordings of your centre, endoscope or light source; evaluate before any use.
- Public polyp data sets hold few frames without a polyp, with stool, bubbles or instruments: expect
  more false positives on continuous video than on still images.
- Flat and small polyps are missed more often than large ones.
- Frames are judged one by one, without memory of the frames before.
- The resize is part of the model: another filter than PIL's antialiased bilinear changes masks.
- A probability is no calibrated chance of disease.
"""


def _licences(manifest: Manifest) -> Iterator[str]:
    yield """## Licences and evidence
- Three things have terms of their own: the data (above), the pretrained encoder that the training
  began with (see the model hub it came from), and the packages that run the model: `sbom.cdx.json`
  lists them with versions and, where a package states one, its licence.
- `manifest.json` holds the SHA-256 of every file; `kdas-edge verify --report DIR` checks them and
  the results on your machine and writes a record.
"""


def _megabytes(manifest: Manifest, path: str) -> float:
    weights = path.removesuffix(".xml") + ".bin"
    names = {path, weights} if path.endswith(".xml") else {path}
    return sum(manifest.files[name].bytes for name in names if name in manifest.files) / 1e6
