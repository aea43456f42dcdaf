"""The memory table: a real guest's report adds up to the byte, and no report breaks it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.boot import memory
from acon_nb.errors import InvalidInput
from acon_nb.guest import kernel_log
from acon_nb.guest.kernel_log import Record
from acon_nb.results import columns
from acon_nb.results.metrics import metric

RAM = 512 << 20
# What Debian's 6.1 kernel reported from a q35 of 512 MiB.
MESSAGES = json.loads((Path(__file__).with_name("data") / "boot_report.json").read_text())
REPORT: dict[str, Any] = MESSAGES[0]
LOG = kernel_log.of_messages(MESSAGES)


def row(report: dict[str, Any] = REPORT) -> dict[str, Any]:
    found = memory.parts(report, LOG, RAM)
    info = report["meminfo_kib"]
    return {
        "memory_bytes": RAM,
        "memtotal_bytes": 1024 * info["MemTotal"],
        "memavailable_bytes": 1024 * info["MemAvailable"],
        **{f"mem_{name}_bytes": size for name, size in found.items()},
    }


def test_a_real_guests_parts_add_up_to_the_byte_and_none_is_below_zero() -> None:
    found = memory.parts(REPORT, LOG, RAM)
    assert sum(found.values()) + 1024 * REPORT["meminfo_kib"]["MemAvailable"] == RAM
    assert min(found.values()) >= 0


def test_what_the_kernel_calls_available_is_worked_out_exactly() -> None:
    assert memory.parts(REPORT, LOG, RAM)["unsettled"] == 0


def test_the_parts_are_those_that_the_guests_kernel_names() -> None:
    found = memory.parts(REPORT, LOG, RAM)
    # "Memory: 219888K/523768K available (14343K kernel code, 2327K rwdata, 8348K rodata, 2612K init, 5436K bss, ..."
    assert [found[name] >> 10 for name in ("text", "rodata", "data", "bss")] == [14343, 8348, 2327, 5436]
    assert found["firmware"] == RAM - 523768 * 1024
    assert found["percpu_first"] == 61 * 4096
    assert found["early_hashes"] == 524288 + 262144
    assert found["memmap"] == 64 * RAM // 4096
    assert found["initrd"] == 0


def test_an_initrd_that_is_kept_has_its_part() -> None:
    log = [record for record in LOG if "Freeing initrd" not in record.text]
    found = memory.parts(REPORT, log, RAM)
    assert found["initrd"] == 0x1FFDFFFF - 0x1FCC8000 + 1
    assert sum(found.values()) + 1024 * REPORT["meminfo_kib"]["MemAvailable"] == RAM


def test_a_tds_bounce_buffer_and_a_long_log_have_theirs() -> None:
    more = [
        Record(0, "printk: log_buf_len: 4194304 bytes"),
        Record(0, "software IO TLB: mapped [mem 0x0000000018000000-0x000000001c000000] (64MB)"),
    ]
    found = memory.parts(REPORT, [*LOG, *more], RAM)
    # seen: 6.1 and 6.12 with log_buf_len=4M reserve 18 MiB more
    assert (found["log"], found["swiotlb"]) == (18 << 20, 64 << 20)


def test_kernel_stacks_are_not_counted_twice() -> None:
    plain = copy.deepcopy(REPORT)
    plain["vmalloc"]["stack_areas"] = 0
    stacks = 1024 * REPORT["meminfo_kib"]["KernelStack"]
    assert memory.parts(plain, LOG, RAM)["vmalloc"] - memory.parts(REPORT, LOG, RAM)["vmalloc"] == stacks


def test_the_table_goes_from_the_ram_to_memavailable_and_leaves_nothing_out() -> None:
    table = memory.memory_table(row())
    assert list(table["part"].iloc[[0, -1]]) == ["RAM of the guest", "MemAvailable"]
    total = table.index[table["part"] == "MemTotal"][0]
    assert table["bytes"].iloc[:total].sum() == table["bytes"].iloc[total]
    assert table["bytes"].iloc[total:-1].sum() == table["bytes"].iloc[-1]
    assert all(table["why"])


def test_the_sentences_name_the_largest() -> None:
    said = memory.sentences(row())
    assert "437.8 MiB of 512.0 MiB are available" in said[0]
    assert "kernel: code (14.0 MiB)" in said[1]


def test_a_row_without_the_parts_is_refused() -> None:
    with pytest.raises(InvalidInput, match="where its memory went"):
        memory.memory_table({"memory_bytes": RAM, "name": "old"})
    with pytest.raises(InvalidInput, match="where its memory went"):
        memory.memory_table({**row(), "mem_text_bytes": float("nan")})


def test_each_part_is_a_measure_with_words() -> None:
    assert metric("mem_text_bytes").label == "kernel: code"
    (words,) = [column.words for column in columns.columns() if column.name == "mem_*_bytes"]
    assert list(words) == [part.name for part in memory.all_parts()]
    for part in memory.all_parts():
        assert part.why
        assert part.source


def test_the_kernels_place_is_known_where_root_may_see_it() -> None:
    assert memory.kernel_start(REPORT) == 0x6C00000
    assert memory.kernel_start({"iomem": "00000000-00000000 : Kernel code"}) is None
    assert memory.kernel_start({}) is None


@pytest.mark.parametrize("missing", ["zoneinfo", "meminfo_kib", "page_bytes"])
def test_an_old_report_has_no_parts(missing: str) -> None:
    assert memory.parts({key: value for key, value in REPORT.items() if key != missing}, LOG, RAM) == {}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)
LINES = st.text(alphabet="Node 0, zone DMA32\nprotection: (0,42)managedpresentcounthigh 7-:f", max_size=300)


@settings(deadline=None)
@given(st.sampled_from(sorted(REPORT)), JUNK | LINES)
def test_a_hostile_report_adds_up_or_has_no_parts(field: str, value: object) -> None:
    found = memory.parts({**REPORT, field: value}, LOG, RAM)
    if found:
        info = REPORT["meminfo_kib"] if field != "meminfo_kib" else value
        assert isinstance(info, dict)
        available = info["MemAvailable"]
        assert sum(found.values()) + 1024 * (available if isinstance(available, int) and available > 0 else 0) == RAM


@settings(deadline=None)
@given(LINES, LINES)
def test_any_zoneinfo_and_iomem_are_read(zones: str, iomem: str) -> None:
    memory.read_zones(zones)
    memory.read_iomem(iomem)
    memory.parts({**REPORT, "zoneinfo": REPORT["zoneinfo"] + zones, "iomem": iomem}, LOG, RAM)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.text(alphabet="Memory: hash table entries(linear,)0123 bytes", max_size=80))
    )
)
def test_any_log_adds_up(items: list[tuple[int, str]]) -> None:
    found = memory.parts(REPORT, [Record(us, text) for us, text in items], RAM)
    assert sum(found.values()) + 1024 * REPORT["meminfo_kib"]["MemAvailable"] == RAM
