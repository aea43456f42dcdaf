"""Profiles of nights: a cell whose profile changed has a flame graph of the difference; equal ones have none."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from acon_nb import results
from acon_nb.profile import FunctionCount, Profile, nights
from acon_nb.results.store import SCHEMA, Store


def profile(count: int) -> bytes:
    function = FunctionCount(name="get_page", phase="kernel", self_count=count, file="mm/page_alloc.c")
    return Profile(total=count, phases=("kernel",), functions=(function,)).encoded()


def night_of(folder: Path, night: int, counts: dict[str, int | None]) -> pd.DataFrame:
    """The rows of a night, with a profile for each cell that has a count."""
    store = Store(folder)
    for number, (cell, count) in enumerate(counts.items()):
        row = {
            "schema": SCHEMA, "run_id": f"{night}-{number}", "timestamp": f"2026-01-{night:02d}T00:00:0{number}",
            "study": "quick", "session": f"2026-01-{night:02d}", "cell": cell, "clock": "instructions", "block": 0,
            "host_class": "h", "end": "powered_off", "error": "", "host_fault": "", "warmup": False,
        }  # fmt: skip
        store.add("boot", row | store.keep_profile(profile(count) if count else b""))
    rows = results.load(folder)
    return rows[rows["session"] == f"2026-01-{night:02d}"]


def test_a_cell_that_changed_has_a_flame_graph_of_the_last_two_nights(tmp_path: Path) -> None:
    history, reports = tmp_path / "history", tmp_path / "reports"
    assert nights.write_differences(night_of(history, 1, {"a": 900, "b": 500}), history, reports) == []
    assert len(nights.write_differences(night_of(history, 2, {"a": 1000, "b": 500}), history, reports)) == 1
    (sentence,) = nights.write_differences(night_of(history, 3, {"a": 1250, "b": 500, "c": 7}), history, reports)
    assert sentence.startswith("a: 1,000 -> 1,250 instructions: +250 (+25 %)")
    page = Path(sentence.rpartition(": ")[2])
    assert "Difference: +250 instructions" in page.read_text()


def test_nights_without_profiles_have_none(tmp_path: Path) -> None:
    night_of(tmp_path, 1, {"a": None})
    assert nights.write_differences(night_of(tmp_path, 2, {"a": None}), tmp_path, tmp_path) == []
