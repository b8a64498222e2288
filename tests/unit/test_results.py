"""What the README says is what the committed results say."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import shipped_student  # noqa: E402


def test_the_readmes_table_is_the_committed_benchmark() -> None:
    script = ROOT / "benchmarks" / "readme_table.py"
    answer = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_the_committed_results_name_no_folder_of_a_machine() -> None:
    for path in (ROOT / "benchmarks" / "results").rglob("*.json"):
        text = path.read_text()
        for folder in ("home", "root", "tmp", "Users"):
            assert f"/{folder}/" not in text, f"{path} names a folder below /{folder}"


def test_the_stages_of_the_shipped_student_are_what_their_recipes_say() -> None:
    earlier: set[str] = set()
    for stage in shipped_student.STAGES:
        stages = {stage.begins_from, stage.teacher, *stage.averages} - {None}
        assert {name for name in stages if not str(name).endswith(".safetensors")} <= earlier
        earlier.add(stage.name)
        if stage.resolved_recipe is None:
            assert len(stage.averages) == 2
            continue
        assert (ROOT / "recipes" / f"{stage.recipe}.yaml").is_file()
        recipe = yaml.safe_load(stage.resolved_recipe.read_text())
        start = recipe.get("student") or recipe["model"]["start"] or recipe["model"]["pretrained"]
        assert stage.begins_from == stage_of(start)
        assert stage.teacher == (stage_of(recipe["teacher"]) if recipe["teacher"] else None)


def stage_of(path: str) -> str:
    """The stage whose run or checkpoint a recipe names, or a file of pretrained weights."""
    found = Path(path)
    if found.name == "weights.safetensors":
        return found.parent.name
    return found.stem if found.name.startswith("student") else found.name


def test_tracked_files_stay_within_their_weight() -> None:
    listing = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("this is no git checkout")
    files = {name: ROOT / name for name in listing.stdout.split("\0") if name}
    sizes = {name: path.stat().st_size for name, path in files.items() if path.is_file()}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:5]
    assert sum(sizes.values()) <= 45e6, f"45 MB are the limit; the largest are {largest}"
    results = [name for name in sizes if name.startswith("benchmarks/results/")]
    folders = Counter(name.rpartition("/")[0] for name in results)
    assert len(results) <= 150, f"150 files are the limit; most are in {folders.most_common(3)}"
    bundle = [name for name in sizes if name.startswith("kdas_edge/shipped/student/")]
    largest = sorted(bundle, key=sizes.__getitem__, reverse=True)[:3]
    assert sum(sizes[name] for name in bundle) <= 17e6, f"17 MB; the largest are {largest}"
