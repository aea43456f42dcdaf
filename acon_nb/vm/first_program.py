"""The program that the kernel starts first in an initrd, `/init` or what `rdinit=` names, and another in its place."""

from __future__ import annotations

import re

from acon_nb.errors import InvalidInput

INIT = "/init"  # what the kernel starts without rdinit=


def replaced(append: str, program: str) -> tuple[str, str]:
    """Return a kernel command line that starts `program`, and the program that the given one starts.

    A `rdinit=` stays where it is, since the kernel forgets the arguments for init that come before one.
    Errors: `InvalidInput` for a `rdinit=` in quotes, or without an absolute path.
    """
    words, dashes, arguments = append.partition(" -- ")
    given = [word for word in words.split() if word.startswith(("rdinit=", '"rdinit='))]
    before = given[-1].partition("=")[2] if given else INIT
    if any('"' in word for word in given) or not before.startswith("/"):
        raise InvalidInput("append", append, "has a rdinit= that is not a plain path", hint="such as rdinit=/sbin/init")
    ours = f"rdinit={program}"
    changed = re.sub(r"(?<!\S)rdinit=\S*", ours, words) if given else f"{ours} {words}".rstrip()
    return changed + dashes + arguments, before
