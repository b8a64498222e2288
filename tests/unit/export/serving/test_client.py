"""The client of a written repository, against a server that stands in for Triton and OVMS.

Neither server can run here (both are containers); `kserve_server` speaks their common protocol and
runs the repository's ONNX models. The client runs as its reader runs it: alone, in a process of
its own, without the package.
"""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kserve_server import kserve
from PIL import Image
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.bundle.manifest import PRESETS
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.export.serving.repository import write_repository
from kdas_edge.runtime import Segmenter


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("client") / "tiny", presets=PRESETS)


@pytest.fixture(scope="module")
def repository(bundle: Path) -> Path:
    write_repository(open_bundle(bundle), bundle.parent / "models", "triton")
    return bundle.parent / "models"


@pytest.fixture(scope="module")
def frame(bundle: Path) -> Path:
    path = bundle.parent / "frame.png"
    Image.fromarray(scene(150, 200, seed=4)).save(path)
    return path


def models(repository: Path) -> dict[str, Path]:
    return {path.parent.parent.name: path for path in repository.glob("*/1/model.onnx")}


def run_client(repository: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # -I: neither the checkout nor the environment's variables are seen
    return subprocess.run(
        [sys.executable, "-I", str(repository / "client.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_mask_over_the_network_is_that_of_the_segmenter(
    repository: Path, bundle: Path, frame: Path, preset: str, tmp_path: Path
) -> None:
    with kserve(models(repository)) as url:
        done = run_client(
            repository, frame, "--model", f"tiny_{preset}_fp32", "--url", url,
            "--out", tmp_path / "mask.png",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(tmp_path / "mask.png")) > 0
    with Segmenter.load(bundle, "onnxruntime:CPU:threads=1", precision="fp32") as segmenter:
        wanted = segmenter.segment(np.asarray(Image.open(frame))[..., ::-1]).mask
    assert 0.02 < wanted.mean() < 0.5
    assert mask.shape == wanted.shape and (mask != wanted).mean() < 0.005
    assert f"{mask.mean():.2%} of 200×150 pixels" in done.stdout


def test_an_answer_in_json_is_understood(repository: Path, frame: Path, tmp_path: Path) -> None:
    masks = []
    for binary in (True, False):
        with kserve(models(repository), binary) as url:
            done = run_client(
                repository, frame, "--model", "tiny_camera_int8", "--url", url,
                "--out", tmp_path / "mask.png",
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        masks.append(np.asarray(Image.open(tmp_path / "mask.png")))
    np.testing.assert_array_equal(*masks)


def test_what_is_wrong_is_said_in_one_line(repository: Path, frame: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        answers = [
            (run_client(repository, frame, "--model", "m", "--url", nobody), 1, "no answer from"),
            (run_client(repository, frame, "--model", "m", "--url", "ftp://x"), 2, "no http"),
            (run_client(repository, tmp_path / "no.png", "--model", "m"), 2, "no.png"),
        ]
    with kserve(models(repository)) as url:
        answers.append((run_client(repository, frame, "--model", "m", "--url", url), 1, "404"))
    for done, code, words in answers:
        assert done.returncode == code, done
        assert len(done.stderr.strip().splitlines()) == 1 and words in done.stderr
