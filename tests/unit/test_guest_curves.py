"""The live curves of guests, from samples that guests send."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

from acon_nb.study.plan import Plan
from acon_nb.swap.experiment import SwapExperiment
from acon_nb.swap.factors import SwapFactors
from acon_nb.vm import Message
from acon_nb.widgets.guest_curves import GuestCurves, curves_html, samples_of_study


def sample(t: int, **more: Any) -> dict[str, Any]:
    return {"t_ns": t * 10**9, "phase": "fill", "memavailable_bytes": 2**20 * (9 - t), "major_faults": 50 * t, **more}


def test_each_guest_has_its_curves_and_its_newest_values() -> None:
    drawn = curves_html({"disk, seed 1": [sample(0), sample(2)], "zram lz4, seed 1": []})
    assert "<b>disk, seed 1</b>: fill" in drawn
    assert "MemAvailable: <b>7.0 MiB</b>" in drawn
    assert "major faults / s: <b>50</b>" in drawn
    assert "pool" not in drawn, "a guest without a pool has no curve of it"
    assert "<b>zram lz4, seed 1</b>: starting" in drawn
    assert curves_html({}) == ""


def test_what_a_hostile_guest_sends_is_text_or_nothing() -> None:
    bad = [sample(0, phase="<script>"), sample(1, memavailable_bytes="<b>", major_faults=None), {"t_ns": "x"}]
    drawn = curves_html({"<img>": bad})
    assert "<script>" not in drawn
    assert "<img>" not in drawn


def test_samples_are_kept_while_a_guest_runs_and_no_longer() -> None:
    experiment = SwapExperiment(Plan(name="s", study="swap", fixed={"swap": "disk"}, runs=1, warmups=0))
    study: Any = SimpleNamespace(experiment=experiment)
    line = {"event": "sample", "t_ns": 1, "phase": "fill", "done": 3, "MemAvailable": 512, "pgmajfault": 7}
    with experiment._live("disk, seed 1", SwapFactors()) as hear:
        hear(Message(0, line))
        hear(Message(0, {"event": "sample", "nonsense": []}))
        hear(Message(0, {"event": "knob"}))
        (found,) = samples_of_study(study)["disk, seed 1"]
        assert (found["memavailable_bytes"], found["major_faults"]) == (512 << 10, 7)
    assert samples_of_study(study) == {}
    assert samples_of_study(SimpleNamespace(experiment=object())) == {}  # type: ignore[arg-type]
    GuestCurves(study)._ipython_display_()  # without a person: nothing


def test_the_view_draws_until_the_study_has_ended() -> None:
    state = SimpleNamespace(phase="running")
    guests = {"disk, seed 1": (sample(0), sample(1))}
    study: Any = SimpleNamespace(state=state, experiment=SimpleNamespace(samples=lambda: guests))
    (curves,) = GuestCurves(study).widget().children[0].children
    deadline = time.monotonic() + 300
    while "disk, seed 1" not in curves.value:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    state.phase = "done"
    (thread,) = [one for one in threading.enumerate() if one.name == "acon-curves"]
    thread.join(30)
    assert not thread.is_alive()
