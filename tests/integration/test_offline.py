"""No verb and no import opens a connection, or writes outside of the folder that it was given."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.offline import _SWITCHES

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ALL = """
import importlib, pkgutil, kdas_edge
for module in pkgutil.walk_packages(kdas_edge.__path__, "kdas_edge."):
    if module.name != "kdas_edge.__main__":
        importlib.import_module(module.name)
import nncf.torch, openvino.tools.ovc
"""
SEGMENT = """
import numpy as np
from kdas_edge.runtime import Segmenter
for target in ("openvino:CPU", "onnxruntime:CPU"):
    with Segmenter.load(target=target) as segmenter:
        segmenter.segment(np.zeros((352, 352, 3), np.uint8))
"""


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    """A library that records what native code looks up and connects to."""
    compiler = shutil.which("gcc") or pytest.skip("no C compiler: native code is not watched")
    library = tmp_path_factory.mktemp("preload") / "offline_audit.so"
    source = ROOT / "tests/offline_audit.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def audited(
    folder: Path, steps: list[object], preload: Path
) -> tuple[list[int], list[str], list[str]]:
    """Run steps under watch, with an empty home.

    Returns:
        Exit codes, network events, and paths written outside of `folder`.
    """
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    (folder / "steps.json").write_text(
        json.dumps([s if isinstance(s, str) else [str(word) for word in s] for s in steps])
    )
    # a CI variable would switch telemetry off and hide what a user sees; torch leaves the folder of
    # its cache in the environment of the process that tests
    dropped = (
        "TORCHINDUCTOR_CACHE_DIR",
        "CI",
        "TF_BUILD",
        "JENKINS_URL",
        "HF_HUB_OFFLINE",
        *_SWITCHES,
    )
    kept = {k: v for k, v in os.environ.items() if k not in dropped and not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/offline_audit.py", folder / "log", folder / "steps.json"],
        cwd=folder,
        env=kept
        | {
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(preload),
            "AUDIT_LOG": str(folder / "log"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    written = [
        event[1]
        for event in events
        if event[0] == "write"
        and not Path(folder, event[1]).is_relative_to(folder)
        and not event[1].startswith("/dev/")
    ]
    # native code writes without Python's audit
    written += [str(path) for path in home.rglob("*") if path.is_file()]
    return json.loads(done.stdout), [str(e[1:]) for e in events if e[0] == "network"], written


@pytest.fixture
def work(tmp_path):
    frames = tmp_path / "set"
    for name in ("images", "masks"):
        (frames / name).mkdir(parents=True)
    for index in range(2):
        image = scene(120, 160, seed=index)
        Image.fromarray(image).save(frames / f"images/{index}.png")
        mask = (image[..., 1] > 120).astype(np.uint8) * 255
        Image.fromarray(mask).save(frames / f"masks/{index}.png")
    return tmp_path


def test_the_audit_sees_connections_and_files(tmp_path, preload):
    script = "\n".join(
        [
            "import socket, pathlib, contextlib",
            "pathlib.Path.home().joinpath('id').write_text('1')",
            "with contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 9), 1)",
        ]
    )
    _, network, written = audited(tmp_path, [script], preload)
    for event in ("socket.getaddrinfo", "socket.connect", "native getaddrinfo", "native connect"):
        assert any(event in seen for seen in network), event
    assert written == [str(tmp_path / "home/id")]


def test_predict_verify_doctor_and_the_library_stay_offline(work, preload):
    codes, network, written = audited(
        work,
        [
            SEGMENT,
            ["predict", work / "set/images/0.png", "--out", work / "one"],
            ["predict", work / "set/images", "--out", work / "two", "--target", "onnxruntime:CPU"],
            ["verify", make_tiny_bundle(work / "tiny"), "--report", work / "evidence"],
            ["doctor", "--json", work / "doctor.json"],
        ],
        preload,
    )
    assert network == [] and written == []
    assert set(codes) == {0}, codes


@pytest.mark.slow
def test_verbs_that_measure_report_and_read_data_stay_offline(work, preload):
    bundle = make_tiny_bundle(work / "tiny")
    result = work / "bench.json"
    quick = ["--iterations", 3, "--seconds", 1, "--warmup", 1]
    codes, network, written = audited(
        work,
        [
            [
                "bench",
                bundle,
                "--data",
                work / "set",
                "--json",
                result,
                "--html",
                work / "p",
                *quick,
            ],
            ["report", result, "--out", work / "report"],
            ["card", bundle, result],
            ["eval", bundle, "--data", work / "set", "--json", work / "eval.json"],
            ["data", "check", work / "set", "--json", work / "check.json"],
            ["data", "synth", work / "scenes", "--train", 2, "--test", 1],
            ["export", bundle, "--out", work / "served", "--layout", "ovms"],
        ],
        preload,
    )
    assert network == [] and written == []
    assert set(codes) == {0}, codes


def test_importing_every_module_stays_offline(tmp_path, preload):
    codes, network, written = audited(tmp_path, [IMPORT_ALL], preload)
    assert (codes, network, written) == ([0], [], [])


@pytest.mark.slow
def test_the_whole_road_stays_offline(tmp_path, preload):
    demo = ["demo", "--quick", "--out", tmp_path / "demo"]
    codes, network, written = audited(tmp_path, [demo], preload)
    assert network == [] and codes == [0]
    # NNCF's compiled quantisers are torch's own cache of extensions
    assert [path for path in written if "/torch_extensions/" not in path] == []
