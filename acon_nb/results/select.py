"""Selects the rows of a study that may enter a statistic, and lists what else differs between rows.

Warm-ups, runs with a fault of the host and guests that did not end well never enter a statistic; their number is
reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb import kernel_line
from acon_nb.errors import InvalidInput
from acon_nb.results.columns import factor_words
from acon_nb.results.metrics import Metric
from acon_nb.vm import GOOD_ENDS, End, end_text

if TYPE_CHECKING:
    import pandas as pd

# What may have changed together with a number, the most likely cause first.
FACTS = {
    "kernel_release": "kernel",
    "kernel_sha256": "kernel's image",
    "kernel_compiler": "kernel's compiler",
    "compiler": "compiler",
    "initrd_sha256": "initrd",
    "firmware_sha256": "firmware",
    "cmdline": "kernel's command line",
    "qemu_version": "QEMU",
    "qemu_package": "QEMU's package",
    "accelerator": "accelerator",
    "acon_nb_version": "acon_nb",
    "host": "host",
    "host_kernel": "host's kernel",
    "host_distribution": "host's distribution",
    "microcode": "microcode",
    "governor": "CPU frequency governor",
    "smt": "SMT",
    "clocksource": "host's clock source",
    "python_version": "Python",
    "packages": "Python packages",
}
NOT_APPLICABLE = "not_applicable"  # the column of the factors that do not apply to a row's cell
_LISTS = ("cmdline", "packages")  # a row has several of these: one side may have none that the other lacks


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """The rows that do not count: warm-ups, faults of the host, and guests by the way they ended."""

    warmups: int = 0
    host_faults: int = 0
    ends: tuple[tuple[str, int], ...] = ()

    @property
    def failed(self) -> int:
        """The number of guests that did not end well."""
        return sum(count for _, count in self.ends)

    def text(self) -> str:
        """In words ("1 warm-up, 2 runs that ended: panic"), or ""."""
        words = [f"{self.warmups} warm-up{_s(self.warmups)}"] if self.warmups else []
        if self.host_faults:
            words.append(f"{self.host_faults} run{_s(self.host_faults)} with a fault of the host")
        words += [f"{count} run{_s(count)} that ended: {end_text(end)}" for end, count in self.ends]
        return ", ".join(words)


def usable(frame: pd.DataFrame) -> tuple[pd.DataFrame, LeftOut]:
    """Return the rows that count, and what was left out. A missing column leaves nothing out."""
    import pandas as pd

    none = pd.Series(False, index=frame.index)
    warmup = frame["warmup"].fillna(False).astype(bool) if "warmup" in frame else none
    fault = (frame["host_fault"].fillna("") != "") & ~warmup if "host_fault" in frame else none
    error = frame["error"].fillna("") if "error" in frame else pd.Series("", index=frame.index)
    end = frame["end"].fillna("no_end") if "end" in frame else pd.Series(End.POWERED_OFF.value, index=frame.index)
    well = end.isin([one.value for one in GOOD_ENDS])
    bad = (~well | (error != "")) & ~warmup & ~fault
    causes = end.where(~well, error)[bad]
    ends = tuple(sorted(Counter(map(str, causes)).items()))
    left = LeftOut(warmups=int(warmup.sum()), host_faults=int(fault.sum()), ends=ends)
    return frame[~warmup & ~fault & ~bad], left


def newest(frame: pd.DataFrame, of_each: Sequence[str] = ()) -> tuple[pd.DataFrame, int]:
    """Return the rows of the newest session and content of each cell, clock and host class; also how many are older.

    `of_each` names columns more, such as `session`: then the newest content of each session is kept.

    A folder of results keeps rows of an older kernel, or of the night before; neither is a repetition.
    """
    import pandas as pd

    groups = [name for name in ("cell", "clock", "host_class", *of_each) if name in frame]
    content = [name for name in ("session", "spec_sha256", "qemu_version") if name in frame]
    if frame.empty or not content:
        return frame, 0
    known = frame[content].astype(object).where(frame[content].notna(), "")
    marks = known.astype(str).agg("\0".join, axis=1)
    if not groups:
        last = pd.Series(marks.iloc[-1], index=frame.index)
    else:
        last = marks.groupby([frame[name] for name in groups], dropna=False).transform("last")
    rows = frame[marks == last]
    return rows, len(frame) - len(rows)


def on_clock_of(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Return the rows of the only clock that has a measure; all of them if both clocks have it."""
    return frame[frame["clock"] == metric.clock] if "clock" in frame and metric.clock else frame


def without(row: Mapping[Any, Any]) -> frozenset[str]:
    """The factors that do not apply to a row's cell, of a study whose plan has such."""
    text = row.get(NOT_APPLICABLE)
    return frozenset(text.splitlines()) if isinstance(text, str) else frozenset()


def having(frame: pd.DataFrame, factor: str) -> pd.DataFrame:
    """Return the rows to whose cell a factor applies; all rows of a study without such conditions."""
    if NOT_APPLICABLE not in frame:
        return frame
    return frame[[factor not in without({NOT_APPLICABLE: text}) for text in frame[NOT_APPLICABLE]]]


def matching(labels: Iterable[str], text: str) -> list[str]:
    """The labels that a text means: the one that it is, else those that it is a part of."""
    every = list(labels)
    return [text] if text in every else [label for label in every if text in label]


def one_of(frame: pd.DataFrame, column: str) -> str:
    """Return the one value of a column. Errors: `InvalidInput` if the rows have several."""
    if column not in frame:
        return ""
    values = sorted({str(value) for value in frame[column].dropna()})
    if len(values) > 1:
        hint = f"take rows of one: frame[frame[{column!r}] == {values[0]!r}]"
        raise InvalidInput(column, ", ".join(values), "are never compared with each other", hint=hint)
    return values[0] if values else ""


def changed(before: pd.DataFrame, after: pd.DataFrame, *, without: Sequence[str] = ()) -> list[str]:
    """List what else differs between two sets of rows: "QEMU's package: 7.2+dfsg-7 -> 7.2+dfsg-18"."""
    differences = []
    for column, label in FACTS.items():
        if column in without or column not in before or column not in after:
            continue
        old, new = (_facts(column, part[column]) for part in (before, after))
        if old and new and old != new:
            differences.append(f"{label}: {_own(column, old, new)} -> {_own(column, new, old)}")
    return differences


def _facts(column: str, values: pd.Series[str]) -> frozenset[str]:
    """Return the set of values: the lines of a text, the words of a command line."""
    if column == "cmdline":
        words = (word for value in values.dropna() for word in kernel_line.texts(str(value)))
        return frozenset(word for word in words if not word.startswith(factor_words()))
    return frozenset(line for value in values.dropna() for line in str(value).splitlines() if line)


def _own(column: str, side: frozenset[str], other: frozenset[str]) -> str:
    """Return what only one side has; all of its values if there is nothing and the column holds a single value."""
    values = side - other or (frozenset() if column in _LISTS else side)
    return ", ".join(value[:12] if column.endswith("_sha256") else value for value in sorted(values)) or "nothing"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def host_notes(rows: pd.DataFrame) -> list[str]:
    """What made the wall times of these rows unsteady, in words; nothing for rows that do not say."""
    texts = list(rows["host_warnings"].fillna("").astype(str)) if "host_warnings" in rows else []
    counts = Counter(code for text in texts for code in text.split("\n") if code)
    if not counts:
        return []
    named = ", ".join(f"{code} ({count} of {len(rows)} runs)" for code, count in counts.items())
    return [f"WALL TIMES OF AN UNSTEADY HOST: {named}; acon-nb doctor says why each matters and what changes it."]
