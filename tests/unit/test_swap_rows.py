"""Rows of swap cells that ended well and badly, from what guests said."""

from __future__ import annotations

import pandas as pd
import pytest

from acon_nb.bench.metrics import metric
from acon_nb.bench.swap import SwapFactors, rows, tables
from acon_nb.bench.swap.experiment import determinism
from acon_nb.vm import End
from tests.unit.test_swap_load import outcome_of

MIB = 1 << 20


def snapshot(phase: str, done: int, *, stored: int = 0, faults: int = 0, reads: int = 0, ticks: int = 0) -> dict:
    return {
        "event": "snapshot",
        "phase": phase,
        "done": done,
        "t_ns": 1000 * done,
        "vmstat": {"pgmajfault": faults, "pswpin": reads, "oom_kill": 0},
        "meminfo_kib": {"MemTotal": 100_000, "MemAvailable": 50_000, "SwapTotal": 9000, "SwapFree": 8000},
        "zswap": {"pool_total_size": stored // 2, "stored_pages": stored // 4096},
        "zram_mm_stat": f"{stored} {stored // 3} {stored // 2} 0 {stored} 1 0 2 2",
        "disk_read_sectors": 8 * reads,
        "disk_written_sectors": 0,
        "psi_some_us": 5,
        "psi_full_us": 4,
        "kswapd_cpu_ns": 1000,
        "cpu_ticks": {"user": ticks, "system": 2 * ticks, "idle": ticks, "iowait": ticks},
    }


def timing(name: str, count: int) -> dict:
    histogram = [[1000, count]] if count else []
    return {
        "event": "timing",
        "name": name,
        "count": count,
        "total_ns": 1000 * count,
        "max_ns": 1000,
        "histogram_ns": histogram,
    }


def result(**more: object) -> dict:
    whole = {
        "phase": "end",
        "done": 10,
        "t_ns": 9,
        "fill_ns": 1_000_000,
        "access_ns": 2_000_000,
        "things": 10,
        "corrupt": 0,
    }
    return {"event": "result", **whole, **more}


WHOLE = [
    snapshot("fill", 0),
    snapshot("settle", 0, stored=8 * MIB, faults=1, reads=1),
    snapshot("warm-up", 10, stored=8 * MIB, faults=3, reads=5, ticks=1),
    snapshot("access", 10, stored=8 * MIB, faults=9, reads=25, ticks=3),
    snapshot("end", 10, faults=9, reads=25, ticks=3),
    timing("fill", 10),
    timing("hit", 4),
    timing("fault", 6),
    result(),
]


@pytest.mark.parametrize("swap", ["zram", "zswap"])
def test_counters_are_those_of_the_measured_half_and_the_pool_is_seen_while_it_is_held(swap: str) -> None:
    row = rows.row_of(SwapFactors(swap=swap), outcome_of(WHOLE))
    assert (row["major_faults"], row["pswpin_pages"], row["fill_pswpin_pages"]) == (6, 20, 1)
    assert row["disk_read_bytes"] == 20 * 4096
    assert (row["pool_bytes"], row["pool_stored_bytes"], row["saved_bytes"]) == (4 * MIB, 8 * MIB, 4 * MIB)
    assert row["compression_ratio"] == 2
    assert (row["user_cpu_ns"], row["idle_cpu_ns"], row["iowait_cpu_ns"]) == (20_000_000, 40_000_000, 20_000_000)
    assert row["access_ops_per_s"] == 10 / 0.002
    assert row["hit_count"] + row["fault_count"] == row["access_count"] == 10


def test_pages_on_zrams_backing_device_are_not_in_its_pool() -> None:
    said = [{**event, "zram_bd_stat": "1024 0 1024"} if "vmstat" in event else event for event in WHOLE]
    row = rows.row_of(SwapFactors(swap="zram", zram_writeback="huge"), outcome_of(said))
    assert (row["pool_stored_bytes"], row["backing_stored_bytes"]) == (4 * MIB, 4 * MIB)


def test_a_disk_has_no_pool_and_what_is_not_counted_is_not_there() -> None:
    row = rows.row_of(SwapFactors(swap="disk"), outcome_of(WHOLE))
    assert not {"pool_bytes", "saved_bytes", "compression_ratio", "zswpin_pages"} & set(row)


def test_what_was_killed_keeps_its_partial_counters() -> None:
    said = [
        snapshot("fill", 0),
        {**snapshot("fill", 7, stored=6 * MIB), "event": "sample"},
        snapshot("fill", 8, faults=2),
        timing("fill", 8),
        timing("hit", 0),
        timing("fault", 0),
        result(phase="fill", done=8, access_ns=0, things=0, signal=9),
    ]
    outcome = outcome_of(said)
    end, error = rows.end_of(said, outcome)
    assert (end, error) == (End.OUT_OF_MEMORY, "killed by the OOM killer in fill after 8")
    row = rows.row_of(SwapFactors(swap="zswap"), outcome)
    assert (row["fill_count"], row["fill_major_faults"], row["pool_stored_bytes"]) == (8, 2, 6 * MIB)
    assert "access_ops_per_s" not in row
    assert "major_faults" not in row


def test_a_guest_that_makes_no_progress_hangs_wherever_it_ended() -> None:
    stall = {**snapshot("fill", 5), "event": "stall"}
    said = [snapshot("fill", 0), stall, result(phase="fill", done=5)]
    assert rows.end_of(said, outcome_of(said))[0] is End.HANG
    silent = [snapshot("fill", 0)]
    assert rows.end_of(silent, outcome_of(silent, End.HANG))[0] is End.HANG
    row = rows.row_of(SwapFactors(), outcome_of(silent, End.HANG))
    assert row["memtotal_bytes"] == 100_000 * 1024
    assert "counters_sha256" not in row


def test_a_knob_that_the_kernel_lacks_is_named() -> None:
    said = [{"event": "error", "what": "this kernel has no /sys/x (shrinker)"}]
    assert "(shrinker)" in rows.end_of(said, outcome_of(said))[1]
    assert rows.end_of([], outcome_of([]))[1] == "powered off without a result"


def test_equal_runs_have_equal_hashes_and_one_counter_more_is_another() -> None:
    other = [*WHOLE[:-1], result(corrupt=1)]
    assert rows.digest(WHOLE) == rows.digest(list(WHOLE))
    assert rows.digest(WHOLE) != rows.digest(other)


def table_of(*cells: dict[str, object]) -> pd.DataFrame:
    base = {f"factor_{name}": level for name, level in SwapFactors().levels().items()}
    row = rows.row_of(SwapFactors(swap="zswap"), outcome_of(WHOLE))
    common = {"clock": "instructions", "end": "powered off", "error": "", "warmup": False, "host_fault": "", "seed": 1}
    names = {"cell": "a", "configuration": "zswap lz4", "counters_sha256": "x"}
    return pd.DataFrame([{**base, **row, **common, **names, **cell} for cell in cells])


def test_copies_of_a_cell_are_compared_by_seed() -> None:
    table = table_of({}, {"factor_copy": "again"}, {"seed": 2}, {"seed": 2, "factor_copy": "again"})
    assert list(determinism(table)["same"]) == [True, True]
    table.loc[3, "counters_sha256"] = "y"
    assert list(determinism(table)["same"]) == [True, False]
    assert tables.determinism_lines(table)[0].startswith("Determinism FAILS: only 1 of 2")
    assert tables.determinism_lines(table_of({})) == []


def test_tables_say_what_people_ask() -> None:
    table = tables.swap_table(table_of({}, {"seed": 2}, {"factor_copy": "again"}, {"factor_workload": "codec"}))
    (row,) = table.to_dict("records")
    assert row["swap"] == "zswap lz4"
    assert row["accesses/s"] == "5,000 [5,000, 5,000], n=2"
    assert row["pool"] == "4.0 MiB, saves 4.0 MiB"
    codec = {f"codec_{where}_{name}_ns": 1000.0 for where in ("host", "guest") for name in ("lzo", "lz4", "zstd")}
    lines = tables.calibration_lines(table_of({"factor_workload": "codec", "dilation": 9.0, **codec}))
    assert lines[0].startswith("Calibration, instructions clock: the guest's time is 9 times the host's")


@pytest.mark.parametrize("name", ["access_ops_per_s", "fault_p99_ns", "saved_bytes", "pswpin_pages", "kswapd_cpu_ns"])
def test_measures_of_a_swap_study_are_known_and_never_exact(name: str) -> None:
    found = metric(name)
    assert found.label
    assert not found.is_exact("instructions")  # replicates are seeds
