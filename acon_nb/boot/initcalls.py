"""What the kernel's initcalls took: a log of `initcall_debug` as a table, its gaps, and two boots side by side.

Times are those of the log's records, on whatever clock the guest lived. The kernel's own "after N usecs" is kept beside
them: it is 0 until the kernel has a clock source. A span has the formatting of one line of the log in it; the shortest
span of a log is taken for that line and subtracted (`line_us`). Source: init/main.c, drivers/base/dd.c.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.errors import InvalidInput
from acon_nb.guest.kernel_log import Record, of_text
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_FUNCTION = r"(?P<name>[\w.$]{1,200})\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[(?P<module>[\w-]{1,64})(?: [0-9a-f]+)?\])?"
_CALLED = re.compile(rf"calling  {_FUNCTION} @ (?P<task>\d{{1,9}})")
_RETURNED = re.compile(rf"initcall {_FUNCTION} returned (?P<value>-?\d{{1,9}}) after (?P<us>\d{{1,12}}) usecs ?")
_PROBED = re.compile(r"probe of (?P<name>.{1,200}) returned (?P<value>-?\d{1,9}) after (?P<us>\d{1,12}) usecs ?")
_INIT = re.compile(r"Run \S+ as init process")
_GAP_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Initcall:
    """One initcall (or a driver's probe): microseconds on the kernel's clock.

    `ended_us` is None where the log has no end: the boot stopped in it. `kernel_us` is what the kernel itself says,
    `task` the process id that ran it (1: the boot's own).
    """

    name: str
    began_us: int
    ended_us: int | None
    module: str = ""
    task: int = 1
    returned: int | None = None
    kernel_us: int | None = None


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A time of the boot in which no initcall ran: after which one, before which one, what the log says meanwhile."""

    began_us: int
    ended_us: int
    after: str
    before: str
    says: str = ""

    @property
    def took_us(self) -> int:
        """Its length."""
        return self.ended_us - self.began_us


@dataclass(frozen=True, kw_only=True)
class Boot:
    """A boot as its log tells it.

    `init_us` is when `/init` was run (None: it was not), `end_us` the last record before that. `lost` counts returns
    without a call: the log's begin was overwritten. `line_us` is the shortest span, taken for a line of the log.
    `clock` is instructions where the guest lived on that clock (1 µs: 1000 instructions), by its command line.
    """

    calls: tuple[Initcall, ...]
    probes: tuple[Initcall, ...]
    gaps: tuple[Gap, ...]
    init_us: int | None
    end_us: int
    line_us: int
    lost: int
    clock: Clock = Clock.WALL

    def took_us(self, call: Initcall) -> int:
        """What an initcall took; one that never returned took the rest of the log."""
        if call.ended_us is None:
            return max(0, self.end_us - call.began_us)
        return max(0, call.ended_us - call.began_us - self.line_us)

    def text(self, us: float) -> str:
        """A time for people: "12.3 ms", or "12.3 × 10⁶ instructions"."""
        return f"{us / 1e3:.1f} {'× 10⁶ instructions' if self.clock is Clock.INSTRUCTIONS else 'ms'}"


def read(log: str | Sequence[Record]) -> Boot:
    """The initcalls of a kernel's log (its records, or a text as of dmesg or a serial console).

    Errors: `InvalidInput` for a log without initcalls.
    """
    records = of_text(log) if isinstance(log, str) else tuple(log)
    open_calls: dict[tuple[str, str], list[Initcall]] = {}
    calls: list[Initcall] = []
    probes: list[Initcall] = []
    lost, init_us = 0, None
    for record in records:
        if match := _CALLED.fullmatch(record.text):
            call = Initcall(
                name=match["name"],
                module=match["module"] or "",
                task=int(match["task"]),
                began_us=record.us,
                ended_us=None,
            )
            open_calls.setdefault((call.name, call.module), []).append(call)
        elif match := _RETURNED.fullmatch(record.text):
            waiting = open_calls.get((match["name"], match["module"] or ""))
            if waiting:
                calls.append(_ended(waiting.pop(), record.us, match))
            else:
                lost += 1
        elif match := _PROBED.fullmatch(record.text):
            began = max(0, record.us - int(match["us"]))
            probes.append(_ended(Initcall(name=match["name"], began_us=began, ended_us=None), record.us, match))
        elif init_us is None and _INIT.match(record.text):
            init_us = record.us
    calls += [call for waiting in open_calls.values() for call in waiting]
    if not calls:
        hint = "boot with initcall_debug (initcalls=true in a plan), and give the kernel's log, not a quiet console's"
        raise InvalidInput("log", f"{len(records)} records", "has no initcalls", hint=hint)
    calls.sort(key=lambda call: call.began_us)
    end_us = init_us if init_us is not None else records[-1].us
    line_us = min((max(0, c.ended_us - c.began_us) for c in calls if c.ended_us is not None), default=0)
    return Boot(
        calls=tuple(calls), probes=tuple(probes), gaps=tuple(_gaps(calls, records, end_us)),
        init_us=init_us, end_us=end_us, line_us=line_us, lost=lost, clock=_clock(records),
    )  # fmt: skip


def call_table(boot: Boot, *, most: int | None = 20) -> pd.DataFrame:
    """The longest initcalls before `/init` (all with None), in the order of the boot, with the gaps between them.

    Columns: `what` (initcall, gap), `name`, `began_us`, `took_us`, `share` of the time to `/init`, `returned`, `note`.
    """
    before = [call for call in boot.calls if call.began_us <= boot.end_us]
    longest = sorted(before, key=lambda call: -boot.took_us(call))[:most]
    rows = [_call_row(boot, call) for call in longest]
    rows += [
        {
            "what": "gap", "name": f"after {gap.after}" if gap.after else "before the first initcall",
            "began_us": gap.began_us, "took_us": gap.took_us, "returned": None, "note": gap.says,
        }
        for gap in boot.gaps
    ]  # fmt: skip
    rows.sort(key=lambda row: row["began_us"])
    whole = max(1, boot.end_us)
    return results.frame({**row, "share": row["took_us"] / whole} for row in rows).astype({"returned": "Int64"})


def shown_table(boot: Boot, *, most: int = 20) -> pd.DataFrame:
    """`call_table` for people: times with their unit, shares in per cent."""
    unit = "10⁶ instructions" if boot.clock is Clock.INSTRUCTIONS else "ms"
    return results.frame(
        {
            "": row["what"], "initcall": row["name"], f"began / {unit}": f"{row['began_us'] / 1e3:,.1f}",
            f"took / {unit}": f"{row['took_us'] / 1e3:,.1f}", "of the time to /init": f"{row['share']:.1%}",
            "returned": row["returned"], "what the log says": row["note"],
        }
        for row in call_table(boot, most=most).astype({"returned": object}).fillna({"returned": ""}).to_dict("records")
    )  # fmt: skip


def difference(first: Boot, second: Boot, *, names: tuple[str, str] = ("first", "second")) -> pd.DataFrame:
    """Two boots by initcall, the largest difference first: what each took in both, what only one has.

    Columns: `name`, `NAME_us` of each boot (empty where it has no such initcall), `difference_us` (second less first).
    The time outside of initcalls is a row of its own, so that the differences add up to that of the whole boot but for
    the lines of the log. Errors: `InvalidInput` for boots of two clocks.
    """
    import pandas as pd

    if first.clock != second.clock:
        hint = "measure both on one clock"
        raise InvalidInput("boots", f"{first.clock}, {second.clock}", "lived on two clocks", hint=hint)
    sums = [_sums(boot) for boot in (first, second)]
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys([*sums[0], *sums[1]]):
        pair = [side.get(name) for side in sums]
        row: dict[str, Any] = {"name": name}
        row |= {f"{label}_us": value for label, value in zip(names, pair, strict=True)}
        rows.append({**row, "difference_us": (pair[1] or 0) - (pair[0] or 0)})
    rows.sort(key=lambda row: (-abs(row["difference_us"]), row["name"]))
    frame = pd.DataFrame(rows)
    return frame.astype({f"{label}_us": "Int64" for label in names})


def apart(first: str, second: str) -> tuple[str, str]:
    """Two cells' labels without the levels that both have."""
    levels = [label.split(", ") for label in (first, second)]
    kept = [", ".join(level for level in one if level not in other) for one, other in (levels, levels[::-1])]
    return (kept[0] or first, kept[1] or second)


def sentences(boot: Boot) -> list[str]:
    """What a person asks first, in words."""
    before = [call for call in boot.calls if call.began_us <= boot.end_us]
    inside = sum(boot.took_us(call) for call in _outermost(before))
    texts = [
        f"{len(before)} initcalls take {boot.text(inside)} of the {boot.text(boot.end_us)}"
        f" from the kernel's first line to {'/init' if boot.init_us is not None else 'the end of the log'}"
    ]
    longest = sorted(before, key=lambda call: -boot.took_us(call))[:3]
    texts.append("longest: " + ", ".join(f"{call.name} {boot.text(boot.took_us(call))}" for call in longest))
    texts += [f"{call.name} never returned" for call in boot.calls if call.ended_us is None]
    if boot.lost:
        texts.append(f"{boot.lost} initcalls are cut off at the log's begin: boot with a larger log_buf_len")
    return texts


def _clock(records: Sequence[Record]) -> Clock:
    """Return the clock of a guest of ours: on the instruction clock its counter runs at 1 GHz (docs/clocks.md)."""
    lines = (record.text for record in records[:100] if "ommand line: " in record.text)
    return Clock.INSTRUCTIONS if any("tsc_early_khz=1000000 " in f"{line} " for line in lines) else Clock.WALL


def _ended(call: Initcall, us: int, match: re.Match[str]) -> Initcall:
    values = {"ended_us": us, "returned": int(match["value"]), "kernel_us": int(match["us"])}
    return Initcall(**{**vars(call), **values})


def _call_row(boot: Boot, call: Initcall) -> dict[str, Any]:
    notes = [f"module {call.module}"] if call.module else []
    notes += ["never returned"] if call.ended_us is None else []
    return {
        "what": "initcall", "name": call.name, "began_us": call.began_us, "took_us": boot.took_us(call),
        "returned": call.returned, "note": ", ".join(notes),
    }  # fmt: skip


def _sums(boot: Boot) -> dict[str, int]:
    """Microseconds by name; equal names (of several modules) together, and the time outside of all."""
    before = [call for call in boot.calls if call.began_us <= boot.end_us]
    shares_us: dict[str, int] = {}
    for call in before:
        shares_us[call.name] = shares_us.get(call.name, 0) + boot.took_us(call)
    covered = sum((call.ended_us or boot.end_us) - call.began_us for call in _outermost(before))
    shares_us["(outside of initcalls)"] = max(0, boot.end_us - covered)
    return shares_us


def _outermost(calls: Iterable[Initcall]) -> list[Initcall]:
    """The calls that are within no other one, in order."""
    kept: list[Initcall] = []
    until = -1
    for call in sorted(calls, key=lambda c: (c.began_us, -(c.ended_us or 0))):
        if call.began_us >= until:
            kept.append(call)
            until = call.ended_us if call.ended_us is not None else 1 << 62
    return kept


def _gaps(calls: Sequence[Initcall], records: Sequence[Record], end_us: int) -> list[Gap]:
    """The times of 1 % of the boot and more in which no initcall ran."""
    least = max(1, int(_GAP_SHARE * end_us))
    gaps: list[Gap] = []
    last, after = 0, ""
    for call in [*_outermost(c for c in calls if c.began_us <= end_us), None]:
        start = end_us if call is None else call.began_us
        if start - last >= least:
            before = "/init" if call is None else call.name
            gaps.append(
                Gap(began_us=last, ended_us=start, after=after, before=before, says=_said(records, last, start))
            )
        if call is not None:
            last, after = call.ended_us if call.ended_us is not None else end_us, call.name
    return gaps


def _said(records: Sequence[Record], began: int, ended: int) -> str:
    """The record before the longest silence within a gap: what the kernel was at."""
    inside = [r for r in records if began <= r.us <= ended and not r.text.startswith(("calling  ", "initcall "))]
    pauses = [(later.us - earlier.us, earlier.text) for earlier, later in itertools.pairwise(inside)]
    if inside:
        pauses.append((ended - inside[-1].us, inside[-1].text))
    return max(pauses, default=(0, ""), key=lambda pause: pause[0])[1].strip()[:120]


def of_rows(rows: Iterable[Mapping[str, Any]], folder: Any) -> dict[str, Boot]:
    """The boots of a study by cell, in the labels' order: of each cell the first run that logged its initcalls.

    `rows` are those of `results.load`, `folder` that of the results. Errors: `InvalidInput` where no run did.
    """
    boots: dict[str, Boot] = {}
    for row in rows:
        cell, log = str(row.get("cell") or row.get("name") or ""), row.get("kernel_log")
        if cell in boots or not isinstance(log, str) or not log or "initcall_debug" not in str(row.get("cmdline")):
            continue
        try:
            text = (folder / log).read_text(errors="replace")
        except OSError as error:
            raise InvalidInput("log", log, error.strerror or "cannot be read", hint="measure again") from error
        boots[cell] = read(text)
    if not boots:
        raise InvalidInput("study", "", "has no run that logged its initcalls", hint="set initcalls = true in its plan")
    return dict(sorted(boots.items()))
