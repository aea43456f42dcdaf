"""The time that the answers of a swap study take, for the old code too.

    python benchmarks/swap_answers.py [--seeds N] [--old FOLDER]

Five choices at five pressures, `--seeds` guests each (125 rows by default), made up and the same in every run.
`--old` is a folder with the package as it was (`git worktree add FOLDER 699de32`): its `save_answers` is timed on the
same rows. Each version runs in a process of its own, whose CPU time is taken without the imports and without the first
figures that matplotlib draws; the least of `--repeat` is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CURVES = {
    ("disk", ""): (9.0, 0.5, 0),
    ("zram", "lz4"): (12.0, 1.5, 60),
    ("zram", "zstd"): (10.4, 0.8, 80),
    ("zswap", "lz4"): (11.5, 1.4, 40),
    ("zswap", "zstd"): (10.2, 0.6, 70),
}
PRESSURES = (1.0, 1.5, 2.0, 2.5, 3.0)
_TIMED = """
import json, sys, tempfile, time
from pathlib import Path
import pandas as pd
from matplotlib.figure import Figure
from acon_nb import plots
from acon_nb.vm import End
drawing, savefig = [0.0], Figure.savefig
def timed_savefig(self, *args, **options):
    started = time.process_time()
    savefig(self, *args, **options)
    drawing[0] += time.process_time() - started
Figure.savefig = timed_savefig
try:
    from acon_nb.swap.analysis.study import SwapAnalysis as read
except ImportError:  # the old code takes the rows themselves
    read = lambda rows: rows
rows = pd.DataFrame(json.load(sys.stdin)).assign(end=str(End.POWERED_OFF.value))
with tempfile.TemporaryDirectory() as name:
    plots.save_answers(read(rows[rows["seed"] == 1]), Path(name))
    seconds = []
    for number in range(int(sys.argv[1])):
        again = rows.assign(access_ops_per_s=rows["access_ops_per_s"] * (1 + number))  # nothing is known of it yet
        drawing[0], started = 0.0, time.process_time()
        files = plots.save_answers(read(again), Path(name))
        seconds.append((time.process_time() - started, drawing[0]))
print(json.dumps({"seconds": min(seconds)[0], "drawing": min(seconds)[1], "files": len(files)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--old", type=Path)
    asked = parser.parse_args()
    rows = made_up(asked.seeds)
    print(f"{len(rows)} rows")
    folders = {"now": ROOT} | ({str(asked.old): asked.old} if asked.old else {})
    took: dict[str, list[dict[str, Any]]] = {name: [] for name in folders}
    for _ in range(asked.repeat):  # by turns, since other work on the host slows both down
        for name, folder in folders.items():
            took[name].append(timed(folder, rows))
    least = {name: min(times, key=lambda one: one["seconds"]) for name, times in took.items()}
    for name, one in least.items():
        print(f"save_answers, {name}: {words(one)}")


def words(took: dict[str, Any]) -> str:
    """The times of one version."""
    return f"{took['seconds']:.2f} s of CPU ({took['drawing']:.2f} s in matplotlib's savefig), {took['files']} files"


def timed(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The seconds of `save_answers` of the package in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder.resolve()), "MPLBACKEND": "agg"}
    argv = [sys.executable, "-c", _TIMED, "3"]
    done = subprocess.run(
        argv, input=json.dumps(rows), text=True, stdout=subprocess.PIPE, env=environment, cwd=folder, check=True
    )
    return dict(json.loads(done.stdout))


def made_up(seeds: int) -> list[dict[str, Any]]:
    """Rows of a study: throughput falls with pressure, zram and zswap sooner than the disk."""
    draw = random.Random(7)
    rows = []
    for seed in range(1, seeds + 1):
        shared = draw.gauss(0, 0.03)
        for pressure in PRESSURES:
            for (swap, compressor), (height, slope, saved) in CURVES.items():
                speed = math.exp(height - slope * pressure + shared + draw.gauss(0, 0.01))
                rows.append(
                    {
                        "run_id": f"{swap}-{compressor}-{pressure}-{seed}",
                        "kind": "swap",
                        "clock": "instructions",
                        "error": "",
                        "host_fault": "",
                        "warmup": False,
                        "host_class": "h",
                        "seed": seed,
                        "cell": f"{swap}:{compressor}",
                        "configuration": f"{swap} {compressor}",
                        "factor_swap": swap,
                        "factor_compressor": compressor,
                        "factor_encryption": "none",
                        "factor_pressure": pressure,
                        "factor_data": "mix",
                        "factor_workload": "tmpfs",
                        "factor_copy": "",
                        "factor_disk_latency": "80us",
                        "access_ops_per_s": speed,
                        "access_p99_ns": 1e9 / speed * 20,
                        "swap_used_bytes": 100 << 20,
                        "pool_bytes": (100 - saved) << 20 if saved else 0,
                    }
                )
    return rows


if __name__ == "__main__":
    main()
