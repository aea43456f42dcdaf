"""How the analysis of a study and `bench rows` grow with the number of rows.

    python benchmarks/analysis_growth.py [--rows 1000 10000 100000] [--only swap boot rows files]

Made-up rows, the same in every run. `swap`: 10 choices, 5 pressures, 2 data; more rows are more seeds. `boot`: 20 cells
on the wall clock; more rows are more blocks. `rows`: a folder of results of which each day's rows are in one file, as
`Store.compact` and a cluster leave them, exported as CSV. `files`: a file a row, as a study leaves them on its day.
Prints seconds of CPU, and the peak of the memory, each measured in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from acon_nb import plots, results
from acon_nb.analysis.compare import compare, sentence
from acon_nb.results.store import SCHEMA, Store
from acon_nb.swap.analysis.study import SwapAnalysis
from acon_nb.vm import End

CHOICES = [("disk", "")] + [(swap, name) for swap in ("zram", "zswap") for name in ("lz4", "lzo", "zstd", "842")]
CHOICES.append(("none", ""))
PRESSURES = (1.0, 1.5, 2.0, 2.5, 3.0)
DATA = ("redis", "files")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    asked = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    for name in asked.only:
        for count in asked.rows:
            process = processes.Process(target=timed, args=(name, count))
            process.start()
            process.join()


def timed(name: str, count: int) -> None:
    """Run one part and print what it took."""
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as folder:
        steps = PARTS[name](count, Path(folder))
        texts = []
        for what, step in steps:
            started = time.process_time()
            step()
            texts.append(f"{what} {time.process_time() - started:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}, {count:,} rows: {', '.join(texts)}; peak {peak:,.0f} MiB", flush=True)


Steps = list[tuple[str, Callable[[], object]]]


def swap(count: int, folder: Path) -> Steps:
    """All tables and sentences of a swap study, then its figures and files."""
    analysis = SwapAnalysis(swap_rows(count))
    return [
        ("tables and sentences", lambda: (analysis.explanations, [clock.tables for clock in analysis.clocks])),
        ("figures and files", lambda: plots.save_answers(analysis, folder)),
    ]


def boot(count: int, _: Path) -> Steps:
    """The cells of a boot study compared with the first."""
    rows = boot_rows(count)
    return [("compare", lambda: [sentence(row) for row in compare(rows, "host_ns_init").to_dict("records")])]


def compacted(count: int, folder: Path) -> Steps:
    """Rows that are gathered in files, read and exported."""
    Store(folder).add_all("boot", boot_rows(count).to_dict("records"))
    return export_steps(folder)


def single_files(count: int, folder: Path) -> Steps:
    """Rows in a file each, read and exported."""
    store = Store(folder)
    for row in boot_rows(count).to_dict("records"):
        store.add("boot", row)
    return export_steps(folder)


def export_steps(folder: Path) -> Steps:
    """What `bench rows` does."""
    return [("load and export", lambda: results.export(results.load(folder, "boot"), folder / "rows.csv"))]


PARTS: dict[str, Callable[[int, Path], Steps]] = {
    "swap": swap,
    "boot": boot,
    "rows": compacted,
    "files": single_files,
}


def swap_rows(count: int) -> pd.DataFrame:
    """Rows whose throughput falls with pressure, each kind of swap by its own slope."""
    cells = [(choice, pressure, data) for data in DATA for pressure in PRESSURES for choice in CHOICES]
    numbers = np.arange(count)
    choices, pressures, data = zip(*(cells[number % len(cells)] for number in numbers), strict=True)
    rng = np.random.default_rng(1)
    place = np.array([CHOICES.index(choice) for choice in choices])
    logs = 11 + 0.2 * place - (0.5 + 0.1 * place) * np.array(pressures) + rng.normal(0, 0.05, count)
    common = {"kind": "swap", "clock": "instructions", "end": End.POWERED_OFF.value, "error": "", "host_fault": ""}
    return pd.DataFrame(
        {
            "run_id": [f"r{number}" for number in numbers],
            **common,
            "warmup": False,
            "host_class": "h",
            "seed": numbers // len(cells) + 1,
            "factor_swap": [swap for swap, _ in choices],
            "factor_compressor": [compressor for _, compressor in choices],
            "factor_pressure": pressures,
            "factor_data": data,
            "factor_workload": "tmpfs",
            "factor_copy": "",
            "factor_disk_latency": "80us",
            "access_ops_per_s": np.exp(logs),
            "access_p99_ns": 2e10 / np.exp(logs),
            "swap_used_bytes": 100 << 20,
            "pool_bytes": (place * 8) << 20,
            "access_histogram": "[[1000, 90], [4000, 9], [900000, 1]]",
        }
    )


def boot_rows(count: int) -> pd.DataFrame:
    """Rows of 20 cells in blocks, each cell a little slower than the one before it."""
    numbers = np.arange(count)
    cell, block = numbers % 20, numbers // 20
    rng = np.random.default_rng(2)
    common = {
        "kind": "boot",
        "clock": "wall",
        "end": End.POWERED_OFF.value,
        "error": "",
        "host_fault": "",
        "study": "s",
    }
    return pd.DataFrame(
        {
            "schema": SCHEMA,
            "run_id": [f"r{number}" for number in numbers],
            "timestamp": [f"2026-01-{1 + number * 28 // count:02}T00:00:00.{number:06}" for number in numbers],
            **common,
            "warmup": False,
            "host_class": "h",
            "session": "one",
            "block": block,
            "cell": [f"memory={256 + number}M" for number in cell],
            "factor_memory": [f"{256 + number}M" for number in cell],
            "host_ns_init": 2e9 * (1 + 0.002 * cell) * np.exp(rng.normal(0, 0.04, count)),
            "memavailable_bytes": 200 << 20,
        }
    )


if __name__ == "__main__":
    main()
