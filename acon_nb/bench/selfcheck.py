"""The tool's check of itself: comparisons of a cell with itself must not alarm, planted differences must be found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.bench.compare import compare
from acon_nb.bench.experiments import study_of
from acon_nb.bench.metrics import metric_on
from acon_nb.bench.plan import load
from acon_nb.bench.rows import usable
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

MOST_FALSE_ALARMS = 0.05
LEAST_FOUND = 0.8
_METRIC = "host_ns_ready"
_BLOCKS = {Clock.WALL: 5, Clock.INSTRUCTIONS: 2}


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """How many A/A comparisons alarmed, and how many of the planted differences were found (0 of 0: none planted)."""

    kind: str
    comparisons: int
    alarms: int
    planted: int = 0
    found: int = 0

    @property
    def passed(self) -> bool:
        """Under 5 % false alarms, and at least 80 % of what was planted."""
        quiet = self.comparisons > 0 and self.alarms < MOST_FALSE_ALARMS * self.comparisons
        return quiet and self.found >= LEAST_FOUND * self.planted

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "passed": self.passed}

    def text(self) -> str:
        """In words."""
        verdict = "passed" if self.passed else "FAILED"
        text = f"{verdict}: {self.alarms} false alarms in {self.comparisons} {self.kind} A/A comparisons"
        return f"{text}; {self.found} of {self.planted} planted differences found" if self.planted else text


def simulated(comparisons: int = 200, planted: int = 40, *, seed: int = 1) -> SelfCheck:
    """The check on made-up runs of a noisy host: log-normal, outliers, blocks that drift (5, 10 and 20 runs a side).

    A planted difference is 15 % at a spread of 4 %, 20 runs a side.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    sizes = (5, 10, 20)
    alarms = sum(
        _alarms(noisy_pair(rng, sizes[number % 3], cv=0.02 * (1 + number % 4))) for number in range(comparisons)
    )
    found = sum(_alarms(noisy_pair(rng, 20, cv=0.04, effect=0.15)) for _ in range(planted))
    return SelfCheck(kind="simulated", comparisons=comparisons, alarms=alarms, planted=planted, found=found)


def noisy_pair(rng: Any, runs: int, *, cv: float, effect: float = 0.0, outliers: float = 0.1) -> pd.DataFrame:
    """Runs of two copies of a cell (`factor_copy` a, b) on a made-up host, for checks only, never a result.

    `cv` is the spread of a run, half of that the drift of a block, `outliers` the share of runs that a neighbour slows
    down, `effect` what copy b takes longer (all shares).
    """
    import numpy as np
    import pandas as pd

    block = np.repeat(np.arange(runs), 2)
    copy = np.tile(["a", "b"], runs)
    logs = rng.normal(0, cv, 2 * runs) + rng.normal(0, cv / 2, runs)[block]
    slowed = np.where(rng.random(2 * runs) < outliers, 1 + rng.exponential(0.4, 2 * runs), 1)
    values = 2e9 * np.exp(logs) * slowed * np.where(copy == "b", 1 + effect, 1)
    return pd.DataFrame({"clock": "wall", "factor_copy": copy, "block": block, _METRIC: values})


def booted(
    out: Path, clock: str, comparisons: int, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> SelfCheck:
    """Boot the plan `copies` on a clock and check its rows, which are kept in `out`; a stopped check goes on.

    A comparison is 5 blocks on the wall clock, the fewest that can be significant, and 2 on the instruction clock.
    Errors: those of the study.
    """
    blocks = _BLOCKS[Clock(clock)]
    plan = load("copies")
    plan = replace(plan, name=f"copies-{clock}", fixed={**plan.fixed, "clock": clock}, runs=blocks * comparisons)
    rows = study_of(plan, out).run(on_progress=on_progress, cancel=cancel)
    metric = "host_ns_init" if clock == Clock.WALL else "guest_ns_reset_to_init"
    found = real(rows, [metric], blocks_each=blocks)
    return replace(found, kind=f"real {clock}")


def real(frame: pd.DataFrame, metrics: Sequence[str], *, blocks_each: int | None = None) -> SelfCheck:
    """The check on real runs: a plan whose factor `copy` has the levels a and b, which are the same cell.

    Each cell, clock, host class and measure is a comparison; with `blocks_each` each group of so many blocks is one.
    Every comparison is judged by itself, as a person would.
    """
    outcomes = [
        bool(compare(part, metric, factor="copy", baseline="a")["alarm"].any())
        for part in _parts(frame, blocks_each)
        for metric in metrics
        if metric in part and part[metric].notna().any() and _exists(metric, str(part["clock"].iloc[0]))
    ]
    return SelfCheck(kind="real", comparisons=len(outcomes), alarms=sum(outcomes))


def _parts(frame: pd.DataFrame, blocks_each: int | None) -> Iterator[pd.DataFrame]:
    kept, _ = usable(frame)
    others = [name for name in map(str, kept) if name.startswith("factor_") and name != "factor_copy"]
    keys = [name for name in ("clock", "host_class", "session", *others) if name in kept and kept[name].nunique() > 1]
    parts = [part for _, part in kept.groupby(keys, dropna=False, sort=False)] if keys else [kept]
    for part in parts:
        if part["factor_copy"].nunique() == 2:
            if blocks_each is None:
                yield part
            else:
                group = part["block"].rank(method="dense").sub(1) // blocks_each
                yield from (rows for _, rows in part.groupby(group) if rows["block"].nunique() == blocks_each)


def _exists(metric: str, clock: str) -> bool:
    found = metric_on(metric, Clock.WALL if metric.startswith("host_ns_") else clock)
    return not (found.wall_only and clock != Clock.WALL)


def _alarms(frame: pd.DataFrame) -> bool:
    return bool(compare(frame, _METRIC, factor="copy", baseline="a")["alarm"].any())
