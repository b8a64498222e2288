"""Resident memory of this process, where the operating system tells it."""

import os
from pathlib import Path

UNAVAILABLE = "resident memory is read from /proc, which this system has not"


def resident_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Memory of this process that lies in RAM now, in bytes; None where the system does not tell.

    Weights that a runtime maps from the file count as soon as they have been read.

    Args:
        status: a process's status file in the format of Linux.
    """
    return _field(status, "VmRSS")


def peak_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The largest `resident_bytes` that this process ever had."""
    return _field(status, "VmHWM")


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder, in bytes."""
    return sum(
        (Path(root) / name).stat().st_size for root, _, names in os.walk(folder) for name in names
    )


def _field(status: Path, name: str) -> int | None:
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])  # the kernel writes kB and means KiB
    return None
