"""A running study as other processes see it: progress, log, cancel, attach, and what a killed one leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.cli import main
from acon_nb.errors import Cancelled, InvalidInput, NoSpace
from acon_nb.progress import Progress
from acon_nb.study import live
from acon_nb.widgets import watch

OTHER = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from slow_study import study
from acon_nb.errors import Cancelled
one = study(runs={runs}, seconds=0.1)
try:
    print(len(one.run()))
except Cancelled:
    print("cancelled")
"""
SLOW = str(Path(__file__).parents[1] / "browser")


class Other:
    """A process that runs a study of four cells, one of which panics, into `results` of the test's folder."""

    def __init__(self, folder: Path, runs: int) -> None:
        self.folder = folder
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        argv = [sys.executable, "-c", OTHER.format(folder=SLOW, runs=runs)]
        self.process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)

    def started(self) -> live.RunningStudy:
        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            try:
                study = live.attach(self.folder / "results")
            except InvalidInput:
                time.sleep(0.05)
                continue
            if study.running and study.state.done >= 8:
                return study
            time.sleep(0.05)

    def output(self) -> str:
        return self.process.communicate(timeout=120)[0].strip()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    """A study of many runs, which the test ends."""
    running = Other(tmp_path, runs=400)
    yield running
    running.process.kill()
    running.process.wait()


def test_a_study_of_another_process_is_seen_and_cancelled(other: Other) -> None:
    study = other.started()
    state = study.state
    assert (state.name, state.phase, state.total, len(state.cells)) == ("sizes", "running", 1600, 4)
    assert f"process {other.process.pid} on " in study.owner
    assert any("of 1600 runs" in line for line in study.log())
    events: list[Progress] = []
    study.cancel()
    with pytest.raises(Cancelled):
        study.wait(on_progress=events.append)
    assert other.output() == "cancelled"
    assert (study.running, study.state.phase) == (False, "cancelled")
    assert study.state.done < 1600


def test_the_command_shows_it_its_log_and_cancels_it(other: Other) -> None:
    folder = str(other.started().folder)
    text = CliRunner().invoke(main, ["bench", "watch", folder, "--once"])
    assert text.exit_code == 0
    assert text.output.startswith("sizes: running: ")
    values = json.loads(CliRunner().invoke(main, ["bench", "watch", folder, "--json"]).output)
    assert (values["running"], values["state"]["total"]) == (True, 1600)
    log = CliRunner().invoke(main, ["bench", "watch", folder, "--log", "memory=2G"])
    assert "<b>no init found</b>" in log.output
    unknown = CliRunner().invoke(main, ["bench", "watch", folder, "--log", "memory=3G", "--study", "sizes"])
    assert unknown.exit_code == 2
    assert "cell='memory=3G'" in unknown.output
    assert "memory=2G" in unknown.output
    ended = CliRunner().invoke(main, ["bench", "watch", folder, "--cancel"])
    assert ended.exit_code != 0
    assert "cancelled" in ended.output
    assert other.output() == "cancelled"


def test_a_study_that_was_killed_says_so(other: Other) -> None:
    study = other.started()
    other.process.send_signal(signal.SIGKILL)
    other.process.wait()
    assert not study.running
    assert study.state.phase == "failed"
    assert f"its process ended early (process {other.process.pid} on " in study.state.error


def test_running_it_again_attaches_and_measures_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SLOW)
    first = Other(tmp_path, runs=30)
    first.started()
    from slow_study import study  # type: ignore[import-not-found]

    again = study(runs=30)
    events: list[Progress] = []
    rows = again.run(on_progress=events.append)
    assert first.output() == str(len(rows)) == "120"
    assert "attached" in events[0].text
    assert len(again.store.load("boot")) == 120, "nothing was measured twice"
    assert again.state.phase == "done"


def test_a_notebook_attaches_by_the_folder(tmp_path: Path) -> None:
    first = Other(tmp_path, runs=10)
    first.started()
    board = watch(tmp_path / "results")
    job = board.start()
    assert board.running
    assert job is board.start()
    done: list[int] = []
    job.then(lambda future: done.append(len(future.result())))
    assert first.output() == "40"
    deadline = time.monotonic() + 60
    while not done:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert done == [40]


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no study that was run"):
        live.attach(tmp_path)
    with pytest.raises(InvalidInput, match="holds no study"):
        watch(tmp_path / "nothing", "sizes")


def test_a_log_that_fills_the_disk_ends_the_study_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SLOW)
    from slow_study import study

    one = study(runs=1)
    real = live._file
    full = Path("/dev/full")
    monkeypatch.setattr(live, "_file", lambda *place: full if place[-1] == live._LOG else real(*place))
    with pytest.raises(NoSpace):
        one.run()
