"""A bundle's own checkpoint, exported twice more in fresh processes."""

import pytest
from tiny_student import train_tiny_student

from kdas_edge.evidence.materials import check_materials
from kdas_edge.evidence.reproduce import check_exports


@pytest.mark.slow
def test_two_new_exports_of_a_bundle_are_equal_byte_for_byte(tmp_path):
    from kdas_edge.bundle.reader import open_bundle
    from kdas_edge.export.writer import export_bundle

    checkpoint = train_tiny_student(steps=4).save(tmp_path / "student.safetensors")
    export_bundle(tmp_path / "bundle", checkpoint, presets=("core",), timing=False)
    bundle = open_bundle(tmp_path / "bundle")
    (materials,) = check_materials(bundle)
    assert materials.verdict == "pass", materials
    checks = {check.what: check for check in check_exports(bundle)}
    assert set(checks) == {
        f"{model.path}: export" for model in bundle.manifest.models if model.format != "torch"
    }
    assert all(check.verdict == "pass" for check in checks.values()), checks
    # and the same as this process wrote, with another hash seed
    assert all(check.observed == "equal, and as in the bundle" for check in checks.values()), checks
