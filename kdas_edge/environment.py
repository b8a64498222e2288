"""The machine behind a number: processor, features, packages, threads, load. Imports no runtime."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdas_edge import __version__

# packages that decide a latency or an accuracy
PACKAGES = (
    "kdas-edge",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "torchvision",
    "timm",
    "nncf",
    "torchao",
    "lightning-fabric",
    "safetensors",
    "onnx",
)
# feature -> the flag words of /proc/cpuinfo that mean it (x86, Arm)
CPU_FEATURES = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx_int8": ("amx_int8",),
    "amx_bf16": ("amx_bf16",),
    "avx512_bf16": ("avx512_bf16",),
    "arm_fp16": ("asimdhp",),
    "arm_dotprod": ("asimddp",),
    "arm_i8mm": ("i8mm",),
    "arm_bf16": ("bf16",),
}
# how OpenMP's threads wait, where the user has not said: asleep
PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "TBB_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def let_threads_sleep() -> None:
    """Let OpenMP's threads wait asleep instead of spinning, unless the environment says how.

    Beside another busy process, threads that spin keep the processor from those that they wait
    for: a training is then 20 times slower. It counts where OpenMP is loaded afterwards, that is
    before the first import of torch; later it changes nothing.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return
    os.environ.update(PASSIVE_WAITING)


def describe() -> dict[str, Any]:
    """Describe this machine and process for a result file.

    Returns:
        A JSON object; what the operating system does not tell is None. It holds no user name and
        no host name, so that a result can be published.
    """
    return {
        "code_version": code_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cpus_logical": os.cpu_count(),
        "cpus_usable": usable_cpus(),
        "memory_gib": _memory_gib(),
        "governor": governor(),
        "load_average": load_average(),
        "thread_environment": thread_environment(),
        "packages": packages(),
    }


def code_version() -> str:
    """Return the version, with the git commit when the package is a checkout."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return __version__
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{answer.stdout.strip()}"


def packages() -> dict[str, str]:
    """Versions of the installed packages among `PACKAGES`, from their metadata, unimported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's own name, or the architecture where the system does not tell."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_features(lines: list[str] | None = None) -> dict[str, bool | None]:
    """Features that decide the speed of int8 and bf16; None where the system does not tell.

    Args:
        lines: of a `/proc/cpuinfo`; this machine's by default.
    """
    words: set[str] = set()
    for line in _cpuinfo() if lines is None else lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            words.update(value.split())
    return {
        name: bool(words.intersection(flags)) if words else None
        for name, flags in CPU_FEATURES.items()
    }


def usable_cpus() -> int:
    """CPUs that this process may keep busy: what it is bound to, and no more than its quota."""
    quota = cpu_quota()
    bound = _bound_cpus()
    return bound if quota is None else max(1, min(bound, int(quota)))


def thread_limit() -> int | None:
    """Threads for a runtime that would start one per core although a quota pays for fewer.

    Returns:
        None where no quota is below the CPUs that this process is bound to: then the runtime's own
        choice is the better one.
    """
    usable = usable_cpus()
    return usable if usable < _bound_cpus() else None


def cpu_quota(
    mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Share of time that a control group grants this process, in CPUs; None: no limit.

    A thread that has used up the share stands still until the next period. Read are version 2
    (`cpu.max`) and version 1 (`cpu.cfs_quota_us`), of the process's group and those above it.

    Args:
        mount: where control groups are mounted.
        membership: the process's `cgroup` file.
    """
    roots = {"": mount}
    roots |= {name: mount / name for name in ("cpu", "cpu,cpuacct", "cpuacct,cpu", "unified")}
    groups = [("/", root) for root in roots.values()]
    for line in (_read(str(membership)) or "").splitlines():
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            groups += [(group, roots[""]), (group, roots["unified"])]
        elif "cpu" in controllers.split(","):
            groups += [(group, mount / controllers), (group, roots["cpu"])]
    found = []
    for group, root in groups:
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            found.append(_quota_of(root.joinpath(*parts[:depth])))
    return min((quota for quota in found if quota is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    quota, _, period = (_read(str(folder / "cpu.max")) or "").partition(" ")
    if not quota:
        quota = _read(str(folder / "cpu.cfs_quota_us")) or ""
        period = _read(str(folder / "cpu.cfs_period_us")) or ""
    if not (quota.isdigit() and period.isdigit() and int(period) and int(quota)):
        return None  # "max", -1, or no such group
    return int(quota) / int(period)


def _bound_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def home_folder() -> Path | None:
    """The user's home; None without HOME and without an entry in the list of users."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def governor() -> str | None:
    """The frequency governor of the first CPU, e.g. `performance`; None where there is none."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def load_average() -> list[float] | None:
    """Runnable processes over 1, 5 and 15 minutes; above the number of CPUs, latencies suffer."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (OSError, AttributeError):
        return None


def thread_environment() -> dict[str, str]:
    """The environment variables that change how many threads a runtime uses, as they are set."""
    return {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}


def free_memory() -> int | None:
    """Bytes that this process may still take: of the machine and of its control group."""
    found = []
    for line in (_read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        most, now = _read(limit) or "", _read(used) or ""
        if most.isdigit() and now.isdigit():
            found.append(max(0, int(most) - int(now)))
    return min(found) if found else None


def _memory_gib() -> float | None:
    for line in (_read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / 2**20, 1)
    return None


def _cpuinfo() -> list[str]:
    return (_read("/proc/cpuinfo") or "").splitlines()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
