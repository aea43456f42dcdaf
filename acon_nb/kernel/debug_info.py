"""The source file of each address of a kernel that was built elsewhere, from its vmlinux with debug information.

Only .debug_aranges and the first entry of each compilation unit are read, not the whole of the information.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.errors import InvalidInput
from acon_nb.kernel.objects import ObjectMap, Piece

if TYPE_CHECKING:
    from elftools.dwarf.dwarfinfo import DWARFInfo

# What pyelftools raises for damaged files, besides its own errors
_ERRORS = (ValueError, LookupError, OverflowError, AttributeError, TypeError, AssertionError, struct.error, OSError)
_HINT = "give a vmlinux with debug information (CONFIG_DEBUG_INFO), of the same build as the kernel"


def of_vmlinux(path: Path) -> ObjectMap:
    """Make the map of a vmlinux with debug information. Errors: `InvalidInput`."""
    from elftools.common.exceptions import DWARFError, ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            if not elf.has_dwarf_info(strict=True):
                raise InvalidInput("vmlinux", path, "has no debug information", hint=_HINT)
            pieces = _pieces(elf.get_dwarf_info(relocate_dwarf_sections=False))
    except (ELFError, DWARFError, ConstructError, *_ERRORS) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("vmlinux", path, f"cannot be read: {error or type(error).__name__}", hint=_HINT) from error
    if not pieces:
        raise InvalidInput("vmlinux", path, "has debug information without address ranges", hint=_HINT)
    return ObjectMap(pieces=tuple(pieces))


def _pieces(dwarf: DWARFInfo) -> list[Piece]:
    ranges = dwarf.get_aranges()
    if ranges is None:
        return []
    # An address of 0: what the linker discarded
    entries = sorted((one for one in ranges.entries if one.begin_addr and one.length), key=lambda one: one.begin_addr)
    units = {entry.info_offset for entry in entries}
    sources = _in_tree({unit: _name(dwarf.get_CU_at(unit).get_top_DIE()) for unit in units})
    pieces: list[Piece] = []
    for entry in entries:
        source = sources[entry.info_offset]
        start, end = max(entry.begin_addr, pieces[-1].end if pieces else 0), entry.begin_addr + entry.length
        if source and start < end:
            pieces.append(Piece(start=start, end=end, object=str(Path(source).with_suffix(".o")), source=source))
    return pieces


def _name(unit: Any) -> str:
    value = unit.attributes["DW_AT_name"].value if "DW_AT_name" in unit.attributes else b""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _in_tree(names: Mapping[int, str]) -> dict[int, str]:
    """The files as the tree names them: without the folder that all absolute names begin with."""
    absolute = {name for name in names.values() if name.startswith("/")}
    tree = os.path.commonpath(absolute) if len(absolute) > 1 else "/"
    return {
        unit: os.path.relpath(name, tree) if name.startswith("/") else os.path.normpath(name) if name else ""
        for unit, name in names.items()
    }
