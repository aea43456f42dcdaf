"""Tables of predictions, logs and comparisons, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from acon_nb.tdx.chain import UNKNOWN, measured_of
from acon_nb.tdx.compare import MeasurementComparison
from acon_nb.tdx.describe import label_of
from acon_nb.tdx.eventlog import EventLog
from acon_nb.tdx.firmware import Tdvf
from acon_nb.tdx.inputs import BootInputs
from acon_nb.tdx.mrtd import PageOrder
from acon_nb.tdx.predict import Prediction
from acon_nb.tdx.stacks import Stack
from acon_nb.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd


def inputs_table(inputs: BootInputs) -> pd.DataFrame:
    """Table of the inputs of a boot, one row per field."""
    values = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return _frame({"input": name, "value": "" if value is None else str(value)} for name, value in values.items())


def register_table(prediction: Prediction) -> pd.DataFrame:
    """Table of MRTD in both page orders and of each register, with what its value depends on."""
    rows = []
    if prediction.mrtd is not None:
        rows += [
            {
                "register": f"MRTD, {order}",
                "value": prediction.mrtd.of(order).hex(),
                "events": "pages",
                "depends on": "firmware",
            }
            for order in PageOrder
        ]
    for name, value in prediction.registers.items():
        events = [event for event in prediction.events if event.register == name]
        depends = dict.fromkeys(word for event in events for word in event.depends)
        shown = UNKNOWN if value is None else value.hex()
        rows.append({"register": name, "value": shown, "events": str(len(events)), "depends on": ", ".join(depends)})
    return _frame(rows)


def event_table(prediction: Prediction) -> pd.DataFrame:
    """Table of the predicted events: register, type, what is hashed, its size and source, what it depends on."""
    return _frame(
        {
            "register": event.register,
            "type": event.type_name,
            "what is hashed": event.what,
            "bytes": "unknown" if event.hashed_bytes is None else f"{event.hashed_bytes:,}",
            "source": event.source,
            "depends on": ", ".join(event.depends) or "nothing",
            "SHA-384": f"{UNKNOWN}: {event.why}" if event.digest is None else event.digest.hex()[:16] + "…",
        }
        for event in prediction.events
    )


def log_table(log: EventLog) -> pd.DataFrame:
    """Table of the events of a log."""
    return _frame(
        {
            "number": event.number,
            "register": event.register,
            "type": event.type_name,
            "what": label_of(event),
            "data": format_bytes(len(event.data)),
            "SHA-384": event.digest.hex()[:16] + "…",
        }
        for event in log.events
    )


def comparison_table(comparison: MeasurementComparison) -> pd.DataFrame:
    """Table of the registers of a comparison: the verdict on each and its first difference."""
    rows = ({"register": row.register, "verdict": row.verdict.text, "why": row.text} for row in comparison.registers)
    return _frame(rows)


def difference_table(comparison: MeasurementComparison) -> pd.DataFrame:
    """Table of the events that differ, in order."""
    rows = ({"register": row.register, "event": row.number, "difference": row.text} for row in comparison.differences)
    return _frame(rows, ("register", "event", "difference"))


def change_table(before: Prediction, after: Prediction) -> pd.DataFrame:
    """Table of the registers that change from one prediction to another, and the events that change them."""
    first, second = before.registers, after.registers
    rows = []
    if before.mrtd is not None and after.mrtd is not None:
        moved = before.mrtd != after.mrtd
        rows.append({"register": "MRTD", "result": _moves(moved), "by": "firmware" if moved else ""})
    for name in dict.fromkeys([*first, *second]):
        old = Counter((event.label, event.digest) for event in before.events if event.register == name)
        new = Counter((event.label, event.digest) for event in after.events if event.register == name)
        by = dict.fromkeys(label for label, _ in [*(old - new), *(new - old)])
        unknown = first.get(name) is None and not by
        moves = "unchanged as far as it can be known" if unknown else _moves(bool(by))
        rows.append({"register": name, "result": moves, "by": ", ".join(by)})
    return _frame(rows)


def stack_table(stack: Stack) -> pd.DataFrame:
    """Table of the switches of a stack: on or off, how that is known, the commit behind each."""
    return _frame(
        {
            "switch": switch.what,
            "here": "yes" if switch.on else "no",
            "known by": switch.known_by,
            "source": switch.source,
        }
        for switch in stack.switches
    )


def section_table(firmware: Tdvf) -> pd.DataFrame:
    """Table of the sections of a TDVF: which of them are only added, and which are measured by content."""
    return _frame(
        {
            "section": section.name,
            "address": f"{section.address:#x}",
            "memory": format_bytes(section.memory_bytes),
            "in the image": format_bytes(section.raw_bytes),
            "measured into MRTD": measured_of(section),
        }
        for section in firmware.sections
    )


def _moves(moved: bool) -> str:
    return "changed" if moved else "unchanged"


def _frame(rows: object, columns: Sequence[str] = ()) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(list(rows))  # type: ignore[call-overload]
    return frame if len(frame) or not columns else pd.DataFrame(columns=list(columns))
