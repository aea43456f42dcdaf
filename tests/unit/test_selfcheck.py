"""The tool's check of itself, and its doors on the command line; tests/system/test_study.py boots real copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from acon_nb.analysis import selfcheck
from acon_nb.analysis.selfcheck import SelfCheck
from acon_nb.cli import main
from acon_nb.results.store import SCHEMA, Store
from acon_nb.study import plan

COUNT = "guest_ns_reset_to_init"


def said(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == status, result.output
    return result.output


def counted(copies: dict[str, list[int]], **columns: Any) -> pd.DataFrame:
    rows = [
        {"factor_copy": copy, "block": block, COUNT: value, "clock": "instructions", "host_class": "h"}
        for copy, values in copies.items()
        for block, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**columns)


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (SelfCheck(kind="x", comparisons=200, alarms=15), True),
        (SelfCheck(kind="x", comparisons=200, alarms=16), False),
        (SelfCheck(kind="x", comparisons=20, alarms=0), True),
        (SelfCheck(kind="x", comparisons=20, alarms=4), False),
        (SelfCheck(kind="x", comparisons=0, alarms=0), False),
        (SelfCheck(kind="x", comparisons=20, alarms=0, planted=10, found=8), True),
        (SelfCheck(kind="x", comparisons=20, alarms=0, planted=10, found=7), False),
    ],
)
def test_no_more_may_alarm_than_5_per_cent_explain_and_most_of_what_is_planted_is_found(
    check: SelfCheck, passed: bool
) -> None:
    assert check.passed is passed
    assert check.text().startswith("passed" if passed else "FAILED")
    assert check.as_dict()["passed"] is passed


@pytest.mark.parametrize("seed", [2, 3])
def test_other_random_hosts_do_not_alarm_either(seed: int) -> None:
    assert selfcheck.simulated(100, 0, seed=seed).passed


def test_counted_copies_are_compared_in_groups_of_blocks() -> None:
    same = counted({"a": [5] * 6, "b": [5] * 6})
    assert selfcheck.real(same, [COUNT], blocks_each=2) == SelfCheck(kind="real", comparisons=3, alarms=0)
    late = counted({"a": [5] * 6, "b": [5] * 4 + [6] * 2})
    assert selfcheck.real(late, [COUNT], blocks_each=2) == SelfCheck(kind="real", comparisons=3, alarms=1)


def test_a_group_that_is_not_whole_and_a_copy_without_the_other_are_no_comparison() -> None:
    assert selfcheck.real(counted({"a": [5] * 5, "b": [5] * 5}), [COUNT], blocks_each=2).comparisons == 2
    assert selfcheck.real(counted({"a": [5] * 4}), [COUNT]).comparisons == 0


def test_clocks_and_other_factors_are_apart_and_measures_are_taken_where_they_exist() -> None:
    wall = selfcheck.noisy_pair(np.random.default_rng(1), 16, cv=0.02).assign(host_class="h")
    both = pd.concat([wall, counted({"a": [5] * 4, "b": [5] * 4})])
    assert selfcheck.real(both, ["made_up_ns", COUNT], blocks_each=4).comparisons == 5


def test_the_plan_of_copies_differs_in_nothing_but_the_copy() -> None:
    copies = plan.load("copies")
    assert copies.varying == ("copy",)
    assert [row.levels["copy"] for row in copies.all_cells] == ["a", "b"]


def test_the_command_says_how_it_went() -> None:
    assert "passed: " in said("bench", "selfcheck", "--comparisons", 60)
    data = json.loads(said("bench", "selfcheck", "--comparisons", 60, "--json"))
    assert data["passed"]
    assert data["checks"][0]["comparisons"] == 60
    assert "comparisons=0" in said("bench", "selfcheck", "--comparisons", 0, status=2)


def test_a_failed_check_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "simulated", lambda _: SelfCheck(kind="simulated", comparisons=20, alarms=5))
    assert "FAILED: 5 false alarms in 20 simulated" in said("bench", "selfcheck", "--comparisons", 20, status=1)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A study of two memory sizes on both clocks, measured in two sessions; the newer one lost 2 instructions."""
    number = 0
    for session, more in (("old", 0), ("new", 2)):
        for memory in ("2G", "512M"):
            for block in range(3):
                for clock in ("wall", "instructions"):
                    number += 1
                    time = {"host_ns_init": 10**9 + number} if clock == "wall" else {COUNT: 500 + more}
                    stamp = {"schema": SCHEMA, "run_id": str(number), "timestamp": f"2026-01-01T00:00:{number:02d}"}
                    place = {"study": "sizes", "session": session, "cell": f"memory={memory}", "factor_memory": memory}
                    plan = {"baseline": "memory=512M", "minimum_effect": 0.03, "block": block, "warmup": False}
                    end = {"end": "powered_off", "error": "", "host_fault": "", "host_class": "h", "clock": clock}
                    Store(tmp_path).add("boot", {**stamp, **place, **plan, **end, **time})
    return tmp_path


def test_compare_takes_the_measures_clock_the_newest_rows_and_the_plans_baseline(results: Path) -> None:
    output = said("bench", "compare", "sizes", "--out", results, "--metric", COUNT)
    assert "12 older rows" in output or "6 older rows" in output
    assert "memory=2G compared with memory=512M, reset to /init: equal, to the nanosecond, in all 3+3 runs" in output
    data = json.loads(
        said("bench", "compare", "sizes", "--out", results, "--metric", "host_ns_init", "--session", "old", "--json")
    )
    (row,) = data["comparisons"]
    assert (row["clock"], row["minimum_effect"], row["n"]) == ("wall", 0.03, 3)


def test_compare_holds_two_sessions_beside_each_other(results: Path) -> None:
    output = said("bench", "compare", "sizes", "--out", results, "--metric", COUNT, "--factor", "session")
    assert output.count("new compared with old") == 2
    assert "longer by 2 instructions" in output


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nothing", "--metric", COUNT], "study='nothing': has no rows"),
        (["sizes", "--metric", COUNT, "--session", "never"], "has no rows of that clock and session"),
        (["sizes", "--metric", COUNT, "--clock", "wall"], "has no rows of that clock and session"),
        (["sizes", "--metric", COUNT, "--factor", "kernel"], "factor='kernel': is not a factor"),
        (["sizes", "--metric", COUNT, "--baseline", "3G"], "baseline='3G': is not a level of cell"),
        (["sizes", "--metric", "cell"], "metric='cell': is not a measure"),
    ],
)
def test_compare_names_what_is_wrong(results: Path, words: list[str], error: str) -> None:
    assert error in said("bench", "compare", *words, "--out", results, status=2)


def test_plot_draws_and_says_what_compare_says(results: Path, tmp_path: Path) -> None:
    picture = tmp_path / "plot.png"
    output = said("bench", "plot", "sizes", "--out", results, "--metric", COUNT, "--x", "memory", "-o", picture)
    assert "2G compared with 512M" in output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "is not the name of a picture" in said(
        "bench", "plot", "sizes", "--out", results, "--metric", COUNT, "-o", "x.doc", status=2
    )
