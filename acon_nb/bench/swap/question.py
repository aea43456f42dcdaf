"""The guide's open question, put once and small: a tmpfs filled past the memory, on disk swap, zram and zswap.

Each cell is one fresh guest on the instruction clock. The disk is `scsi_debug`, a RAM disk of the guest that answers
after a declared time of the guest's own clock; its memory is added to the guest's, and the cell's share of it is the
same in every cell. What this clock cannot say is in docs/clocks.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acon_nb import process
from acon_nb.bench.guest_program import guest_program, guest_script
from acon_nb.bench.host_lock import host_lock
from acon_nb.bench.runner import run_side_by_side
from acon_nb.bench.swap.histogram import Histogram
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.host import environment
from acon_nb.host.facts import Environment
from acon_nb.initrd import InitrdImage, create, gen_init, tree_of
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.vm import Capabilities, Clock, End, Machine, Outcome, VmSpec, capabilities

PAGE_BYTES = 4096
KINDS = ("disk", "zram", "zswap")
_CELL = "/acon/swap-cell"


@dataclass(frozen=True, kw_only=True)
class SwapCell:
    """One guest of the question.

    `memory_bytes` is what the guest is said to have; the disk's RAM comes on top. `fill` times that is written to a
    tmpfs, then `reads` random pages are read back. `disk_latency_ns` is in the guest's clock. `pool_percent` is
    zswap's share of `memory_bytes`.
    """

    swap: str
    compressor: str = "lz4"
    memory_bytes: int = 256 << 20
    fill: float = 1.5
    reads: int = 10_000
    disk_bytes: int = 320 << 20
    disk_latency_ns: int = 800_000
    pool_percent: int = 20
    seed: int = 1
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        if self.swap not in KINDS:
            raise InvalidInput("swap", self.swap, "is not known", hint=f"one of {', '.join(KINDS)}")
        if not 0 < self.fill <= 8:
            raise InvalidInput("fill", self.fill, "is no multiple of the memory to fill", hint="above 0, up to 8")
        if self.reads < 1:
            raise InvalidInput("reads", self.reads, "is not a number of reads", hint="1 or more")
        if not 1 <= self.pool_percent <= 100:
            raise InvalidInput("pool_percent", self.pool_percent, "is no share", hint="1 to 100")

    @property
    def name(self) -> str:
        """The cell's name for people."""
        return "disk" if self.swap == "disk" else f"{self.swap} {self.compressor}"

    @property
    def pages(self) -> int:
        """How many 4 KiB pages are filled."""
        return int(self.memory_bytes * self.fill) // PAGE_BYTES

    def spec(self, kernel: Path, initrd: Path) -> VmSpec:
        """The guest of this cell."""
        total = self.memory_bytes + self.disk_bytes
        words = {
            "scsi_debug.dev_size_mb": self.disk_bytes >> 20,
            "scsi_debug.ndelay": self.disk_latency_ns,
            "scsi_debug.sector_size": PAGE_BYTES,
            "acon_swap": self.swap,
            "acon_compressor": self.compressor,
            "acon_pool_percent": max(1, round(self.pool_percent * self.memory_bytes / total)),
            "acon_zram_bytes": self.pages * PAGE_BYTES,
            "acon_pages": self.pages,
            "acon_reads": self.reads,
            "acon_seed": self.seed,
            "INIT": _CELL,
        }
        # nolapic_timer: calibrating the APIC timer busy-waits 0.2 s, which costs 13 s of wall time on this clock
        fixed = "console=ttyS0 panic=-1 quiet tsc=reliable tsc_early_khz=1000000 no_timer_check nolapic_timer nokaslr"
        return VmSpec(
            kernel=kernel,
            initrd=initrd,
            append=" ".join([fixed, *(f"{key}={value}" for key, value in words.items())]),
            memory_bytes=total,
            clock=Clock.INSTRUCTIONS,
            seed=self.seed,
            timeout_s=self.timeout_s,
        )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The latencies of one phase, and the time that it took in ns of the guest's clock."""

    elapsed_ns: int
    latencies: Histogram

    @property
    def per_second(self) -> float:
        """Pages a second of the guest's clock."""
        return self.latencies.count * 1e9 / self.elapsed_ns if self.elapsed_ns else 0.0


def _program(store: Cache | None) -> Path:
    return guest_program("tmpfs_swap", shared=("acon", "histogram"), cache=store)


@dataclass(frozen=True, kw_only=True)
class SwapRun:
    """What one cell gave. An end other than `POWERED_OFF`, or `error`, is a result too: then the timings are None.

    `swapped_bytes` lay in swap after the fill; `pool_bytes` of RAM held `pool_stored_bytes` of those (zram, zswap).
    `disk_reads` and `disk_writes` count 4 KiB pages while the fill and the reads ran.
    """

    name: str
    swap: str
    compressor: str
    clock: Clock
    end: End
    error: str = ""
    fill: Phase | None = None
    read: Phase | None = None
    corrupt_pages: int | None = None
    major_faults: int | None = None
    swapped_bytes: int | None = None
    pool_bytes: int | None = None
    pool_stored_bytes: int | None = None
    disk_reads: int | None = None
    disk_writes: int | None = None
    memtotal_bytes: int | None = None
    knobs: Mapping[str, str] = field(default_factory=dict)
    console: Path = Path()

    def row(self) -> dict[str, Any]:
        """One flat row, with the quantiles that people ask for."""
        values = {key: value for key, value in vars(self).items() if key not in ("fill", "read", "knobs")}
        values |= {"end": self.end.value, "clock": self.clock.value, "console": str(self.console)}
        values["knobs"] = "\n".join(f"{path}={value}" for path, value in self.knobs.items())
        for phase in ("fill", "read"):
            timing: Phase | None = getattr(self, phase)
            values[f"{phase}_pages_per_s"] = timing.per_second if timing else None
            for share in (0.5, 0.9, 0.99):
                values[f"{phase}_p{round(share * 100)}_ns"] = timing.latencies.quantile_ns(share) if timing else None
            values[f"{phase}_max_ns"] = timing.latencies.max_ns if timing else None
        return values


def swap_initrd(path: Path, *, store: Cache | None = None) -> InitrdImage:
    """An initrd for swap cells: busybox, /init, the cell's script and the workload."""
    tree = tree_of("busybox", cache=store)
    gen_init(tree)
    tree.add_file(_CELL, guest_script("swap-cell"), mode=0o755)
    tree.add_file("/acon/tmpfs_swap", _program(store), mode=0o755)
    return create(tree, path)


def data_ratio(*, pages: int = 1024, seed: int = 1, store: Cache | None = None) -> dict[str, float]:
    """The compression ratio of the cell's pages, page by page, on this host: lz4, and zstd at level 3."""
    import lz4.block
    import zstandard

    text = process.run_bytes([_program(store), "dump", str(pages), str(seed)])
    cut = [text[start : start + PAGE_BYTES] for start in range(0, len(text), PAGE_BYTES)]
    zstd = zstandard.ZstdCompressor(level=3, write_content_size=False)
    sizes = {
        "lz4": sum(min(PAGE_BYTES, len(lz4.block.compress(page, store_size=False))) for page in cut),
        "zstd": sum(min(PAGE_BYTES, len(zstd.compress(page))) for page in cut),
    }
    return {name: len(text) / size for name, size in sizes.items()}


def run(
    cell: SwapCell, kernel: Path, initrd: Path, *, host: Capabilities | None = None, cancel: CancelToken | None = None
) -> SwapRun:
    """Run one cell. A guest that runs out of memory, hangs or panics is a result, not an error."""
    with Machine(cell.spec(kernel, initrd), host=host) as machine:
        outcome = machine.wait(cancel)
    return _row(cell, outcome)


def run_many(
    cells: Sequence[SwapCell],
    kernel: Path,
    initrd: Path,
    *,
    on_run: Callable[[SwapCell, SwapRun, Mapping[str, Any], Environment], None] | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
    jobs: int = 2,
) -> list[SwapRun]:
    """Run the cells, `jobs` at a time (the instruction clock does not see the host); rows in the order of `cells`.

    `on_run` gets each row as it ends, with the hashes of kernel and initrd, and the host's environment.
    """
    host, facts = capabilities(), environment()
    hashes = {"kernel_sha256": sha256_file(kernel), "initrd_sha256": sha256_file(initrd)}
    rows: dict[int, SwapRun] = {}
    on_progress(Progress("swap cells", 0.0, f"{len(cells)} guests"))

    def take(number: int, token: CancelToken) -> None:
        with host_lock(shared=True, cancel=token, on_progress=on_progress):
            row = run(cells[number], kernel, initrd, host=host, cancel=token)
        token.check()
        rows[number] = row
        if on_run is not None:
            on_run(cells[number], row, hashes, facts)
        on_progress(Progress("swap cells", len(rows) / len(cells), f"{row.name}: {row.end}"))

    run_side_by_side(range(len(cells)), take, parallel=jobs, cancel=cancel)
    return [rows[number] for number in range(len(cells))]


def _row(cell: SwapCell, outcome: Outcome) -> SwapRun:
    events: dict[str, Mapping[str, Any]] = {}
    phases: dict[str, Phase] = {}
    knobs: dict[str, str] = {}
    corrupt: int | None = None
    for data in (message.data for message in outcome.messages):
        if data["event"] == "phase":
            phases[data["name"]] = Phase(elapsed_ns=int(data["elapsed_ns"]), latencies=Histogram.of(data))
            corrupt = (corrupt or 0) + int(data["corrupt_pages"])
        elif data["event"] == "knob":
            knobs[data["path"]] = data["value"]
        else:
            events[data["event"]] = data
    filled, after, before = (events.get(name, {}) for name in ("filled", "after", "before"))
    pool, stored = _pool(cell, filled)
    end = End.OUT_OF_MEMORY if events.get("died", {}).get("status") == 137 else outcome.end
    return SwapRun(
        name=cell.name,
        swap=cell.swap,
        compressor="" if cell.swap == "disk" else cell.compressor,
        clock=Clock.INSTRUCTIONS,
        end=end,
        error=str(events.get("error", {}).get("what", "")),
        fill=phases.get("fill"),
        read=phases.get("read"),
        corrupt_pages=corrupt,
        major_faults=_change(before, after, "vmstat", "pgmajfault"),
        swapped_bytes=_swapped(filled),
        pool_bytes=pool,
        pool_stored_bytes=stored,
        disk_reads=_change(before, after, "disk", "reads"),
        disk_writes=_change(before, after, "disk", "writes"),
        memtotal_bytes=1024 * before["meminfo_kib"]["MemTotal"] if before else None,
        knobs=knobs,
        console=outcome.console,
    )


def _pool(cell: SwapCell, filled: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """RAM that the pool takes, and the bytes of pages in it: zram's mm_stat, or Zswap and Zswapped of meminfo."""
    if cell.swap == "zram":
        numbers = [int(word) for word in str(filled.get("zram_mm_stat", "")).split()]
        return (numbers[2], numbers[0]) if len(numbers) > 2 else (None, None)
    memory = filled.get("meminfo_kib", {})
    if cell.swap == "zswap" and "Zswap" in memory:
        return 1024 * memory["Zswap"], 1024 * memory["Zswapped"]
    return None, None


def _swapped(filled: Mapping[str, Any]) -> int | None:
    memory = filled.get("meminfo_kib", {})
    return 1024 * (memory["SwapTotal"] - memory["SwapFree"]) if "SwapTotal" in memory else None


def _change(before: Mapping[str, Any], after: Mapping[str, Any], table: str, name: str) -> int | None:
    first, last = before.get(table, {}).get(name), after.get(table, {}).get(name)
    return None if first is None or last is None else int(last) - int(first)
