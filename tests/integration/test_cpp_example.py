"""The C++ example: built with CMake against the OpenVINO of this environment, then run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
from bundle_faults import FAULTS
from once_per_run import one_at_a_time
from PIL import Image
from tiny_bundle import make_tiny_bundle, probability, scene

from kdas_edge.bundle.manifest import FILE_NAME
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.bundle.shipped import STUDENT
from kdas_edge.data.layout import list_images
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.runtime import Segmenter

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "cpp"
# cv2 resizes by Intel's IPP on x86-64, which the example reproduces to the last bit; elsewhere by
# code of its own, which rounds the positions of the pixels to float first
ALLOWED = 0.0 if getattr(cv2, "ipp", None) and cv2.ipp.useIPP() else 1e-4
THREADS = ("--threads", "1")


@pytest.fixture(scope="session")
def program(run_folder: Path) -> Path:
    """The example, built once for all processes of a test run."""
    # pip's cmake lies beside the interpreter
    cmake = shutil.which("cmake") or shutil.which("cmake", path=Path(sys.executable).parent)
    missing = [
        what
        for what, found in (
            ("cmake", cmake),
            ("a C++ compiler", shutil.which("c++") or shutil.which("g++")),
            ("make or ninja", shutil.which("make") or shutil.which("ninja")),
        )
        if not found
    ]
    if missing:
        pytest.skip(f"the C++ example needs {' and '.join(missing)}")
    build = run_folder / "cpp_example"
    with one_at_a_time(build):
        if not (build / "kdas_segment").exists():
            config = Path(openvino.__file__).parent / "cmake"
            for command in (
                [cmake, "-S", SOURCE, "-B", build, f"-DOpenVINO_DIR={config}"],
                [cmake, "--build", build, "--parallel", "2"],
            ):
                done = subprocess.run(command, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
                assert "warning" not in done.stderr, done.stderr
    return build / "kdas_segment"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=60
    )


def only_error(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert done.returncode == code, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def write_ppm(path: Path, frame_bgr: np.ndarray) -> Path:
    height, width = frame_bgr.shape[:2]
    header = f"P6 # a comment\n{width} {height}\n255\n".encode()
    path.write_bytes(header + frame_bgr[..., ::-1].tobytes())
    return path


def read_pgm(path: Path) -> np.ndarray:
    magic, size, largest, pixels = path.read_bytes().split(b"\n", 3)
    assert (magic, largest) == (b"P5", b"255")
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width)


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: every pixel matters to the mask, a wrong one shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same_masks(out: Path, frames: dict[str, np.ndarray], segmenter: Segmenter) -> None:
    for name, frame in frames.items():
        expected = segmenter.segment(frame).mask
        mask = read_pgm(out / f"{name}.pgm")
        assert mask.shape == expected.shape
        assert set(np.unique(mask)) <= {0, 255}
        assert ((mask > 0) != expected).mean() <= ALLOWED, name


@pytest.mark.parametrize(
    ("precision", "sizes"),
    [
        ("fp32", [(90, 120), (64, 64), (32, 32), (1, 1), (33, 517)]),
        ("int8", [(479, 641), (720, 1280)]),
    ],
)
def test_masks_equal_those_of_python_at_every_frame_size(
    program: Path, bundle: Path, tmp_path: Path, precision: str, sizes: list[tuple[int, int]]
) -> None:
    frames = {f"{h}x{w}": scene(h, w, seed=h)[..., ::-1].copy() for h, w in sizes}
    frames["noise"] = noise(300, 401, seed=0)
    files = [write_ppm(tmp_path / f"{name}.ppm", frame) for name, frame in frames.items()]
    out = tmp_path / "out"
    done = run(
        program, "--bundle", bundle, "--precision", precision, "--out", out, *THREADS, *files
    )
    assert done.returncode == 0, done.stderr
    target = "openvino:CPU:threads=1"
    with Segmenter.load(bundle, target, precision, preset="camera") as segmenter:
        assert_same_masks(out, frames, segmenter)
    height, width = sizes[-1]
    assert read_pgm(out / f"{height}x{width}.pgm").any()


def test_frames_are_read_as_python_reads_them(program: Path, bundle: Path, tmp_path: Path) -> None:
    colour = noise(70, 81, seed=1)
    rgba = np.dstack([colour, noise(70, 81, seed=2)[..., 0]])
    smooth = cv2.GaussianBlur(colour, (0, 0), 5)
    Image.fromarray(colour).save(tmp_path / "stored.png", compress_level=0)
    Image.fromarray(smooth).save(tmp_path / "filtered.png", optimize=True)
    Image.fromarray(colour[:1, :2]).save(tmp_path / "fixed.png")
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "grey_alpha.png")
    Image.fromarray(smooth[..., 0]).save(tmp_path / "plain.pgm")
    files = sorted({*list_images(tmp_path), tmp_path / "plain.pgm"})
    assert len(files) == 7
    frames = {path.stem: read_image(path)[..., ::-1].copy() for path in files}
    out = tmp_path / "out"
    done = run(program, "--bundle", bundle, "--out", out, *THREADS, *files)
    assert done.returncode == 0, done.stderr

    (tmp_path / "camera.bgr").write_bytes(colour.tobytes())
    frames["camera"] = colour
    raw = ("--size", "81x70", tmp_path / "camera.bgr")
    assert run(program, "--bundle", bundle, "--out", out, *THREADS, *raw).returncode == 0
    with Segmenter.load(bundle, "openvino:CPU:threads=1", preset="camera") as segmenter:
        assert_same_masks(out, frames, segmenter)


@pytest.mark.data
def test_masks_of_real_images_equal_those_of_python(
    program: Path, bundle: Path, tmp_path: Path, real_data: Path
) -> None:
    sets = [real_data / "TestDataset" / name for name in ("CVC-300", "Kvasir")]
    files = [list_images(folder / "images")[0] for folder in sets]
    frames = {}
    for index, path in enumerate(files):
        name = f"{path.parents[1].name}_{index}"
        frames[name] = read_image(path)[..., ::-1].copy()
        cv2.imwrite(str(tmp_path / f"{name}.png"), frames[name])
    images = sorted(tmp_path.glob("*.png"))
    out = tmp_path / "out"
    done = run(program, "--bundle", bundle, "--out", out, *THREADS, *images)
    assert done.returncode == 0, done.stderr
    with Segmenter.load(bundle, "openvino:CPU:threads=1", preset="camera") as segmenter:
        assert_same_masks(out, frames, segmenter)


def test_the_golden_check_passes_and_the_latency_is_told(program: Path, bundle: Path) -> None:
    frame = bundle / "golden" / "0.png"
    done = run(program, "--bundle", bundle, "--golden", "--repeat", "20", *THREADS, frame)
    assert done.returncode == 0, done.stderr
    first, golden, *rest = done.stdout.splitlines()
    # the arithmetic is asked for and told, not left to the CPU
    assert first.startswith("tiny int8 camera: OpenVINO ")
    assert first.endswith("on CPU, f32, threads 1, streams 1")
    assert golden.startswith("golden: 2 frames, 0.000% of mask pixels differ")
    assert golden.endswith(": pass")
    assert "p50      p90      p99      max   ms, 20 timed frames" in rest[-4]
    for line, stage in zip(rest[-3:], ("inference", "mask", "total"), strict=True):
        name, *values = line.split()
        milliseconds = [float(value) for value in values]
        assert name == stage
        assert milliseconds == sorted(milliseconds) and milliseconds[-1] >= 0


def test_the_shipped_student_reproduces_its_golden_vectors(program: Path) -> None:
    if not (STUDENT / FILE_NAME).is_file():
        pytest.skip("this checkout has no shipped student")
    done = run(program, "--bundle", STUDENT, "--golden", *THREADS)
    assert done.returncode == 0, done.stderr


def test_a_bundle_that_does_not_reproduce_its_golden_vectors_ends_with_code_3(
    program: Path, tmp_path: Path
) -> None:
    def other(frame: np.ndarray, size: int, precision: str) -> np.ndarray:
        return 1 - probability(frame, size, precision)

    wrong = make_tiny_bundle(tmp_path / "wrong", expected=other)
    done = run(program, "--bundle", wrong, "--golden", *THREADS)
    assert "does not reproduce its golden vectors" in only_error(done, code=3)
    assert done.stdout.splitlines()[-1].endswith(": FAIL")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_that_python_refuses_is_refused_before_any_inference(
    program: Path, bundle: Path, tmp_path: Path, fault: str
) -> None:
    damage, message = FAULTS[fault]
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    damage(damaged)
    with pytest.raises(UserError):
        open_bundle(damaged)
    done = run(program, "--bundle", damaged, "--golden", *THREADS)
    assert message in only_error(done)
    assert done.stdout == ""


def test_wrong_arguments_and_frames_give_one_line(
    program: Path, bundle: Path, tmp_path: Path
) -> None:
    def message(*arguments: object) -> str:
        return only_error(run(program, "--bundle", bundle, *THREADS, *arguments))

    frame = bundle / "golden" / "0.png"
    cut = tmp_path / "cut.png"
    cut.write_bytes(frame.read_bytes()[:3000])
    empty = tmp_path / "empty.png"
    empty.touch()
    interlaced = tmp_path / "palette.png"
    Image.fromarray(noise(8, 8, 3)).convert("P").save(interlaced)
    assert "cut.png cannot be read as a PNG" in message(cut)
    assert "empty.png is empty" in message(empty)
    assert "not grey or RGB of 8 bits" in message(interlaced)
    assert "absent.png does not exist" in message(tmp_path / "absent.png")
    assert "is no PNG, binary PPM or PGM" in message(bundle / "manifest.json")
    assert "a BGR frame of 5×4 has 60; check --size" in message("--size", "5x4", frame)
    assert "--size 5 is not WxH" in message("--size", "5", frame)
    assert "--repeat 0 is not a number above 0" in message("--repeat", "0", frame)
    assert "option --fast is unknown" in message("--fast", frame)
    assert "nothing to do" in message()
    assert "--out needs a value" in message(frame, "--out")
    assert "two frames would become 0.pgm" in message(frame, frame, "--out", tmp_path / "out")
    assert "no OpenVINO model of preset camera in fp16" in message("--precision", "fp16", frame)
    assert "on TOASTER" in only_error(
        run(program, "--bundle", bundle, "--device", "TOASTER", "--golden")
    )
    assert "no --bundle given" in only_error(run(program, frame))


def test_damaged_files_never_crash_the_program(program: Path, bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    manifest = (bundle / "manifest.json").read_bytes()
    frame = (bundle / "golden" / "1.png").read_bytes()
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    for index in range(24):
        content = bytearray(frame if index % 2 else manifest)
        for at in rng.integers(0, len(content), 4):
            content[at] = rng.integers(0, 256)
        content = content[: rng.integers(1, len(content))] if index % 3 == 0 else content
        damaged = tmp_path / "damaged.png"
        if index % 2:
            damaged.write_bytes(content)
            done = run(program, "--bundle", bundle, *THREADS, damaged)
        else:
            (copy / "manifest.json").write_bytes(content)
            done = run(program, "--bundle", copy, *THREADS, "--golden")
        # a change within a name or number of the manifest may go unnoticed
        if done.returncode not in (0, 3):
            only_error(done)
