"""`kdas-edge dicom`: stored endoscopic pictures in, DICOM Segmentations out."""

from pathlib import Path
from typing import Annotated

import typer

from kdas_edge.cli.options import BundleOption, PrecisionOption, PresetOption, TargetOption


def dicom(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="DICOM files, or folders of them.", show_default=False, metavar="FILE…"
        ),
    ],
    bundle: BundleOption = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path(
        "segmentations"
    ),
    target: TargetOption = "openvino:CPU",
    precision: PrecisionOption = None,
    preset: PresetOption = None,
    probability: Annotated[
        bool,
        typer.Option("--probability", help="Write the probability too, FRACTIONAL, 8 bits."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write all records here.", show_default=False)
    ] = None,
) -> None:
    """Segment DICOM pictures into DICOM Segmentations.

    Each refers to its picture and has a JSON record beside it.

    Read are VL and video endoscopic, VL and video photographic and secondary capture images. The
    results are named after the SOP Instance UID; a record holds UIDs and measurements, no patient
    data. A still without a polyp gives an empty segmentation. Of several frames only those with a
    finding are stored; if there is none, the record alone says so.

    A file that cannot be read is reported as FAILED and the others are still segmented; the exit
    code is then 2. Needs `pip install 'kdas-edge[dicom]'`.

    \b
    Examples:
      kdas-edge dicom still.dcm --out results
      kdas-edge dicom STUDY/ --bundle mybundle --out results --probability --json study.json
      kdas-edge dicom video.dcm --bundle mybundle --target openvino:GPU
    """
    from kdas_edge.bundle.shipped import or_shipped
    from kdas_edge.console import info, progress, table
    from kdas_edge.dicom.source import find_files, require_packages
    from kdas_edge.errors import UserError
    from kdas_edge.files import check_output_directory, write_json

    require_packages()
    from kdas_edge.dicom.job import StoredFrames
    from kdas_edge.runtime.segmenter import Segmenter
    from kdas_edge.runtime.targets import parse_targets

    files, found = find_files(sources)
    check_output_directory(out, overwrite, replaces=False)
    rows = []
    targets = parse_targets(target)
    with Segmenter.load(or_shipped(bundle), targets, precision, preset) as segmenter:
        job = StoredFrames(segmenter, out, probability)
        for failure in segmenter.failures:
            info(f"{failure}; next target")
        info(
            f"{job.algorithm.bundle} {segmenter.precision} {segmenter.preset} on {segmenter.target}"
        )
        try:
            with progress(len(files), "segmenting") as advance:
                for row in job.segment_files(files, found):
                    rows.append(row)
                    advance(note=files[row.number - 1].name)
        finally:  # a full disk or a signal: what is done is told
            if json is not None:
                write_json(json, job.describe() | {"files": [row.as_json() for row in rows]})
    shown = [[files[row.number - 1].name, *row.cells()] for row in rows if row.status != "skipped"]
    table(
        "Stored frames (research software, not for clinical use)",
        ["file", "frames", "with polyp", "largest %", "ms a frame", "written"],
        shown,
    )
    skipped = len(rows) - len(shown)
    if skipped:
        info(f"{skipped} DICOM objects of another kind were skipped")
    for note in sorted({row.note for row in rows if row.note is not None}):
        info(note)
    left_empty = sorted({name for row in rows for name in row.left_empty})
    if left_empty:
        named = ", ".join(left_empty)
        info(f"left empty in segmentations, as their values are not what DICOM allows: {named}")
    if any(row.frames for row in rows):
        info(f"segmentations and records are in {out}")
    bad = [row for row in rows if row.status in ("FAILED", "incomplete")]
    if bad:
        raise UserError(
            f"{len(bad)} of {len(rows)} files could not be segmented completely, first: "
            f"{files[bad[0].number - 1]} {bad[0].error}"
        )
    if not shown:
        raise UserError(f"{sources[0]} holds no picture of an endoscope, only other DICOM objects")
