"""Figures of profiles: ranked bars of functions by phase, and of what differs between two profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acon_nb.plots.style import COLOURS, subplots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from acon_nb.profile.diff import Difference, FunctionChange

_COLUMNS = ("function", "file", "region", "self", "share")
_HATCHES = ("", "//", "..", "xx")
_NAME_LENGTH = 40


def plot_profile(ranked: pd.DataFrame, *, most: int = 25) -> Figure:
    """Plot phases and the functions that executed most, by phase (the rows of `profile.tables.ranked`, all of them).

    What is one part as a whole, such as firmware, is in the bar of phases, not among the functions.
    """
    ranked = ranked.reindex(columns=list(dict.fromkeys((*_COLUMNS, *ranked.columns))))
    phases = [name for name in ranked.columns if name not in _COLUMNS]
    total = int(ranked["self"].sum())
    functions = ranked[~ranked["function"].astype(str).str.match(r"[(\[]")]
    shown = functions.head(most)
    figure, _ = subplots(0, width=9)
    figure.clear()
    figure.set_figheight(0.27 * max(len(shown), 1) + 2.6)
    above, below = figure.subplots(2, 1, height_ratios=(1, 0.55 * max(len(shown), 1) + 1))
    for ax in (above, below):
        ax.spines[["top", "right"]].set_visible(False)
    _phase_bar(above, {name: int(ranked[name].sum()) for name in phases})
    left = [0.0] * len(shown)
    for number, phase in enumerate(phases):
        widths = [count / 1e6 for count in shown[phase]]
        below.barh(range(len(shown)), widths, left=left, **_look(number))
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, (end, count) in enumerate(zip(left, shown["self"], strict=True)):
        _annotate(below, end, place, f"{count:,} ({count / max(total, 1):.2%})")
    names = [_short(name) for name in shown["function"]]
    _rank(below, names, right=max(left, default=0.0))
    rest = int(functions["self"].sum() - shown["self"].sum())
    more = len(functions) - len(shown)
    below.set_xlabel(f"10⁶ instructions executed by the function itself; {more:,} other functions: {rest:,}")
    figure.suptitle(f"{total:,} instructions executed, by phase and function")
    return figure


def plot_profile_difference(compared: Difference, *, names: tuple[str, str], most: int = 25) -> Figure:
    """Plot the functions whose counts differ most between two profiles; changes of layout are grey."""
    rows = [row for row in compared.functions if row.change]
    shown, others = rows[:most], rows[most:]
    rest = sum(row.change for row in others) + compared.unattributed_change
    labels = [f"{_short(row.name)} ({row.phase})" for row in shown]
    texts = [f"{row.change:+,} ({row.before:,} to {row.after:,})" for row in shown]
    changes = [row.change for row in shown]
    colours = [_change_colour(row) for row in shown]
    if others or rest:
        labels.append(f"{len(others):,} others" + (", unattributed" if compared.unattributed_change else ""))
        texts.append(f"{rest:+,}")
        changes.append(rest)
        colours.append("0.8")
    figure, (ax,) = subplots(1, width=9)
    figure.set_figheight(0.27 * max(len(changes), 1) + 1.6)
    ax.barh(range(len(changes)), [change / 1e6 for change in changes], color=colours)
    for place, (change, text) in enumerate(zip(changes, texts, strict=True)):
        _annotate(ax, max(change, 0) / 1e6, place, text)
    _rank(ax, labels, right=max([*changes, 0]) / 1e6, left=min([*changes, 0]) / 1e6)
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_xlabel(f"10⁶ instructions more in {names[1]}; grey: layout and others")
    share = f" ({compared.change / compared.before:+.3%})" if compared.before else ""
    head = f"{names[0]} to {names[1]}: {compared.change:+,} instructions{share} of {compared.before:,}"
    figure.suptitle(f"{head}\n{len(rows):,} counts of functions differ, by phase; layout {compared.layout_change:+,}")
    return figure


def _phase_bar(ax: Axes, counts: dict[str, int]) -> None:
    """Draw all phases as one bar, with their counts in the legend."""
    total = max(sum(counts.values()), 1)
    left = 0.0
    for number, (phase, count) in enumerate(counts.items()):
        ax.barh([0], [count / 1e6], left=left, label=f"{phase}: {count:,} ({count / total:.1%})", **_look(number))
        left += count / 1e6
    ax.set_yticks([0], ["all"])
    ax.set_xlim(0, max(left, 1e-6))
    ax.set_xlabel("10⁶ instructions")
    if counts:
        ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=8)


def _look(number: int) -> dict[str, Any]:
    hatch = _HATCHES[number // len(COLOURS) % len(_HATCHES)]
    return {"color": COLOURS[number % len(COLOURS)], "hatch": hatch, "edgecolor": "white", "linewidth": 0.3}


def _change_colour(row: FunctionChange) -> str:
    if row.layout is not None:
        return "0.6"
    return COLOURS[1] if row.change > 0 else COLOURS[0]


def _annotate(ax: Axes, x: float, y: float, text: str) -> None:
    ax.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)


def _rank(ax: Axes, labels: list[str], *, right: float, left: float = 0.0) -> None:
    """Label the bars from the top down, and leave space for their texts."""
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    space = max(right - left, 1e-6)
    ax.set_xlim(left - 0.02 * space if left else 0, right + (0.62 if left else 0.35) * space)


def _short(name: str) -> str:
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    text = text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
    return text.replace("$", r"\$")
