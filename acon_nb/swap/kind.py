"""The kind of study that compares swap, zram and zswap: what `acon_nb.studies` registers as "swap"."""

from acon_nb.study.kinds import StudyKind
from acon_nb.swap.analysis.rows import without_calibrations
from acon_nb.swap.applying import applies
from acon_nb.swap.classes import class_table
from acon_nb.swap.experiment import SwapExperiment
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.tables import checks, swap_table

KIND = StudyKind(
    name="swap",
    factors=SwapFactors,
    applies=applies,
    experiment=SwapExperiment,
    measures=("access_ops_per_s",),
    followed=("access_ops_per_s", "executed_ns", "freed_bytes"),
    shown=(
        "swap", "data", "workload", "pattern", "pressure", "disk_preset", "disk_latency", "encryption", "memory",
        "accesses", "clock",
    ),
    measured=without_calibrations,
    table=swap_table,
    more_tables={"Classes of work, host and guest": class_table},
    sentences=checks,
    failures_are_results=True,
    profiles=True,
    figures={"guest": "acon_nb.plots.swap.files:guest_figure"},
    live="acon_nb.widgets.guest_curves:GuestCurves",
    # quartiles of 66 and 32 runs of study kernels, 2 CPUs, QEMU 7.2 (tests/unit/data/rows_v2; the wall clock: swap.md)
    typical_s={"instructions": (33.0, 49.0)},
    alike=("workload", "memory", "pressure", "swap", "kernel", "machine", "accesses"),
)  # fmt: skip
