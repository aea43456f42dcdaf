"""Names for the addresses in a kernel's log: a kernel without KALLSYMS prints initcalls as numbers.

The kernel moves itself at boot (KASLR), so the log's addresses are System.map's plus one offset, a multiple of 2 MiB
(CONFIG_PHYSICAL_ALIGN). It is the one offset with which every address is the start of a function.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from acon_nb import user_file
from acon_nb.errors import InvalidInput

_ALIGN = 2 << 20
_SYMBOL = re.compile(r"([0-9a-f]{16}) [tTwW] ([\w.$]+)")
_ADDRESS = re.compile(r"(?<=calling  |initcall )0x([0-9a-f]{16})(?= )")
_LABEL = re.compile(r"_[se]?(init)?text|__\w+_(start|end)")  # _stext, __irqentry_text_start, __indirect_thunk_end
_FEWEST = 3  # two addresses can match by chance


def read_map(path: Path) -> dict[int, str]:
    """Read the functions of a System.map by address. Errors: `InvalidInput` for a file without any."""
    hint = "acon-nb kernel build leaves System.map next to the bzImage"
    text = user_file.read_text("system_map", path, hint=hint, errors="replace")
    matches = (match for line in text.splitlines() if (match := _SYMBOL.fullmatch(line)))
    functions = by_address((int(match[1], 16), match[2]) for match in matches)
    if not functions:
        raise InvalidInput("system_map", path, "names no function", hint="give the System.map of the same kernel")
    return functions


def by_address(symbols: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Symbols by address: of several at one, the last that is not a label of the linker's script."""
    functions: dict[int, str] = {}
    for address, name in symbols:
        if address not in functions or _LABEL.fullmatch(functions[address]) or not _LABEL.fullmatch(name):
            functions[address] = name
    return functions


def named(log: str, symbols: Mapping[int, str]) -> str:
    """Replace the addresses of initcalls in a log by names, as a kernel with KALLSYMS prints them.

    Addresses of modules stay as they are. A log without addresses, or of another kernel, is returned unchanged.
    """
    addresses = sorted({int(number, 16) for number in _ADDRESS.findall(log)})
    offset = _offset(addresses, symbols)
    if offset is None:
        return log

    def name(match: re.Match[str]) -> str:
        function = symbols.get(int(match[1], 16) - offset)
        return match[0] if function is None else f"{function}+0x0/0x0"

    return _ADDRESS.sub(name, log)


def _offset(addresses: list[int], symbols: Mapping[int, str]) -> int | None:
    """Return the offset that fits most addresses, if it fits nearly all: those of modules are not in System.map."""
    if len(addresses) < _FEWEST:
        return None
    probe = statistics.median_high(addresses)  # one of the kernel's, since modules are above all of them
    candidates = (probe - start for start in symbols if (probe - start) % _ALIGN == 0)
    best = max(candidates, key=lambda offset: sum(a - offset in symbols for a in addresses), default=None)
    if best is None or sum(a - best in symbols for a in addresses) < max(_FEWEST, len(addresses) // 2):
        return None
    return best
