"""Answers of a swap study, from made-up rows whose answers are known."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.stats import ttest_1samp

from acon_nb import plots, results
from acon_nb.cli import main
from acon_nb.errors import InvalidInput, ResultsError
from acon_nb.plots.swap.style import styles_of
from acon_nb.results.older import SCHEMA
from acon_nb.stats.breakeven import PointKind, break_evens
from acon_nb.stats.comparison import Evidence, Method, Verdict
from acon_nb.stats.pareto import front
from acon_nb.stats.seeds import compare_seeds, interval_text, judge_seeds, verdict_text
from acon_nb.swap.analysis import tables
from acon_nb.swap.analysis.best import best_of
from acon_nb.swap.analysis.choices import Choice, unranked, unranked_levels
from acon_nb.swap.analysis.guests import df_guest, df_latency, histogram_of, samples_of
from acon_nb.swap.analysis.outcomes import GuestResult, result_of
from acon_nb.swap.analysis.question import Question
from acon_nb.swap.analysis.rows import counted
from acon_nb.swap.analysis.study import SwapAnalysis
from acon_nb.swap.analysis.tables import df_best, df_breakeven, df_choices, df_effects, df_pareto
from acon_nb.swap.tables import checks

# Throughput is exp(height - slope * pressure): the logarithm of a ratio is a line, and a break-even can be computed.
CURVES = {
    "disk": (9.0, 0.5),
    "zram:lz4": (12.0, 1.5),
    "zram:zstd": (10.4, 0.8),
    "zswap:lz4": (11.5, 1.4),
    "zswap:zstd": (10.2, 0.6),
}
POOL = {"zram:lz4": 40, "zram:zstd": 25, "zswap:lz4": 20, "zswap:zstd": 20}  # of the swap's 100 MiB
PRESSURES = (1.0, 1.5, 2.0, 2.5, 3.0)


def row_of(swap: str, pressure: float, seed: int, **more: Any) -> dict[str, Any]:
    kind, _, compressor = swap.partition(":")
    return {
        "run_id": f"{swap}-{pressure}-{seed}",
        "kind": "swap",
        "clock": "instructions",
        "end": "powered_off",
        "error": "",
        "host_fault": "",
        "warmup": False,
        "host_class": "h",
        "seed": seed,
        "cell": swap,
        "configuration": swap.replace(":", " "),
        "factor_swap": kind,
        "factor_compressor": compressor,
        "factor_encryption": "none",
        "factor_pressure": pressure,
        "factor_data": "mix",
        "factor_workload": "tmpfs",
        "factor_copy": "",
        "factor_disk_latency": "80us",
        **more,
    }


def study(
    swaps: dict[str, tuple[float, float]] = CURVES,
    pressures: tuple[float, ...] = PRESSURES,
    seeds: int = 6,
    noise: float = 0.03,
    dies: dict[str, float] | None = None,
    **more: Any,
) -> pd.DataFrame:
    """Rows with noise that all choices of a seed share, and a little of their own; `dies`: out of memory from there."""
    rng = np.random.default_rng(7)
    rows = []
    for seed in range(1, seeds + 1):
        shared = rng.normal(0, noise)
        for pressure in pressures:
            for swap, (height, slope) in swaps.items():
                own = rng.normal(0, noise / 3)
                speed = math.exp(height - slope * pressure + shared + own)
                sizes = {"swap_used_bytes": 100 << 20, "pool_bytes": POOL.get(swap, 0) << 20}
                row = row_of(swap, pressure, seed, access_ops_per_s=speed, **sizes, **more)
                if pressure >= (dies or {}).get(swap, math.inf):
                    row |= {"end": "out_of_memory", "access_ops_per_s": speed * 5, "error": "killed"}
                rows.append(row)
    return pd.DataFrame(rows)


def crossing(first: str, second: str) -> float:
    (a, b), (c, d) = CURVES[first], CURVES[second]
    return (a - c) / (b - d)


def explain(rows: pd.DataFrame, question: Question | None = None) -> Any:
    return SwapAnalysis(rows, question or Question()).explanations


# Pairs of seeds


def compared(baseline: Any, other: Any, *, more_is_better: bool) -> Any:
    return compare_seeds(baseline, other, more_is_better=more_is_better, minimum_effect=0.05)


def test_a_ratio_is_paired_by_seed_so_that_what_seeds_share_does_not_count() -> None:
    rng = np.random.default_rng(3)
    first = {seed: float(np.exp(rng.normal(0, 1))) for seed in range(8)}
    second = {seed: 2 * value for seed, value in first.items()}
    said = compared(first, second, more_is_better=True)
    told = said.with_interval()
    assert (told.ratio, told.ratio_low, told.ratio_high) == pytest.approx((2, 2, 2))
    (result,) = judge_seeds([said])
    assert (result.pairs, result.method, result.p) == (8, Method.PAIRED_T, pytest.approx(0))
    assert (result.verdict, result.evidence) == (Verdict.BETTER, Evidence.TESTED)
    assert interval_text(result) == "2.00 times [2.00, 2.00] (bootstrap 95 %, 8 seeds)"


def test_a_guest_that_ended_badly_counts_as_the_worst_and_has_no_ratio() -> None:
    well = {seed: 10.0 + seed for seed in range(6)}
    died = dict.fromkeys(range(6))
    said = judge_seeds([compared(well, died, more_is_better=True)])[0]
    assert (said.ratio, said.failed, said.cliffs_delta) == (None, 6, -1)
    assert (said.verdict, said.evidence) == (Verdict.WORSE, Evidence.TESTED)
    assert compared(well, died, more_is_better=False).cliffs_delta == 1, "of a latency the worst is the largest"
    half = {seed: (None if seed < 2 else 20.0 + seed) for seed in range(6)}
    said = compared(well, half, more_is_better=True)
    assert (said.pairs, said.failed) == (4, 2)
    assert said.ratio == pytest.approx(np.median([(20 + seed) / (10 + seed) for seed in range(2, 6)]))
    assert -1 < said.cliffs_delta < 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)), min_size=3, max_size=9),
    st.floats(0.001, 1000),
)
def test_the_test_of_seeds_is_students_on_the_logarithms_whatever_the_unit(pairs: Any, unit: float) -> None:
    first = {seed: unit * a for seed, (a, _) in enumerate(pairs)}
    second = {seed: unit * b for seed, (_, b) in enumerate(pairs)}
    (said,) = judge_seeds([compared(first, second, more_is_better=True)])
    logs = [math.log(b / a) for a, b in pairs]
    if np.std(logs) < 1e-9:
        return
    assert said.p == pytest.approx(ttest_1samp(logs, 0).pvalue, abs=1e-6)
    (turned,) = judge_seeds([compared(second, first, more_is_better=True)])
    assert turned.p == pytest.approx(said.p, abs=1e-6)
    if said.verdict.ranks and turned.verdict.ranks:  # a minimum effect of 5 % is not the same from both sides
        assert {said.verdict, turned.verdict} == {Verdict.BETTER, Verdict.WORSE}


def test_from_three_seeds_a_large_difference_ranks_and_fewer_rank_nothing() -> None:
    said = judge_seeds([compared({1: 1.0, 2: 1.1, 3: 0.9}, {1: 4.0, 2: 4.4, 3: 3.8}, more_is_better=True)])[0]
    assert (said.verdict, said.evidence) == (Verdict.BETTER, Evidence.TESTED)
    assert "after Holm, paired t test of the log ratios of the seeds)" in verdict_text(said)
    assert interval_text(said) == "4.00 times [4.00, 4.22] (range of 3 seeds)"
    one = judge_seeds([compared({1: 1.0}, {1: 4.0}, more_is_better=True)])[0]
    assert (one.verdict, interval_text(one)) == (Verdict.TOO_FEW_SEEDS, "4.00 times (1 seed)")
    two = judge_seeds([compared({1: 1.0, 2: 1.0}, {1: 4.0, 2: 4.0}, more_is_better=True)])[0]
    assert two.verdict is Verdict.TOO_FEW_SEEDS, "two that agree say nothing"
    assert verdict_text(two) == "too few seeds to rank: 2, and 3 are needed"
    mixed = judge_seeds([compared({1: 1.0, 2: 1.0, 3: 1.0}, {1: 2.0, 2: 0.5, 3: 2.0}, more_is_better=True)])[0]
    assert not mixed.verdict.ranks


def test_three_seeds_that_all_go_one_way_are_not_enough_for_a_small_difference() -> None:
    base, other = {1: 100.0, 2: 104.0, 3: 97.0}, {1: 106.0, 2: 115.0, 3: 99.0}
    said = judge_seeds([compared(base, other, more_is_better=True)])[0]
    assert said.verdict is Verdict.UNSURE
    assert said.p == pytest.approx(ttest_1samp([math.log(other[s] / base[s]) for s in base], 0).pvalue)


def test_the_spread_of_three_or_four_seeds_is_that_of_the_other_pairs_too() -> None:
    agreed = compared({1: 100.0, 2: 101.0, 3: 99.0}, {1: 110.0, 2: 111.2, 3: 108.8}, more_is_better=True)
    wide = compared({1: 100.0, 2: 101.0, 3: 99.0}, {1: 90.0, 2: 110.0, 3: 101.0}, more_is_better=True)
    assert judge_seeds([agreed])[0].verdict is Verdict.BETTER
    assert judge_seeds([agreed, wide, wide])[0].verdict is Verdict.UNSURE


def test_what_few_seeds_can_never_show_does_not_count_among_the_comparisons() -> None:
    well, died = {1: 10.0, 2: 10.2, 3: 9.9}, dict.fromkeys((1, 2, 3))
    fast = {1: 30.0, 2: 30.5, 3: 29.9}
    said = judge_seeds([compared(well, one, more_is_better=True) for one in (fast, died, died)])
    assert [one.family for one in said] == [1, 1, 1]
    assert [one.verdict for one in said] == [Verdict.BETTER, Verdict.UNSURE, Verdict.UNSURE]
    assert verdict_text(said[1]) == "undecided: 3 seeds cannot show such a difference"


def test_equals_are_too_small_to_matter_and_no_seed_is_no_pair() -> None:
    same = dict.fromkeys(range(5), 5.0)
    assert judge_seeds([compared(same, same, more_is_better=True)])[0].verdict is Verdict.NO_CHANGE
    assert judge_seeds([compared({}, same, more_is_better=True)])[0].verdict is Verdict.NO_VALUES
    with pytest.raises(ValueError, match="positive"):
        compared(same, {1: 0.0}, more_is_better=True)


def test_p_of_many_comparisons_are_adjusted_together() -> None:
    near = [({s: 10 + s % 2 for s in range(8)}, {s: 10.8 + s % 3 for s in range(8)})] * 20
    alone = judge_seeds([compared(a, b, more_is_better=True) for a, b in near[:1]])[0]
    many = judge_seeds([compared(a, b, more_is_better=True) for a, b in near])[0]
    assert alone.p == many.p == alone.p_holm
    assert many.p_holm == pytest.approx(min(1, 20 * (alone.p or 0)))
    assert "after Holm over 20 comparisons" in verdict_text(many)
    part = judge_seeds([compared(a, b, more_is_better=True) for a, b in near[:1]], part=0.2)[0]
    assert part.p_holm == pytest.approx(min(1, 5 * (alone.p or 0))), "it has a fifth of the level"


# Break-even


def lines(shift: float, seeds: int = 9, noise: float = 0.02) -> tuple[Any, Any]:
    """Two choices whose log ratio is shift - pressure: they break even at `shift`."""
    rng = np.random.default_rng(11)
    first = {p: dict.fromkeys(range(seeds), 100.0) for p in PRESSURES}
    second = {p: {s: 100 * math.exp(shift - p + rng.normal(0, noise)) for s in range(seeds)} for p in PRESSURES}
    return first, second


def test_a_known_break_even_is_found_within_its_interval() -> None:
    (point,) = break_evens(*lines(2.2))
    assert point.kind is PointKind.CROSSING
    assert point.at == pytest.approx(2.2, abs=0.03)
    assert point.low is not None
    assert point.high is not None
    assert point.low <= point.at <= point.high
    assert point.high - point.low < 0.2
    assert (point.below, point.above, point.support, point.ahead_below) == (2.0, 2.5, 1.0, True)


def test_intervals_of_break_evens_hold_what_they_promise() -> None:
    held = 0
    for trial in range(20):
        rng = np.random.default_rng(trial)
        first = {p: dict.fromkeys(range(12), 1.0) for p in PRESSURES}
        second = {p: {s: math.exp(1.7 - p + rng.normal(0, 0.3)) for s in range(12)} for p in PRESSURES}
        points = break_evens(first, second, seed=trial)
        held += any((point.low or 9) <= 1.7 <= (point.high or 0) for point in points)
    assert held >= 17, "95 % intervals of medians of a dozen seeds"


def test_a_break_even_on_a_measured_level_and_none_at_all() -> None:
    (point,) = break_evens(*lines(2.0, noise=0))
    assert point.at == pytest.approx(2.0)
    assert break_evens(*lines(9.0)) == []
    same = {p: {1: 5.0} for p in PRESSURES}
    assert break_evens(same, same) == [], "equal everywhere is no crossing"
    assert break_evens({1.0: {1: 1.0}}, {1.0: {1: 2.0}}) == [], "one level has no between"


def test_latencies_are_interpolated_on_a_logarithmic_axis() -> None:
    first = {10.0: {1: 1.0}, 1000.0: {1: 1.0}}
    second = {10.0: {1: 2.0}, 1000.0: {1: 0.5}}
    (point,) = break_evens(first, second, logarithmic=True)
    assert point.at == pytest.approx(100)
    assert point.low is None, "one seed has no interval"
    with pytest.raises(ValueError, match="above 0"):
        break_evens({0.0: {1: 1.0}, 1.0: {1: 1.0}}, {0.0: {1: 1.0}, 1.0: {1: 1.0}}, logarithmic=True)


def test_running_out_of_memory_is_a_limit_and_ends_the_comparison() -> None:
    first, second = lines(9.0)
    for pressure in (2.5, 3.0):
        second[pressure] = dict.fromkeys(second[pressure])
    (point,) = break_evens(first, second)
    assert (point.kind, point.below, point.above, point.failing, point.at) == (PointKind.LIMIT, 2.0, 2.5, 2, None)
    first[2.5] = dict.fromkeys(first[2.5])
    assert break_evens(first, second) == [], "both die there: nothing is left to choose"


def test_a_crossing_that_only_some_seeds_have_is_not_sure() -> None:
    first = {p: dict.fromkeys(range(5), 1.0) for p in (1.0, 2.0)}
    second = {1.0: dict.fromkeys(range(5), 1.1), 2.0: {0: 0.9, 1: 0.95, 2: 0.99, 3: 1.2, 4: 1.3}}
    (point,) = break_evens(first, second)
    assert point.support is not None
    assert 0.3 < point.support < 0.95


# The Pareto front


def test_the_known_front_is_found_and_the_beaten_name_who_beats_them() -> None:
    rng = np.random.default_rng(2)

    def around(x: float, y: float) -> dict[int, tuple[float, float]]:
        return {s: (x * math.exp(rng.normal(0, 0.01)), y * math.exp(rng.normal(0, 0.01))) for s in range(6)}

    found = front({"a": around(1, 10), "b": around(5, 5), "c": around(4, 4), "d": around(10, 1), "e": around(0.5, 0.5)})
    assert {name for name, one in found.items() if one.on_front} == {"a", "b", "d"}
    assert found["c"].beaten_by == ("b",)
    assert {"a", "b", "c"} <= set(found["e"].beaten_by)
    assert all(one.support == pytest.approx(float(one.on_front), abs=0.05) for one in found.values())


def test_equals_share_the_front_unknown_values_have_no_place_and_few_seeds_no_support() -> None:
    found = front({"a": {1: (1.0, 1.0)}, "b": {1: (1.0, 1.0)}, "c": {1: (math.nan, 9.0)}, "d": {}})
    assert set(found) == {"a", "b"}
    assert all(one.on_front and one.support is None for one in found.values())
    assert front({}) == {}


def test_a_disk_frees_all_that_lies_on_it_and_a_pool_what_it_holds_less_what_it_takes() -> None:
    table = df_pareto(counted(study(pressures=(1.5,)))).set_index("choice")
    assert table["freed"].to_dict() == {
        "disk": 100 << 20, "zram lz4": 60 << 20, "zram zstd": 75 << 20, "zswap lz4": 80 << 20, "zswap zstd": 80 << 20
    }  # fmt: skip
    assert set(table.index[table["on_front"]]) == {"disk", "zram lz4", "zswap lz4"}
    assert table.loc["zram zstd", "beaten_by"] == ("zswap lz4", "zswap zstd")
    latency = study(pressures=(1.5,)).assign(access_p99_ns=lambda rows: 1e9 / rows["access_ops_per_s"])
    assert set(df_pareto(counted(latency), "access_p99_ns").query("on_front")["choice"]) == {
        "disk", "zram lz4", "zswap lz4"
    }, "of a latency less is better"  # fmt: skip


def test_a_pareto_front_needs_to_know_the_swap_in_use() -> None:
    rows = study(pressures=(1.5,)).drop(columns=["swap_used_bytes"])
    assert SwapAnalysis(rows).clocks[0].pareto is None


# The best choice


def choice(label: str) -> Choice:
    return Choice(*label.split(" "))


def best(values: Any) -> Any:
    return best_of({choice(label): seeds for label, seeds in values.items()}, more_is_better=True, clock="instructions")


def labels(choices: Any) -> tuple[str, ...]:
    return tuple(map(str, choices))


def test_the_best_is_told_only_from_what_it_can_be_told_from() -> None:
    rng = np.random.default_rng(4)
    values = {
        name: {s: mean * math.exp(rng.normal(0, 0.02)) for s in range(8)}
        for name, mean in (("a", 100.0), ("b", 101.0), ("c", 50.0), ("d", 10.0))
    }
    found = best(values)
    assert set(labels(found.choices)) == {"a", "b"}
    assert (str(found.next), found.verdict, found.evidence) == ("c", Verdict.BETTER, Evidence.TESTED)
    assert found.gap.ratio == pytest.approx(0.5, abs=0.03)


def test_one_that_died_in_one_seed_is_never_the_best() -> None:
    values = {"a": {1: 900.0, 2: None, 3: 950.0}, "b": {1: 10.0, 2: 10.1, 3: 10.2}, "c": {1: 5.0, 2: 5.1, 3: 4.9}}
    found = best(values)
    assert (labels(found.choices), labels(found.died), found.evidence) == (("b",), ("a",), Evidence.TESTED)
    nobody = best({"a": {1: None}, "b": {1: None, 2: 3.0}})
    assert (nobody.choices, labels(nobody.died)) == ((), ("a", "b"))
    assert best({}).choices == ()


def test_lz4_and_lzo_are_never_ranked_and_one_seed_ranks_nothing() -> None:
    lzo = {"zram lz4": dict.fromkeys(range(9), 100.0), "zram lzo-rle": dict.fromkeys(range(9), 40.0)}
    found = best(lzo)
    assert set(labels(found.choices)) == set(lzo)
    assert "change places" in found.why
    assert best({"zram lz4": {1: 9.0}, "disk": {1: 1.0}}).verdict is Verdict.TOO_FEW_SEEDS
    kinds = {"zram lz4": dict.fromkeys(range(9), 100.0), "zswap lzo": dict.fromkeys(range(9), 40.0)}
    assert labels(best(kinds).choices) == ("zram lz4",), "they differ in more than the compressor"


# Rows, tables, sentences


def test_rows_are_read_as_choices_and_situations() -> None:
    found = counted(study(seeds=2))
    assert set(labels(found.choices)) == {"disk", "zram lz4", "zram zstd", "zswap lz4", "zswap zstd"}
    assert found.situations == ("pressure",)
    assert set(found.levels) == {"swap", "compressor", "pressure"}
    assert set(found.frame["pair"]) == {1, 2}


def test_encryption_and_knobs_that_vary_are_in_the_label() -> None:
    rows = [
        row_of("disk", 1.5, 1, factor_encryption="@xts"),
        row_of("zswap:lz4", 1.5, 1, factor_pool_percent=20, factor_shrinker=True),
        row_of("zswap:lz4", 1.5, 1, factor_pool_percent=50, factor_shrinker=False),
        row_of("none", 1.5, 1, factor_pool_percent=20),
    ]
    assert labels(counted(pd.DataFrame(rows)).frame["choice"]) == (
        "none",
        "disk + @xts",
        "zswap lz4 pool 20 % shrinker on",
        "zswap lz4 pool 50 % shrinker off",
    )


def test_a_choice_is_its_fields_not_its_label() -> None:
    rows = [
        row_of("zram:lz4", 1.5, 1, factor_encryption="@xts", factor_zram_size="1G"),
        row_of("zswap:zstd", 1.5, 1, factor_zram_size="2G"),
        row_of("zram:lz4", 1.5, 1, factor_zram_size="2G"),
        row_of("disk", 1.5, 1),
    ]
    disk, zram, _, zswap = sorted(counted(pd.DataFrame(rows)).choices, key=str)
    assert zram == Choice("zram", "lz4", "@xts", (("zram_size", "1G"),))
    assert str(zram) == "zram lz4 + @xts disksize 1G"
    assert zram.columns() == {
        "choice": "zram lz4 + @xts disksize 1G",
        "swap": "zram",
        "compressor": "lz4",
        "encryption": "@xts",
        "knobs": "zram_size=1G",
    }
    assert zswap == Choice("zswap", "zstd"), "a size of zram means nothing for zswap"
    assert (zram.has_pool, zswap.has_pool, disk.has_pool) == (True, True, False)


def test_choices_that_differ_in_unranked_compressors_alone_are_not_ranked() -> None:
    one, other = Choice("zram", "lz4", "@xts"), Choice("zram", "lzo", "@xts")
    assert "change places" in unranked(one, other, "wall")
    assert unranked(one, Choice("zram", "zstd", "@xts"), "wall") == ""
    assert unranked(one, Choice("zram", "lzo"), "wall") == "", "they differ in their encryption too"
    assert unranked(one, one, "wall") == unranked_levels("1.5", "2", "wall") == ""
    knobs = [Choice("zram", "zstd", "", (("zram_recompressor", name),)) for name in ("lz4", "lzo-rle")]
    assert "change places" in unranked(*knobs, "wall")


def test_tables_hold_codes_and_the_fields_of_a_choice() -> None:
    table = df_choices(counted(study(dies={"zram:lz4": 2.5})))
    assert set(table["verdict"]) <= set(Verdict)
    assert set(table["evidence"]) <= set(Evidence)
    assert set(table["method"]) <= set(Method)
    by_fields = table[["choice", "swap", "compressor"]].drop_duplicates().set_index("choice")
    assert tuple(by_fields.loc["zram lz4"]) == ("zram", "lz4")
    flat = plots.flat_table(table)
    assert "out of memory in 6 of 6" in set(flat["failures"])


def test_each_table_is_computed_once_for_figures_files_sentences_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[tuple[str, str]] = Counter()

    def count(module: Any, name: str) -> None:
        compute = getattr(module, name)

        def counting(rows: Any, *args: Any, **options: Any) -> Any:
            calls[f"{name} {options.get('axis', '')}".strip(), rows.clock] += 1
            return compute(rows, *args, **options)

        monkeypatch.setattr(module, name, counting)

    for name in (name for name in dir(tables) if name.startswith("df_")):
        count(tables, name)
    rows = study(pressures=(1.5, 2.5), seeds=3, access_histogram="[[1000, 90], [900000, 10]]")
    analysis = SwapAnalysis(pd.concat([rows, rows.assign(clock="wall")]))
    plots.save_answers(analysis, tmp_path)
    for clock in analysis.clocks:
        plots.figures_of(clock)
        assert set(clock.tables) == {"choices", "effects", "best", "pareto", "pressure"}
        assert clock.explanation.lines
        assert clock.answers
    expected = {"df_choices", "df_effects", "df_outcomes", "df_best", "df_pareto"}
    expected |= {"df_pressure pressure", "df_breakeven pressure"}
    assert calls == {(name, clock): 1 for name in expected for clock in ("instructions", "wall")}


def test_how_a_guest_ended_is_an_outcome() -> None:
    assert result_of(row_of("disk", 1, 1)) is GuestResult.WELL
    assert result_of(row_of("disk", 1, 1, end="out_of_memory")) is GuestResult.OUT_OF_MEMORY
    assert result_of(row_of("disk", 1, 1, oom_kills=1)) is GuestResult.OUT_OF_MEMORY
    assert result_of(row_of("disk", 1, 1, end="hang")) is GuestResult.HANG
    assert result_of(row_of("disk", 1, 1, corrupt_pages=2, end="hang")) is GuestResult.CORRUPT
    assert result_of(row_of("disk", 1, 1, error="the knob is missing")) is GuestResult.OTHER
    assert result_of(row_of("disk", 1, 1, corrupt_pages=math.nan, oom_kills=None)) is GuestResult.WELL


def test_warm_ups_and_faults_of_the_host_alone_are_left_out() -> None:
    rows = study(seeds=1, pressures=(1.5,))
    rows.loc[0, "host_fault"] = "killed_from_outside"
    rows.loc[1, "warmup"] = True
    found = counted(rows)
    assert len(found.frame) == 3
    assert found.left_out == "1 warm-up, 1 run with a fault of the host"
    rows["warmup"] = True
    with pytest.raises(InvalidInput, match="none counts"):
        counted(rows)


def test_clocks_and_host_classes_are_never_mixed() -> None:
    rows = study(seeds=2, pressures=(1.5,))
    both = pd.concat([rows, rows.assign(clock="wall")])
    with pytest.raises(InvalidInput, match="clock"):
        counted(both)
    wall = pd.concat([rows.assign(clock="wall"), rows.assign(clock="wall", host_class="other")])
    with pytest.raises(InvalidInput, match="host_class"):
        counted(wall)
    assert len(counted(both, "wall").frame) == len(rows)


def test_calibrations_are_set_apart_and_copies_show_that_it_repeats() -> None:
    rows = study(seeds=2, pressures=(1.5,), counters_sha256="aa")
    codec = row_of("none", 0, 1, factor_workload="codec")
    copy = {**rows.iloc[0].to_dict(), "factor_copy": "again"}
    both = pd.concat([rows, pd.DataFrame([codec, copy])], ignore_index=True)
    assert len(counted(both).frame) == len(rows)
    (told,) = explain(both)
    assert "Determinism: 1 of 1 repeated runs gave the same counters and latencies, bit for bit." in told.evidence
    both.loc[len(both) - 1, "counters_sha256"] = "bb"
    (told,) = explain(both)
    assert any("Determinism FAILS" in text for text in told.evidence)
    with pytest.raises(InvalidInput, match="calibrations alone"):
        counted(pd.DataFrame([codec]))


def test_ratios_to_the_disk_and_who_died_are_in_the_table_of_choices() -> None:
    table = df_choices(counted(study(dies={"zram:lz4": 2.5})))
    row = table[(table["situation"] == "pressure=1.5") & (table["choice"] == "zram lz4")].iloc[0]
    assert row["ratio"] == pytest.approx(math.exp(3 - 1.5), rel=0.05)
    assert (row["verdict"], row["evidence"], row["pairs"], row["cliffs_delta"]) == ("better", "tested", 6, 1)
    died = table[(table["situation"] == "pressure=3") & (table["choice"] == "zram lz4")].iloc[0]
    assert (died["n"], died["failures"], died["cliffs_delta"]) == (0, (("out_of_memory", 6),), -1)


def test_break_evens_of_a_study_are_those_of_its_curves() -> None:
    table = df_breakeven(counted(study()))
    for first, second in (("disk", "zswap:lz4"), ("disk", "zram:lz4")):
        names = [name.replace(":", " ") for name in (first, second)]
        (row,) = table[(table["first"] == names[0]) & (table["second"] == names[1])].to_dict("records")
        assert row["at"] == pytest.approx(crossing(first, second), abs=0.05)
    (text,) = table[table["second"] == "zswap lz4"].query("first == 'disk'")["sentence"]
    assert text.startswith("zswap lz4 is ahead below pressure 2.7")
    assert "disk above: [2." in text


def test_the_map_of_the_best_has_ties_and_deaths() -> None:
    table = df_best(counted(study(dies={"zram:lz4": 2.5}))).set_index("across_level")
    assert list(table["best"])[:2] == [("zram lz4",), ("zram lz4",)]
    assert set(table.loc["2", "best"]) == {"zswap zstd", "zram lz4"}
    assert table.loc["3", "best"] == ("zswap zstd",)
    assert table.loc["3", "died"] == (("zram lz4", (("out_of_memory", 6),), 6),)


def test_effects_end_in_a_sentence_and_say_where_the_sign_flips() -> None:
    table = df_effects(counted(study())).set_index(["factor", "level"])
    zstd = table.loc[("compressor", "zstd")]
    assert "the sign flips with swap and pressure" in zstd["sentence"]
    pressure = table.loc[("pressure", "2")]
    assert pressure["turns"] == ""
    mean = np.mean([slope for _, slope in CURVES.values()])
    assert pressure["ratio"] == pytest.approx(math.exp(-mean), rel=0.02)
    assert "access throughput: slower: 0." in pressure["sentence"]
    assert "significant (p=" in pressure["sentence"]


def test_a_factor_with_one_sign_and_settings_with_deaths_are_counted() -> None:
    rows = pd.concat(
        [study(), study({name: (height - 0.7, slope) for name, (height, slope) in CURVES.items()}, dies={"disk": 3.0})
         .assign(factor_encryption="@xts")], ignore_index=True)  # fmt: skip
    row = df_effects(counted(rows)).set_index("factor").loc["encryption"]
    assert (row["baseline"], row["level"], row["combinations"], row["used"]) == ("none", "@xts", 25, 24)
    assert row["ratio"] == pytest.approx(math.exp(-0.7), rel=0.02)
    assert "@xts ended badly in 1 of 25 combinations: no ratio there." in row["sentence"]


def test_a_pair_that_must_not_be_ranked_is_not() -> None:
    rows = study({"zram:lz4": (9.0, 0.5), "zram:lzo-rle": (8.0, 0.5)})
    (text,) = df_effects(counted(rows)).query("factor == 'compressor'")["sentence"]
    assert "not ranked: lzo-rle and lz4 change places" in text


def test_the_explanation_answers_first_and_is_honest() -> None:
    rows = study(dies={"zram:lz4": 2.5}, dilation=9.4, disk_latency_ns=752_000, disk_latency_hardware_ns=80_000,
                 access_p99_ns=4.1e6, data_ratio_lz4=2.6, data_ratio_zstd=3.9)  # fmt: skip
    times = {
        f"codec_{side}_{name}_ns": ns
        for side, ns in (("host", 5e3), ("guest", 47e3))
        for name in ("lzo", "lz4", "zstd")
    }
    codec = row_of("none", 0, 1, factor_workload="codec", dilation=9.4, **times)
    rows = pd.concat([rows, pd.DataFrame([codec])], ignore_index=True)
    (told,) = explain(rows, Question(pressure=2.8))
    assert told.answer[0] == "pressure 2.8 was not measured: 3 (nominal) is the nearest."
    assert told.answer[1].startswith("For pressure=3: zswap zstd, access throughput 4,4")
    assert any("zram lz4: out of memory in 6 of 6: not a choice here" in text for text in told.answer)
    text = "\n".join(told.lines)
    assert "Instruction clock, 6 seeds" in text
    assert "Calibration, instructions clock: the guest's time is 9.4 times the host's" in text
    assert "a disk of 80.0 µs answers after 752.0 µs of the guest's time" in text
    assert "mix: lz4 2.60, zstd 3.90" in text
    assert "It cannot say: One vCPU" in text
    assert "HZ=" not in text, "the tick of the guide's kernels is 10 ms: no p99 near 4 ms is one"
    assert "No guest was run twice" in text


def pressed(share: float, **more: Any) -> pd.DataFrame:
    """Rows of guests in which `share` of the memory was available when the fill began."""
    rows = study(**more)
    return rows.assign(
        working_set_bytes=rows["factor_pressure"] * 2**27, memavailable_start_bytes=2**27 * share, factor_memory="128M"
    )


def test_pressure_is_that_of_the_memory_that_was_available_on_every_axis_and_in_every_answer() -> None:
    analysis = SwapAnalysis(pressed(0.75, dies={"zram:lz4": 2.5}), Question(pressure=2.0))
    (clock,) = analysis.clocks
    along = clock.along["pressure"]
    assert sorted(set(along["level"])) == pytest.approx([p / 0.75 for p in PRESSURES])
    assert dict(zip(along["level"].round(2), along["nominal"], strict=True))[2.0] == "1.5"
    (limit,) = clock.break_evens["pressure"].query("kind == 'limit' and first == 'disk'").to_dict("records")
    assert (limit["below"], limit["above"]) == pytest.approx((2.0 / 0.75, 2.5 / 0.75))
    assert "stops ending well between 2.67 and 3.33 times the available memory" in limit["sentence"]
    assert clock.narrowed.nearest == (), "1.5 of 128 MiB is 2.0 times what was available"
    assert clock.answers[0].words[0].startswith("For pressure=1.5 (2.00 times the available memory): zram lz4")
    far = SwapAnalysis(pressed(0.75), Question(pressure=1.0)).clocks[0].narrowed
    assert far.nearest == ("pressure 1 was not measured: 1 (1.33 times the available memory) is the nearest.",)
    (effect,) = clock.effects.query("factor == 'pressure' and level == '2'")["sentence"]
    assert effect.startswith("pressure 2 (2.67 times the available memory) compared with 1 (1.33 times")
    figure = plots.figures_of(clock)["pressure"]
    assert "working set / available memory" in figure.axes[0].get_xlabel()
    assert "2.00\n(1.5)" in [text.get_text() for text in figure.axes[0].get_xticklabels()]
    best = plots.figures_of(clock)["best"]
    assert "2.00\n(1.5)" in [text.get_text() for text in best.axes[0].get_xticklabels()]


def test_of_two_sizes_of_memory_each_has_the_level_that_is_nearest_to_the_pressure() -> None:
    small, large = pressed(0.75), pressed(1.0).assign(factor_memory="1G")
    narrowed = SwapAnalysis(pd.concat([small, large], ignore_index=True), Question(pressure=2.0)).clocks[0].narrowed
    chosen = narrowed.rows.frame.groupby("factor_memory")["factor_pressure"].unique()
    assert {memory: list(levels) for memory, levels in chosen.items()} == {"128M": [1.5], "1G": [2.0]}
    assert narrowed.nearest == ()


def test_redis_is_pressed_by_what_it_holds() -> None:
    rows = pressed(0.5, pressures=(1.0,)).assign(held_bytes=2**27 * 1.25)
    assert set(counted(rows).frame["pressure_available"]) == {2.5}
    assert set(counted(rows.assign(held_bytes=None)).frame["pressure_available"]) == {2.0}


def test_the_share_of_the_pool_is_a_choice_and_is_named_where_it_does_not_vary() -> None:
    fixed = study(pressures=(1.5,)).assign(factor_pool_percent=20)
    (told,) = explain(fixed)
    assert any(text.startswith("zswap's pool may take 20 % of memory in every cell") for text in told.evidence)
    more = study({"zswap:lz4": (12.4, 1.4)}, pressures=(1.5,)).assign(factor_pool_percent=50)
    analysis = SwapAnalysis(pd.concat([fixed, more], ignore_index=True))
    (told,) = analysis.explanations
    assert any("zswap lz4 pool 50 %" in text for text in told.answer)
    assert any(text.startswith("pool_percent 50 compared with 20, access throughput: faster") for text in told.effects)
    assert not any("in every cell" in text for text in told.evidence)
    pairs = tables._pairs(list(analysis.clocks[0].rows.choices))
    assert [str(zswap) for zram, zswap in pairs if str(zram) == "zram lz4"] == [
        "zswap lz4 pool 20 %", "zswap lz4 pool 50 %"
    ]  # fmt: skip


def test_a_factor_that_changed_no_counter_is_named() -> None:
    rows = study(pressures=(1.5,), pswpin_pages=700, major_faults=90)
    both = pd.concat([rows.assign(factor_swappiness=level) for level in (1, 60)], ignore_index=True)
    both["factor_pool_percent"] = 20
    (told,) = explain(both)
    words = "swappiness changed nothing in this study: no counter differs between the levels 1, 60"
    (text,) = [text for text in told.evidence if "changed nothing" in text]
    assert text == f"{words} (60 guests, in 30 groups that are otherwise equal)."
    assert text in checks(both)
    both.loc[3, "pswpin_pages"] = 701
    assert not any("changed nothing" in text for text in checks(both))
    slower = pd.concat([rows, rows.assign(factor_disk_latency="1ms", access_ops_per_s=5.0)], ignore_index=True)
    assert not any("changed nothing" in text for text in checks(slower)), "the same faults, but slower"
    alone = pd.concat([rows, rows.assign(factor_swappiness=1, factor_data="other")], ignore_index=True)
    assert not any("changed nothing" in text for text in checks(alone)), "no guests differ in one factor alone"


def test_one_seed_supports_no_ranking() -> None:
    rows = study(seeds=1, pressures=(1.5,))
    (told,) = explain(rows)
    assert "in 1 seed: an order to look at, not a ranking" in told.answer[0]
    assert "exploratory, no ranking is supported" in told.scope
    for answer in SwapAnalysis(rows).clocks[0].answers:
        assert "best" not in set(answer.table["best"]), "the table says what the text says"
        assert "comes first, not ranked" in set(answer.table["best"])
    assert not any("significant (" in line for line in told.lines)


def test_a_question_outside_of_the_study_is_refused_by_name() -> None:
    rows = study(seeds=1)
    with pytest.raises(InvalidInput, match="was not measured"):
        explain(rows, Question(data="photographs"))
    with pytest.raises(InvalidInput, match="pressure"):
        Question(pressure=-1)
    with pytest.raises(InvalidInput, match="disk_latency"):
        Question(disk_latency="fast")
    with pytest.raises(InvalidInput, match="metric"):
        Question(metric="elegance")
    with pytest.raises(InvalidInput, match="no factor swap"):
        counted(pd.DataFrame([{"clock": "wall", "end": "powered_off"}]))
    with pytest.raises(InvalidInput, match="there are no rows"):
        counted(rows, "wall")


def test_clocks_that_disagree_on_an_order_are_told() -> None:
    rows = study(pressures=(1.5,))
    turned = study({name: (24 - height, -slope) for name, (height, slope) in CURVES.items()}, pressures=(1.5,))
    (text,) = SwapAnalysis(pd.concat([rows, turned.assign(clock="wall")])).both_clocks
    assert text.startswith("Not to be ranked, since the two clocks give different orders: ")
    assert "disk and zram lz4" in text
    (text,) = SwapAnalysis(pd.concat([rows, rows.assign(clock="wall")])).both_clocks
    assert text.startswith("Both clocks agree on the order of")
    first, second = explain(pd.concat([rows, rows.assign(clock="wall", accelerator="tcg")]))
    assert (first.clock, second.clock) == ("instructions", "wall")
    assert any("emulator" in text for text in second.limits)
    assert not any("emulator" in text for text in first.limits)


def test_equal_guests_that_counted_otherwise_are_told_loudly() -> None:
    rows = study(seeds=2, pressures=(1.5,))
    again = rows.assign(access_ops_per_s=rows["access_ops_per_s"] * 1.01)
    assert any("DETERMINISM IS BROKEN" in note for note in counted(pd.concat([rows, again])).notes)
    rows["corrupt_pages"] = 3
    found = counted(rows)
    assert any("WRONG PAGES came back in 10 runs" in note for note in found.notes)
    assert df_best(found)["best"].to_list() == [()]


def test_an_initrd_may_differ_with_the_data_that_it_holds_and_with_nothing_else() -> None:
    def notes(data: str, initrd: str) -> tuple[str, ...]:
        rows = study(seeds=2, pressures=(1.5,)).assign(initrd_sha256="1" * 64)
        others = rows.assign(factor_data=data, initrd_sha256=initrd * 64)
        return tuple(note for note in counted(pd.concat([rows, others])).notes if "different guests" in note)

    assert notes("photographs", "2") == ()
    (note,) = notes("mix", "2")
    assert "initrd: 111111111111 -> 222222222222" in note


def test_what_a_choice_costs_is_the_median_of_its_guests_not_the_upper_of_the_middle_two() -> None:
    rows = study({"disk": CURVES["disk"], "zram:lz4": CURVES["zram:lz4"]}, seeds=4, pressures=(1.5,))
    rows["access_p99_ns"] = rows["seed"].map({1: 10e3, 2: 20e3, 3: 900e3, 4: 1e3})
    (told,) = explain(rows)
    (costs,) = [text for text in told.answer if text.startswith("What zram lz4 costs")]
    assert "p99 latency of an access 15.0 µs against 15.0 µs" in costs


def test_missing_columns_and_values_are_no_end() -> None:
    rows = study(seeds=2, pressures=(1.5,)).drop(columns=["pool_bytes", "error", "host_class", "factor_data"])
    rows.loc[0, "access_ops_per_s"] = math.nan
    rows.loc[1, "access_ops_per_s"] = -5.0
    (told,) = explain(rows)
    assert told.answer
    (nothing,) = explain(rows.drop(columns=["access_ops_per_s"]))
    assert nothing.answer == ("Here: no choice ended well in every seed.",)


# Histograms, samples, figures


def test_distributions_add_up_over_seeds_and_span_them() -> None:
    rows = study({"disk": (9.0, 0.5)}, seeds=2, pressures=(1.5,))
    rows["access_histogram"] = ["[[1000, 3], [2000, 1]]", [[1000, 1], [4000, 1]]]
    table = df_latency(counted(rows))
    assert list(table["latency_ns"]) == [1000, 2000, 4000]
    assert list(table["share"]) == pytest.approx([4 / 6, 5 / 6, 1])
    assert list(table["low"]) == [0.5, 0.5, 1]
    assert list(table["high"]) == [0.75, 1, 1]


@pytest.mark.parametrize(
    "text", ["{", "{}", "[[1]]", '[["a", 1]]', "[[1, -1]]", "[[NaN, 1]]", "[" * 5000, "[[1, true]]"]
)
def test_hostile_histograms_are_refused_by_name(text: str) -> None:
    with pytest.raises(ResultsError, match="r1: access_histogram is not of its form"):
        histogram_of({"run_id": "r1", "access_histogram": text})


@pytest.mark.parametrize("text", ["7", '[{"t": 1}]', '[{"t_ns": 1, "pool_bytes": "<b>"}]', '[{"t_ns": 1e400}]'])
def test_hostile_samples_are_refused_by_name(text: str) -> None:
    with pytest.raises(ResultsError, match="samples is not of its form"):
        samples_of({"samples": text})


def test_samples_become_rates_and_a_counter_that_fell_has_none() -> None:
    samples = [{"t_ns": t * 10**9, "phase": "fill", "major_faults": f} for t, f in enumerate((0, 100, 50, 80))]
    table = df_guest({"samples": json.dumps(samples), "choice": "zram lz4", "clock": "instructions"})
    rates = list(table["faults_per_s"])
    assert math.isnan(rates[0])
    assert math.isnan(rates[2])
    assert (rates[1], rates[3]) == (100, 30)
    assert len(df_guest({"samples": None})) == 0


def test_every_figure_names_its_clock_and_its_seeds_and_every_file_is_written(tmp_path: Path) -> None:
    three = {name: CURVES[name] for name in ("disk", "zram:lz4", "zswap:zstd")}
    rows = study(
        three, dies={"zram:lz4": 2.5}, pressures=(1.5, 2.5), seeds=3, access_histogram="[[1000, 90], [900000, 10]]"
    )
    rows["samples"] = json.dumps([{"t_ns": t, "major_faults": t} for t in range(3)])
    analysis = SwapAnalysis(rows, Question(pressure=1.5))
    figures = plots.figures_of(analysis.clocks[0])
    assert set(figures) == {"best", "effects", "pareto", "pressure", "latency-access"}
    for figure in figures.values():
        assert "instruction clock, n = 3 seeds" in figure.get_suptitle()
    files = plots.save_answers(analysis, tmp_path / "figures")
    names = {path.name for path in files}
    assert {"instructions-pareto.pdf", "instructions-best.pdf", "instructions-pressure.png"} <= names
    assert {"instructions-effects.csv", "instructions-outcomes.csv", "instructions-explanation.txt"} <= names
    assert all(path.stat().st_size for path in files)
    assert "zram lz4" in (tmp_path / "figures/instructions-explanation.txt").read_text()
    figure = plots.guest_figure(rows, "zswap zstd", 2)
    assert figure.get_suptitle() == "zswap zstd over time (n = 1)"
    with pytest.raises(InvalidInput, match="no guest with samples"):
        plots.guest_figure(rows.assign(samples=None))


def test_figures_stand_hostile_names_and_nothing_that_ended_well() -> None:
    rows = study({"disk": (9.0, 0.5)}, seeds=1, pressures=(1.0, 2.0), dies={"disk": 0.0})
    rows["factor_data"] = "$\\frac{<script>%s"
    for figure in plots.figures_of(SwapAnalysis(rows).clocks[0]).values():
        figure.savefig(io.BytesIO(), format="svg")
    (told,) = explain(rows)
    assert "no choice ended well in every seed" in told.answer[0]


def test_the_command_tells_and_writes(tmp_path: Path) -> None:
    store = results.Store(tmp_path / "out")
    rows = study(seeds=1, pressures=(1.5,))
    for row in rows.assign(schema=SCHEMA, timestamp="2026", study="s").to_dict("records"):
        store.add("swap", {str(name): value for name, value in row.items()})
    arguments = ["bench", "answers", "s", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["explanations"][0]["clock"] == "instructions"
    assert "zram lz4 comes first" in found["explanations"][0]["answer"][0]
    done = CliRunner().invoke(main, ["bench", "answers", "other", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "one of: s" in done.output


def test_each_choice_looks_different_and_a_situation_with_one_level_is_no_curve() -> None:
    choices = [Choice(kind, "lz4", word) for kind in ("disk", "zram", "zswap") for word in "abcdefghi"]
    styles = styles_of(pd.DataFrame([one.columns() for one in (*choices, Choice("disk"), Choice("none"))]))
    assert len(set(styles.values())) == len(styles)

    one = study(swaps={"disk": CURVES["disk"], "zswap:lz4": CURVES["zswap:lz4"]}, pressures=(1.5,), factor_data="other")
    analysis = SwapAnalysis(pd.concat([study(dies={"zram:lz4": 2.0}), one], ignore_index=True))
    figure = plots.figures_of(analysis.clocks[0])["pressure"]
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["data=mix"]
    assert "1 of 2 situations" in figure.get_suptitle()
    assert any("zram lz4: out of memory in 6 of 6" in text.get_text() for text in figure.axes[0].texts)

    fast = study({"disk": CURVES["disk"]}, pressures=(1.5,), factor_disk_latency="10us", factor_data="mix")
    more = SwapAnalysis(pd.concat([study(), study(factor_data="other"), fast], ignore_index=True))
    best = plots.figures_of(more.clocks[0])["best"]
    assert [ax.get_title() for ax in best.axes] == ["disk_latency=80us"]
    assert "1 of 2 situations" in best.get_suptitle()


def test_the_map_of_best_choices_has_its_pressures_in_order() -> None:
    rows = pd.concat([study(pressures=(1.5,), seeds=3, factor_data="apart"), study(pressures=(1.0, 1.5, 2.0), seeds=3)])
    figure = plots.plot_best(df_best(counted(rows)))
    words = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert [re.findall(r"[\d.]+", text)[-1] for text in words] == ["1", "1.5", "2"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_every_title_lies_inside_its_figure(seeds: int) -> None:
    for name, figure in plots.figures_of(SwapAnalysis(study(seeds=seeds)).clocks[0]).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        titles = [text for text in (figure._suptitle, *(ax.title for ax in figure.axes)) if text and text.get_text()]
        for text in titles:
            box = text.get_window_extent(canvas.get_renderer())
            assert box.x0 >= 0, (name, text.get_text())
            assert box.x1 <= figure.bbox.width, (name, text.get_text())
            assert 0 <= box.y0 <= box.y1 <= figure.bbox.height, (name, text.get_text())
