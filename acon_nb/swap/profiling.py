"""The exact profile of a swap guest: what each function executed as it booted, filled its memory and used it.

Phases end where the guest marks a moment (`guest/src/mark.h`), the boot where the first instruction of user space runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acon_nb.cache import sha256_file
from acon_nb.host import probe_qemu
from acon_nb.profile import code, sources
from acon_nb.profile.counts import Functions, PhaseEnd, profile_of
from acon_nb.profile.model import Profile, Region
from acon_nb.study import clock_parts
from acon_nb.swap.cell import SwapCell
from acon_nb.vm import Moment, Snapshot, VmSpec

_FILL, _WARM, _MEASURED = "set-up and fill", "warm-up", "measured"
_BOOT, _BEFORE = "boot", ("(firmware and unpacking)", Region.OTHER)


def functions(cell: SwapCell) -> Functions:
    """The functions of a cell's guest, with the source files of a kernel that was built here."""
    initrds = [path for path in (cell.program, cell.initrd) if path is not None]
    return sources.functions(cell.kernel, cell.system_map).with_initrds(*initrds)


def of_snapshots(
    snapshots: Sequence[Snapshot], functions: Functions, origin: Mapping[str, str] | None = None
) -> Profile | None:
    """The profile of a guest from reset to the end of what is measured, None where that did not end.

    With several windows of accesses the last is what is measured, those before it are the warm-up. Errors: those of
    `profile_of`.
    """
    span = clock_parts.last_span(snapshots)
    if span is None:
        return None
    begin, end = span
    first = clock_parts.first(snapshots, Moment.BEGIN)
    user = clock_parts.first(snapshots, Moment.USER)
    ends = [(_BOOT, user), (_FILL, first), (_WARM, begin if begin is not first else None), (_MEASURED, end)]
    phases = [PhaseEnd(name=name, end=snapshot, early=_BEFORE) for name, snapshot in ends if snapshot is not None]
    return profile_of(phases, functions, origin=origin)


def encoded(cell: SwapCell, spec: VmSpec, snapshots: Sequence[Snapshot], functions: Functions) -> bytes:
    """A guest's profile as JSON; b"" where it has none. Errors: those of `profile_of`."""
    origin = {
        "name": cell.factors.configuration,
        "kernel": cell.kernel.name,
        "kernel_sha256": sha256_file(cell.kernel),
        "initrd_sha256": sha256_file(cell.initrd),
        "cmdline": spec.append,
        "memory_bytes": str(spec.memory_bytes),
        "qemu": probe_qemu().text,
    }
    made = of_snapshots(snapshots, functions, origin)
    return b"" if made is None else code.of_profile(made, cell.kernel, functions).encoded()
