"""The whole command line on malformed inputs, from seeds: no traceback, no hang, nothing left.

Every case runs `main()` in this process, in a jail (see `fuzz_jail`). It may succeed, or say what
is wrong in one line; the faults of all cases of a kind are shown together. A case can be repeated
alone: `KDAS_EDGE_FUZZ=bundles:17 pytest tests/integration/test_fuzz_verbs.py`.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from dicom_files import picture, save
from fuzz_inputs import STRANGE, damaged, mutated
from fuzz_jail import Jail
from safetensors.torch import save_file
from tiny_bundle import make_tiny_bundle, scene, write_discs
from tiny_student import train_tiny_student
from video_files import clip, write_video

TARGET = ["--target", "openvino:CPU:threads=1"]
# what a person, a script or a shell may give where a verb expects something else; no path of it
# leads out of the jail, and no number makes honest work long
WORDS = (
    "", " ", "-1", "0", "1", "3", "nan", "inf", "-inf", "1e400", "½", "..", ".", "nosuch", "a\0b",
    "x" * 300, "é" * 130, "\udce9", "--", "-", "[old]", "a=b", "=", "a,b", ",", ":", "openvino:",
    "openvino:GPU", "openvino:CPU:threads=0", "onnxruntime:CPU:threads=x", "torch:cuda", "{}", "'",
    "\n", "%s", "$HOME", "~", "set", "bundle", "page.html", "net.safetensors", "result.json",
    "frame.png", "clip.mp4", "still.dcm", "recipe.yaml", "loop", "pipe", "link", "empty", "null",
    "no", "007", "paper", "core,camera", "fp32", "int8", "auto", "0,0,64,64", "k/n", "camera:97",
    "rtsp://127.0.0.1:1/a", "http://[", "file:///etc/passwd", "C:\\a", "on", "2001-99-99",
)  # fmt: skip
RECIPE = {
    "name": "t",
    "data": {"root": "nosuch", "size": 64, "validation": 0.25},
    "model": {"backbone": "test_efficientnet", "width": 8},
    "loss": {"variant": "supervised"},
    "schedule": {"epochs": 1, "batch_size": 4},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole inputs of every kind, to be copied and damaged."""
    root = tmp_path_factory.mktemp("base")
    make_tiny_bundle(root / "bundle")
    write_discs(root / "set", 8)
    cv2.imwrite(str(root / "frame.png"), scene(70, 90))
    write_video(root / "clip.mp4", clip(6))
    save(picture(scene(70, 90)), root / "still.dcm")
    train_tiny_student(steps=2).save(root / "net.safetensors")
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    jail = Jail(root / "jail")
    done = jail.run(
        ["bench", str(root / "bundle"), "--data", str(root / "set"), "--iterations", "3",
         "--warmup", "1", "--targets", "openvino:CPU:threads=1", "--no-startup", "--json",
         "r.json"],
        ["r.json"],
    )  # fmt: skip
    assert done.code == 0, done.shown
    shutil.move(jail.work / "r.json", root / "result.json")
    shutil.rmtree(root / "jail")
    return root


@pytest.fixture
def jail(tmp_path: Path) -> Jail:
    return Jail(tmp_path / "jail")


def images(rng: random.Random, base: Path, work: Path) -> tuple[list[str], list[str]]:
    """Ten damaged images in a folder."""
    (work / "in").mkdir()
    for index in range(10):
        suffix = rng.choice((".png", ".jpg", ".bmp", ".tiff", ".webp", ".gif"))
        _, content = cv2.imencode(suffix, scene(40, 56, seed=index))
        bad = damaged(content.tobytes(), rng) if rng.random() < 0.8 else content.tobytes()
        (work / "in" / f"{index}{rng.choice((suffix, suffix, '.png', '.jpg'))}").write_bytes(bad)
    source = (
        "in"
        if rng.random() < 0.7
        else f"in/{rng.choice(sorted(one.name for one in (work / 'in').iterdir()))}"
    )
    command = [
        "predict",
        source,
        "--bundle",
        str(base / "bundle"),
        "--out",
        "o",
        "--json",
        "o.json",
    ]
    return [*command, *TARGET], ["o", "o.json"]


def sets(rng: random.Random, base: Path, work: Path) -> tuple[list[str], list[str]]:
    """A data set with damaged, missing, renamed and odd files."""
    shutil.copytree(base / "set", work / "set")
    files = sorted(path for path in (work / "set").rglob("*") if path.is_file())
    for path in rng.sample(files, rng.choice((1, 2, 5))):
        kind = rng.randrange(7)
        if kind <= 1:
            path.write_bytes(damaged(path.read_bytes(), rng))
        elif kind == 2:
            path.unlink()
        elif kind == 3:
            path.rename(path.with_name(rng.choice(("x.png", "\udce9.png", "[a].png", "7.jpeg"))))
        elif kind == 4:
            shape = rng.choice(((96, 128), (1, 1), (96, 128, 4), (3, 5), (128, 96)))
            dtype = rng.choice((np.uint8, np.uint16))
            odd = np.random.default_rng(rng.randrange(99)).integers(0, 256, shape).astype(dtype)
            cv2.imwrite(str(path), odd)
        elif kind == 5:
            path.unlink()
            os.mkfifo(path)
        else:
            path.unlink()
            path.symlink_to(path)
    verb = rng.choice(("check", "check", "eval", "prepare", "calibrate", "bench"))
    command = {
        "check": ["data", "check", "set", "--json", "o.json"],
        "eval": ["eval", str(base / "bundle"), "--data", "set", "--json", "o.json", *TARGET],
        "prepare": ["data", "prepare", "set", "o", "--size", "64"],
        "calibrate": ["calibrate", "set", "--out", "o", "--count", "3"],
        "bench": ["bench", str(base / "bundle"), "--data", "set", "--iterations", "2", "--warmup",
                  "1", "--targets", "openvino:CPU:threads=1", "--no-startup", "--csv", "o"],
    }  # fmt: skip
    return command[verb], ["o", "o.json"]


def recipes(rng: random.Random, base: Path, work: Path) -> tuple[list[str], list[str]]:
    """A recipe with strange values, damaged bytes, or overrides that mean nothing."""
    verb = rng.choice(("train", "train", "distill", "quantize"))
    tree = mutated(RECIPE, rng)
    # what it would train on does not exist: the recipe alone is judged, and the network built
    text = yaml.safe_dump(tree, allow_unicode=True).encode(errors="surrogatepass")
    if rng.random() < 0.4:
        text = damaged(text, rng)
    (work / "r.yaml").write_bytes(text)
    keys = ("name", "seed", "data.size", "model.width", "schedule.epochs", "augment.scale", "x.y",
            "loss.temperature", "teacher", "model.pretrained", "data", "",
            "schedule.scales")  # fmt: skip
    command = [verb, "--recipe", "r.yaml", "data.root=nosuch"]
    if rng.random() < 0.6:
        command.append(
            f"{rng.choice(keys)}={rng.choice((*WORDS, '[', '{a: [b', '1e5', '&a [*a]'))}"
        )
    if verb != "train" and rng.random() < 0.7:
        option = "--teacher" if verb == "distill" else "--student"
        command += [option, rng.choice((str(base / "net.safetensors"), "nosuch", str(base)))]
    return command, ["runs"]


def checkpoints(rng: random.Random, base: Path, work: Path) -> tuple[list[str], list[str]]:
    """A checkpoint with damaged bytes, or a header with strange values."""
    content = (base / "net.safetensors").read_bytes()
    kind = rng.randrange(4)
    name = "net.safetensors"
    if kind == 0:
        content = damaged(content, rng)
    elif kind == 1:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        if rng.random() < 0.6:
            architecture = json.loads(header["__metadata__"]["architecture"])
            header["__metadata__"]["architecture"] = json.dumps(mutated(architecture, rng))
        else:
            header = mutated(header, rng)
        text = json.dumps(header).encode(errors="surrogatepass")
        content = len(text).to_bytes(8, "little") + text + content[8 + length :]
    elif kind == 2:
        import torch

        save_file({"x": torch.full((2,), float("nan"))}, work / "n.safetensors")
        content = (work / "n.safetensors").read_bytes()
        (work / "n.safetensors").unlink()
    else:
        name = "net.pth"
        content = rng.choice(
            (b"", b"\x80\x02}q\x00.", b"PK\x03\x04", b"\x80\x04cos\nsystem\n", content[:99])
        )
    (work / name).write_bytes(content)
    command = rng.choice((
        ["eval", name, "--data", str(base / "set"), "--limit", "1", "--json", "o.json"],
        ["export", name, "--out", "o", "--precision", "nosuch"],
        ["distill", "--teacher", name, "data.root=nosuch", "schedule.epochs=1", "data.size=64",
         "model.backbone=test_efficientnet"],
        ["quantize", "--student", name, "--data", "nosuch"],
        ["bench", name, "--iterations", "1", "--warmup", "0", "--targets", "torch:cpu:threads=1",
         "--no-startup", "--json", "o.json"],
        ["train", f"model.init_from={name}", "data.root=nosuch", "schedule.epochs=1",
         "model.backbone=test_efficientnet", "model.width=8", "data.size=64"],
    ))  # fmt: skip
    return command, ["o", "o.json", "runs"]


def bundles(rng: random.Random, base: Path, work: Path) -> tuple[list[str], list[str]]:
    """A bundle with a strange manifest, damaged files, or files of another kind."""
    shutil.copytree(base / "bundle", work / "bundle")
    manifest = work / "bundle" / "manifest.json"
    kind = rng.randrange(4)
    if kind <= 1:
        manifest.write_text(json.dumps(mutated(json.loads(manifest.read_text()), rng)))
    elif kind == 2:
        path = rng.choice(sorted(one for one in (work / "bundle").rglob("*") if one.is_file()))
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        path = rng.choice(sorted(one for one in (work / "bundle").rglob("*") if one.is_file()))
        path.unlink()
        rng.choice((lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to(path)))()
    command = rng.choice((
        ["verify", "bundle", "--no-export", "--targets", "openvino:CPU:threads=1", "--json",
         "o.json"],
        ["verify", "bundle", "--no-export", "--targets", "openvino:CPU:threads=1", "--report", "o"],
        ["predict", str(base / "frame.png"), "--bundle", "bundle", "--out", "o", *TARGET],
        ["bench", "bundle", "--iterations", "1", "--warmup", "0", "--targets",
         "openvino:CPU:threads=1", "--no-startup", "--json", "o.json"],
        ["export", "bundle", "--out", "o", "--layout", rng.choice(("ovms", "triton"))],
        ["card", "bundle", str(base / "result.json")],
        ["eval", "bundle", "--data", str(base / "set"), "--limit", "1", *TARGET],
    ))  # fmt: skip
    return command, ["o", "o.json", *(["bundle"] if command[0] == "card" else [])]


def results(rng: random.Random, base: Path, work: Path) -> tuple[list[str], list[str]]:
    """A result file with strange values inside, or damaged bytes."""
    content = (base / "result.json").read_bytes()
    if rng.random() < 0.8:
        text = json.dumps(mutated(json.loads(content), rng)).encode()
    else:
        text = rng.choice((damaged(content, rng), b"[" * 9999, b'{"a":' * 9999, b"9" * 9999, b""))
    (work / "r.json").write_bytes(text)
    if rng.random() < 0.25:
        shutil.copytree(base / "bundle", work / "bundle")
        return ["card", "bundle", "r.json"], ["bundle"]
    others = [str(base / "result.json")] if rng.random() < 0.3 else []
    return ["report", "r.json", *others, "--out", "o", "--json", "o.json"], ["o", "o.json"]


def media(rng: random.Random, base: Path, work: Path) -> tuple[list[str], list[str]]:
    """A damaged video or DICOM object, under its own name or another."""
    if rng.random() < 0.5:
        name = rng.choice(("v.mp4", "v.avi", "v.mkv", "v.ts", "v.m2v"))
        content = (base / "clip.mp4").read_bytes()
        command = ["predict", name, "--bundle", str(base / "bundle"), *TARGET]
        command += rng.choice((["--out", "o"], ["--jsonl", "o"], ["--out", "o", "--frames"]))
    else:
        name = rng.choice(("s.dcm", "IM0001", "s.png"))
        content = (base / "still.dcm").read_bytes()
        command = ["dicom", name, "--bundle", str(base / "bundle"), "--out", "o", *TARGET]
    bad = damaged(content, rng) if rng.random() < 0.9 else rng.randbytes(rng.choice((0, 9, 4096)))
    (work / name).write_bytes(bad)
    return [*command, "--json", "o.json"], ["o", "o.json"]


def commands(rng: random.Random, base: Path, work: Path) -> tuple[list[str], list[str]]:
    """A verb with options and values at random, beside whole inputs of every kind."""
    for name in ("bundle", "set"):
        shutil.copytree(base / name, work / name)
    for name in ("frame.png", "clip.mp4", "still.dcm", "net.safetensors", "recipe.yaml",
                 "result.json"):  # fmt: skip
        shutil.copy(base / name, work / name)
    (work / "empty").mkdir()
    (work / "loop").symlink_to("loop")
    (work / "link").symlink_to("set")
    os.mkfifo(work / "pipe")
    verb = rng.choice(sorted(_VERBS))
    command = [*verb.split(), *_VERBS[verb]]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        option = rng.choice(_options(verb))
        command += [option, rng.choice(WORDS)] if rng.random() < 0.9 else [option]
    for index in range(len(command)):
        if command[index] in WORDS and rng.random() < 0.15:
            command[index] = rng.choice(WORDS)
    # what an output option names is declared, unless it is named as an input, too
    at = [index + 1 for index, word in enumerate(command[:-1]) if word in _OUTPUTS]
    read = {word for index, word in enumerate(command) if index not in at}
    named = [command[index] for index in at if command[index] not in (*read, "", ".", "..")]
    positional = [command[-1]] if verb in ("data synth", "data prepare") else []
    tops = [word.split("/")[0] for word in (*named, *positional)]
    return command, ["o", "runs", "predictions", "segmentations", "report.html", "t", *tops,
                     *(["bundle"] if verb == "card" else [])]  # fmt: skip


_OUTPUTS = ("--json", "--jsonl", "--csv", "--html", "--record", "--out", "-o", "--maps-out",
            "--report")  # fmt: skip
# each verb with whole inputs that cost little; the options at random follow
_VERBS = {
    "data check": ["set"],
    "data synth": ["--train", "2", "--test", "1", "--size", "32", "o"],
    "data prepare": ["set", "--size", "32", "o"],
    "data corrupt": ["frame.png", "--out", "o.png"],
    "train": ["--recipe", "recipe.yaml"],
    "distill": ["--recipe", "recipe.yaml", "--teacher", "net.safetensors"],
    "calibrate": ["set", "--out", "o", "--count", "3"],
    "quantize": ["--student", "net.safetensors", "--data", "nosuch"],
    "export": ["net.safetensors", "--out", "o", "--golden", "empty"],
    "eval": ["bundle", "--data", "set", *TARGET],
    "bench": ["bundle", "--iterations", "1", "--warmup", "0", "--no-startup", "--targets",
              "openvino:CPU:threads=1"],
    "predict": ["frame.png", "--bundle", "bundle", *TARGET],
    "dicom": ["still.dcm", "--bundle", "bundle", *TARGET],
    "verify": ["bundle", "--no-export", "--targets", "openvino:CPU:threads=1"],
    "info": ["bundle"],
    "card": ["bundle", "result.json"],
    "report": ["result.json", "--out", "nosuch/report"],
    "doctor": [],
    "demo": ["--data", "nosuch", "--quick"],
}  # fmt: skip
# these make honest work long, or open what a test machine lacks
_LEFT_OUT = ("--minutes", "--seconds", "--throughput", "--startup", "--robustness", "--show",
             "--profile", "--profile-top", "--export", "--help", "--install-completion",
             "--show-completion", "--warmup-limit")  # fmt: skip


def _options(verb: str) -> list[str]:
    import typer

    from kdas_edge.cli import app

    command = typer.main.get_command(app)
    for word in verb.split():
        command = command.commands[word]  # type: ignore[attr-defined]
    found = [name for one in command.params for name in one.opts if name.startswith("-")]
    return [name for name in found if name not in _LEFT_OUT] or ["--nosuch"]


KINDS: dict[Callable[..., tuple[list[str], list[str]]], int] = {
    images: 30,  # ten in each
    sets: 120,
    recipes: 220,
    checkpoints: 100,
    bundles: 150,
    results: 60,
    media: 120,
    commands: 200,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_malformed_inputs_end_in_one_line_and_leave_nothing(
    kind: Callable[..., tuple[list[str], list[str]]], base: Path, jail: Jail
) -> None:
    chosen, _, only = os.environ.get("KDAS_EDGE_FUZZ", "").partition(":")
    numbers = range(KINDS[kind])
    if chosen:
        if chosen != kind.__name__:
            pytest.skip("another kind was chosen")
        numbers = range(int(only), int(only) + 1) if only else numbers
    faults, codes = [], set()
    for number in numbers:
        rng = random.Random(f"{kind.__name__} {number}")
        arguments, outputs = kind(rng, base, jail.work)
        outcome = jail.run(arguments, outputs)
        codes.add(outcome.code)
        faults += [f"{kind.__name__}:{number} {arguments!r}: {one}" for one in outcome.faults]
        if only:
            print(outcome.shown)
        jail.clear()
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)
    if kind is bundles and not only:  # the manifest's digest refuses every change
        assert codes == {2}
    assert only or {0, 2} <= codes or kind in (recipes, bundles), codes


def test_there_are_a_thousand_inputs_and_every_verb() -> None:
    from kdas_edge.cli import app

    assert sum(KINDS.values()) + 9 * KINDS[images] >= 1000
    verbs = {command.name for command in app.registered_commands}
    assert verbs <= {verb.split()[0] for verb in _VERBS}
    assert STRANGE
