"""Rows of swap cells that ended well and badly, from what guests said."""

from __future__ import annotations

import pandas as pd
import pytest

from acon_nb.results.metrics import metric
from acon_nb.swap import SwapFactors, guest_report, tables
from acon_nb.swap.experiment import determinism
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
    row = guest_report.row_of(SwapFactors(swap=swap), outcome_of(WHOLE))
    assert (row["major_faults"], row["pswpin_pages"], row["fill_pswpin_pages"]) == (6, 20, 1)
    assert row["disk_read_bytes"] == 20 * 4096
    assert (row["pool_bytes"], row["pool_stored_bytes"], row["saved_bytes"]) == (4 * MIB, 8 * MIB, 4 * MIB)
    assert row["compression_ratio"] == 2
    assert (row["user_cpu_ns"], row["idle_cpu_ns"], row["iowait_cpu_ns"]) == (20_000_000, 40_000_000, 20_000_000)
    assert row["access_ops_per_s"] == 10 / 0.002
    assert row["hit_count"] + row["fault_count"] == row["access_count"] == 10


def test_pages_on_zrams_backing_device_are_not_in_its_pool() -> None:
    said = [{**event, "zram_bd_stat": "1024 0 1024"} if "vmstat" in event else event for event in WHOLE]
    row = guest_report.row_of(SwapFactors(swap="zram", zram_writeback="huge"), outcome_of(said))
    assert (row["pool_stored_bytes"], row["backing_stored_bytes"]) == (4 * MIB, 4 * MIB)


def test_a_disk_has_no_pool_and_what_is_not_counted_is_not_there() -> None:
    row = guest_report.row_of(SwapFactors(swap="disk"), outcome_of(WHOLE))
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
    end, error = guest_report.end_of(said, outcome)
    assert (end, error) == (End.OUT_OF_MEMORY, "killed by the OOM killer in fill after 8")
    row = guest_report.row_of(SwapFactors(swap="zswap"), outcome)
    assert (row["fill_count"], row["fill_major_faults"], row["pool_stored_bytes"]) == (8, 2, 6 * MIB)
    assert "access_ops_per_s" not in row
    assert "major_faults" not in row


def test_a_guest_that_makes_no_progress_hangs_wherever_it_ended() -> None:
    stall = {**snapshot("fill", 5), "event": "stall"}
    said = [snapshot("fill", 0), stall, result(phase="fill", done=5)]
    assert guest_report.end_of(said, outcome_of(said))[0] is End.HANG
    silent = [snapshot("fill", 0)]
    assert guest_report.end_of(silent, outcome_of(silent, End.HANG))[0] is End.HANG
    row = guest_report.row_of(SwapFactors(), outcome_of(silent, End.HANG))
    assert row["memtotal_bytes"] == 100_000 * 1024
    assert "counters_sha256" not in row


def test_a_knob_that_the_kernel_lacks_is_named() -> None:
    said = [{"event": "error", "what": "this kernel has no /sys/x (shrinker)"}]
    assert "(shrinker)" in guest_report.end_of(said, outcome_of(said))[1]
    assert guest_report.end_of([], outcome_of([]))[1] == "powered off without a result"


def test_equal_runs_have_equal_hashes_and_one_counter_more_is_another() -> None:
    other = [*WHOLE[:-1], result(corrupt=1)]
    assert guest_report.digest(WHOLE) == guest_report.digest(list(WHOLE))
    assert guest_report.digest(WHOLE) != guest_report.digest(other)


@pytest.mark.parametrize(
    ("half_ns", "trend", "steady"),
    [
        (1_000_000, 0.0, True),
        (1_024_000, 0.0492, True),
        (1_026_000, 0.0534, False),
        (1_200_000, 0.5, False),
        (970_000, -0.0583, False),
    ],
)
def test_a_rate_is_steady_if_its_second_half_is_within_five_per_cent(half_ns: int, trend: float, steady: bool) -> None:
    row = guest_report.steadiness(result(done=10_000, half_ns=half_ns, warmed=30_000, rounds=0))
    assert row["rate_trend"] == pytest.approx(trend, abs=1e-4)
    assert (row["steady"], row["warmup_accesses"]) == (steady, 30_000)


@pytest.mark.parametrize(
    "more", [{}, {"half_ns": 0, "warmed": 0}, {"half_ns": 1000, "warmed": 5, "phase": "access"}, {"half_ns": 2_000_000}]
)
def test_a_guest_that_did_not_end_its_accesses_has_no_trend(more: dict[str, object]) -> None:
    assert guest_report.steadiness(result(**more)) == {}


def test_the_last_window_counts_and_those_before_it_warm_up() -> None:
    said = [
        snapshot("fill", 0),
        snapshot("settle", 0, reads=1),
        snapshot("warm-up", 10, reads=5),
        snapshot("warm-up", 10, reads=25),
        snapshot("access", 10, reads=30),
        snapshot("end", 10, reads=30),
        timing("hit", 10),
        timing("fault", 0),
        result(half_ns=1_000_000, warmed=20),
    ]
    row = guest_report.row_of(SwapFactors(until_steady=100_000), outcome_of(said))
    assert (row["pswpin_pages"], row["warmup_accesses"], row["steady"]) == (5, 20, True)


def test_reclaim_is_counted_over_the_accesses_and_over_the_fill() -> None:
    def counted(phase: str, times: int) -> dict[str, object]:
        counts = {
            "swap_ra": 8, "swap_ra_hit": 5, "workingset_refault_anon": 3, "workingset_refault_file": 2,
            "pgscan_kswapd": 100, "pgsteal_direct": 7, "allocstall_normal": 1, "allocstall_dma32": 2,
            "allocstall_movable": 0,
        }  # fmt: skip
        event = snapshot(phase, 10)
        return {**event, "vmstat": {**event["vmstat"], **{name: count * times for name, count in counts.items()}}}

    said = [counted("fill", 0), counted("settle", 1), counted("warm-up", 2), counted("access", 4), result()]
    row = guest_report.row_of(SwapFactors(), outcome_of(said))
    assert (row["swap_ra_pages"], row["swap_ra_hit_pages"], row["fill_swap_ra_pages"]) == (16, 10, 8)
    assert (row["workingset_refault_anon_pages"], row["workingset_refault_file_pages"]) == (6, 4)
    assert (row["pgscan_kswapd_pages"], row["pgsteal_direct_pages"]) == (200, 14)
    assert (row["allocstalls"], row["fill_allocstalls"]) == (6, 3)
    assert "pgscan_direct_pages" not in row


def table_of(*cells: dict[str, object]) -> pd.DataFrame:
    base = {f"factor_{name}": level for name, level in SwapFactors().levels().items()}
    row = guest_report.row_of(SwapFactors(swap="zswap"), outcome_of(WHOLE))
    common = {"clock": "instructions", "end": "powered_off", "error": "", "warmup": False, "host_fault": "", "seed": 1}
    names = {"cell": "a", "configuration": "zswap lz4", "counters_sha256": "x"}
    return pd.DataFrame([{**base, **row, **common, **names, **cell} for cell in cells])


def test_copies_of_a_cell_are_compared_by_seed() -> None:
    table = table_of({}, {"factor_copy": "again"}, {"seed": 2}, {"seed": 2, "factor_copy": "again"})
    assert list(determinism(table)["same"]) == [True, True]
    table.loc[3, "counters_sha256"] = "y"
    assert list(determinism(table)["same"]) == [True, False]
    assert tables.determinism_lines(table)[0].startswith("Determinism FAILS: only 1 of 2")
    assert tables.determinism_lines(table_of({})) == []


def test_guests_whose_faults_were_served_from_free_memory_are_named() -> None:
    balanced = {
        "access_count": 10_000, "pswpin_pages": 1_300, "zswpin_pages": 0, "swpin_zero_pages": 0,
        "pgsteal_kswapd_pages": 1_000, "pgsteal_direct_pages": 200,
    }  # fmt: skip
    between = {**balanced, "pgsteal_kswapd_pages": 165, "pgsteal_direct_pages": 0}
    burst = {**balanced, "pgsteal_kswapd_pages": 2_800}
    few = {**between, "pswpin_pages": 40}
    rows = table_of(
        balanced, {**between, "seed": 2}, {**burst, "seed": 3}, {**few, "seed": 4}, {"cell": "b", **balanced},
        {"factor_workload": "codec"},
    )  # fmt: skip
    (line,) = tables.reclaim_lines(rows)
    assert line.startswith("Reclaim: in 2 of 4 guests")
    assert ": a (2 of 4); " in line
    assert line in tables.checks(rows)
    assert tables.reclaim_lines(table_of(balanced)) == []
    assert tables.reclaim_lines(table_of({})) == []


def test_cells_that_are_not_steady_are_named_with_their_trend() -> None:
    rising = {"cell": "b", "configuration": "disk", "steady": False}
    rows = table_of(
        {"rate_trend": 0.02},
        {"rate_trend": 0.09, "seed": 2},
        {"rate_trend": -0.03, "seed": 3},
        *({**rising, "rate_trend": trend, "seed": seed} for seed, trend in enumerate((0.12, 0.03, 0.08), start=1)),
        {"factor_workload": "codec"},
    )
    (line,) = tables.steadiness_lines(rows)
    assert line.startswith("Steady state: 1 of 2 cells are not steady")
    assert "b (+8.0 %)" in line
    assert "until_steady" in line
    assert tables.steadiness_lines(rows[rows["cell"] == "a"]) == [
        "Steady state: in every cell the rate of the second half of the measured accesses is within 5 % of the first's."
    ]
    assert tables.steadiness_lines(table_of({})) == []


def test_tables_say_what_people_ask() -> None:
    table = tables.swap_table(table_of({}, {"seed": 2}, {"factor_copy": "again"}, {"factor_workload": "codec"}))
    (row,) = table.to_dict("records")
    assert row["swap"] == "zswap lz4"
    assert row["accesses/s"] == "5,000 [5,000, 5,000] (range of 2 seeds)"
    assert row["pool"] == "4.0 MiB, saves 4.0 MiB"
    codec = {f"codec_{where}_{name}_ns": 1000.0 for where in ("host", "guest") for name in ("lzo", "lz4", "zstd")}
    lines = tables.calibration_lines(table_of({"factor_workload": "codec", "dilation": 9.0, **codec}))
    assert lines[0].startswith("Calibration, instructions clock: the guest's time is 9 times the host's")


@pytest.mark.parametrize("name", ["access_ops_per_s", "fault_p99_ns", "saved_bytes", "pswpin_pages", "kswapd_cpu_ns"])
def test_measures_of_a_swap_study_are_known_and_never_exact(name: str) -> None:
    found = metric(name)
    assert found.label
    assert not found.is_exact("instructions")  # replicates are seeds


@pytest.mark.parametrize(
    ("name", "axis", "text"),
    [
        ("fault_p99_ns", "p99 latency of a fault / µs", "117.0 µs"),
        ("access_ops_per_s", "access throughput / (accesses / s)", "117,000"),
        ("major_faults", "major faults", "117,000"),
        ("saved_bytes", "RAM saved / MiB", "114.3 KiB"),
    ],
)
def test_measures_have_the_units_of_their_columns(name: str, axis: str, text: str) -> None:
    assert metric(name).axis_text("wall") == axis
    assert metric(name).text(117_000, "wall") == text


def test_huge_pages_are_counted_by_size_and_what_damon_reclaimed() -> None:
    def watched(event: dict, count: int, reclaimed: int) -> dict:
        stats = {"anon_fault_alloc": count, "nr_anon": count + 1}
        return {**event, "huge_pages": {"16": stats, "2048": {}}, "damon_reclaimed": str(reclaimed)}

    start, *others = (event for event in WHOLE if event["event"] == "snapshot")
    events = [watched(start, 10, 4096), *(watched(event, 15, 12_288) for event in others)]
    rest = [event for event in WHOLE if event["event"] != "snapshot"]
    cell = SwapFactors(swap="zram", mthp="16K", damon_reclaim=True)
    row = guest_report.row_of(cell, outcome_of([*events, *rest], End.POWERED_OFF))
    assert row["huge_pages"] == '{"16K":{"anon_fault_alloc":5,"nr_anon":16},"2048K":{}}'
    assert row["damon_reclaimed_bytes"] == 8192
    assert metric("damon_reclaimed_bytes").label == "reclaimed by DAMON"
    assert "huge_pages" not in guest_report.row_of(cell, outcome_of(WHOLE, End.POWERED_OFF))
