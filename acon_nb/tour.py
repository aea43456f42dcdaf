"""The whole walk: kernel, initrd, launch, boot times on both clocks, and the guide's open question, small.

`notebooks/00_tour.ipynb` calls these functions one after the other and shows what they return.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import doctor, host, kernel
from acon_nb.bench import boot, results, stats, swap
from acon_nb.bench.experiments import study_of
from acon_nb.bench.plan import Plan
from acon_nb.cache import Cache, atomic_file
from acon_nb.errors import GuestFailed
from acon_nb.initrd import InitrdImage
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.units import format_bytes, format_seconds, parse_bytes
from acon_nb.vm import Clock, End

if TYPE_CHECKING:
    import pandas as pd

# The disk of declared speed is a simulated SCSI disk with a timer of its own; the guide's kernel has neither.
SWAP_PROFILES = ("guide", "delay-disk")
_DISTRO = "linux-image-cloud-amd64"
_KERNELS = {"build": "guide's minimal", f"package:{_DISTRO}": "Debian's cloud"}


@dataclass(frozen=True, kw_only=True)
class TourSpec:
    """What the tour does; the notebook's parameters fill it.

    `memory` is that of the boot guests (a size with a unit), `swap_memory` that of the swap guests, `fill` how many
    times of it is written. `out` is the folder of results.
    """

    out: Path
    source: str = "debian:6.12"
    memory: str = "512M"
    wall_runs: int = 3
    instruction_runs: int = 2
    swap_memory: str = "256M"
    fill: float = 1.5
    reads: int = 10_000

    @property
    def memory_bytes(self) -> int:
        """The boot guests' memory."""
        return parse_bytes(self.memory, field="memory", bare="M")

    @property
    def swap_cells(self) -> tuple[swap.SwapCell, ...]:
        """The cells of the swap question."""
        memory = parse_bytes(self.swap_memory, field="swap_memory", bare="M")
        return tuple(
            swap.SwapCell(swap=name, memory_bytes=memory, fill=self.fill, reads=self.reads) for name in swap.KINDS
        )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is booted: the guide's kernel and the distribution's, an initrd for each, and the swap question's own."""

    minimal: kernel.KernelImage
    distro: kernel.DistroKernel
    minimal_initrd: InitrdImage
    distro_initrd: InitrdImage
    swap_kernel: kernel.KernelImage
    swap_initrd: InitrdImage


def prepare(spec: TourSpec, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> Parts:
    """Build or fetch everything that is booted (cached by content)."""
    _ = spec.memory_bytes, spec.swap_cells, results.Store(spec.out)  # what is bad is refused before anything starts
    store = Cache()
    distro = kernel.debian_kernel(_DISTRO, cache=store, on_progress=on_progress)
    minimal = kernel.build(
        kernel.BuildSpec(profiles=("guide",), source=spec.source), cache=store, on_progress=on_progress, cancel=cancel
    )
    for_swap = kernel.build(
        kernel.BuildSpec(profiles=SWAP_PROFILES, source=spec.source),
        cache=store,
        on_progress=on_progress,
        cancel=cancel,
    )
    folder = store.workdir("tour", {"source": spec.source})
    modules = kernel.module_closure(distro, boot.VIRTIO_MODULES)
    return Parts(
        minimal=minimal,
        distro=distro,
        minimal_initrd=boot.boot_initrd(folder / "minimal.cpio", store=store, on_progress=on_progress),
        distro_initrd=boot.boot_initrd(
            folder / "distro.cpio", modules=modules, release=distro.version, store=store, on_progress=on_progress
        ),
        swap_kernel=for_swap,
        swap_initrd=swap.swap_initrd(folder / "swap.cpio", store=store),
    )


def host_table(findings: Sequence[doctor.Finding]) -> pd.DataFrame:
    """The examination of the host as a table."""
    return results.frame(
        {"what": row.what, "state": row.state, "found": row.detail, "needed for": row.feature, "mend": row.mend}
        for row in findings
    )


def data_table() -> pd.DataFrame:
    """How far the swap question's pages compress, each page alone, on this host."""
    return results.frame(
        {"codec": name, "ratio of the pages written": f"{ratio:.2f}"} for name, ratio in swap.data_ratio().items()
    )


def parts_table(parts: Parts) -> pd.DataFrame:
    """The parts for people: what, version, size, SHA-256."""
    rows = [
        ("guide's kernel", parts.minimal.version, parts.minimal.image, parts.minimal.sha256),
        ("Debian's cloud kernel", parts.distro.version, parts.distro.image, parts.distro.sha256),
        (
            "guide's kernel with a disk of declared speed",
            parts.swap_kernel.version,
            parts.swap_kernel.image,
            parts.swap_kernel.sha256,
        ),
        ("initrd for the guide's kernel", "", parts.minimal_initrd.path, parts.minimal_initrd.sha256),
        ("initrd of the swap question", "", parts.swap_initrd.path, parts.swap_initrd.sha256),
        (
            "initrd for Debian's kernel (with its virtio modules)",
            "",
            parts.distro_initrd.path,
            parts.distro_initrd.sha256,
        ),
    ]
    return results.frame(
        {"part": what, "release": release, "size": format_bytes(path.stat().st_size), "SHA-256": digest[:16]}
        for what, release, path, digest in rows
    )


def boots(
    spec: TourSpec, parts: Parts, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> pd.DataFrame:
    """Boot both kernels on both clocks; one row a boot, each stored as it ends. Errors: `GuestFailed`."""
    import pandas as pd

    del parts  # they are in the cache: the study's cells find them there
    session = uuid.uuid4().hex  # a tour measures anew
    tables = []
    for clock, runs in ((Clock.WALL, spec.wall_runs), (Clock.INSTRUCTIONS, spec.instruction_runs)):
        plan = Plan(
            name=f"tour-{clock}",
            cells=[{"kernel": name} for name in _KERNELS],
            fixed={"clock": clock.value, "source": spec.source, "memory": spec.memory},
            runs=runs,
            warmups=0,
        )
        study = study_of(plan, spec.out, session=session)
        tables.append(study.run(on_progress=on_progress, cancel=cancel))
    table = pd.concat(tables, ignore_index=True)
    table["name"] = table["factor_kernel"].map(_KERNELS)
    _whole(table)
    return table


def _whole(table: pd.DataFrame) -> None:
    """Raise `GuestFailed` for the first guest that did not come to its end."""
    for row in table[(table["end"] != End.POWERED_OFF.value) | (table["error"] != "")].to_dict("records"):
        hint = f"its console: {row['log']}, below the folder of results"
        raise GuestFailed(f"{row['name']} ended: {row['end']} {row['error']}", end=str(row["end"]), hint=hint)


def boot_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Medians with intervals, a row a kernel and clock."""
    rows = []
    for (name, clock), part in runs.groupby(["name", "clock"], sort=False):
        phases = (
            ("host_ns_kernel_entry", "QEMU start to kernel entry"),
            ("host_ns_init", "QEMU start to /init"),
            ("host_ns_ready", "QEMU start to ready"),
        )
        if clock == Clock.INSTRUCTIONS:
            phases = (
                ("guest_ns_reset_to_log", "reset to kernel's first line"),
                ("guest_ns_init", "kernel's first line to /init"),
                ("guest_ns_reset_to_init", "reset to /init"),
            )
        for column, label in phases:
            if column in part and part[column].notna().any():
                summary = stats.summarise(list(part[column].dropna()))
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


def swaps(
    spec: TourSpec, parts: Parts, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> pd.DataFrame:
    """Run the swap question; one row a guest, each stored as it ends."""
    store = results.Store(spec.out)
    rows: dict[str, Mapping[str, Any]] = {}

    def keep(cell: swap.SwapCell, run: swap.SwapRun, hashes: Mapping[str, Any], facts: host.Environment) -> None:
        cell_facts = {"fill_factor": cell.fill, "reads": cell.reads, "disk_latency_ns": cell.disk_latency_ns}
        sizes = {"memory_bytes": cell.memory_bytes, "disk_bytes": cell.disk_bytes, "seed": cell.seed}
        row = {**results.stamp(facts), **cell_facts, **sizes, **hashes, **run.row()}
        store.add("swap", row)
        rows[run.name] = row

    swap.run_many(
        spec.swap_cells,
        parts.swap_kernel.image,
        parts.swap_initrd.path,
        on_run=keep,
        on_progress=on_progress,
        cancel=cancel,
        jobs=len(spec.swap_cells),  # three guests share two cores better than two and then one
    )
    return results.frame(rows[cell.name] for cell in spec.swap_cells)


def swap_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The swap question for people, the fastest first."""
    rows = []
    for _, row in runs.sort_values("read_pages_per_s", ascending=False).iterrows():
        pool, kept = row["pool_bytes"], row["pool_stored_bytes"]
        has_pool = bool(pool) and pool == pool
        rows.append(
            {
                "swap": row["name"],
                "end": row["end"] + (f": {row['error']}" if row["error"] else ""),
                "pages read back / s": _number(row["read_pages_per_s"]),
                "read p50": _time(row["read_p50_ns"]),
                "read p99": _time(row["read_p99_ns"]),
                "pages filled / s": _number(row["fill_pages_per_s"]),
                "swapped": format_bytes(row["swapped_bytes"] or 0),
                "pool holds": format_bytes(kept) if has_pool else "no pool",
                "pool takes": f"{format_bytes(pool)} (ratio {kept / pool:.2f})" if has_pool else "no pool",
                "disk reads": _number(row["disk_reads"]),
                "corrupt pages": _number(row["corrupt_pages"]),
            }
        )
    return results.frame(rows)


def findings(boot_runs: pd.DataFrame, swap_runs: pd.DataFrame) -> list[str]:
    """The findings in five lines."""
    kvm = host.probe_kvm()
    qemu = host.probe_qemu()
    accelerator = ", ".join(dict.fromkeys(boot_runs["accelerator"]))
    return [
        f"Host: QEMU {qemu.version_text}, guests ran on {accelerator} (KVM: {kvm.why}).",
        _boot_finding(boot_runs, Clock.WALL, "host_ns_init", "QEMU's start to /init, host's clock"),
        _boot_finding(boot_runs, Clock.INSTRUCTIONS, "guest_ns_init", "first line to /init, instruction clock"),
        _memory_finding(boot_runs),
        _swap_finding(swap_runs),
    ]


def save(path: Path, spec: TourSpec, lines: Sequence[str]) -> Path:
    """Write the findings and where the data are, as JSON."""
    data = {"findings": list(lines), "data": str(spec.out), "environment": vars(host.environment())}
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n")
    return path


def _boot_finding(runs: pd.DataFrame, clock: Clock, column: str, label: str) -> str:
    digits = 6 if clock is Clock.INSTRUCTIONS else 2
    part = runs[runs["clock"] == clock]
    found = {name: stats.summarise(list(rows[column])) for name, rows in part.groupby("name", sort=False)}
    texts = [f"{name} {summary.text(1e9, 's', digits)}" for name, summary in found.items()]  # type: ignore[str-bytes-safe]
    first, second = found.values()
    return f"Boot ({label}): {'; '.join(texts)}: {second.median / first.median:.1f} times as long."


def _memory_finding(runs: pd.DataFrame) -> str:
    medians = runs.groupby("name", sort=False)[["kernel_bytes", "memavailable_bytes"]].median()
    texts = [
        f"{name} {format_bytes(row['kernel_bytes'])} bzImage, {format_bytes(row['memavailable_bytes'])} available"
        for name, row in medians.iterrows()
    ]
    return f"Memory at /init, guest of {format_bytes(runs['memory_bytes'].iloc[0])}: {'; '.join(texts)}."


def _swap_finding(runs: pd.DataFrame) -> str:
    disk = runs.loc[runs["swap"] == "disk", "read_pages_per_s"].iloc[0]
    texts = []
    for _, row in runs.iterrows():
        speed = row["read_pages_per_s"]
        if speed != speed or speed is None:
            texts.append(f"{row['name']} ended: {row['end']}")
        elif row["swap"] == "disk" or disk != disk:
            texts.append(f"{row['name']} {speed:,.0f} pages/s")
        else:
            texts.append(f"{row['name']} {speed:,.0f} ({speed / disk:.1f} x disk)")
    factor = runs["fill_factor"].iloc[0]
    return f"Swap, tmpfs of {factor:g} x RAM read back at random, one guest each: {'; '.join(texts)}."


def _number(value: Any) -> str:
    return "unknown" if value is None or value != value else f"{value:,.0f}"


def _time(value: Any) -> str:
    return "unknown" if value is None or value != value else format_seconds(value / 1e9)
