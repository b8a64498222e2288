"""Opening a bundle: nothing in it is used before its hash has been compared with the manifest."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdas_edge.bundle.manifest import FILE_NAME, Manifest, ModelFile, parse_manifest
from kdas_edge.errors import UserError
from kdas_edge.files import read_bytes, real_path, sha256

# A real manifest holds some tens of kilobytes; a device must not be filled by a hostile one.
_MANIFEST_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: the directory, absolute, symbolic links resolved.
        manifest: its contract.
    """

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """Name of the bundle as the manifest gives it."""
        return self.manifest.name

    def model(self, precision: str, format: str, preset: str = "core") -> ModelFile | None:
        """Find a model file, or None if the bundle does not hold it.

        Args:
            precision: `fp32`, `fp16`, `int8` or `int8_weights`.
            format: `openvino`, `onnx` or `torch`.
            preset: `core` or `camera`.
        """
        for model in self.manifest.models:
            if (model.precision, model.format, model.preset) == (precision, format, preset):
                return model
        return None

    def file(self, relative: str) -> Path:
        """Return the absolute path of a file that the manifest names.

        Raises:
            UserError: the manifest does not name it, it is missing, or a symbolic link leads out
                of the bundle.
        """
        if relative not in self.manifest.files:
            raise UserError(
                f"{self.path}: the manifest names no file {relative!r}; export it again"
            )
        path = self.path / relative
        if not real_path(path).is_relative_to(self.path):
            raise UserError(
                f"{self.path}: {relative!r} is a link that leaves the bundle; export it again"
            )
        if not path.is_file():
            raise UserError(f"{self.path}: file {relative!r} is missing; copy the bundle again")
        return path

    def size_bytes(self, model: ModelFile) -> int:
        """Size of a model on disk in bytes: `.xml` and `.bin` together, or the one file."""
        return sum(self.manifest.files[relative].bytes for relative in model_files(model))


def model_files(model: ModelFile) -> list[str]:
    """Relative paths of the files that make up a model; an `.xml` has its weights in a `.bin`."""
    if model.format == "openvino":
        return [model.path, str(PurePosixPath(model.path).with_suffix(".bin"))]
    return [model.path]


def open_bundle(path: Path, verify: bool = True) -> Bundle:
    """Open a bundle directory.

    Args:
        path: the directory that holds `manifest.json`.
        verify: compare the size and SHA-256 of every file with the manifest, and refuse files that
            it does not name. False only reads the manifest.

    Raises:
        UserError: not a bundle, a newer schema, or a file that is changed, missing, extra, or a
            link out of the bundle. The message names the file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"bundle {path} does not exist; check the path")
    if not path.is_dir():
        raise UserError(f"bundle {path} is not a directory; name the folder of {FILE_NAME}")
    root = real_path(path)
    source = root / FILE_NAME
    if not source.is_file():
        raise UserError(f"{path} has no {FILE_NAME}, so it is not a bundle; check the path")
    if not real_path(source).is_relative_to(root):
        raise UserError(f"{path}: {FILE_NAME!r} is a link that leaves the bundle; export it again")
    content = read_bytes(source, _MANIFEST_LIMIT)
    bundle = Bundle(root, parse_manifest(content, path / FILE_NAME))
    _check_references(bundle)
    if verify:
        _refuse_extra_files(bundle)
        for relative in bundle.manifest.files:
            _check_file(bundle, relative)
    return bundle


def _check_references(bundle: Bundle) -> None:
    """What the contract mentions must be in it.

    A file without a hash would be read unchecked; a model without an input contract cannot be fed.
    """
    manifest = bundle.manifest
    for model in manifest.models:
        # a torch file is the network itself, whatever the inputs of the others
        if model.format != "torch" and model.preset not in manifest.inputs:
            raise UserError(
                f"{bundle.path}: {model.path!r} is for the preset {model.preset}, whose input is "
                f"not in {FILE_NAME}; export the bundle again"
            )
    mentioned = [relative for model in manifest.models for relative in model_files(model)]
    for golden in manifest.golden:
        mentioned += [golden.frame, *golden.expected.values()]
    for relative in mentioned:
        if relative not in manifest.files:
            raise UserError(
                f"{bundle.path}: {relative!r} is used but has no hash in {FILE_NAME}; "
                "export the bundle again"
            )


def _refuse_extra_files(bundle: Bundle) -> None:
    for folder, folders, names in os.walk(bundle.path):
        # os.walk does not enter links to folders; they are judged like files
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted(names + linked):
            entry = Path(folder) / name
            relative = entry.relative_to(bundle.path).as_posix()
            if entry.is_symlink() and not real_path(entry).is_relative_to(bundle.path):
                raise UserError(
                    f"{bundle.path}: {relative!r} is a link that leaves the bundle; export it again"
                )
            if relative != FILE_NAME and relative not in bundle.manifest.files:
                raise UserError(
                    f"{bundle.path}: {relative!r} is not in {FILE_NAME}; remove it, "
                    "or export the bundle again"
                )


def _check_file(bundle: Bundle, relative: str) -> None:
    path = bundle.file(relative)
    expected = bundle.manifest.files[relative]
    try:
        changed = path.stat().st_size != expected.bytes or sha256(path) != expected.sha256
    except OSError as error:
        raise UserError(
            f"{bundle.path}: cannot read {relative!r}: {error.strerror}; check permissions"
        ) from error
    if changed:
        raise UserError(
            f"{bundle.path}: {relative!r} does not match its hash in {FILE_NAME}; "
            "the bundle was changed or damaged, copy it again"
        )
