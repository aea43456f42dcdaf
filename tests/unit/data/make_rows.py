"""The made-up rows of `rows_v2`, stored as schema 2 stored rows: run once, kept to show what they are.

    python tests/unit/data/make_rows.py FOLDER

No clock and no generator of numpy has a part in them: the same bytes come of every version of the package.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FIRST = dt.datetime(2026, 1, 1, 2, tzinfo=dt.UTC)
# Throughput is exp(height - slope * pressure): the logarithm of a ratio is a line, so that curves cross.
CURVES = {
    "disk": (9.0, 0.5), "zram:lz4": (12.0, 1.5), "zram:zstd": (10.4, 0.8), "zswap:lz4": (11.5, 1.4),
    "zswap:zstd": (10.2, 1.35),
}  # fmt: skip
SAVED_MIB = {"zram:lz4": 60, "zram:zstd": 80, "zswap:lz4": 40, "zswap:zstd": 70}
DIES = {"zram:lz4": 2.5}


def run(number: int, **columns: Any) -> dict[str, Any]:
    """What every row has."""
    time = FIRST + dt.timedelta(seconds=number)
    common: dict[str, Any] = {
        "schema": 2, "run_id": f"made-{number:05}", "timestamp": time.isoformat(timespec="microseconds"),
        "session": "", "host_class": "made", "end": "powered off", "error": "", "host_fault": "", "warmup": False,
        "attempt": 1, "turn_key": f"{number}", "log": "", "kernel_log": "",
    }  # fmt: skip
    return common | columns


def swap_row(rng: random.Random, number: int, swap: str, seed: int, speed: float, **levels: Any) -> dict[str, Any]:
    """A guest of a swap study of a given speed."""
    kind, _, compressor = swap.partition(":")
    mean_ns = 1e9 / speed
    saved = SAVED_MIB.get(swap, 0) * (1.0 + 0.05 * rng.random())
    pressure = float(levels.get("pressure", 1.5))
    buckets = sorted({round(mean_ns * math.exp(rng.gauss(0, 0.8))): rng.randrange(1, 400) for _ in range(30)}.items())
    fault_buckets = [[3 * start, 1 + count // 3] for start, count in buckets[10:]]
    samples = [
        {
            "t_ns": place * 40_000_000, "phase": "fill" if place < 5 else "access",
            "memavailable_bytes": int((60 - 3 * place) * 2**20), "pool_bytes": int(place * saved * 2**16),
            "swap_used_bytes": place << 22, "major_faults": place * place * 7,
        }
        for place in range(12)
    ]  # fmt: skip
    row = run(
        number, kind="swap", study="made-swap", clock="instructions", cell=f"{swap} {pressure}", seed=seed,
        replicate=seed - 1, block=seed - 1, configuration=swap.replace(":", " "), access_ops_per_s=speed,
        access_p50_ns=0.5 * mean_ns, access_p99_ns=9 * mean_ns * math.exp(rng.gauss(0, 0.1)),
        fault_p50_ns=3 * mean_ns, fault_p99_ns=20 * mean_ns, fault_count=4000 + rng.randrange(900),
        access_count=10_000, system_cpu_ns=int(4e8 * math.exp(rng.gauss(0, 0.2))),
        disk_written_bytes=int(pressure * (80 if kind != "zram" else 0) * 2**20 * (1 + 0.1 * rng.random())),
        disk_read_bytes=int(pressure * (60 if kind != "zram" else 0) * 2**20), corrupt_pages=0, oom_kills=0,
        memory_bytes=128 << 20, access_histogram=json.dumps([list(pair) for pair in buckets]),
        fault_histogram=json.dumps(fault_buckets), samples=json.dumps(samples),
    )  # fmt: skip
    if saved:
        row |= {"saved_bytes": int(saved * 2**20), "pool_bytes": int(saved * 2**20 / 1.5)}
        row |= {"pool_stored_bytes": row["saved_bytes"] + row["pool_bytes"]}
    else:
        row |= {"saved_bytes": None, "pool_bytes": None, "pool_stored_bytes": None}
    factors = {"workload": "tmpfs", "copy": "", "encryption": "none", "disk_latency": "80us", "data": "redis"}
    factors |= {"swap": kind, "compressor": compressor, "pressure": pressure} | levels
    return row | {f"factor_{name}": level for name, level in factors.items()}


def swap_rows() -> Iterator[dict[str, Any]]:
    """125 guests, 5 seeds of 25 cells: five swaps by pressure, a second kind of data, fast disks, encryption."""
    rng = random.Random(15)
    cells = [{"swap": swap, "pressure": pressure} for pressure in (1.0, 1.5, 2.0) for swap in CURVES]
    cells += [{"swap": swap, "pressure": 2.5} for swap in ("disk", "zram:lz4", "zswap:lz4")]
    cells += [{"swap": swap, "pressure": 1.5, "data": "files"} for swap in ("disk", "zram:zstd", "zswap:lz4")]
    cells += [{"swap": swap, "pressure": 1.5, "disk_latency": "10us"} for swap in ("disk", "zswap:lz4")]
    cells += [{"swap": swap, "pressure": 1.5, "encryption": "@+"} for swap in ("disk", "zswap:lz4")]
    for seed in range(1, 6):
        shared = rng.gauss(0, 0.03)
        for cell in cells:
            levels = dict(cell)
            swap, pressure = str(levels.pop("swap")), float(str(cell["pressure"]))
            height, slope = CURVES[swap]
            speed = math.exp(height - slope * pressure + shared + rng.gauss(0, 0.02))
            speed *= {"files": 0.8}.get(str(cell.get("data")), 1.0) * {"@+": 0.85}.get(str(cell.get("encryption")), 1.0)
            if "disk_latency" in cell:
                speed *= 9 if swap == "disk" else 2
            row = swap_row(rng, len(cells) * seed + cells.index(cell), swap, seed, speed, **levels)
            if pressure >= DIES.get(swap, math.inf):
                row |= {"end": "out of memory", "error": "killed"}
            yield row


def both_clocks_rows() -> Iterator[dict[str, Any]]:
    """60 guests on both clocks, of which zstd is ranked the other way round on the wall clock."""
    rng = random.Random(16)
    number = 1000
    for clock in ("instructions", "wall"):
        for seed in range(1, 6):
            for pressure in (1.0, 2.0):
                for swap in ("disk", "zram:zstd", "zswap:lz4"):
                    height, slope = CURVES[swap]
                    slow = 0.2 if clock == "wall" and swap == "zram:zstd" else 1.0
                    speed = slow * math.exp(height - slope * pressure + rng.gauss(0, 0.03))
                    row = swap_row(rng, number, swap, seed, speed, pressure=pressure)
                    yield row | {"study": "made-both", "clock": clock}
                    number += 1


def night_rows(nights: int = 30, runs: int = 3) -> Iterator[dict[str, Any]]:
    """A month of nights: half a per cent more instructions from the 12th on, 20 % faster on the wall from the 20th."""
    rng = random.Random(17)
    number = 2000
    for night in range(nights):
        time = FIRST + dt.timedelta(days=night)
        jitter, mood, memory = rng.randrange(-3000, 3001), rng.gauss(0, 0.02), rng.randrange(3) * 4096
        for one in range(runs):
            common = {
                "kind": "boot", "study": "quick", "session": f"{time:%Y-%m-%d}", "block": one, "replicate": one,
                "timestamp": (time + dt.timedelta(seconds=one)).isoformat(timespec="microseconds"),
                "qemu_package": "qemu 2" if night >= 11 else "qemu 1", "memory_bytes": 512 << 20,
            }  # fmt: skip
            count = round((306_508_000 + jitter) * (1.005 if night >= 11 else 1.0))
            counted = {"clock": "instructions", "cell": "clock=instructions", "guest_ns_reset_to_init": float(count)}
            yield run(number, **common, **counted, memavailable_bytes=(470 << 20) + memory, host_ns_init=None)
            ns = 2e9 * math.exp(mood + rng.gauss(0, 0.02)) * (1.4 if rng.random() < 0.1 else 1.0)
            ns *= 0.8 if night >= 19 else 1.0
            timed = {"clock": "wall", "cell": "clock=wall", "host_ns_init": ns, "guest_ns_reset_to_init": None}
            yield run(number + 1, **common, **timed, memavailable_bytes=470 << 20)
            number += 2


def copy_rows(blocks: int = 40) -> Iterator[dict[str, Any]]:
    """Runs of two copies of a cell on a noisy host."""
    rng = random.Random(18)
    for block in range(blocks):
        drift = rng.gauss(0, 0.02)
        for place, copy in enumerate("ab"):
            ns = 2e9 * math.exp(drift + rng.gauss(0, 0.03)) * (1 + (rng.expovariate(2.5) if rng.random() < 0.1 else 0))
            yield run(
                5000 + 2 * block + place, kind="boot", study="made-copies", clock="wall", cell=f"copy={copy}",
                factor_copy=copy, block=block, replicate=block, host_ns_init=ns, host_ns_ready=1.2 * ns,
            )  # fmt: skip


def write(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows of one study where a folder of results has them."""
    first = rows[0]
    path = folder / str(first["kind"]) / "date=2026-01-01" / f"study={first['study']}" / "all-made-0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    pq.write_table(table, path, compression="zstd")
    return path


if __name__ == "__main__":
    for made in (swap_rows(), both_clocks_rows(), night_rows(), copy_rows()):
        write(Path(sys.argv[1]), list(made))
