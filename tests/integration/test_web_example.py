"""The page of examples/web in headless Chromium, against the segmenter's masks."""

import base64
import http.client
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser, open_browser
from bundle_faults import FAULTS
from PIL import Image
from tiny_bundle import make_tiny_bundle, rewrite_manifest, scene

from kdas_edge.bundle.manifest import FILE_NAME
from kdas_edge.bundle.shipped import STUDENT
from kdas_edge.data.layout import list_images
from kdas_edge.image_files import read_image
from kdas_edge.runtime import Segmenter

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).resolve().parents[2] / "examples" / "web"
RUNTIME = SOURCE / "node_modules" / "onnxruntime-web" / "dist"
# the frame on the screen and its mask, taken in one go
_SHOWN = """
return import("/main.js").then(({ currentMask }) => {
  const { mask, width, height } = currentMask();
  let text = "";
  for (let i = 0; i < mask.length; i += 8192) {
    text += String.fromCharCode(...mask.subarray(i, i + 8192));
  }
  const frame = document.getElementById("frame").toDataURL().split(",")[1];
  return { width, height, mask: btoa(text), frame };
});
"""
_READY = "return !document.getElementById('open').disabled"
_MARKED = "return document.getElementById('fraction').textContent !== '–'"
_RATE = "return document.getElementById('rate').textContent !== '–'"


@contextmanager
def serve(*arguments: object) -> Iterator[int]:
    """Run serve.py on a free port; yields the port."""
    process = subprocess.Popen(
        [sys.executable, SOURCE / "serve.py", "--port", "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().split("/")[2].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("web") / "tiny")


@pytest.fixture(scope="module")
def started(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that has the page of a served bundle open, with a camera that draws a clock."""
    if not RUNTIME.is_dir():
        pytest.skip("onnxruntime-web is not installed; run `npm ci` in examples/web")
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    folder = tmp_path_factory.mktemp("browser")
    with open_browser(folder, *camera) as browser, serve(bundle) as port:
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait(_READY, 120)
        yield browser


@pytest.fixture
def page(started: Browser) -> Iterator[Browser]:
    """The page without a source, its controls as at the beginning; afterwards, no complaints."""
    yield started
    started.run("document.getElementById('stop').click()")
    # where there is no graphics processor, the browser itself says so
    complaints = [line for line in started.console() if "No available adapters" not in line]
    assert complaints == []


def shown(page: Browser) -> tuple[np.ndarray, np.ndarray]:
    """What is on the screen: the frame (H, W, 3) uint8 RGB and its mask (H, W) bool."""
    found = page.run(_SHOWN)
    frame = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["frame"]))).convert("RGB"))
    mask = np.frombuffer(base64.b64decode(found["mask"]), np.uint8)
    return frame, mask.reshape(found["height"], found["width"]) > 0


def choose(page: Browser, path: Path) -> None:
    page.run("document.getElementById('stop').click()")
    page.choose("#file", path)
    page.wait(_MARKED, 60)


def expected_mask(bundle: Path, frame_rgb: np.ndarray, precision: str = "int8") -> np.ndarray:
    with Segmenter.load(bundle, "onnxruntime:CPU:threads=1", precision) as segmenter:
        return segmenter.segment(np.ascontiguousarray(frame_rgb[..., ::-1])).mask


@pytest.mark.parametrize("size", [(90, 120), (479, 641), (1080, 1920), (33, 517)])
def test_the_mask_of_an_image_is_that_of_the_segmenter(
    page: Browser, bundle: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    rgb = scene(*size, seed=size[0])
    Image.fromarray(rgb).save(tmp_path / "frame.png")
    choose(page, tmp_path / "frame.png")
    frame, mask = shown(page)
    np.testing.assert_array_equal(frame, rgb)
    expected = expected_mask(bundle, rgb)
    assert expected.any() and mask.shape == expected.shape
    assert (mask != expected).mean() < 0.0005
    told = page.run("return document.getElementById('fraction').textContent")
    assert told == f"{100 * mask.mean():.1f} %"


def test_of_two_images_opened_at_once_the_later_one_is_shown(
    page: Browser, bundle: Path, tmp_path: Path
) -> None:
    one, other = scene(480, 640, seed=3), scene(300, 400, seed=4)
    texts = []
    for name, rgb in (("one", one), ("other", other)):
        Image.fromarray(rgb).save(tmp_path / f"{name}.png")
        texts.append(base64.b64encode((tmp_path / f"{name}.png").read_bytes()).decode())
    open_both = """
        const [texts, delay] = arguments;
        const input = document.getElementById("file");
        const open = (text) => {
          const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          const chosen = new DataTransfer();
          chosen.items.add(new File([bytes], "image.png", { type: "image/png" }));
          input.files = chosen.files;
          input.dispatchEvent(new Event("change"));
        };
        open(texts[0]);
        return new Promise((done) => setTimeout(() => (open(texts[1]), done()), delay));
    """
    expected = expected_mask(bundle, other)
    # the second one comes while the first is opened, grabbed, segmented and shown
    for delay in (0, 2, 4, 6, 8, 10, 15, 20, 30, 50):
        page.run("document.getElementById('stop').click()")
        page.run(open_both, texts, delay)
        page.wait(
            "return import('/main.js').then(({ currentMask }) => currentMask()?.width === 400)", 10
        )
        frame, mask = shown(page)
        np.testing.assert_array_equal(frame, other, err_msg=f"{delay} ms")
        assert (mask != expected).mean() < 0.0005


@pytest.mark.data
def test_the_mask_of_a_real_image_is_that_of_the_segmenter(
    page: Browser, bundle: Path, real_data: Path
) -> None:
    path = list_images(real_data / "TestDataset" / "Kvasir" / "images")[0]
    choose(page, path)
    expected = expected_mask(bundle, read_image(path))
    assert (shown(page)[1] != expected).mean() < 0.005


def test_the_shipped_student_gives_the_mask_of_the_segmenter(
    started: Browser, tmp_path: Path
) -> None:
    if not (STUDENT / FILE_NAME).is_file():
        pytest.skip("this checkout has no shipped student")
    rgb = scene(480, 640, seed=8)
    Image.fromarray(rgb).save(tmp_path / "frame.png")
    address = started.run("return location.href")
    with serve(STUDENT) as port:
        started.open(f"http://127.0.0.1:{port}/")
        started.wait(_READY, 120)
        precision = started.run("return document.getElementById('precision').value")
        choose(started, tmp_path / "frame.png")
        assert (shown(started)[1] != expected_mask(STUDENT, rgb, precision)).mean() < 0.005
    started.open(address)
    started.wait(_READY, 120)
    started.console()


def write_video(path: Path, count: int = 50) -> Path:
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"VP80"), 25.0, (320, 240)
    )
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write WebM")
    for index in range(count):
        writer.write(np.roll(scene(240, 320, seed=1), 2 * index, axis=1)[..., ::-1])
    writer.release()
    return path


def test_a_video_is_segmented_frame_by_frame_and_its_rate_is_shown(
    page: Browser, bundle: Path, tmp_path: Path
) -> None:
    choose(page, write_video(tmp_path / "clip.webm"))
    page.wait(_RATE)
    page.run("document.getElementById('play').click()")
    page.wait("return document.getElementById('video').paused")
    page.wait("return document.getElementById('play').textContent === 'Play'")
    frame, mask = shown(page)
    assert frame.shape == (240, 320, 3) and mask.any()
    assert (mask != expected_mask(bundle, frame)).mean() < 0.005
    assert float(page.run("return document.getElementById('rate').textContent")) > 0
    assert int(page.run("return document.getElementById('dropped').textContent")) >= 0
    rows = page.run(
        "return [...document.querySelectorAll('#latency tr')].map((row) =>"
        " [...row.cells].slice(1).map((cell) => Number(cell.textContent)))"
    )
    assert len(rows) == 5 and all(0 <= p50 <= p95 for p50, p95 in rows)


def test_the_camera_is_segmented_until_it_is_stopped(page: Browser, bundle: Path) -> None:
    page.run("document.getElementById('camera').click()")
    page.wait(_MARKED, 60)
    page.wait(_RATE)
    frame, mask = shown(page)
    assert (mask != expected_mask(bundle, frame)).mean() < 0.005
    page.run("document.getElementById('stop').click()")
    assert page.run("return document.getElementById('video').srcObject") is None


def test_another_threshold_or_precision_changes_the_mask_of_the_frame_on_the_screen(
    page: Browser, bundle: Path, tmp_path: Path
) -> None:
    rgb = scene(120, 160, seed=2)
    Image.fromarray(rgb).save(tmp_path / "frame.png")
    choose(page, tmp_path / "frame.png")
    before = shown(page)[1]
    move = """
        const slider = document.getElementById("threshold");
        slider.value = arguments[0];
        slider.dispatchEvent(new Event("input"));
    """
    at = "return import('/main.js').then(({ currentMask }) => currentMask()?.threshold === %s)"
    page.run(move, 0.9)
    page.wait(at % 0.9)
    strict = shown(page)[1]
    assert strict.sum() < before.sum() and not (strict & ~before).any()
    page.run(move, 0.5)
    page.wait(at % 0.5)
    np.testing.assert_array_equal(shown(page)[1], before)
    select = """
        const choice = document.getElementById("precision");
        choice.value = arguments[0];
        choice.dispatchEvent(new Event("change"));
    """
    for precision in ("fp32", "int8"):
        page.run(select, precision)
        page.wait(_READY, 60)
        page.wait("return document.getElementById('model-file').textContent.startsWith('fp32')"
                  .replace("fp32", precision))  # fmt: skip
        page.wait(at % 0.5)
        found = shown(page)[1]
        assert (found != expected_mask(bundle, rgb, precision)).mean() < 0.0005


def test_nothing_is_cut_off_on_a_desktop_or_a_tablet(page: Browser) -> None:
    for width, height in ((1280, 900), (820, 1180)):
        page.resize(width, height)
        page.wait(f"return innerWidth <= {width} && innerWidth > {width - 40}")
        wide = page.run("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
    page.resize(1280, 900)


def test_what_is_no_picture_is_refused_in_one_line(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page.choose("#file", tmp_path / "notes.png")
    error = page.wait("return document.getElementById('error').textContent")
    assert error == "notes.png is no image or video that this browser can show"


def test_the_page_can_reach_no_other_address(started: Browser, bundle: Path) -> None:
    with serve(bundle) as other:
        reached = started.run(
            "return fetch(arguments[0], { mode: 'no-cors' }).then(() => true, () => false)",
            f"http://127.0.0.1:{other}/index.html",
        )
    assert reached is False
    assert any("Content Security Policy" in line for line in started.console())


def test_a_damaged_or_newer_bundle_is_refused(
    started: Browser, bundle: Path, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    content = bytearray((damaged / "int8/core.onnx").read_bytes())
    content[-1] ^= 1
    (damaged / "int8/core.onnx").write_bytes(content)
    newer = Path(shutil.copytree(bundle, tmp_path / "newer"))
    rewrite_manifest(newer, lambda values: values.update(schema_version="9.0"))
    flipped, relabelled = (Path(shutil.copytree(bundle, tmp_path / n)) for n in ("f", "r"))
    FAULTS["flipped"][0](flipped)
    FAULTS["relabelled"][0](relabelled)
    address = started.run("return location.href")
    for folder, message in (
        (damaged, "int8/core.onnx does not match its SHA-256"),
        (flipped, "manifest.json does not match its own digest"),
        (relabelled, "has no digest, and holds one"),
        (newer, 'schema version "9.0"'),
    ):
        with serve(folder) as port:
            started.open(f"http://127.0.0.1:{port}/")
            assert message in started.wait("return document.getElementById('error').textContent")
            assert started.run("return document.getElementById('open').disabled")
    started.open(address)
    started.wait(_READY, 120)
    started.console()


def test_the_server_gives_the_page_and_the_models_and_nothing_else(
    bundle: Path, tmp_path: Path
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    (runtime / "ort.wasm.min.mjs").write_text("export {}")
    served = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (tmp_path / "secret.json").write_text("{}")
    (served / "link.json").symlink_to(tmp_path / "secret.json")

    with serve(served, "--runtime", runtime) as port:

        def get(path: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

        for path in ("/", "/main.js", "/style.css", "/runtime/ort.wasm.min.mjs"):
            status, headers, _ = get(path)
            assert status == 200
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert json.loads(get("/bundle/manifest.json")[2])["name"] == "tiny"
        assert get("/bundle/int8/core.onnx")[2] == (bundle / "int8/core.onnx").read_bytes()
        for path in (
            *("/serve.py", "/package.json", "/bundle/golden/0.png", "/bundle/link.json"),
            *("/bundle/../secret.json", "/bundle/%2e%2e/secret.json", "/bundle/..%5csecret.json"),
            *(f"/bundle/{tmp_path}/secret.json", "/bundle/%00", "/absent.js"),
        ):
            assert get(path)[0] == 404, path
        assert get("/", host=f"evil.example:{port}")[0] == 403


def test_the_server_says_in_one_line_what_is_missing(bundle: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path,), "is no bundle"),
        ((bundle, "--runtime", tmp_path), "holds no onnxruntime-web; run `npm ci"),
        ((bundle, "--port", "99999999", "--runtime", RUNTIME), "port 99999999 cannot be used"),
    ):
        if message.startswith("port") and not RUNTIME.is_dir():
            continue
        done = subprocess.run(
            [sys.executable, SOURCE / "serve.py", *map(str, arguments)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and done.stdout == ""
        assert message in done.stderr and done.stderr.count("\n") == 1
