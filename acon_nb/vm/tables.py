"""Launches as tables for people; pandas loads only here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from acon_nb.errors import AconError
from acon_nb.units import format_bytes, format_seconds
from acon_nb.vm.explain import Explained
from acon_nb.vm.fields import texts_of
from acon_nb.vm.outcome import Outcome
from acon_nb.vm.spec import VmSpec
from acon_nb.vm.statistics import Sample

if TYPE_CHECKING:
    import pandas as pd


def spec_table(spec: VmSpec) -> pd.DataFrame:
    """What is to be launched."""
    import pandas as pd

    return pd.DataFrame([[name, text] for name, text in texts_of(spec).items() if text], columns=["field", "value"])


def explained_table(rows: Sequence[Explained]) -> pd.DataFrame:
    """Each option: why it is there, what the guide says, what differs today, and where that stands."""
    import pandas as pd

    columns = ["option", "why", "the guide", "today", "source"]
    found = [[f"{row.option} {row.value}".rstrip(), row.why, row.guide, row.today, row.source] for row in rows]
    return pd.DataFrame(found, columns=columns)


def refusal_table(errors: Sequence[AconError]) -> pd.DataFrame:
    """What stands against a launch on this host, and the way out of each."""
    import pandas as pd

    return pd.DataFrame([[error.what, error.hint] for error in errors], columns=["refused because", "way out"])


def sample_table(sample: Sample) -> pd.DataFrame:
    """One reading of a guest's counters."""
    import pandas as pd

    cpu = " + ".join(format_seconds(ns / 1e9) for ns in sample.vcpu_ns)
    rows = [["vCPU time", cpu], ["QEMU's resident set", format_bytes(sample.resident_bytes)]]
    if sample.balloon_bytes is not None:
        rows.append(["memory that the balloon leaves", format_bytes(sample.balloon_bytes)])
    for disk in sample.disks:
        read, written = format_bytes(disk.read_bytes), format_bytes(disk.written_bytes)
        rows.append([disk.name, f"{read} read in {disk.reads}, {written} written in {disk.writes} requests"])
    if sample.received_packets is not None:
        rows.append(["network", f"{sample.received_packets} packets in, {sample.sent_packets} out"])
    return pd.DataFrame(rows, columns=["counter", "value"])


def outcome_text(outcome: Outcome) -> str:
    """How a guest went, in two lines."""
    seconds = (outcome.ended_ns - (outcome.continued_ns or outcome.started_ns)) / 1e9
    line = f"{outcome.end} after {format_seconds(seconds)} on {outcome.accelerator}"
    return "\n".join([line, *outcome.notes, *([f"hint: {outcome.hint}"] if outcome.hint else [])])
