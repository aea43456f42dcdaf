"""The tool's check of itself: comparisons of a cell with itself must not alarm, planted differences must be found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.analysis.compare import compare
from acon_nb.errors import InvalidInput
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.results.metrics import metric as metric_of
from acon_nb.results.select import usable
from acon_nb.stats.inference import most_false
from acon_nb.study.kinds import kind, study_of
from acon_nb.study.plan import load
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

LEAST_FOUND = 0.8
_METRIC = "made_up_ns"
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
        """No more false alarms than a level of 5 % explains (`most_false`), and at least 80 % of what was planted."""
        alarms_are_few = self.comparisons > 0 and self.alarms <= most_false(self.comparisons)
        return alarms_are_few and self.found >= LEAST_FOUND * self.planted

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "passed": self.passed}

    def text(self) -> str:
        """In words."""
        verdict = "passed" if self.passed else "FAILED"
        text = f"{verdict}: {self.alarms} false alarms in {self.comparisons} {self.kind} A/A comparisons"
        return f"{text}; {self.found} of {self.planted} planted differences found" if self.planted else text


def simulated(comparisons: int = 1000, planted: int = 40, *, seed: int = 1) -> SelfCheck:
    """The check on made-up runs of a noisy host: log-normal, outliers, blocks that drift (5, 10 and 20 runs a side).

    A planted difference is 15 % at a spread of 4 %, 20 runs a side.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    sizes = (5, 10, 20)
    alarms = sum(
        _alarms(noisy_pair(rng, sizes[number % 3], cv=0.02 * (1 + number % 4))) for number in range(comparisons)
    )
    seen = sum(_alarms(noisy_pair(rng, 20, cv=0.04, effect=0.15)) for _ in range(planted))
    return SelfCheck(kind="simulated", comparisons=comparisons, alarms=alarms, planted=planted, found=seen)


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


def measured(
    out: Path,
    clock: str,
    comparisons: int,
    *,
    plan_name: str = "copies",
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> SelfCheck:
    """Run a plan of copies on a clock and check its rows, which are kept in `out`; a stopped check resumes.

    The plan's factor `copy` has the levels a and b. A comparison is 5 blocks on the wall clock, the fewest that can be
    significant, and 2 on the instruction clock. Errors: those of the study.
    """
    blocks = _BLOCKS[Clock(clock)]
    plan = load(plan_name)
    known = kind(plan.study)
    chosen = {"clock": clock} if "clock" in {item.name for item in fields(known.factors)} else {}
    plan = replace(plan, name=f"{plan.name}-{clock}", fixed={**plan.fixed, **chosen}, runs=blocks * comparisons)
    if any(known.read(cell.levels).clock != clock for cell in plan.all_cells):
        raise InvalidInput("clock", clock, f"is not that of the plan {plan_name}", hint="take the other one")
    rows = study_of(plan, out).run(on_progress=on_progress, cancel=cancel)
    checked = real(rows, [known.measure_on(clock)], blocks_each=blocks)
    return replace(checked, kind=f"real {clock}")


def real(frame: pd.DataFrame, metrics: Sequence[str], *, blocks_each: int | None = None) -> SelfCheck:
    """The check on real runs: a plan whose factor `copy` has the levels a and b, which are the same cell.

    Each cell, clock, host class and measure is a comparison; with `blocks_each` each group of so many blocks is one.
    Every comparison is judged by itself, as a person would.
    """
    outcomes = [
        bool(compare(part, metric, factor="copy", baseline="a")["alarm"].any())
        for part in _parts(frame, blocks_each)
        for metric in metrics
        if metric in part and part[metric].notna().any() and metric_of(metric).clock in ("", str(part["clock"].iloc[0]))
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


def _alarms(frame: pd.DataFrame) -> bool:
    return bool(compare(frame, _METRIC, factor="copy", baseline="a")["alarm"].any())
