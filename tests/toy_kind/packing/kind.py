import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from acon_nb.study.kinds import StudyKind
from acon_nb.study.runner import Measured
from acon_nb.validation import Meta, check_fields
from acon_nb.vm import Clock, End


@dataclass(frozen=True, kw_only=True)
class PackingFactors:
    level: Annotated[int, Meta(ge=1, le=9)] = 6
    lines: Annotated[int, Meta(ge=1)] = 20_000
    copy: str = ""
    clock = Clock.WALL

    def __post_init__(self):
        check_fields(self)


class PackingExperiment:
    kind = "packing"

    def __init__(self, plan):
        self.unbuilt = {}
        self.cells = {setting.label: KIND.read(setting.levels) for setting in plan.all_cells}

    def clock(self, setting):
        return Clock.WALL

    def prepare(self, *, jobs, on_progress, cancel):
        self.version = gzip("--version").stdout

    def identity(self, setting):
        return f"{self.cells[setting.label]} {self.version}"

    def run(self, setting, turn, cancel):
        factors = self.cells[setting.label]
        text = "".join(f"{n} {n * n % 9973}\n" for n in range(factors.lines)).encode()
        started = time.perf_counter_ns()
        packed = gzip(f"-{factors.level}", text)
        row = {"pack_ns": time.perf_counter_ns() - started, "packing_ratio": len(text) / len(packed.stdout)}
        return Measured(row=row, end=End.POWERED_OFF, console=Path(), error=packed.stderr.decode())


def gzip(option, text=b""):
    return subprocess.run(["gzip", option], input=text, capture_output=True, check=True)


def sentences(rows):
    best = rows.loc[rows["packing_ratio"].idxmax()]
    return [f"{best['cell']} packs best: {best['packing_ratio']:.2f} times smaller."]


def plot_trade(rows):
    from matplotlib.figure import Figure

    axes = (figure := Figure()).add_subplot()
    axes.plot(rows["pack_ns"] / 1e6, rows["packing_ratio"], "o")
    axes.set(xlabel="time to pack / ms (wall clock)", ylabel="size over packed size", title=f"n = {len(rows)}")
    return figure


KIND = StudyKind(
    name="packing",
    factors=PackingFactors,
    experiment=PackingExperiment,
    measures=("pack_ns", "packing_ratio"),
    shown=("level", "lines"),
    alike=("lines", "level"),
    sentences=sentences,
    figures={"trade": "packing.kind:plot_trade"},
)
