"""Synthetic nights with planted steps: what is found, at which night, and how seldom where nothing is."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from acon_nb.analysis import history, nightly
from acon_nb.analysis.history import Limits
from acon_nb.errors import InvalidInput
from acon_nb.plots import plot_trend
from acon_nb.results.store import SCHEMA, Store
from acon_nb.study.kinds import kind

FIRST = dt.datetime(2026, 1, 1, 2, tzinfo=dt.UTC)
COUNT, WALL, MEMORY = METRICS = kind("boot").followed
series_of = functools.partial(history.series_of, metrics=METRICS)
RUNS = 3


def nights_of(values: Callable[[int, int], dict[str, float]], nights: int = 30, **columns: Any) -> pd.DataFrame:
    """Made-up rows: `values(night, run)` gives the measures of a run."""
    rows = []
    for night in range(nights):
        for run in range(RUNS):
            time = FIRST + dt.timedelta(days=night, seconds=run)
            rows.append(
                {
                    "schema": SCHEMA, "run_id": f"{columns.get('clock', 'wall')}-{night}-{run}",
                    "timestamp": time.isoformat(timespec="microseconds"), "session": f"{time:%Y-%m-%d}",
                    "study": "quick", "kind": "boot", "cell": "guide", "clock": "wall", "host_class": "h",
                    "end": "powered_off", "error": "",
                    "host_fault": "", "warmup": False, "attempt": 1, "run_key": f"{night}-{run}", "log": "",
                    "qemu_package": "qemu 1", **values(night, run), **columns,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def counted(step: float = 0.0, night: int = 99, rng: np.random.Generator | None = None, **columns: Any) -> pd.DataFrame:
    """Counts of a kernel that is built anew each night (some thousand instructions more or less), and its step."""
    jitter = (rng or np.random.default_rng(0)).integers(-3000, 3001, 30)

    def values(number: int, _: int) -> dict[str, float]:
        return {COUNT: float(round((306_508_000 + int(jitter[number])) * (1 + step * (number >= night))))}

    return nights_of(values, clock="instructions", **columns)


def timed(rng: np.random.Generator, step: float = 0.0, night: int = 99) -> pd.DataFrame:
    """Wall times of a busy host: each night has its own mood, some runs are slowed down."""
    mood = rng.normal(0, 0.02, 30)

    def values(number: int, _: int) -> dict[str, float]:
        slowed = 1.4 if rng.random() < 0.1 else 1.0
        return {WALL: 2e9 * float(np.exp(mood[number] + rng.normal(0, 0.02))) * slowed * (1 + step * (number >= night))}

    return nights_of(values)


@pytest.mark.parametrize("night", [1, 7, 15, 29])
def test_half_a_per_cent_of_instructions_is_found_at_its_night(night: int) -> None:
    rows = counted(0.005, night, np.random.default_rng(night))
    rows["qemu_package"] = np.where(rows["session"] >= f"2026-01-{night + 1:02d}", "qemu 2", "qemu 1")
    (series,) = series_of(rows)
    (change,) = series.changes
    assert change.night == change.first == change.last == f"2026-01-{night + 1:02d}"
    assert change.ratio == pytest.approx(1.005, abs=5e-5)
    assert change.also == ("QEMU's package: qemu 1 -> qemu 2",)
    assert series.verdict == "worse"
    assert f"longer by 0.5 % since the night 2026-01-{night + 1:02d}; the limit is 0.2 %" in series.text()


def test_in_30_nights_without_a_step_none_is_ever_found_on_the_instruction_clock() -> None:
    rng = np.random.default_rng(2)
    assert {series_of(counted(rng=rng))[0].verdict for _ in range(12)} == {"no_change"}


def test_noisy_nights_seldom_alarm_and_their_steps_are_found_about_their_night() -> None:
    rng = np.random.default_rng(3)
    alarms = [series_of(timed(rng))[0].verdict for _ in range(20)]
    assert alarms.count("worse") + alarms.count("better") <= 1
    found = near = 0
    for _ in range(8):
        night = int(rng.integers(5, 25))
        (series,) = series_of(timed(rng, 0.15, night))
        found += series.verdict == "worse"
        near += any(abs(int(change.night[-2:]) - 1 - night) <= 1 for change in series.changes)
    assert found >= 7
    assert near >= 6


def test_a_step_that_went_back_is_no_regression_and_one_the_right_way_is_an_improvement() -> None:
    rows = counted(0.005, 10)
    back = rows["session"] >= "2026-01-21"
    rows.loc[back, COUNT] = 306_508_000
    (series,) = series_of(rows)
    assert [change.night for change in series.changes] == ["2026-01-11", "2026-01-21"]
    assert series.verdict == "below_minimum"
    assert series_of(counted(-0.005, 10))[0].verdict == "better"


def test_a_creep_below_the_limit_each_night_is_a_regression_in_the_end() -> None:
    rows = nights_of(lambda night, _: {COUNT: float(10**9 + 300_000 * night)}, clock="instructions")
    (series,) = series_of(rows)
    assert series.verdict == "worse"
    assert "in " in series.text()
    assert "steps, the largest since" in series.text()


def test_an_accepted_night_sets_the_level_to_hold() -> None:
    rows = counted(0.005, 10)
    assert series_of(rows, accepted="2026-01-10")[0].verdict == "worse"
    assert series_of(rows, accepted="2026-01-11")[0].verdict == "no_change"
    assert series_of(rows, accepted="2025-01-01")[0].verdict == "worse"
    with pytest.raises(InvalidInput, match="accepted='2027': is after the last night"):
        series_of(rows, accepted="2027")


def test_only_the_last_nights_of_the_same_host_class_count() -> None:
    rows = counted(0.005, 10)
    assert series_of(rows, nights=15)[0].verdict == "no_change"
    rows.loc[rows["session"] < "2026-01-11", "host_class"] = "another"
    (series,) = series_of(rows)
    assert (series.verdict, len(series.nights)) == ("no_change", 20)


def test_a_night_without_a_whole_run_has_no_value() -> None:
    rows = counted()
    rows.loc[rows["session"] == "2026-01-30", "end"] = "panic"
    assert series_of(rows)[0].verdict == "no_values"


def test_a_night_that_went_on_with_another_kernel_is_that_of_the_newer_one() -> None:
    rows = counted()
    again = rows[rows["session"] == "2026-01-30"].assign(**{COUNT: 400_000_000.0, "spec_sha256": "new"})
    again["timestamp"] = "2026-01-30T09:00:00+00:00"
    (series,) = series_of(pd.concat([rows.assign(spec_sha256="old"), again]))
    assert (series.nights[-1].value, series.nights[-1].repeats) == (400_000_000, True)


def test_a_cell_that_the_plan_has_no_more_is_no_series() -> None:
    gone = counted(cell="gone")
    rows = pd.concat([counted(), gone[gone["session"] < "2026-01-20"]])
    assert [series.cell for series in series_of(rows)] == ["guide"]


def test_five_noisy_nights_are_too_few() -> None:
    rows = timed(np.random.default_rng(1))
    assert series_of(rows[rows["session"] <= "2026-01-05"])[0].verdict == "too_few_nights"


def test_clocks_are_apart_and_memory_is_followed_where_it_repeats() -> None:
    rows = pd.concat([counted().assign(memavailable_bytes=400 << 20), timed(np.random.default_rng(1))])
    rows["memavailable_bytes"] = rows["memavailable_bytes"].fillna(1.0)
    found = {(series.clock, series.metric) for series in series_of(rows)}
    assert found == {("instructions", COUNT), ("instructions", MEMORY), ("wall", WALL)}


def test_runs_of_one_night_that_differ_on_the_instruction_clock_are_told(tmp_path: Path) -> None:
    rows = counted()
    rows.loc[rows.index[-1], COUNT] += 5
    result = judged(rows, tmp_path)
    assert any("DETERMINISM IS BROKEN" in line for line in result.sentences())


def judged(rows: pd.DataFrame, folder: Path, **values: Any) -> nightly.NightlyResult:
    for row in rows.to_dict("records"):
        Store(folder).add("boot", row)
    return nightly.judge(nightly.NightlySpec(history=folder, plan="quick", night="2026-01-30", **values))


def test_a_night_is_judged_from_its_history_and_summed_up_for_machines(tmp_path: Path) -> None:
    result = judged(pd.concat([counted(0.005, 20), timed(np.random.default_rng(5))]), tmp_path / "history")
    assert (result.verdict, result.passed, result.nights) == ("worse", False, 30)
    assert result.sentences()[0].startswith("REGRESSION: night 2026-01-30, 2 series over 30 nights on h")
    data = nightly.read(nightly.write(result, tmp_path / "summary.json"))
    assert (data["verdict"], data["passed"]) == ("worse", False)
    (bad,) = [series for series in data["series"] if series["verdict"] == "worse"]
    assert bad["changes"][0]["night"] == "2026-01-21"
    assert list(history.verdict_table(result.series)["verdict"]) == ["regression", "steady"]
    changes = history.changes_table(result.series)
    assert list(changes["night"]) == ["2026-01-21"]
    (shown,) = history.shown_changes(result.series).to_dict("records")
    assert (shown["since the night"], shown["may be (95 %)"], shown["change"]) == ("2026-01-21", "exact", "+0.5 %")
    for clock, panels in (("instructions", 1), ("wall", 1)):
        figure = plot_trend(history.nights_table(result.series), changes, clock=clock)
        assert len(figure.axes) == panels
        assert f"30 nights on the {clock} clock, 3 runs a night" in figure.get_suptitle()
        assert clock == "wall" or "instructions" in figure.axes[0].get_ylabel()


def test_a_run_that_failed_this_night_does_not_pass(tmp_path: Path) -> None:
    rows = counted()
    rows.loc[rows.index[-1], ["end", "error"]] = ["panic", "no init found"]
    result = judged(rows, tmp_path)
    assert (result.verdict, result.passed) == ("failed_runs", False)
    assert "1 runs were not whole; the first: guide ended: panic: no init found" in result.sentences()[1]


def test_a_first_night_is_a_baseline_and_claims_nothing_of_itself(tmp_path: Path) -> None:
    rows = counted()
    first = judged(rows[rows["session"] == "2026-01-30"], tmp_path)
    assert (first.verdict, first.passed) == ("baseline_recorded", True)
    (head,) = first.sentences()
    assert head.startswith("BASELINE RECORDED: night ")
    assert "the first night there: nothing was compared" in head
    assert "STEADY" not in head
    assert "over 1 night" not in head
    assert "recorded, for later nights" in first.series[0].text()


def test_an_older_night_is_judged_by_what_was_known_then(tmp_path: Path) -> None:
    rows = counted(0.005, 20)
    judged(rows, tmp_path)
    assert nightly.judge(nightly.NightlySpec(history=tmp_path, plan="quick", night="2026-01-15")).verdict == "no_change"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"night": "monday"}, "night='monday'"),
        ({"night": "2026-01-01/.."}, "night="),
        ({"nights": 1}, "nights=1"),
        ({"limit_wall": 0}, "limit_wall=0: is out of range"),
        ({"limit_memory": True}, "limit_memory=True"),
    ],
)
def test_a_night_that_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        nightly.NightlySpec.of(values)


def test_a_night_has_a_name_and_its_limits() -> None:
    spec = nightly.NightlySpec.of({"limit_wall": 0.1, "history": "h"})
    assert spec.limits == Limits(wall=0.1)
    assert dt.date.fromisoformat(spec.night[:10])


def test_a_night_that_is_not_there_and_a_broken_summary_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="night='2026-01-01': is not in"):
        nightly.judge(nightly.NightlySpec(history=tmp_path, plan="quick", night="2026-01-01"))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InvalidInput, match="is not the summary of a night"):
        nightly.read(tmp_path / "x.json")
