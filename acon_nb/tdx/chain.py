"""The chain of a measured boot, as in the guide's figure: components, who measures them, into which register."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acon_nb.tdx.firmware import MR_EXTEND, PAGE_AUG, Section
from acon_nb.tdx.predict import Prediction
from acon_nb.tdx.predicted import PredictedEvent

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "cannot be known offline"
_KINDS = {
    "EV_EFI_VARIABLE_DRIVER_CONFIG": "secure boot variables",
    "EV_EFI_VARIABLE_BOOT": "boot options",
    "EV_SEPARATOR": "separators",
    "EV_EFI_ACTION": "actions",
}
_LABELS = {"TdxTable": "TD HOB", "CFV": "configuration volume", "ACPI DATA": "ACPI tables", "db": "certificate"}
_MRTD = "MRTD, per page"


@dataclass
class _Component:
    """A component of the figure, summed over its events."""

    register: str
    value: str
    by: str
    component: str
    events: int = 0
    bytes: int = 0
    known: bool = True
    moved: bool = False


def chain_table(prediction: Prediction, before: Prediction | None = None) -> pd.DataFrame:
    """Table of what is measured into which register by whom, one row per component; for `plots.plot_chain`.

    `moved` marks the components that differ from those of `before`, `known` those whose digest can be known offline.
    """
    import pandas as pd

    rows = [*_sections(prediction, before), *_events(prediction, before), *_empty(prediction)]
    return pd.DataFrame([vars(row) for row in sorted(rows, key=lambda row: row.register)])


def measured_of(section: Section) -> str:
    """Describe what of a section is measured into MRTD."""
    if section.attributes & PAGE_AUG:
        return "nothing (pages are added later)"
    return "addresses and content" if section.attributes & MR_EXTEND else "addresses"


def _sections(prediction: Prediction, before: Prediction | None) -> Iterator[_Component]:
    if prediction.mrtd is None:
        return
    rows: dict[str, _Component] = {}
    moved = before is not None and before.mrtd != prediction.mrtd
    for section in prediction.material.firmware.sections:
        name = f"{section.name}: {measured_of(section)}"
        value = prediction.mrtd.per_page.hex()
        row = rows.setdefault(name, _Component(_MRTD, value, "TDX module, for the host", name, moved=moved))
        row.bytes += section.memory_bytes
    yield from rows.values()


def _events(prediction: Prediction, before: Prediction | None) -> Iterator[_Component]:
    rows: dict[tuple[str, str], _Component] = {}
    old = None if before is None else Counter(map(_identity, before.events))
    for event in prediction.events:
        value = prediction.registers[event.register]
        name = _KINDS.get(event.type_name) or _LABELS.get(event.label, event.label)
        maker = "kernel's EFI stub" if event.type_name == "EV_EVENT_TAG" else "firmware (Boot FV)"
        made = _Component(event.register, UNKNOWN if value is None else value.hex(), maker, name)
        row = rows.setdefault((event.register, name), made)
        row.events += 1
        row.bytes += event.hashed_bytes or 0
        row.known &= event.digest is not None
        row.moved |= old is not None and not old[_identity(event)]
    yield from rows.values()


def _empty(prediction: Prediction) -> Iterator[_Component]:
    """Registers into which nothing is measured during the boot."""
    used = {event.register for event in prediction.events}
    for name, value in prediction.registers.items():
        if name not in used:
            who = "the guest, if it chooses to" if name == "RTMR[3]" else "nobody"
            yield _Component(name, value.hex() if value else UNKNOWN, who, "nothing at boot")


def _identity(event: PredictedEvent) -> tuple[str, str, bytes | None]:
    return event.register, event.label, event.digest
