"""What each measure of a run is: its words, its unit, which way is better, on which clock it exists and is exact."""

from __future__ import annotations

from dataclasses import dataclass

from acon_nb.bench.memory import all_parts
from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes, format_seconds
from acon_nb.vm import Clock

_PHASES = {
    "vmm_start": "QEMU's start",
    "firmware": "the firmware",
    "unpack": "the kernel's 32-bit entry",
    "kernel": "the unpacked kernel",
    "log": "the kernel's first line",
    "kernel_entry": "kernel entry",
    "init": "/init",
    "ready": "ready",
    "end": "QEMU's end",
}
_HOST_BYTES = ("qemu_", "host_", "kernel_bytes", "initrd_bytes")
_MORE_IS_BETTER = ("memavailable", "memtotal", "memfree")
# Of a swap study: label, unit, scale, whether more is better. None is exact, since its replicates are seeds.
_SWAP: dict[str, tuple[str, str, float, bool]] = {
    "access_ops_per_s": ("accesses", "1/s", 1, True),
    "fill_pages_per_s": ("pages filled", "1/s", 1, True),
    "pool_bytes": ("RAM that the pool takes", "MiB", 1 << 20, False),
    "peak_pool_bytes": ("RAM that the pool took at most", "MiB", 1 << 20, False),
    "pool_stored_bytes": ("pages in the pool", "MiB", 1 << 20, True),
    "saved_bytes": ("RAM saved", "MiB", 1 << 20, True),
    "compression_ratio": ("pages in the pool over its RAM", "", 1, True),
    "disk_read_bytes": ("read from the disk", "MiB", 1 << 20, False),
    "disk_written_bytes": ("written to the disk", "MiB", 1 << 20, False),
    "fill_disk_written_bytes": ("written to the disk in the fill", "MiB", 1 << 20, False),
    "swap_used_bytes": ("swap used", "MiB", 1 << 20, False),
    "major_faults": ("major faults", "", 1, False),
    "fault_count": ("accesses that fault", "", 1, False),
    "pswpin_pages": ("pages swapped in", "", 1, False),
    "pswpout_pages": ("pages swapped out", "", 1, False),
    "zswpin_pages": ("pages from zswap", "", 1, False),
    "zswpout_pages": ("pages to zswap", "", 1, False),
    "zswpwb_pages": ("pages that zswap wrote back", "", 1, False),
    "user_cpu_ns": ("CPU time of the user", "s", 1e9, False),
    "system_cpu_ns": ("CPU time of the kernel", "s", 1e9, False),
    "idle_cpu_ns": ("idle CPU time", "s", 1e9, True),
    "kswapd_cpu_ns": ("CPU time of kswapd", "s", 1e9, False),
    "psi_some_ns": ("stalled for memory, some tasks", "s", 1e9, False),
    "psi_full_ns": ("stalled for memory, all tasks", "s", 1e9, False),
}
_LATENCIES = {"access": "an access", "hit": "a hit", "fault": "a fault", "fill": "a page of the fill"}
_QUANTILES = {"p50": "median", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "longest", "mean": "mean"}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure: `name` is its column, `label` its words, `scale` of its values give `unit` in plots and tables.

    `exact`: on the instruction clock equal guests give equal numbers. `wall_only` and `counted_only` name the clock
    on which alone it exists.
    """

    name: str
    label: str
    unit: str
    scale: float
    more_is_better: bool = False
    exact: bool = False
    wall_only: bool = False
    counted_only: bool = False

    def is_exact(self, clock: str) -> bool:
        """Whether any difference is real on this clock."""
        return self.exact and clock == Clock.INSTRUCTIONS

    def counts(self, clock: str) -> bool:
        """Whether its values are counts of instructions."""
        return clock == Clock.INSTRUCTIONS and self.name.startswith("guest_ns_")

    def text(self, value: float, clock: str) -> str:
        """A value for people: "1.23 s", "306.508 ms" (to the microsecond) on the instruction clock, "12.5 MiB"."""
        if self.unit == "MiB":
            return format_bytes(value)
        if self.unit == "s":
            return f"{value / 1e6:,.3f} ms" if self.counts(clock) else format_seconds(value / 1e9)
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"

    def difference_text(self, value: float, clock: str) -> str:
        """A difference without its sign: "1,234 instructions", "4,096 bytes", "12.0 ms"."""
        if self.counts(clock):
            return f"{abs(value):,.0f} instructions"
        return f"{abs(value):,.0f} bytes" if self.unit == "MiB" else self.text(abs(value), clock)

    def change(self, value: float, clock: str) -> str:
        """The word for a difference: longer or shorter (a count), slower or faster, more or less."""
        if self.unit == "s":
            words = ("longer", "shorter") if self.counts(clock) else ("slower", "faster")
        else:
            words = ("more", "less")
        return words[0] if value > 0 else words[1]

    def is_worse(self, ratio: float) -> bool:
        """Whether a ratio to the baseline is the wrong way."""
        return ratio < 1 if self.more_is_better else ratio > 1


def metric(name: str) -> Metric:
    """The measure of a column. Errors: `InvalidInput` for a column that is none."""
    if name.startswith("host_ns_"):
        phase = name.removeprefix("host_ns_")
        return Metric(name=name, label=f"QEMU start to {_words(phase)}", unit="s", scale=1e9, wall_only=True)
    if name.startswith("guest_ns_reset_to_"):
        label = f"reset to {_words(name.removeprefix('guest_ns_reset_to_'))}"
        return Metric(name=name, label=label, unit="s", scale=1e9, exact=True, counted_only=True)
    if name.startswith("guest_ns_"):
        label = f"the kernel's first line to {_words(name.removeprefix('guest_ns_'))}"
        return Metric(name=name, label=label, unit="s", scale=1e9, exact=True)
    swap = _swap_metric(name)
    if swap is not None:
        return swap
    if name.endswith("_bytes"):
        return Metric(
            name=name,
            label=_bytes_words(name),
            unit="MiB",
            scale=1 << 20,
            more_is_better=name.startswith(_MORE_IS_BETTER),
            exact=not name.startswith(_HOST_BYTES),
        )
    hint = "a column host_ns_..., guest_ns_..., ..._bytes, or of a swap study, such as access_ops_per_s"
    raise InvalidInput("metric", name, "is no measure of a run", hint=hint)


def _swap_metric(name: str) -> Metric | None:
    """The measure of a swap study's column, or None."""
    if name in _SWAP:
        label, unit, scale, more_is_better = _SWAP[name]
        return Metric(name=name, label=label, unit=unit, scale=scale, more_is_better=more_is_better)
    kind, _, rest = name.partition("_")
    quantile = rest.removesuffix("_ns")
    if kind in _LATENCIES and rest.endswith("_ns") and quantile in _QUANTILES:
        return Metric(name=name, label=f"{_QUANTILES[quantile]} latency of {_LATENCIES[kind]}", unit="s", scale=1e9)
    return None


def metric_on(name: str, clock: str) -> Metric:
    """The measure of a column in rows of a clock. Errors: `InvalidInput` for one that this clock does not have."""
    found = metric(name)
    if found.wall_only and clock != Clock.WALL:
        hint = "take rows of the wall clock, or a guest_ns_... measure"
        raise InvalidInput("metric", name, "is a wall time, which rows of the instruction clock do not have", hint=hint)
    if found.counted_only and clock != Clock.INSTRUCTIONS:
        hint = "take rows of the instruction clock, or a host_ns_... measure"
        raise InvalidInput("metric", name, "is counted from reset, which only the instruction clock does", hint=hint)
    return found


def _words(phase: str) -> str:
    return _PHASES.get(phase, phase.replace("_", " "))


def _bytes_words(name: str) -> str:
    known = {
        "memavailable_bytes": "MemAvailable at /init",
        "memtotal_bytes": "MemTotal",
        "qemu_pss_bytes": "QEMU's memory (PSS)",
        "qemu_code_pss_bytes": "TCG's translated code (PSS)",
        "kernel_bytes": "bzImage",
        "initrd_bytes": "initrd",
        **{part.column: part.label for part in all_parts()},
    }
    return known.get(name, name.removesuffix("_bytes").replace("_", " "))
