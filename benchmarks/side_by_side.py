"""Times two variants in turns, in pairs whose order changes, and prints both and their ratio."""

from __future__ import annotations

from collections.abc import Callable

from acon_nb.stats import inference


def times_of(once: Callable[[bool], float], pairs: int) -> tuple[list[float], list[float]]:
    """Call `once` with True and with False, `pairs` times each; return the results of both, in s."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(pairs):
        for variant in (True, False) if number % 2 else (False, True):
            times[variant].append(once(variant))
    return times[True], times[False]


def print_both(labels: tuple[str, str], times: tuple[list[float], list[float]], what: str, *, unit: str = "s") -> None:
    """Print the summaries of both variants, in the order of `labels`, and the ratio of the first to the second."""
    width = max(map(len, labels))
    scale, digits = (1.0, 2) if unit == "s" else (1e-3, 1)
    for label, values in zip(labels, times, strict=True):
        print(f"{label:>{width}}: {inference.summarise(values).text(scale, unit, digits)} {what}")
    ratio = inference.ratio_of_medians(times[1], times[0])
    print(f"ratio {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")
