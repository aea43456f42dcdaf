"""The plan of an image's study: set-ups at shares of its peak, and it without a limit, as cells of a swap study."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from acon_nb.errors import InvalidInput
from acon_nb.host.facts import memory_available_bytes
from acon_nb.study.plan import Level, Plan
from acon_nb.swap.image.archive import ImageArchive
from acon_nb.swap.image.observations import MeasuredProgram
from acon_nb.swap.image.question import ImageQuestion, available_of
from acon_nb.swap.image.running import Running
from acon_nb.swap.levels import whole_mib
from acon_nb.units import format_bytes

SETUPS = ("none", "disk", "zram-lz4", "zram-zstd", "zswap-zstd")
UNLIMITED = "unlimited"
_AMPLE = 1.5  # of the peak, without swap: nothing is reclaimed
_LEAST_MEMORY_BYTES = 64 << 20
_INSTRUMENT_BYTES = 2 << 20  # guest/src/swap-study has so much more available as it starts: swap_load takes it
# What a kernel keeps for each page of swap, used or not: 28 bytes or less (zram's table, swap_map, swap_cgroup)
_SWAP_TABLE_SHARE = 128
_MOST_SWAP = 2  # times the memory: the largest that a set-up has (chromeos)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One share that is asked about: as it was given, the bytes that are available to the program, and the memory of a
    guest in which they are."""

    at: str
    available_bytes: int
    memory_bytes: int


def places(question: ImageQuestion, program: MeasuredProgram) -> tuple[Place, ...]:
    """The shares that are asked about, and the one without a limit, which comes last.

    A driver's own peak comes on top of each: it stands for what is outside of the guest.
    """
    peak = program.peak_bytes
    rows = [_place(text, available_of(text, peak) + program.driver_peak_bytes, program) for text in question.at]
    return (*rows, _place(UNLIMITED, int(_AMPLE * peak) + program.driver_peak_bytes, program))


def _place(at: str, available: int, program: MeasuredProgram) -> Place:
    held = program.peak_bytes + program.driver_peak_bytes + program.image_bytes
    tables = max(held, _MOST_SWAP * (program.base_bytes + available)) // _SWAP_TABLE_SHARE
    # of the kernel's 64 bytes for each page frame the guest's memory has to hold its own
    memory = whole_mib((program.base_bytes + available + _INSTRUMENT_BYTES + tables) * 64 // 63)
    return Place(at=at, available_bytes=available, memory_bytes=max(_LEAST_MEMORY_BYTES, memory))


def plan_of(
    question: ImageQuestion, program: MeasuredProgram, running: Running, image: ImageArchive, *, room_bytes: int
) -> Plan:
    """The plan of a question about a measured image. Errors: `InvalidInput` where this host cannot give its guests."""
    cells: list[dict[str, Level]] = []
    held = program.peak_bytes + program.driver_peak_bytes + image.memory_bytes
    for place in places(question, program):
        levels: dict[str, Level] = {
            "memory": f"{place.memory_bytes >> 20}M",
            "available": str(place.available_bytes),
            "pressure": round(min(8.0, max(0.01, held / place.memory_bytes)), 3),
        }
        setups = ("none",) if place.at == UNLIMITED else setups_of(question)
        cells += [{"setup": name, **levels} for name in setups]
    needed = max(int(str(cell["memory"]).rstrip("M")) << 20 for cell in cells) + room_bytes
    if needed > memory_available_bytes():
        have = format_bytes(memory_available_bytes())
        hint = f"this host has {have} left: free some, or ask for a smaller share"
        raise InvalidInput("at", ",".join(question.at), f"needs guests of {format_bytes(needed)}", hint=hint)
    fixed: dict[str, Level] = {
        "workload": "program", "image": question.image, "program": shlex.join(running.argv), "data": "zero",
        "clock": question.clock, "kernel": question.kernel, "boot_room": str(room_bytes),
        "timeout_s": question.timeout_s,
    }  # fmt: skip
    fixed |= {"environment": shlex.join(question.environment)} if question.environment else {}
    fixed |= {"driver": shlex.join(question.driver), "ready": question.ready} if question.driver else {}
    fixed |= {"program_time": question.run_for} if question.run_for else {}
    baseline = {name: cells[-1][name] for name in ("setup", "available")}
    return Plan(name=question.name, study="swap", cells=cells, fixed=fixed, runs=question.seeds, baseline=baseline)


def setups_of(question: ImageQuestion) -> Sequence[str]:
    """The names of the set-ups that are compared."""
    return question.setups or SETUPS
