from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from acon_nb.bench.boot import BootRun
from acon_nb.bench.results import SCHEMA, Store, flat, frame
from acon_nb.errors import InvalidInput, ResultsError
from acon_nb.vm import Clock, End


def row(number: int, **values: Any) -> dict[str, Any]:
    stamp = {"schema": SCHEMA, "run_id": f"run{number}", "timestamp": f"2026-01-0{number}T00:00:00+00:00"}
    return {**stamp, **values}


def test_rows_come_back_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "new/results")
    for number, text in ((3, "c"), (1, "a"), (2, None)):
        path = store.add("boot", row(number, text=text, count=number, share=0.5))
        assert path == tmp_path / f"new/results/boot/run{number}.parquet"
    table = Store(tmp_path / "new/results").load("boot")
    assert list(table["run_id"]) == ["run1", "run2", "run3"]
    assert list(table["count"]) == [1, 2, 3]
    assert table["text"][0] == "a"
    assert table["text"].isna()[1]
    assert sorted(os.listdir(store.folder / "boot")) == ["run1.parquet", "run2.parquet", "run3.parquet"]


def test_rows_with_other_columns_stand_beside_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add("boot", row(1, a=1))
    store.add("boot", row(2, b="x"))
    table = store.load("boot")
    assert len(table) == 2
    assert {"a", "b"} <= set(table.columns)


def test_kinds_are_apart_and_no_rows_are_an_empty_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add("boot", row(1))
    assert store.load("swap").empty
    assert len(store.load("boot")) == 1


def test_a_measured_boot_is_kept_with_its_phases(tmp_path: Path) -> None:
    run = BootRun(
        name="guide",
        clock=Clock.INSTRUCTIONS,
        end=End.POWERED_OFF,
        accelerator="tcg",
        guest_ns={"init": 800_000_001, "ready": 2**53 + 1},
        console=tmp_path / "console.log",
    )
    store = Store(tmp_path / "results")
    store.add("boot", row(1, **flat(run)))
    (found,) = store.load("boot").to_dict("records")
    assert (found["clock"], found["end"]) == ("instructions", "powered off")
    assert (found["guest_ns_init"], found["guest_ns_ready"]) == (800_000_001, 2**53 + 1)
    assert found["console"] == str(tmp_path / "console.log")


def test_nested_values_become_plain_columns() -> None:
    class Colour(StrEnum):
        RED = "red"

    @dataclass
    class Inner:
        size: int

    @dataclass
    class Outer:
        inner: Inner
        colour: Colour
        words: tuple[str, ...]
        numbers: dict[str, int]

    assert flat(Outer(Inner(3), Colour.RED, ("a", "b"), {"x": 1})) == {
        "inner_size": 3, "colour": "red", "words": "a\nb", "numbers_x": 1
    }  # fmt: skip


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "middle"])
def test_a_damaged_file_is_named_and_the_way_out_too(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.add("boot", row(1))
    path = store.add("boot", row(2, text="x" * 100))
    raw = path.read_bytes()
    middle = raw[:4] + b"\xff" * (len(raw) - 12) + raw[-8:]
    path.write_bytes({"empty": b"", "cut": raw[: len(raw) // 2], "text": b"run_id,1\n", "middle": middle}[damage])
    with pytest.raises(ResultsError, match=r"run2\.parquet is damaged") as caught:
        store.load("boot")
    assert "move it away" in caught.value.hint


@pytest.mark.parametrize("values", [{"schema": SCHEMA + 1}, {"schema": None}])
def test_a_file_of_another_schema_is_named(tmp_path: Path, values: dict[str, Any]) -> None:
    store = Store(tmp_path)
    store.add("boot", row(1) | values)
    with pytest.raises(ResultsError, match=r"run1\.parquet has another schema"):
        store.load("boot")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below", Path("/proc/nowhere")):
        with pytest.raises(InvalidInput, match=f"out='{folder}'"):
            Store(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidInput, match="cannot be written"):
        Store(tmp_path)


def test_rows_as_a_table() -> None:
    assert list(frame([{"a": 1}, {"a": 2}])["a"]) == [1, 2]
    assert frame([]).empty
