"""What the README says is what the committed results say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_readmes_table_is_the_committed_benchmark() -> None:
    script = ROOT / "benchmarks" / "readme_table.py"
    answer = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_the_committed_results_name_no_folder_of_a_machine() -> None:
    for path in (ROOT / "benchmarks" / "results").rglob("*.json"):
        text = path.read_text()
        for folder in ("home", "root", "tmp", "Users"):
            assert f"/{folder}/" not in text, f"{path} names a folder below /{folder}"
