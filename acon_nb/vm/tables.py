"""Tables about launches, for people; only this module loads pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from acon_nb.errors import AconError
from acon_nb.units import format_bytes, format_seconds
from acon_nb.vm.counters import Sample
from acon_nb.vm.explain import Explained
from acon_nb.vm.form import texts_of
from acon_nb.vm.outcome import Outcome
from acon_nb.vm.spec import VmSpec

if TYPE_CHECKING:
    import pandas as pd


def spec_table(spec: VmSpec) -> pd.DataFrame:
    """Table of the spec to launch."""
    import pandas as pd

    return pd.DataFrame([[name, text] for name, text in texts_of(spec).items() if text], columns=["field", "value"])


def explained_table(rows: Sequence[Explained]) -> pd.DataFrame:
    """Table of the options: why each is there, what the guide says, what differs today, and the source."""
    import pandas as pd

    columns = ["option", "why", "the guide", "today", "source"]
    cells = [[f"{row.option} {row.value}".rstrip(), row.why, row.guide, row.today, row.source] for row in rows]
    return pd.DataFrame(cells, columns=columns)


def refusal_table(errors: Sequence[AconError]) -> pd.DataFrame:
    """Table of what prevents a launch on this host, with a hint for each."""
    import pandas as pd

    return pd.DataFrame([[error.what, error.hint] for error in errors], columns=["refused because", "hint"])


def sample_table(sample: Sample) -> pd.DataFrame:
    """Table of one reading of a guest's counters."""
    import pandas as pd

    cpu = " + ".join(format_seconds(ns / 1e9) for ns in sample.vcpu_ns)
    rows = [["vCPU time", cpu], ["QEMU's resident set", format_bytes(sample.resident_bytes)]]
    if sample.balloon_bytes is not None:
        rows.append(["memory left by the balloon", format_bytes(sample.balloon_bytes)])
    for disk in sample.disks:
        read, written = format_bytes(disk.read_bytes), format_bytes(disk.written_bytes)
        rows.append([disk.name, f"{read} read in {disk.reads}, {written} written in {disk.writes} requests"])
    if sample.received_packets is not None:
        rows.append(["network", f"{sample.received_packets} packets in, {sample.sent_packets} out"])
    return pd.DataFrame(rows, columns=["counter", "value"])


def outcome_text(outcome: Outcome) -> str:
    """Describe how a guest ended in a line, followed by notes and a hint if there are any."""
    seconds = (outcome.ended_ns - (outcome.continued_ns or outcome.started_ns)) / 1e9
    line = f"{outcome.end.text} after {format_seconds(seconds)} on {outcome.accelerator}"
    return "\n".join([line, *outcome.notes, *([f"hint: {outcome.hint}"] if outcome.hint else [])])
