import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest
from bench_results import CASE, make_json, make_results
from run_verb import only_line, run_verb
from tiny_bundle import make_tiny_bundle, rewrite_manifest

from kdas_edge.bench import harness
from kdas_edge.bench.evaluation import choose_sets
from kdas_edge.bench.measurement_results import Energy
from kdas_edge.bench.result_base import Unavailable
from kdas_edge.bench.results import BENCH_SCHEMA, BenchResult
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError
from kdas_edge.report import write_page
from kdas_edge.report.charts import make_plots
from kdas_edge.report.distributions import histogram
from kdas_edge.report.measurement_tables import measurement_tables
from kdas_edge.report.merge import join
from kdas_edge.report.page import render, script_hash, script_json
from kdas_edge.report.plots import pareto_front, points, sizes
from kdas_edge.report.results_table import results_table
from kdas_edge.report.robustness_chart import robustness_chart
from kdas_edge.runtime.targets import parse_targets


class Page(HTMLParser):
    """Collects what a browser would load, and the cells of the results table."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.headings, self.images, self._open = [], [], [], None
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        for name in ("src", "data", "poster"):
            if values.get(name):
                self.loaded.append(values[name])
        if tag == "link":
            self.loaded.append(values.get("href"))
        if tag == "img":
            self.images.append(values)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, make_results(), [CASE])
    return path


def test_the_page_loads_nothing_from_anywhere(page):
    text = page.read_text()
    parsed = Page(text)
    assert all(source.startswith("data:") for source in parsed.loaded)
    assert "default-src 'none'" in text and "unsafe-eval" not in text
    # and the plot's library is inside
    assert "vegaEmbed(" in text and len(text) > 500_000


def test_names_from_a_result_file_cannot_inject_markup(page):
    text = page.read_text()
    assert "<b>bad</b>" not in text and "</SCRIPT>" not in text and "<script>alert" not in text
    assert "&lt;b&gt;bad&lt;/b&gt;" in text


def test_the_page_says_that_it_is_research_software_and_what_failed(page):
    text = page.read_text()
    assert "No regulatory clearance" in text
    assert "openvino finds no NPU" in text


def test_every_overlay_has_a_text_for_those_who_do_not_see_it(page):
    images = Page(page.read_text()).images
    assert len(images) == 2
    assert images[1]["alt"] == "scenes 7, student int8, Dice 0.400"


@pytest.fixture(scope="module")
def everything(tmp_path_factory, scenes):
    """A real benchmark of a tiny bundle with everything that bench can measure."""
    root = tmp_path_factory.mktemp("everything")
    student = make_tiny_bundle(root / "student", presets=("core",))
    teacher = make_tiny_bundle(root / "teacher", presets=("core",))
    rewrite_manifest(teacher, lambda values: values.update(name="teacher"))
    settings = harness.Settings(
        iterations=10, warmup=1, protocols=("deploy",), minutes=0.02, throughput=True,
        robustness=("defocus", "smoke"), robustness_limit=2, energy=True, seconds=1,
    )  # fmt: skip
    targets = parse_targets("openvino:CPU:threads=1")
    opened = open_bundle(student), open_bundle(teacher)
    return harness.run([opened[0]], opened[1], targets, choose_sets(scenes), settings)


def test_all_that_bench_measures_is_on_the_page(everything, tmp_path):
    write_page(tmp_path / "page.html", everything)
    text = (tmp_path / "page.html").read_text().split("<script>")[0]
    for heading in (
        "Accuracy on corrupted images", "Latency of a sustained run", "Accuracy against size",
        "end to end: frame in, mask out", "throughput: many", "sustained run: above 1",
        "By size of polyp",
    ):  # fmt: skip
        assert heading in text, heading
    for name in ("robustness", "sustained"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    # where this machine does not tell its energy, the page says so
    for row in everything.rows:
        assert isinstance(row.energy, Energy | Unavailable)
        assert isinstance(row.energy, Energy) or "energy: unavailable" in text


def test_the_robustness_plot_has_a_line_from_clean_to_strong_for_every_model(everything):
    records = robustness_chart(everything).to_dict()["data"]["values"]
    lines = {}
    for record in records:
        lines.setdefault((record["model"], record["corruption"]), []).append(record["strength"])
    assert set(lines) == {
        (model, corruption)
        for model in ("teacher fp32", "tiny fp32", "tiny int8")
        for corruption in ("defocus", "smoke")
    }
    assert all(strengths == [0, 1, 2, 3] for strengths in lines.values())


def test_machines_are_joined_with_their_throughput_and_one_robustness(everything):
    joined = join([("laptop", everything), ("jetson", everything)])
    assert joined.robustness == everything.robustness
    machines = [entry.machine for entry in joined.throughput]
    assert sorted(set(machines)) == ["jetson", "laptop"]
    titles = [table.title for table in measurement_tables(joined)]
    assert any(title.startswith("throughput") for title in titles)
    data = {
        name: record.model_copy(update={"sha256": "0" * 64})
        for name, record in everything.data.items()
    }
    other = everything.model_copy(update={"data": data})
    assert join([("a", everything), ("b", other)]).robustness == []


@pytest.mark.parametrize("name", ["pareto", "size", "latency"])
def test_the_plots_are_also_files(page, name):
    assert (page.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (page.parent / f"{name}.svg").read_text()


def test_a_histogram_counts_every_inference_once():
    rng = np.random.default_rng(1)
    samples = [*rng.normal(10, 0.5, 198), 60.0, 70.0]
    bins, slower = histogram(samples)
    assert sum(item.count for item in bins) + slower == len(samples)
    # the two stalls do not stretch the axis
    assert slower == 2 and bins[-1].end < 20
    assert bins[0].start == min(samples)


def test_a_histogram_of_one_inference_is_one_bin():
    bins, slower = histogram([5.0])
    assert [item.count for item in bins] == [1] and slower == 0


def test_a_file_stands_once_in_the_size_plot_however_many_threads_it_ran_with():
    results = make_results()
    twice = [row.model_copy(update={"target": "openvino:CPU:threads=2"}) for row in results.rows]
    results.rows.extend(twice)
    assert len(points(results)) == 8 and len(sizes(points(results))) == 4


def test_columns_that_no_row_has_are_left_out():
    results = make_results()
    assert "load ms" in [column.heading for column in results_table(results).columns]
    for row in results.rows:
        row.load_ms = None
    assert "load ms" not in [column.heading for column in results_table(results).columns]


def test_a_failed_row_says_failed_in_the_table():
    table = results_table(make_results())
    assert table.failed == {4}
    status = table.rows[4][-1]
    assert status.text == "FAILED" and status.value is None
    assert status.note == "openvino finds no NPU"
    assert table.rows[4][3].value is None


def test_the_front_holds_what_nothing_beats_in_both_speed_and_accuracy():
    front = [point.network for point in pareto_front(points(make_results()))]
    assert front == ["student int8", "teacher fp32"]


def test_a_result_without_accuracies_still_makes_a_page(tmp_path):
    results = make_results().model_copy(update={"accuracy": [], "data": {}})
    for row in results.rows:
        row.accuracy_target = None
    write_page(tmp_path / "page.html", results)
    text = (tmp_path / "page.html").read_text()
    assert "Accuracy against" not in text and '<h2 id="pareto-title">Latency</h2>' in text
    assert not (tmp_path / "size.png").exists() and (tmp_path / "latency.png").exists()


def test_results_of_two_machines_stand_side_by_side(tmp_path, capsys):
    for name, scale in (("laptop", 1.0), ("jetson", 2.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(make_json(scale=scale)))
    done = run_verb(
        capsys, "report", tmp_path / "laptop.json", tmp_path / "jetson.json",
        "--out", tmp_path / "both", "--json", tmp_path / "joined.json",
    )  # fmt: skip
    assert done.code == 0, done.err
    text = (tmp_path / "both" / "report.html").read_text()
    assert "openvino:CPU:threads=1 · laptop" in text and "· jetson" in text
    joined = json.loads((tmp_path / "joined.json").read_text())
    assert len(joined["rows"]) == 10 and len(joined["environments"]) == 2


def test_accuracies_on_different_images_are_not_compared_but_latencies_are():
    joined = join([("a", make_results()), ("b", make_results(digest="b" * 64))])
    assert joined.accuracy == [] and joined.data == {}
    assert len(joined.rows) == 10
    assert any("scenes are not compared" in note for note in joined.notes)


def test_the_page_says_that_accuracies_are_not_compared(tmp_path):
    joined = join([("a", make_results()), ("b", make_results(digest="b" * 64))])
    text = render(joined, [], make_plots(joined)).split("<script>")[0]
    assert "Accuracies on scenes are not compared" in text
    assert "Latencies can still be compared" in text
    assert "openvino:CPU:threads=1 · a" in text and "Dice scenes" not in text


def test_two_models_of_one_name_keep_apart():
    values = make_json()
    values["models"]["student"]["files"]["model.xml"]["sha256"] = "1" * 64
    joined = join([("a", make_results()), ("b", BenchResult.model_validate(values))])
    assert {"student", "student (b)", "teacher"} <= set(joined.models)


def test_a_result_of_another_schema_is_one_line(tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**make_json(), "schema": "kdas-edge/bench/0"}))
    line = only_line(run_verb(capsys, "report", path, "--out", tmp_path / "out"))
    for words in (str(path), "kdas-edge/bench/0", BENCH_SCHEMA, "kdas-edge bench"):
        assert words in line
    path.write_text(json.dumps({"schema": BENCH_SCHEMA, "rows": []}))
    assert "no complete result" in only_line(
        run_verb(capsys, "report", path, "--out", tmp_path / "out")
    )
    path.write_text("[1, 2")
    assert "not a JSON file" in only_line(
        run_verb(capsys, "report", path, "--out", tmp_path / "out")
    )
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_one_line_and_never_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", "/dev/zero", tmp_path, tmp_path / ("x" * 300)):
        assert str(path)[:60] in only_line(
            run_verb(capsys, "report", path, "--out", tmp_path / "o")
        )
    assert not (tmp_path / "o").exists()


def changed(change):
    values = make_json()
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed(lambda v: v.update(rows=7)), "rows is 7"),
        (changed(lambda v: v["rows"][0].update(target=["a"])), "rows.0.target is"),
        (changed(lambda v: v["rows"][0]["latency"].update(p50=float("nan"))), "rows.0.latency.p50"),
        (changed(lambda v: v["accuracy"][0]["metrics"].update(Dice=None)), "metrics.Dice"),
        (changed(lambda v: v["models"].update(teacher="x")), "models.teacher is"),
        (changed(lambda v: v["data"]["scenes"].update(images=1e400)), "data.scenes.images"),
        (f'{{"schema": "{BENCH_SCHEMA}", "rows": {"5" * 5000}}}', "out of range"),
        ("[" * 100_000, "not a JSON file"),
        ("null", "no result"),
        ("\x00\xff", "not a JSON file"),
    ],
)  # fmt: skip
def test_a_wrong_value_anywhere_in_a_result_is_one_line(text, words, tmp_path, capsys):
    path = tmp_path / "wrong.json"
    path.write_bytes(text.encode("latin-1", "replace"))
    line = only_line(run_verb(capsys, "report", path, "--out", tmp_path / "out"))
    assert words in line and str(path) in line and len(line) < 400
    assert not (tmp_path / "out").exists()


def test_two_files_name_their_machines_and_the_settings_that_differ():
    slow = make_json()
    slow["settings"]["iterations"] = 7
    slow["environment"] |= {"cpu": "Arm Cortex", "cpus_usable": 3, "memory_gib": 7.5}
    joined = join([("laptop", make_results()), ("jetson", BenchResult.model_validate(slow))])
    (machine,) = [note for note in joined.notes if note.startswith("jetson: ")]
    assert "Arm Cortex, 3 of" in machine and "7.5 GiB" in machine
    (setting,) = [note for note in joined.notes if "different settings" in note]
    assert setting.endswith("iterations 40 (laptop), 7 (jetson)")


def test_the_page_runs_its_own_scripts_and_no_other(page):
    text = page.read_text()
    # the browser runs a script only if its hash stands in the policy
    policy = text.split('Content-Security-Policy" content="')[1].split('"')[0]
    scripts = [part.split("</script>")[0] for part in text.split("<script>")[1:]]
    assert len(scripts) == 2
    assert all(script_hash(script) in policy for script in scripts)
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_json_inside_a_script_stays_json():
    value = {"a": "</Script><!--", "b": [1, 2.5, None]}
    assert "<" not in script_json(value)
    assert json.loads(script_json(value)) == value


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_page(tmp_path / "file" / "page.html", make_results())
