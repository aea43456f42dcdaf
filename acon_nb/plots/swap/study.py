"""Figures of a swap study, one for each table of `acon_nb.swap.analysis.tables` and of the same name.

Every figure names its clock, its units, its number of seeds and its intervals; guests that ended badly are marked, not
left out. Kinds of swap differ in marker and line, the rest of a choice in colour, so that each is recognised without
colour.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from acon_nb.plots.style import COLOURS
from acon_nb.plots.swap.style import (
    Style,
    axis_of_levels,
    bars_words,
    clock_words,
    grid,
    is_known,
    largest,
    legend,
    plain_ticks,
    styles_of,
    title,
    wrapped,
)
from acon_nb.stats.breakeven import PointKind
from acon_nb.stats.comparison import Verdict
from acon_nb.swap.analysis.measures import THROUGHPUT, available_text, level_text, measure, sorting_key
from acon_nb.swap.analysis.outcomes import failures_text
from acon_nb.swap.derived import AVAILABLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_PANELS = 6
_MIB = float(1 << 20)


def plot_pareto(table: pd.DataFrame, *, most: int = _MOST_PANELS) -> Figure:
    """A measure against the RAM freed (`df_pareto`), a panel a situation: filled markers are on the front.

    Bars are intervals over the seeds. A choice with guests that ended badly has no point but its ends in words.
    """
    figure, axes, shown = _panels(table, "situation", most, (4.3, 3.9))
    styles = styles_of(table)
    what = measure(str(table["metric"].iloc[0]))
    for ax, (situation, part) in zip(axes, shown, strict=True):
        _front_line(ax, part, what.scale)
        for row in part.to_dict("records"):
            _pareto_point(ax, row, styles[row["choice"]], what.scale)
        ax.margins(0.08)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("RAM freed: swap used less pool / MiB")
        ax.set_ylabel(f"{what.label} / ({what.unit})")
        pressed = available_text(float(part[AVAILABLE].iloc[0]))
        ax.set_title("\n".join(filter(None, (situation or "all rows", pressed))), fontsize=9)
    legend(figure, axes)
    front = "filled: on the Pareto front by the medians;\n%: in so many resampled studies"
    text = f"{what.label.capitalize()} against RAM freed\n({front}; {bars_words(table, 'n')})"
    figure.suptitle(title(text, table, "n", most=most))
    return figure


def plot_pressure(table: pd.DataFrame, points: pd.DataFrame | None = None, *, most: int = 3) -> Figure:
    """Cost along a numeric factor (`df_pressure`), the ratio to the baseline, and break-evens (`df_breakeven`).

    Throughput is shown as the time of one access, so that up is dearer; other measures as they are. A cross is a level
    at which guests ended badly. A situation with one level is left out where others have more.
    """
    shown = largest(_larger(table, table["level"]), "situation", most)
    figure, lines = grid(len(shown), 2, (5.2, 3.9))
    styles = styles_of(table)
    for axes, (situation, part) in zip(lines, shown, strict=True):
        marks = points[points["situation"] == situation] if points is not None and len(points) else None
        _cost_panel(axes[0], part, styles)
        _ratio_panel(axes[1], part, styles, marks)
        axes[0].set_title(situation or "all rows", fontsize=9)
    axis = str(table["axis"].iloc[0])
    legend(figure, [axes[0] for axes in lines])
    text = f"Cost along {axis} ({bars_words(table, 'n')}; ✖: ended badly; ◆: break-even, ◇: not sure)"
    figure.suptitle(title(text, table, "n", most=len(shown)))
    return figure


def _larger(table: pd.DataFrame, places: pd.Series[Any]) -> pd.DataFrame:
    """The rows of situations that have more than one of `places`; all rows if none has."""
    larger = table[places.groupby(table["situation"], sort=False).transform("nunique") > 1]
    return larger if len(larger) else table


def plot_best(table: pd.DataFrame, *, most: int = _MOST_PANELS) -> Figure:
    """The best choice by two factors (`df_best`), a panel a situation.

    Hatched: choices that cannot be distinguished (all are named). ?: too few seeds to rank. ✕: ended badly.
    A situation with one cell is left out where others have more.
    """
    cells = _larger(table, table.index.to_series())
    down, across = str(table["down"].iloc[0]), str(table["across"].iloc[0])
    columns = cells["across_level"].nunique()
    figure, axes, shown = _panels(cells, "situation", most, (max(4.0, 1.5 * columns + 1.6), 0.0), rows_of="down_level")
    kinds = _first_colours(cells)
    for ax, (situation, part) in zip(axes, shown, strict=True):
        lows, highs = (
            sorted(set(part[name]), key=lambda level: sorting_key(level_text(level)))
            for name in ("down_level", "across_level")
        )
        for row in part.to_dict("records"):
            _best_cell(ax, row, highs.index(row["across_level"]), lows.index(row["down_level"]), kinds)
        ax.set_xticks(range(len(highs)), [_level_words(part, level) for level in highs])
        ax.set_yticks(range(len(lows)), [wrapped(str(level) or "none", 22) for level in lows])
        ax.set_xlim(-0.5, len(highs) - 0.5)
        ax.set_ylim(len(lows) - 0.5, -0.5)
        ax.set_xlabel(_across_words(part, across))
        ax.set_ylabel(down)
        ax.set_title(situation or "all rows", fontsize=9)
    what = measure(str(table["metric"].iloc[0]))
    text = f"Best choice by {what.label}; hatched: cannot be distinguished;\n?: too few seeds; ✕: ended badly"
    figure.suptitle(title(text, table, "seeds", most=len(shown)))
    return figure


def plot_effects(table: pd.DataFrame) -> Figure:
    """What each level of each factor does with all else equal (`df_effects`): ratios with intervals.

    Filled: a sure difference. Hollow: none. A diamond is an average whose sign flips between combinations.
    """
    from acon_nb.jupyter.show import ShownFigure

    figure = ShownFigure(figsize=(8.5, 0.34 * max(1, len(table)) + 1.7), layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    ax.axvline(1, color="0.6", linewidth=1)
    labels = []
    for place, row in enumerate(table.to_dict("records")):
        name = "nominal pressure" if row["factor"] == "pressure" else row["factor"]
        labels.append(f"{name}: {wrapped(str(row['level']), 40)} compared with {row['baseline']}")
        if not is_known(row["ratio"]):
            ax.annotate("no combination in which both ended well", (1, place), fontsize=8, va="center", ha="center")
            continue
        _effect_bar(ax, row, place)
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_xscale("log")
    plain_ticks(ax, "x")
    metric = measure(str(table["metric"].iloc[0])) if len(table) else measure(THROUGHPUT)
    ax.set_xlabel(f"times the {metric.label} (1: no effect; {clock_words(table)})")
    text = f"What each factor does, all else equal ({bars_words(table, 'seeds')}; diamond: the sign flips)"
    figure.suptitle(title(text, table, "seeds"))
    return figure


def _pareto_point(ax: Axes, row: dict[Any, Any], style: Style, scale: float) -> None:
    if row["failures"]:
        text = f"{row['choice']}: {failures_text(row['failures'], row['runs'])}"
        count = sum(1 for line in ax.texts if line.get_gid() == "ends")
        ax.annotate(text, (0.02, 0.02 + 0.06 * count), xycoords="axes fraction", fontsize=7, color="0.35", gid="ends")
        return
    if not is_known(row["freed"]) or not is_known(row["speed"]):
        return
    x, y = row["freed"] / _MIB, row["speed"] / scale
    errors = [
        [[max(0.0, value - row[f"{name}_low"] / unit)], [max(0.0, row[f"{name}_high"] / unit - value)]]
        for name, value, unit in (("freed", x, _MIB), ("speed", y, scale))
    ]
    face = style.colour if row["on_front"] else "white"
    ax.errorbar([x], [y], xerr=errors[0], yerr=errors[1], fmt=style.marker, color=style.colour, mfc=face, capsize=3,
                label=row["choice"])  # fmt: skip
    if is_known(row["support"]) and 0.005 < row["support"] < 0.995:
        text = f"{100 * row['support']:.0f} %"
        ax.annotate(text, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=7)


def _front_line(ax: Axes, part: pd.DataFrame, scale: float) -> None:
    """The front as a step, in the order of the RAM freed."""
    front = part[part["on_front"] & part["freed"].notna()].sort_values("freed")
    if len(front) > 1:
        xs, ys = front["freed"].astype(float) / _MIB, front["speed"].astype(float) / scale
        ax.step(xs, ys, where="pre", color="0.7", linewidth=1, zorder=0)


def _cost_panel(ax: Axes, part: pd.DataFrame, styles: dict[str, Style]) -> None:
    metric = str(part["metric"].iloc[0])
    what, inverse = measure(metric), metric == THROUGHPUT

    def shown(value: Any) -> float:
        if not is_known(value):
            return math.nan
        return 1e6 / float(value) if inverse else float(value) / what.scale

    for choice, mine in part.groupby("choice", sort=False):
        style = styles[str(choice)]
        rows = mine.sort_values("level").to_dict("records")
        well = [row for row in rows if not row["failures"] and is_known(row["median"])]
        ys = [shown(row["median"]) for row in well]
        ends = [sorted((shown(row["low"]), shown(row["high"]))) for row in well]
        bars = [[max(0.0, y - low) for y, (low, _) in zip(ys, ends, strict=True)],
                [max(0.0, high - y) for y, (_, high) in zip(ys, ends, strict=True)]]  # fmt: skip
        xs = [row["level"] for row in well]
        ax.errorbar(xs, ys, yerr=bars, fmt=style.marker + style.line, color=style.colour, capsize=3, label=choice)
    _died(ax, part, styles)
    ax.set_yscale("log")
    plain_ticks(ax, "y")
    axis_of_levels(ax, part)
    ax.set_ylabel(f"time of an access / µs ({clock_words(part)})" if inverse else f"{what.label} / {what.unit}")


def _died(ax: Axes, part: pd.DataFrame, styles: dict[str, Style]) -> None:
    """A cross above the axis for each level at which guests of a choice ended badly, with how many."""
    groups = list(part[part["failures"].map(bool)].groupby("choice", sort=False))
    for number, (choice, mine) in enumerate(groups):
        place, colour = 0.97 - 0.06 * number, styles[str(choice)].colour
        levels = list(mine["level"])
        ax.plot(levels, [place] * len(levels), "X", color=colour, transform=ax.get_xaxis_transform(), clip_on=False)
        text = f"✖ {choice}: {failures_text(mine['failures'].iloc[0], mine['runs'].iloc[0])}"
        foot = 0.04 + 0.05 * number  # at the right, where much pressure costs much
        ax.text(0.99, foot, text, transform=ax.transAxes, color=colour, ha="right", va="center", fontsize=7)


def _ratio_panel(ax: Axes, part: pd.DataFrame, styles: dict[str, Style], points: pd.DataFrame | None) -> None:
    baseline = str(part["baseline"].iloc[0])
    ax.axhline(1, color="0.6", linewidth=1)
    for choice, mine in part.groupby("choice", sort=False):
        style = styles[str(choice)]
        rows = [row for row in mine.sort_values("level").to_dict("records")
                if is_known(row["ratio"]) and not row["failures"]]  # fmt: skip
        if choice == baseline or not rows:
            continue
        ys = [row["ratio"] for row in rows]
        bars = [[max(0.0, row["ratio"] - row["ratio_low"]) for row in rows],
                [max(0.0, row["ratio_high"] - row["ratio"]) for row in rows]]  # fmt: skip
        xs = [row["level"] for row in rows]
        ax.errorbar(xs, ys, yerr=bars, fmt=style.marker + style.line, color=style.colour, capsize=3, label=choice)
    ax.set_yscale("log")
    plain_ticks(ax, "y")
    axis_of_levels(ax, part)
    if points is not None:
        _break_even_marks(ax, points, baseline, styles)
    what = measure(str(part["metric"].iloc[0]))
    ax.set_ylabel(f"times the {what.label} of {baseline},\npaired by seed")


def _break_even_marks(ax: Axes, points: pd.DataFrame, baseline: str, styles: dict[str, Style]) -> None:
    """Break-evens with the baseline lie on the line at 1; those of two others at the lower edge, with their names."""
    for number, row in enumerate(points[points["kind"] == PointKind.CROSSING].to_dict("records")):
        with_baseline = row["first"] == baseline
        transform = ax.transData if with_baseline else ax.get_xaxis_transform()
        y = 1.0 if with_baseline else 0.05 + 0.06 * (number % 4)
        colour = styles[row["second"]].colour if row["second"] in styles else "black"
        if is_known(row["low"]):
            ax.plot([row["low"], row["high"]], [y, y], "-", color=colour, linewidth=5, alpha=0.45, transform=transform)
        face = colour if row["sure"] else "white"
        ax.plot([row["at"]], [y], "D", color=face, mec=colour, mew=1.5, markersize=7, transform=transform, zorder=5)
        if not with_baseline:
            text = f" {row['first']} = {row['second']}"
            ax.text(row["at"], y, text, transform=transform, fontsize=7, va="center")


def _best_cell(ax: Axes, row: dict[Any, Any], x: int, y: int, colours: dict[str, str]) -> None:
    from matplotlib.patches import Rectangle

    names = list(row["best"])
    tied = len(names) > 1
    face = "0.35" if not names else "white" if tied else colours.get(names[0], "white")
    hatch = "///" if tied else None
    box = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="0.8", hatch=hatch, linewidth=1, alpha=0.55)
    ax.add_patch(box)
    lines = ["none ended well"] if not names else names[:4] + ([f"and {len(names) - 4} more"] if len(names) > 4 else [])
    if row["verdict"] == Verdict.TOO_FEW_SEEDS and names:
        lines = [f"{names[0]} ?", f"(n = {row['seeds']})"]
    text = "\n".join(lines)
    middle = y - 0.12 if row["died"] else y
    ax.text(x, middle, text, ha="center", va="center", fontsize=7, color="white" if not names else "black",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1} if tied else None)  # fmt: skip
    if row["died"]:
        ends = [f"{label}: {failures_text(failures, runs)}" for label, failures, runs in row["died"][:3]]
        died = "\n".join(f"✕ {wrapped(text, 40)}" for text in ends)
        ax.text(x, y + 0.47, died, ha="center", va="bottom", fontsize=5.5, color="white" if not names else "0.2")


def _effect_bar(ax: Axes, row: dict[Any, Any], place: int) -> None:
    verdict = Verdict(row["verdict"])
    sure = verdict.ranks and not row["why"]
    colour = COLOURS[0] if sure else "0.45"
    marker = "D" if row["turns"] else "o"
    error = [[max(0.0, row["ratio"] - row["low"])], [max(0.0, row["high"] - row["ratio"])]]
    face = colour if sure and not row["turns"] else "white"
    ax.errorbar([row["ratio"]], [place], xerr=error, fmt=marker, color=colour, mfc=face, capsize=3)
    text = "not ranked" if row["why"] else "" if sure or row["turns"] else verdict.text
    ax.annotate(text, (row["high"], place), xytext=(6, 0), textcoords="offset points", fontsize=7, va="center")


def _across_words(part: pd.DataFrame, across: str) -> str:
    """The factor below, and what its levels are."""
    if across != "pressure":
        return across
    measured = part[AVAILABLE].notna().all()
    return f"working set / {'available memory (nominal pressure)' if measured else 'RAM: the nominal pressure'}"


def _level_words(part: pd.DataFrame, level: Any) -> str:
    """A level for people; of a pressure also what it was, the median of its cells."""
    name, here = str(level) or "none", part[part["across_level"] == level]
    if str(part["across"].iloc[0]) != "pressure" or not part[AVAILABLE].notna().all():
        return name
    return f"{float(here[AVAILABLE].median()):.2f}\n({name})"


def _first_colours(table: pd.DataFrame) -> dict[str, str]:
    """A colour for each choice that is the best somewhere."""
    names = [name for labels in table["best"] for name in labels[:1]]
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(dict.fromkeys(names))}


def _panels(
    table: pd.DataFrame, by: str, most: int, size: tuple[float, float], *, rows_of: str = ""
) -> tuple[Figure, list[Axes], list[tuple[str, pd.DataFrame]]]:
    """A panel for each value of a column, three a row; of more than `most` the largest."""
    shown = largest(table, by, most)
    columns = min(3, len(shown)) if size[0] < 5 else 1
    height = size[1] or 1.1 * max(part[rows_of].nunique() for _, part in shown) + 1.3
    figure, lines = grid(-(-len(shown) // columns), columns, (size[0], height))
    axes = [ax for line in lines for ax in line]
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    return figure, axes[: len(shown)], shown
