import json
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.cli import main

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


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdas-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
            raise SystemExit(0)
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return call


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


def test_help_shows_examples(run):
    code, shown, _ = run("predict", "--help")
    assert code == 0 and "kdas-edge predict frames/" in shown
