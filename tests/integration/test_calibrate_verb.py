"""`kdas-edge calibrate` as a person calls it."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from run_verb import only_line, run_verb
from tiny_student import train_tiny_student

from kdas_edge.data.layout import test_sets as sets_of_tests
from kdas_edge.data.synthetic import scene
from kdas_edge.files import sha256
from kdas_edge.image_files import read_image


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with six frames and a video of twenty."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(scene(7000 + index, 96)[0]).save(folder / f"still{index}.png")
    writer = cv2.VideoWriter(
        str(folder / "tuesday.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 96)
    )
    for index in range(20):
        writer.write(scene(8000 + index, 96)[0][..., ::-1].copy())
    writer.release()
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_set_of_training_images(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    done = run_verb(
        capsys, "calibrate", scenes, "--out", out, "--count", 10, "--json", tmp_path / "c.json"
    )
    assert done.code == 0, done.err
    for words in ("brightness", "highlights", "10 chosen", "10 random", "chosen: polyp-free: "):
        assert words in done.out
    assert f"calibration.source={out}" in done.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["schema"] == "kdas-edge/calibration/1"
    assert len(manifest["frames"]) == 10 and manifest["test_images_compared"] == 6
    for frame in manifest["frames"]:
        copy, original = out / frame["file"], scenes / frame["path"]
        assert sha256(copy) == sha256(original) == frame["sha256"]
        assert frame["polyp_from"] == "mask"
    assert manifest["counts"]["chosen: polyp-free"] >= 1
    assert not any(str(tmp_path) in text or str(scenes) in text for text in [json.dumps(manifest)])
    with Image.open(out / "overview.jpg") as overview:
        assert overview.size == (4 * 112, 3 * 112)
    summary = json.loads((tmp_path / "c.json").read_text())
    assert summary["counts"] == manifest["counts"] and "frames" not in summary

    # the same input and seed: the same bytes, every one
    again = tmp_path / "again"
    assert run_verb(capsys, "calibrate", scenes, "--out", again, "--count", 10).code == 0
    assert _files(again) == _files(out)
    other = tmp_path / "other"
    assert (
        run_verb(capsys, "calibrate", scenes, "--out", other, "--count", 10, "--seed", 1).code == 0
    )
    assert (other / "manifest.json").read_bytes() != (out / "manifest.json").read_bytes()


def test_a_set_of_recordings_with_a_video_and_a_student(
    recordings: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    student = train_tiny_student(steps=30).save(tmp_path / "student.safetensors")
    asked = ["--data", scenes, "--count", 12, "--stride", 4, "--method", "stratified"]
    done = run_verb(capsys, "calibrate", recordings, "--out", out, *asked, "--student", student)
    # 6 stills and frames 0, 4, 8, 12, 16
    assert done.code == 0, done.err
    assert "11 frames are fewer than --count 12: all are used" in done.err
    assert "tuesday.avi: 5 candidates, one in 4 frames" in done.out
    manifest = json.loads((out / "manifest.json").read_text())
    assert [source["kind"] for source in manifest["sources"]] == ["folder", "video"]
    film = [frame for frame in manifest["frames"] if frame["video_frame"] is not None]
    assert [frame["video_frame"] for frame in film] == [0, 4, 8, 12, 16]
    assert all(frame["polyp_from"] == "student" for frame in manifest["frames"])
    for frame in film:
        image = read_image(out / frame["file"]).astype(int)
        assert sha256(out / frame["file"]) == frame["sha256"]
        drawn = scene(8000 + frame["video_frame"], 96)[0].astype(int)
        assert np.abs(image - drawn).mean() < 8
    # known without a student: nothing
    plain = run_verb(capsys, "calibrate", recordings, "--out", tmp_path / "plain", *asked)
    assert plain.code == 0 and "polyp sizes are unknown" in plain.err
    first = json.loads((tmp_path / "plain" / "manifest.json").read_text())["frames"][0]
    assert first["features"]["polyp"] is None and first["polyp_from"] is None


def test_a_test_image_is_refused_or_left_out(
    recordings: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = next(iter(sets_of_tests(scenes).values())).pairs[0].image
    shutil.copyfile(test, recordings / "a_copy.jpg")
    with Image.open(test) as image:
        image.resize((120, 100)).save(recordings / "nearly.png")
    call = ["calibrate", recordings, "--data", scenes, "--out", tmp_path / "set", "--count", 5]
    line = only_line(run_verb(capsys, *call))
    for words in ("a_copy.jpg", test.name, "1 more frames", "--exclude-test"):
        assert words in line
    assert not (tmp_path / "set").exists()
    done = run_verb(capsys, *call, "--exclude-test")
    assert done.code == 0, done.err
    assert "2 frames show a test image or nearly so: left out" in done.err
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert {one["name"] for one in manifest["left_out"]} == {"a_copy", "nearly"}
    assert not {"a_copy", "nearly"} & {frame["name"] for frame in manifest["frames"]}


def test_identical_frames_count_once(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(recordings / "still0.png", recordings / "still0_again.png")
    done = run_verb(capsys, "calibrate", recordings, "--out", tmp_path / "set", "--stride", 20)
    assert done.code == 0, done.err
    assert "1 frames repeat another: left out" in done.err
    assert "not compared with test images" in done.err
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert len(manifest["frames"]) == 7
    assert manifest["left_out"][0]["reason"] == "the same picture as still0"


def test_bad_input_is_one_line_and_leaves_nothing(
    scenes: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (tmp_path / "broken.mp4").write_bytes(b"no film" * 50)
    before = sorted(path.name for path in tmp_path.iterdir())
    out = tmp_path / "set"
    for arguments, words in [
        ([tmp_path / "empty", "--out", out], "holds no image"),
        ([tmp_path / "absent", "--out", out], "does not exist"),
        ([broken, "--out", out], "half.jpg cannot be read"),
        ([tmp_path / "broken.mp4", "--out", out], "broken.mp4 cannot be opened as a video"),
        ([scenes, "--out", out, "--count", 0], "--count 0"),
        ([scenes, "--out", out, "--seed", -1], "--seed -1"),
        ([scenes, "--out", out, "--stride", 0], "--stride 0"),
        ([scenes, "--out", out, "--method", "best"], "kcenter, stratified, random"),
        ([scenes, "--out", tmp_path / "full"], "--overwrite"),
        ([scenes / "TestDataset", "--out", out], "test images set no ranges"),
        ([recordings, "--out", out, "--data", tmp_path / "empty"], "holds no TestDataset"),
        ([recordings, "--out", tmp_path / "m.json", "--manifest-only"], "data roots"),
        ([scenes, "--out", out, "--manifest-only"], "does not end in .json"),
        ([recordings, "--out", out, "--student", tmp_path / "empty"], "does not exist"),
    ]:
        assert words in only_line(run_verb(capsys, "calibrate", *arguments)), arguments
        assert sorted(path.name for path in tmp_path.iterdir()) == before, arguments
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"


def test_a_manifest_alone_is_not_overwritten_unasked(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["calibrate", scenes, "--out", tmp_path / "m.json", "--manifest-only", "--count", 5]
    assert run_verb(capsys, *call).code == 0
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]
    assert all(frame["file"] is None for frame in manifest["frames"])
    assert "--overwrite" in only_line(run_verb(capsys, *call))
    assert run_verb(capsys, *call, "--overwrite").code == 0
