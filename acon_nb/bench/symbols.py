"""Names for the addresses in a kernel's log: a kernel without KALLSYMS prints initcalls as numbers.

The kernel moves itself at boot (KASLR), so the log's addresses are System.map's plus one offset, a multiple of 2 MiB
(CONFIG_PHYSICAL_ALIGN). The one offset that puts every address on a function's start is it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from acon_nb.errors import InvalidInput

_ALIGN = 2 << 20
_SYMBOL = re.compile(r"([0-9a-f]{16}) [tTwW] ([\w.$]+)")
_ADDRESS = re.compile(r"(?<=calling  |initcall )0x([0-9a-f]{16})(?= )")
_FEWEST = 3  # two addresses may fit by chance


def read_map(path: Path) -> dict[int, str]:
    """The functions of a System.map by address. Errors: `InvalidInput` for a file that has none."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        hint = "System.map lies beside the bzImage of acon-nb kernel build"
        raise InvalidInput("system_map", path, error.strerror or "cannot be read", hint=hint) from error
    found = {int(match[1], 16): match[2] for line in text.splitlines() if (match := _SYMBOL.fullmatch(line))}
    if not found:
        raise InvalidInput("system_map", path, "names no function", hint="give the System.map of this very kernel")
    return found


def named(log: str, symbols: Mapping[int, str]) -> str:
    """The log with the addresses of its initcalls replaced by names, as a kernel with KALLSYMS prints them.

    Addresses of modules stay as they are. A log without addresses, or of another kernel, comes back unchanged.
    """
    addresses = sorted({int(number, 16) for number in _ADDRESS.findall(log)})
    offset = _offset(addresses, symbols)
    if offset is None:
        return log

    def name(match: re.Match[str]) -> str:
        found = symbols.get(int(match[1], 16) - offset)
        return match[0] if found is None else f"{found}+0x0/0x0"

    return _ADDRESS.sub(name, log)


def _offset(addresses: list[int], symbols: Mapping[int, str]) -> int | None:
    """The offset that fits most addresses, if it fits nearly all: modules' are nowhere in System.map."""
    if len(addresses) < _FEWEST:
        return None
    probe = addresses[len(addresses) // 2]  # the middle of the kernel's, since modules lie above all of them
    candidates = (probe - start for start in symbols if (probe - start) % _ALIGN == 0)
    best = max(candidates, key=lambda offset: sum(a - offset in symbols for a in addresses), default=None)
    if best is None or sum(a - best in symbols for a in addresses) < max(_FEWEST, len(addresses) // 2):
        return None
    return best
