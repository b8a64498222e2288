import copy
import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from run_verb import only_line, run_verb

from kdas_edge import environment
from kdas_edge.bench.harness import DISCLAIMER, SCHEMA
from kdas_edge.bench.report import write_page
from kdas_edge.bench.report.gallery import Case, Panel
from kdas_edge.bench.report.merge import join
from kdas_edge.bench.report.plots import pareto_front, points
from kdas_edge.errors import UserError
from kdas_edge.latency import Latency, speedup


def make_results(digest="a" * 64, scale=1.0):
    """A result as `kdas-edge bench` writes it, with numbers chosen for the test."""
    rng = np.random.default_rng(0)
    rows, accuracy = [], []
    reference = None
    for model, role, precision, milliseconds, dice in (
        ("teacher", "teacher", "fp32", 100.0, 0.90),
        ("student", "student", "fp32", 30.0, 0.88),
        ("student", "student", "int8", 10.0, 0.88),
        ("<b>bad</b>", "student", "fp32", 50.0, 0.80),
    ):
        timing = Latency(scale * milliseconds / 1e3 * rng.normal(1, 0.02, 40), 0.2)
        reference = reference or timing
        key = f"{model}|{precision}|openvino:CPU"
        rows.append(
            {
                "model": model, "role": role, "precision": precision,
                "target": "openvino:CPU:threads=1", "status": "ok", "reason": None,
                "file_bytes": 4_000_000, "load_ms": 80.0, "effective": {"threads": 1},
                "latency": timing.as_json(), "speedup": speedup(reference, timing).as_json(),
                "accuracy": key,
            }
        )  # fmt: skip
        estimate = {"mean": dice, "low": dice - 0.02, "high": dice + 0.02, "count": 50}
        for protocol, metric in (("deploy", "Dice"), ("paper", "mDice")):
            accuracy.append(
                {
                    "key": key, "model": model, "precision": precision, "target": "openvino:CPU",
                    "dataset": "scenes", "protocol": protocol, "images": 50,
                    "skipped_polyp_free": 0, "metrics": {metric: estimate}, "set_metrics": {},
                    "per_image": [],
                    "difference_to_teacher": {"metric": metric, **estimate},
                }
            )  # fmt: skip
    rows.append(
        {
            "model": "student", "role": "student", "precision": "int8", "target": "openvino:NPU",
            "status": "failed", "reason": "openvino finds no NPU",
        }
    )  # fmt: skip
    provenance = {
        "parameters": 3_650_000, "multiply_accumulates": 2_010_000_000, "created": "2026-11-20",
        "code_version": "0.1.0", "data_split_sha256": None,
    }  # fmt: skip
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "environment": {**environment.describe(), "load_average_before": None},
        "settings": {"iterations": 40, "limit": None},
        "data": {"scenes": {"images": 50, "sha256": digest}},
        "models": {
            name: {
                "role": role, "kind": "bundle", "folder": name, "input_size": 352,
                "threshold": 0.5, "provenance": provenance,
                "files": {"model.xml": {"bytes": 10, "sha256": "0" * 64}},
            }
            for name, role in (("teacher", "teacher"), ("student", "student"),
                               ("<b>bad</b>", "student"))
        },
        "rows": rows,
        "accuracy": accuracy,
    }  # fmt: skip


CASE = Case("scenes", "7", "worst", (Panel("ground truth", None, b"\xff\xd8"),
                                     Panel("student int8", 0.4, b"\xff\xd8")))  # fmt: skip


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
    assert "default-src 'none'" in text
    # and the plot's library is inside
    assert "vegaEmbed(" in text and len(text) > 500_000


def test_names_from_a_result_file_cannot_inject_markup(page):
    text = page.read_text()
    assert "<b>bad</b>" not in text.split("<script>")[0]
    assert "&lt;b&gt;bad&lt;/b&gt;" in text


def test_the_page_says_that_it_is_research_software_and_what_failed(page):
    text = page.read_text()
    assert "No regulatory clearance" in text
    assert "openvino finds no NPU" in text


def test_every_overlay_has_a_text_for_those_who_do_not_see_it(page):
    images = Page(page.read_text()).images
    assert len(images) == 2
    assert images[1]["alt"] == "scenes 7, student int8, Dice 0.400"


def test_the_plots_are_also_files(page):
    assert (page.parent / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (page.parent / "pareto.svg").read_text()


def test_the_front_holds_what_nothing_beats_in_both_speed_and_accuracy():
    front = [record["model"] for record in pareto_front(points(make_results()))]
    assert front == ["student int8", "teacher fp32"]


def test_a_result_without_accuracies_still_makes_a_page(tmp_path):
    results = make_results()
    results["accuracy"], results["data"] = [], {}
    for row in results["rows"]:
        row.pop("accuracy", None)
    write_page(tmp_path / "page.html", results)
    assert "Pareto plot" not in (tmp_path / "page.html").read_text()


def test_results_of_two_machines_stand_side_by_side(tmp_path, capsys):
    for name, scale in (("laptop", 1.0), ("jetson", 2.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(make_results(scale=scale)))
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
    assert joined["accuracy"] == [] and joined["data"] == {}
    assert len(joined["rows"]) == 10
    assert any("scenes are left out" in note for note in joined["notes"])


def test_two_models_of_one_name_keep_apart():
    other = copy.deepcopy(make_results())
    other["models"]["student"]["files"]["model.xml"]["sha256"] = "1" * 64
    joined = join([("a", make_results()), ("b", other)])
    assert {"student", "student (b)", "teacher"} <= set(joined["models"])


def test_a_result_of_another_schema_is_one_line(tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**make_results(), "schema": "kdas-edge/bench/0"}))
    assert "kdas-edge/bench/0" in only_line(run_verb(capsys, "report", path, "--out", tmp_path))
    path.write_text("[1, 2")
    assert "not a JSON file" in only_line(run_verb(capsys, "report", path, "--out", tmp_path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_page(tmp_path / "file" / "page.html", make_results())


@pytest.mark.slow
def test_a_browser_draws_the_plot_without_errors(page):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium or google-chrome on the PATH")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--virtual-time-budget=8000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    plot = done.stdout.split('id="plot"')[1].split('aria-labelledby="table-title"')[0]
    # one mark per row that has both numbers, described for screen readers
    assert plot.count('aria-roledescription="point"') == 4
