"""The kernels of a plan: what a level of the factor `kernel` names, and what is built for it.

A level is "build" (of the cell's own source, profile and settings), debian:SERIES (the same of another source), a name
from the plan's table `kernels`, or something that is there already: a bzImage's path, package:NAME of Debian.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.kernel import BuildSpec
from acon_nb.kernel.source import DEBIAN
from acon_nb.validation import build, check_fields, closest, words

BUILD = "build"
PACKAGE = "package:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class NamedKernel:
    """A kernel of a plan's table `kernels`: what is given takes the place of the cell's own.

    `source` and `profile` (names with commas) are as the factors of the same names, `config` is a .config to start from
    instead (with the options of `profile`, if that is given, too); `settings` (OPT=VAL with commas) and `patches`
    (files) are added. Errors: `InvalidInput` at construction.
    """

    source: str = ""
    profile: str = ""
    config: str = ""
    settings: str = ""
    patches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.patches, list):  # as TOML gives it
            object.__setattr__(self, "patches", tuple(self.patches))
        check_fields(self)

    def spec(self, base: BuildSpec) -> BuildSpec:
        """The kernel to build, where a cell's own would be `base`."""
        return replace(
            base,
            source=self.source or base.source,
            profiles=words(self.profile) or (() if self.config else base.profiles),
            config=Path(self.config) if self.config else base.config,
            settings=(*base.settings, *words(self.settings)),
            patches=(*base.patches, *map(Path, self.patches)),
        )


def named(table: Mapping[str, Mapping[str, Any]]) -> dict[str, NamedKernel]:
    """The kernels of a plan's table by name. Errors: `InvalidInput` that names the kernel and the field."""
    kernels = {}
    for name, row in table.items():
        if not _NAME.fullmatch(name) or name == BUILD:
            hint = "letters, digits, dots and dashes, and not build"
            raise InvalidInput("kernels", name, "is not a valid name of a kernel", hint=hint)
        try:
            kernels[name] = build(NamedKernel, row, what="a kernel of a plan")
        except InvalidInput as error:
            raise InvalidInput(f"kernels.{name}.{error.field}", error.value, error.reason, hint=error.hint) from error
    return kernels


def spec_of(level: str, base: BuildSpec, table: Mapping[str, Mapping[str, Any]]) -> BuildSpec | None:
    """The kernel to build for a level, where `build` would be `base`; None for one that is there already."""
    if level == BUILD:
        return base
    if level in table:
        return named(table)[level].spec(base)
    return replace(base, source=level) if DEBIAN.fullmatch(level) else None


def check_kernels(table: Mapping[str, Mapping[str, Any]], levels: Mapping[str, None]) -> None:
    """Check a plan's table and the levels of its factor `kernel`, before anything is built.

    Errors: `InvalidInput` for a kernel that is neither named nor there, a patch that is not a file, and a name of the
    table that no cell has.
    """
    kernels = named(table)
    for name, kernel in kernels.items():
        if kernel.config and not Path(kernel.config).is_file():
            raise InvalidInput(f"kernels.{name}.config", kernel.config, "is not a file", hint="give a kernel's .config")
        for patch in kernel.patches:
            if not Path(patch).is_file():
                hint = "a file as git format-patch writes it; a plan's file has paths relative to itself"
                raise InvalidInput(f"kernels.{name}.patches", patch, "is not a file", hint=hint)
        if name not in levels:
            hint = f'kernel = ["{BUILD}", "{name}"]'
            raise InvalidInput(f"kernels.{name}", name, "is not a kernel of any cell", hint=hint)
    for level in levels:
        is_known = level == BUILD or level in kernels or DEBIAN.fullmatch(level) or level.startswith(PACKAGE)
        if not is_known and not Path(level).is_file():
            names = [BUILD, *kernels]
            hint = (
                f"a bzImage's path, debian:SERIES[@SUITE], or a name of the plan's [kernels]; {closest(level, names)}"
            )
            raise InvalidInput("kernel", level, "is not a kernel that can be had", hint=hint)
