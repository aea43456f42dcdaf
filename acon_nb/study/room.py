"""Refuses a study whose guests do not fit into this host's memory, before anything is built or started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from acon_nb import host
from acon_nb.errors import InvalidInput
from acon_nb.study.plan import PlanCell
from acon_nb.study.state import CellState
from acon_nb.units import format_bytes
from acon_nb.vm import Clock


@runtime_checkable
class Sized(Protocol):
    """An experiment that knows how much RAM its guests need."""

    def guest_bytes(self, cell: PlanCell) -> int:
        """Return the RAM of a guest of the cell, simulated disks included."""
        ...


@dataclass(frozen=True, kw_only=True)
class Guests:
    """The guests of a cell: how many runs it has, on which clock, and the RAM of each."""

    cell: PlanCell
    clock: Clock
    runs: int
    ram_bytes: int


def guests_of(experiment: Sized, cells: Sequence[PlanCell], states: Sequence[CellState]) -> list[Guests]:
    """Return the guests of the cells of a plan; the cells' states have their numbers of runs and their clocks."""
    return [
        Guests(cell=cell, clock=state.clock, runs=state.planned, ram_bytes=experiment.guest_bytes(cell))
        for cell, state in zip(cells, states, strict=True)
    ]


def check_room(cells: Sequence[Guests], parallel: int, available_bytes: int | None = None) -> None:
    """Check that the guests that may run at the same time fit into the available memory (default: this host's).

    On the wall clock that is one guest, on the instruction clock the `parallel` largest. Errors: `InvalidInput`.
    """
    free = host.memory_available_bytes() if available_bytes is None else available_bytes
    if not free:  # unknown
        return
    for clock, width in ((Clock.WALL, 1), (Clock.INSTRUCTIONS, parallel)):
        on_clock = sorted((one for one in cells if one.clock is clock and one.runs), key=lambda one: -one.ram_bytes)
        guests = [one for one in on_clock for _ in range(min(one.runs, width))][:width]
        needed = sum(one.ram_bytes for one in guests)
        if needed > free:
            raise _too_large(guests, needed, free)


def _too_large(guests: Sequence[Guests], needed: int, free: int) -> InvalidInput:
    largest = guests[0]
    count = len(guests)
    at_once = f" and {count} guests at a time, {format_bytes(needed)} in all" if count > 1 else ""
    why = f"needs {format_bytes(largest.ram_bytes)} of RAM for a guest of {largest.cell.label}{at_once}"
    fewer = ", or run fewer guests at a time (parallel)" if count > 1 and largest.ram_bytes <= free else ""
    hint = f"give less memory{fewer}; the RAM of a simulated disk counts too"
    what = f"{why}, and this host has {format_bytes(free)} available"
    return InvalidInput("memory", largest.cell.levels.get("memory", format_bytes(largest.ram_bytes)), what, hint=hint)
