"""Workloads of the field by name (workloads.toml): what a plan's `workload_name` stands for."""

from __future__ import annotations

import functools
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb import results
from acon_nb.errors import InvalidInput
from acon_nb.validation import closest

if TYPE_CHECKING:
    import pandas as pd

_TABLE = Path(__file__).with_name("workloads.toml")


@dataclass(frozen=True, kw_only=True)
class FieldWorkload:
    """A named workload: `what` it does, its Debian `packages`, `program` (its arguments), `user`, what it `reports`,
    the `memory` of a guest that it needs at least, the `boot_room` to unpack its packages, its shape's `source`."""

    name: str
    what: str
    packages: str
    program: tuple[str, ...]
    reports: str
    memory: str
    boot_room: str
    source: str
    user: str = ""

    def factors(self) -> dict[str, str]:
        """The factors that it stands for."""
        return {
            "workload": "program",
            "program": shlex.join(self.program),
            "packages": self.packages,
            "program_user": self.user,
            "boot_room": self.boot_room,
        }


@functools.cache
def workloads() -> Mapping[str, FieldWorkload]:
    """The workloads by name."""
    rows = tomllib.loads(_TABLE.read_text())["workload"]
    return {row["name"]: FieldWorkload(**{**row, "program": tuple(row["program"])}) for row in rows}


def named(name: str) -> FieldWorkload:
    """A workload by its name. Errors: `InvalidInput` with the nearest."""
    if name not in workloads():
        raise InvalidInput("workload_name", name, "is not known", hint=closest(name, workloads()))
    return workloads()[name]


def table() -> pd.DataFrame:
    """The workloads as a table: name, packages, what they do and report, the least memory, the source."""
    return results.frame(
        {"name": one.name, "packages": one.packages, "what": one.what, "reports": one.reports, "memory": one.memory}
        for one in workloads().values()
    )
