"""The device has no PyTorch: the base install alone must import, run, verify and bench."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hidden_modules import without
from PIL import Image
from tiny_bundle import make_tiny_bundle, scene

ROOT = Path(__file__).resolve().parents[2]
# what the extras `report` and `train` bring
ABSENT = (
    "torch", "torchvision", "timm", "nncf", "torchao", "lightning_fabric", "onnx", "onnxscript",
    "safetensors", "tensorboard", "altair", "cyclonedx", "jinja2", "py_sod_metrics", "vl_convert",
)  # fmt: skip

WITHOUT_EXTRAS = without(ABSENT)

# Modules and names of POSIX alone do not exist for code of ours, as on Windows; what the libraries
# import is theirs.
WITHOUT_POSIX = """
import builtins, os, signal
import asyncio, cv2, multiprocessing, onnxruntime, openvino, rich, subprocess, typer
POSIX = {"curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog",
         "termios", "tty"}
found = builtins.__import__
def windows_import(name, globals=None, locals=None, fromlist=(), level=0):
    ours = str((globals or {}).get("__name__", "")).startswith("kdas_edge")
    if ours and level == 0 and name.partition(".")[0] in POSIX:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return found(name, globals, locals, fromlist, level)
builtins.__import__ = windows_import
for module, names in {
    signal: ("SIGHUP", "SIGALRM", "SIGKILL", "SIGUSR1", "SIGPIPE", "setitimer", "pthread_sigmask"),
    os: ("fork", "getuid", "geteuid", "getloadavg", "sched_getaffinity", "mkfifo", "O_NONBLOCK",
         "O_NOFOLLOW", "statvfs", "killpg", "setsid"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
"""

IMPORT_ALL = """
import importlib, pkgutil
import kdas_edge
workstation = ("models", "distill", "quantize", "export", "data", "run", "demo")
for module in pkgutil.iter_modules(kdas_edge.__path__):
    if not module.ispkg and module.name not in ("__main__", *workstation):
        importlib.import_module(f"kdas_edge.{module.name}")
rooms = [m.name for m in pkgutil.iter_modules(kdas_edge.__path__) if m.ispkg]
for wing in sorted(set(rooms) - {*workstation, "shipped"}):
    package = importlib.import_module(f"kdas_edge.{wing}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        # the one file of the wing that is torch's own, and the one that reads ONNX for the export
        if module.name not in ("kdas_edge.runtime.backends.torch", "kdas_edge.inspect.kernels"):
            importlib.import_module(module.name)
"""

SEGMENT = """
import sys
import numpy as np
from PIL import Image
from kdas_edge.runtime import Segmenter
frame = np.asarray(Image.open(sys.argv[2]))[..., ::-1]
for target in ("openvino:CPU:threads=1", "onnxruntime:CPU:threads=1"):
    with Segmenter.load(sys.argv[1], target) as segmenter:
        assert 0.01 < segmenter.segment(frame).mask.mean() < 0.5
"""

MAIN = """
from kdas_edge.cli import main
main()
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "frame.png"
    Image.fromarray(scene(120, 160)).save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of two pairs; the pale disc of the scene is the polyp."""
    root = tmp_path_factory.mktemp("data") / "discs"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(2):
        image = scene(120, 160, seed=index)
        Image.fromarray(image).save(root / f"images/{index}.png")
        Image.fromarray((image[..., 1] > 120).astype(np.uint8) * 255).save(
            root / f"masks/{index}.png"
        )
    return root


def bench_command(bundle: Path, data: Path, result: Path) -> list[object]:
    targets = "openvino:CPU:threads=1,onnxruntime:CPU:threads=1"
    return [
        "bench", bundle, "--data", data, "--targets", targets,
        "--robustness-limit", 1, "--corruptions", "smoke",
        "--iterations", 3, "--seconds", 1, "--warmup", 1, "--json", result,
    ]  # fmt: skip


def python(script: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_the_device_wing_imports_without_the_extras():
    done = python(WITHOUT_EXTRAS + IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_the_device_wing_and_the_command_line_import_without_posix_modules():
    done = python(WITHOUT_POSIX + IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    # the test hides them indeed
    done = python(WITHOUT_POSIX + "exec('import fcntl', {'__name__': 'kdas_edge.some'})")
    assert "No module named 'fcntl'" in done.stderr


def test_a_frame_is_segmented_without_the_extras(bundle, frame):
    done = python(WITHOUT_EXTRAS + SEGMENT, bundle, frame)
    assert done.returncode == 0, done.stderr


def test_predict_and_verify_work_without_the_extras(bundle, frame, tmp_path):
    done = python(
        WITHOUT_EXTRAS + MAIN, "predict", frame, "--bundle", bundle, "--out", tmp_path / "out",
        "--target", "openvino:CPU:threads=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/masks/frame.png").is_file()
    report = tmp_path / "verify.json"
    evidence = tmp_path / "evidence"
    done = python(WITHOUT_EXTRAS + MAIN, "verify", bundle, "--json", report, "--report", evidence)
    assert done.returncode == 0, done.stderr
    checks = json.loads(report.read_text())["checks"]
    # what cannot be checked here is said, not passed over
    skipped = {c["what"]: c["observed"] for c in checks if c["verdict"] == "skipped"}
    assert skipped.pop("export").startswith("not checked: needs kdas-edge[train]")
    assert skipped.pop("sbom.cdx.json: artefacts") == "the bundle has no bill of materials"
    assert all(what.endswith("operators") for what in skipped)
    # the record is a page on the device, too
    assert "every check that was made passed" in (evidence / "verification.html").read_text()


def test_the_shipped_student_works_at_once_without_the_extras(frame, data, tmp_path):
    out, results = tmp_path / "out", tmp_path / "bench.json"
    done = python(WITHOUT_EXTRAS + MAIN, "predict", frame, "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "overlays/frame.png").is_file()
    done = python(
        WITHOUT_EXTRAS + MAIN, "bench", "--data", data, "--targets", "openvino:CPU:threads=1",
        "--iterations", 3, "--seconds", 1, "--warmup", 1, "--json", results,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(results.read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
    assert all(row["status"] == "ok" for row in rows)


def test_bench_measures_latency_and_dice_without_the_extras(bundle, data, tmp_path):
    done = python(WITHOUT_EXTRAS + MAIN, *bench_command(bundle, data, tmp_path / "bench.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    results = json.loads((tmp_path / "bench.json").read_text())
    assert {entry["protocol"] for entry in results["accuracy"]} == {"paper", "deploy"}
    assert [entry["corruption"] for entry in results["robustness"][:4]] == ["smoke"] * 4


def test_a_torch_target_without_torch_is_one_line_with_the_remedy(bundle, tmp_path):
    def add(values):
        values["models"].append(
            {"precision": "fp32", "format": "torch", "preset": "core", "path": "fp32/core.bin"}
        )

    from tiny_bundle import rewrite_manifest

    copy = Path(shutil.copytree(bundle, tmp_path / "tiny"))
    rewrite_manifest(copy, add)
    done = python(WITHOUT_EXTRAS + MAIN, "verify", copy, "--targets", "torch:cpu")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "pip install 'kdas-edge[train]'" in done.stderr


def test_the_runtime_package_imports_neither_torch_nor_a_runtime_that_is_not_asked_for(bundle):
    script = """
import sys
from kdas_edge.runtime import Segmenter
Segmenter.load(sys.argv[1], "openvino:CPU:threads=1")
assert not {"torch", "timm", "nncf", "onnxruntime"} & set(sys.modules)
"""
    done = python(script, bundle)
    assert done.returncode == 0, done.stderr


def test_help_imports_no_machinery_and_answers_in_under_0_4_seconds():
    heavy = ("torch", "openvino", "onnxruntime", "cv2", "numpy", "pydantic", "PIL")
    done = python(f"import sys, kdas_edge.cli; print(set({heavy!r}) & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
    durations = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("import sys; sys.argv = ['kdas-edge', '--help']" + MAIN).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Time on the processor: what the wall clock shows on a machine with nothing else to do.
        durations.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(durations) < 0.4, durations


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_second_environment_with_the_base_lock_only_runs_the_device_wing(
    bundle, frame, tmp_path, data
):
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    folder = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [folder / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    lock = ROOT / "requirements" / "base.lock"
    subprocess.run([*pip, "--require-hashes", "-r", lock], check=True)
    # built from a copy, so that the checkout gets no build/ folder
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "kdas_edge", source / "kdas_edge", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run([*pip, "--no-deps", source], check=True)

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    present = f"import importlib.util as u; print([n for n in {ABSENT!r} if u.find_spec(n)])"
    assert run(folder / "python", "-c", present).strip() == "[]"
    where = run(folder / "python", "-c", "import kdas_edge.runtime as r; print(r.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    run(folder / "python", "-c", IMPORT_ALL)
    run(folder / "python", "-c", SEGMENT, bundle, frame)
    run(folder / "kdas-edge", "predict", frame, "--bundle", bundle, "--out", tmp_path / "out")
    assert (tmp_path / "out/masks/frame.png").is_file()
    assert "hashes" in run(folder / "kdas-edge", "verify", bundle)
    run(folder / "kdas-edge", *bench_command(bundle, data, tmp_path / "bench.json"))
    assert (tmp_path / "bench.json").is_file()
