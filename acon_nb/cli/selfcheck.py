"""`acon-nb bench selfcheck`: how often the tool raises a false alarm, or ranks what is equal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, out_option, print_json
from acon_nb.cli.bench import bench_group
from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acon_nb.analysis.selfcheck import SelfCheck


@bench_group.command("selfcheck")
@click.option("--real", is_flag=True, help="Run a plan of equal cells, on both clocks (slow).")
@click.option(
    "--plan",
    "plan_name",
    shell_complete=completion.plans,
    help="With --real: a plan whose factor copy has the levels a, b.  [default: copies]",
)
@click.option("--comparisons", type=int, help="How many.  [default: 1000; with --real 20 per clock]")
@click.option("--clock", type=click.Choice(["wall", "instructions"]), help="With --real: only this clock.")
@out_option
@click.option("--swap", is_flag=True, help="Simulate swap studies of equal choices: how often is one called better?")
@click.option("--seeds", help="With --swap: numbers of seeds.  [default: 3,4,5,8]")
@click.option("--choices", help="With --swap: numbers of choices.  [default: 2,5,8]")
@click.option("--situations", type=int, help="With --swap: situations of each study.  [default: 1]")
@click.option("--studies", type=int, help="With --swap: studies of each kind.  [default: 2000]")
@click.option("--cv", type=float, help="With --swap: the spread of a guest, as a share.  [default: 0.05]")
@click.option("--noise", help="With --swap: how guests scatter (docs/statistics.md).  [default: lognormal]")
@as_json_option
def bench_selfcheck(
    real: bool,
    plan_name: str | None,
    comparisons: int | None,
    clock: str | None,
    out: Path,
    swap: bool,
    seeds: str | None,
    choices: str | None,
    situations: int | None,
    studies: int | None,
    cv: float | None,
    noise: str | None,
    as_json: bool,
) -> None:
    """Compare equal cells, to measure how often the tool raises a false alarm (docs/statistics.md)."""
    of_swap = {
        "seeds": seeds, "choices": choices, "situations": situations, "studies": studies, "cv": cv, "noise": noise,
    }  # fmt: skip
    given = {name: value for name, value in of_swap.items() if value is not None}
    if comparisons is not None and comparisons < 1:
        raise InvalidInput("comparisons", comparisons, "is out of range", hint="1 or more")
    if not real and (plan_name or clock):
        raise click.UsageError("--plan and --clock need --real")
    if given and not swap:
        raise click.UsageError(f"--{next(iter(given))} needs --swap")
    if swap and (real or comparisons):
        raise click.UsageError("--real and --comparisons cannot be combined with --swap")
    passed = _rankings(given, as_json) if swap else _alarms(_checks(real, plan_name, comparisons, clock, out), as_json)
    if not passed:
        raise SystemExit(1)


def _checks(
    real: bool, plan_name: str | None, comparisons: int | None, clock: str | None, out: Path
) -> list[SelfCheck]:  # fmt: skip
    """The checks of boots: simulated, or real on each clock."""
    from acon_nb.analysis import selfcheck

    if not real:
        return [selfcheck.simulated(comparisons or 1000)]
    plan = plan_name or "copies"
    return [
        selfcheck.measured(out, name, comparisons or 20, plan_name=plan, on_progress=TextProgress())
        for name in ((clock,) if clock else ("wall", "instructions"))
    ]


def _alarms(checks: Sequence[SelfCheck], as_json: bool) -> bool:
    """Print the checks of boots; returns whether all passed."""
    passed = all(check.passed for check in checks)
    if as_json:
        print_json({"passed": passed, "checks": [check.as_dict() for check in checks]})
    else:
        for check in checks:
            click.echo(check.text())
    return passed


def _rankings(given: dict[str, Any], as_json: bool) -> bool:
    """Simulate swap studies of equal choices and print how many rank any; returns whether all passed."""
    from acon_nb.swap.analysis.null_studies import NullStudies, false_rankings

    counts: dict[str, Any] = {name: _numbers(name, given[name]) for name in ("seeds", "choices") if name in given}
    spec = NullStudies(**{**given, **counts})
    rankings = false_rankings(spec, on_progress=TextProgress())
    passed = all(one.passed for one in rankings)
    if as_json:
        records = [one.as_dict() for one in rankings]
        print_json({"false_rankings": records, "passed": passed, "simulated": dataclasses.asdict(spec)})
    else:
        for one in rankings:
            click.echo(one.text())
    return passed


def _numbers(field: str, text: str) -> tuple[int, ...]:
    """Whole numbers between commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(field, text, "is not a list of whole numbers", hint="such as 3,5,8") from error
