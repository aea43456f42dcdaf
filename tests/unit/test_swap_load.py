"""The workload's program, run on this host: what it counts, and that it finds what is not as it was written."""

from __future__ import annotations

import collections
import itertools
import json
import math
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from acon_nb.cache import Cache
from acon_nb.guest.programs import load_program
from acon_nb.swap import SwapFactors, guest_report
from acon_nb.swap.histogram import Histogram
from acon_nb.vm import End, Message, Outcome

KINDS = "d" * 14 + "zs"


def run_load(folder: Path, **cell: object) -> tuple[int, list[dict[str, Any]]]:
    """Run the workload on 16 pages' worth of data; returns its status and what it said."""
    (folder / "pages").write_bytes(random.Random(1).randbytes(4096 * len(KINDS)) + KINDS.encode())
    files = folder / "files"
    files.mkdir()
    told = {"folder": files, "pages": 600, "accesses": 2000, "samples": 8, **cell}
    environment = {f"cell_{name}": str(value) for name, value in told.items()}
    argv = [str(load_program(Cache())), "run", str(folder / "pages"), str(folder / "out")]
    done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, timeout=600, check=False)
    return done.returncode, [json.loads(line) for line in (folder / "out").read_text().splitlines()]


def outcome_of(events: list[dict[str, Any]], end: End = End.POWERED_OFF) -> Outcome:
    return Outcome(
        end=end,
        messages=tuple(Message(0, event) for event in events),
        command="",
        accelerator="tcg",
        console=Path("console"),
        started_ns=0,
        continued_ns=None,
        kernel_entry_ns=None,
        ended_ns=1,
        qemu_memory=None,
        returncode=0,
        tail=(),
        panic=(),
        stderr=(),
        hint="",
    )


@pytest.mark.parametrize("workload", ["tmpfs", "anon"])
@pytest.mark.parametrize("pattern", ["random", "sequential", "zipf"])
def test_every_access_is_checked_counted_and_timed(tmp_path: Path, workload: str, pattern: str) -> None:
    share = 300_000 if workload == "anon" else 0
    status, events = run_load(tmp_path, workload=workload, pattern=pattern, write_per_million=share)
    assert status == 0
    row = guest_report.row_of(SwapFactors(workload=workload), outcome_of(events))
    assert (row["corrupt_pages"], row["things"], row["fill_count"]) == (0, 600, 600)
    assert row["access_count"] == 1000  # the first half warms up
    assert row["hit_count"] + row["fault_count"] == 1000
    assert row["access_p50_ns"] <= row["access_p99_ns"] <= row["access_max_ns"]
    assert sum(count for _, count in json.loads(row["access_histogram"])) == 1000
    samples = json.loads(row["samples"])
    assert [sample["t_ns"] for sample in samples] == sorted(sample["t_ns"] for sample in samples)
    phases = [sample["phase"] for sample in samples]
    assert phases[0] == "fill"
    assert {"warm-up", "access"} <= set(phases)
    assert guest_report.end_of(events, outcome_of(events)) == (End.POWERED_OFF, "")


def order_of(locality: str, count: int, seed: int) -> list[int]:
    argv = [str(load_program(Cache())), "order", locality, str(count), str(seed)]
    return [int(line) for line in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()]


@pytest.mark.parametrize("locality", ["uniform", "clustered", "strided"])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1000, 40_003])
def test_every_page_has_one_rank_and_each_seed_its_own_order(locality: str, count: int) -> None:
    orders = [order_of(locality, count, seed) for seed in (1, 1, 2, 3)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert orders[0] == orders[1]
    if count >= 1000:
        assert len({tuple(order) for order in orders}) == 3


def test_hot_pages_lie_where_the_locality_says() -> None:
    count = 40_000  # 125 MiB at a pressure of 1.25, where a fixed step of 1,000,003 made neighbours of hot pages
    steps = {
        locality: [(b - a) % count for a, b in itertools.pairwise(order_of(locality, count, 5))]
        for locality in ("uniform", "clustered", "strided")
    }
    assert len(set(steps["strided"])) == 1
    assert math.gcd(steps["strided"][0], count) == 1
    assert sum(step == 1 for step in steps["clustered"]) >= count - count // 64 - 1
    uniform = steps["uniform"]
    assert max(collections.Counter(uniform).values()) < 12, "no step comes back, as it does in a lattice"
    near = sum(step < 64 or step > count - 64 for step in uniform) / count
    assert near == pytest.approx(127 / count, rel=0.5), "a neighbour in rank is a neighbour in memory by chance alone"


def test_a_file_on_a_disk_and_memory_share_the_accesses(tmp_path: Path) -> None:
    told = {"workload": "file", "file": tmp_path / "file", "file_pages": 200, "pattern": "zipf"}
    status, events = run_load(tmp_path, **told, write_per_million=500_000)
    assert status == 0
    row = guest_report.row_of(SwapFactors(workload="file"), outcome_of(events))
    assert (row["corrupt_pages"], row["fill_count"], row["access_count"]) == (0, 600, 1000)
    assert (tmp_path / "file").stat().st_size == 200 * 4096


def test_steps_are_repeated_at_intervals_until_the_work_is_done(tmp_path: Path) -> None:
    target = tmp_path / "idle"
    target.touch()
    told = {"settle": f"{target}=all", "settle_every_ns": 2_000_000, "accesses": 60_000, "pages": 4000}
    status, events = run_load(tmp_path, **told)
    assert status == 0
    row = guest_report.row_of(SwapFactors(), outcome_of(events))
    assert row["zram_rounds"] > 3
    assert target.read_text() == "all"
    once = tmp_path / "once"
    once.mkdir()
    _, events = run_load(once, settle=f"{target}=all")
    assert guest_report.row_of(SwapFactors(), outcome_of(events))["zram_rounds"] == 1


def test_a_step_that_fails_at_an_interval_is_named(tmp_path: Path) -> None:
    told = {"settle": f"{tmp_path}/none=1", "settle_every_ns": 1_000_000, "accesses": 60_000, "pages": 4000}
    _, events = run_load(tmp_path, **told)
    assert "none: No such file" in guest_report.end_of(events, outcome_of(events))[1]


@pytest.mark.parametrize(("tolerance", "windows"), [(10**12, 1), (0, 5)])
def test_windows_go_on_until_two_are_steady_or_the_bound_is_reached(
    tmp_path: Path, tolerance: int, windows: int
) -> None:
    """Every rate is within the first tolerance; the second is one that no two rates meet."""
    status, events = run_load(tmp_path, until_steady=6999, steady_per_million=tolerance)
    assert status == 0
    row = guest_report.row_of(SwapFactors(), outcome_of(events))
    assert row["warmup_accesses"] == 1000 * windows
    assert row["access_count"] == 1000
    assert row["access_elapsed_ns"] > 0
    phases = [event["phase"] for event in events if event["event"] == "snapshot"]
    assert phases == ["fill", "settle", *["warm-up"] * windows, "access", "end"]


def test_a_page_that_is_not_as_it_was_written_is_a_finding(tmp_path: Path) -> None:
    broken = tmp_path / "files" / "000001"
    status, events = run_load(tmp_path, pattern="sequential", accesses=2400, settle=f"{broken}=x")
    assert status == 0
    row = guest_report.row_of(SwapFactors(), outcome_of(events))
    assert row["corrupt_pages"] == 4  # page 256, in each of four rounds
    assert row["first_corrupt_page"] == 256
    assert "4 pages are corrupt, the first is 256" in guest_report.end_of(events, outcome_of(events))[1]


def test_a_worker_that_fails_says_why_and_leaves_what_it_had(tmp_path: Path) -> None:
    status, events = run_load(tmp_path, settle=f"{tmp_path}/nothing=1")
    assert status != 0
    row = guest_report.row_of(SwapFactors(), outcome_of(events))
    assert row["fill_count"] == 600
    assert "access_ops_per_s" not in row
    assert "nothing: No such file" in guest_report.end_of(events, outcome_of(events))[1]


def test_documents_are_json_that_redis_takes() -> None:
    program = load_program(Cache())
    documents = subprocess.run([program, "documents", "3", "1"], capture_output=True, check=True).stdout
    values = [json.loads(line) for line in documents.split(b"\r\n") if line.startswith(b"{")]
    assert [value["id"] for value in values] == [0, 1, 2]
    assert all(value["items"] for value in values)


def test_histograms_add_up_and_their_quantiles_are_within_three_per_cent() -> None:
    draw = random.Random(3)
    buckets: dict[int, int] = {}
    values = sorted(draw.randrange(100, 10_000_000) for _ in range(5000))
    for value in values:
        top = value.bit_length() - 6
        start = value >> top << top
        buckets[start] = buckets.get(start, 0) + 1
    data = {"count": 5000, "total_ns": sum(values), "max_ns": values[-1], "histogram_ns": sorted(buckets.items())}
    found = Histogram.of(data)
    for share in (0.5, 0.9, 0.99, 0.999):
        exact = values[int(share * 5000) - 1]
        assert exact * 0.96 <= found.quantile_ns(share) <= exact
    both = found + found
    assert both.count == 10_000
    assert both.quantile_ns(0.5) == found.quantile_ns(0.5)
    assert Histogram.of({"count": 0, "total_ns": 0, "max_ns": 0, "histogram_ns": []}).row("hit") == {"hit_count": 0}


@pytest.mark.parametrize("workload", ["tmpfs", "anon"])
def test_the_accesses_of_threads_are_added_up_and_checked(tmp_path: Path, workload: str) -> None:
    share = 300_000 if workload == "anon" else 0
    cell = {"workload": workload, "pattern": "zipf", "write_per_million": share, "threads": 5, "accesses": 20_002}
    status, events = run_load(tmp_path, **cell)
    assert status == 0
    row = guest_report.row_of(SwapFactors(workload=workload, threads=5), outcome_of(events))
    assert row["corrupt_pages"] == 0
    assert row["access_count"] == 10_001
    assert sum(count for _, count in json.loads(row["access_histogram"])) == 10_001
    assert row["warmup_accesses"] == 10_001
    assert guest_report.end_of(events, outcome_of(events)) == (End.POWERED_OFF, "")


def test_threads_find_what_is_not_as_it_was_written(tmp_path: Path) -> None:
    """A file of the tmpfs that someone writes to while threads read it."""
    files = tmp_path / "files"
    told = {"pages": 600, "accesses": 400_000, "samples": 8, "threads": 3, "folder": files, "workload": "tmpfs"}
    environment = {f"cell_{name}": str(value) for name, value in told.items()}
    (tmp_path / "pages").write_bytes(random.Random(1).randbytes(4096 * len(KINDS)) + KINDS.encode())
    files.mkdir()
    argv = [str(load_program(Cache())), "run", str(tmp_path / "pages"), str(tmp_path / "out")]
    with subprocess.Popen(argv, env={**os.environ, **environment}, stderr=subprocess.DEVNULL) as running:
        while not (tmp_path / "out").exists() or "warm-up" not in (tmp_path / "out").read_text():
            assert running.poll() is None
        with (files / "000001").open("r+b") as file:
            file.seek(4096)
            file.write(b"changed!")
        running.wait(timeout=600)
    events = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    result = next(event for event in events if event["event"] == "result")
    assert result["corrupt"] > 0
    assert result["first_corrupt"] == 257
