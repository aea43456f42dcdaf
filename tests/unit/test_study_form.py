"""A plan as texts, its size, and the time that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from acon_nb import widgets
from acon_nb.errors import InvalidInput
from acon_nb.study import form as design
from acon_nb.study.estimate import CellSize, estimate
from acon_nb.study.kinds import estimate_of, kind
from acon_nb.study.plan import Plan, built_in, load
from acon_nb.vm import Clock

SHOWN = ("memory", "machine", "firmware", "clock")


def plan_of(**more: Any) -> Plan:
    values: dict[str, Any] = {
        "name": "sizes",
        "study": "boot",
        "factors": {"machine": ["q35", "microvm"], "memory": ["256M", "512M"]},
        "fixed": {"clock": "wall", "append": "console=ttyS0 quiet", "td": False, "timeout_s": 60.0},
        "baseline": {"machine": "microvm"},
        "runs": 4,
    }
    return Plan(**{**values, **more})


def read(plan: Plan, **changes: str) -> tuple[Plan | None, dict[str, str]]:
    return design.read_texts({**design.texts_of(plan, SHOWN), **changes}, plan, SHOWN)


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(),
        plan_of(factors={}, fixed={}, baseline={}, cells=[{"clock": "wall"}, {"clock": "wall", "firmware": ""}]),
        *map(load, built_in()),
    ],
    ids=lambda plan: plan.name,
)
def test_texts_read_back_give_the_same_cells(plan: Plan) -> None:
    shown = kind(plan.study).shown
    back, wrong = design.read_texts(design.texts_of(plan, shown), plan, shown)
    assert wrong == {}
    assert back is not None
    assert [row.levels for row in back.all_cells] == [row.levels for row in plan.all_cells]
    assert (back.runs, back.warmups, back.minimum_effect) == (plan.runs, plan.warmups, plan.minimum_effect)
    assert back.baseline_label == plan.baseline_label


def test_what_is_typed_becomes_the_plan() -> None:
    plan, wrong = read(plan_of(), memory="128M 256M 1G", more='td = no\ncmdline = "" "a b"\nvcpus = 1', runs="7")
    assert wrong == {}
    assert plan is not None
    assert plan.factors["memory"] == ["128M", "256M", "1G"]
    assert plan.factors["cmdline"] == ["", "a b"]
    assert plan.fixed["td"] is False
    assert plan.fixed["vcpus"] == 1
    assert (len(plan.all_cells), plan.runs) == (12, 7)


@pytest.mark.parametrize(
    ("field", "text", "told"),
    [
        ("name", "a/b", "is not valid"),
        ("runs", "many", "is not a whole number"),
        ("runs", "0", "is out of range"),
        ("memory", "big", "is not a valid size"),
        ("memory", "256M 256M", "has a level twice"),
        ("machine", "q36", "is not known"),
        ("memory", "'256M", "No closing quotation"),
        ("more", "vcpu = 1", "vcpu is not a factor of this study"),
        ("more", "just words", "is not a line of the form name = levels"),
        ("more", "memory = 1G", "memory appears twice"),
        ("more", "vcpus = one", "is not a number"),
        ("more", "td = perhaps", "is not true or false"),
        ("cells", "memory", "is not name=level"),
        ("cells", "memory=512M 'x", "No closing quotation"),
        ("cells", "kernels=x", "kernels is not a factor"),
    ],
)
def test_what_is_wrong_is_told_beside_its_field(field: str, text: str, told: str) -> None:
    plan, wrong = read(plan_of(), **{field: text})
    assert plan is None
    assert told in wrong[field]


def test_more_cells_than_a_form_can_check_are_refused_at_once() -> None:
    many = " ".join(map(str, range(400)))
    plan, wrong = read(plan_of(), more=f"cmdline = {many}\ncopy = {many}\nappend = {many}")
    assert plan is None
    assert "256000000 cells are more than a form can check" in wrong["more"]
    with pytest.raises(InvalidInput, match=r"study='weather': is not an installed kind of study\n.*one of boot, swap"):
        widgets.study_designer(plan_of(study="weather"))


def test_the_time_is_that_of_runs_most_alike() -> None:
    plan = plan_of(factors={"memory": ["256M", "512M"]}, baseline={}, warmups=1)
    rows = [{"clock": "wall", "factor_memory": m, "seconds": s} for m, s in (("256M", 10), ("512M", 20), ("512M", 30))]
    found = estimate_of(plan, pd.DataFrame([*rows, {"clock": "instructions", "seconds": 900.0}]))
    assert (found.cells, found.runs) == (2, 10)
    assert found.low_s == pytest.approx(5 * 10 + 5 * 22.5)
    assert found.high_s == pytest.approx(5 * 10 + 5 * 27.5)
    assert "as 3 earlier runs took" in found.text()


def test_guests_of_the_instruction_clock_run_side_by_side_without_warm_ups() -> None:
    plan = plan_of(fixed={"clock": "instructions"})
    rows = pd.DataFrame([{"clock": "instructions", "seconds": 10.0}])
    found = estimate_of(plan, rows, parallel=4)
    assert (found.runs, found.low_s) == (16, 40)


def test_without_earlier_runs_of_a_clock_the_time_is_the_kinds_or_not_known() -> None:
    low, high = kind("boot").typical_s["wall"]
    other = pd.DataFrame([{"clock": "instructions", "seconds": 900.0}])
    for earlier in (None, other):
        found = estimate_of(plan_of(warmups=0), earlier)
        assert (found.low_s, found.high_s) == (found.runs * low, found.runs * high)
        assert "another host" in found.text()
    cell = CellSize(clock=Clock.WALL, runs=3, levels={})
    assert "the time is not known: no earlier run" in estimate([cell], None).text()
    assert "no earlier run was on the wall clock" in estimate([cell], other).text()


def test_the_time_of_ten_thousand_cells_is_known_at_once() -> None:
    levels = [f"{size}M" for size in range(100, 10_100)]
    rows = pd.DataFrame([{"clock": "wall", "factor_memory": f"{size}M", "seconds": 8.0} for size in range(100, 3000)])
    found = estimate_of(plan_of(factors={"memory": levels}, baseline={}, runs=5, warmups=0), rows)
    assert (found.cells, found.runs, found.low_s) == (10_000, 50_000, 400_000)
    assert "10000 cells, 50000 runs, some 4.6 days (as 2900 earlier runs took" in found.text()


def test_levels_replaced_from_a_notebook() -> None:
    plan = design.with_levels(plan_of(), {"memory": ["1G"], "machine": [], "vcpus": [1]}, runs=2)
    assert plan.fixed["memory"] == "1G"
    assert plan.factors == {"machine": ["q35", "microvm"]}
    assert plan.runs == 2
    assert plan.baseline == {"machine": "microvm"}
    with pytest.raises(InvalidInput, match="not a list of levels"):
        design.with_levels(plan_of(), {"memory": "1G"})
    with pytest.raises(InvalidInput, match="memory"):
        design.with_levels(plan_of(), {"memory": ["huge"]})


def test_without_a_person_the_designer_is_a_table(tmp_path: Path) -> None:
    form = widgets.study_designer(plan_of(), tmp_path / "none")
    form._ipython_display_()
    assert "4 cells, 20 runs" in form.report().to_html()
    assert not (tmp_path / "none").exists(), "it starts nothing"
    with pytest.raises(InvalidInput, match="machine"):
        widgets.study_designer(plan_of(factors={"machine": ["abacus"]}, baseline={}))
