"""The functions of a kernel by address: of its System.map, or of the symbols in its image."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import AconError
from acon_nb.guest import kallsyms, symbols
from acon_nb.kernel.unpack import unpacked
from acon_nb.progress import OnProgress, Progress, silent
from acon_nb.vm import Clock, counting

_STUB_BYTES = 1024


def functions_of(kernel: Path, system_map: Path | None = None) -> Mapping[int, str]:
    """The functions of a bzImage by address, of its `system_map` (default: as of `system_map_of`) or its own symbols.

    Empty where it has neither, as for a kernel whose compression is not understood (lzo).
    """
    path = system_map or system_map_of(kernel)
    return _functions_of(kernel, path, *((file or kernel).stat().st_mtime_ns for file in (kernel, path)))


def system_map_of(kernel: Path, cache: Cache | None = None) -> Path | None:
    """The System.map of a kernel, None without one.

    It is looked for next to the kernel, for vmlinuz-VERSION as System.map-VERSION (Debian's names no function), in the
    folder of a build whose arch/x86/boot/bzImage it is, and in the cache of kernels that were built here.
    """
    path = kernel.absolute()
    candidates = [path.with_name("System.map")]
    if path.name.startswith("vmlinuz-"):
        candidates.append(path.with_name(path.name.replace("vmlinuz-", "System.map-", 1)))
    if path.match("arch/x86/*/bzImage"):
        candidates.append(path.parents[3] / "System.map")
    beside = next((one for one in candidates if one.is_file() and one.stat().st_size > _STUB_BYTES), None)
    return beside or (cache or Cache()).file_beside("kernel", "bzImage", sha256_file(kernel), "System.map")


def starts_of(
    kernel: Path, clock: Clock, system_map: Path | None = None, *, qemu: Path | None = None
) -> tuple[int, ...] | None:
    """The addresses by which a guest's instructions are counted; None on a clock that counts none.

    Where `qemu` is given and loads no plugin, None too: the guest then runs uncounted.
    """
    if clock is not Clock.INSTRUCTIONS or (qemu is not None and counting.why_not(qemu)):
        return None
    return (*functions_of(kernel, system_map), counting.MODULES_BASE)


def check_counting(
    qemu: Path, clocks: Iterable[Clock], *, profile: bool, cache: Cache, on_progress: OnProgress = silent
) -> None:
    """Warn where a study's guests will run uncounted. Errors: those of `counting.plugin` if it wants a `profile`."""
    if profile:
        counting.plugin(qemu, cache)
    elif Clock.INSTRUCTIONS in clocks and (why := counting.why_not(qemu)):
        on_progress(
            Progress("warning, instruction clock", None, f"{why}: rows do not split executed, waiting and idle")
        )


@functools.lru_cache(maxsize=4)
def _functions_of(kernel: Path, system_map: Path | None, *changed_ns: int) -> Mapping[int, str]:
    del changed_ns
    try:
        if system_map is not None:
            return symbols.read_map(system_map)
        return kallsyms.functions(unpacked(kernel.read_bytes()))
    except (AconError, struct.error, ValueError, UnicodeDecodeError):
        return {}
