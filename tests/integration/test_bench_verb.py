import json
import shutil

import pytest
from peer_model import NORMAL, make_peer, write_config
from run_verb import only_line, run_verb
from tiny_bundle import make_named_bundles, rewrite_manifest, write_discs

TARGETS = "openvino:CPU:threads=1,openvino:CPU:threads=2,onnxruntime:CPU:threads=1"
QUICK = ("--iterations", 5, "--warmup", 1, "--warmup-limit", 1, "--no-startup")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_named_bundles(tmp_path_factory.mktemp("models"), teacher=256, student=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_discs(tmp_path_factory.mktemp("data") / "discs", 4)


@pytest.fixture(scope="module")
def results(models, data, tmp_path_factory):
    """One benchmark for several tests; its torch rows fail, for the bundles hold no torch model."""
    from kdas_edge.bench import harness
    from kdas_edge.bench.evaluation import choose_sets
    from kdas_edge.bench.models import open_model
    from kdas_edge.runtime.targets import parse_targets

    return harness.run(
        [open_model(models / "student")],
        open_model(models / "teacher"),
        parse_targets(TARGETS + ",torch:cpu"),
        choose_sets(data),
        harness.Settings(iterations=12, warmup=1),
    ).model_dump(mode="json", by_alias=True, exclude_none=True)


def test_there_is_one_row_per_model_precision_and_target(results):
    found = [(r["model"], r["precision"], r["target"]) for r in results["rows"]]
    assert len(set(found)) == len(found)
    expected = {
        (model, precision, target)
        for model in ("teacher", "student")
        for precision in ("fp32", "int8")
        for target in TARGETS.split(",")
    }
    assert expected <= set(found)


def test_a_row_has_percentiles_samples_ratio_size_and_effective_properties(results):
    row = next(r for r in results["rows"] if r["model"] == "student" and r["precision"] == "int8")
    timing = row["latency"]
    assert 0 < timing["min"] <= timing["p50"] <= timing["p90"] <= timing["p99"] <= timing["max"]
    assert len(timing["samples"]) == 12
    assert row["speedup"]["low"] <= row["speedup"]["value"] <= row["speedup"]["high"]
    # the student sees a sixteenth of the teacher's pixels
    assert row["speedup"]["value"] > 1
    assert row["file_bytes"] > 1000 and row["load_ms"] > 0
    assert row["effective"]["threads"] == 1


def test_a_row_has_percentiles_and_missed_deadlines_and_says_how_it_was_warmed_up(results):
    for row in results["rows"]:
        if row["status"] == "ok":
            for timing in (row["latency"], row["end_to_end"]):
                assert timing["p90"] <= timing["p95"] <= timing["p99"]
                misses = timing["deadline_misses"]
                assert list(misses) == ["25", "30", "50", "60"]
                assert list(misses.values()) == sorted(misses.values())
                assert timing["warmup"]["rounds"] == 1
    assert results["settings"]["warmup_rounds_at_most"] == 1


def test_end_to_end_is_the_whole_way_of_a_frame_and_decoding_is_apart(results):
    rows = [row for row in results["rows"] if row["status"] == "ok"]
    for row in rows:
        whole = row["end_to_end"]
        assert whole["frames"] == ["128×96"]
        assert set(whole["stages"]) == {"preprocess", "inference", "postprocess"}
        assert min(whole["stages"].values()) > 0
        # medians of parts add up to about the median of the whole
        assert sum(whole["stages"].values()) == pytest.approx(whole["p50"], rel=0.5)
        assert whole["p50"] > whole["stages"]["inference"]
        assert whole["decode"]["p50"] > 0
        assert whole["speedup"]["low"] <= whole["speedup"]["value"] <= whole["speedup"]["high"]
    # one candidate decodes for all rows of a target
    for target in TARGETS.split(","):
        assert len({row["end_to_end"]["decode"]["p50"] for row in rows if
                    row["target"] == target}) == 1  # fmt: skip


def test_the_teachers_fp32_row_is_the_reference_of_each_target(results):
    for row in results["rows"]:
        if (row["model"], row["precision"]) == ("teacher", "fp32") and "latency" in row:
            assert row["speedup"] == {"value": 1, "low": 1, "high": 1}


def test_accuracy_is_shared_among_thread_settings_but_not_among_runtimes(results):
    keys = {
        row["target"]: row["accuracy_target"]
        for row in results["rows"]
        if (row["model"], row["precision"]) == ("student", "int8") and row["status"] == "ok"
    }
    one, two, other = (keys[target] for target in TARGETS.split(","))
    assert one == two != other
    mine = ("student", "int8", one)
    entries = [
        entry
        for entry in results["accuracy"]
        if (entry["model"], entry["precision"], entry["target"]) == mine
    ]
    assert {entry["protocol"] for entry in entries} == {"paper", "deploy"}
    deploy = next(entry for entry in entries if entry["protocol"] == "deploy")
    assert deploy["metrics"]["Dice"]["mean"] > 0.9
    assert len(deploy["per_image"]["names"]) == 4
    # one of the four frames has no polyp
    assert deploy["difference_to_teacher"]["count"] == 3


def test_a_row_that_fails_says_why_and_the_others_have_their_numbers(results):
    failed = [row for row in results["rows"] if row["status"] == "failed"]
    assert {row["target"] for row in failed} == {"torch:cpu"}
    assert all("torch" in row["reason"] for row in failed)
    assert {row["failure"] for row in failed} == {"no such model"}


def test_options_of_a_target_show_in_what_the_runtime_says_and_a_wrong_one_fails_its_row(
    models, tmp_path, capsys
):
    result = tmp_path / "out.json"
    targets = ("openvino:CPU:threads=2:streams=2", "openvino:CPU:threads=1:batch=3",
               "onnxruntime:CPU:streams=2", "openvino:NPU")  # fmt: skip
    done = run_verb(
        capsys, "bench", models / "student", "--precisions", "int8", *QUICK,
        "--targets", ",".join(targets), "--json", result, "--throughput", "--seconds", 0.2,
    )  # fmt: skip
    assert done.code == 0, done.err
    values = json.loads(result.read_text())
    streams, batch, wrong, absent = values["rows"]
    assert streams["effective"]["streams"] == 2
    assert batch["effective"]["batch"] == 3
    assert batch["ms_per_frame"] == pytest.approx(batch["latency"]["p50"] / 3, abs=1e-3)
    assert "one frame at a time" in batch["end_to_end"]["unavailable"]
    assert (wrong["failure"], absent["failure"]) == ("wrong option", "device absent")
    assert "FAILED: wrong option" in done.out and "FAILED: device absent" in done.out
    # throughput stands apart: its own list, its own table, nothing of it in the rows
    assert [entry["target"] for entry in values["throughput"]] == list(targets[:2])
    assert all(entry["measured"]["frames_per_second"] > 0 for entry in values["throughput"])
    assert not any("frames_per_second" in row for row in values["rows"])
    assert "NOT a latency" in done.out
    # the title does not call a frame what was a batch
    assert "batch as the target says, else 1" in " ".join(done.out.split())


def test_auto_takes_every_device_that_has_a_file(models, tmp_path, capsys):
    from kdas_edge.runtime.backends import present_targets

    result = tmp_path / "out.json"
    done = run_verb(
        capsys, "bench", models / "student", "--precisions", "int8", *QUICK, "--targets", "auto",
        "--json", result, "--no-end-to-end",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = json.loads(result.read_text())["rows"]
    expected = [str(target) for target in present_targets(("openvino", "onnxruntime"))]
    # the bundle holds no torch file, so that torch is not even looked for
    assert [row["target"] for row in rows] == expected
    assert not any("end_to_end" in row for row in rows)


def test_a_model_warms_up_until_it_has_settled_and_the_table_says_so(models, tmp_path, capsys):
    result = tmp_path / "out.json"
    done = run_verb(
        capsys, "bench", models / "student", "--precisions", "int8", "--iterations", 5,
        "--no-startup", "--warmup", 2, "--warmup-limit", 60, "--warmup-change", 80,
        "--json", result,
    )  # fmt: skip
    assert done.code == 0, done.err
    values = json.loads(result.read_text())
    warmed = values["rows"][0]["latency"]["warmup"]
    # two windows of eight rounds at least
    assert 16 <= warmed["rounds"] <= 60
    assert values["settings"]["warmup_settled_at_percent"] == 80
    assert warmed["settled"] == (warmed["change_percent"] <= 80)


def test_a_sustained_run_is_a_curve_under_its_row(models, tmp_path, capsys):
    result = tmp_path / "out.json"
    done = run_verb(
        capsys, "bench", models / "student", "--precisions", "int8", *QUICK, "--minutes", 0.04,
        "--json", result,
    )  # fmt: skip
    assert done.code == 0, done.err
    run = json.loads(result.read_text())["rows"][0]["sustained"]
    assert len(run["windows"]) == 2 and run["seconds"] == pytest.approx(2.4, abs=0.5)
    assert run["slowdown"] == pytest.approx(
        run["windows"][-1]["p50"] / run["windows"][0]["p50"], abs=1e-3
    )
    assert "sustained run" in done.out


def test_starting_is_measured_for_each_row_and_energy_is_told_or_unavailable(
    models, tmp_path, capsys
):
    result = tmp_path / "out.json"
    done = run_verb(
        capsys, "bench", models / "student", "--precisions", "int8", "--iterations", 5,
        "--warmup-limit", 3, "--json", result,
    )  # fmt: skip
    assert done.code == 0, done.err
    row = json.loads(result.read_text())["rows"][0]
    assert row["startup"]["load_ms"] > 0 and row["startup"]["cache"]["bytes"] > 0
    assert "in a fresh process" in done.out
    energy = row["energy"]
    assert energy.get("joules_per_frame", 0) > 0 or energy["unavailable"] in done.out


def test_a_peer_stands_in_the_same_table_with_latency_and_accuracy(models, data, tmp_path, capsys):
    # the peer is the student's own network as somebody else would have exported it
    model = make_peer(tmp_path / "unet.onnx", color="BGR", output="logits")
    config = write_config(
        tmp_path / "unet.yaml", color="BGR", mean=NORMAL["mean"][::-1], std=NORMAL["std"][::-1]
    )
    result = tmp_path / "out.json"
    done = run_verb(
        capsys, "bench", models / "student", "--data", data, "--precisions", "fp32", *QUICK,
        "--targets", "openvino:CPU:threads=1,onnxruntime:CPU:threads=1",
        "--peer", model, "--peer-config", config, "--json", result,
    )  # fmt: skip
    assert done.code == 0, done.err
    values = json.loads(result.read_text())
    rows = {(row["model"], row["target"]): row for row in values["rows"]}
    assert len(rows) == 4 and all(row["status"] == "ok" for row in rows.values())
    assert values["models"]["unet"]["role"] == values["models"]["unet"]["kind"] == "peer"
    scores = {
        (entry["model"], entry["target"]): entry["metrics"]["Dice"]["mean"]
        for entry in values["accuracy"]
        if entry["protocol"] == "deploy"
    }
    for target in ("openvino:CPU", "onnxruntime:CPU"):
        assert scores["unet", target] == pytest.approx(scores["student", target], abs=1e-6)
    assert "unet" in done.out
    peer = rows["unet", "openvino:CPU:threads=1"]
    assert peer["file_bytes"] == model.stat().st_size
    assert peer["end_to_end"]["p50"] > 0


def test_a_peer_with_another_output_ends_the_benchmark_with_one_line(models, tmp_path, capsys):
    model = make_peer(tmp_path / "unet.onnx", output="two-channel")
    config = write_config(tmp_path / "unet.yaml", output="logits")
    done = run_verb(
        capsys, "bench", models / "student", "--peer", model, "--peer-config", config, *QUICK
    )
    assert "needs 1 channel" in only_line(done)


def test_a_model_file_that_does_not_load_fails_alone(models, tmp_path, capsys):
    broken = shutil.copytree(models / "student", tmp_path / "broken")
    (broken / "int8/core.onnx").write_bytes(b"not a graph")
    rewrite_manifest(broken, lambda values: None)
    done = run_verb(capsys, "bench", broken, "--targets", "onnxruntime:CPU:threads=1", *QUICK)
    assert done.code == 0, done.err
    assert "FAILED student int8 on onnxruntime:CPU:threads=1: " in done.out
    assert done.out.count("FAILED student") == 1


def test_the_verb_prints_the_table_and_writes_everything(models, data, tmp_path, capsys):
    result, page = tmp_path / "out.json", tmp_path / "page.html"
    peer, config = make_peer(tmp_path / "unet.onnx"), write_config(tmp_path / "unet.yaml")
    done = run_verb(
        capsys, "bench", models / "student", "--teacher", models / "teacher", "--data", data,
        "--targets", "openvino:CPU:threads=1,openvino:GPU", *QUICK, "--limit", 2,
        "--peer", peer, "--peer-config", config,
        "--json", result, "--html", page,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "openvino finds no GPU" in done.out or "GPU" in done.out
    values = json.loads(result.read_text())
    assert values["schema"] == "kdas-edge/bench/2"
    assert values["data"]["discs"]["images"] == 2
    assert page.read_text().count("data:image/jpeg;base64,") >= 8
    assert "unet" in page.read_text()
    assert (tmp_path / "pareto.png").is_file() and (tmp_path / "pareto.svg").is_file()


def test_accuracy_can_be_computed_on_another_target(models, data, tmp_path, capsys):
    result = tmp_path / "out.json"
    done = run_verb(
        capsys, "bench", models / "student", "--data", data, "--precisions", "int8", *QUICK,
        "--targets", "openvino:CPU:threads=1,onnxruntime:CPU:threads=1",
        "--accuracy-target", "onnxruntime:CPU", "--json", result,
    )  # fmt: skip
    assert done.code == 0, done.err
    values = json.loads(result.read_text())
    assert {row["accuracy_target"] for row in values["rows"]} == {"onnxruntime:CPU"}
    assert {entry["target"] for entry in values["accuracy"]} == {"onnxruntime:CPU"}


def test_the_only_target_being_absent_is_one_line(models, tmp_path, capsys):
    result = tmp_path / "out.json"
    done = run_verb(
        capsys, "bench", models / "student", "--targets", "openvino:NPU", "--json", result
    )
    assert "openvino:CPU" in only_line(done)
    assert not result.exists()


def test_wrong_arguments_of_bench_are_one_line_each(models, data, tmp_path, capsys):
    student = models / "student"
    for arguments, words in (
        ([student, "--targets", "openvino:CPU:thread=1"], "did you mean 'threads'"),
        ([student, "--precisions", "int4"], "fp32, fp16, int8"),
        ([student, "--teacher", student], "given twice"),
        ([student, "--data", tmp_path / "nowhere"], "nowhere"),
        ([student, "--html", tmp_path], "is a folder"),
        ([student, "--json", tmp_path], "is a folder"),
        ([student, "--json", "/proc/out.json"], "choose a folder that can be written"),
        ([student, "--targets", "openvino:CPU:hint=fast"], "latency or throughput"),
        ([student, "--targets", "auto:threads=1"], "unknown runtime 'auto'"),
        ([student, "--peer", student], "give one for each"),
    ):
        assert words in only_line(run_verb(capsys, "bench", *arguments))


def test_doctor_finds_the_runtimes_of_this_machine(tmp_path, capsys):
    result = tmp_path / "doctor.json"
    done = run_verb(capsys, "doctor", "--json", result)
    assert done.code == 0, done.err
    values = json.loads(result.read_text())
    assert "CPU" in values["devices"]["openvino"] and "CPU" in values["devices"]["onnxruntime"]
    areas = {finding["area"] for finding in values["findings"]}
    assert {"processor", "runtimes", "precision", "measuring"} <= areas
    advised = {f["what"] for f in values["findings"] if f["area"] == "precision"}
    assert {"openvino:CPU", "onnxruntime:CPU"} <= advised
    for finding in values["findings"]:
        assert finding["verdict"] in ("ok", "note", "missing")
        assert finding["verdict"] == "ok" or finding["advice"]
        assert "\n" not in finding["advice"]


def test_a_profile_puts_the_precisions_side_by_side_and_goes_into_the_json(
    models, tmp_path, capsys
):
    result = tmp_path / "out.json"
    done = run_verb(
        capsys, "bench", models / "student", *QUICK, "--profile-top", 2, "--json", result,
        "--targets", "openvino:CPU:threads=1,onnxruntime:CPU:threads=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = json.loads(result.read_text())["rows"]
    assert len(rows) == 4
    for row in rows:
        profile = row["profile"]
        assert sum(g["ms"] for g in profile["groups"]) == pytest.approx(profile["total"], abs=0.01)
        assert "float convolution" in {group["group"] for group in profile["groups"]}
        assert any(layer["operator"].endswith("Conv") for layer in profile["layers"]) or any(
            layer["operator"] == "Convolution" for layer in profile["layers"]
        )
        name = f"student {row['precision']} on {row['target']}"
        assert f"{name}: layers {profile['total']:.2f} ms, unprofiled median" in done.out
        assert f"{name}: the slowest 2" in done.out
    assert "fp32 ms" in done.out and "int8 ms" in done.out
    # the quantiser before the network is what the int8 model has more
    fp32, int8 = (
        {g["group"]: g["calls"] for g in row["profile"]["groups"]}["quantise, convert, reorder"]
        for row in rows[:2]
    )
    assert int8 > fp32


def test_a_torch_target_has_no_profile_and_says_so(tmp_path, capsys):
    import torch

    from kdas_edge.models.checkpoints import save_network
    from kdas_edge.models.zoo import build
    from kdas_edge.recipe import ModelRecipe

    torch.manual_seed(0)
    network = build(ModelRecipe(backbone="test_efficientnet", width=8), 64)
    save_network(tmp_path / "net.safetensors", network.state_dict(), network.architecture)
    done = run_verb(
        capsys, "bench", tmp_path / "net.safetensors", *QUICK, "--targets", "torch:cpu:threads=1",
        "--profile",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "no profile (a torch target has no profile; choose openvino or onnxruntime)" in done.out


def test_without_the_option_nothing_is_profiled(models, tmp_path, capsys):
    result = tmp_path / "out.json"
    done = run_verb(capsys, "bench", models / "student", *QUICK, "--json", result)
    assert done.code == 0, done.err
    assert all("profile" not in row for row in json.loads(result.read_text())["rows"])
    assert "layer type" not in done.out


def test_the_help_tells_of_the_profile(capsys):
    done = run_verb(capsys, "bench", "--help")
    assert done.code == 0
    assert "--profile" in done.out and "--profile-top" in done.out
