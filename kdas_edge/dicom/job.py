"""Segmenting stored pictures: each gets a DICOM Segmentation, or PNG if none is possible, and JSON.

Results are named after the SOP Instance UID of the picture, and their JSON holds UIDs and
measurements only: file names of exported studies often hold a patient's name.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge import __version__
from kdas_edge.bundle.manifest import FILE_NAME
from kdas_edge.dicom.pixels import check_pixels, frames
from kdas_edge.dicom.record import PictureRecord
from kdas_edge.dicom.segmentation import (
    SERIES_DESCRIPTION,
    Algorithm,
    Kind,
    Place,
    Stack,
    build,
)
from kdas_edge.dicom.source import (
    OtherObjectError,
    PictureError,
    StoredPicture,
    quiet,
    read_source,
)
from kdas_edge.files import sha256, write_bytes_atomic, write_json
from kdas_edge.runtime.segmenter import Result, Segmenter

# A segmentation of a long video is closed at this size and another begins, so that neither
# memory nor a viewer is overrun: some 500 marked frames of 1920×1080.
PART_BYTES = 2**27


class StoredFrames:
    """Segments stored pictures with one loaded bundle, and numbers the results.

    Args:
        segmenter: the loaded bundle.
        out: folder of the results.
        fractional: also write the probability, as a FRACTIONAL segmentation.
        part_bytes: size of pixel data at which another segmentation is begun.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        out: Path,
        fractional: bool = False,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.segmenter = segmenter
        self.out = out
        self.kinds: tuple[Kind, ...] = ("BINARY", "FRACTIONAL") if fractional else ("BINARY",)
        self.part_bytes = part_bytes
        manifest = segmenter.bundle.manifest
        self.algorithm = Algorithm(
            bundle=manifest.name,
            manifest_sha256=sha256(segmenter.bundle.path / FILE_NAME),
            precision=segmenter.precision,
            target=str(segmenter.target),
            threshold=manifest.threshold,
        )
        self._series: dict[str, str] = {}
        self._instances: dict[str, int] = {}
        self._seen: set[str] = set()

    def segment_files(self, files: Sequence[Path], found: set[Path]) -> Iterator[PictureRecord]:
        """Segment each file; one that cannot be read gives a row with an error.

        Args:
            files: DICOM files.
            found: those of them that were found in a folder: another kind of object among them is
                skipped, while one that was named is an error.

        Raises:
            UserError: the results cannot be written.
        """
        side = self.segmenter.bundle.manifest.size
        # the first inference allocates memory; it would distort the first row's time
        self.segmenter.segment(np.zeros((side, side, 3), dtype=np.uint8))
        for number, path in enumerate(files, start=1):
            yield self.segment_file(path, number, path in found)

    def segment_file(self, path: Path, number: int = 1, may_skip: bool = False) -> PictureRecord:
        """Segment one file and write its results.

        Args:
            path: a DICOM file.
            number: of the row.
            may_skip: another kind of object is no error.

        Raises:
            UserError: the results cannot be written.
        """
        row = PictureRecord(number)
        with quiet():
            try:
                source = read_source(path)
                row.source = source.uids()
                row.left_empty = list(source.refused)
                check_pixels(source)
                if source.sop_instance in self._seen:
                    raise PictureError("has the SOP Instance UID of a file before it")
                self._seen.add(source.sop_instance)
                self._segment(source, row)
            except OtherObjectError as error:
                row.status, row.error = ("skipped" if may_skip else "FAILED"), str(error)
            except PictureError as error:
                row.status, row.error = "FAILED", str(error)
            except BaseException:
                # interrupted, or a full disk: parts without a record would be taken for the whole
                for name in (*_files(row), *row.masks):
                    (self.out / name).unlink(missing_ok=True)
                raise
        return row

    def _segment(self, source: StoredPicture, row: PictureRecord) -> None:
        row.note = self._why_no_segmentation(source)
        stacks = {kind: Stack(kind) for kind in self.kinds}
        for number, frame, error in _numbered(source):
            if error is not None:
                if number == 1:
                    raise PictureError(error)
                row.status, row.error = "incomplete", error
                break
            if frame is None:
                row.undecodable += 1
                continue
            result = self.segmenter.segment(frame)
            row.frames += 1
            _note_result(row, number, result)
            if not result.mask.any() and source.frames > 1:
                continue
            if row.note is not None:
                self._write_png(source, row, number, result)
                continue
            for kind, stack in stacks.items():
                stack.add(number, _pixels(kind, result))
                if stack.size >= self.part_bytes:
                    self._write(source, row, stack)
                    stacks[kind] = Stack(kind)
        if row.undecodable:
            _note_undecodable(source, row)
        row.finding = bool(row.marked)
        for stack in stacks.values():
            if stack.numbers:
                self._write(source, row, stack)
        record = self.out / f"{source.sop_instance}.json"
        write_json(record, self.describe() | row.as_json())
        self._remove_older(source, {record.name, *row.masks, *_files(row)})

    def describe(self) -> dict[str, Any]:
        """What made the results, for a record."""
        return {
            "disclaimer": SERIES_DESCRIPTION,
            "code_version": __version__,
            **asdict(self.algorithm),
        }

    def _why_no_segmentation(self, source: StoredPicture) -> str | None:
        """Try an empty one first, so that a long video does not fail at its end."""
        missing = [name for name in ("study", "series") if getattr(source, name) is None]
        if missing:
            return (
                f"no Segmentation: the picture has no valid {missing[0]} instance UID to refer to; "
                "the mask is a PNG file"
            )
        stack = Stack("BINARY")
        stack.add(1, np.zeros((source.rows, source.columns), dtype=np.uint8))
        try:
            _encode(build(source, stack, self.algorithm, Place("1.2", 1)))
        except Exception as error:
            # its text may hold a patient's data
            return (
                "no Segmentation: highdicom refuses the picture's header "
                f"({type(error).__name__}); check it with dciodvfy; the mask is a PNG file"
            )
        return None

    def _write(self, source: StoredPicture, row: PictureRecord, stack: Stack) -> None:
        from pydicom.uid import generate_uid

        study = str(source.study)
        series = self._series.setdefault(study, str(generate_uid()))
        self._instances[study] = self._instances.get(study, 0) + 1
        segmentation = build(source, stack, self.algorithm, Place(series, self._instances[study]))
        word = "seg" if stack.kind == "BINARY" else "probability"
        part = 1 + sum(done["kind"] == stack.kind for done in row.segmentations)
        name = f"{source.sop_instance}.{word}{'' if part == 1 else f'-{part}'}.dcm"
        write_bytes_atomic(self.out / name, _encode(segmentation))
        row.segmentations.append(
            {
                "file": name,
                "kind": stack.kind,
                "sop_instance_uid": str(segmentation.SOPInstanceUID),
                "series_instance_uid": series,
                "frames": stack.numbers,
            }
        )

    def _write_png(
        self, source: StoredPicture, row: PictureRecord, number: int, result: Result
    ) -> None:
        part = f"-{number:06d}" if source.frames > 1 else ""
        name = f"{source.sop_instance}.mask{part}.png"
        content = cv2.imencode(".png", result.mask.astype(np.uint8) * 255)[1]
        write_bytes_atomic(self.out / name, content.tobytes())
        row.masks.append(name)

    def _remove_older(self, source: StoredPicture, written: set[str]) -> None:
        """Of an earlier run, more parts may be left than were written now."""
        for word in ("seg*.dcm", "probability*.dcm", "mask*.png"):
            for path in self.out.glob(f"{source.sop_instance}.{word}"):
                if path.name not in written:
                    path.unlink(missing_ok=True)


def _note_undecodable(source: StoredPicture, row: PictureRecord) -> None:
    lost = f"{row.undecodable} of {source.frames} frames cannot be decoded; export it again"
    if not row.frames:
        raise PictureError(lost)
    row.status, row.error = "incomplete", "; ".join(filter(None, (row.error, lost)))


def _numbered(source: StoredPicture) -> Iterator[tuple[int, NDArray[np.uint8] | None, str | None]]:
    """The declared frames with their numbers; then, if there is one, the error that ended them.

    A frame is None where it cannot be decoded, and where there is an error.
    """
    number = 0
    declared = f"declares {source.frames} frames"
    try:
        for number, frame in enumerate(frames(source), start=1):
            if number > source.frames:
                yield number, None, f"{declared} but holds more; the rest is not segmented"
                return
            yield number, frame, None
    except PictureError as error:
        where = f"{declared}; number {number + 1} " if source.frames > 1 else ""
        yield number + 1, None, f"{where}{error}"
        return
    if number < source.frames:
        yield number + 1, None, f"{declared} but holds {number}; export it again"


def _note_result(row: PictureRecord, number: int, result: Result) -> None:
    for stage, duration in result.milliseconds.items():
        row.milliseconds.setdefault(stage, []).append(duration)
    if result.mask.any():
        regions = cv2.connectedComponents(result.mask.astype(np.uint8))[0] - 1
        row.marked.append(
            {"frame": number, "polyp_fraction": float(result.mask.mean()), "components": regions}
        )


def _pixels(kind: Kind, result: Result) -> NDArray[np.uint8]:
    """(H, W) uint8 of a result: the mask, or the probability at the picture's size, 0–255."""
    if kind == "BINARY":
        return result.mask.astype(np.uint8)
    height, width = result.mask.shape
    probability = cv2.resize(result.probability, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.rint(np.clip(probability, 0, 1) * 255).astype(np.uint8)


def _encode(segmentation: Any) -> bytes:
    file = io.BytesIO()
    segmentation.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _files(row: PictureRecord) -> list[str]:
    return [str(written["file"]) for written in row.segmentations]
