"""Nights of a git tree: kernels of its commit, regressions bisected; any two nights compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from acon_nb.analysis import nightly
from acon_nb.analysis.nightly import NightlySpec
from acon_nb.boot.factors import boot_factors
from acon_nb.changes import night_pages, nights
from acon_nb.changes.bisection import Bisection, BisectSpec
from acon_nb.cli import main
from acon_nb.errors import CannotTell, InvalidInput
from acon_nb.profile import FunctionCount, Profile
from acon_nb.results.older import SCHEMA
from acon_nb.results.store import Store
from acon_nb.swap.factors import SwapFactors
from acon_nb.tour import TourSpec
from acon_nb.vm import Clock
from tests.unit.kernel_history import History

CELL = "clock=instructions"
_COLUMN = {"instructions": "guest_ns_reset_to_init", "wall": "host_ns_init"}


def profile(count: int) -> bytes:
    functions = (FunctionCount(name="<b>page", phase="kernel", self_count=count, file="mm/x.c"),)
    return Profile(total=count, phases=("kernel",), functions=functions).encoded()


def add_night(folder: Path, day: int, value: int, *, source: str = "", clock: str = "instructions", **more: Any) -> str:
    """A night of one cell, whose boot takes `value` instructions or ns."""
    store, night = Store(folder), f"2026-01-{day:02d}"
    row = {
        "schema": SCHEMA, "run_id": f"{night}-{clock}", "timestamp": f"{night}T00:00:00", "study": "quick",
        "session": night, "cell": CELL, "clock": clock, "block": 0, "host_class": "h", "end": "powered_off",
        "error": "", "host_fault": "", "warmup": False, _COLUMN[clock]: value, **more,
    }  # fmt: skip
    if source:
        row["factor_source"] = source
    store.add("boot", row | store.keep_profile(profile(value) if clock == "instructions" else b""))
    return night


def judged(folder: Path, night: str, tree: Path | None) -> tuple[NightlySpec, nightly.NightlyResult]:
    spec = NightlySpec(history=folder, plan="quick", night=night, tree=tree, metrics=("guest_ns_reset_to_init",))
    return spec, nightly.judge(spec)


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "linux")
    for number in range(3):
        history.commit(f"change {number}", cost=f"{number}\n")
    return history


def answer_of(spec: BisectSpec) -> Bisection:
    return Bisection(
        commit=spec.bad, subject="mm: slow", metric=spec.metric, before=1.0, after=2.0, builds=3, good=spec.good,
        bad=spec.bad, good_value=1.0, bad_value=2.0, skipped={}, functions=(), others=0, layout=0, timing=0, change=1,
        text="longer",
    )  # fmt: skip


def test_a_regression_is_bisected_between_the_commits_of_two_nights(history: History, tmp_path: Path) -> None:
    commits = [history.git("rev-parse", f"HEAD~{back}") for back in (2, 1, 0)]
    folder = tmp_path / "history"
    for day, (commit, value) in enumerate(zip(commits, (1_000_000, 1_000_000, 1_500_000), strict=True), 1):
        night = add_night(folder, day, value, source=f"{history.path}#{commit}")
    spec, result = judged(folder, night, history.path)
    asked: list[BisectSpec] = []

    def answer(one: BisectSpec) -> Bisection:
        asked.append(one)
        return answer_of(one)

    (found,) = nights.bisections(spec, result, bisect_with=answer)
    assert [(one.good, one.bad, one.metric, one.cell) for one in asked] == [
        (commits[1], commits[2], "guest_ns_reset_to_init", CELL)
    ]
    assert "mm: slow" in found.text()
    written = nightly.read(nightly.write(result, tmp_path / "s.json", [found.values()]))
    assert written["bisections"][0]["answer"]["commit"] == commits[2]


def test_without_a_tree_nothing_is_bisected(tmp_path: Path) -> None:
    add_night(tmp_path, 1, 1_000_000)
    spec, result = judged(tmp_path, add_night(tmp_path, 2, 1_500_000), None)
    assert result.verdict == "worse"
    assert nights.bisections(spec, result) == []


def test_a_regression_that_cannot_be_bisected_says_why(history: History, tmp_path: Path) -> None:
    commit = history.git("rev-parse", "HEAD")
    source = f"{history.path}#{commit}"
    add_night(tmp_path, 1, 1_000_000, source="debian:6.12")
    spec, result = judged(tmp_path, add_night(tmp_path, 2, 1_500_000, source=source), history.path)
    (found,) = nights.bisections(spec, result)
    assert "2026-01-01 is of no git tree" in found.text()
    other = tmp_path / "other"
    add_night(other, 1, 1_000_000, source=source, compiler="gcc 12")
    spec, result = judged(other, add_night(other, 2, 1_500_000, source=source, compiler="gcc 14"), history.path)
    (found,) = nights.bisections(spec, result)
    assert "both nights have the commit" in found.text()
    assert "gcc 14" in found.text()


def test_a_bisection_that_fails_does_not_fail_the_night(history: History, tmp_path: Path) -> None:
    def fails(spec: BisectSpec) -> Bisection:
        raise CannotTell("the two ends are equal", hint="look elsewhere")

    for day, back in ((1, 1), (2, 0)):
        commit = history.git("rev-parse", f"HEAD~{back}")
        night = add_night(tmp_path, day, 1_000_000 * day, source=f"{history.path}#{commit}")
    spec, result = judged(tmp_path, night, history.path)
    (found,) = nights.bisections(spec, result, bisect_with=fails)
    assert "the two ends are equal" in found.text()


def test_the_wall_clock_is_never_bisected(history: History, tmp_path: Path) -> None:
    for day in range(1, 25):
        commit = history.git("rev-parse", f"HEAD~{int(day < 13)}")
        value = 1_000_000 + 1_000 * (day % 3) + (900_000 if day >= 13 else 0)
        night = add_night(tmp_path, day, value, source=f"{history.path}#{commit}", clock="wall")
    spec = NightlySpec(history=tmp_path, plan="quick", night=night, tree=history.path, metrics=(_COLUMN["wall"],))
    result = nightly.judge(spec)
    assert result.verdict == "worse"
    assert nights.bisections(spec, result, bisect_with=lambda one: pytest.fail("bisected")) == []


def test_a_night_builds_the_trees_commit(history: History) -> None:
    commit = history.git("rev-parse", "HEAD~1")
    chosen = nights.plans_of(NightlySpec(tree=history.path, commit=commit[:12]))
    assert [plan.study for plan in chosen] == ["boot", "swap"]
    cells = [row for plan in chosen for row in plan.all_cells]
    assert {row.levels["source"] for row in cells} == {f"{history.path.resolve()}#{commit}"}
    labels = [row.label for plan in nights.plans_of(NightlySpec()) for row in plan.all_cells]
    assert [row.label for row in cells] == labels, "nights with and without a tree are one history"


def test_the_tour_and_the_nights_measure_the_same_guests() -> None:
    """One kernel has one story: the counts of the tour are those of a night, cell by cell."""
    spec, tour = NightlySpec(), TourSpec(out=Path("tour"))
    boots, swaps = spec.plans.values()
    (counted,) = [row for row in boots.all_cells if row.levels["clock"] == "instructions"]
    (guide,) = [row for row in tour.boot_plan(Clock.INSTRUCTIONS).all_cells if row.levels["kernel"] == "build"]
    assert boot_factors(counted.levels) == boot_factors(guide.levels)
    assert [SwapFactors.of(row.levels) for row in swaps.all_cells] == [
        SwapFactors.of(row.levels) for row in tour.swap_plan().all_cells
    ]


@pytest.mark.parametrize(("plan", "commit", "field"), [
    ("study = 'boot'\n[fixed]\nsource = 'debian:6.12'\n", "HEAD", "tree"),
    ("study = 'boot'\n[fixed]\nkernel = '/boot/vmlinuz'\n", "HEAD", "tree"),
    ("study = 'boot'\n", "no-such-branch", "commit"),
])  # fmt: skip
def test_a_tree_that_does_not_fit_is_refused(
    history: History, tmp_path: Path, plan: str, commit: str, field: str
) -> None:
    (tmp_path / "p.toml").write_text(plan)
    with pytest.raises(InvalidInput) as caught:
        nights.plans_of(NightlySpec(plan=str(tmp_path / "p.toml"), tree=history.path, commit=commit))
    assert caught.value.field == field


# two nights


def test_any_two_nights_are_compared_down_to_functions(tmp_path: Path) -> None:
    for day, value in ((1, 1_000_000), (2, 1_200_000), (3, 1_500_000)):
        add_night(tmp_path / "h", day, value, memavailable_bytes=1 << 20, kernel_release=f"6.12.{day}<i>")
    compared = night_pages.compare(tmp_path / "h", "quick", "2026-01-01", "2026-01-03")
    (cell,) = compared.cells
    values = {one.metric: one for one in (*cell.followed, *cell.others)}
    assert (values["guest_ns_reset_to_init"].before, values["guest_ns_reset_to_init"].after) == (1_000_000, 1_500_000)
    assert "+500,000 instructions" in compared.text()
    assert "equal" in values["memavailable_bytes"].text
    page = night_pages.write(compared, tmp_path / "page.html").read_text()
    assert "<b>page" not in page
    assert "&lt;b&gt;page" in page
    assert "<i>" not in page
    (flame,) = tmp_path.glob("profile-*.html")
    assert f'href="{flame.name}"' in page
    json.dumps(compared.values())


def test_a_cell_that_one_night_does_not_have_is_shown(tmp_path: Path) -> None:
    add_night(tmp_path, 1, 5)
    add_night(tmp_path, 2, 5)
    add_night(tmp_path, 2, 7, clock="wall")
    compared = night_pages.compare(tmp_path, "quick", "2026-01-01", "2026-01-02")
    assert [(one.clock, one.followed[0].before) for one in compared.cells if one.followed][-1] == ("wall", None)
    night_pages.write(compared, tmp_path / "page.html")


@pytest.mark.parametrize(("names", "reason"), [
    (("2026-01-01", "2026-01-09"), "is not in"), (("2026-01-01", "2026-01"), "several"),
    (("2026-01-02", "2026-01-02"), "same night"), (("", "2026-01-02"), "is not in"),
])  # fmt: skip
def test_nights_that_cannot_be_compared_are_refused(tmp_path: Path, names: tuple[str, str], reason: str) -> None:
    add_night(tmp_path, 1, 5)
    add_night(tmp_path, 2, 6)
    with pytest.raises(InvalidInput, match=reason):
        night_pages.compare(tmp_path, "quick", *names)


def test_the_command_compares_two_nights(tmp_path: Path) -> None:
    add_night(tmp_path / "h", 1, 5_000_000)
    add_night(tmp_path / "h", 2, 6_000_000)
    argv = ["bench", "nightly", "--history", str(tmp_path / "h"), "--compare", "2026-01-01", "2026-01-02"]
    result = CliRunner().invoke(main, [*argv, "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert "+1,000,000 instructions" in result.output
    assert (tmp_path / "page.html").is_file()
