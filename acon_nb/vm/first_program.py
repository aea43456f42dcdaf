"""The program that the kernel starts first in an initrd, `/init` or what `rdinit=` names, and another in its place."""

from __future__ import annotations

from dataclasses import replace

from acon_nb import kernel_line
from acon_nb.errors import InvalidInput

INIT = "/init"  # what the kernel starts without rdinit=
_UNPLAIN = frozenset('" \t\n\v\f\r\xa0')


def replaced(append: str, program: str) -> tuple[str, str]:
    """Return a kernel command line that starts `program`, and the program that the given one starts.

    A `rdinit=` stays where it is, since the kernel forgets the arguments for init that come before one.
    Errors: `InvalidInput` for a `rdinit=` with a blank or a quote in its path, or without an absolute path.
    """
    line = kernel_line.parse(append)
    given = line.value("rdinit")
    before = INIT if given is None else given
    if not before.startswith("/") or any(char in before for char in _UNPLAIN):
        raise InvalidInput("append", append, "has a rdinit= that is not a plain path", hint="such as rdinit=/sbin/init")
    ours = f"rdinit={program}"
    if given is None:
        kept = line.text if line.rest.strip() else replace(line, rest="").text
        return f"{ours} {kept}" if kept else ours, before
    replaced_words = (
        replace(word, text=ours) if word.name == "rdinit" and word.value is not None else word for word in line.words
    )
    return replace(line, words=tuple(replaced_words)).text, before
