"""What each option of a kernel costs: it is built without each of them alone, and booted on the instruction clock.

The options that depend on one go with it, as Kconfig has it; what else they were asked for is not an error here. It is
a study of boots, so the builds are cached, and with a folder of results what is in it is not measured again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from acon_nb import kernel, results
from acon_nb.boot import kernel_cost
from acon_nb.boot.experiment import BootExperiment
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.kernel import dotconfig
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.study.kernels import BUILD
from acon_nb.study.plan import Plan, load
from acon_nb.study.whole import run_plan

if TYPE_CHECKING:
    import pandas as pd

NAME = "option-cost"
_COSTS = ("bzimage_bytes", "linked_bytes", "gone_bytes", "executed_ns")


@dataclass(frozen=True, kw_only=True)
class OptionCostSpec:
    """The kernel, its options to leave out one at a time (empty: all that its profiles turn on), the guests' memory."""

    profiles: tuple[str, ...] = ("guide",)
    options: tuple[str, ...] = ()
    source: str = "debian:6.12"
    memory: str = "512M"

    def __post_init__(self) -> None:
        kernel.requested_options(self.profiles, (0, 0))  # refuse unknown profiles


def measure(
    spec: OptionCostSpec,
    *,
    cache: Cache | None = None,
    out: results.Store | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> pd.DataFrame:
    """Build and boot the kernel with all options, and without each; a row an option, as of `costs_of`.

    Errors: those of `kernel.build` and of `run_plan`; `InvalidInput` for an option that the kernel does not have.
    """
    store = cache or Cache()
    plan = plan_of(spec, cache=store, on_progress=on_progress, cancel=cancel)
    experiment = BootExperiment(plan, cache=store)
    return costs_of(run_plan(plan, experiment, out=out, on_progress=on_progress, cancel=cancel))


def plan_of(
    spec: OptionCostSpec,
    *,
    cache: Cache,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Plan:
    """Build the kernel with all options, and make the plan: it, and a kernel from its .config without each option."""
    whole = kernel.BuildSpec(profiles=spec.profiles, source=spec.source)
    image = kernel.build(whole, cache=cache, on_progress=on_progress, cancel=cancel)
    values = dotconfig.read(image.config)
    for option in spec.options:
        if values.get(option) != "y":
            reason = f"is not on in the kernel of {','.join(spec.profiles)}"
            raise InvalidInput("options", option, reason, hint="name options without CONFIG_, separated by commas")
    chosen = spec.options or tuple(row.option for row in image.results if row.wanted == row.got == "y" and not row.rule)
    plan = load(kernel_cost.PLAN)
    table: dict[str, dict[str, Any]] = {
        option: {"config": str(image.config), "settings": f"{option}=n"} for option in chosen
    }
    fixed = {"clock": "instructions", "profile": ",".join(spec.profiles), "source": spec.source, "memory": spec.memory}
    return replace(plan, name=NAME, factors={"kernel": [BUILD, *table]}, fixed=fixed, kernels=table)


def costs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a study named `option-cost`: what is saved without each option, the largest saving first.

    Columns: `option`, `saved_bzimage_bytes`, `saved_linked_bytes`, `saved_gone_bytes`, `saved_executed_ns` (see
    `kernel_cost.measures`), `options_off` (with those that went with it). Kernels that did not boot are left out.
    """
    frame = kernel_cost.measures(rows)
    whole = frame[frame["factor_kernel"] == BUILD].iloc[0]
    without = frame[(frame["factor_kernel"] != BUILD) & frame["init_ns"].notna()]
    saved = without.assign(option=without["factor_kernel"], options_off=whole["options_on"] - without["options_on"])
    for column in _COSTS:
        saved[f"saved_{column}"] = whole[column] - without[column]
    columns = ["option", "options_off", *(f"saved_{column}" for column in _COSTS)]
    return saved.sort_values("saved_executed_ns", ascending=False)[columns].reset_index(drop=True)


def cost_table(costs: pd.DataFrame) -> pd.DataFrame:
    """The costs for people."""
    return results.frame(
        {
            "without": row["option"],
            "options off": row["options_off"],
            "10⁶ instructions to /init": f"{-row['saved_executed_ns'] / 1e6:+.2f}",
            "memory gone at /init / KiB": f"{-row['saved_gone_bytes'] / 1024:+.0f}",
            "bzImage / KiB": f"{-row['saved_bzimage_bytes'] / 1024:+.1f}",
            "linked objects / KiB": f"{-row['saved_linked_bytes'] / 1024:+.1f}",
        }
        for row in costs.to_dict("records")
    )
