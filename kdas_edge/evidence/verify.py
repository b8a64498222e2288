"""Does a bundle do on this machine what it did where it was made?

Opening checks every hash. Then: the metadata inside each model file equals the manifest's, and so
do its format and operator set; files use standard operators only; every runtime that is present
reproduces the golden vectors, which are the probabilities of the torch models; and where the
workstation's packages are installed, exporting again gives the same files.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from kdas_edge.bundle.reader import Bundle, open_bundle
from kdas_edge.errors import UserError
from kdas_edge.evidence.checks import Check, VerificationReport
from kdas_edge.evidence.golden import check_golden
from kdas_edge.evidence.materials import check_materials
from kdas_edge.evidence.model_files import (
    check_hashes,
    check_metadata,
    check_operators,
    check_schema,
    check_versions,
    check_writers,
)
from kdas_edge.evidence.reproduce import check_exports
from kdas_edge.runtime.backends import FORMATS, open_backend
from kdas_edge.runtime.targets import Target, parse_target

_DEFAULT_TARGETS = ("openvino:CPU", "onnxruntime:CPU", "torch:cpu")


def verify(
    bundle_path: Path,
    targets: Sequence[Target] | None = None,
    exports: bool = False,
    quantized_run: Path | None = None,
) -> VerificationReport:
    """Check a bundle's files, metadata and results.

    Args:
        bundle_path: the bundle's directory.
        targets: where to run the golden vectors; by default the CPU of every runtime that is
            installed and for which the bundle has a model.
        exports: export the bundle's checkpoint twice more and compare the files (a minute).
        quantized_run: the run that the int8 files came from, to export those, too.

    Raises:
        UserError: the bundle is damaged or cannot be read, or a named target is absent or has no
            model in the bundle. A disagreement is no exception here: see `failures`.
    """
    bundle = open_bundle(bundle_path)
    chosen = _choose_targets(bundle, targets)
    files = check_hashes(bundle)
    models = bundle.manifest.models
    checks = [
        check_schema(bundle),
        Check(
            "hashes", f"{len(files)} files as in the manifest", f"{len(files)} files equal", "pass"
        ),
        Check("models", "at least one", str(len(models)), "pass" if models else "fail"),
    ]
    for model in bundle.manifest.models:
        checks.append(check_metadata(bundle, model))
        if model.format != "torch":
            checks.append(check_versions(bundle, model))
            checks.append(check_operators(bundle, model))
    checks += check_writers(bundle)
    checks += check_materials(bundle)
    effective: dict[str, dict[str, object]] = {}
    for target in chosen:
        for model in bundle.manifest.models:
            if model.format == FORMATS[target.runtime]:
                backend = open_backend(bundle, model.precision, target, model.preset)
                try:
                    effective.setdefault(str(target), dict(backend.effective))
                    checks += check_golden(bundle, model, target, backend)
                finally:
                    backend.close()
    if exports:
        checks += check_exports(bundle, quantized_run)
    return VerificationReport(bundle.name, checks, effective, files)


def refusal(bundle_path: Path) -> VerificationReport | None:
    """What is wrong with a bundle that cannot be opened, as a report; None if it can be.

    Returns:
        One failed check with the reason and, as far as the manifest can be read, the hash of every
        file, so that the record names all that differ.
    """
    try:
        open_bundle(bundle_path)
    except UserError as error:
        reason = str(error)
    else:
        return None
    rule = "every file as in the manifest, and no other"
    failed = Check("bundle", rule, reason, "fail")
    try:
        bundle = open_bundle(bundle_path, verify=False)
    except UserError:
        return VerificationReport(Path(bundle_path).name, [failed], {})
    return VerificationReport(bundle.name, [failed], {}, check_hashes(bundle))


def _choose_targets(bundle: Bundle, targets: Sequence[Target] | None) -> list[Target]:
    formats = {model.format for model in bundle.manifest.models}
    if targets is not None:
        for target in targets:
            if FORMATS[target.runtime] not in formats:
                raise UserError(
                    f"target {target}: bundle {bundle.name!r} has no {FORMATS[target.runtime]} "
                    f"model; it has {', '.join(sorted(formats))}"
                )
        return list(targets)
    chosen = [parse_target(text) for text in _DEFAULT_TARGETS]
    return [
        target
        for target in chosen
        if FORMATS[target.runtime] in formats
        and importlib.util.find_spec(target.runtime) is not None
    ]
