"""Small scripts that showed a fault once; each must show the right line now.

They lie beside the data (`cases/` of KDAS_EDGE_SHARED, or of the folder above the images); a script
that is not there is skipped.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# script -> what each line must contain, as patterns; and what no line may contain, beside _NEVER
EXPECTED: dict[str, tuple[str, ...]] = {
    "output_file_kinds": (
        r"FIFO: exit 0, afterwards: fifo",
        r"link: exit 0, afterwards: symbolic link, its target still says: \{",
        r"process substitution: exit 0",
        r"--json -: exit 0, made a file named '-': *$",
    ),
    "names_not_utf8": (
        r"predict --json exit 0.*JSON: o\.json",
        r"predict --jsonl exit 0",
        r"eval exit 0",
        r"data check --json exit 0",
    ),
    "stdout_encoding": (
        *(rf"{name} eval: exit 0, JSON e\.json" for name in ("cp932", "latin-1", "cp437", "ascii")),
        r"bench --help: exit 0",
        r"data check: exit 0",
    ),
    "stdout_gone": (
        r"head -1: exit 0, masks 6 of 6, JSON o1\.json",
        r"doctor \| true: exit 0",
        r"stdout closed: exit 0, masks 6, JSON o2\.json",
        r"stdout full: exit 2, masks 6: error: cannot write the standard output",
    ),
    "no_home": (
        *(rf"{verb}.*: exit 0" for verb in ("predict i", "verify", "doctor", "bench")),
        r"predict with onnxruntime: exit 0",
        r"HOME=/nonexistent: exit 0",
    ),
    # 0 where the first had ended before the second looked; test_run_folder.py shows the refusal
    "run_twice": (r"second, --resume: exit [02]$", r"first: exit 0", r"^rows 16 .* twice: 0$"),
    "telemetry": (r"predict i\.jpg.*exit 0; network: 0? look-ups.*intel: *$",),
    "narrow_terminal": (r"│",),
    "recipe_values": (r"--name 007: exit 0", r"--data '2024': exit 0", r"seed=-1: exit 2: error"),
    "which_files": (r"a text file: exit 2: error",),
    "mask_names": (r"a \(images/7\.jpg, masks/7_mask\.png\)",),
    "masks_train": (r"data check exit",),
    "exif_orientation": (r"exif3: check exit",),
    "sample_range": (r"exit [02]",),
    "dicom_headers": (r"whole\.dcm",),
    "interlaced_video": (r"",),
}
# 1 is a fault of the package, 139 and 134 a crash, 124 a hang
_NEVER = re.compile(r"Traceback|exit (1|124|134|139)\b|lost|No such file|is a fault of kdas-edge")

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_script_shows_the_right_line(name: str, real_data: Path, tmp_path: Path) -> None:
    cases = Path(os.environ.get("KDAS_EDGE_SHARED", real_data.parent.parent)) / "cases"
    script = cases / f"{name}.sh"
    if not script.is_file():
        pytest.skip(f"{script} is not there")
    if name == "no_home" and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # the scripts look for python beside the command
    for command, arguments in (("kdas-edge", "-m kdas_edge "), ("python", "")):
        path = tmp_path / command
        path.write_text(
            f'#!/bin/bash\nPYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}} exec "{sys.executable}" '
            f'{arguments}"$@"\n'
        )
        path.chmod(0o755)
    tmp_path.chmod(0o755)
    environment = {**os.environ, "KDAS": str(tmp_path / "kdas-edge"), "DATA": str(real_data)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        ["bash", str(script)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    shown = done.stdout
    assert not _NEVER.search(shown), shown
    for pattern in EXPECTED[name]:
        assert re.search(pattern, shown, re.MULTILINE), f"{pattern} in:\n{shown}{done.stderr}"
