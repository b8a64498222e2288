"""Ways to spoil a bundle that every host must refuse before it infers anything."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tiny_bundle import rewrite_manifest


def _spoil_weights(path: Path) -> None:
    # of every model of the default precision, so that it does not matter which one a host loads
    for file in (path / "int8" / "camera.bin", path / "int8" / "camera.onnx"):
        content = bytearray(file.read_bytes())
        content[3] ^= 1
        file.write_bytes(content)


def _newer_schema(path: Path) -> None:
    rewrite_manifest(path, lambda values: values.update(schema_version="9.0"))


def _flipped_mean(path: Path) -> None:
    manifest = path / "manifest.json"
    content = manifest.read_bytes()
    assert content.count(b"0.485") == 1
    manifest.write_bytes(content.replace(b"0.485", b"1.485"))


def _relabel(path: Path) -> None:
    manifest = path / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content.replace(b'"schema_version": "1.3"', b'"schema_version": "1.2"'))


def _escape(path: Path) -> None:
    rewrite_manifest(path, lambda values: values["golden"][0].update(frame="../secret.png"))


def _unhashed(path: Path) -> None:
    rewrite_manifest(path, lambda values: values["files"].pop("int8/camera.bin"))


def _link_out(path: Path) -> None:
    outside = path.parent / "outside.bin"
    (path / "int8" / "camera.bin").rename(outside)
    (path / "int8" / "camera.bin").symlink_to(outside)


# what is done to a `tiny_bundle`, and what the one line must say
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "tampered": (_spoil_weights, "does not match its hash"),
    "missing": (lambda path: (path / "int8/camera.xml").unlink(), "'int8/camera.xml' is missing"),
    "extra": (lambda path: (path / "int8/x.bin").write_text("x"), "'int8/x.bin' is not in"),
    "flipped": (_flipped_mean, "does not match its own digest"),
    "relabelled": (_relabel, "which has no digest, and holds one"),
    "undigested": (
        lambda path: rewrite_manifest(path, lambda values: values.pop("sha256")),
        "does not match its own digest",
    ),
    "newer": (_newer_schema, "has schema version '9.0'"),
    "escape": (_escape, "path '../secret.png' leaves the bundle"),
    "unhashed": (_unhashed, "'int8/camera.bin' is"),
    "link": (_link_out, "is a link that leaves the bundle"),
    "cut": (lambda path: (path / "manifest.json").write_text('{"a": [1, '), "manifest.json"),
    "deep": (lambda path: (path / "manifest.json").write_text("[" * 10**6), "manifest.json"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "is not a bundle"),
    "no folder": (shutil.rmtree, "does not exist"),
}
