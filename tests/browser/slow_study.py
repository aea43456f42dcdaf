"""A study for the board's test: cells that take a moment each, one of which panics. No guest is booted."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from types import MappingProxyType

from acon_nb.results.store import Store
from acon_nb.study import host_lock
from acon_nb.study.plan import Plan
from acon_nb.study.runner import Measured, Study
from acon_nb.vm import Clock, End


class Slow:
    """Runs that wait; the cell memory=2G panics, and its console holds a line that looks like HTML."""

    kind = "boot"
    unbuilt = MappingProxyType({})

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def clock(self, _):
        return Clock.INSTRUCTIONS

    def prepare(self, **_):
        pass

    def identity(self, cell):
        return cell.label

    def run(self, cell, planned, cancel):
        until = time.monotonic() + self.seconds
        while time.monotonic() < until and not cancel.cancelled:
            time.sleep(0.02)
        console = self.folder / f"{cell.label}-{planned.block}.log"
        bad = cell.label == "memory=2G"
        console.write_text("Linux\r\n<b>no init found</b>\r\n" if bad else "Linux\r\nall is well\r\n")
        row = {"guest_ns_reset_to_init": 300_000_000 + len(cell.label), "memavailable_bytes": 400 << 20}
        return Measured(row=row, end=End.PANIC if bad else End.POWERED_OFF, console=console)


# A lock of its own: this study measures nothing, and must not wait for one that does.
host_lock._folder = lambda: Path(tempfile.gettempdir(), "acon-nb-test")
host_lock._folder().mkdir(exist_ok=True)


def study(runs: int = 3, seconds: float = 0.2) -> Study:
    plan = Plan(name="sizes", study="boot", factors={"memory": ["1G", "2G", "4G", "512M"]}, runs=runs)
    folder = Path(tempfile.mkdtemp(dir="."))
    return Study(plan=plan, experiment=Slow(folder, seconds), store=Store(Path("results")), parallel=2)
