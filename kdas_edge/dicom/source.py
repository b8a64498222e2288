"""Stored pictures: which files are read, and what their headers must say.

Only the attributes named here are ever read, so that no other patient data can leave the file.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdas_edge.errors import UserError, first_line

if TYPE_CHECKING:
    from pydicom import Dataset

# SOP class UID -> (what it is called, whether it may hold several frames)
PICTURES = {
    "1.2.840.10008.5.1.4.1.1.77.1.1": ("VL Endoscopic Image", False),
    "1.2.840.10008.5.1.4.1.1.77.1.1.1": ("Video Endoscopic Image", True),
    "1.2.840.10008.5.1.4.1.1.77.1.4": ("VL Photographic Image", False),
    "1.2.840.10008.5.1.4.1.1.77.1.4.1": ("Video Photographic Image", True),
    "1.2.840.10008.5.1.4.1.1.7": ("Secondary Capture Image", False),
    "1.2.840.10008.5.1.4.1.1.7.2": ("Multi-frame Grayscale Byte Secondary Capture Image", True),
    "1.2.840.10008.5.1.4.1.1.7.4": ("Multi-frame True Color Secondary Capture Image", True),
}
# What the standard demands of every object of a study (type 1 and 2); copied to the segmentation.
PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
# copied where the picture has them
OPTIONAL = (
    "SpecificCharacterSet",
    "FrameOfReferenceUID",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PIXELS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleSlope",
    "RescaleIntercept",
    *(
        f"{prefix}{colour}PaletteColorLookupTable{suffix}"
        for colour in ("Red", "Green", "Blue")
        for prefix, suffix in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
)
# The largest frame that is accepted, in pixels: twice that of an 8K camera.
MAX_PIXELS = 2**26
# of a data set without meta information, by (implicit VR, little endian)
_NATIVE_SYNTAXES: dict[tuple[bool | None, bool | None], str] = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}
# dates and times that other standards separate: the form, and what is taken out
_SEPARATED = {
    "DA": ((r"\d{4}([-./])\d{2}\1\d{2}", "[-./]"),),
    "TM": ((r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", ":"),),
}
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class PictureError(UserError):
    """A file that cannot be segmented. The message names neither the file nor the patient."""


class OtherObjectError(PictureError):
    """A DICOM object of another kind: a report, a presentation state, another modality."""


@dataclass(frozen=True)
class StoredPicture:
    """The header of a stored picture, checked.

    Attributes:
        path: the file.
        header: the attributes of `PATIENT_AND_STUDY`, `OPTIONAL` and of the pixels; no other.
        transfer_syntax: UID of the pixel encoding.
        sop_class: UID, a key of `PICTURES`.
        sop_instance: UID of this object; it names the results.
        study: UID, or None where the file has no valid one.
        series: UID, or None where the file has no valid one.
        rows: height of a frame in pixels.
        columns: width of a frame in pixels.
        frames: number of frames that the file declares, at least 1.
        refused: attributes of patient and study whose values the standard does not allow; they are
            left out of `header`. Their values are not told, they may say who the patient is.
    """

    path: Path
    header: "Dataset"
    transfer_syntax: str
    sop_class: str
    sop_instance: str
    study: str | None
    series: str | None
    rows: int
    columns: int
    frames: int
    refused: tuple[str, ...] = ()

    def uids(self) -> dict[str, str | None]:
        """What identifies the picture in a record; nothing else of the file goes there."""
        return {
            "sop_class_uid": self.sop_class,
            "sop_instance_uid": self.sop_instance,
            "study_instance_uid": self.study,
            "series_instance_uid": self.series,
        }


def require_packages() -> None:
    """Check that the packages of the extra `dicom` are there.

    Raises:
        UserError: says how to install them.
    """
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise UserError(
            f"DICOM files need the package {error.name}; pip install 'kdas-edge[dicom]'"
        ) from None
    del highdicom, pydicom


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom and highdicom from writing warnings and tracebacks of their own."""
    import logging
    import warnings

    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def find_files(paths: list[Path]) -> tuple[list[Path], set[Path]]:
    """The files that the arguments mean: those named, and those in a folder that begin as DICOM.

    A folder is searched to the bottom, because exported media keep pictures in folders without
    file endings. A file that ends in `.dcm` or `.dicom` is taken whatever it holds.

    Returns:
        The files in order, and which of them were found in a folder instead of named.

    Raises:
        UserError: a path does not exist, or there is no DICOM file.
    """
    files: dict[Path, bool] = {}
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                named = file.suffix.lower() in (".dcm", ".dicom")
                if file.is_file() and (named or _begins_as_dicom(file)):
                    files.setdefault(file, True)
        elif path.exists():
            files[path] = False
        else:
            raise UserError(f"{path} does not exist; name a DICOM file or a folder of them")
    if not files:
        raise UserError(f"{paths[0]} holds no DICOM file; name the folder of the exported study")
    return list(files), {file for file, found in files.items() if found}


def read_source(path: Path) -> StoredPicture:
    """Read and check the header of a file; the pixels are left where they are.

    Raises:
        OtherObjectError: a DICOM object that is no picture of an endoscope.
        PictureError: not DICOM, damaged, or an attribute that is missing or impossible.
    """
    import pydicom

    if not path.is_file():
        raise PictureError("is not a regular file; name a DICOM file")
    try:
        if not _begins_as_dicom(path):
            raise PictureError(
                "is not a DICOM file (no DICM prefix at byte 128, and no data set at byte 0)"
            )
        keywords = [*_IDENTITY, *PATIENT_AND_STUDY, *OPTIONAL, *_PIXELS]
        # forced: old devices wrote the data set alone, without prefix and meta information
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=list(keywords), force=True
        )
    except PictureError:
        raise
    except OSError as error:
        reason = error.strerror or "the file ends too early"
        raise PictureError(f"cannot be read ({reason}); export it again") from None
    except Exception as error:
        raise PictureError(
            f"cannot be parsed as DICOM ({short(first_line(error))}); export it again"
        ) from None
    meta = getattr(header, "file_meta", None) or pydicom.Dataset()
    kind = uid_of(header, "SOPClassUID") or uid_of(meta, "MediaStorageSOPClassUID")
    if kind not in PICTURES:
        if kind is None:
            raise PictureError("has no SOP Class UID; export it again")
        name = "a DICOMDIR" if kind == _MEDIA_DIRECTORY else pydicom.uid.UID(kind).name
        raise OtherObjectError(
            f"is {short(name)}, no picture of an endoscope; name VL or video endoscopic, "
            "photographic or secondary capture images"
        )
    instance = uid_of(header, "SOPInstanceUID")
    if instance is None:
        raise PictureError("has no valid SOP Instance UID, so nothing could refer to it")
    syntax = uid_of(meta, "TransferSyntaxUID")
    if syntax is None and not meta:
        syntax = _NATIVE_SYNTAXES.get(header.original_encoding)
    if syntax is None:
        raise PictureError("names no transfer syntax in its file meta information; export it again")
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        raise PictureError(
            f"declares {columns}×{rows} pixels; frames of 1 to {MAX_PIXELS} pixels are read"
        )
    frames = integer(header, "NumberOfFrames", 1)
    if frames == 0 and not PICTURES[kind][1]:
        frames = 1  # some devices write 0 where there is but one
    if frames < 1:
        raise PictureError(f"declares {frames} frames (0028,0008); export it again")
    return StoredPicture(
        path,
        header,
        syntax,
        kind,
        instance,
        uid_of(header, "StudyInstanceUID"),
        uid_of(header, "SeriesInstanceUID"),
        rows,
        columns,
        frames,
        _leave_out_refused(header),
    )


def _leave_out_refused(header: "Dataset") -> tuple[str, ...]:
    """Write dates and times in the standard's form; take out values that it does not allow.

    Returns:
        Keyword and tag of what was taken out.
    """
    import pydicom

    refused = []
    for keyword in (*PATIENT_AND_STUDY, *OPTIONAL):
        value = value_of(header, keyword)
        if value is None:
            continue
        element = header[keyword]
        for form, separators in _SEPARATED.get(element.VR, ()):
            if re.fullmatch(form, str(value)):
                value = re.sub(separators, "", str(value))
        try:
            header[keyword] = pydicom.DataElement(
                element.tag, element.VR, value, validation_mode=pydicom.config.RAISE
            )
        except ValueError:
            refused.append(f"{keyword} {element.tag}")
            del header[keyword]
    return tuple(refused)


def integer(header: "Dataset", keyword: str, default: int | None = None) -> int:
    """A whole number of the header.

    Raises:
        PictureError: it is missing (and there is no default) or something else.
    """
    value = value_of(header, keyword)
    if value is None and default is not None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise PictureError(
            f"has no usable {keyword} ({short(value)}); export the picture again"
        ) from None


def uid_of(header: "Dataset", keyword: str) -> str | None:
    """A UID of the header, or None if it is missing or not a UID (it becomes a file name)."""
    value = str(value_of(header, keyword) or "")
    return value if len(value) <= 64 and _UID.fullmatch(value) else None


def value_of(header: "Dataset", keyword: str) -> Any:
    """A value of the header; None where it is missing, empty or cannot be decoded."""
    try:
        value = header.get(keyword)
    except Exception:
        # a damaged element is decoded on first use, and may raise anything
        return None
    return None if value is None or value == "" else value


def short(value: object) -> str:
    """A value for a message: printable, at most 80 characters."""
    text = "".join(sign if sign.isprintable() else "?" for sign in str(value))
    return text if len(text) <= 80 else text[:79] + "…"


def _begins_as_dicom(path: Path) -> bool:
    """Whether a file has DICOM's prefix, or begins with an element of a data set at once."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM":
        return True
    # an element of the group 0002 or 0008, with a short value
    group, length = head[:2], int.from_bytes(head[4:8], "little")
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return len(head) == 132 and group in (b"\2\0", b"\10\0") and (explicit or length <= 64)
