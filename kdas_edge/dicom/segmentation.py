"""Writing a DICOM Segmentation that refers to its source, with highdicom.

An endoscopic picture has no place in space. The standard then asks for a mask of the picture's size
whose frames name their source frames in the Derivation Image functional group (PS3.3 A.51.5.1).
highdicom writes this for a picture of one frame only. For several frames, its object of one frame
is extended here: each gets a functional group of its own, and time becomes a dimension.
"""

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kdas_edge import __version__
from kdas_edge.dicom.source import OPTIONAL, PATIENT_AND_STUDY, PICTURES, StoredPicture, value_of
from kdas_edge.overlay import PREDICTION

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

Kind = Literal["BINARY", "FRACTIONAL"]
SERIES_DESCRIPTION = "Research software, not for clinical use"
# numbers of a series need not be unique; this one is far from those that devices count up from 1
SERIES_NUMBER = 900
_STILL = "1.2.840.10008.5.1.4.1.1.77.1.1"
_FRAME_CONTENT = 0x00209111
_TEMPORAL_POSITION = 0x00209128
# as PS3.3 C.7.6.1.1.5 names the methods, by transfer syntax
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
}


@dataclass(frozen=True)
class Algorithm:
    """What made the masks, as the segmentation tells it.

    Attributes:
        bundle: name of the bundle.
        manifest_sha256: of its `manifest.json`, which holds the hash of every file: the serial
            number of the device.
        precision: `fp32`, `fp16`, `int8` or `int8_weights`.
        target: where it ran.
        threshold: probability above which a pixel is polyp.
    """

    bundle: str
    manifest_sha256: str
    precision: str
    target: str
    threshold: float


@dataclass
class Stack:
    """Frames of one segmentation, packed as the standard packs them.

    Attributes:
        kind: one bit per pixel, or one byte.
        numbers: numbers of the source frames, from 1.
    """

    kind: Kind
    numbers: list[int] = field(default_factory=list)
    _chunks: list[bytes] = field(default_factory=list)
    _rest: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, dtype=np.uint8))

    def add(self, number: int, frame: NDArray[np.uint8]) -> None:
        """Append the frame of source frame `number`.

        Args:
            number: from 1.
            frame: (H, W) uint8: 0 or 1 (BINARY), 0–255 (FRACTIONAL).
        """
        self.numbers.append(number)
        if self.kind == "FRACTIONAL":
            self._chunks.append(frame.tobytes())
            return
        # frames follow each other without a gap: one may begin in the middle of a byte
        bits = np.concatenate([self._rest, frame.ravel()])
        whole = bits.size // 8 * 8
        self._chunks.append(np.packbits(bits[:whole], bitorder="little").tobytes())
        self._rest = bits[whole:]

    @property
    def size(self) -> int:
        """Bytes so far."""
        return sum(map(len, self._chunks))

    def pixel_data(self) -> bytes:
        """The value of Pixel Data, padded to an even length."""
        data = b"".join([*self._chunks, np.packbits(self._rest, bitorder="little").tobytes()])
        return data + b"\0" * (len(data) % 2)


@dataclass(frozen=True)
class Place:
    """Where a segmentation belongs among the objects of a study.

    Attributes:
        series: UID of its series.
        instance_number: its number in the series, from 1.
    """

    series: str
    instance_number: int


def build(source: StoredPicture, stack: Stack, algorithm: Algorithm, place: Place) -> "Dataset":
    """Make a Segmentation object.

    Args:
        source: the picture; of its header only what the standard demands is copied.
        stack: at least one frame.
        algorithm: named in the segment's description and as the equipment.
        place: its series and number.

    Returns:
        A data set with file meta information, Explicit VR Little Endian.

    Raises:
        Exception: highdicom refuses the header, with whatever it raises.
    """
    import highdicom as hd

    segmentation = hd.seg.Segmentation(
        source_images=[_reference(source)],
        pixel_array=np.zeros((source.rows, source.columns), dtype=np.uint8),
        segmentation_type=stack.kind,
        segment_descriptions=[_describe_segment(source, algorithm)],
        series_instance_uid=place.series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=place.instance_number,
        manufacturer="kdas-edge",
        manufacturer_model_name=algorithm.bundle[:64],
        software_versions=__version__,
        device_serial_number=algorithm.manifest_sha256,
        max_fractional_value=255,
        content_label="POLYP",
        content_description=SERIES_DESCRIPTION,
        series_description=SERIES_DESCRIPTION,
        # with True, highdicom stores an empty frame all the same if all are empty
        omit_empty_frames=False,
    )
    # type 2C where there is no orientation in space: present, unknown
    segmentation.PatientOrientation = None
    segmentation.SegmentSequence[0].SegmentDescription = (
        f"{SERIES_DESCRIPTION}. Polyp by {algorithm.bundle} {algorithm.precision} on "
        f"{algorithm.target}, probability above {algorithm.threshold:g}. "
        + ("Frames without a finding are omitted." if source.frames > 1 else "")
    ).strip()
    _fill(segmentation, source, stack)
    return segmentation


def _reference(source: StoredPicture) -> "Dataset":
    """A header with nothing but what the segmentation needs, for highdicom to copy from."""
    from pydicom import Dataset

    reference = Dataset()
    # for a class of several frames highdicom demands a pixel spacing; `_fill` names the true class
    reference.SOPClassUID = _STILL
    reference.SOPInstanceUID = source.sop_instance
    reference.StudyInstanceUID = source.study
    reference.SeriesInstanceUID = source.series
    reference.Rows, reference.Columns = source.rows, source.columns
    for keyword in PATIENT_AND_STUDY:
        setattr(reference, keyword, value_of(source.header, keyword))
    for keyword in OPTIONAL:
        value = value_of(source.header, keyword)
        if value is not None:
            setattr(reference, keyword, value)
    method = _LOSSY.get(source.transfer_syntax)
    if method is not None and reference.get("LossyImageCompression") != "01":
        # a file that forgot to say so; the pixels have lost something all the same
        reference.LossyImageCompression = "01"
        reference.LossyImageCompressionMethod = method
    return reference


def _describe_segment(source: StoredPicture, algorithm: Algorithm) -> "SegmentDescription":
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="polyp",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.PolypOfColon,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="kdas-edge",
            version=__version__,
            family=codes.cid7162.ArtificialIntelligence,
            source="kdas-edge",
            parameters={
                "bundle": algorithm.bundle,
                "manifest_sha256": algorithm.manifest_sha256,
                "precision": algorithm.precision,
                "target": algorithm.target,
                "threshold": f"{algorithm.threshold:g}",
            },
        ),
        # the binary and the fractional mask of one picture, and all its parts, share it
        tracking_id="polyp",
        tracking_uid=generate_uid(entropy_srcs=[source.sop_instance, "polyp"]),
        anatomic_regions=[codes.SCT.Colon],
        display_color=hd.color.CIELabColor.from_rgb(*PREDICTION),
    )


def _fill(segmentation: "Dataset", source: StoredPicture, stack: Stack) -> None:
    """Replace the one empty frame by those of the stack."""
    from pydicom import Dataset

    for element in segmentation.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = source.sop_class
    several = PICTURES[source.sop_class][1] or source.frames > 1
    first = segmentation.PerFrameFunctionalGroupsSequence[0]
    groups = []
    for index, number in enumerate(stack.numbers, start=1):
        group = copy.deepcopy(first)
        if several:
            content = group.FrameContentSequence[0]
            content.DimensionIndexValues = [1, index]
            content.TemporalPositionIndex = index
            image = group.DerivationImageSequence[0].SourceImageSequence[0]
            image.ReferencedFrameNumber = number
        groups.append(group)
    if several:
        dimension = Dataset()
        dimension.DimensionOrganizationUID = segmentation.DimensionIndexSequence[
            0
        ].DimensionOrganizationUID
        dimension.DimensionIndexPointer = _TEMPORAL_POSITION
        dimension.FunctionalGroupPointer = _FRAME_CONTENT
        dimension.DimensionDescriptionLabel = "Temporal Position Index"
        segmentation.DimensionIndexSequence.append(dimension)
    segmentation.PerFrameFunctionalGroupsSequence = groups
    segmentation.NumberOfFrames = len(groups)
    segmentation.PixelData = stack.pixel_data()
