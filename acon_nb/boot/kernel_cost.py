"""What each group of options costs: a kernel for each step as the groups add up, booted once on the instruction clock.

The first step is the first group with what any guest here needs to report (a virtio console); each further step adds
one group. Its cost is the difference from the step before: bytes of bzImage, of the linked kernel, of memory that is
gone at `/init`, and instructions executed from reset to `/init`, apart from busy waiting and idle time. It is a study
of boots (the plan `kernel-cost`), so the builds are cached, and with a folder of results a step that is in it is not
measured again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from acon_nb import kernel, results
from acon_nb.boot.experiment import BootExperiment
from acon_nb.boot.factors import boot_factors
from acon_nb.boot.phases import PARTS
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.study.plan import Plan, load
from acon_nb.study.whole import run_plan

if TYPE_CHECKING:
    import pandas as pd

PLAN = "kernel-cost"
_COSTS = ("bzimage_bytes", "linked_bytes", "gone_bytes", "init_ns", *PARTS)


def default_groups() -> tuple[str, ...]:
    """The groups of the built-in plan, in the guide's order."""
    return tuple(str(load(PLAN).factors["profile"][-1]).split(","))


@dataclass(frozen=True, kw_only=True)
class CostSpec:
    """The groups in the order in which they add up, the source, and the guests' memory (a size with a unit)."""

    groups: tuple[str, ...] = field(default_factory=default_groups)
    source: str = "debian:6.12"
    memory: str = "512M"

    def __post_init__(self) -> None:
        known = kernel.groups()
        for group in self.groups:
            if group not in known:
                raise InvalidInput("groups", group, "is not a group", hint=f"some of {', '.join(known)}")
        if not self.groups:
            raise InvalidInput("groups", "", "names no group", hint=f"some of {', '.join(known)}")
        self.steps()

    def plan(self) -> Plan:
        """The built-in plan with these groups, source and memory: a cell a step."""
        plan = load(PLAN)
        profiles = [",".join(self.groups[: number + 1]) for number in range(len(self.groups))]
        fixed = {**plan.fixed, "source": self.source, "memory": self.memory}
        return replace(plan, factors={"profile": profiles}, fixed=fixed)

    def steps(self) -> tuple[kernel.BuildSpec, ...]:
        """The kernel of each step."""
        return tuple(boot_factors(row.levels).build_spec() for row in self.plan().all_cells)


def measure(
    spec: CostSpec,
    *,
    cache: Cache | None = None,
    out: results.Store | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> pd.DataFrame:
    """Build and boot each step; a row a step, as of `steps_of`. The rows of the boots are kept in `out`.

    A step that is in `out` is not measured again. Errors: those of `kernel.build` and of `run_plan`.
    """
    plan = spec.plan()
    experiment = BootExperiment(plan, cache=cache)
    return steps_of(run_plan(plan, experiment, out=out, on_progress=on_progress, cancel=cancel))


def steps_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a study of the plan `kernel-cost`, a step a row, with what each step has and adds.

    Columns: `name`, those of `measures` and of `added`, and the rows' own.
    """
    groups = [str(profiles).split(",")[-1] for profiles in rows["factor_profile"]]
    names = [f"+ {group}" if number else group for number, group in enumerate(groups)]
    return added(measures(rows).assign(name=names))


def measures(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of boots of kernels built here with what a kernel costs.

    Columns: `release`, `options_on`, bytes of the bzImage (`bzimage_bytes`), of the linked kernel (`linked_bytes`) and
    of memory gone at `/init` (`gone_bytes`), ns of the clock to `/init` (`init_ns`), its parts (`executed_ns`,
    `busy_waiting_ns`, `idle_ns`; not of rows that were not counted), and the rows' own. Gone is what is neither
    available (MemAvailable) nor free on the lists of each CPU (`spare_bytes`), where from 0 to 15 MiB lie by chance.
    """
    spare = rows["mem_pcp_bytes"].fillna(0) if "mem_pcp_bytes" in rows else 0  # MemAvailable leaves these pages out
    return rows.assign(
        release=rows["kernel_release"],
        options_on=rows["kernel_options_on"].fillna(0).astype(int),
        bzimage_bytes=rows["kernel_bytes"],
        linked_bytes=rows["kernel_linked_bytes"],
        spare_bytes=spare,
        gone_bytes=rows["memory_bytes"] - rows["memavailable_bytes"] - spare,
        init_ns=rows["guest_ns_reset_to_init"],
    )


def added(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps with what each adds to the one before (`added_bzimage_bytes`, ...; the first step adds itself)."""
    frame = steps.copy()
    for column in filter(frame.columns.__contains__, _COSTS):
        frame[f"added_{column}"] = frame[column].diff().fillna(frame[column])
    frame["added_options_on"] = frame["options_on"].diff().fillna(frame["options_on"]).astype(int)
    return frame


def cost_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The steps for people: what each has, and in brackets what it adds."""
    units = {
        "options_on": ("options on", 1, "{:.0f}", "{:+.0f}"),
        "bzimage_bytes": ("bzImage / KiB", 1024, "{:.0f}", "{:+.0f}"),
        "linked_bytes": ("linked objects / KiB", 1024, "{:.0f}", "{:+.0f}"),
        "gone_bytes": ("memory gone at /init / KiB", 1024, "{:.0f}", "{:+.0f}"),
        "executed_ns": ("10⁶ instructions to /init", 1e6, "{:.1f}", "{:+.1f}"),
        "busy_waiting_ns": ("busy waiting / ms", 1e6, "{:.1f}", "{:+.1f}"),
        "idle_ns": ("idle / ms", 1e6, "{:.1f}", "{:+.1f}"),
        "init_ns": ("clock at /init / ms", 1e6, "{:.1f}", "{:+.1f}"),
    }
    rows = []
    for number, row in enumerate(frame.to_dict("records")):
        cells = {"groups": row["name"]}
        for column, (label, scale, whole, difference) in units.items():
            if column not in frame:
                continue
            change = "" if not number else f" ({difference.format(row[f'added_{column}'] / scale)})"
            cells[label] = whole.format(row[column] / scale) + change
        rows.append(cells)
    return results.frame(rows)
