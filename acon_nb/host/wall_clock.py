"""What of this host makes wall times unsteady: each fact with its value, why it matters, and what changes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class HostFact:
    """A fact of the host. `is_good` is None where it cannot be seen; `code` is what rows hold of a bad one."""

    code: str
    what: str
    value: str
    is_good: bool | None
    why: str
    fix: str


def wall_clock_facts(root: Path = Path("/")) -> list[HostFact]:
    """Look at this host (or at files below `root` in its place)."""
    checks: tuple[Callable[[Path], HostFact], ...] = (
        _virtual,
        _pinning,
        _governor,
        _turbo,
        _smt,
        _numa,
        _swap,
        _huge_pages,
        _ksm,
        _clocksource,
        _load,
    )
    return [check(root) for check in checks]


def warnings(root: Path = Path("/")) -> tuple[str, ...]:
    """The codes of the facts that are not good; the load aside, which a row has in numbers, and a guest adds to."""
    return tuple(fact.code for fact in wall_clock_facts(root) if fact.is_good is False and fact.code != "loaded")


def _virtual(root: Path) -> HostFact:
    flags = next((line for line in _read(root, "proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    is_virtual = "hypervisor" in flags.split()
    return HostFact(
        code="virtual_host",
        what="host",
        value="a virtual machine" if is_virtual else "no hypervisor" if flags else "",
        is_good=not is_virtual if flags else None,
        why="the time of a virtual machine is also its neighbours', and KVM in it is nested",
        fix="measure on a machine of its own",
    )


def _pinning(root: Path) -> HostFact:
    allowed, online = os.sched_getaffinity(0), _cpus(_read(root, "sys/devices/system/cpu/online"))
    is_pinned = bool(online) and len(allowed) < len(online)
    return HostFact(
        code="not_pinned",
        what="CPU pinning",
        value=f"{len(allowed)} of {len(online) or 'unknown'} CPUs allowed: {_ranges(allowed)}",
        is_good=is_pinned if online else None,
        why="a vCPU that moves between CPUs loses its caches, and shares them with whatever runs there",
        fix="taskset -c 2,3 acon-nb ... (QEMU inherits it), with isolcpus=2,3 on the host's command line",
    )


def _governor(root: Path) -> HostFact:
    paths = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    governors = sorted({path.read_text().strip() for path in paths})
    return HostFact(
        code="governor",
        what="frequency governor",
        value=", ".join(governors),
        is_good=governors == ["performance"] if governors else None,
        why="a clock rate that follows the load makes short runs slower than long ones",
        fix="cpupower frequency-set -g performance",
    )


def _turbo(root: Path) -> HostFact:
    intel, boost = _read(root, "sys/devices/system/cpu/intel_pstate/no_turbo"), ""
    if not intel:
        boost = _read(root, "sys/devices/system/cpu/cpufreq/boost")
    is_on = intel == "0" or boost == "1"
    name = "intel_pstate/no_turbo" if intel else "cpufreq/boost"
    return HostFact(
        code="turbo",
        what="turbo",
        value=f"{'on' if is_on else 'off'} ({name} = {intel or boost})" if intel or boost else "",
        is_good=not is_on if intel or boost else None,
        why="the rate above the nominal one depends on temperature and on what the other cores do",
        fix=f"echo {'1' if intel or not boost else '0'} > /sys/devices/system/cpu/{name}",
    )


def _smt(root: Path) -> HostFact:
    active = _read(root, "sys/devices/system/cpu/smt/active")
    return HostFact(
        code="smt",
        what="SMT",
        value={"1": "on", "0": "off"}.get(active, active),
        is_good=active == "0" if active else None,
        why="two threads of a core share its units: what runs on the other one changes a time by tens of per cent",
        fix="echo off > /sys/devices/system/cpu/smt/control, or pin to one thread of each core",
    )


def _numa(root: Path) -> HostFact:
    nodes = {path.name: _cpus(_read(path, "cpulist")) for path in root.glob("sys/devices/system/node/node[0-9]*")}
    allowed = os.sched_getaffinity(0)
    used = sorted(name for name, cpus in nodes.items() if cpus & allowed)
    return HostFact(
        code="numa",
        what="NUMA",
        value=f"{len(nodes)} nodes, {len(used)} of them allowed" if len(nodes) > 1 else "one node" if nodes else "",
        is_good=len(nodes) == 1 or len(used) == 1 if nodes else None,
        why="memory of another node is slower, and the kernel moves pages between nodes while a guest runs",
        fix="numactl --cpunodebind=0 --membind=0 acon-nb ...; echo 0 > /proc/sys/kernel/numa_balancing",
    )


def _swap(root: Path) -> HostFact:
    lines = _read(root, "proc/swaps").splitlines()
    swaps = [line.split()[0] for line in lines[1:] if line.split()]
    return HostFact(
        code="host_swap",
        what="host swap",
        value=", ".join(swaps) or ("none" if lines else ""),
        is_good=not swaps if lines else None,
        why="a host that swaps a guest's memory out adds its own faults to those of the guest",
        fix="swapoff -a",
    )


def _huge_pages(root: Path) -> HostFact:
    text = _read(root, "sys/kernel/mm/transparent_hugepage/enabled")
    chosen = next((word.strip("[]") for word in text.split() if word.startswith("[")), "")
    return HostFact(
        code="no_huge_pages",
        what="transparent huge pages",
        value=chosen,
        is_good=chosen != "never" if chosen else None,
        why="QEMU asks for huge pages for a guest's memory: without them its TLB misses cost twice",
        fix="echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; the same on all hosts that are compared",
    )


def _ksm(root: Path) -> HostFact:
    run = _read(root, "sys/kernel/mm/ksm/run")
    return HostFact(
        code="ksm",
        what="KSM",
        value={"0": "off", "1": "on"}.get(run, run),
        is_good=run != "1" if run else None,
        why="merging equal pages of guests takes CPU time, and makes their writes fault",
        fix="echo 0 > /sys/kernel/mm/ksm/run",
    )


def _clocksource(root: Path) -> HostFact:
    source = _read(root, "sys/devices/system/clocksource/clocksource0/current_clocksource")
    return HostFact(
        code="clocksource",
        what="clock source",
        value=source,
        is_good=source == "tsc" if source else None,
        why="reading another clock than the TSC takes microseconds, as long as what is timed",
        fix="find out why the kernel rejected the TSC: dmesg | grep -i tsc",
    )


def _load(root: Path) -> HostFact:
    text, cpus = _read(root, "proc/loadavg"), len(os.sched_getaffinity(0))
    load = float(text.split()[0]) if text else 0.0
    return HostFact(
        code="loaded",
        what="other load",
        value=f"{load:g} processes want a CPU (average of a minute), {cpus} CPUs" if text else "",
        is_good=load < 0.5 if text else None,
        why="whatever else runs takes CPUs, caches and memory bandwidth",
        fix="stop other programs, and wait a minute: ps -eo pcpu,args --sort=-pcpu | head",
    )


def _cpus(text: str) -> set[int]:
    """The CPUs of a list such as 0-3,8."""
    cpus: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus


def _ranges(cpus: set[int]) -> str:
    """A list of CPUs in the kernel's words."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][-1] == cpu - 1:
            parts[-1][1:] = [cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(map(str, part)) for part in parts)


def _read(root: Path, path: str) -> str:
    try:
        return (root / path).read_text().strip()
    except OSError:
        return ""
