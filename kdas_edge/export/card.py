"""MODEL_CARD.md of a bundle, from its manifest: what is known, what was measured, what is not."""

from collections.abc import Iterator, Sequence

from kdas_edge.bundle.benchmark_note import read_note
from kdas_edge.bundle.manifest import AccuracyRecord, Manifest
from kdas_edge.export import card_tables
from kdas_edge.table import code, escaped, markdown

CARD_NAME = "MODEL_CARD.md"
_PROTOCOLS = {
    "deploy": "what the device does: fixed threshold, every frame counted",
    "paper": "PraNet's evaluation: maps stretched, mean over 256 thresholds",
}
_NO_TERMS = (
    "not stated (`data.terms` of the recipe); ask the owners of the images before any use of the "
    "network"
)
_ROUNDED = "rounded to 16 bits for this bundle, after the training's own validation"


def model_card(manifest: Manifest) -> str:
    """Return the card as Markdown."""
    measured = (_accuracy, _failures, _speed, _change)
    sections = (_head, _model, _data, *measured, _limits, _licences)
    return "\n".join(part for section in sections for part in section(manifest))


def _head(manifest: Manifest) -> Iterator[str]:
    yield f"""# {escaped(manifest.name)}

**{escaped(manifest.disclaimer)}**

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
    backbone = provenance.notes.get("backbone", model.get("backbone", "unknown"))
    rounded = "float_weight_bits" in provenance.notes
    yield f"""## Model
- Architecture: Polyp-PVT on {code(str(backbone))},
  {provenance.parameters / 1e6:.2f} M parameters,
  {provenance.multiply_accumulates / 1e9:.2f} G multiply-accumulates at {size}×{size}
- Input: see `inputs` in `manifest.json`; `camera` files take a BGR frame of any size, `core` files
  a normalised {size}×{size} image
- Output: (1, 2, {size}, {size}) probabilities of background and polyp; polyp where the second is
  above {manifest.threshold}
- Weights of fp32: {_ROUNDED if rounded else "as they were trained"}
- Made: {escaped(provenance.created)}, kdas-edge {escaped(provenance.code_version)}

{markdown(card_tables.files(manifest))}
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
    root = code(str(data.get("root", "unknown")))
    terms, citation = data.get("terms"), data.get("citation")
    yield f"""## Data
- Training: {root}, split {provenance.data_split_sha256 or "not recorded"}
- Calibration of int8: {f"{frames} frames of the training side" if frames else "none recorded"}
- Evaluated on: {escaped(listed) or "nothing yet"}
- Golden frames (`golden/`) are drawn scenes, unless whoever exported the bundle chose others.
- Terms: {escaped(str(terms)) if terms else _NO_TERMS}
- To cite: {escaped(str(citation)) if citation else "not stated (`data.citation` of the recipe)"}
- No image of the training is in this bundle unless it was put into `golden/`.
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
        yield f"Protocol {protocol} ({meaning}):\n"
        yield markdown(card_tables.accuracies(records, protocol))
        yield ""
        yield from _leaks(records)
    yield "In brackets: 95 % bootstrap interval over the images. It says how much another draw of"
    yield "images from the same source would change the mean, nothing about another hospital. A"
    yield "validation split chose the best epoch, so that its figures are slightly hopeful.\n"
    benchmark = read_note(manifest.provenance.notes, manifest.name)
    if benchmark is not None and benchmark.differences:
        yield "Difference to the fp32 teacher, paired per image:\n"
        yield markdown(card_tables.differences(benchmark.differences))
        yield ""


def _failures(manifest: Manifest) -> Iterator[str]:
    benchmark = read_note(manifest.provenance.notes, manifest.name)
    found = benchmark.failures if benchmark is not None else None
    if found is None:
        return
    yield "## Where it fails"
    yield f"Measured with {found.precision} on {found.target}, protocol deploy.\n"
    if found.sizes:
        yield markdown(card_tables.sizes(found.sizes))
        yield ""
    if found.corrupted:
        first = found.corrupted[0]
        yield "Corrupted images (`kdas-edge bench --robustness`), what it suffers from most first;"
        yield f"mean Dice over {first.images} images of all data sets, {first.dice[0]:.3f} as they"
        yield "are:\n"
        yield markdown(card_tables.corruptions(found.corrupted))
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
            line = f"{escaped(record.dataset)}: {what.format(number, record.images)}."
            if number and line not in said:
                said.add(line)
                yield f"- {line}"
    if said:
        yield ""


def _speed(manifest: Manifest) -> Iterator[str]:
    yield "## Speed"
    notes = manifest.provenance.notes
    benchmark = read_note(notes, manifest.name)
    if benchmark is not None and benchmark.rows:
        machine = f"{escaped(benchmark.cpu)} ({escaped(benchmark.created)})"
        yield f"Synchronous, batch 1, model only, on {machine}:\n"
        yield markdown(card_tables.latencies(benchmark.rows))
        yield ""
    speeds = notes.get("int8_speed", [])
    yield (
        "\n".join(f"- {escaped(row['line'])}" for row in speeds) or "int8 was not timed at export."
    )
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
