"""Licence, notice, citation, guide, CI and lock files agree with the code and with each other."""

import hashlib
import json
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import kdas_edge

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# of the text as the Apache Software Foundation publishes it
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
LOCKS = ("base", "train", "dev")


def _names(requirements: list[str]) -> set[str]:
    return {Requirement(text).name.lower() for text in requirements} - {"kdas-edge"}


def test_the_licence_is_the_whole_apache_2_text():
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]


def test_the_notice_names_the_shipped_weights_and_their_terms():
    notice = (ROOT / "NOTICE").read_text()
    manifest = json.loads((ROOT / "kdas_edge/shipped/student/manifest.json").read_text())
    assert manifest["name"] in notice
    assert manifest["provenance"]["recipe"]["model"]["backbone"] in notice
    for data in ("Kvasir-SEG", "CVC-ClinicDB", "BKAI-IGH NeoPolyp", "ImageNet", "DUTS"):
        assert data in notice
    assert "WEIGHTS ARE FOR RESEARCH AND EVALUATION" in notice
    for recipe in re.findall(r"recipes/\w+\.yaml", notice):
        assert (ROOT / recipe).is_file()


def test_citation_and_changelog_know_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == kdas_edge.__version__ == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", kdas_edge.__version__]


def test_workflows_and_hooks_run_only_what_ci_and_the_makefile_define():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {".ci/run", *(f"make {target}" for target in targets.group(1).split())}
    commands = [
        step["run"]
        for path in (ROOT / ".github/workflows").glob("*.yml")
        for job in yaml.safe_load(path.read_text())["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [group["repo"] for group in hooks] == ["local"]
    commands += [hook["entry"] for group in hooks for hook in group["hooks"]]
    assert {".ci/run", "make dist", "make lint"} <= set(commands) <= known


def test_the_guide_names_paths_that_exist():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(
        r"`((?:kdas_edge|tests|benchmarks|docs|recipes|requirements)/[^`\s]*)`", guide
    )
    assert len(paths) >= 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_no_addresses_and_every_requirement(lock):
    text = (ROOT / f"requirements/{lock}.lock").read_text()
    assert "://" not in text
    pins = set(re.findall(r"^([\w.-]+)==\S+ \\$", text, re.MULTILINE))
    assert len(pins) == len(re.findall(r"^[\w.-]+[ =@]", text, re.MULTILINE))
    extras = PROJECT["optional-dependencies"]
    needed = _names(PROJECT["dependencies"])
    for extra in {"base": (), "train": ("report", "distill", "train"), "dev": tuple(extras)}[lock]:
        needed |= _names(extras[extra])
    assert needed <= pins


def test_every_dependency_is_imported_or_a_comment_says_who_needs_it():
    modules = set()
    for path in (ROOT / "kdas_edge").rglob("*.py"):
        modules |= set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.MULTILINE))
    owners = packages_distributions()
    imported = {name.lower() for module in modules for name in owners.get(module, ())}
    extras = PROJECT["optional-dependencies"]
    stated = [
        *PROJECT["dependencies"],
        *(r for name in extras if name != "dev" for r in extras[name]),
    ]
    text = (ROOT / "pyproject.toml").read_text()
    for name in _names(stated) - imported:
        line = re.search(rf'^\s+"{name}[>=\[].*$', text, re.MULTILINE | re.IGNORECASE)
        assert line and "#" in line[0], f"nothing imports {name}; say in a comment who needs it"
