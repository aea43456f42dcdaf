from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from acon_nb.analysis import selfcheck
from acon_nb.analysis.compare import compare, sentence
from acon_nb.errors import InvalidInput
from acon_nb.stats import inference

COUNT, WALL = "guest_ns_reset_to_init", "made_up_ns"


def counted(a: list[int], b: list[int], **columns: Any) -> pd.DataFrame:
    rows = [{"cell": cell, COUNT: value} for cell, values in (("a", a), ("b", b)) for value in values]
    return pd.DataFrame(rows).assign(clock="instructions", host_class="h", end="powered_off", **columns)


def said(frame: pd.DataFrame, metric: str = COUNT, **options: Any) -> tuple[Any, str]:
    (row,) = compare(frame, metric, **options).to_dict("records")
    return row, sentence(row)


def test_permutations_are_exact_where_the_samples_are_small() -> None:
    found = inference.unpaired_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert found.exact
    assert found.p == found.smallest_p == pytest.approx(2 / 252)
    assert inference.unpaired_test([1, 2], [1, 2]).p == 1
    assert inference.paired_test([0.1] * 7).p == pytest.approx(2 / 128)


def test_several_comparisons_are_adjusted_together() -> None:
    assert inference.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_ratios_deltas_and_numbers_of_runs() -> None:
    ratio = inference.ratio_of_medians([1.0, 1.1, 0.9, 1.0, 1.05], [2.0, 2.2, 1.8, 2.0, 2.1])
    assert ratio.ratio == pytest.approx(2.0)
    assert ratio.low < 2 < ratio.high
    assert inference.cliffs_delta([1, 2], [3, 4]) == 1
    assert inference.required_runs(0.05, 0.05, alpha=0.01) == 25
    assert inference.required_runs(0.001, 0.05, alpha=0.01) == 5, "fewer than five a side cannot reach 1 %"
    assert inference.required_runs(0.05, 0.01) > 20 * inference.required_runs(0.05, 0.05)


def test_equal_counts_are_equal_without_a_p() -> None:
    row, text = said(counted([306508000] * 5, [306508000] * 5))
    assert (row["verdict"], row["alarm"]) == ("equal", False)
    assert "equal, to the nanosecond, in all 5+5 runs" in text
    assert "p=" not in text


def test_any_difference_of_counts_is_real() -> None:
    row, text = said(counted([306508000] * 2, [306509234] * 2))
    assert (row["verdict"], row["alarm"]) == ("worse", True)
    assert "longer by 1,234 instructions (0.0004 %): exact, no test needed" in text
    row, text = said(counted([306508000] * 2, [306509234] * 2), minimum_effect=0.001)
    assert not row["alarm"]
    assert "below the minimum effect" in text


def test_counts_that_differ_among_equal_runs_are_told_loudly() -> None:
    _, text = said(counted([306508000, 306508005, 306508000], [306508000] * 3))
    assert "DETERMINISM IS BROKEN: equal runs of a gave different counts" in text


def test_rows_that_do_not_count_are_left_out_and_told() -> None:
    frame = counted([10, 10, 99], [10, 10, 99], warmup=False, host_fault="", error="")
    frame.loc[2, "warmup"] = True
    frame.loc[5, "end"] = "panic"
    row, text = said(frame)
    assert (row["n_baseline"], row["n"], row["verdict"]) == (2, 2, "equal")
    assert "of a 1 warm-up; of b 1 run that ended: panic" in text


def test_a_cell_of_which_no_run_counts_has_no_values() -> None:
    frame = counted([100] * 3, [103] * 2).assign(end=["powered_off"] * 3 + ["panic"] * 2)
    row, text = said(frame)
    assert (row["n_baseline"], row["n"], row["verdict"], row["alarm"]) == (3, 0, "no_values", False)
    assert "one cell has no run that counts" in text


def test_noisy_runs_alarm_only_beyond_the_minimum_effect() -> None:
    rng = np.random.default_rng(5)
    slow, text = said(selfcheck.noisy_pair(rng, 12, cv=0.01, effect=0.1, outliers=0), WALL, factor="copy")
    assert (slow["verdict"], slow["alarm"], slow["method"]) == ("worse", True, "paired_by_block")
    assert "slower by" in text
    small, text = said(selfcheck.noisy_pair(rng, 20, cv=0.0005, effect=0.002, outliers=0), WALL, factor="copy")
    assert (small["verdict"], small["alarm"]) == ("below_minimum", False)
    assert "smaller than the minimum effect of 1 %" in text
    same, _ = said(selfcheck.noisy_pair(rng, 20, cv=0.001, outliers=0), WALL, factor="copy")
    assert same["verdict"] == "no_change"


def test_too_few_runs_cannot_tell_and_say_how_many_could() -> None:
    frame = selfcheck.noisy_pair(np.random.default_rng(1), 3, cv=0.05, effect=0.5, outliers=0)
    row, text = said(frame, WALL, factor="copy")
    assert row["verdict"] == "unsure"
    assert f"About {row['needed']} runs of each would find" in text
    assert "So few runs cannot reach a p of 0.05" in text


def test_one_noisy_run_of_each_is_undecided() -> None:
    row, text = said(counted([100], [130]).assign(clock="wall", made_up_ns=[1.0e9, 1.3e9]), "made_up_ns")
    assert (row["verdict"], row["p"], row["alarm"]) == ("unsure", 1.0, False)
    assert "undecided (ratio 1.300" in text


def test_other_factors_are_held() -> None:
    frame = pd.concat(
        [
            counted([10, 10], [11, 11]).assign(factor_memory="256M"),
            counted([20, 20], [22, 22]).assign(factor_memory="512M"),
        ]
    ).assign(factor_kernel=lambda rows: rows["cell"])
    table = compare(frame, COUNT, factor="kernel")
    assert list(table["stratum"]) == ["memory=256M", "memory=512M"]
    assert list(table["difference"]) == [1, 2]


def test_what_else_differs_is_said() -> None:
    frame = counted([10, 10], [11, 11])
    frame["qemu_version"] = ["7.2", "7.2", "10.1", "10.1"]
    assert "Also differs: QEMU: 7.2 -> 10.1" in said(frame)[1]
    frame["qemu_version"] = ["7.2", "7.2", "7.2", "10.1"]
    assert "Also differs: QEMU: 7.2 -> 10.1" in said(frame)[1]


def test_of_command_lines_the_words_that_differ_are_said_but_not_those_that_are_factors() -> None:
    frame = counted([10, 10], [11, 11])
    frame["cmdline"] = [
        *["quiet lpj=1 acon_cell=swap=disk"] * 2,
        *["quiet acon_cell=swap=zram scsi_debug.ndelay=1"] * 2,
    ]
    assert "Also differs: kernel's command line: lpj=1 -> nothing." in said(frame)[1]
    frame["cmdline"] = [*["quiet acon_cell=swap=disk"] * 2, *["quiet acon_cell=swap=zram"] * 2]
    assert "Also differs" not in said(frame)[1]


@pytest.mark.parametrize("column", ["clock", "host_class"])
def test_clocks_and_host_classes_are_never_mixed(column: str) -> None:
    frame = counted([1, 1], [1, 1])
    frame.loc[0, column] = "wall"
    with pytest.raises(InvalidInput, match=column):
        compare(frame, COUNT)


@pytest.mark.parametrize("metric", ["host_ns_ready", "cell", "guest_ns_nothing"])
def test_measures_that_the_clock_does_not_have_are_refused(metric: str) -> None:
    with pytest.raises(InvalidInput, match="metric"):
        compare(counted([1, 1], [1, 1]).assign(host_ns_ready=5), metric)


def test_the_tool_does_not_alarm_on_equals_and_finds_what_is_planted() -> None:
    check = selfcheck.simulated(200)
    assert check.comparisons == 200
    assert check.alarms <= 10
    assert check.passed, check.text()


def test_real_copies_of_a_cell_are_checked_in_groups_of_blocks() -> None:
    frame = pd.concat(
        [selfcheck.noisy_pair(np.random.default_rng(n), 20, cv=0.02).assign(factor_memory=n) for n in range(2)]
    )
    check = selfcheck.real(frame, ["made_up_ns"], blocks_each=5)
    assert check.comparisons == 8
    assert check.planted == 0
