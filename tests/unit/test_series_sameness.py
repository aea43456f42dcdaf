"""Guests whose counts differ although all code that ran and all data are the same, and those where something is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acon_nb.changes import series_text, suite, verdict
from acon_nb.changes.series import SeriesReport, SeriesStep
from acon_nb.changes.verdict import CellChange, SeriesVerdict
from acon_nb.profile import FunctionCount, Profile, code, data

ADDRESS = (0xFFFF_FFFF_8123_4567).to_bytes(8, "little")


def compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, other: tuple[str, ...] | None, *, same_data: bool, end: str = "x"
) -> CellChange:
    """A swap guest that swapped 1,000 pages with one kernel and 2,000 with the other."""
    (cell,) = (one for one in suite.cells("quick") if one.name == "memhog, zram, high")
    rows: list[dict[str, Any]] = []
    for number, count in ((1, 1_000), (2, 2_000)):
        counts = (FunctionCount(name="shrink_folio_list", phase="measured", self_count=9 * count, file="mm/vmscan.c"),)
        path, kernel = folder / f"{number}.json", folder / f"bzImage{number}"
        Profile(total=9 * count, phases=("measured",), functions=counts).save(path)
        kernel.write_bytes(bytes(number))
        row = {"executed_ns": 9 * count, "pswpout_pages": count, "profile": str(path), "factor_kernel": str(kernel)}
        rows.append({**row, "end": "powered_off" if number == 1 or end == "x" else end})
    asked: list[set[str]] = []
    monkeypatch.setattr(code, "other_code", lambda kernels, names: asked.append(set(names)) or other)
    monkeypatch.setattr(data, "are_equal", lambda *_: same_data)
    (change,) = verdict.compare([cell], *({cell.name: row} for row in rows))
    assert asked == [{"shrink_folio_list"}]
    return change


def text_of(change: CellChange) -> str:
    step = SeriesStep(name="a", subject="b")
    report = SeriesReport(
        suite="quick", verdict=verdict.whole([change]), base=step, head=step, count=1, cells=(change,), each=(),
        environment={}, same_image=False,
    )  # fmt: skip
    return " ".join(series_text.plain(report).split())


def test_other_numbers_of_the_same_code_and_data_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = compared(tmp_path, monkeypatch, (), same_data=True)
    assert change.verdict is SeriesVerdict.LAYOUT
    assert change.layout_change + change.timing_change == 9_000
    text = text_of(change)
    assert "equal, but for +0 instructions of layout and +9,000 of timing" in text
    assert "free memory" in text
    assert "2,000" in text  # what was counted is shown all the same


@pytest.mark.parametrize(
    ("other", "same_data", "said"),
    [
        (("shrink_folio_list",), True, "of what ran, other code have shrink_folio_list"),
        ((), False, "no function that ran has other code; the kernels' data differ"),
        (None, True, "shrink_folio_list"),
    ],
)
def test_other_code_or_data_are_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: tuple[str, ...] | None, same_data: bool, said: str
) -> None:
    change = compared(tmp_path, monkeypatch, other, same_data=same_data)
    assert change.verdict is SeriesVerdict.DIFFERENT
    assert change.values()["other_code"] == (None if other is None else list(other))
    assert said in text_of(change)


def test_a_guest_that_ends_otherwise_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = compared(tmp_path, monkeypatch, (), same_data=True, end="out_of_memory")
    assert change.verdict is SeriesVerdict.DIFFERENT


@pytest.mark.parametrize("offset", [0, 2, 5])
def test_a_value_is_compared_without_its_addresses(offset: int) -> None:
    def value(address: bytes, number: int) -> bytes:
        return data.without_addresses(b"\1" * offset + address + number.to_bytes(4, "little") + bytes(3))

    moved = (0xFFFF_FFFF_8765_4321).to_bytes(8, "little")
    assert value(ADDRESS, 60) == value(moved, 60)
    assert value(ADDRESS, 60) != value(ADDRESS, 100)
    assert value(bytes([255] * 8), 60) != value(bytes(8), 60)
    assert value(ADDRESS, 60) != value(bytes(8), 60)
