"""`sbom.cdx.json` of a bundle: what it holds and what runs it, as a CycloneDX bill of materials."""

import importlib.metadata
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kdas_edge.bundle.manifest import Manifest

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import LicenseExpression

# serial numbers of this project's bundles are derived from what they hold, below this name
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "sbom.kdas-edge")
_MODELS = (".xml", ".bin", ".onnx", ".safetensors")
_PACKAGE = "kdas-edge"


def bill_of_materials(manifest: Manifest) -> str:
    """Return the bill as CycloneDX 1.6 JSON.

    It names every file of the bundle with its SHA-256, and the packages of the device's install
    with the versions that were present where the bundle was written and tested. It is the same for
    the same files, packages and time of making.

    Args:
        manifest: with the records of all files but the bill's own.
    """
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    files = [_artefact(name, digest.sha256) for name, digest in sorted(manifest.files.items())]
    packages = [_package(name, version) for name, version in sorted(runtime_packages().items())]
    bundle = Component(
        name=manifest.name,
        version=manifest.provenance.code_version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="bundle",
        description=f"Polyp segmentation. {manifest.disclaimer}",
    )
    content = "".join(record.sha256 for _, record in sorted(manifest.files.items()))
    bom = Bom(
        components=[*files, *packages],
        serial_number=uuid.uuid5(_NAMESPACE, content),
        metadata=BomMetaData(
            component=bundle,
            timestamp=datetime.fromisoformat(manifest.provenance.created),
            properties=[
                Property(
                    name="kdas-edge:packages",
                    value="the device's install, in the versions present when the bundle was made",
                )
            ],
        ),
    )
    bom.register_dependency(bundle, [*files, *packages])
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def runtime_packages() -> dict[str, str]:
    """Name and version of every package that the base install brings, as installed here."""
    found: dict[str, str] = {}
    pending = [_PACKAGE]
    while pending:
        name = pending.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            # for example onnxruntime where onnxruntime-gpu stands in its place
            continue
        key = _normal(distribution.metadata["Name"])
        if key not in found:
            found[key] = distribution.version
            pending += _requirements(distribution)
    return found


def _requirements(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """Names that a package needs here, without its extras."""
    from packaging.requirements import Requirement

    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def _artefact(name: str, sha256: str) -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    path = PurePosixPath(name)
    kind = ComponentType.FILE
    if path.suffix in _MODELS:
        kind = ComponentType.MACHINE_LEARNING_MODEL
    elif path.parts[0] == "golden":
        kind = ComponentType.DATA
    return Component(
        name=name,
        type=kind,
        bom_ref=f"file:{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )


def _package(name: str, version: str) -> "Component":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"package:{name}",
        purl=PackageURL("pypi", None, name, version),
        licenses=_licenses(name),
    )


def _licenses(name: str) -> list["LicenseExpression"]:
    """The SPDX expression that a package states, if it states one."""
    from cyclonedx.model.license import LicenseExpression
    from cyclonedx.spdx import is_expression

    stated = importlib.metadata.metadata(name).get_all("License-Expression") or []
    return [LicenseExpression(text) for text in stated[:1] if is_expression(text)]


def _normal(name: str) -> str:
    """A package's name as registries compare it."""
    return name.lower().replace("_", "-").replace(".", "-")
