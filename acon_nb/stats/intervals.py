"""The kind of an interval, which depends on the number of values: a code for files, with text for people."""

from __future__ import annotations

from enum import StrEnum

LEAST_FOR_BOOTSTRAP = 5  # the range of four values holds their median in 87.5 % of samples: 95 % cannot be reached
LARGE = 200  # above, the order statistics give the interval: BCa takes time and memory as the square of the number


class Interval(StrEnum):
    """How the interval of a median, or of a median ratio, was computed."""

    NONE = "none"
    RANGE = "range"
    BOOTSTRAP = "bootstrap_95"
    ORDER_STATISTICS = "order_statistics_95"

    @classmethod
    def of(cls, n: int) -> Interval:
        """Return the kind of interval for `n` values."""
        if n < 2:
            return cls.NONE
        if n < LEAST_FOR_BOOTSTRAP:
            return cls.RANGE
        return cls.BOOTSTRAP if n <= LARGE else cls.ORDER_STATISTICS

    @property
    def text(self) -> str:
        """The kind as text: "bootstrap 95 %"."""
        return _TEXTS[self]


_TEXTS = {
    Interval.NONE: "no interval",
    Interval.RANGE: "range",
    Interval.BOOTSTRAP: "bootstrap 95 %",
    Interval.ORDER_STATISTICS: "order statistics 95 %",
}


def count_text(n: int, what: str = "seed") -> str:
    """Format a number of seeds or runs: "1 seed", "5 seeds"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def interval_words(n: int, what: str = "seed") -> str:
    """Describe the interval of `n` values: "1 seed", "range of 3 seeds", "bootstrap 95 %, 5 seeds"."""
    kind, count = Interval.of(n), count_text(n, what)
    if kind is Interval.NONE:
        return count
    return f"range of {count}" if kind is Interval.RANGE else f"{kind.text}, {count}"


def intervals_words(counts: list[int], what: str = "seed") -> str:
    """Describe the intervals of a table from the counts of values: "bootstrap 95 % of the median"; "range"."""
    kinds = dict.fromkeys(Interval.of(n) for n in sorted(counts) if n > 0)
    texts = {
        Interval.NONE: f"no interval for 1 {what}",
        Interval.RANGE: f"range of the {what}s",
        Interval.BOOTSTRAP: "bootstrap 95 % of the median",
        Interval.ORDER_STATISTICS: "95 % of the median by order statistics",
    }
    named = [texts[kind] + (f" ({_span(kind, counts)})" if len(kinds) > 1 and kind is not Interval.NONE else "")
             for kind in kinds]  # fmt: skip
    return "; ".join(named)


def _span(kind: Interval, counts: list[int]) -> str:
    """Return the numbers of values for which a table uses a kind: "n = 3 to 4"."""
    numbers = sorted({n for n in counts if Interval.of(n) is kind})
    return f"n = {numbers[0]}" if len(numbers) == 1 else f"n = {numbers[0]} to {numbers[-1]}"
