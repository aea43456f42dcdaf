"""What the package calls the functions behind the stored numbers: the one file to adapt when its API changes.

`quantities.py` takes everything from here. A function whose name or shape is another today gets a wrapper that gives
what it gave: tables with the columns that `quantities.py` asks for, codes for verdicts.
"""

# ruff: noqa: F401 (its names are for quantities.py)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from acon_nb.analysis import compare as cells
from acon_nb.analysis import explore as explorer
from acon_nb.analysis import history
from acon_nb.analysis.explore import View, explore
from acon_nb.analysis.explore import factors as explorer_factors
from acon_nb.analysis.explore import levels as explorer_levels
from acon_nb.analysis.history import changes_table, nights_table, shown_changes, verdict_table
from acon_nb.analysis.nightly import NightlySpec
from acon_nb.analysis.nightly import judge as judged_night
from acon_nb.analysis.selfcheck import real as checked_runs
from acon_nb.analysis.selfcheck import simulated as checked_made_up
from acon_nb.analysis.tables import failures, study_table
from acon_nb.boot.initcalls import call_table
from acon_nb.boot.initcalls import difference as initcall_difference
from acon_nb.boot.initcalls import sentences as initcall_sentences
from acon_nb.boot.initcalls import shown_table as shown_initcalls
from acon_nb.boot.kernel_cost import cost_table, steps_of
from acon_nb.boot.memory import memory_table
from acon_nb.boot.memory import sentences as memory_sentences
from acon_nb.boot.phases import phase_rows, phase_table
from acon_nb.boot.summary import boots as logged_boots
from acon_nb.boot.summary import comparison_sentences, whole_row
from acon_nb.boot.summary import findings as boot_findings
from acon_nb.boot.unpack import compared, unpack_table
from acon_nb.plots import figures_of as figures_of_analysis
from acon_nb.plots import (
    plot_boot,
    plot_cost,
    plot_guest,
    plot_initcall_difference,
    plot_initcalls,
    plot_memory,
    plot_memory_parts,
    plot_phases,
    plot_qemu_memory,
    plot_study,
    plot_trend,
    plot_unpack,
)
from acon_nb.results import load
from acon_nb.results.select import newest, usable
from acon_nb.stats import inference
from acon_nb.stats.breakeven import break_evens
from acon_nb.stats.comparison import Evidence, Verdict
from acon_nb.stats.inference import (
    cliffs_delta,
    holm,
    median,
    paired_test,
    ratio_of_medians,
    ratio_of_pairs,
    smallest_p,
    smallest_paired_p,
    spread,
    summarise,
)
from acon_nb.stats.inference import unpaired_test as permutation_test
from acon_nb.stats.pareto import front
from acon_nb.stats.steps import exact_steps, noisy_steps
from acon_nb.study.kinds import kind
from acon_nb.study.plan import Plan
from acon_nb.swap.analysis.answers import Answer
from acon_nb.swap.analysis.explanation import Explanation
from acon_nb.swap.analysis.guests import df_guest, df_latency
from acon_nb.swap.analysis.outcomes import GuestResult, failures_text
from acon_nb.swap.analysis.question import Question
from acon_nb.swap.analysis.rows import Counted, counted
from acon_nb.swap.analysis.study import ClockAnalysis, SwapAnalysis
from acon_nb.swap.tables import checks as swap_checks
from acon_nb.swap.tables import swap_table as swap_cells
from acon_nb.tour import boot_table as tour_boots
from acon_nb.tour import memory_table as tour_memory

_LEVEL = 0.01  # of a comparison of cells, when the numbers were stored; today's default is another


def code(word: object) -> str:
    """The code of how a guest ended."""
    return str(word).replace(" ", "_")


def night_code(verdict: str) -> str:
    """The verdict on a series of nights, or on a night, by the codes of then."""
    return _NIGHTS.get(verdict, verdict)


def compare(frame: pd.DataFrame, metric: str, *, alpha: float = _LEVEL, **asked: Any) -> pd.DataFrame:
    """Cells (or levels) compared with a baseline, at the level of then."""
    return with_codes_of_then(cells.compare(frame, metric, alpha=alpha, **asked))


def with_codes_of_then(table: pd.DataFrame) -> pd.DataFrame:
    """Comparisons with `then`: the verdict by the codes of then, when an exact difference had no direction."""
    pairs = zip(table["verdict"], table["evidence"], strict=True)
    return table.assign(then=[_cells_code(Verdict(verdict), Evidence(evidence)) for verdict, evidence in pairs])


def comparison_sentence(row: Mapping[str, Any]) -> str:
    """A comparison in words."""
    return cells.sentence(row)


def sure(verdict: Any, evidence: Any) -> str:
    """How sure a comparison of seeds is, by the codes of then: verdict and evidence were one."""
    return str(evidence) if Verdict(verdict).ranks else _SURE[Verdict(verdict)]


def required_runs(cv: float, effect: float, *, paired: bool) -> int:
    """The runs that find an effect, at the level of then."""
    return inference.required_runs(cv, effect, alpha=_LEVEL, paired=paired)


_SURE = {
    Verdict.NO_CHANGE: "small",
    Verdict.BELOW_MINIMUM: "small",
    Verdict.UNSURE: "cannot_tell",
    Verdict.TOO_FEW_SEEDS: "few_seeds",
    Verdict.NO_VALUES: "no_pairs",
}
_NIGHTS = {
    "worse": "regression",
    "better": "improvement",
    "below_minimum": "within",
    "no_change": "steady",
    "too_few_nights": "few_nights",
    "no_values": "no_value",
}
_CELLS = {
    Verdict.BELOW_MINIMUM: "below_the_minimum",
    Verdict.UNSURE: "cannot_tell",
    Verdict.NO_VALUES: "no_runs",
}


def _cells_code(verdict: Verdict, evidence: Evidence) -> str:
    if evidence is Evidence.EXACT and verdict is not Verdict.EQUAL:
        return "differs"
    return _CELLS.get(verdict, str(verdict))


def series_of(rows: pd.DataFrame, accepted: str = "") -> Sequence[Any]:
    """The series of the nights of boots, by the measures that are followed unless others are asked for."""
    return history.series_of(rows, kind("boot").followed, accepted=accepted)


def boot_plan(**fields: Any) -> Plan:
    """A plan of boots."""
    return Plan(study="boot", **fields)


def explorer_metrics(rows: pd.DataFrame, clock: str) -> set[str]:
    """The measures to choose from; a run's own duration has become one."""
    return set(explorer.metrics(rows, clock)) - {"seconds"}


def costs(folder: Path) -> pd.DataFrame:
    """The steps of groups of options; their rows were of a kind of their own, with names of their own."""
    table = load(folder, "kernel-cost")
    profiles = ["guide" if name == "guide" else "guide,delay-disk" for name in table["name"]]
    return steps_of(
        table.assign(
            factor_profile=profiles,
            kernel_release=table["release"],
            kernel_options_on=table["options_on"],
            kernel_bytes=table["bzimage_bytes"],
            kernel_linked_bytes=table["linked_bytes"],
            mem_pcp_bytes=table["spare_bytes"],
            guest_ns_reset_to_init=table["init_ns"],
        )
    )


def choices(found: Counted) -> list[str]:
    """The labels of a study's choices."""
    return sorted(map(str, found.choices))


def swap_frame(found: Counted) -> pd.DataFrame:
    """The rows that count, with the labels of their choices and whether their guests ended well."""
    frame = found.frame
    return frame.assign(choice=frame["choice"].map(str), is_well=frame["result"] == GuestResult.WELL)


def analysis(rows: pd.DataFrame, question: Question | None = None) -> ClockAnalysis:
    """The analysis of a study of one clock."""
    (clock,) = SwapAnalysis(rows, question or Question()).clocks
    return clock


def df_choices(found: ClockAnalysis) -> pd.DataFrame:
    """Every choice compared with the baseline, with `sure`; what is not compared had an effect size of 0."""
    table = found.choices.fillna({"cliffs_delta": 0.0})
    pairs = zip(table["verdict"], table["evidence"], strict=True)
    return table.assign(sure=[sure(*pair) for pair in pairs])


def df_pareto(found: ClockAnalysis) -> pd.DataFrame:
    """The Pareto front of a study, failures in words; no rows where the swap in use is not known."""
    if found.pareto is None:
        return pd.DataFrame()
    table = _with_failures(found.pareto)
    return table.rename(columns={"freed": "saved", "freed_low": "saved_low", "freed_high": "saved_high"})


def df_pressure(found: ClockAnalysis, axis: str) -> pd.DataFrame:
    """A study along an axis, failures in words."""
    return _with_failures(found.along[axis])


def df_breakeven(found: ClockAnalysis, axis: str) -> pd.DataFrame:
    """The break-evens along an axis."""
    return found.break_evens[axis]


def df_best(found: ClockAnalysis) -> pd.DataFrame:
    """The best choices by data and pressure."""
    table = found.best
    assert table is not None
    died = ["; ".join(f"{name}: {failures_text(ends, runs)}" for name, ends, runs in cell) for cell in table["died"]]
    pairs = zip(table["verdict"], table["evidence"], strict=True)
    tied = [max(0, len(names) - 1) for names in table["best"]]
    return table.assign(sure=[sure(*pair) for pair in pairs], died=died, tied=tied, behind=table["next"])


def df_effects(found: ClockAnalysis) -> pd.DataFrame:
    """What each factor of a study does."""
    table = found.effects
    pairs = zip(table["verdict"], table["evidence"], strict=True)
    return table.assign(sure=[sure(*pair) for pair in pairs], settings=table["combinations"])


def df_outcomes(found: ClockAnalysis) -> pd.DataFrame:
    """How the guests of a study ended."""
    table = _with_failures(found.outcomes)
    return table.rename(columns={"failures": "ends"})


def latencies(found: Counted, kind: str) -> pd.DataFrame:
    """The distributions of latencies, by the labels of choices."""
    table = df_latency(found, kind)
    return table.assign(choice=table["choice"].map(str))


def _with_failures(table: pd.DataFrame) -> pd.DataFrame:
    pairs = zip(table["failures"], table["runs"], strict=True)
    return table.assign(failures=[failures_text(ends, runs) for ends, runs in pairs])


def best_of(answer: Answer) -> dict[str, Any]:
    """The best choice of an answer by labels."""
    best = answer.best
    return {
        "names": [str(choice) for choice in best.choices], "sure": sure(best.verdict, best.evidence),
        "seeds": best.seeds, "value": best.value, "behind": str(best.next or ""),
        "died": [str(choice) for choice in best.died], "gap": best.gap and best.gap.ratio,
    }  # fmt: skip


def explain(rows: pd.DataFrame, question: Question | None) -> Sequence[Explanation]:
    """A study in sentences, of each clock."""
    return SwapAnalysis(rows, question or Question()).explanations


def clock_flips(rows: pd.DataFrame) -> Sequence[str]:
    """What both clocks say of the order."""
    return SwapAnalysis(rows).both_clocks


def figures_of(found: ClockAnalysis) -> dict[str, Figure]:
    """The figures of a study by name."""
    return figures_of_analysis(found)


def tables_of(found: ClockAnalysis) -> dict[str, pd.DataFrame]:
    """The tables of a study by name."""
    return found.tables


def names_in(value: Any) -> list[str]:
    """The choices that a column of a swap table names."""
    return list(value)


def unpacked(folder: Path) -> pd.DataFrame:
    """The compressors of an initrd; their rows were of a kind of their own, with names of their own."""
    table = load(folder, "unpack")
    return compared(
        table.assign(
            factor_initrd_compression=table["compression"].replace("none", ""),
            initrd_bytes=table["image_bytes"],
            initrd_archive_bytes=table["archive_bytes"],
            initrd_make_s=table["make_s"],
            guest_ns_reset_to_init=table["init_ns"],
        )
    )
