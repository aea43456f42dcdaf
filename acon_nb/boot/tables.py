"""The table of a study of boots for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.results.select import usable
from acon_nb.stats import inference
from acon_nb.units import format_bytes
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_TIMES = {Clock.WALL: "host_ns_init", Clock.INSTRUCTIONS: "guest_ns_reset_to_init"}
_LABELS = {Clock.WALL: "QEMU's start to /init", Clock.INSTRUCTIONS: "reset to /init"}


def boot_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a cell, the fastest first, the clocks one below the other: time to `/init`, memory, what did not count."""
    entries: list[tuple[Any, ...]] = []
    for (clock, cell), part in rows.groupby(["clock", "cell"], sort=False):
        good, left = usable(part)
        column = _TIMES[Clock(str(clock))]
        if good.empty or column not in good or good[column].isna().all():
            entries.append((clock, float("inf"), cell, "no whole run" if good.empty else "no report", "", left.text()))
            continue
        summary = inference.summarise(list(good[column].dropna()))
        digits = 6 if clock == Clock.INSTRUCTIONS else 3
        memory = format_bytes(good["memavailable_bytes"].median())
        entries.append((clock, summary.median, cell, summary.text(1e9, "s", digits), memory, left.text()))
    return results.frame(
        {
            "clock": clock,
            "cell": cell,
            "time": f"{_LABELS[Clock(str(clock))]}: {time}",
            "MemAvailable at /init": memory,
            "not counted": left,
        }
        for clock, _, cell, time, memory, left in sorted(entries)
    )
