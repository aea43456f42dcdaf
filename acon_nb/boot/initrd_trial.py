"""An initrd tried out: booted once with empty disks, and what the guest then shows of memory, swap and mounts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acon_nb.errors import GuestFailed, InvalidInput
from acon_nb.guest.programs import guest_script
from acon_nb.initrd import InitrdSpec, make
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.study.host_lock import run_locked
from acon_nb.units import parse_bytes
from acon_nb.vm import DiskSpec, End, Machine, Outcome, VmSpec, disk
from acon_nb.vm.spec import kernel_init_bytes

_BEGIN, _END = "acon: shown", "acon: end"
_MOST_DISKS = 8


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a guest showed: the lines of its console from /init on, and those of what it was asked to show."""

    init_lines: tuple[str, ...]
    shown: tuple[str, ...]


def disk_sizes(disks: Sequence[str]) -> list[int]:
    """Return the sizes of the disks of a trial, in bytes. Errors: `InvalidInput`."""
    if len(disks) > _MOST_DISKS:
        raise InvalidInput("disks", len(disks), f"are more than {_MOST_DISKS}", hint="try fewer")
    return [parse_bytes(size, field="disks", bare="M") for size in disks]


def checked_kernel(path: str | Path) -> Path:
    """Return the path of a kernel. Errors: `InvalidInput` for a file that is missing or not a bzImage."""
    kernel_init_bytes(Path(path))
    return Path(path)


def try_initrd(
    kernel: Path,
    spec: InitrdSpec,
    *,
    disks: Sequence[str] = ("256M",),
    memory: str = "512M",
    swap: bool = True,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Trial:
    """Boot the initrd of `spec` with new, sparse disks (/dev/vda, ...) and ask the guest what it has.

    With `swap` the first disk is formatted as swap, as the guide's busybox example does. The guest waits while a
    measurement on the wall clock runs on this host. Errors: `InvalidInput`, `Cancelled`, `GuestFailed` when the guest
    does not come to the end.
    """
    sizes = disk_sizes(disks)
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as name:
        folder = Path(name)
        made = make(
            replace(spec, files=(*spec.files, f"acon/show={guest_script('show')}"), compression=""),
            folder / "initrd.cpio",
            on_progress=on_progress,
            cancel=cancel,
        )
        images = [disk.create(folder / f"{n}.raw", size, swap=swap and not n).path for n, size in enumerate(sizes)]
        on_progress(Progress("try the initrd", 0.0, "booting"))
        vm_spec = VmSpec(
            kernel=kernel,
            initrd=made.image.path,
            append="console=ttyS0 panic=-1 quiet INIT=/acon/show",
            memory_bytes=parse_bytes(memory, field="memory", bare="M"),
            disks=tuple(DiskSpec(path=path) for path in images),
        )

        def boot(token: CancelToken) -> Outcome:
            with Machine(vm_spec) as machine:
                return machine.wait(token)

        outcome, _ = run_locked(boot, alone=False, cancel=cancel, on_progress=on_progress)
        outcome.check()
        on_progress(Progress("try the initrd", 1.0))
        return _read(outcome.console)


def _read(console: Path) -> Trial:
    lines = console.read_text(errors="replace").replace("\r", "").splitlines()
    if _BEGIN not in lines or _END not in lines:
        raise GuestFailed("the guest powered off without showing anything", end=End.POWERED_OFF, details=lines[-20:])
    begin, end = lines.index(_BEGIN), lines.index(_END)
    init_lines = tuple(line for line in lines[:begin] if line.startswith("init:"))
    return Trial(init_lines=init_lines, shown=tuple(lines[begin + 1 : end]))
