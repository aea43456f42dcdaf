"""Answers of a swap study, from made-up rows whose answers are known."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from acon_nb import plots
from acon_nb.bench import results
from acon_nb.bench.answers import Question, clock_flips, explain
from acon_nb.bench.best import best_of
from acon_nb.bench.breakeven import Kind, break_evens
from acon_nb.bench.paired import Sure, beside, judge, sure_text
from acon_nb.bench.pareto import front
from acon_nb.bench.swap_guests import df_guest, df_latency, histogram_of, samples_of
from acon_nb.bench.swap_rows import Result, counted, result_of
from acon_nb.bench.swap_tables import df_best, df_breakeven, df_choices, df_effects
from acon_nb.cli import main
from acon_nb.errors import InvalidInput, ResultsError
from acon_nb.plots.swap_style import styles_of

# Throughput is exp(height - slope * pressure): the logarithm of a ratio is a line, and a break-even can be computed.
CURVES = {
    "disk": (9.0, 0.5),
    "zram:lz4": (12.0, 1.5),
    "zram:zstd": (10.4, 0.8),
    "zswap:lz4": (11.5, 1.4),
    "zswap:zstd": (10.2, 0.6),
}
SAVED = {"disk": 0, "zram:lz4": 60, "zram:zstd": 80, "zswap:lz4": 40, "zswap:zstd": 70}
PRESSURES = (1.0, 1.5, 2.0, 2.5, 3.0)


def row_of(swap: str, pressure: float, seed: int, **more: Any) -> dict[str, Any]:
    kind, _, compressor = swap.partition(":")
    return {
        "run_id": f"{swap}-{pressure}-{seed}",
        "kind": "swap",
        "clock": "instructions",
        "end": "powered off",
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
                row = row_of(swap, pressure, seed, access_ops_per_s=speed, saved_bytes=SAVED.get(swap, 0) << 20, **more)
                if pressure >= (dies or {}).get(swap, math.inf):
                    row |= {"end": "out of memory", "access_ops_per_s": speed * 5, "error": "killed"}
                rows.append(row)
    return pd.DataFrame(rows)


def crossing(first: str, second: str) -> float:
    (a, b), (c, d) = CURVES[first], CURVES[second]
    return (a - c) / (b - d)


# Pairs of seeds


def test_a_ratio_is_paired_by_seed_so_that_what_seeds_share_does_not_count() -> None:
    rng = np.random.default_rng(3)
    first = {seed: float(np.exp(rng.normal(0, 1))) for seed in range(8)}
    second = {seed: 2 * value for seed, value in first.items()}
    said = beside(first, second, more_is_better=True)
    assert (said.ratio, said.low, said.high) == pytest.approx((2, 2, 2))
    assert (said.n, said.method) == (8, "paired by seed")
    assert said.p == pytest.approx(2 / 256)
    assert judge([said])[0].sure is Sure.TESTED


def test_a_guest_that_ended_badly_counts_as_the_worst_and_has_no_ratio() -> None:
    well = {seed: 10.0 + seed for seed in range(6)}
    died = dict.fromkeys(range(6))
    said = judge([beside(well, died, more_is_better=True)])[0]
    assert (said.ratio, said.failed, said.delta) == (None, 6, -1)
    assert said.sure is Sure.TESTED
    assert beside(well, died, more_is_better=False).delta == 1, "of a latency the worst is the largest"
    half = {seed: (None if seed < 2 else 20.0 + seed) for seed in range(6)}
    said = beside(well, half, more_is_better=True)
    assert (said.n, said.failed) == (4, 2)
    assert said.ratio == pytest.approx(np.median([(20 + seed) / (10 + seed) for seed in range(2, 6)]))
    assert -1 < said.delta < 1


def test_seeds_too_few_for_a_test_are_said_to_be_so() -> None:
    said = judge([beside({1: 1.0, 2: 1.1, 3: 0.9}, {1: 4.0, 2: 4.4, 3: 3.8}, more_is_better=True)])[0]
    assert said.sure is Sure.EVERY_SEED
    assert "the same way in all 3 seeds, which are too few for a test" in sure_text(said)
    assert judge([beside({1: 1.0}, {1: 4.0}, more_is_better=True)])[0].sure is Sure.FEW_SEEDS
    two = judge([beside({1: 1.0, 2: 1.0}, {1: 4.0, 2: 4.0}, more_is_better=True)])[0]
    assert two.sure is Sure.FEW_SEEDS, "two that agree say nothing"
    mixed = judge([beside({1: 1.0, 2: 1.0, 3: 1.0}, {1: 2.0, 2: 0.5, 3: 2.0}, more_is_better=True)])[0]
    assert not mixed.sure.ranks


def test_equals_are_too_small_to_matter_and_no_seed_is_no_pair() -> None:
    same = dict.fromkeys(range(5), 5.0)
    assert judge([beside(same, same, more_is_better=True)])[0].sure is Sure.SMALL
    assert judge([beside({}, same, more_is_better=True)])[0].sure is Sure.NO_PAIRS
    with pytest.raises(ValueError, match="positive"):
        beside(same, {1: 0.0}, more_is_better=True)


def test_p_of_many_comparisons_are_adjusted_together() -> None:
    near = [({s: 10 + s % 2 for s in range(8)}, {s: 10.8 + s % 3 for s in range(8)})] * 20
    alone = judge([beside(a, b, more_is_better=True) for a, b in near[:1]])[0]
    many = judge([beside(a, b, more_is_better=True) for a, b in near])[0]
    assert alone.p == many.p
    assert (many.p_holm or 0) > 5 * (alone.p_holm or 0)


# Break-even


def lines(shift: float, seeds: int = 9, noise: float = 0.02) -> tuple[Any, Any]:
    """Two choices whose log ratio is shift - pressure: they break even at `shift`."""
    rng = np.random.default_rng(11)
    first = {p: dict.fromkeys(range(seeds), 100.0) for p in PRESSURES}
    second = {p: {s: 100 * math.exp(shift - p + rng.normal(0, noise)) for s in range(seeds)} for p in PRESSURES}
    return first, second


def test_a_known_break_even_is_found_within_its_interval() -> None:
    (point,) = break_evens(*lines(2.2))
    assert point.kind is Kind.CROSSING
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
    assert (point.kind, point.below, point.above, point.failing, point.at) == (Kind.LIMIT, 2.0, 2.5, 2, None)
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


# The best choice


def best(values: Any, **options: Any) -> Any:
    return best_of(values, more_is_better=True, clock="instructions", **options)


def test_the_best_is_told_only_from_what_it_can_be_told_from() -> None:
    rng = np.random.default_rng(4)
    values = {
        name: {s: mean * math.exp(rng.normal(0, 0.02)) for s in range(8)}
        for name, mean in (("a", 100.0), ("b", 101.0), ("c", 50.0), ("d", 10.0))
    }
    found = best(values)
    assert set(found.names) == {"a", "b"}
    assert (found.behind, found.sure) == ("c", Sure.TESTED)
    assert found.gap.ratio == pytest.approx(0.5, abs=0.03)


def test_one_that_died_in_one_seed_is_never_the_best() -> None:
    values = {"a": {1: 900.0, 2: None, 3: 950.0}, "b": {1: 10.0, 2: 10.1, 3: 10.2}, "c": {1: 5.0, 2: 5.1, 3: 4.9}}
    found = best(values)
    assert (found.names, found.died, found.sure) == (("b",), ("a",), Sure.EVERY_SEED)
    nobody = best({"a": {1: None}, "b": {1: None, 2: 3.0}})
    assert (nobody.names, nobody.died) == ((), ("a", "b"))
    assert best({}).names == ()


def test_lz4_and_lzo_are_never_ranked_and_one_seed_ranks_nothing() -> None:
    lzo = {"zram lz4": dict.fromkeys(range(9), 100.0), "zram lzo-rle": dict.fromkeys(range(9), 40.0)}
    found = best(lzo)
    assert set(found.names) == set(lzo)
    assert "change places" in found.why
    assert best({"zram lz4": {1: 9.0}, "disk": {1: 1.0}}).sure is Sure.FEW_SEEDS
    kinds = {"zram lz4": dict.fromkeys(range(9), 100.0), "zswap lzo": dict.fromkeys(range(9), 40.0)}
    assert best(kinds).names == ("zram lz4",), "they differ in more than the compressor"


# Rows, tables, sentences


def test_rows_are_read_as_choices_and_situations() -> None:
    found = counted(study(seeds=2))
    assert set(found.frame["choice"]) == {"disk", "zram lz4", "zram zstd", "zswap lz4", "zswap zstd"}
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
    labels = list(counted(pd.DataFrame(rows)).frame["choice"])
    assert labels == ["none", "disk + @xts", "zswap lz4 pool 20 % shrinker on", "zswap lz4 pool 50 % shrinker off"]


def test_how_a_guest_ended_is_an_outcome() -> None:
    assert result_of(row_of("disk", 1, 1)) is Result.WELL
    assert result_of(row_of("disk", 1, 1, end="out of memory")) is Result.OUT_OF_MEMORY
    assert result_of(row_of("disk", 1, 1, oom_kills=1)) is Result.OUT_OF_MEMORY
    assert result_of(row_of("disk", 1, 1, end="hang")) is Result.HANG
    assert result_of(row_of("disk", 1, 1, corrupt_pages=2, end="hang")) is Result.CORRUPT
    assert result_of(row_of("disk", 1, 1, error="the knob is missing")) is Result.OTHER
    assert result_of(row_of("disk", 1, 1, corrupt_pages=math.nan, oom_kills=None)) is Result.WELL


def test_warm_ups_and_faults_of_the_host_alone_are_left_out() -> None:
    rows = study(seeds=1, pressures=(1.5,))
    rows.loc[0, "host_fault"] = "killed from outside"
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
    assert (row["sure"], row["pairs"], row["cliffs_delta"]) == ("tested", 6, 1)
    died = table[(table["situation"] == "pressure=3") & (table["choice"] == "zram lz4")].iloc[0]
    assert (died["n"], died["failures"], died["cliffs_delta"]) == (0, "out of memory in 6 of 6", -1)


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
    assert list(table["best"])[:2] == ["zram lz4", "zram lz4"]
    assert set(table.loc["2", "best"].split(" | ")) == {"zswap zstd", "zram lz4"}
    assert table.loc["3", "best"] == "zswap zstd"
    assert table.loc["3", "died"] == "zram lz4: out of memory in 6 of 6"


def test_effects_end_in_a_sentence_and_say_where_the_sign_flips() -> None:
    table = df_effects(counted(study())).set_index(["factor", "level"])
    zstd = table.loc[("compressor", "zstd")]
    assert "the sign flips with swap and pressure" in zstd["sentence"]
    pressure = table.loc[("pressure", "2")]
    assert pressure["turns"] == ""
    mean = np.mean([slope for _, slope in CURVES.values()])
    assert pressure["ratio"] == pytest.approx(math.exp(-mean), rel=0.02)
    assert "access throughput: slower: 0." in pressure["sentence"]
    assert "sure (p=" in pressure["sentence"]


def test_a_factor_with_one_sign_and_settings_with_deaths_are_counted() -> None:
    rows = pd.concat(
        [study(), study({name: (height - 0.7, slope) for name, (height, slope) in CURVES.items()}, dies={"disk": 3.0})
         .assign(factor_encryption="@xts")], ignore_index=True)  # fmt: skip
    row = df_effects(counted(rows)).set_index("factor").loc["encryption"]
    assert (row["beside"], row["level"], row["settings"], row["used"]) == ("none", "@xts", 25, 24)
    assert row["ratio"] == pytest.approx(math.exp(-0.7), rel=0.02)
    assert "@xts ended badly in 1 of 25 settings: no ratio there." in row["sentence"]


def test_a_pair_that_must_not_be_ranked_is_not() -> None:
    rows = study({"zram:lz4": (9.0, 0.5), "zram:lzo-rle": (8.0, 0.5)})
    (text,) = df_effects(counted(rows)).query("factor == 'compressor'")["sentence"]
    assert "no order is told: lzo-rle and lz4 change places" in text


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
    assert told.answer[0] == "pressure 2.8 was not measured: 3 is the nearest."
    assert told.answer[1].startswith("For pressure=3: zswap zstd, access throughput 4,4")
    assert any("zram lz4: out of memory in 6 of 6: no choice here" in text for text in told.answer)
    text = "\n".join(told.lines)
    assert "Instruction clock, 6 seeds" in text
    assert "Calibration, instructions clock: the guest's time is 9.4 times the host's" in text
    assert "a disk of 80.0 µs answers after 752.0 µs of the guest's time" in text
    assert "mix: lz4 2.60, zstd 3.90" in text
    assert "It cannot say: A p99 near 4 ms is one tick" in text
    assert "No guest was run twice" in text


def test_one_seed_supports_no_ranking() -> None:
    (told,) = explain(study(seeds=1, pressures=(1.5,)))
    assert "in one seed: no ranking, only an order to look at" in told.answer[0]
    assert "exploratory, no ranking is supported" in told.scope
    assert not any("sure (" in line for line in told.lines)


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
        counted(pd.DataFrame([{"clock": "wall", "end": "powered off"}]))
    with pytest.raises(InvalidInput, match="there are no rows"):
        counted(rows, "wall")


def test_clocks_that_disagree_on_an_order_are_told() -> None:
    rows = study(pressures=(1.5,))
    turned = study({name: (24 - height, -slope) for name, (height, slope) in CURVES.items()}, pressures=(1.5,))
    (text,) = clock_flips(pd.concat([rows, turned.assign(clock="wall")]))
    assert text.startswith("Not to be ranked, since the two clocks give another order: ")
    assert "disk and zram lz4" in text
    (text,) = clock_flips(pd.concat([rows, rows.assign(clock="wall")]))
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
    assert df_best(found)["best"].to_list() == [""]


def test_missing_columns_and_values_are_no_end() -> None:
    rows = study(seeds=2, pressures=(1.5,)).drop(columns=["saved_bytes", "error", "host_class", "factor_data"])
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
    found = counted(rows)
    figures = plots.figures_of(found)
    assert set(figures) == {"best", "effects", "pareto", "pressure", "latency-access"}
    for figure in figures.values():
        assert "instruction clock, n = 3 seeds" in figure.get_suptitle()
    files = plots.save_answers(rows, tmp_path / "figures", Question(pressure=1.5))
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
    for figure in plots.figures_of(counted(rows)).values():
        figure.savefig(io.BytesIO(), format="svg")
    (told,) = explain(rows)
    assert "no choice ended well in every seed" in told.answer[0]


def test_the_command_tells_and_writes(tmp_path: Path) -> None:
    store = results.Store(tmp_path / "out")
    rows = study(seeds=1, pressures=(1.5,))
    for row in rows.assign(schema=results.SCHEMA, timestamp="2026", study="s").to_dict("records"):
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
    names = [f"{kind} lz4 + {word}" for kind in ("disk", "zram", "zswap") for word in "abcdefghi"]
    styles = styles_of([*names, "disk", "none"])
    assert len(set(styles.values())) == len(styles)

    one = study(swaps={"disk": CURVES["disk"], "zswap:lz4": CURVES["zswap:lz4"]}, pressures=(1.5,), factor_data="other")
    found = counted(pd.concat([study(dies={"zram:lz4": 2.0}), one], ignore_index=True))
    figure = plots.figures_of(found)["pressure"]
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["data=mix"]
    assert "1 of 2 situations" in figure.get_suptitle()
    assert any("zram lz4: out of memory in 6 of 6" in text.get_text() for text in figure.axes[0].texts)

    fast = study({"disk": CURVES["disk"]}, pressures=(1.5,), factor_disk_latency="10us", factor_data="mix")
    more = counted(pd.concat([study(), study(factor_data="other"), fast], ignore_index=True))
    best = plots.figures_of(more)["best"]
    assert [ax.get_title() for ax in best.axes] == ["disk_latency=80us"]
    assert "1 of 2 situations" in best.get_suptitle()
