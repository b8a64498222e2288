import json
import os
import random
import shutil
from pathlib import Path

import pytest
from tiny_bundle import rewrite_manifest

from kdas_edge.bundle.manifest import write_manifest
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError


def refusal(path: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_bundle(path, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_an_intact_bundle_opens_and_finds_its_models(bundle):
    opened = open_bundle(bundle)
    assert opened.name == "tiny"
    model = opened.model("int8", "openvino")
    assert model is not None and model.path == "int8/core.xml"
    assert opened.model("int8", "openvino", "camera").path == "int8/camera.xml"
    assert opened.model("fp16", "openvino") is None
    assert opened.file(model.path) == bundle.resolve() / "int8/core.xml"


def test_a_bundle_of_the_schema_before_is_still_read(bundle):
    def older(values):
        values["schema_version"] = "1.0"
        del values["sha256"]
        for model in values["models"]:
            del model["ir_version"], model["written_by"]

    rewrite_manifest(bundle, older)
    opened = open_bundle(bundle)
    assert opened.manifest.schema_version == "1.0"
    assert opened.manifest.models[0].ir_version is None


def test_the_size_of_an_ir_counts_the_weights_and_that_of_onnx_the_one_file(bundle):
    opened = open_bundle(bundle)
    ir, onnx = opened.model("fp32", "openvino"), opened.model("fp32", "onnx")
    pieces = [bundle / "fp32/core.xml", bundle / "fp32/core.bin"]
    assert opened.size_bytes(ir) == sum(path.stat().st_size for path in pieces)
    assert opened.size_bytes(onnx) == (bundle / "fp32/core.onnx").stat().st_size


def test_one_changed_byte_in_any_file_is_refused_and_the_file_named(original, tmp_path):
    names = [p.relative_to(original) for p in sorted(original.rglob("*")) if p.is_file()]
    names.remove(Path("manifest.json"))
    assert len(names) == 18
    for index, name in enumerate(names):
        copy = Path(shutil.copytree(original, tmp_path / str(index)))
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        assert name.as_posix() in refusal(copy)


def test_every_flipped_bit_of_the_manifest_is_refused(original, tmp_path):
    copy = Path(shutil.copytree(original, tmp_path / "tiny"))
    content = (copy / "manifest.json").read_bytes()
    rng = random.Random("flips")
    positions = rng.sample(range(8 * len(content)), 400)
    # all of the schema version and of the digest, which say what is checked
    end = content.index(b"name")
    for position in {*positions, *range(8 * end)}:
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        (copy / "manifest.json").write_bytes(changed)
        refusal(copy, verify=False)
    (copy / "manifest.json").write_bytes(content)
    assert open_bundle(copy).manifest.sha256 is not None


def test_a_manifest_of_this_schema_without_a_digest_is_refused(bundle):
    rewrite_manifest(bundle, lambda values: values.pop("sha256"))
    assert "its own digest" in refusal(bundle)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("place", ["threshold", "recipe", "notes"])
def test_a_number_that_is_not_finite_is_refused(bundle, number, place):
    def mark(values):
        if place == "threshold":
            values["threshold"] = 123.25
        else:
            values["provenance"][place] = {"a": [123.25]}

    rewrite_manifest(bundle, mark)
    values = json.loads((bundle / "manifest.json").read_text())
    del values["sha256"]
    values["schema_version"] = "1.2"
    text = json.dumps(values)
    (bundle / "manifest.json").write_text(text.replace("123.25", number))
    assert "not finite" in refusal(bundle)


def test_a_manifest_with_a_number_that_is_not_finite_is_not_written(bundle):
    manifest = open_bundle(bundle).manifest
    before = (bundle / "manifest.json").read_bytes()
    notes = manifest.provenance.model_copy(update={"notes": {"loss": float("nan")}})
    with pytest.raises(UserError, match="not finite"):
        write_manifest(bundle, manifest.model_copy(update={"provenance": notes}))
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", "[" * 100_000, '{"schema_version": "1.0"}', "\ud800", "NaN"],
    ids=["empty", "null", "list", "object", "deep", "bare", "not-utf8", "nan"],
)
def test_a_manifest_of_rubbish_is_one_clear_line(bundle, text):
    (bundle / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "manifest" in refusal(bundle)


def test_a_truncated_file_is_refused(bundle):
    path = bundle / "fp32/core.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "fp32/core.bin" in refusal(bundle)


def test_a_missing_file_is_refused_and_named(bundle):
    (bundle / "golden/0.png").unlink()
    assert "golden/0.png" in refusal(bundle)


@pytest.mark.parametrize("name", ["extra.txt", "fp32/.hidden", "new/model.onnx"])
def test_a_file_that_the_manifest_does_not_name_is_refused_and_named(bundle, name):
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("?")
    message = refusal(bundle)
    assert name in message and "remove it" in message


def test_an_absent_bundle_a_file_and_a_folder_without_manifest_are_told_apart(bundle, tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "not a directory" in refusal(bundle / "manifest.json")
    (tmp_path / "empty").mkdir()
    assert "no manifest.json" in refusal(tmp_path / "empty")


def test_a_newer_schema_is_refused_with_the_version_to_install(bundle):
    def newer(values):
        values["schema_version"] = "2.0"
        values["provenance"]["code_version"] = "0.9.0"
        values["a_key_of_the_future"] = 1

    rewrite_manifest(bundle, newer)
    message = refusal(bundle)
    assert "'2.0'" in message and "0.9.0" in message


def test_an_unknown_key_is_refused_so_that_nothing_is_half_understood(bundle):
    rewrite_manifest(bundle, lambda values: values.update(treshold=0.3))
    assert "treshold" in refusal(bundle)


@pytest.mark.parametrize(
    "name", ["../outside.bin", "/etc/passwd", "golden/../../outside.bin", "c:\\x", "a\\..\\b"]
)
@pytest.mark.parametrize("place", ["files", "model", "golden"])
def test_a_path_that_leaves_the_bundle_is_refused(bundle, tmp_path, name, place):
    (tmp_path / "outside.bin").write_text("secret")

    def escape(values):
        if place == "files":
            values["files"][name] = {"bytes": 6, "sha256": "0" * 64}
        elif place == "model":
            values["models"][0]["path"] = name
        else:
            values["golden"][0]["frame"] = name

    rewrite_manifest(bundle, escape)
    assert "leaves the bundle" in refusal(bundle)


def test_a_model_without_a_hash_is_refused_even_if_it_exists(bundle):
    rewrite_manifest(bundle, lambda values: values["files"].pop("fp32/core.bin"))
    assert "fp32/core.bin" in refusal(bundle, verify=False)


def test_a_model_of_a_preset_without_an_input_contract_is_refused(bundle):
    rewrite_manifest(bundle, lambda values: values["inputs"].pop("camera"))
    assert "preset camera, whose input is not in manifest.json" in refusal(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(schema_version=[0] * 9999),
        lambda values: values.update(schema_version="9", provenance={"code_version": "9" * 9999}),
        lambda values: values["models"][0].update(path="A" * 9999),
        lambda values: values["golden"][0].update(frame="../" * 9999),
        lambda values: values.update({"A" * 9999: 0}),
    ],
)
def test_a_value_that_would_fill_the_screen_is_shortened(bundle, change):
    rewrite_manifest(bundle, change)
    assert len(refusal(bundle)) < 700


def test_a_link_to_a_file_outside_is_refused(bundle, tmp_path):
    moved = tmp_path / "core.bin"
    shutil.move(bundle / "fp32/core.bin", moved)
    (bundle / "fp32/core.bin").symlink_to(moved)
    assert "link that leaves the bundle" in refusal(bundle)
    opened = open_bundle(bundle, verify=False)
    with pytest.raises(UserError, match="leaves the bundle"):
        opened.file("fp32/core.bin")


def test_a_link_to_a_folder_outside_is_refused(bundle, tmp_path):
    shutil.move(bundle / "golden", tmp_path / "golden")
    (bundle / "golden").symlink_to(tmp_path / "golden")
    assert "golden" in refusal(bundle)


def test_a_manifest_that_is_a_link_out_is_refused(bundle, tmp_path):
    shutil.move(bundle / "manifest.json", tmp_path / "manifest.json")
    (bundle / "manifest.json").symlink_to(tmp_path / "manifest.json")
    assert "leaves the bundle" in refusal(bundle)


def test_a_bundle_reached_through_a_link_opens(bundle, tmp_path):
    (tmp_path / "current").symlink_to(bundle)
    assert open_bundle(tmp_path / "current").path == bundle.resolve()


def test_a_named_pipe_in_place_of_a_file_does_not_hang(bundle):
    (bundle / "fp32/core.bin").unlink()
    os.mkfifo(bundle / "fp32/core.bin")
    assert "fp32/core.bin" in refusal(bundle)


def test_a_file_outside_the_manifest_cannot_be_asked_for(bundle):
    opened = open_bundle(bundle)
    for name in ("manifest.json", "../x", "/etc/passwd", "fp32"):
        with pytest.raises(UserError, match="names no file"):
            opened.file(name)


def test_opening_without_verification_still_reads_the_contract(bundle):
    (bundle / "fp32/core.bin").write_bytes(b"changed")
    assert open_bundle(bundle, verify=False).manifest.size == 64


def test_the_manifest_survives_a_round_trip(bundle):
    manifest = open_bundle(bundle).manifest
    assert json.loads((bundle / "manifest.json").read_text()) == manifest.model_dump(mode="json")
