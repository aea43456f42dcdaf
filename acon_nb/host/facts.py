"""Reads facts about the host (CPU, memory, disks, versions), which are recorded with every result."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import acon_nb
from acon_nb.host import wall_clock

_PACKAGES = ("numpy", "scipy", "pandas", "pyarrow", "matplotlib", "qemu.qmp", "papermill")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The host at the time of a measurement, as firecracker's tests record it.

    `load_1min` is the load average; `governor`, `microcode`, `smt` and `clocksource` are "" if not available;
    `packages` lists the versions of the libraries that compute the results, one per line; `host_warnings` the codes of
    what makes wall times unsteady here (`wall_clock`), one per line.
    """

    host: str
    host_kernel: str
    host_distribution: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int
    governor: str
    microcode: str
    smt: str
    clocksource: str
    load_1min: float
    python_version: str
    acon_nb_version: str
    packages: str
    host_warnings: str = ""

    @property
    def host_class(self) -> str:
        """The class of hosts whose wall times may be compared: CPU model, number of CPUs, memory in GiB."""
        return f"{self.cpu_model}, {self.cpu_count} CPUs, {round(self.memory_bytes / (1 << 30))} GiB"


def environment() -> Environment:
    """Record the host as it is now."""
    return Environment(
        host=platform.node(),
        host_kernel=platform.release(),
        host_distribution=_distribution(),
        cpu_model=_cpuinfo("model name") or platform.machine(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        microcode=_cpuinfo("microcode"),
        smt=_read(Path("/sys/devices/system/cpu/smt/control")),
        clocksource=_read(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        load_1min=os.getloadavg()[0],
        python_version=platform.python_version(),
        acon_nb_version=acon_nb.__version__,
        packages=_packages(),
        host_warnings="\n".join(wall_clock.warnings()),
    )


def boot_id() -> str:
    """Return the kernel's random id of this boot: findings about the host are valid until it changes."""
    return _read(Path("/proc/sys/kernel/random/boot_id"))


def memory_available_bytes() -> int:
    """Return MemAvailable of the host in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of `path` (or of its nearest parent that exists)."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@cache
def _cpuinfo(name: str) -> str:
    """Return a field of the first CPU in /proc/cpuinfo, or ""."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


@cache
def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


@cache
def _packages() -> str:
    versions = []
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    return "\n".join(versions)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def wanted_cpu_ns(pid: int | None) -> int:
    """Return the time that a process' threads spent on CPUs, or waited for one; 0 if there is none.

    Unlike the time on CPUs it tells an idle process from one that the host's other work leaves no CPU for. Source:
    Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat.
    """
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            on_cpu, waiting, *_ = path.read_text().split()
        except (OSError, ValueError):
            continue
        total += int(on_cpu) + int(waiting)
    return total
