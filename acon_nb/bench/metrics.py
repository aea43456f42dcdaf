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
        return f"{value:g}"

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
    if name.endswith("_bytes"):
        return Metric(
            name=name,
            label=_bytes_words(name),
            unit="MiB",
            scale=1 << 20,
            more_is_better=name.startswith(_MORE_IS_BETTER),
            exact=not name.startswith(_HOST_BYTES),
        )
    hint = "a column host_ns_..., guest_ns_... or ..._bytes"
    raise InvalidInput("metric", name, "is no measure of a run", hint=hint)


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
