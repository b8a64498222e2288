"""`dicom` as a person calls it: a study of stills, a video and other objects, read back."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_verb import Done, only_line, run_verb
from tiny_bundle import make_tiny_bundle, scene

pytest.importorskip("highdicom", reason="needs kdas-edge[dicom]")
import dicom_files as files
import highdicom as hd
from PIL import Image

from kdas_edge.runtime import Segmenter

TARGET = "openvino:CPU:threads=1"
POLYP, HEALTHY = scene(90, 121, seed=1), scene(90, 121, seed=2, polyp=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("dicom") / "tiny")


@pytest.fixture
def study(tmp_path: Path) -> dict[str, Any]:
    """A folder `study` as a medium holds it: name -> data set."""
    folder = tmp_path / "study"
    folder.mkdir()
    stack = np.stack([HEALTHY, POLYP, HEALTHY, np.roll(POLYP, 20, axis=1)])
    found = {
        "polyp": files.picture(POLYP),
        "healthy": files.picture(HEALTHY),
        "frames": files.picture(stack, files.TRUE_COLOR),
        "report": files.picture(POLYP, "1.2.840.10008.5.1.4.1.1.88.11"),
    }
    for name, ds in found.items():
        files.save(ds, folder / f"Muster^Anne-{name}.dcm")
    return found


def run(capsys: pytest.CaptureFixture[str], bundle: Path, out: Path, *arguments: object) -> Done:
    return run_verb(
        capsys, "dicom", *arguments, "--bundle", bundle, "--out", out, "--target", TARGET
    )


def mask(bundle: Path, rgb: np.ndarray) -> np.ndarray:
    with Segmenter.load(bundle, TARGET) as segmenter:
        return segmenter.segment(np.ascontiguousarray(rgb[..., ::-1])).mask


def test_a_study_becomes_segmentations_and_records_without_a_patient(
    study: dict[str, Any], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, record = tmp_path / "out", tmp_path / "study.json"
    done = run(capsys, bundle, out, tmp_path / "study", "--json", record)
    assert done.code == 0, done.err
    uid = {name: ds.SOPInstanceUID for name, ds in study.items()}
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{uid[name]}.{end}"
        for name in ("polyp", "healthy", "frames")
        for end in ("json", "seg.dcm")
    )
    segs = {n: hd.seg.segread(out / f"{uid[n]}.seg.dcm") for n in ("polyp", "healthy", "frames")}
    np.testing.assert_array_equal(segs["polyp"].pixel_array.squeeze() > 0, mask(bundle, POLYP))
    assert not segs["healthy"].pixel_array.any()
    # frames without a finding are left out
    frames = segs["frames"]
    np.testing.assert_array_equal(
        frames.pixel_array > 0,
        [mask(bundle, POLYP), mask(bundle, np.roll(POLYP, 20, axis=1))],
    )
    numbers = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in frames.PerFrameFunctionalGroupsSequence
    ]
    assert numbers == [2, 4]

    told = json.loads((out / f"{uid['frames']}.json").read_text())
    assert told["frames"] == 4 and told["finding"] is True
    assert [entry["frame"] for entry in told["marked"]] == [2, 4]
    assert told["marked"][0]["polyp_fraction"] == pytest.approx(mask(bundle, POLYP).mean())
    assert json.loads((out / f"{uid['healthy']}.json").read_text())["finding"] is False
    statuses = [row["status"] for row in json.loads(record.read_text())["files"]]
    assert sorted(statuses) == ["done", "done", "done", "skipped"]
    for path in (record, *out.glob("*.json")):
        text = path.read_text()
        assert not any(word in text for word in ("SECRET", "Muster", "Müster", "ID-4711"))


def test_the_probability_is_written_on_request(
    study: dict[str, Any], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "Muster^Anne-polyp.dcm"
    done = run(capsys, bundle, tmp_path / "out", tmp_path / "study" / name, "--probability")
    assert done.code == 0, done.err
    [path] = (tmp_path / "out").glob("*.probability.dcm")
    levels = hd.seg.segread(path).pixel_array.squeeze()
    expected = mask(bundle, POLYP)
    assert levels[expected].min() >= 127 and levels[~expected].max() <= 128


def test_a_picture_that_no_segmentation_may_refer_to_gives_a_png(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ds = files.picture(POLYP)
    del ds.StudyInstanceUID
    path = files.save(ds, tmp_path / "still.dcm")
    done = run(capsys, bundle, tmp_path / "out", path)
    assert done.code == 0, done.err
    assert "no valid study instance UID to refer to; the mask is a PNG file" in " ".join(
        (done.out + done.err).split()
    )
    [written] = (tmp_path / "out").glob("*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(written)) > 0, mask(bundle, POLYP))


def test_a_bad_file_is_reported_and_the_others_are_segmented(
    study: dict[str, Any], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a recording that was cut off: two frames of four are there
    path = tmp_path / "study" / "Muster^Anne-frames.dcm"
    path.write_bytes(path.read_bytes()[: -2 * POLYP.nbytes])
    (tmp_path / "study" / "broken.dcm").write_text("no DICOM")
    record = tmp_path / "study.json"
    done = run(capsys, bundle, tmp_path / "out", tmp_path / "study", "--json", record)
    assert done.code == 2
    assert "2 of 5 files could not be segmented completely" in done.err
    assert "Traceback" not in done.err
    rows = {row["status"]: row for row in json.loads(record.read_text())["files"]}
    assert "no DICM prefix" in rows["FAILED"]["error"]
    assert rows["incomplete"]["frames"] == 2
    [written] = rows["incomplete"]["segmentations"]
    assert written["frames"] == [2]
    assert len(list((tmp_path / "out").glob("*.seg.dcm"))) == 3


def test_what_is_wrong_is_said_in_one_line(
    study: dict[str, Any],
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "holds no DICOM file" in only_line(run(capsys, bundle, out, tmp_path / "empty"))
    assert "does not exist" in only_line(run(capsys, bundle, out, tmp_path / "absent.dcm"))
    shutil.copytree(tmp_path / "study", out)
    assert "--overwrite" in only_line(run(capsys, bundle, out, tmp_path / "study"))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    line = only_line(run(capsys, bundle, tmp_path / "other", tmp_path / "study"))
    assert "pip install 'kdas-edge[dicom]'" in line
