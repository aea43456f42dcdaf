"""Compares the options of two sides: .config files, or what profiles request of a kernel version."""

from __future__ import annotations

import re
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.kernel import dotconfig
from acon_nb.kernel.features import requested_options


def difference(left: str, right: str, version: str = "6.12") -> tuple[dotconfig.OptionDifference, ...]:
    """Compare two sides, each a .config file or profiles (`a,b`), whose requests for a kernel version count.

    Profiles are compared with a .config only in the options that the profiles request.
    """
    left_values, right_values = values_of(left, version), values_of(right, version)
    rows = dotconfig.diff(left_values, right_values)
    if Path(left).is_file() == Path(right).is_file():
        return rows
    requested = right_values if Path(left).is_file() else left_values
    return tuple(row for row in rows if row.option in requested)


def values_of(side: str, version: str = "6.12") -> dict[str, str]:
    """Read the options of a .config file, or those that profiles (`a,b`) request of a kernel version.

    Rules of profiles are omitted, since they need a source tree.
    """
    if Path(side).is_file():
        return dotconfig.read_given(Path(side))
    numbers = re.fullmatch(r"(\d+)\.(\d+)", version)
    if numbers is None:
        raise InvalidInput("kernel_version", version, "is not a valid kernel version", hint="such as 6.12")
    profiles = [name for name in side.split(",") if name]
    if not profiles:
        raise InvalidInput("profile", side, "is empty", hint="give profiles (guide,study) or a .config file")
    requests = requested_options(profiles, (int(numbers[1]), int(numbers[2])))
    return {request.option: request.value for request in requests}
