"""The measures of a run, from the descriptions of their columns: label, unit, direction, clock, exactness."""

from __future__ import annotations

from dataclasses import dataclass

from acon_nb import registry
from acon_nb.errors import InvalidInput
from acon_nb.results.columns import column_of, columns
from acon_nb.units import format_bytes, format_seconds
from acon_nb.vm import Clock

_SECONDS = {"s": 1.0, "µs": 1e-6}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure: `name` is its column, `label` its text; one `unit` in plots and tables is `scale` of its values.

    `exact`: on the instruction clock equal guests give equal numbers; `counted`: it counts instructions there. `clock`
    is the only clock on which it exists ("": both).
    """

    name: str
    label: str
    unit: str
    scale: float
    more_is_better: bool = False
    exact: bool = False
    counted: bool = False
    clock: str = ""

    def is_exact(self, clock: str) -> bool:
        """Whether any difference is real on this clock."""
        return self.exact and clock == Clock.INSTRUCTIONS

    def counts(self, clock: str) -> bool:
        """Whether its values are counts of instructions."""
        return self.counted and clock == Clock.INSTRUCTIONS

    def text(self, value: float, clock: str) -> str:
        """Format a value: "1.23 s", "306.508 ms" (to the microsecond) on the instruction clock, "12.5 MiB"."""
        if self.unit == "MiB":
            return format_bytes(value)
        if self.unit in _SECONDS:
            seconds = value / self.scale * _SECONDS[self.unit]
            return f"{value / 1e6:,.3f} ms" if self.counts(clock) else format_seconds(seconds)
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"

    def difference_text(self, value: float, clock: str) -> str:
        """Format a difference without its sign: "1,234 instructions", "4,096 bytes", "12.0 ms"."""
        if self.counts(clock):
            return f"{abs(value):,.0f} instructions"
        return f"{abs(value):,.0f} bytes" if self.unit == "MiB" else self.text(abs(value), clock)

    def change(self, value: float, clock: str) -> str:
        """Return the word for a difference: longer or shorter (a count), slower or faster, more or less."""
        if self.unit in _SECONDS:
            words = ("longer", "shorter") if self.counts(clock) else ("slower", "faster")
        else:
            words = ("more", "less")
        return words[0] if value > 0 else words[1]

    def axis_text(self, clock: str) -> str:
        """Return the label of an axis with its unit: "reset to /init / 10⁹ instructions", "major faults"."""
        unit = "10⁹ instructions" if self.counts(clock) else self.unit
        return " / ".join(filter(None, (self.label, f"({unit})" if "/" in unit else unit)))

    def is_worse(self, ratio: float) -> bool:
        """Whether a ratio to the baseline means that this side is worse."""
        return ratio < 1 if self.more_is_better else ratio > 1


def names() -> tuple[str, ...]:
    """The names of the columns that are measures; those whose name has a part of the user's are left out."""
    return tuple(column.name for column in columns() if column.unit is not None and column.name.isidentifier())


@registry.cached
def metric(name: str) -> Metric:
    """Return the measure of a column. Errors: `InvalidInput` for a column that is not a measure."""
    column = column_of(name)
    if column is None or column.unit is None:
        hint = "take a column that has a unit in docs/results.md, such as memavailable_bytes"
        raise InvalidInput("metric", name, "is not a measure of a run", hint=hint)
    return Metric(
        name=name,
        label=column.label_of(name),
        unit=column.unit,
        scale=column.scale,
        more_is_better=column.more_is_better,
        exact=column.exact,
        counted=column.counted,
        clock=column.clock,
    )


def metric_on(name: str, clock: str) -> Metric:
    """Return the measure of a column in rows of a clock. Errors: `InvalidInput` if the clock does not have it."""
    measure = metric(name)
    if measure.clock and measure.clock != clock:
        hint = f"take rows of the {measure.clock} clock, or a measure that both clocks have"
        reason = f"exists only on the {measure.clock} clock, and these rows are of the {clock} clock"
        raise InvalidInput("metric", name, reason, hint=hint)
    return measure
