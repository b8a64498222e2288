"""`export` as a person calls it: a bundle that opens, verifies and agrees; and wrong input."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from run_verb import Done, only_line, run_verb
from tiny_student import SIZE, TinyStudent, train_tiny_student

from kdas_edge.bundle.reader import open_bundle
from kdas_edge.evidence.golden import read_expected
from kdas_edge.export.agreement import input_spec, reference
from kdas_edge.image_files import read_image
from kdas_edge.models.checkpoints import BEST, load_network, save_network
from kdas_edge.quantize.pipeline import FLOAT
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.quantize.qat import CONFIG, save_config
from kdas_edge.recipe import DataRecipe, PtqRecipe, QuantizeRecipe
from kdas_edge.run import Run
from kdas_edge.runtime.inputs import preprocess


def exported(out: Path, run: Path, name: str | None = None) -> Path:
    """A bundle in which every file agrees with torch; it is an error if one does not."""
    from kdas_edge.export.export_report import raise_for_failures
    from kdas_edge.export.writer import export_bundle

    report = export_bundle(out, run, name=name)
    raise_for_failures(report)
    return report.path


@pytest.fixture(scope="module")
def student() -> TinyStudent:
    return train_tiny_student()


@pytest.fixture(scope="module")
def quantised_run(student: TinyStudent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `quantize` leaves: a run with the quantised network and its float student."""
    root = tmp_path_factory.mktemp("runs")
    recipe = QuantizeRecipe(name="int8", data=DataRecipe(root="/data/polyps"), student="student")
    run = Run.create(root, recipe, kind="quantize")
    network = post_training_quantize(student.network, student.inputs(student.frames), PtqRecipe())
    student.save(run.path / FLOAT)
    save_network(run.path / BEST, network.state_dict(), student.architecture)
    save_config(run.path / CONFIG, network)
    return run.path


@pytest.fixture(scope="module")
def bundle(quantised_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("bundles") / "small", quantised_run)


def test_a_quantised_run_becomes_a_bundle_of_both_precisions(bundle: Path) -> None:
    opened = open_bundle(bundle)
    manifest = opened.manifest
    for precision in ("fp32", "int8"):
        for format_ in ("openvino", "onnx"):
            for preset in ("core", "camera"):
                assert opened.model(precision, format_, preset) is not None
    assert opened.model("fp32", "torch") is not None
    assert manifest.size == SIZE and manifest.output.shape == (1, 2, SIZE, SIZE)
    assert {"MODEL_CARD.md", "fp32/core.bin", "int8/camera.onnx"} <= manifest.files.keys()
    # a bundle tells nothing of the disk that it left
    assert manifest.provenance.notes["quantization"]["recipe"]["data"]["root"] == "polyps"
    assert all(row["status"] == "ok" for row in manifest.provenance.notes["agreement"])
    assert manifest.disclaimer in (bundle / "MODEL_CARD.md").read_text()


def test_the_int8_onnx_is_much_smaller_than_the_float_one(bundle: Path) -> None:
    opened = open_bundle(bundle)
    sizes = {
        precision: opened.size_bytes(opened.model(precision, "onnx"))  # type: ignore[arg-type]
        for precision in ("fp32", "int8")
    }
    assert sizes["int8"] < 0.7 * sizes["fp32"]


def test_the_golden_vectors_are_torchs_answer_to_the_stored_frames(
    bundle: Path, student: TinyStudent
) -> None:
    opened = open_bundle(bundle)
    assert len(opened.manifest.golden) >= 3
    network = load_network(opened.file("torch/model.safetensors"))
    architecture = network.architecture
    for golden in opened.manifest.golden:
        frame = read_image(opened.file(golden.frame))
        assert frame.shape[:2] != (SIZE, SIZE)
        expected = read_expected(opened, golden.expected["fp32"])
        found = reference(network, architecture, [frame])[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert read_expected(opened, golden.expected["int8"]).shape == (SIZE, SIZE)
    assert preprocess(frame, input_spec(architecture)).shape == (1, 3, SIZE, SIZE)


def test_the_speed_of_int8_is_in_the_manifest_and_on_the_model_card(bundle: Path) -> None:
    speeds = open_bundle(bundle).manifest.provenance.notes["int8_speed"]
    assert [speed["format"] for speed in speeds] == ["openvino", "onnx"]
    card = (bundle / "MODEL_CARD.md").read_text()
    for speed in speeds:
        assert speed["line"] in card
        assert speed["faster"] == (speed["ratio"]["low"] > 1)
        found = speed["kernels"]
        assert 0 < found["convolutions_int8"] < found["convolutions"]
        assert str(found["convolutions"]) in speed["line"]


def test_each_file_records_its_format_version_and_operator_set(bundle: Path) -> None:
    opened = open_bundle(bundle)
    for model in opened.manifest.models:
        if model.format == "onnx":
            file = onnx.load(opened.file(model.path))
            assert model.ir_version == file.ir_version
            assert model.opset == file.opset_import[0].version
        elif model.format == "openvino":
            root = ElementTree.parse(opened.file(model.path)).getroot()
            assert model.ir_version == int(root.attrib["version"])
            assert model.opset and model.written_by and model.written_by.startswith("openvino 20")


def test_fp16_and_weight_only_int8_are_written_on_request_and_work_on_the_device(
    quantised_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "bundle", tmp_path / "e.json"
    done = run_verb(
        capsys, "export", quantised_run, "--out", out, "--preset", "core", "--no-torch",
        "--precision", "int8_weights, fp16,int8", "--no-timing", "--json", table,
    )  # fmt: skip
    assert done.code == 0, done.out + done.err
    opened = open_bundle(out)
    held = [(model.precision, model.format) for model in opened.manifest.models]
    assert held == [
        (precision, format_)
        for precision in ("fp16", "int8", "int8_weights")
        for format_ in ("openvino", "onnx")
    ]
    assert {"fp16", "int8", "int8_weights"} == opened.manifest.golden[0].expected.keys()
    values = json.loads(table.read_text())
    assert values["int8_speed"] == []
    assert {"int8", "int8_weights"} == values["change_from_fp32"].keys()
    assert all(change["disagreement"] < 0.02 for change in values["change_from_fp32"].values())
    assert "of mask pixels differ from fp32" in done.out and "faster" not in done.out

    done = run_verb(capsys, "verify", out, "--no-export", "--json", tmp_path / "v.json")
    assert done.code == 0, done.out + done.err
    checks = {
        check["what"]: check for check in json.loads((tmp_path / "v.json").read_text())["checks"]
    }
    assert checks["fp16/core.onnx: format"]["verdict"] == "pass"
    assert checks["int8/core.xml: operators"]["verdict"] == "pass"
    for runtime in ("openvino:CPU", "onnxruntime:CPU"):
        # the golden vectors are of the network with the rounded weights: float rounding only
        assert checks[f"{runtime} int8_weights core: probability"]["verdict"] == "pass"
        assert checks[f"{runtime} fp16 core: mask"]["verdict"] == "pass"

    frame = next((out / "golden").glob("*.png"))
    for precision, target in (("fp16", "onnxruntime:CPU"), ("int8_weights", "openvino:CPU")):
        masks = tmp_path / precision
        done = run_verb(
            capsys, "predict", frame, "--bundle", out, "--out", masks,
            "--precision", precision, "--target", target,
        )  # fmt: skip
        assert done.code == 0, done.err
        assert list(masks.rglob("*.png"))


def test_the_bundle_passes_its_own_verification(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_verb(capsys, "verify", bundle, "--no-export")
    assert done.code == 0, done.out + done.err


def test_two_exports_differ_in_nothing_but_their_time(bundle: Path, quantised_run: Path) -> None:
    other = exported(bundle.parent / "again", quantised_run, name="small")
    first, second = open_bundle(bundle).manifest.files, open_bundle(other).manifest.files
    different = {name for name in first if first[name] != second.get(name)}
    assert different <= {"MODEL_CARD.md", "sbom.cdx.json"} and first.keys() == second.keys()


def test_a_float_checkpoint_is_exported_alone_and_the_next_commands_are_printed(
    student: TinyStudent, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    done = run_verb(
        capsys,
        "export",
        student.save(tmp_path / "student.safetensors"),
        "--out",
        out,
        "--preset",
        "core",
        "--no-torch",
        "--golden",
        next((scenes / "TestDataset").iterdir()) / "images",
        "--data",
        scenes,
        "--limit",
        3,
        "--json",
        tmp_path / "e.json",
    )
    assert done.code == 0, done.err
    assert f"next: kdas-edge verify {out}" in done.out and "kdas-edge bench" in done.out
    opened = open_bundle(out)
    assert {(m.precision, m.format, m.preset) for m in opened.manifest.models} == {
        ("fp32", "openvino", "core"),
        ("fp32", "onnx", "core"),
    }
    report = json.loads((tmp_path / "e.json").read_text())
    assert [row["status"] for row in report["files"]] == ["ok", "ok"]
    frames = {row["agreement"]["frames"] for row in report["files"]}
    assert frames == {len(opened.manifest.golden) + 3}
    assert max(row["agreement"]["probability"] for row in report["files"]) < 1e-4


def test_when_one_file_cannot_be_made_the_others_are_and_the_code_is_3(
    student: TinyStudent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # a machine whose ONNX Runtime cannot be loaded
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "kdas_edge.runtime.backends.onnxruntime", raising=False)
    out = tmp_path / "bundle"
    checkpoint = student.save(tmp_path / "student.safetensors")
    done = run_verb(capsys, "export", checkpoint, "--out", out, "--preset", "core")
    assert done.code == 3
    assert "failed" in done.out and "fp32/core.onnx" in done.err
    opened = open_bundle(out)
    assert opened.model("fp32", "openvino") is not None
    assert opened.model("fp32", "onnx") is None


def test_files_can_be_left_out_for_a_smaller_bundle(
    student: TinyStudent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    checkpoint = student.save(tmp_path / "student.safetensors")
    done = run_verb(
        capsys, "export", checkpoint, "--out", out, "--no-torch",
        "--without", "fp32/core.onnx, fp32/camera.xml",
    )  # fmt: skip
    assert done.code == 0, done.err
    opened = open_bundle(out)
    assert {(m.format, m.preset) for m in opened.manifest.models} == {
        ("openvino", "core"),
        ("onnx", "camera"),
    }
    assert {path.name for path in (out / "fp32").iterdir()} == {
        "core.xml", "core.bin", "camera.onnx",
    }  # fmt: skip
    assert run_verb(capsys, "verify", out).code == 0


def test_half_weights_halve_the_fp32_files_and_the_rounded_network_is_what_they_agree_with(
    student: TinyStudent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = student.save(tmp_path / "student.safetensors")
    sizes = {}
    for name, extra in (("full", ()), ("half", ("--half-weights",))):
        out = tmp_path / name
        done = run_verb(capsys, "export", checkpoint, "--out", out, "--preset", "core", *extra)
        assert done.code == 0, done.err
        sizes[name] = [(out / "fp32" / file).stat().st_size for file in ("core.bin", "core.onnx")]
        # the export itself compares with torch: within 1e-4 in probability
        assert run_verb(capsys, "verify", out, "--no-export").code == 0
    assert sizes["half"][0] < 0.56 * sizes["full"][0]
    assert sizes["half"][1] < 0.8 * sizes["full"][1]
    notes = open_bundle(tmp_path / "half").manifest.provenance.notes
    assert notes["float_weight_bits"] == 16
    cards = {name: (tmp_path / name / "MODEL_CARD.md").read_text() for name in sizes}
    assert "rounded to 16 bits" in cards["half"] and "rounded to" not in cards["full"]
    full, half = (load_network(tmp_path / n / "torch" / "model.safetensors") for n in sizes)
    pairs = list(zip(full.parameters(), half.parameters(), strict=True))
    assert any((a != b).any() for a, b in pairs)
    assert all(torch.allclose(a, b, rtol=2**-11, atol=1e-6) for a, b in pairs)


def test_a_run_becomes_a_bundle_with_the_holoscan_preset_and_beside_it_a_repository(
    student: TinyStudent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = student.save(tmp_path / "student.safetensors")
    done = run_verb(
        capsys, "export", checkpoint, "--out", tmp_path / "small", "--no-torch",
        "--preset", "core,holoscan", "--layout", "triton",
    )  # fmt: skip
    assert done.code == 0, done.err
    # each file, the holoscan ones too, was run and agrees with torch
    assert run_verb(capsys, "verify", tmp_path / "small", "--no-export").code == 0
    folders = {path.parent.name for path in (tmp_path / "small-triton").glob("*/config.pbtxt")}
    assert folders == {
        f"small_{preset}_fp32{runtime}"
        for preset in ("core", "holoscan")
        for runtime in ("", "_openvino")
    }


def test_a_bundle_becomes_a_repository_and_needs_the_name_of_a_layout(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(*arguments: object) -> Done:
        return run_verb(capsys, "export", bundle, "--out", tmp_path / "models", *arguments)

    assert "add --layout ovms or triton" in only_line(export())
    assert "'torchserve' is unknown; known: ovms, triton" in only_line(
        export("--layout", "torchserve")
    )
    assert not (tmp_path / "models").exists()
    done = export("--layout", "ovms", "--precision", "int8", "--preset", "camera")
    assert done.code == 0 and "small_camera_int8" in done.out and "1×any×any×3" in done.out
    [entry] = json.loads((tmp_path / "models" / "config.json").read_text())["model_config_list"]
    assert entry["config"]["base_path"] == "small_camera_int8"
    assert "--overwrite" in only_line(export("--layout", "ovms"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--preset", "cameras"], "known: core, camera"),
        (["--preset", ","], "--preset core,camera"),
        (["--golden", "nowhere"], "nowhere is not a folder"),
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--int8", "nowhere"], "not a finished quantised run"),
        (["--precision", "fp8"], "known: fp32, fp16, int8, int8_weights"),
        (["--precision", ""], "--precision fp32,fp16"),
        (["--precision", "fp32,int8"], "add --int8 RUN"),
        (["--without", "int8/core.xml"], "--without int8/core.xml: no such file"),
        (["--preset", "core", "--without", "fp32/core.xml, fp32/core.onnx"], "leaves no file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_no_bundle_is_left(
    arguments: list[str],
    expected: str,
    student: TinyStudent,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = student.save(tmp_path / "student.safetensors")
    done = run_verb(capsys, "export", checkpoint, "--out", tmp_path / "bundle", *arguments)
    assert expected in only_line(done)
    assert [path.name for path in tmp_path.iterdir()] == ["student.safetensors"]


def test_an_int8_run_that_no_precision_asks_for_is_refused(
    student: TinyStudent, quantised_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = student.save(tmp_path / "student.safetensors")
    done = run_verb(
        capsys, "export", checkpoint, "--int8", quantised_run, "--out", tmp_path / "bundle",
        "--precision", "fp16",
    )  # fmt: skip
    assert "leave --int8 out" in only_line(done)
    assert not (tmp_path / "bundle").exists()


def test_a_source_that_is_no_network_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "student.safetensors"
    broken.write_bytes(b"not a network")
    done = run_verb(capsys, "export", broken, "--out", tmp_path / "bundle")
    assert "student.safetensors" in only_line(done)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_with_content_is_not_overwritten(
    student: TinyStudent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    checkpoint = student.save(tmp_path / "student.safetensors")
    done = run_verb(capsys, "export", checkpoint, "--out", tmp_path / "mine")
    assert "--overwrite" in only_line(done)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_quantised_run_of_another_network_is_refused(
    quantised_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = train_tiny_student(steps=1)
    larger = type(other.architecture)(**{**other.architecture.to_dict(), "size": 96})
    save_network(tmp_path / "other.safetensors", other.network.state_dict(), larger)
    done = run_verb(
        capsys,
        "export",
        tmp_path / "other.safetensors",
        "--int8",
        quantised_run,
        "--out",
        tmp_path / "b",
    )
    assert "quantised from" in only_line(done) or "another architecture" in only_line(done)
