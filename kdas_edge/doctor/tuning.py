"""What of a machine's settings changes a latency: clock, cores, quotas, pinning, load, caches.

Everything is read from `/sys` and `/proc`, nothing is changed.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdas_edge.doctor.findings import MachineFinding
from kdas_edge.environment import cpu_quota, home_folder

_SYSTEM = Path("/sys")
# set by a person to bind threads to cores; OpenVINO does that by itself
PINNING_VARIABLES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
# a compiled model is some tens of megabytes, and there is one per device and precision
_CACHE_BYTES = 500_000_000
_AREA = "measuring"


def tuning(described: dict[str, Any], system: Path = _SYSTEM) -> Iterator[MachineFinding]:
    """Findings about this machine's settings.

    Args:
        described: of `environment.describe`.
        system: root of sysfs; another folder for tests.
    """
    yield _governor(system)
    yield from _boost(system)
    yield _cores(described, system)
    yield from _quota(described["cpus_logical"], system)
    yield from _kinds_of_core(system)
    yield _pinning()
    yield _threads(described["thread_environment"])
    yield from _load(described)
    yield model_cache(cache_folder())


def _governor(system: Path) -> MachineFinding:
    what = "frequency governor"
    files = sorted(system.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    found = sorted({text for file in files if (text := _read(file))})
    if not found:
        return MachineFinding(_AREA, what, "not told (virtual machine or container)")
    if found == ["performance"]:
        return MachineFinding(_AREA, what, "performance")
    advice = "for steady latencies: cpupower frequency-set -g performance"
    return MachineFinding(_AREA, what, ", ".join(found), "note", advice)


def _boost(system: Path) -> Iterator[MachineFinding]:
    """Intel's driver tells that turbo is off, the others that boost is on."""
    cpus = system / "devices/system/cpu"
    off, on = _read(cpus / "intel_pstate/no_turbo"), _read(cpus / "cpufreq/boost")
    if off is None and on is None:
        return
    boosted = off == "0" if off is not None else on == "1"
    advice = "short runs may be faster than long ones: kdas-edge bench --minutes 10 shows it"
    yield MachineFinding(
        _AREA,
        "clock boost",
        "on" if boosted else "off",
        "note" if boosted else "ok",
        advice if boosted else "",
    )


def _cores(described: dict[str, Any], system: Path) -> MachineFinding:
    usable, logical = described["cpus_usable"], described["cpus_logical"] or 0
    cores = _physical_cores(system)
    found = f"{usable} of {logical} CPUs usable"
    if cores is not None:
        found += f", on {cores} cores"
    if usable < logical:
        advice = "the process is bound to some CPUs (taskset or a container); say so with results"
        return MachineFinding(_AREA, "CPU affinity", found, "note", advice)
    if cores is not None and cores < usable:
        advice = f"two threads share a core: threads={cores} is often as fast and steadier"
        return MachineFinding(_AREA, "CPU affinity", found, "note", advice)
    return MachineFinding(_AREA, "CPU affinity", found)


def _physical_cores(system: Path) -> int | None:
    """Cores that the process's CPUs lie on; None where the system does not tell."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    siblings = set()
    for folder in system.glob("devices/system/cpu/cpu[0-9]*"):
        text = _read(folder / "topology/thread_siblings_list")
        if text is not None and (usable is None or int(folder.name[3:]) in usable):
            siblings.add(text)
    return len(siblings) or None


def _quota(logical: int, system: Path) -> Iterator[MachineFinding]:
    """A container's share of time: a thread that has used it up stands still until the next."""
    cpus = cpu_quota(system / "fs/cgroup")
    if cpus is None:
        return
    advice = (
        "threads follow it, and it still stops inferences half-way: bind the container with "
        "--cpuset-cpus instead"
    )
    limited = cpus < logical
    yield MachineFinding(
        _AREA,
        "CPU quota",
        f"{cpus:g} CPUs",
        "note" if limited else "ok",
        advice if limited else "",
    )


def _kinds_of_core(system: Path) -> Iterator[MachineFinding]:
    fast, slow = (_read(system / f"devices/{name}/cpus") for name in ("cpu_core", "cpu_atom"))
    if fast and slow:
        advice = f"latencies depend on the core: taskset -c {fast} keeps to the fast ones"
        found = f"performance {fast}, efficiency {slow}"
        yield MachineFinding(_AREA, "kinds of core", found, "note", advice)


def _pinning() -> MachineFinding:
    found = [f"{name}={os.environ[name]}" for name in PINNING_VARIABLES if name in os.environ]
    if found:
        advice = "it binds ONNX Runtime's and torch's threads; processes side by side may collide"
        return MachineFinding(_AREA, "thread pinning", " ".join(found), "note", advice)
    text = "by the runtime (OpenVINO binds its threads, others leave it to the system)"
    return MachineFinding(_AREA, "thread pinning", text)


def _threads(variables: dict[str, str]) -> MachineFinding:
    if not variables:
        return MachineFinding(_AREA, "thread variables", "none set")
    found = " ".join(f"{name}={value}" for name, value in variables.items())
    advice = "they limit the runtimes beside the target's own option threads"
    return MachineFinding(_AREA, "thread variables", found, "note", advice)


def _load(described: dict[str, Any]) -> Iterator[MachineFinding]:
    load = described["load_average"]
    if load is None:
        return
    busy = load[0] > 0.5 * described["cpus_usable"]
    advice = "other work is running: compare ratios, not milliseconds" if busy else ""
    yield MachineFinding(_AREA, "load average", str(load[0]), "note" if busy else "ok", advice)


def cache_folder() -> Path:
    """Where a program of this user keeps what it can make again."""
    chosen = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if chosen:
        return Path(chosen)
    home = home_folder()
    return home / ".cache" if home is not None else Path(tempfile.gettempdir())


def model_cache(folder: Path) -> MachineFinding:
    """Can compiled models be kept there? A device that restarts often then loads faster."""
    what = "model cache"
    # findings are published, a user's name is not
    home = home_folder()
    inside = home is not None and folder.is_relative_to(home)
    shown = f"~/{folder.relative_to(home)}" if home is not None and inside else str(folder)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        advice = "set XDG_CACHE_HOME to a folder that can be written, or models compile every time"
        return MachineFinding(_AREA, what, f"{shown} cannot be written", "note", advice)
    free = shutil.disk_usage(existing).free
    found = f"{shown}, {free / 1e9:.1f} GB free"
    if free < _CACHE_BYTES:
        return MachineFinding(
            _AREA, what, found, "note", "make room: a compiled model takes tens of MB"
        )
    advice = "a host that starts often gives OpenVINO a folder there as CACHE_DIR"
    return MachineFinding(_AREA, what, found, "ok", advice)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
