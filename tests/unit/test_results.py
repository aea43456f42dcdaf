from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acon_nb.boot.cell import BootRun
from acon_nb.errors import InvalidInput, ResultsError
from acon_nb.results import columns, parquet
from acon_nb.results.columns import Column
from acon_nb.results.export import export
from acon_nb.results.parquet import SCHEMA
from acon_nb.results.store import Store, flat, frame, stamp
from acon_nb.study.faults import NOT_BUILT, HostFault
from acon_nb.vm import Clock, End, end_text


def row(number: int, **values: Any) -> dict[str, Any]:
    stamp = {"schema": SCHEMA, "run_id": f"run{number}", "timestamp": f"2026-01-0{number}T00:00:00+00:00"}
    return {**stamp, **values}


def test_rows_come_back_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "new/results")
    for number, text in ((3, "c"), (1, "a"), (2, None)):
        path = store.add("boot", row(number, text=text, count=number, share=0.5))
        assert path == tmp_path / f"new/results/boot/date=2026-01-0{number}/study=single/run{number}.parquet"
    table = Store(tmp_path / "new/results").load("boot")
    assert list(table["run_id"]) == ["run1", "run2", "run3"]
    assert list(table["count"]) == [1, 2, 3]
    assert table["text"][0] == "a"
    assert table["text"].isna()[1]
    left = [path.name for path in (store.folder / "boot").rglob("*") if path.is_file()]
    assert sorted(left) == ["run1.parquet", "run2.parquet", "run3.parquet"]


def test_rows_with_other_columns_stand_beside_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add("boot", row(1, a=1))
    store.add("boot", row(2, b="x"))
    table = store.load("boot")
    assert len(table) == 2
    assert {"a", "b"} <= set(table.columns)


def test_many_files_are_read_as_one_table_whatever_their_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MOST_TABLES", 3)
    store = Store(tmp_path)
    for number in range(10):
        store.add("boot", row(number, a=number if number % 2 else f"text {number}", **{f"only_{number}": 1}))
    table = store.load("boot")
    assert list(table["a"]) == ["text 0", 1, "text 2", 3, "text 4", 5, "text 6", 7, "text 8", 9]
    assert list(table["only_7"].notna()) == [number == 7 for number in range(10)]


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
    assert (found["clock"], found["end"]) == ("instructions", "powered_off")
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
def test_a_damaged_file_is_set_aside_and_breaks_nothing(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    store.add("boot", row(1))
    path = store.add("boot", row(2, text="x" * 100))
    raw = path.read_bytes()
    middle = raw[:4] + b"\xff" * (len(raw) - 12) + raw[-8:]
    damaged = {"empty": b"", "cut": raw[: len(raw) // 2], "text": b"run_id,1\n", "middle": middle}[damage]
    path.write_bytes(damaged)
    table = store.load("boot")
    assert list(table["run_id"]) == ["run1"]
    aside = path.with_suffix(".torn")
    assert table.attrs["set_aside"] == [str(aside)]
    assert aside.read_bytes() == damaged
    assert "run2.parquet is damaged and was set aside" in caplog.text
    assert store.load("boot").attrs["set_aside"] == []


@pytest.mark.parametrize("values", [{"schema": SCHEMA + 1}, {"schema": None}])
def test_a_file_of_another_schema_is_named(tmp_path: Path, values: dict[str, Any]) -> None:
    store = Store(tmp_path)
    store.add("boot", row(1) | values)
    with pytest.raises(ResultsError, match=r"run1\.parquet has another schema"):
        store.load("boot")


def test_rows_of_the_first_schema_are_read(tmp_path: Path) -> None:
    old = row(1) | {"schema": 1}
    (tmp_path / "boot").mkdir()
    pq.write_table(pa.Table.from_pylist([old]), tmp_path / "boot/run1.parquet")
    (found,) = Store(tmp_path).load("boot").to_dict("records")
    assert (found["schema"], found["study"]) == (SCHEMA, "single")


@pytest.mark.parametrize(
    ("end", "fault", "codes"),
    [
        ("powered off", "", ("powered_off", "")),
        ("out of memory", "", ("out_of_memory", "")),
        ("panic", "", ("panic", "")),
        ("QEMU failed", "the host is out of memory", ("qemu_failed", "host_out_of_memory")),
        ("killed", "killed from outside", ("killed", "killed_from_outside")),
        ("killed", "the worker tcp://host1:4001 was lost", ("killed", "worker_lost")),
        ("QEMU failed", "no space left under /cache", ("qemu_failed", "host_cannot_run")),
        ("not built", "", ("not_built", "")),
    ],
)
def test_the_prose_of_the_second_schema_is_read_as_codes(
    tmp_path: Path, end: str, fault: str, codes: tuple[str, str]
) -> None:
    (tmp_path / "boot").mkdir()
    new = row(2) | {"end": "powered_off", "host_fault": ""}
    for values in (row(1) | {"schema": 2, "study": "single", "end": end, "host_fault": fault}, new):
        pq.write_table(pa.Table.from_pylist([values]), tmp_path / f"boot/{values['run_id']}.parquet")
    old, today = Store(tmp_path).load("boot").to_dict("records")
    assert (old["end"], old["host_fault"]) == codes
    assert (today["end"], old["schema"], today["schema"]) == ("powered_off", SCHEMA, SCHEMA)


def test_a_column_is_found_by_its_name_of_today_in_rows_of_the_second_schema(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    old = row(1) | {"schema": 2, "study": "single", "turn_key": "k"}
    pq.write_table(pa.Table.from_pylist([old]), tmp_path / "boot/run1.parquet")
    for only in (None, ["run_key"]):
        table = Store(tmp_path).load("boot", only=only)
        assert (list(table["run_key"]), "turn_key" in table) == (["k"], False)


def test_every_end_has_a_code_for_files_and_words_for_people() -> None:
    assert all(re.fullmatch(r"[a-z_]+", end) for end in [*End, *HostFault, NOT_BUILT])
    assert (End.QEMU_FAILED.text, End.STOPPED.text) == ("QEMU failed", "stopped by the host")
    assert (end_text("not_built"), End.OUT_OF_MEMORY.text) == ("not built", "out of memory")


@pytest.mark.parametrize(("column", "value"), [("cell", 3), ("attempt", "one"), ("warmup", 1), ("guest_ns_init", "1")])
def test_a_documented_column_has_its_type(tmp_path: Path, column: str, value: object) -> None:
    store = Store(tmp_path)
    store.add("boot", row(1, **{column: value}))
    with pytest.raises(ResultsError, match=f"{column}={value!r} is not "):
        store.load("boot")


def test_studies_are_apart_and_their_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.add("boot", row(1, study="a"))
    store.add("boot", row(2, study="b"))
    store.add("boot", row(3, study="../../x"))
    assert list(store.load("boot", "b")["run_id"]) == ["run2"]
    assert list(store.load("boot", "../../x")["run_id"]) == ["run3"]
    assert len(store.load("boot")) == 3
    assert store.studies("boot") == ["..-..-x", "a", "b"]
    assert os.listdir(tmp_path) == ["results"]
    assert store.log_path(row(1, study="../x")) == Path("logs/..-x/run1.log")


def test_past_days_are_gathered_and_nothing_is_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(1, 7):
        day = f"2026-01-0{1 + number // 4}T00:00:0{number}+00:00"
        store.add("boot", row(number, count=number) | {"timestamp": day} | ({"only": "x"} if number == 2 else {}))
    before = store.load("boot")
    assert store.compact("boot", before=dt.date(2026, 1, 2)) == 3
    assert len(list(tmp_path.rglob("*.parquet"))) == 4
    after = store.load("boot")
    assert list(after["run_id"]) == list(before["run_id"])
    assert list(after["only"].dropna()) == ["x"]
    assert store.compact("boot", before=dt.date(2026, 1, 2)) == 0


def test_a_row_that_is_in_two_files_counts_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.add("boot", row(1))
    path.with_name("all-x.parquet").write_bytes(path.read_bytes())
    assert len(store.load("boot")) == 1


WRITER = """
import sys
from pathlib import Path
from acon_nb.results.store import SCHEMA, Store
store = Store(Path(sys.argv[1]))
for number in range(25):
    stamp = {"schema": SCHEMA, "run_id": f"{sys.argv[2]}-{number}", "timestamp": "2026-01-01T00:00:00+00:00"}
    paths = [store.add("boot", {**stamp, "number": number})]
    if number % 5 == 4:
        store.compact("boot")
"""


def test_many_processes_write_and_gather_and_a_reader_never_misses_a_row(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, str(name)]) for name in range(4)]
    seen: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        table = Store(tmp_path).load("boot")
        now = set() if table.empty else set(table["run_id"])
        assert seen <= now, "a row that was there is gone"
        assert len(now) == len(table), "a row is there twice"
        seen = now
    assert [writer.returncode for writer in writers] == [0] * 4
    assert len(Store(tmp_path).load("boot")) == 100


def test_a_file_that_the_system_refuses_is_no_damaged_one(tmp_path: Path) -> None:
    path = Store(tmp_path).add("boot", row(1))
    path.with_name("folder.parquet").mkdir()
    with pytest.raises(ResultsError, match=r"folder\.parquet cannot be read: Is a directory"):
        Store(tmp_path).load("boot")
    assert path.with_name("folder.parquet").is_dir()


def test_a_column_may_be_a_text_in_one_row_and_a_number_in_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, level in enumerate(["256M", 256, 1.5, None], start=1):
        store.add("boot", row(number, factor_memory=level) | {"timestamp": f"2026-01-01T00:00:0{number}+00:00"})
    for _ in range(2):
        table = store.load("boot")
        assert list(table["factor_memory"][:3]) == ["256M", 256, 1.5]
        assert table["factor_memory"].isna()[3]
        store.compact("boot")
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_a_row_without_its_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    pq.write_table(pa.Table.from_pylist([{"schema": SCHEMA, "cell": "a"}]), tmp_path / "boot/x.parquet")
    with pytest.raises(ResultsError, match=r"x\.parquet has no run_id, timestamp"):
        Store(tmp_path).load("boot")


def test_some_columns_alone_are_read(tmp_path: Path) -> None:
    Store(tmp_path).add("boot", row(1, study="s", a=1, b=2))
    table = Store(tmp_path).load("boot", "s", only=["a", "none"])
    assert set(table) == {"schema", "run_id", "timestamp", "study", "a"}


@pytest.mark.parametrize(
    ("name", "words"),
    [("t.csv", "cell,time\na_b,1"), ("t.json", '"cell":"a_b"'), ("t.md", "| a_b "), ("t.tex", r"a\_b & 1")],
)
def test_a_table_is_exported_by_its_suffix(tmp_path: Path, name: str, words: str) -> None:
    assert words in export(frame([{"cell": "a_b", "time": 1}]), tmp_path / name).read_text()


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no suffix of a known format"):
        export(frame([{"a": 1}]), tmp_path / "t.xls")
    assert not os.listdir(tmp_path)


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


def measure_words(column: Column) -> str:
    if column.unit is None:
        return ""
    unit = f" in {column.unit}" if column.unit else ""
    words = [f"{column.label.replace('{}', '...')}{unit}"]
    words += ["more is better"] if column.more_is_better else []
    words += [f"{column.clock} clock only"] if column.clock else []
    return ", ".join(words + (["exact"] if column.exact else []))


@pytest.mark.parametrize("owner", ["", "boot", "swap"])
def test_the_documented_columns_are_those_of_the_schema(owner: str) -> None:
    text = (Path(__file__).parents[2] / "docs/results.md").read_text()
    title = f"### Columns of {owner} studies" if owner else "## Columns"
    _, _, section = text.partition(f"\n{title}\n")
    documented = [line for line in section.partition("\n##")[0].splitlines() if line.startswith("| `")]
    (file,) = [file for file in columns.files() if file.owner == owner]
    assert documented == [
        f"| `{row.name}` | {row.type} | {row.meaning} | {measure_words(row)} |" for row in file.columns
    ]


def test_every_column_of_a_stamp_is_documented() -> None:
    assert [name for name in stamp() if columns.column_of(name) is None] == []
