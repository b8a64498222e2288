"""Segmentations, read back by highdicom: pixels, references, who made them, and no more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import scene

pytest.importorskip("highdicom", reason="needs kdas-edge[dicom]")
import dicom_files as files
import highdicom as hd
import pydicom

from kdas_edge import __version__
from kdas_edge.dicom.segmentation import Algorithm, Kind, Place, Stack, build
from kdas_edge.dicom.source import quiet, read_source

ALGORITHM = Algorithm("student", "ab" * 32, "int8", "openvino:CPU", 0.5)
# an odd number of pixels: the second frame begins in the middle of a byte
HEIGHT, WIDTH = 45, 67


def write(
    ds: Any, masks: dict[int, np.ndarray], folder: Path, kind: Kind = "BINARY"
) -> tuple[Any, bytes]:
    """Build, save and read back; returns highdicom's object and the bytes of the file."""
    stack = Stack(kind)
    for number, mask in masks.items():
        stack.add(number, mask)
    with quiet():
        source = read_source(files.save(ds, folder / "picture.dcm"))
        made = build(source, stack, ALGORITHM, Place(str(hd.UID()), 3))
        made.save_as(folder / "seg.dcm", enforce_file_format=True)
        return hd.seg.segread(folder / "seg.dcm"), (folder / "seg.dcm").read_bytes()


def masks(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 2, (HEIGHT, WIDTH), dtype=np.uint8) for _ in range(count)]


def test_the_segmentation_of_a_still_refers_to_it_and_says_what_made_it(tmp_path: Path) -> None:
    ds = files.picture(scene(HEIGHT, WIDTH))
    [mask] = masks(1)
    seg, content = write(ds, {1: mask}, tmp_path)
    np.testing.assert_array_equal(seg.pixel_array.reshape(HEIGHT, WIDTH), mask)
    assert seg.get_source_image_uids() == [
        (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    ]
    assert seg.StudyInstanceUID == ds.StudyInstanceUID
    assert seg.SeriesInstanceUID != ds.SeriesInstanceUID and seg.InstanceNumber == 3
    [reference] = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert reference.ReferencedSOPClassUID == files.ENDOSCOPIC
    [segment] = seg.SegmentSequence
    assert segment.SegmentLabel == "polyp" and segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Polyp of colon"
    [algorithm] = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("kdas-edge", __version__)
    for word in ("student", "ab" * 32, "int8", "openvino:CPU", "0.5"):
        assert word in algorithm.AlgorithmParameters
    assert seg.DeviceSerialNumber == "ab" * 32
    assert "not for clinical use" in seg.SeriesDescription
    assert b"SECRET" not in content
    for keyword, value in files.PATIENT.items():
        assert getattr(seg, keyword) == value


def test_frames_with_a_finding_refer_to_the_frames_of_the_video(tmp_path: Path) -> None:
    video = files.picture(np.zeros((5, HEIGHT, WIDTH, 3), np.uint8), files.TRUE_COLOR)
    first, second, third = masks(3)
    seg, _ = write(video, {2: first, 3: second, 5: third}, tmp_path)
    assert seg.NumberOfFrames == 3
    np.testing.assert_array_equal(seg.pixel_array, [first, second, third])
    referred = [
        group.DerivationImageSequence[0].SourceImageSequence[0]
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    assert [image.ReferencedFrameNumber for image in referred] == [2, 3, 5]
    assert {image.ReferencedSOPInstanceUID for image in referred} == {video.SOPInstanceUID}
    assert {image.ReferencedSOPClassUID for image in referred} == {files.TRUE_COLOR}
    # time is a dimension, so that a viewer shows the frames in order
    pointers = [item.DimensionIndexPointer for item in seg.DimensionIndexSequence]
    assert pydicom.datadict.keyword_for_tag(pointers[-1]) == "TemporalPositionIndex"
    indices = [
        group.FrameContentSequence[0].DimensionIndexValues
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    assert [list(values) for values in indices] == [[1, 1], [1, 2], [1, 3]]


def test_a_probability_is_stored_with_8_bits(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    seg, _ = write(files.picture(scene(HEIGHT, WIDTH)), {1: levels}, tmp_path, "FRACTIONAL")
    assert (seg.SegmentationFractionalType, seg.MaximumFractionalValue) == ("PROBABILITY", 255)
    np.testing.assert_array_equal(seg.pixel_array.reshape(HEIGHT, WIDTH), levels)


def test_what_the_camera_lost_is_said_even_where_the_picture_forgot_it(tmp_path: Path) -> None:
    rgb = scene(48, 64)
    ds = files.encapsulated(
        files.picture(rgb), [files.pillow_jpeg(rgb)], files.JPEGBaseline8Bit, "YBR_FULL_422"
    )
    seg, _ = write(ds, {1: np.zeros((48, 64), np.uint8)}, tmp_path)
    assert seg.LossyImageCompression == "01"
    assert seg.LossyImageCompressionMethod == "ISO_10918_1"


def test_the_masks_of_one_picture_share_their_tracking_identity(tmp_path: Path) -> None:
    ds = files.picture(scene(HEIGHT, WIDTH))
    mask = np.ones((HEIGHT, WIDTH), np.uint8)
    found = [
        write(ds, {1: mask}, tmp_path, kind)[0].SegmentSequence[0].TrackingUID
        for kind in ("BINARY", "FRACTIONAL")
    ]
    other, _ = write(files.picture(scene(HEIGHT, WIDTH)), {1: mask}, tmp_path)
    assert found[0] == found[1] != other.SegmentSequence[0].TrackingUID
