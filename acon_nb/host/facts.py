"""Plain facts of the host: its CPU, memory, disks and versions, as they are recorded with every result."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import acon_nb


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The host at the time of a measurement. `load_1min` is the load average; `governor` "" where there is none."""

    host: str
    host_kernel: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int
    governor: str
    load_1min: float
    python_version: str
    acon_nb_version: str


def environment() -> Environment:
    """The host as it is now."""
    return Environment(
        host=platform.node(),
        host_kernel=platform.release(),
        cpu_model=_cpu_model(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        load_1min=os.getloadavg()[0],
        python_version=platform.python_version(),
        acon_nb_version=acon_nb.__version__,
    )


def boot_id() -> str:
    """The kernel's random id of this boot: findings about the host hold until it changes."""
    return _read(Path("/proc/sys/kernel/random/boot_id"))


def memory_available_bytes() -> int:
    """MemAvailable of the host."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def free_bytes(path: Path) -> int:
    """Free space on the disk of `path` (or of its nearest folder that exists)."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def pss_bytes(pid: int) -> int | None:
    """The proportional set size of a process (proc(5), smaps_rollup), or None when it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _cpu_model() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
