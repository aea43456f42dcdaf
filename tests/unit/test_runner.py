"""The runner's own rules, on an experiment that boots nothing; tests/system/test_study.py runs real guests."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pytest

from acon_nb.errors import AconError, BuildFailed, Cancelled, InvalidInput
from acon_nb.progress import CancelToken, Progress
from acon_nb.results.store import Store
from acon_nb.study import host_lock as locks
from acon_nb.study import runner
from acon_nb.study.estimate import Estimate
from acon_nb.study.host_lock import host_lock
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan, PlanCell, PlannedRun
from acon_nb.study.room import Guests, check_room
from acon_nb.study.runner import Measured, Study
from acon_nb.study.state import format_left
from acon_nb.units import parse_bytes
from acon_nb.vm import Clock, End


@pytest.fixture(autouse=True)
def own_lock(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """These studies measure nothing, and must not wait for one on this host that does."""
    folder = tmp_path_factory.mktemp("lock")
    monkeypatch.setattr(locks, "_folder", lambda: folder)


class Counted:
    """Gives what `answer(cell, how many so far)` says, and notes the order."""

    kind = "boot"
    unbuilt: Mapping[str, AconError] = MappingProxyType({})

    def __init__(self, folder: Path, answer: Callable[[PlanCell, int], Measured] | None = None) -> None:
        self.folder = folder
        self.answer = answer or (lambda _, __: good(folder))
        self.order: list[tuple[str, bool]] = []
        self.prepared = 0
        self._lock = threading.Lock()

    def clock(self, cell: PlanCell) -> Clock:
        return Clock(cell.levels.get("clock", "wall"))

    def prepare(self, **_: object) -> None:
        self.prepared += 1

    def identity(self, cell: PlanCell) -> str:
        return cell.label

    def run(self, cell: PlanCell, planned: PlannedRun, *_: object) -> Measured:
        with self._lock:
            self.order.append((cell.label, planned.warmup))
            number = len(self.order)
        return self.answer(cell, number)


def good(folder: Path, end: End = End.POWERED_OFF, **values: str) -> Measured:
    console = folder / "console.log"
    console.write_text("hello\n")
    return Measured(row={"guest_ns_init": 5}, end=end, console=console, **values)


PLAN = Plan(name="sizes", study="boot", factors={"memory": ["1G", "2G", "3G"]}, runs=2, warmups=1)


class Large(Counted):
    """Guests as large as their memory says."""

    def guest_bytes(self, cell: PlanCell) -> int:
        return parse_bytes(str(cell.levels["memory"]), field="memory")


def test_a_guest_larger_than_the_host_is_refused_before_anything_starts(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, factors={"memory": ["1G", "4096G"]})
    experiment = Large(tmp_path)
    study = Study(plan=plan, experiment=experiment, store=Store(tmp_path / "out"))
    with pytest.raises(InvalidInput, match=r"memory='4096G': needs 4\.0 TiB of RAM .* this host has .* available"):
        study.run()
    assert (experiment.prepared, experiment.order) == (0, [])


@pytest.mark.parametrize(
    ("clock", "runs", "parallel", "fits"),
    [
        (Clock.WALL, 9, 4, True),
        (Clock.INSTRUCTIONS, 1, 4, True),
        (Clock.INSTRUCTIONS, 9, 1, True),
        (Clock.INSTRUCTIONS, 9, 2, True),
        (Clock.INSTRUCTIONS, 2, 3, True),
        (Clock.INSTRUCTIONS, 3, 3, False),
    ],
)
def test_guests_that_run_at_a_time_must_fit_together(clock: Clock, runs: int, parallel: int, fits: bool) -> None:
    cell = PlanCell(label="memory=8G", levels={"memory": "8G"})
    guests = [Guests(cell=cell, clock=clock, runs=runs, ram_bytes=9 << 30)]
    if fits:
        check_room(guests, parallel, available_bytes=20 << 30)
        return
    with pytest.raises(InvalidInput, match=r"3 guests at a time, 27\.0 GiB in all") as caught:
        check_room(guests, parallel, available_bytes=20 << 30)
    assert "fewer guests at a time" in str(caught.value.hint)


def test_how_long_a_plan_takes_is_told_before_it_starts_and_follows_its_runs(tmp_path: Path) -> None:
    expected = Estimate(
        cells=3, runs=9, low_s=60, high_s=120, cell_s=(10.0, 10.0, 10.0), basis="as 5 earlier runs took"
    )
    events: list[str] = []
    experiment = Counted(tmp_path)
    study = Study(plan=PLAN, experiment=experiment, store=Store(tmp_path / "out"), expected=expected)
    assert study.state.left_s == 90
    study.run(on_progress=lambda event: events.append(event.line))
    assert events[0] == "plan sizes   0 %  3 cells, 9 runs, some 60 s to 2 min (as 5 earlier runs took)"
    assert any("0 of 9 runs (6 planned, 3 warm-up), some 90 s left" in line for line in events)
    assert "1 of 9 runs, some 1 s left" in "\n".join(events), "these runs take no time, and the rest is scaled by that"


def test_every_run_is_a_row_with_its_place_and_its_log(tmp_path: Path) -> None:
    experiment = Counted(tmp_path)
    study = Study(plan=PLAN, experiment=experiment, store=Store(tmp_path / "out"))
    rows = study.run()
    assert len(rows) == 9
    assert [warm for _, warm in experiment.order] == [True] * 3 + [False] * 6
    assert list(rows["cell"]) == ["memory=1G"] * 3 + ["memory=2G"] * 3 + ["memory=3G"] * 3
    assert sorted(rows["replicate"][~rows["warmup"]]) == [0, 0, 0, 1, 1, 1]
    assert set(rows["factor_memory"]) == {"1G", "2G", "3G"}
    assert set(rows["end"]) == {"powered_off"}
    assert all((tmp_path / "out" / log).read_text() == "hello\n" for log in rows["log"])
    assert (study.state.phase, study.state.done, study.state.total) == ("done", 9, 9)
    assert {cell.state for cell in study.state.cells} == {"done"}


def test_a_stopped_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    cancel = CancelToken()

    def stop(_: PlanCell, number: int) -> Measured:
        if number == 5:
            cancel.cancel()  # as a user would, while a guest runs: this run is no result
        return good(tmp_path)

    first = Study(plan=PLAN, experiment=Counted(tmp_path, stop), store=Store(tmp_path / "out"))
    with pytest.raises(Cancelled):
        first.run(cancel=cancel)
    assert first.state.phase == "cancelled"
    assert len(first.rows()) == 4
    again = Counted(tmp_path)
    second = Study(plan=PLAN, experiment=again, store=Store(tmp_path / "out"))
    assert len(second.run()) == 9
    assert len(again.order) == 5
    assert sum(cell.kept for cell in second.state.cells) == 4
    third = Counted(tmp_path)
    Study(plan=PLAN, experiment=third, store=Store(tmp_path / "out")).run()
    assert third.order == []


def test_another_session_measures_anew(tmp_path: Path) -> None:
    for session in ("monday", "tuesday"):
        study = Study(plan=PLAN, experiment=Counted(tmp_path), store=Store(tmp_path / "out"), session=session)
        assert len(study.run()) == 9
    assert len(Store(tmp_path / "out").load("boot")) == 18


def test_only_a_fault_of_the_host_is_tried_again_and_stays_a_row(tmp_path: Path) -> None:
    def answer(_: PlanCell, number: int) -> Measured:
        return good(tmp_path, End.KILLED, host_fault="killed_from_outside") if number == 1 else good(tmp_path)

    plan = Plan(name="one", study="boot", runs=1, warmups=0)
    rows = Study(plan=plan, experiment=Counted(tmp_path, answer), store=Store(tmp_path / "out")).run()
    assert list(rows["attempt"]) == [1, 2]
    assert list(rows["host_fault"]) == ["killed_from_outside", ""]


def test_a_host_that_stays_at_fault_is_tried_three_times_and_next_time_again(tmp_path: Path) -> None:
    def never(_: PlanCell, __: int) -> Measured:
        return good(tmp_path, End.KILLED, host_fault="killed_from_outside")

    plan = Plan(name="one", study="boot", runs=1, warmups=0)
    for count in (3, 6):
        study = Study(plan=plan, experiment=Counted(tmp_path, never), store=Store(tmp_path / "out"))
        assert len(study.run()) == count
        assert study.state.cells[0].state == "failed"


def test_a_guest_that_fails_is_a_row_and_not_a_gap(tmp_path: Path) -> None:
    def panic(cell: PlanCell, _: int) -> Measured:
        bad = cell.label == "memory=2G"
        return good(tmp_path, End.PANIC, error="no init found") if bad else good(tmp_path)

    experiment = Counted(tmp_path, panic)
    study = Study(plan=PLAN, experiment=experiment, store=Store(tmp_path / "out"))
    rows = study.run()
    assert len(experiment.order) == 9
    assert set(rows[rows["cell"] == "memory=2G"]["end"]) == {"panic"}
    states = {cell.label: cell for cell in study.state.cells}
    assert [cell.state for cell in states.values()] == ["done", "failed", "done"]
    assert states["memory=2G"].last_error == "no init found"
    log = states["memory=2G"].log
    assert log is not None
    assert log.read_text() == "hello\n"


def test_an_error_of_ours_ends_the_study_and_keeps_the_rows(tmp_path: Path) -> None:
    def broken(_: PlanCell, number: int) -> Measured:
        if number == 3:
            raise AconError("no QEMU any more")
        return good(tmp_path)

    study = Study(plan=PLAN, experiment=Counted(tmp_path, broken), store=Store(tmp_path / "out"))
    with pytest.raises(AconError, match="no QEMU any more"):
        study.run()
    assert (study.state.phase, study.state.error) == ("failed", "no QEMU any more")
    assert len(study.rows()) == 2
    assert not any(cell.running for cell in study.state.cells)


def test_counted_guests_run_side_by_side_and_need_no_warm_up(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=300)

    def meet(_: PlanCell, __: int) -> Measured:
        together.wait()
        return good(tmp_path)

    plan = Plan(
        name="counted",
        study="boot",
        factors={"memory": ["1G", "2G"]},
        fixed={"clock": "instructions"},
        runs=2,
        warmups=3,
    )
    study = Study(plan=plan, experiment=Counted(tmp_path, meet), store=Store(tmp_path / "out"), parallel=2)
    assert len(study.run()) == 4


def test_guests_of_the_wall_clock_are_alone_on_the_host(tmp_path: Path) -> None:
    running: list[int] = []

    def alone(_: PlanCell, number: int) -> Measured:
        running.append(number)
        assert len(running) == 1
        time.sleep(0.01)
        running.pop()
        return good(tmp_path)

    plan = Plan(name="wall", study="boot", runs=8, warmups=0)
    studies = [
        Study(plan=plan, experiment=Counted(tmp_path, alone), store=Store(tmp_path / f"out{number}"))
        for number in range(2)
    ]
    threads = [threading.Thread(target=study.run) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [study.state.done for study in studies] == [8, 8]


def test_the_lock_says_that_it_waits_and_can_be_cancelled(tmp_path: Path) -> None:
    said: list[Progress] = []
    cancel = CancelToken()

    def hear(event: Progress) -> None:
        said.append(event)
        cancel.cancel()

    with (
        host_lock(shared=True, folder=tmp_path),
        host_lock(shared=True, folder=tmp_path),
        pytest.raises(Cancelled),
        host_lock(shared=False, folder=tmp_path, cancel=cancel, on_progress=hear),
    ):
        pass
    assert "another measurement" in said[0].line


def test_progress_says_how_much_is_done_and_how_long_it_takes(tmp_path: Path) -> None:
    said: list[Progress] = []
    Study(plan=PLAN, experiment=Counted(tmp_path), store=Store(tmp_path / "out")).run(on_progress=said.append)
    assert said[-1].done == 1
    assert "9 of 9 runs" in said[-1].text
    assert any("s left" in event.text for event in said)


def test_a_study_of_no_kind_and_bad_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="study='boat'"):
        study_of(Plan(name="p", study="boat"), tmp_path)
    with pytest.raises(InvalidInput, match="jobs=0"):
        study_of(Plan(name="p", study="boot"), tmp_path, jobs=0)
    with pytest.raises(InvalidInput, match="memroy='1G': is not a field of a boot study") as caught:
        study_of(Plan(name="p", study="boot", factors={"memroy": ["1G"]}), tmp_path)
    assert caught.value.hint == "did you mean memory?"


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"clock": "sun"}, "clock='sun'"),
        ({"memory": "lots"}, "memory='lots'"),
        ({"vcpus": 2}, "counts one vCPU"),
        ({"vcpus": "2"}, "vcpus='2': is not a whole number"),
        ({"td": "yes"}, "td='yes': is not true or false"),
        ({"machine": "pc"}, "machine='pc'"),
        ({"kernel": "package:x", "kernel_compression": "xz"}, "needs kernel=build"),
    ],
)
def test_a_level_that_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, levels: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        study_of(Plan(name="p", study="boot", fixed=levels), tmp_path)


class Kernel(Counted):
    """Cells whose content is `content`, such as the hash of a kernel."""

    def __init__(self, folder: Path, content: str) -> None:
        super().__init__(folder)
        self.content = content

    def identity(self, _: PlanCell) -> str:
        return self.content


def test_a_new_kernel_is_measured_anew_and_its_rows_do_not_mix_with_the_old(tmp_path: Path) -> None:
    plan = Plan(name="one", study="boot", fixed={"clock": "instructions"}, runs=2)
    store = Store(tmp_path / "out")
    for content in ("old", "new"):
        rows = Study(plan=plan, experiment=Kernel(tmp_path, content), store=store).run()
        assert len(rows) == 2
    assert len(store.load("boot", "one")) == 4, "the old rows stay"


def test_cells_of_one_content_are_each_measured_after_a_stop_too(tmp_path: Path) -> None:
    cells = Plan(name="same", study="boot", factors={"a": ["x", "y"]}, fixed={"clock": "instructions"}, runs=1)
    experiment = Kernel(tmp_path, "same")
    Study(plan=cells, experiment=experiment, store=Store(tmp_path / "out")).run()
    more = Plan(name="same", study="boot", factors={"a": ["x", "y", "z"]}, fixed={"clock": "instructions"}, runs=1)
    rows = Study(plan=more, experiment=experiment, store=Store(tmp_path / "out")).run()
    assert list(rows["cell"]) == ["a=x", "a=y", "a=z"]


def test_wall_times_of_another_host_are_no_times_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(name="moved", study="boot", cells=[{"clock": "wall"}, {"clock": "instructions"}], runs=1, warmups=0)
    store = Store(tmp_path / "out")
    Study(plan=plan, experiment=Counted(tmp_path), store=store).run()
    here = runner.environment()
    monkeypatch.setattr(runner, "environment", lambda: dataclasses.replace(here, cpu_model="another"))
    experiment = Counted(tmp_path)
    Study(plan=plan, experiment=experiment, store=store).run()
    assert experiment.order == [("clock=wall", False)]


def test_rows_know_what_the_plan_said_beforehand(tmp_path: Path) -> None:
    plan = Plan(
        name="said",
        study="boot",
        factors={"memory": ["1G", "2G"]},
        baseline={"memory": "2G"},
        minimum_effect=0.03,
        runs=1,
    )
    rows = Study(plan=plan, experiment=Counted(tmp_path), store=Store(tmp_path / "out")).run()
    assert set(rows["baseline"]) == {"memory=2G"}
    assert set(rows["minimum_effect"]) == {0.03}


def test_many_rows_are_gathered_in_few_files_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_GATHERED", 16)
    plan = Plan(name="many", study="boot", factors={"n": list(range(100))}, fixed={"clock": "instructions"}, runs=1)
    study = Study(plan=plan, experiment=Counted(tmp_path), store=Store(tmp_path / "out"))
    assert sorted(study.run()["factor_n"]) == list(range(100))
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == 100 // 16 + 100 % 16
    again = Counted(tmp_path)
    Study(plan=plan, experiment=again, store=Store(tmp_path / "out")).run()
    assert again.order == []


def test_one_who_needs_the_host_alone_is_not_kept_out_by_those_who_share_it(tmp_path: Path) -> None:
    """Two guests of the instruction clock that overlap for ever leave no moment in which nobody holds the lock."""
    stop, held = threading.Event(), threading.Event()

    def share(first: float) -> None:
        time.sleep(first)
        while not stop.is_set():
            with host_lock(shared=True, folder=tmp_path):
                held.set()
                time.sleep(0.2)

    threads = [threading.Thread(target=share, args=(first,)) for first in (0, 0.1)]
    for thread in threads:
        thread.start()
    held.wait(120)
    cancel = CancelToken()
    threading.Timer(120, cancel.cancel).start()
    try:
        with host_lock(shared=False, folder=tmp_path, cancel=cancel):
            pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (90, "90 s"), (600, "10 min"), (9000, "2.5 h")])
def test_times_left_are_rough(seconds: float, text: str) -> None:
    assert format_left(seconds) == text


def test_a_cell_that_cannot_be_built_is_a_row_with_its_reason_and_the_others_run(tmp_path: Path) -> None:
    experiment = Counted(tmp_path)
    experiment.unbuilt = {"memory=2G": BuildFailed("the kernel did not build", details=["main.c:1: error: no"])}
    study = Study(plan=PLAN, experiment=experiment, store=Store(tmp_path / "out"))
    rows = study.run()
    assert len(rows) == 9
    failed = rows[rows["cell"] == "memory=2G"]
    assert set(failed["end"]) == {"not_built"}
    assert set(failed["error"]) == {"the kernel did not build"}
    assert "main.c:1: error: no" in (tmp_path / "out" / failed["log"].iloc[0]).read_text()
    assert set(rows.loc[rows["cell"] != "memory=2G", "end"]) == {"powered_off"}
    assert len(experiment.order) == 6

    again = Study(plan=PLAN, experiment=experiment, store=Store(tmp_path / "out"))
    assert len(again.run()) == 9, "the same failure is no new row"
    assert len(experiment.order) == 6
    experiment.unbuilt = {}
    rows = Study(plan=PLAN, experiment=experiment, store=Store(tmp_path / "out")).run()
    assert set(rows["end"]) == {"powered_off"}, "a kernel that builds again is measured"
    assert len(experiment.order) == 9


def test_a_study_is_run_once_at_a_time_and_a_second_run_follows_the_first(tmp_path: Path) -> None:
    others: list[Study] = []
    plan = dataclasses.replace(PLAN, fixed={"clock": "instructions"})

    def study(plan: Plan, answer: Callable[[PlanCell, int], Measured] | None = None) -> Study:
        return Study(plan=plan, experiment=Counted(tmp_path, answer), store=Store(tmp_path / "out"), parallel=1)

    def answer(_: PlanCell, __: int) -> Measured:
        if not others:
            second = study(plan)
            others.append(second)
            ends.append(pool.submit(second.run))
            while second.state.phase != "running":
                time.sleep(0.01)
            assert len(study(dataclasses.replace(plan, name="others")).run()) == 6
        return good(tmp_path)

    ends: list[Future[pd.DataFrame]] = []
    with ThreadPoolExecutor() as pool:
        assert len(study(plan, answer).run()) == 6
        assert len(ends[0].result(timeout=60)) == 6
    assert isinstance(others[0].experiment, Counted)
    assert others[0].experiment.order == [], "it measured nothing of its own"
