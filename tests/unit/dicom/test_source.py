"""Headers: which files are pictures, what of them is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import scene

pytest.importorskip("highdicom", reason="needs kdas-edge[dicom]")
import dicom_files as files
from pydicom.dataset import Dataset

from kdas_edge.dicom.pixels import frames
from kdas_edge.dicom.source import (
    OtherObjectError,
    PictureError,
    find_files,
    quiet,
    read_source,
)
from kdas_edge.errors import UserError

RGB = scene(48, 64)


def test_only_what_the_segmentation_needs_is_read(tmp_path: Path) -> None:
    ds = files.picture(RGB)
    source = read_source(files.save(ds, tmp_path / "picture.dcm"))
    assert (source.rows, source.columns, source.frames) == (48, 64, 1)
    assert source.uids() == {
        "sop_class_uid": files.ENDOSCOPIC,
        "sop_instance_uid": ds.SOPInstanceUID,
        "study_instance_uid": ds.StudyInstanceUID,
        "series_instance_uid": ds.SeriesInstanceUID,
    }
    assert source.header.PatientName == files.PATIENT["PatientName"]
    assert "SECRET" in str(ds) and "SECRET" not in str(source.header)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Rows": 0}, "declares 64×0 pixels"),
        ({"Rows": 65535, "Columns": 65535}, "declares 65535×65535 pixels"),
        ({"NumberOfFrames": -3}, "declares -3 frames"),
        ({"Rows": None}, "no usable Rows"),
        ({"SOPInstanceUID": "../../etc/passwd"}, "no valid SOP Instance UID"),
    ],
)
def test_an_impossible_header_is_refused(
    values: dict[str, object], message: str, tmp_path: Path
) -> None:
    ds = files.picture(RGB)
    path = tmp_path / "picture.dcm"
    with quiet():
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.save_as(path, enforce_file_format=True)
        with pytest.raises(PictureError, match=message):
            read_source(path)


@pytest.mark.parametrize("keyword", ["PlanarConfiguration", "PixelRepresentation"])
def test_what_has_one_sense_only_may_be_missing(keyword: str, tmp_path: Path) -> None:
    ds = files.picture(RGB)
    delattr(ds, keyword)
    source = read_source(files.save(ds, tmp_path / "picture.dcm"))
    (frame,) = frames(source)
    np.testing.assert_array_equal(frame, RGB[..., ::-1])


def test_no_frames_are_one_of_a_still_and_an_error_of_a_video(tmp_path: Path) -> None:
    still, several = files.picture(RGB), files.picture(RGB[None], files.TRUE_COLOR)
    for ds in (still, several):
        ds.NumberOfFrames = 0
    with quiet():
        source = read_source(files.save(still, tmp_path / "still.dcm"))
        assert source.frames == 1 and len(list(frames(source))) == 1
        with pytest.raises(PictureError, match=r"declares 0 frames \(0028,0008\)"):
            read_source(files.save(several, tmp_path / "several.dcm"))


@pytest.mark.parametrize("implicit", [True, False])
def test_a_data_set_without_prefix_and_meta_information_is_read(
    implicit: bool, tmp_path: Path
) -> None:
    whole, bare = files.picture(RGB), Dataset()
    bare.update(whole)
    path = tmp_path / "IM0001"
    bare.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert find_files([tmp_path])[0] == [path]
    source = read_source(path)
    assert source.sop_instance == whole.SOPInstanceUID
    (frame,) = frames(source)
    np.testing.assert_array_equal(frame, RGB[..., ::-1])


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("StudyDate", "2024-01-31", "20240131"),
        ("StudyDate", "2024.01.31", "20240131"),
        ("StudyTime", "12:30:05", "123005"),
        ("PatientBirthDate", "2024-99-31", None),
        ("PatientBirthDate", "unknown", None),
        ("AccessionNumber", "A" * 40, None),
    ],
)
def test_a_date_in_another_form_is_read_and_an_impossible_value_named_but_not_told(
    keyword: str, value: str, kept: str | None, tmp_path: Path
) -> None:
    ds = files.picture(RGB)
    with quiet():
        setattr(ds, keyword, value)
        source = read_source(files.save(ds, tmp_path / "picture.dcm"))
    assert source.header.get(keyword) == kept
    named = () if kept else (keyword,)
    assert tuple(one.split()[0] for one in source.refused) == named
    assert value not in str(source.refused)


def test_another_object_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    report = files.picture(RGB, "1.2.840.10008.5.1.4.1.1.88.11")
    with pytest.raises(OtherObjectError, match="is Basic Text SR Storage, no picture"):
        read_source(files.save(report, tmp_path / "report.dcm"))
    for content, message in (
        (b"", "no DICM prefix"),
        (b"\0" * 128 + b"DICM", "no SOP Class UID"),
        (b"\x89PNG" + b"\0" * 500, "no DICM prefix"),
    ):
        (tmp_path / "file.dcm").write_bytes(content)
        with pytest.raises(PictureError, match=message) as refused:
            read_source(tmp_path / "file.dcm")
        assert not isinstance(refused.value, OtherObjectError)
    with pytest.raises(PictureError, match="not a regular file"):
        read_source(tmp_path)


def test_a_folder_is_searched_to_the_bottom_for_files_with_or_without_an_ending(
    tmp_path: Path,
) -> None:
    (tmp_path / "DICOM" / "ST0").mkdir(parents=True)
    deep = files.save(files.picture(RGB), tmp_path / "DICOM" / "ST0" / "IM0")
    named = tmp_path / "empty.dcm"
    named.touch()
    (tmp_path / "README.txt").write_text("no DICOM")
    assert find_files([tmp_path]) == ([deep, named], {deep, named})
    # a file that was named is not one that was found
    assert find_files([deep, tmp_path])[1] == {named}
    with pytest.raises(UserError, match="absent does not exist"):
        find_files([tmp_path / "absent"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds no DICOM file"):
        find_files([tmp_path / "nothing"])


def test_damaged_files_give_one_line_and_never_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = []
    for index, (ds, _, _) in enumerate(files.encodings(RGB).values()):
        samples.append(files.save(ds, tmp_path / f"{index}.dcm").read_bytes())
    path = tmp_path / "damaged.dcm"
    refused = 0
    for index in range(150):
        content = bytearray(samples[index % len(samples)])
        # the header, where a byte means most, as often as the pixels
        end = 1200 if index % 2 else len(content)
        for at in rng.integers(132, min(end, len(content)), 6):
            content[at] = rng.integers(0, 256)
        path.write_bytes(content[: rng.integers(140, len(content))] if index % 3 == 0 else content)
        try:
            with quiet():
                for frame in frames(read_source(path)):
                    assert frame.dtype == np.uint8 and frame.ndim == 3
        except PictureError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 30 < refused < 150
