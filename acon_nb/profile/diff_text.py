"""The difference of two profiles for people: a sentence, and tables of functions, folders and layout."""

from __future__ import annotations

from collections.abc import Callable

from acon_nb import results
from acon_nb.profile.diff import Difference, DifferenceVerdict, FunctionChange, folder_part


def sentence(compared: Difference) -> str:
    """What the difference amounts to, in one line."""
    if compared.verdict is DifferenceVerdict.EQUAL:
        return f"equal: {compared.before:,} instructions"
    if compared.verdict is DifferenceVerdict.LAYOUT:
        return f"equal, but for {aside(compared.layout_change, compared.timing_change if compared.of_timing else None)}"
    share = f" ({100 * compared.change / compared.before:+.3g} %)" if compared.before else ""
    text = f"{compared.before:,} -> {compared.after:,} instructions: {compared.change:+,}{share}"
    parts = [f"{sum(row.change for row in compared.changes):+,} by {_functions(compared.changes)}"]
    if compared.of_layout:
        parts.append(f"{compared.layout_change:+,} of layout")
    if compared.of_timing:
        parts.append(f"{compared.timing_change:+,} of timing")
    if compared.unattributed_change:
        parts.append(f"{compared.unattributed_change:+,} unattributed")
    return f"{text}; {', '.join(parts)}"


def aside(layout: int, timing: int | None) -> str:
    """What a kernel that is equal differs by: instructions of layout, and of timing unless that is None."""
    return f"{layout:+,} instructions of layout" + ("" if timing is None else f" and {timing:+,} of timing")


def text(compared: Difference, most: int | None = None) -> str:
    """The sentence and its tables; `most` limits the rows of each."""
    blocks = [sentence(compared)]
    if compared.changes and not compared.by_file:
        blocks.append(
            "The source files of both are not known: functions are compared by name, inlining is not recognised."
        )
    if compared.changes:
        blocks.append(_functions_table(compared.changes[:most]))
        rest = compared.changes[most:] if most is not None else ()
        if rest:
            blocks[-1] += f"\n... {sum(row.change for row in rest):+,} in {len(rest):,} more rows"
        blocks.append(_parts_table(compared, folder_part, most))
    if compared.of_layout:
        blocks.append(_layout_table(compared))
    if compared.of_timing:
        blocks.append(_timing_table(compared))
        if not (compared.same_code or compared.changes):
            blocks.append("Functions that ran have other code, so that timing alone does not explain the difference.")
    return "\n\n".join(blocks)


def _functions(rows: tuple[FunctionChange, ...]) -> str:
    number = len({(row.name, row.file) for row in rows})
    return f"{number:,} function{'s' * (number != 1)}"


def _functions_table(rows: tuple[FunctionChange, ...]) -> str:
    shown = [
        {
            "function": row.name,
            "phase": row.phase,
            "before": f"{row.before:,}",
            "after": f"{row.after:,}",
            "change": f"{row.change:+,}",
            "": row.kind.value if row.kind.value != "changed" else "",
            "file": row.file,
        }
        for row in rows
    ]
    return results.frame(shown).to_string(index=False)


def _parts_table(compared: Difference, part: Callable[[FunctionChange], str], most: int | None) -> str:
    shown = [
        {
            "folder": one.part,
            "before": f"{one.before:,}",
            "after": f"{one.after:,}",
            "change": f"{one.change:+,}",
            "of it layout": f"{one.layout:+,}" if one.layout else "",
        }
        for one in compared.by(part)
        if one.change or one.layout
    ]
    return results.frame(shown[:most]).to_string(index=False)


def _layout_table(compared: Difference) -> str:
    shown = [
        {"layout": kind.value, "functions": number, "change": f"{change:+,}"}
        for kind, (number, change) in compared.layout_groups().items()
    ]
    return results.frame(shown).to_string(index=False)


def _timing_table(compared: Difference) -> str:
    shown = [
        {"timing": row.name, "phase": row.phase, "change": f"{row.change:+,}", "why": row.timing}
        for row in compared.of_timing
    ]
    return results.frame(shown).to_string(index=False)
