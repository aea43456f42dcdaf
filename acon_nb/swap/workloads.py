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
from acon_nb.host.apt_closure import closure
from acon_nb.validation import closest

if TYPE_CHECKING:
    import pandas as pd

_TABLE = Path(__file__).with_name("workloads.toml")


@dataclass(frozen=True, kw_only=True)
class FieldWorkload:
    """A named workload: `what` it does, its Debian `packages`, `program` (its arguments), `user`, what it `reports`,
    the `memory` of a guest that it needs at least, the `boot_room` to unpack its packages, its shape's `source`.

    `since` is the first release of Debian with these packages, where not all that are supported have them.
    """

    name: str
    what: str
    packages: str
    program: tuple[str, ...]
    reports: str
    memory: str
    boot_room: str
    source: str
    user: str = ""
    since: str = ""

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


def check_packages(name: str) -> None:
    """Check that this host's apt has the packages of a workload ("": none).

    Errors: `InvalidInput` that names the workload and the release of Debian that has them; those of `closure`.
    """
    one = workloads().get(name)
    if one is None or not one.since:
        return
    try:
        closure(one.packages.split())
    except InvalidInput as error:
        reason = f"needs the packages {one.packages}, which {one.since} is the first to have"
        hint = "use a host of that release, or an image that has them (docs/your-image.md)"
        raise InvalidInput("workload_name", name, reason, hint=hint) from error


def table() -> pd.DataFrame:
    """The workloads as a table: name, packages, what they do and report, the least memory, the source."""
    return results.frame(
        {"name": one.name, "packages": one.packages, "what": one.what, "reports": one.reports, "memory": one.memory}
        for one in workloads().values()
    )
