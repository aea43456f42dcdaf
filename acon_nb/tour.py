"""The whole walk: kernel, initrd, launch, boot times on both clocks, and the guide's open question, small.

`notebooks/00_tour.ipynb` calls these functions one after the other and shows what they return. What is measured are
studies: two plans of boots, and the built-in plan `tour` of swap.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb import doctor, host, kernel, results
from acon_nb.boot.experiment import BootExperiment
from acon_nb.boot.factors import boot_factors
from acon_nb.cache import Cache, atomic_file, sha256_file
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.results.select import usable
from acon_nb.stats import inference
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Level, Plan, load
from acon_nb.study.whole import run_whole
from acon_nb.swap import data, tables
from acon_nb.swap.analysis.rows import without_calibrations
from acon_nb.swap.experiment import SwapExperiment, with_checks
from acon_nb.swap.factors import SwapFactors
from acon_nb.units import format_bytes, parse_bytes
from acon_nb.vm import Clock, end_text

if TYPE_CHECKING:
    import pandas as pd

SWAP_PLAN = "tour"
_DISTRO = "linux-image-cloud-amd64"
_KERNELS = {"build": "guide's minimal", f"package:{_DISTRO}": "Debian's cloud"}


@dataclass(frozen=True, kw_only=True)
class TourSpec:
    """What the tour does; the notebook's parameters fill it.

    `memory` is that of the boot guests (a size with a unit). `swap_memory`, `pressure` (how many times of it is filled)
    and `accesses` are factors of the swap guests. `out` is the folder of results.
    """

    out: Path
    source: str = "debian:6.12"
    memory: str = "512M"
    wall_runs: int = 3
    instruction_runs: int = 2
    swap_memory: str = "96M"
    pressure: float = 1.2
    accesses: int = 4_000

    @property
    def memory_bytes(self) -> int:
        """The boot guests' memory."""
        return parse_bytes(self.memory, field="memory", bare="M")

    def boot_plan(self, clock: Clock) -> Plan:
        """The boots of both kernels on a clock."""
        return Plan(
            name=f"tour-{clock}",
            study="boot",
            cells=[{"kernel": name} for name in _KERNELS],
            fixed={"clock": clock.value, "source": self.source, "memory": self.memory},
            runs=self.wall_runs if clock is Clock.WALL else self.instruction_runs,
            warmups=0,
        )

    def swap_plan(self) -> Plan:
        """The built-in plan of the swap question with this tour's factors."""
        plan = load(SWAP_PLAN)
        given: dict[str, Level] = {
            "source": self.source, "memory": self.swap_memory, "pressure": self.pressure, "accesses": self.accesses
        }  # fmt: skip
        return replace(plan, fixed={**plan.fixed, **given})


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is booted: the guide's kernel and the distribution's, an initrd for each, and the swap guests' own."""

    minimal: kernel.KernelImage
    distro: kernel.DistroKernel
    swap_kernel: kernel.KernelImage
    minimal_initrd: Path
    distro_initrd: Path
    swap_initrd: Path


def prepare(spec: TourSpec, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> Parts:
    """Build or fetch everything that is booted (cached by content), as the studies will do again in no time."""
    boot_plan = spec.boot_plan(Clock.WALL)
    boots, swaps = BootExperiment(boot_plan), SwapExperiment(spec.swap_plan())
    results.Store(spec.out)  # what is not valid is refused before anything starts
    store = Cache()
    distro = kernel.debian_kernel(_DISTRO, cache=store, on_progress=on_progress)
    minimal, for_swap = (
        kernel.build(factors.build_spec(), cache=store, on_progress=on_progress, cancel=cancel)
        for factors in (boot_factors(boot_plan.all_cells[0].levels), SwapFactors.of(swaps.plan.all_cells[0].levels))
    )
    for experiment in (boots, swaps):
        experiment.prepare(on_progress=on_progress, cancel=cancel)
    minimal_files, distro_files = (boots.parts(row) for row in boot_plan.all_cells)
    return Parts(
        minimal=minimal,
        distro=distro,
        swap_kernel=for_swap,
        minimal_initrd=minimal_files["initrd"],
        distro_initrd=distro_files["initrd"],
        swap_initrd=swaps.parts(swaps.plan.all_cells[0])["initrd"],
    )


def host_table(findings: Sequence[doctor.Finding]) -> pd.DataFrame:
    """The examination of the host as a table."""
    return results.frame(
        {"what": row.what, "state": row.state, "found": row.detail, "needed for": row.feature, "fix": row.fix}
        for row in findings
    )


def data_table(spec: TourSpec) -> pd.DataFrame:
    """How far the pages of the swap guests compress, each page alone, on this host."""
    factors = SwapFactors.of(spec.swap_plan().all_cells[0].levels)
    return tables.data_table({factors.data: data.ratios(data.page_file(factors.mix))})


def parts_table(parts: Parts) -> pd.DataFrame:
    """The parts for people: what, version, size, SHA-256."""
    rows = [
        ("guide's kernel", parts.minimal.version, parts.minimal.image),
        ("Debian's cloud kernel", parts.distro.version, parts.distro.image),
        ("guide's kernel with a disk of declared speed", parts.swap_kernel.version, parts.swap_kernel.image),
        ("initrd for the guide's kernel", "", parts.minimal_initrd),
        ("initrd of the swap guests", "", parts.swap_initrd),
        ("initrd for Debian's kernel (with its virtio modules)", "", parts.distro_initrd),
    ]
    return results.frame(
        {"part": what, "release": release, "size": format_bytes(path.stat().st_size), "SHA-256": sha256_file(path)[:16]}
        for what, release, path in rows
    )


def boots(spec: TourSpec, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> pd.DataFrame:
    """Boot both kernels on both clocks; one row a boot, each stored as it ends. Errors: those of `run_whole`."""
    import pandas as pd

    session = uuid.uuid4().hex  # a tour measures anew
    studies = [study_of(spec.boot_plan(clock), spec.out, session=session) for clock in (Clock.WALL, Clock.INSTRUCTIONS)]
    table = pd.concat(
        [run_whole(study, on_progress=on_progress, cancel=cancel) for study in studies], ignore_index=True
    )
    table["name"] = table["factor_kernel"].map(_KERNELS)
    return table


def boot_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Medians with intervals, a row a kernel and clock."""
    rows = []
    for (name, clock), part in runs.groupby(["name", "clock"], sort=False):
        phases: tuple[tuple[str, str], ...] = (
            ("host_ns_kernel_entry", "QEMU start to kernel entry"),
            ("host_ns_init", "QEMU start to /init"),
            ("host_ns_ready", "QEMU start to ready"),
        )
        if clock == Clock.INSTRUCTIONS:
            phases = (
                ("guest_ns_reset_to_log", "reset to kernel's first line"),
                ("guest_ns_init", "kernel's first line to /init"),
                ("guest_ns_reset_to_init", "reset to /init"),
                ("executed_ns", "of it executed"),
                ("busy_waiting_ns", "of it busy waiting"),
                ("idle_ns", "of it idle"),
            )
        for column, label in phases:
            if column in part and part[column].notna().any():
                summary = inference.summarise(list(part[column].dropna()))
                digits = 6 if clock == Clock.INSTRUCTIONS else 3
                rows.append({"kernel": name, "clock": clock, "phase": label, "time": summary.text(1e9, "s", digits)})
    return results.frame(rows)


def memory_table(runs: pd.DataFrame) -> pd.DataFrame:
    """What each kernel takes: its image, the guest's memory, QEMU's own (median PSS on the wall clock)."""
    rows = []
    for name, part in runs[runs["clock"] == Clock.WALL].groupby("name", sort=False):
        first = part.iloc[0]
        rows.append(
            {
                "kernel": name,
                "release": first["kernel_release"],
                "bzImage": format_bytes(first["kernel_bytes"]),
                "MemTotal": format_bytes(first["memtotal_bytes"]),
                "MemAvailable at /init": format_bytes(part["memavailable_bytes"].median()),
                "QEMU's PSS (with the translator's)": format_bytes(part["qemu_pss_bytes"].median()),
                "the kernel's own words": first["memory_line"],
            }
        )
    return results.frame(rows)


def swaps(spec: TourSpec, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> pd.DataFrame:
    """Run the plan of the swap question; one row a guest, each stored as it ends. A guest that fails is a row too."""
    plan = spec.swap_plan()
    guests = len(with_checks(plan).all_cells)  # together, since they share two CPUs better than two and then the rest
    study = study_of(plan, spec.out, session=uuid.uuid4().hex, parallel=guests)
    return study.run(on_progress=on_progress, cancel=cancel)


def findings(boot_runs: pd.DataFrame, swap_runs: pd.DataFrame) -> list[str]:
    """The findings in five lines."""
    kvm = host.probe_kvm()
    qemu = host.probe_qemu()
    accelerator = ", ".join(dict.fromkeys(boot_runs["accelerator"]))
    return [
        f"Host: QEMU {qemu.version_text}, guests ran on {accelerator} (KVM: {kvm.why}).",
        _wall_finding(boot_runs),
        _counted_finding(boot_runs),
        _memory_finding(boot_runs),
        _swap_finding(swap_runs),
    ]


def save(path: Path, spec: TourSpec, lines: Sequence[str]) -> Path:
    """Write the findings and where the data are, as JSON."""
    data = {"findings": list(lines), "data": str(spec.out), "environment": vars(host.environment())}
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n")
    return path


def _wall_finding(runs: pd.DataFrame) -> str:
    part = runs[runs["clock"] == Clock.WALL]
    times = {
        str(name): inference.summarise(list(rows["host_ns_init"])) for name, rows in part.groupby("name", sort=False)
    }
    texts = [f"{name} {summary.text(1e9, 's', 2)}" for name, summary in times.items()]
    first, second = times.values()
    ratio = second.median / first.median
    return f"Boot (QEMU's start to /init, host's clock): {'; '.join(texts)}: {ratio:.1f} times as long."


def _counted_finding(runs: pd.DataFrame) -> str:
    """The instructions of each kernel, without waits, which are named."""
    part = runs[runs["clock"] == Clock.INSTRUCTIONS].groupby("name", sort=False)
    counts = {str(name): inference.summarise(list(rows["executed_ns"])) for name, rows in part}
    texts = [f"{name} {summary.text(1e6, '× 10⁶ instructions', 3)}" for name, summary in counts.items()]
    waits = [
        f"{rows['busy_waiting_ns'].iloc[0] / 1e6:.1f} + {rows['idle_ns'].iloc[0] / 1e6:.1f} ms" for _, rows in part
    ]
    first, second = counts.values()
    ratio = second.median / first.median
    return (
        f"Boot (executed from reset to /init, instruction clock): {'; '.join(texts)}: {ratio:.1f} times as many."
        f" Not in it are waits, busy + idle: {' and '.join(waits)}."
    )


def _memory_finding(runs: pd.DataFrame) -> str:
    part = runs[runs["clock"] == Clock.WALL]
    medians = part.groupby("name", sort=False)[["kernel_bytes", "memavailable_bytes"]].median()
    texts = [
        f"{name} {format_bytes(row['kernel_bytes'])} bzImage, {format_bytes(row['memavailable_bytes'])} available"
        for name, row in medians.iterrows()
    ]
    size, count = format_bytes(part["memory_bytes"].iloc[0]), part.groupby("name").size().max()
    return f"Memory at /init, guest of {size} (wall clock, n={count}): {'; '.join(texts)}."


def _swap_finding(rows: pd.DataFrame) -> str:
    """Each swap's accesses a second, compared with the disk's where both ended well."""
    measured = without_calibrations(rows)
    good, _ = usable(measured)
    speeds = dict(zip(good["configuration"], good["access_ops_per_s"], strict=True)) if len(good) else {}
    disk = speeds.get("disk")
    texts = []
    for row in measured.drop_duplicates("configuration", keep="last").to_dict("records"):
        name = row["configuration"]
        if name not in speeds:
            texts.append(f"{name} ended: {end_text(str(row['end']))}")
        elif name == "disk" or disk is None:
            texts.append(f"{name} {speeds[name]:,.0f} pages/s")
        else:
            texts.append(f"{name} {speeds[name]:,.0f} ({speeds[name] / disk:.1f} x disk)")
    pressure, count = measured["factor_pressure"].iloc[0], measured["seed"].nunique()
    what = f"Swap, tmpfs of {pressure:g} x RAM read back at random (instruction clock, n={count})"
    return f"{what}: {'; '.join(texts)}."
