"""What doctor says of a machine's settings, for machines that are drawn in a made-up sysfs."""

import os
from pathlib import Path

import pytest

from kdas_edge.doctor.diagnosis import versions
from kdas_edge.doctor.findings import MachineFinding
from kdas_edge.doctor.tuning import PINNING_VARIABLES, model_cache, tuning

DESCRIBED = {
    "cpus_usable": 4,
    "cpus_logical": 4,
    "thread_environment": {},
    "load_average": [0.1, 0.1, 0.1],
}


def machine(root: Path, **files: str) -> Path:
    """A sysfs with these files; `__` stands for `/`."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def findings(system: Path, **described: object) -> dict[str, MachineFinding]:
    return {found.what: found for found in tuning({**DESCRIBED, **described}, system)}


@pytest.fixture(autouse=True)
def _unpinned(monkeypatch):
    for name in PINNING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


GOVERNOR = "devices__system__cpu__cpu{}__cpufreq__scaling_governor"
SIBLINGS = "devices__system__cpu__cpu{}__topology__thread_siblings_list"


def test_every_cpus_governor_counts(tmp_path):
    root = machine(tmp_path, **{GOVERNOR.format(0): "performance", GOVERNOR.format(1): "powersave"})
    found = findings(root)["frequency governor"]
    assert found.found == "performance, powersave" and found.verdict == "note"
    assert "cpupower" in found.advice


def test_a_machine_at_full_clock_needs_no_advice(tmp_path):
    root = machine(tmp_path, **{GOVERNOR.format(0): "performance"})
    found = findings(root)["frequency governor"]
    assert (found.verdict, found.advice) == ("ok", "")


def test_where_sysfs_tells_nothing_doctor_says_so(tmp_path):
    found = findings(tmp_path)
    assert "not told" in found["frequency governor"].found
    assert "clock boost" not in found and "CPU quota" not in found
    assert found["CPU affinity"].found == "4 of 4 CPUs usable"


@pytest.mark.parametrize(
    ("name", "text", "boosted"),
    [
        ("intel_pstate__no_turbo", "0", True),
        ("intel_pstate__no_turbo", "1", False),
        ("cpufreq__boost", "1", True),
        ("cpufreq__boost", "0", False),
    ],
)
def test_boost_is_read_from_either_driver(tmp_path, name, text, boosted):
    found = findings(machine(tmp_path, **{f"devices__system__cpu__{name}": text}))["clock boost"]
    assert found.found == ("on" if boosted else "off")
    assert bool(found.advice) == boosted


def test_threads_that_share_a_core_are_counted_as_cores(tmp_path):
    pairs = {SIBLINGS.format(cpu): text for cpu, text in enumerate(("0,2", "1,3", "0,2", "1,3"))}
    found = findings(machine(tmp_path, **pairs))["CPU affinity"]
    assert found.found.endswith("on 2 cores") and "threads=2" in found.advice


def test_a_process_that_is_bound_to_some_cpus_is_told_so(tmp_path):
    found = findings(tmp_path, cpus_usable=2, cpus_logical=8)["CPU affinity"]
    assert found.found == "2 of 8 CPUs usable" and found.verdict == "note"


@pytest.mark.parametrize(
    ("text", "shown", "verdict"),
    [
        ("150000 100000", "1.5 CPUs", "note"),
        ("800000 100000", "8 CPUs", "ok"),
        ("max 100000", None, None),
        ("damaged", None, None),
    ],
)
def test_a_containers_quota_is_told(tmp_path, text, shown, verdict):
    found = findings(machine(tmp_path, **{"fs__cgroup__cpu.max": text})).get("CPU quota")
    assert (found.found, found.verdict) == (shown, verdict) if shown else found is None


def test_two_kinds_of_core_are_told_apart(tmp_path):
    root = machine(tmp_path, devices__cpu_core__cpus="0-7", devices__cpu_atom__cpus="8-15")
    found = findings(root)["kinds of core"]
    assert "taskset -c 0-7" in found.advice


def test_pinned_threads_are_shown(tmp_path, monkeypatch):
    assert findings(tmp_path)["thread pinning"].verdict == "ok"
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    found = findings(tmp_path)["thread pinning"]
    assert found.found == "OMP_PROC_BIND=close" and found.verdict == "note"


def test_a_cache_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path):
    found = model_cache(tmp_path / "new" / "cache")
    assert found.verdict == "ok" and "GB free" in found.found
    assert not (tmp_path / "new").exists()


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    found = model_cache(tmp_path / "file" / "cache")
    assert found.verdict == "note" and "XDG_CACHE_HOME" in found.advice


def test_a_cache_in_the_home_folder_does_not_tell_whose_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    found = model_cache(tmp_path / ".cache")
    assert found.found.startswith("~/.cache, ") and str(tmp_path) not in found.found


def test_every_package_of_the_base_install_has_a_version():
    found = {item.what: item for item in versions()}
    assert {"openvino", "onnxruntime", "numpy", "typer"} <= found.keys()
    assert "torch" not in found and all(item.verdict == "ok" for item in found.values())


@pytest.mark.parametrize(
    ("stated", "verdict"),
    [("numpy>=999", "note"), ("surely-not-installed>=1", "missing"), ("numpy>=1", "ok")],
)
def test_an_old_or_absent_package_is_named_with_the_command(monkeypatch, stated, verdict):
    monkeypatch.setattr("importlib.metadata.requires", lambda _: [stated])
    (found,) = versions()
    assert found.verdict == verdict
    assert found.advice.endswith(f"pip install '{stated}'") or verdict == "ok"


def test_every_advice_is_one_line(tmp_path):
    root = machine(tmp_path, devices__cpu_core__cpus="0-7", devices__cpu_atom__cpus="8-15")
    assert all("\n" not in found.advice for found in findings(root).values())
