import json
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from rtsp_server import RtspServer
from tiny_bundle import make_tiny_bundle, scene
from video_files import clip, write_video

from kdas_edge.bundle import shipped

TARGET = ["--target", "openvino:CPU:threads=1"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("predict") / "tiny")


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(scene(80, 100 + index, seed=index, polyp=index < 2)).save(
            folder / f"{index}.png"
        )
    return folder


def only_line(error: str) -> str:
    """The message, after checking that it is one line and no traceback."""
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in error
    return lines[0]


def test_a_folder_becomes_masks_overlays_lines_and_percentiles(run, bundle, frames, tmp_path):
    out = tmp_path / "out"
    record = tmp_path / "record.json"
    code, shown, _ = run(
        "predict", frames, "--bundle", bundle, "--out", out, "--json", record, *TARGET
    )
    assert code == 0
    for name in ("0.png", "1.png", "2.png"):
        mask = np.asarray(Image.open(out / "masks" / name))
        frame = np.asarray(Image.open(frames / name))
        assert mask.shape == frame.shape[:2] and set(np.unique(mask)) <= {0, 255}
        assert np.asarray(Image.open(out / "overlays" / name)).shape == frame.shape
        assert name in shown
    assert "p99" in shown and "postprocess" in shown
    values = json.loads(record.read_text())
    assert [row["components"] for row in values["images"]] == [1, 1, 0]
    assert values["precision"] == "int8" and values["effective"]["threads"] == 1
    assert set(values["milliseconds"]["total"]) == {"p50", "p90", "p99"}


def test_one_image_works_on_its_own_and_on_the_other_runtime(run, bundle, frames, tmp_path):
    for target in ("openvino:CPU:threads=1", "onnxruntime:CPU:threads=1"):
        out = tmp_path / target.partition(":")[0]
        code, _, _ = run(
            "predict", frames / "0.png", "--bundle", bundle, "--out", out,
            "--target", target, "--precision", "fp32",
        )  # fmt: skip
        assert code == 0
    masks = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("o*/masks/0.png"))]
    assert len(masks) == 2 and masks[0].any()
    np.testing.assert_array_equal(masks[0], masks[1])


def test_a_corrupt_image_fails_alone_and_the_exit_code_tells(run, bundle, frames, tmp_path):
    content = (frames / "1.png").read_bytes()
    (frames / "1.png").write_bytes(content[: len(content) // 2])
    (frames / "3.png").write_bytes(b"")
    out = tmp_path / "out"
    code, shown, error = run("predict", frames, "--bundle", bundle, "--out", out, *TARGET)
    assert code == 2
    assert shown.count("FAILED") == 2
    assert "2 of 4 images" in only_line(error)
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["0.png", "2.png"]


def test_an_output_folder_with_content_is_kept_unless_overwritten(run, bundle, frames, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    command = ["predict", frames, "--bundle", bundle, "--out", out, *TARGET]
    code, _, error = run(*command)
    assert code == 2 and "--overwrite" in only_line(error)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert run(*command, "--overwrite")[0] == 0
    # files that are not results of this verb are never removed
    assert (out / "notes.txt").read_text() == "mine" and (out / "masks/0.png").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"source": "nowhere"}, "does not exist"),
        ({"source": "empty"}, "holds no image"),
        ({"--bundle": "nowhere"}, "does not exist"),
        ({"--target": "openvno:CPU"}, "did you mean 'openvino'"),
        ({"--target": "openvino:CPU:treads=1"}, "did you mean 'threads'"),
        ({"--target": "onnxruntime:CoreML"}, "present: onnxruntime:CPU"),
        ({"--precision": "int4"}, "it holds fp32 core"),
        ({"--preset": "holoscan"}, "it holds fp32 core"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run, bundle, frames, tmp_path, change, word):
    (tmp_path / "empty").mkdir()
    options = {
        "source": "frames",
        "--bundle": str(bundle),
        "--target": "openvino:CPU:threads=1",
        "--precision": "int8",
        "--preset": "core",
    } | change
    source = tmp_path / options.pop("source")
    out = tmp_path / "out"
    pairs = [word for pair in options.items() for word in pair]
    code, _, error = run("predict", source, "--out", out, *pairs)
    assert code == 2
    assert word in only_line(error)
    assert not out.exists()


def test_an_output_that_cannot_be_written_is_one_line(run, bundle, frames, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, error = run(
        "predict", frames, "--bundle", bundle, "--out", tmp_path / "file/out", *TARGET
    )
    assert code == 2 and "cannot write" in only_line(error)


def test_without_a_bundle_the_shipped_student_is_taken_or_its_absence_told(
    run, bundle, frames, tmp_path, monkeypatch
):
    monkeypatch.setattr(shipped, "STUDENT", tmp_path / "nothing")
    out = tmp_path / "out"
    code, _, error = run("predict", frames, "--out", out, *TARGET)
    assert code == 2 and "no bundle is named" in only_line(error) and not out.exists()
    monkeypatch.setattr(shipped, "STUDENT", bundle)
    code, _, error = run("predict", frames, "--out", out, *TARGET)
    assert code == 0 and "tiny int8 core on openvino:CPU" in error


def test_images_beside_a_teacher_and_a_line_of_json_for_each(run, bundle, frames, tmp_path):
    out, lines = tmp_path / "out", tmp_path / "lines.jsonl"
    code, _, _ = run(
        "predict", frames, "--bundle", bundle, "--teacher", bundle, "--fill", "--out", out,
        "--jsonl", lines, *TARGET,
    )  # fmt: skip
    assert code == 0
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(one["index"], one["name"], one["components"]) for one in found] == [
        (0, "0.png", 1), (1, "1.png", 1), (2, "2.png", 0),
    ]  # fmt: skip
    assert all(one["teacher_dice"] == 1 for one in found)
    x, y, width, height = found[0]["boxes"][0]
    mask = cv2.imread(str(out / "masks/0.png"), cv2.IMREAD_UNCHANGED) > 0
    assert mask.sum() == found[0]["areas"][0] == mask[y : y + height, x : x + width].sum()
    assert cv2.imread(str(out / "overlays/0.png")).shape == (80, 200, 3)


def test_a_target_that_is_absent_gives_way_to_the_next_of_a_list(run, bundle, frames, tmp_path):
    code, _, error = run(
        "predict", frames, "--bundle", bundle, "--out", tmp_path / "out",
        "--target", "onnxruntime:CoreML,openvino:CPU:threads=1",
    )  # fmt: skip
    assert code == 0 and "next target" in error
    assert "tiny int8 core on openvino:CPU:threads=1" in error


def test_a_video_becomes_a_recording_and_lines_unless_told_otherwise(run, bundle, tmp_path):
    images = clip(20) + clip(10, polyp=False)
    video = write_video(tmp_path / "case.avi", images, fps=20)
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    command = ["predict", video, "--bundle", bundle, "--out", out, *TARGET]
    code, shown, error = run(*command)
    assert code == 0 and "30 frames in" in error and "inference" in shown
    assert sorted(path.name for path in out.iterdir()) == ["case.jsonl", "case.mp4"]
    lines = [json.loads(line) for line in (out / "case.jsonl").read_text().splitlines()]
    assert [bool(line["boxes"]) for line in lines] == [True] * 20 + [False] * 10
    recording = cv2.VideoCapture(str(out / "case.mp4"))
    assert recording.get(cv2.CAP_PROP_FRAME_COUNT) == 30
    assert recording.get(cv2.CAP_PROP_FPS) == 20

    code, _, error = run(*command, "--json", figures)
    assert code == 0
    values = json.loads(figures.read_text())
    assert values["frames"] == values["expected_frames"] == 30 and values["dropped"] == 0
    assert values["kind"] == "video" and values["ended"] == "end" and values["problems"] == []
    assert set(values["milliseconds"]["inference"]) == {"p50", "p90", "p99", "max"}
    assert str(tmp_path) not in values["source"] and values["written"] == {}


def test_what_steadies_says_what_it_delays_and_a_missed_budget_is_told(run, bundle, tmp_path):
    video = write_video(tmp_path / "case.avi", clip(10))
    figures = tmp_path / "figures.json"
    code, _, error = run(
        "predict", video, "--bundle", bundle, "--json", figures, "--smooth", 0.6, "--persist",
        "3/5", "--hysteresis", 0.3, "--budget-ms", 0.01, *TARGET,
    )  # fmt: skip
    assert code == 0
    assert "--persist adds 80 ms until a polyp appears and 0 ms until it disappears" in error
    assert "--smooth adds 40 ms" in error and "--hysteresis adds 0 ms" in error
    assert "misses the budget of 0.01 ms; 10 of 10 frames were late" in error
    values = json.loads(figures.read_text())
    assert values["stability"]["delays"]["persist"] == {"appear_ms": 80, "disappear_ms": 0}
    assert values["budget"]["met"] is False and values["budget"]["late"] == 10


def test_a_truncated_video_is_processed_as_far_as_it_goes_and_the_exit_code_tells(
    run, bundle, tmp_path
):
    video = write_video(tmp_path / "case.avi", clip(60))
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    out = tmp_path / "out"
    code, _, error = run("predict", video, "--bundle", bundle, "--out", out, *TARGET)
    count = len((out / "case.jsonl").read_text().splitlines())
    assert code == 2 and 5 < count < 50
    assert f"truncated: {count} of 60 frames" in only_line(error)
    assert cv2.VideoCapture(str(out / "case.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == count


def test_damaged_videos_are_one_line_or_processed_and_never_a_traceback(run, bundle, tmp_path):
    content = bytearray(write_video(tmp_path / "good.avi", clip(12)).read_bytes())
    codes = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        damaged = content.copy()
        for place in rng.integers(0, len(content) if seed % 2 else 400, 40):
            damaged[place] = rng.integers(256)
        video = tmp_path / f"bad{seed}.avi"
        video.write_bytes(damaged)
        code, _, error = run(
            "predict", video, "--bundle", bundle, "--out", tmp_path / f"out{seed}", *TARGET
        )
        assert code in (0, 2) and "Traceback" not in error
        if code:
            only_line(error)
        codes.append(code)
    assert set(codes) == {0, 2}


def test_a_network_camera_is_processed_and_its_break_is_told(run, bundle, tmp_path):
    stream = write_video(tmp_path / "a.ts", clip(30))
    lines, figures = tmp_path / "seen.jsonl", tmp_path / "figures.json"
    with RtspServer(stream, plays=1) as server:
        code, _, error = run(
            "predict", server.url, "--bundle", bundle, "--jsonl", lines, "--json", figures,
            "--reconnect", 1, *TARGET,
        )  # fmt: skip
    assert code == 2 and "did not come back, tried once" in only_line(error)
    assert "reconnecting in 0.5 s (attempt 1 of 1)" in error
    values = json.loads(figures.read_text())
    count = len(lines.read_text().splitlines())
    assert count == values["frames"] > 0 and values["live"] and values["latency_ms"]["p50"] > 0
    assert "secret" not in error + lines.read_text() + figures.read_text()


def test_a_folder_with_a_rate_is_a_video(run, bundle, frames, tmp_path):
    out = tmp_path / "out"
    code, _, _ = run(
        "predict", frames, "--bundle", bundle, "--out", out, "--fps", 10, "--frames", *TARGET
    )
    assert code == 0
    names = [path.name for path in sorted((out / "masks").iterdir())]
    assert names == ["000000.png", "000001.png", "000002.png"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--show"], "--show: "),
        (["--record", "b.avi"], "let the name end in .mp4"),
        (["--record", "case.avi", "--overwrite"], "--record case.avi is case.avi, which is read"),
        (["--jsonl", "case.avi", "--overwrite"], "--jsonl case.avi is case.avi, which is read"),
        (["--jsonl", "a", "--json", "a"], "is the same file as --json"),
        (["--hysteresis", 0.6], "must be below the bundle's threshold 0.5"),
        (["--persist", "5/3"], "persist 5/3"),
        (["--smooth", 1], "smooth 1"),
        (["--fps", "inf"], "--fps inf"),
        (["--roi", "1,2"], "--roi '1,2'"),
        (["--roi", "50,40,30,30"], "64"),
        (["--limit", 0], "--limit 0"),
    ],
)
def test_wrong_options_of_a_video_are_one_line_and_leave_nothing(
    run, bundle, tmp_path, monkeypatch, options, word
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    video = write_video(tmp_path / "case.avi", clip(5))
    before = video.read_bytes()
    code, _, error = run("predict", "case.avi", "--bundle", bundle, *options, *TARGET)
    assert code == 2 and word in only_line(error)
    assert video.read_bytes() == before
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("camera:97", "there is no camera 97"),
        ("camera:front", "number of the camera"),
        ("rtsp://nurse:secret@127.0.0.1:1/a", "cannot be opened; check the address"),
        ("ftp://box/a.mp4", "unknown scheme 'ftp'"),
    ],
)
def test_sources_that_cannot_be_opened_are_one_line(run, bundle, tmp_path, source, word):
    code, _, error = run("predict", source, "--bundle", bundle, "--out", tmp_path / "o", *TARGET)
    assert code == 2 and word in only_line(error) and "secret" not in error
    assert not (tmp_path / "o").exists()


def test_results_are_not_written_among_the_images_they_are_made_from(run, bundle, frames):
    masks = frames.rename(frames.with_name("masks"))
    code, _, error = run(
        "predict", masks, "--bundle", bundle, "--out", masks.parent, "--overwrite", *TARGET
    )
    assert code == 2 and "holds" in only_line(error)


def test_control_c_ends_a_video_with_everything_up_to_there(bundle, tmp_path):
    video = write_video(tmp_path / "case.avi", clip(400))
    command = [
        sys.executable, "-m", "kdas_edge", "predict", video, "--bundle", bundle, "--realtime",
        "--out", tmp_path / "out", *TARGET,
    ]  # fmt: skip
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = tmp_path / "out/case.jsonl"
    for _ in range(600):
        if lines.exists() and lines.stat().st_size:
            break
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in error, error
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert 0 < len(found) < 400
    recording = cv2.VideoCapture(str(tmp_path / "out/case.mp4"))
    assert recording.get(cv2.CAP_PROP_FRAME_COUNT) >= len(found)


def test_help_shows_examples(run):
    code, shown, _ = run("predict", "--help")
    assert code == 0 and "kdas-edge predict frames/" in shown
