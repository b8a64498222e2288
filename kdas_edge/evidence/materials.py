"""The bill of materials agrees with the manifest: the same artefacts with the same hashes."""

import json
from collections.abc import Iterator

from kdas_edge.bundle.manifest import SBOM_NAME
from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import first_line
from kdas_edge.evidence.checks import Check


def check_materials(bundle: Bundle) -> Iterator[Check]:
    """Compare the hashes in `sbom.cdx.json` with the manifest; bundles of 1.0 have no such file."""
    what, expected = f"{SBOM_NAME}: artefacts", "the files of the manifest with their SHA-256"
    records = bundle.manifest.files
    if SBOM_NAME not in records:
        yield Check(what, expected, "the bundle has no bill of materials", "skipped")
        return
    try:
        content = json.loads(bundle.file(SBOM_NAME).read_text())
        found = {
            component["name"]: {item["alg"]: item["content"] for item in component["hashes"]}
            for component in content["components"]
            if component["type"] in ("machine-learning-model", "file", "data")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Check(what, expected, f"cannot be read: {first_line(error)}", "fail")
        return
    for name, record in records.items():
        if name != SBOM_NAME and found.get(name, {}).get("SHA-256") != record.sha256:
            observed = "another hash" if name in found else "not named"
            yield Check(what, expected, f"{name}: {observed}", "fail")
            return
    for name in found.keys() - records.keys():
        yield Check(what, expected, f"{name}: not in the manifest", "fail")
        return
    yield Check(what, expected, f"{len(found)} artefacts equal", "pass")
