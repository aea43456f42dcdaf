"""Guests of two sizes of memory on one curve: throughput by nominal pressure, and by working set over available memory.

    python benchmarks/pressure_curve.py [--out FOLDER] [--seeds N]

Runs tmpfs guests of 96 and 256 MiB on the instruction clock, with a disk and with zswap, at three nominal pressures
each (about a minute a guest), and prints for each the pressure that counts and its throughput. For both axes it prints
how far the larger guest's points are from the line through the smaller one's. A folder with rows of an earlier run is
continued.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd

from acon_nb.progress import TextProgress
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan

SWAPS = ("disk", "zswap:lz4")
PRESSURES = {"96M": (0.9, 1.15, 1.5), "256M": (1.15, 1.45, 1.9)}
_COLUMNS = ("factor_swap", "factor_memory", "factor_pressure")
_FIXED = {"workload": "tmpfs", "pattern": "random", "data": "like-redis"}
# As many for each page of the working set in both sizes: a guest must get as far from what the fill left behind
_ACCESSES = {"96M": 40_000, "256M": 106_667}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    cells = [
        {"swap": swap, "memory": memory, "pressure": pressure, "accesses": _ACCESSES[memory]}
        for swap in SWAPS
        for memory, pressures in PRESSURES.items()
        for pressure in pressures
    ]
    plan = Plan(name="pressure-curve", study="swap", cells=cells, fixed=_FIXED, runs=asked.seeds, warmups=0)
    rows = study_of(plan, asked.out).run(on_progress=TextProgress())
    print("\n".join(lines_of(rows)))


def lines_of(rows: pd.DataFrame) -> list[str]:
    """The points, and how far the larger guest's are from the curve of the smaller one."""
    known = rows[(rows["factor_workload"] != "codec") & (rows["factor_copy"] == "") & (rows["end"] == "powered_off")]
    table = known.groupby(list(_COLUMNS))[["pressure_available", "access_ops_per_s"]].median().reset_index()
    lines = [
        f"{row['factor_swap']}, {row['factor_memory']}: nominal {row['factor_pressure']:g},"
        f" {row['pressure_available']:.2f} times the available memory: {row['access_ops_per_s']:,.0f} accesses / s"
        for row in table.to_dict("records")
    ]
    for swap, part in table.groupby("factor_swap", sort=False):
        small, large = (part[part["factor_memory"] == memory] for memory in PRESSURES)
        for axis in ("factor_pressure", "pressure_available"):
            apart = distances(small, large, axis)
            words = ", ".join(f"{100 * (math.exp(one) - 1):+.0f} %" for one in apart) or "no point within the line"
            lines.append(f"{swap}, by {axis.removeprefix('factor_')}: the larger guest is off the line by {words}")
    return lines


def distances(small: pd.DataFrame, large: pd.DataFrame, axis: str) -> list[float]:
    """The logarithms of the larger guest's throughput over that of the line through the smaller one's points."""
    xs, ys = small[axis].to_numpy(float), np.log(small["access_ops_per_s"].to_numpy(float))
    order = np.argsort(xs)
    return [
        math.log(row["access_ops_per_s"]) - float(np.interp(row[axis], xs[order], ys[order]))
        for row in large.to_dict("records")
        if xs.min() <= row[axis] <= xs.max()
    ]


if __name__ == "__main__":
    main()
