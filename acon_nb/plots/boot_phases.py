"""Figures of a boot's inside: phases stacked, initcalls as a waterfall, two boots side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acon_nb.boot.initcalls import Boot, call_table
from acon_nb.boot.phases import part_words, phase_rows
from acon_nb.plots.style import COLOURS, subplots
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXIS = {
    Clock.WALL: ("s since QEMU's start\n(host's clock, medians)", 1e9),
    Clock.INSTRUCTIONS: ("ms since reset on the instruction clock\n(10⁶ instructions, or idle time)", 1e6),
}
# How the end of a phase is drawn that is waiting
_PART: dict[str, dict[str, Any]] = {
    "idle_ns": {"facecolor": "0.85"},
    "busy_waiting_ns": {"facecolor": "0.6", "hatch": "xxx"},
}
_NARROW = 0.055  # of the axis: a bar below it has its number above


def plot_phases(rows: pd.DataFrame) -> Figure:
    """Each cell's phases as one stacked bar, a panel a clock (`boot.phases`).

    Busy waiting is crossed out, idle time is pale.
    """
    from matplotlib.patches import Patch

    phases = phase_rows(rows)
    clocks = list(dict.fromkeys(phases["clock"]))
    figure, axes = subplots(len(clocks), width=9 if len(clocks) == 1 else 6.5)
    most = max(phases[phases["clock"] == clock]["cell"].nunique() for clock in clocks)
    figure.set_figheight(0.75 * most + 2.2)
    names = list(dict.fromkeys(phases["phase"]))
    for ax, clock in zip(axes, clocks, strict=True):
        _stack(ax, phases[phases["clock"] == clock], names, *_AXIS[Clock(clock)])
    marks = [Patch(label=name, **_look(number)) for number, name in enumerate(names)]
    marks += [Patch(label=part_words(name), **_PART[name]) for name in _PART if (phases[name].fillna(0) > 0).any()]
    figure.legend(handles=marks, frameon=False, ncols=3, loc="outside lower center", fontsize=8)
    figure.suptitle("Where the time to the end of /init goes")
    return figure


def _stack(ax: Axes, part: pd.DataFrame, names: list[str], label: str, scale: float) -> None:
    cells = list(dict.fromkeys(part["cell"]))
    whole = float(part.groupby("cell")["took_ns"].sum().max()) / scale
    for place, cell in enumerate(cells):
        start = 0.0
        for row in part[part["cell"] == cell].to_dict("records"):
            width = float(row["took_ns"]) / scale
            look = _look(names.index(row["phase"]))
            ax.barh(place, width, left=start, height=0.6, **look)
            waiting = start + width
            for name, style in _PART.items():
                wait = 0.0 if _missing(row[name]) else float(row[name]) / scale
                waiting -= wait
                if wait:
                    ax.barh(place, wait, left=waiting, height=0.6, **{**look, **style})
            if width > _NARROW * whole:
                ax.annotate(
                    _short(width), (start + width / 2, place), ha="center", va="center", color="white", fontsize=8
                )
            start += width
        ax.annotate(
            _short(start), (start, place), xytext=(4, 0), textcoords="offset points", va="center", weight="bold"
        )
    runs = part.groupby("cell")["runs"].max()
    ax.set_yticks(range(len(cells)), [f"{cell}\nn = {runs[cell]}" for cell in cells])
    ax.set_ylim(len(cells) - 0.5, -0.5)
    ax.set_xlim(0, 1.14 * whole)
    ax.set_xlabel(label)


def plot_initcalls(boot: Boot, *, most: int = 20) -> Figure:
    """The longest initcalls where they are in the boot, in its order, with the gaps in grey (`boot.initcalls`)."""
    calls = call_table(boot, most=most)
    figure, axes = subplots(1, width=9.5)
    figure.set_figheight(0.27 * len(calls) + 1.5)
    ax, scale = axes[0], 1e3
    end = boot.end_us / scale
    for place, row in enumerate(calls.to_dict("records")):
        start, width = row["began_us"] / scale, row["took_us"] / scale
        colour = COLOURS[0] if row["what"] == "initcall" else "0.75"
        ax.axhline(place, color="0.93", zorder=0, linewidth=0.8)
        ax.barh(place, max(width, 0.0015 * end), left=start, color=colour, height=0.75)
        text = f"{width:.1f} ({100 * row['share']:.1f} %)"
        near_end = start + width > 0.86 * end
        place_x, shift, side = (start, -3, "right") if near_end else (start + width, 3, "left")
        ax.annotate(
            text, (place_x, place), xytext=(shift, 0), textcoords="offset points", ha=side, va="center", fontsize=8
        )
    ax.set_yticks(range(len(calls)), list(calls["name"]), fontsize=8)
    ax.set_ylim(len(calls) - 0.5, -0.5)
    ax.set_xlim(0, 1.02 * end)
    counted = boot.clock is Clock.INSTRUCTIONS
    unit, where = ("10⁶ instructions", "instruction clock") if counted else ("ms", "guest's clock")
    ax.set_xlabel(f"{unit} since the kernel's first line ({where}, n = 1); the axis ends at /init")
    shown = int((calls["what"] == "initcall").sum())
    figure.suptitle(f"The longest {shown} of {len(boot.calls)} initcalls; grey: no initcall runs")
    return figure


def plot_initcall_difference(
    rows: pd.DataFrame, *, names: tuple[str, str], most: int = 20, clock: str = Clock.INSTRUCTIONS
) -> Figure:
    """The largest differences of two boots by initcall (`boot.initcalls.difference`)."""
    shown = rows.head(most)
    figure, axes = subplots(1, width=9)
    figure.set_figheight(0.27 * len(shown) + 1.5)
    ax = axes[0]
    widths = [float(value) / 1e3 for value in shown["difference_us"]]
    largest = max((abs(width) for width in widths), default=1.0) or 1.0
    for place, (width, row) in enumerate(zip(widths, shown.to_dict("records"), strict=True)):
        ax.barh(place, width, color=COLOURS[1] if width > 0 else COLOURS[2], height=0.75)
        only = next((f"only in {n}" for n, o in (names, names[::-1]) if _missing(row[f"{o}_us"])), "")
        text = f"{width:+.1f}" + (f"  {only}" if only else "")
        shift, side = (3, "left") if width >= 0 else (-3, "right")
        ax.annotate(
            text, (width, place), xytext=(shift, 0), textcoords="offset points", ha=side, va="center", fontsize=8
        )
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_yticks(range(len(shown)), list(shown["name"]), fontsize=8)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlim(
        -1.45 * largest if min(widths, default=0) < 0 else 0, 1.45 * largest if max(widths, default=0) > 0 else 0
    )
    unit = "10⁶ instructions" if clock == Clock.INSTRUCTIONS else "ms of the guest's clock"
    ax.set_xlabel(f"{unit}: {names[1]} less {names[0]} (n = 1 each)")
    figure.suptitle(f"The largest {len(shown)} of {len(rows)} differences by initcall")
    return figure


def _look(number: int) -> dict[str, Any]:
    """How a phase is drawn: beyond the colours that all can tell apart, hatched."""
    hatch = "" if number < len(COLOURS) else "///"
    return {"facecolor": COLOURS[number % len(COLOURS)], "edgecolor": "white", "hatch": hatch}


def _missing(value: object) -> bool:
    return value is None or value != value or str(value) == "<NA>"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
