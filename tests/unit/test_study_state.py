"""What a board of a study says; tests/browser/test_board.py shows one to a person."""

from __future__ import annotations

from pathlib import Path

from acon_nb.progress import Progress
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.study.state import Board, CellState, headline, log_of
from acon_nb.vm import Clock
from acon_nb.widgets.board import cells_table, squares


def state_of(tmp_path: Path, cells: int = 3) -> Board:
    shown = Board("sizes", [CellState(label=f"n={n}", clock=Clock.WALL, planned=2) for n in range(cells)], 1)
    log = tmp_path / "run.log"
    log.write_bytes(b"\x1b[31mLinux\x1b[0m\r\n" + b"line\r\n" * 100 + b"<i>the end</i>\r\n")
    shown.change(phase="running")
    for _ in range(2):
        shown.ends(0, end="powered_off", error="", log=log, seconds=4.0)
        shown.ends(1, end="panic", error="no init", log=log, seconds=4.0)
    shown.starts(2)
    return shown


def test_the_headline_counts_runs_and_cells_and_the_time_left(tmp_path: Path) -> None:
    text = headline(state_of(tmp_path).state)
    assert text == "running: 4 of 6 runs, 2 failed, some 8 s left; cells: 1 running, 1 failed, 1 done"


def test_the_headline_says_why_a_study_failed_and_not_more(tmp_path: Path) -> None:
    shown = state_of(tmp_path)
    shown.change(phase="failed", error="no QEMU\n  hint: install it")
    assert headline(shown.state).startswith("failed (no QEMU): 4 of 6 runs")
    shown.change(phase="cancelled", error="cancelled\n  hint: run it again")
    assert headline(shown.state).startswith("cancelled: 4 of 6 runs")


def test_the_table_has_a_row_a_cell(tmp_path: Path) -> None:
    table = cells_table(state_of(tmp_path).state)
    assert list(table["state"]) == ["done", "failed", "running"]
    assert list(table["runs"]) == ["2 of 2", "2 of 2", "0 of 2"]
    assert table["error"][1] == "no init"


def test_the_log_of_a_cell_is_its_end(tmp_path: Path) -> None:
    done, failed, waiting = state_of(tmp_path).state.cells
    lines = log_of(failed).splitlines()
    assert lines[0] == "n=1: panic: no init"
    assert lines[-2:] == ["<i>the end</i>", f"log: {tmp_path / 'run.log'}"]
    assert len(lines) < 50
    assert log_of(waiting) == "n=2: no run yet"
    (tmp_path / "run.log").unlink()
    assert "n=0: powered off" in log_of(done)


def test_the_squares_show_each_cell_and_never_too_many(tmp_path: Path) -> None:
    picture = squares(state_of(tmp_path).state)
    assert picture.count("<rect") == 3
    assert "<title>✗ n=1  [wall] 2/2, 2 failed: panic</title>" in picture
    many = squares(state_of(tmp_path, 5000).state)
    assert many.count("<rect") == 2000
    assert "the first 2000 of 5000 cells" in many


def test_a_state_that_was_taken_does_not_change(tmp_path: Path) -> None:
    shown = state_of(tmp_path)
    before = shown.state
    assert shown.state is before, "nothing changed: the same state"
    shown.stops(2)
    assert (before.cells[2].running, shown.state.cells[2].running) == (1, 0)


def test_a_study_that_is_run_again_begins_at_nothing(tmp_path: Path) -> None:
    shown = state_of(tmp_path)
    shown.begin()
    assert (shown.state.done, shown.state.failed, shown.state.left_s) == (0, 0, None)
    assert {cell.done for cell in shown.state.cells} == {0}


def test_runs_that_nobody_planned_are_named() -> None:
    cells = [CellState(label=f"n={n}", clock=Clock.WALL, planned=3, warmups=1) for n in range(2)]
    assert headline(Board("sizes", cells, 1).state).startswith("new: 0 of 6 runs (4 planned, 2 warm-up); cells:")
    plan = Plan(name="one", study="swap", factors={"swap": ["none", "disk", "zram:lz4"]}, runs=1, warmups=0)
    state = study_of(plan, Path("none")).state
    shown = "0 of 5 runs (3 planned, 1 calibration, 1 repeated to check determinism)"
    assert shown in headline(state)
    assert headline(Board("sizes", cells[:0], 1).state).startswith("new: 0 of 0 runs; ")


def test_what_is_built_is_said_in_place_of_preparing() -> None:
    board = Board("sizes", [CellState(label="n=1", clock=Clock.WALL, planned=3)], 1)
    with board.phases():
        assert headline(board.state).startswith("preparing: 0 of 3 runs")
        events: list[Progress] = []
        board.building(events.append)(Progress("kernel guide", 0.35, "mm/zswap.o"))
        assert headline(board.state).startswith("building kernel guide  35 %  mm/zswap.o: 0 of 3 runs")
        assert events
        board.change(phase="running")
        assert headline(board.state).startswith("running: 0 of 3 runs")
