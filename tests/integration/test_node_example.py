"""The Node.js example, with the packages that `npm ci` put into examples/node."""

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundle_faults import FAULTS
from PIL import Image
from tiny_bundle import make_tiny_bundle, probability, scene

from kdas_edge.bundle.manifest import FILE_NAME
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.bundle.shipped import STUDENT
from kdas_edge.data.layout import list_images
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.runtime import Segmenter

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "node"
TARGET = "onnxruntime:CPU:threads=1"
# cv2 resizes by Intel's IPP on x86-64, which the example reproduces to the last bit; elsewhere by
# code of its own, which rounds the positions of the pixels to float first
ALLOWED = 0.0 if getattr(cv2, "ipp", None) and cv2.ipp.useIPP() else 1e-4


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs node on the PATH")
    for package in ("onnxruntime-node", "pngjs"):
        if not (SOURCE / "node_modules" / package).is_dir():
            pytest.skip(f"{package} is not installed; run `npm ci` in examples/node")
    return program


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def run(node: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [node, SOURCE / "main.js", "--threads", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def evaluate(node: str, script: str, *arguments: object) -> object:
    """Run a module that imports the example's files; returns the JSON that it prints."""
    done = subprocess.run(
        [node, "--input-type=module", "-", *map(str, arguments)],
        input=script, cwd=SOURCE, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def only_error(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert done.returncode == code, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: every pixel matters to the mask, a wrong one shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_masks_equal_those_of_python_at_every_frame_size(
    node: str, bundle: Path, tmp_path: Path, precision: str
) -> None:
    sizes = {
        "fp32": [(90, 120), (64, 64), (1, 1), (33, 517)],
        "int8": [(479, 641), (1080, 1920)],
    }[precision]
    frames = {f"{h}x{w}": scene(h, w, seed=h) for h, w in sizes} | {"noise": noise(300, 401, 0)}
    for name, frame in frames.items():
        Image.fromarray(frame).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    done = run(
        node, "--bundle", bundle, "--precision", precision, "--out", out, *tmp_path.glob("*.png")
    )
    assert done.returncode == 0, done.stderr
    with Segmenter.load(bundle, TARGET, precision, preset="camera") as segmenter:
        for name, frame in frames.items():
            expected = segmenter.segment(frame[..., ::-1]).mask
            found = np.asarray(Image.open(out / f"{name}.png"))
            assert found.shape == expected.shape and set(np.unique(found)) <= {0, 255}
            assert ((found > 0) != expected).mean() <= ALLOWED, name
    assert expected.any()


def test_frames_are_read_as_python_reads_them(node: str, bundle: Path, tmp_path: Path) -> None:
    colour = noise(70, 81, seed=1)
    rgba = np.dstack([colour, noise(70, 81, seed=2)[..., 0]])
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(colour).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(colour).save(tmp_path / "colour.ppm")
    Image.fromarray(colour[..., 0]).save(tmp_path / "plain.pgm")
    files = sorted({*list_images(tmp_path), *tmp_path.glob("*.p?m")})
    assert len(files) == 5
    wanted = [read_image(path)[..., ::-1] for path in files]
    (tmp_path / "camera.bgr").write_bytes(wanted[-1].tobytes())
    script = """
        import { createHash } from 'node:crypto';
        import { readImage, readRaw } from './images.js';
        const [raw, ...files] = process.argv.slice(2);
        const frames = [...files.map(readImage), readRaw(raw, 81, 70)];
        const hash = (bytes) => createHash('sha256').update(bytes).digest('hex');
        console.log(JSON.stringify(frames.map((f) => [f.height, f.width, hash(f.bgr)])));
    """
    found = evaluate(node, script, tmp_path / "camera.bgr", *files)
    assert found == [
        [*frame.shape[:2], sha256(frame.tobytes()).hexdigest()] for frame in [*wanted, wanted[-1]]
    ]


def test_overlapping_calls_are_answered_in_order_with_their_own_masks(
    node: str, bundle: Path, tmp_path: Path
) -> None:
    frames = [scene(90, 120, seed=index, polyp=index != 2) for index in range(4)]
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    script = """
        import { Segmenter } from './segmenter.js';
        import { readImage } from './images.js';
        const [bundle, ...files] = process.argv.slice(2);
        const segmenter = await Segmenter.load(bundle, { threads: 1 });
        const ended = [];
        const marked = await Promise.all(files.map(async (file, index) => {
          const { mask } = await segmenter.segment(readImage(file));
          ended.push(index);
          return mask.reduce((sum, value) => sum + (value > 0), 0);
        }));
        await segmenter.close();
        console.log(JSON.stringify({ ended, marked }));
    """
    found = evaluate(node, script, bundle, *sorted(tmp_path.glob("*.png")))
    with Segmenter.load(bundle, TARGET, preset="camera") as segmenter:
        marked = [int(segmenter.segment(frame[..., ::-1]).mask.sum()) for frame in frames]
    assert found == {"ended": [0, 1, 2, 3], "marked": marked}
    assert len(set(marked)) == 4


def test_the_golden_check_passes_and_the_latency_is_told(node: str, bundle: Path) -> None:
    done = run(node, "--bundle", bundle, "--golden", "--repeat", "20", bundle / "golden/0.png")
    assert done.returncode == 0, done.stderr
    first, golden, *rest = done.stdout.splitlines()
    assert first.startswith("tiny int8 camera: ONNX Runtime ") and first.endswith("threads 1")
    assert golden.startswith("golden: 2 frames, 0.0") and golden.endswith(": pass")
    assert "p50      p90      p99      max   ms, 20 timed frames" in rest[-4]
    for line, stage in zip(rest[-3:], ("inference", "mask", "total"), strict=True):
        name, *values = line.split()
        milliseconds = [float(value) for value in values]
        assert name == stage and milliseconds == sorted(milliseconds)


def test_the_shipped_student_reproduces_its_golden_vectors(node: str) -> None:
    if not (STUDENT / FILE_NAME).is_file():
        pytest.skip("this checkout has no shipped student")
    done = run(node, "--bundle", STUDENT, "--golden")
    assert done.returncode == 0, done.stderr


def test_a_bundle_that_does_not_reproduce_its_golden_vectors_ends_with_code_3(
    node: str, tmp_path: Path
) -> None:
    def other(frame: np.ndarray, size: int, precision: str) -> np.ndarray:
        return 1 - probability(frame, size, precision)

    wrong = make_tiny_bundle(tmp_path / "wrong", expected=other)
    done = run(node, "--bundle", wrong, "--golden")
    assert "does not reproduce its golden vectors" in only_error(done, code=3)
    assert done.stdout.splitlines()[-1].endswith(": FAIL")


def test_a_bundle_that_python_refuses_is_refused(node: str, bundle: Path, tmp_path: Path) -> None:
    for fault, (damage, _) in FAULTS.items():
        damaged = tmp_path / fault / "damaged"
        shutil.copytree(bundle, damaged)
        damage(damaged)
        with pytest.raises(UserError):
            open_bundle(damaged)
    script = """
        import { openBundle } from './bundle.js';
        import { UserError } from './errors.js';
        const said = process.argv.slice(2).map((folder) => {
          try {
            openBundle(folder);
            return 'opened';
          } catch (error) {
            return error instanceof UserError ? error.message : `internal: ${error.stack}`;
          }
        });
        console.log(JSON.stringify(said));
    """
    said = evaluate(node, script, *(tmp_path / fault / "damaged" for fault in FAULTS))
    for (fault, (_, message)), line in zip(FAULTS.items(), said, strict=True):  # type: ignore[call-overload]
        assert message in line and "internal" not in line and "\n" not in line, (fault, line)
    only_error(run(node, "--bundle", tmp_path / "tampered" / "damaged", "--golden"))


def test_wrong_arguments_and_frames_give_one_line(node: str, bundle: Path, tmp_path: Path) -> None:
    frame = bundle / "golden" / "0.png"
    cut = tmp_path / "cut.png"
    cut.write_bytes(frame.read_bytes()[:3000])
    (tmp_path / "empty.png").touch()
    cases: list[tuple[str, tuple[object, ...]]] = [
        ("cut.png cannot be read as a PNG", (cut,)),
        ("empty.png is empty", (tmp_path / "empty.png",)),
        ("is no PNG, binary PPM or PGM", (bundle / "manifest.json",)),
        ("a BGR frame of 5×4 has 60; check --size", ("--size", "5x4", frame)),
        ("--repeat 0 is not a number above 0", ("--repeat", "0", frame)),
        ("--fast", ("--fast", frame)),
        ("nothing to do", ()),
        ("two frames would become 0.png", (frame, frame, "--out", tmp_path / "out")),
        ("no ONNX model of preset camera in fp16", ("--precision", "fp16", frame)),
    ]
    for message, arguments in cases:
        assert message in only_error(run(node, "--bundle", bundle, *arguments))


def test_the_pages_reader_checks_the_manifests_digest_as_well(
    node: str, bundle: Path, tmp_path: Path
) -> None:
    copies = {"intact": lambda path: None}
    copies |= {name: FAULTS[name][0] for name in ("flipped", "relabelled", "undigested")}
    for name, damage in copies.items():
        damage(Path(shutil.copytree(bundle, tmp_path / name)))
    script = """
        import fs from 'node:fs';
        import { chosenBundle } from '../web/bundle.js';
        const said = [];
        for (const folder of process.argv.slice(2)) {
          const content = fs.readFileSync(`${folder}/manifest.json`);
          const file = {
            webkitRelativePath: 'chosen/manifest.json',
            arrayBuffer: async () => content,
          };
          const done = ({ manifest }) => manifest.name;
          said.push(await chosenBundle([file]).then(done, (error) => error.message));
        }
        console.log(JSON.stringify(said));
    """
    said = evaluate(node, script, *(tmp_path / name for name in copies))
    assert said[0] == "tiny"  # type: ignore[index]
    for name, line in zip(list(copies)[1:], said[1:], strict=True):  # type: ignore[index]
        assert FAULTS[name][1] in line
