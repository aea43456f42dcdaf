"""A profile: instructions by function and phase, which add up to what the guest executed; as a file, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from acon_nb import user_file
from acon_nb.cache import atomic_file, json_sha256
from acon_nb.errors import InvalidInput

_FORMAT = 1
_MOST_BYTES = 1 << 30  # by call stack a profile has hundreds of thousands of nodes
_HINT = "give a file that acon-nb bench profile --save wrote, with this version"
EARLY_KERNEL = "(kernel at physical addresses)"
BEFORE_KERNEL = "(before the kernel)"  # firmware, set-up and unpacking, where they cannot be told apart


class Region(StrEnum):
    """What a counted place belongs to."""

    KERNEL = "kernel"
    MODULE = "module"
    USER = "user"
    UNPACKING = "unpacking"
    FIRMWARE = "firmware"
    OTHER = "other"

    @property
    def in_files(self) -> bool:
        """Whether its functions are of files of the guest, which are known without the kernel's source."""
        return self in (Region.USER, Region.MODULE)


@dataclass(frozen=True, kw_only=True)
class FunctionCount:
    """Instructions that one function executed itself in one phase, without what it called.

    `file` is the source file as the kernel's tree names it ("mm/page_alloc.c"; for programs and modules their path in
    the guest), "" where it is not known. A region whose functions are not known is one entry, its name in brackets.
    """

    name: str
    phase: str
    self_count: int
    file: str = ""
    region: Region = Region.KERNEL


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What one guest executed.

    `total` is the instructions executed, of the guest's clock (ns of it less idle time), over all `phases` in their
    order. `stacks` are instructions by call stack, the phase first and then the outermost function; empty for a flat
    profile. `origin` is what it was made from: names and SHA-256 of kernel and initrd, command line, QEMU's version.
    `code` has a digest of the instructions of each function, by name (`profile.code`; empty: not known).
    """

    total: int
    phases: tuple[str, ...]
    functions: tuple[FunctionCount, ...]
    stacks: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def unattributed(self) -> int:
        """What `functions` do not explain of `total`; below 0 by the instructions that faulted and were repeated."""
        return self.total - sum(function.self_count for function in self.functions)

    @cached_property
    def sha256(self) -> str:
        """A hash of all counts, the same for two guests that executed the same; not of `origin` and `code`."""
        return json_sha256({name: value for name, value in self.values().items() if name not in ("origin", "code")})

    def values(self) -> dict[str, Any]:
        """The profile as values for JSON; `of_values` reads them."""
        return {
            "format": _FORMAT,
            "total": self.total,
            "phases": list(self.phases),
            "functions": [asdict(function) for function in self.functions],
            "stacks": _packed(self.stacks),
            "origin": dict(self.origin),
            **({"code": dict(self.code)} if self.code else {}),
        }

    def encoded(self) -> bytes:
        """The profile as JSON; equal profiles of equal origin have equal bytes."""
        return json.dumps(self.values(), indent=0).encode()

    def save(self, path: Path) -> None:
        """Write the profile as JSON, whole or not at all."""
        with atomic_file(path) as temporary:
            temporary.write_bytes(self.encoded())


def of_values(values: Mapping[str, Any], *, source: object = "profile") -> Profile:
    """The profile of `Profile.values`. Errors: `InvalidInput` for anything else, with `source` as its value."""
    try:
        if values["format"] != _FORMAT:
            raise InvalidInput("profile", source, f"has format {values['format']}, not {_FORMAT}", hint=_HINT)
        return Profile(
            total=int(values["total"]),
            phases=tuple(map(str, values["phases"])),
            functions=tuple(
                FunctionCount(
                    name=str(row["name"]),
                    phase=str(row["phase"]),
                    self_count=int(row["self_count"]),
                    file=str(row["file"]),
                    region=Region(row["region"]),
                )
                for row in values["functions"]
            ),
            stacks=_unpacked(values["stacks"]),
            origin={str(name): str(value) for name, value in values["origin"].items()},
            code={str(name): str(value) for name, value in values.get("code", {}).items()},
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput("profile", source, f"is not a profile: {error!r}", hint=_HINT) from error


def _packed(stacks: Mapping[tuple[str, ...], int]) -> dict[str, Any]:
    """Call stacks as a tree, some twentieth of their size: nodes are [parent, name, count], numbered from 1."""
    names = sorted({name for stack in stacks for name in stack})
    number = {name: index for index, name in enumerate(names)}
    nodes: list[list[int]] = []
    path: list[int] = []  # the nodes of the stack before
    before: tuple[str, ...] = ()
    for stack, count in sorted(stacks.items()):
        shared = next(
            (at for at, pair in enumerate(zip(before, stack, strict=False)) if pair[0] != pair[1]), len(before)
        )
        del path[shared:]
        for name in stack[shared:]:
            nodes.append([path[-1] if path else 0, number[name], 0])
            path.append(len(nodes))
        if path:
            nodes[path[-1] - 1][2] = count
        before = stack
    return {"names": names, "nodes": nodes}


def _unpacked(values: Mapping[str, Any]) -> dict[tuple[str, ...], int]:
    """The call stacks of `_packed`."""
    every: list[tuple[str, ...]] = [()]
    stacks: dict[tuple[str, ...], int] = {}
    for parent, name, count in values["nodes"]:
        if not 0 <= parent < len(every) or name < 0:
            raise ValueError(f"stacks have a node [{parent}, {name}, {count}]")
        every.append((*every[parent], str(values["names"][name])))
        if count:
            stacks[every[-1]] = int(count)
    return stacks


def load(path: Path) -> Profile:
    """Read a profile that `Profile.save` wrote. Errors: `InvalidInput`."""
    text = user_file.read_text("profile", path, hint=_HINT, most_bytes=_MOST_BYTES)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("profile", path, f"cannot be read as a profile: {error}", hint=_HINT) from error
    return of_values(values, source=path)
