"""What of a kernel command line decides how an initrd starts. Source: init/main.c."""

from __future__ import annotations

from dataclasses import dataclass

from acon_nb import kernel_line

DEFAULT = "console=ttyS0 panic=-1"


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a kernel starts an initrd.

    `init` is the program that it runs first (`rdinit=`), `root` the root file system that it mounts if that does not
    exist, `program` what acon_nb's /init runs in the end (`INIT=`; "": a login shell), `console` the device behind
    /dev/console. `tmpfs` is whether the initrd is unpacked into a tmpfs, which takes at most half of the memory; with
    `root=` it is a ramfs without a limit.
    """

    init: str = "/init"
    root: str = ""
    program: str = ""
    console: str = "ttyS0"
    tmpfs: bool = True

    @classmethod
    def of(cls, append: str) -> Start:
        """Parse a kernel command line."""
        words = kernel_line.parse(append).words
        values = {word.name.replace("-", "_"): word.value for word in words if word.value is not None}
        consoles = values.get("console", "ttyS0").partition(",")[0]
        kind = values.get("rootfstype", "")
        return cls(
            init=values.get("rdinit", "/init"),
            root=values.get("root", ""),
            program=values.get("INIT", ""),
            console=consoles or "ttyS0",
            tmpfs="tmpfs" in kind or not (values.get("root") or kind),
        )
