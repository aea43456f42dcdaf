"""Whatever boots a guest to measure it waits for its turn on this host, says so, and can be cancelled meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb import boot
from acon_nb.errors import Cancelled
from acon_nb.progress import CancelToken, Progress
from acon_nb.study.host_lock import host_lock, run_locked
from acon_nb.vm import Clock


@pytest.mark.parametrize("clock", list(Clock))
def test_a_single_boot_waits_for_a_measurement_on_the_wall_clock(clock: Clock) -> None:
    events: list[Progress] = []
    cancel = CancelToken()

    def hear(event: Progress) -> None:
        events.append(event)
        cancel.cancel()

    cell = boot.BootCell(name="waits", kernel=Path("/no/such/kernel"), initrd=Path("/no/such/initrd"), clock=clock)
    with host_lock(shared=False), pytest.raises(Cancelled):
        boot.run(cell, on_progress=hear, cancel=cancel)
    assert [event.line for event in events] == ["wait for another measurement on this host"]


def test_work_that_is_not_timed_runs_side_by_side() -> None:
    result, seconds = run_locked(lambda _: "done", alone=True)
    assert result == "done"
    assert seconds >= 0
    with host_lock(shared=True):
        assert run_locked(lambda _: "beside others", alone=False)[0] == "beside others"


def test_work_that_was_cut_short_gives_no_result() -> None:
    cancel = CancelToken()
    with pytest.raises(Cancelled):
        run_locked(lambda token: token.cancel(), alone=True, cancel=cancel)
    with pytest.raises(Cancelled):
        run_locked(lambda _: pytest.fail("begun although it was cancelled"), alone=True, cancel=cancel)
