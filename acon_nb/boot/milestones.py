"""Where a boot is on the instruction clock before its kernel can tell: the ends of the firmware and of the unpacking.

The guest is booted again, once for each milestone, from a copy of its kernel's image in which some sixty bytes at the
milestone are replaced (`guest/milestone.S`): they send the time stamp counter, and the guest is ended there. What is
executed until then is what any boot executes, since the copy has the same size and the same bytes elsewhere and equal
boots are equal on this clock. Nothing is added to the boot that is measured.

* `kernel_entry`: the firmware hands over, to the kernel's real-mode set-up, or to its EFI stub where OVMF starts it;
* `unpack`: the kernel's 32-bit entry, after the real-mode set-up (not under OVMF, where the stub does all);
* `kernel`: the jump into the unpacked kernel, found by its instructions. The mark lies in zeros behind the code, else
  in the EFI stub, in a boot that does not run it; in a kernel with neither the milestone is not found.

Source: Documentation/arch/x86/boot.rst; arch/x86/boot/header.S, compressed/head_64.S, libstub/x86-stub.c.
"""

from __future__ import annotations

import functools
import re
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from acon_nb import bzimage
from acon_nb.boot.cell import BootCell
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.guest.programs import guest_code
from acon_nb.progress import CancelToken
from acon_nb.study import clock_parts
from acon_nb.vm import Capabilities, Clock, Machine, Moment, Snapshot, capabilities, counting

_MARK = re.compile(rb"ACON(.{8})", re.DOTALL)
_POLL_S = 0.05
_OWN_INSTRUCTIONS = 2  # milestone.S: up to and with the one that reads the clock

_PE_MAGIC, _PE_ENTRY = b"PE\0\0", 40
_PAGE_BYTES, _MARGIN_BYTES = 4096, 8
# mov REG, %rsi; perhaps add REG, %rax; jmp *%rax. Before Linux 6.6: pop %rsi; jmp *%rax, and an endless loop.
_LEAVING = re.compile(
    rb"[\x48\x4c]\x89[\xc6\xce\xd6\xde\xe6\xee\xf6\xfe](?:\x48\x01[\xc0-\xff])?\xff\xe0|\x5e\xff\xe0\xf4\xeb"
)

_Mark = Callable[[bytes, Cache | None], bytes | None]


@dataclass(frozen=True)
class Milestone:
    """When a place of a boot is reached: the clock's ns since reset, and the idle time in it (None: not known).

    `counted` is what any boot of the cell has executed until there, with its time: without the copy's own instructions.
    """

    clock_ns: int
    idle_ns: int | None
    counted: Snapshot | None = None


def measure(
    cell: BootCell,
    *,
    cache: Cache | None = None,
    host: Capabilities | None = None,
    cancel: CancelToken | None = None,
) -> dict[str, Milestone]:
    """When each milestone of a cell is reached. One that the boot does not come by is left out.

    The caller holds the host's lock (`study.host_lock`), as an experiment does while it runs a cell.

    Errors: `InvalidInput` for a cell of the wall clock or a kernel that is not a bzImage.
    """
    if cell.clock is not Clock.INSTRUCTIONS:
        raise InvalidInput("milestones", cell.clock, "are counted in instructions", hint="use clock=instructions")
    marks: dict[str, _Mark] = {
        "kernel_entry": marked_at_setup,
        "unpack": _at_protected_mode,
        "kernel": functools.partial(_at_leaving, stub_is_idle=True),
    }
    if cell.firmware is not None:
        marks = {"kernel_entry": _at_efi_entry, "kernel": _at_leaving}
    image = cell.kernel.read_bytes()
    reached: dict[str, Milestone] = {}
    for name, mark in marks.items():
        marked = mark(image, cache)
        milestone = None if marked is None else _reach(cell, marked, host, cancel)
        if milestone is not None:
            reached[name] = milestone
    return reached


def _reach(cell: BootCell, image: bytes, host: Capabilities | None, cancel: CancelToken | None) -> Milestone | None:
    """Boot the image until it has sent its count; None: the guest continued without one."""
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as folder:
        kernel = Path(folder, "bzImage")
        kernel.write_bytes(image)
        spec = replace(cell.spec(), kernel=kernel)
        host = host or capabilities()
        # no function of the kernel runs before the last of them
        with Machine(spec, host=host, count_by=None if counting.why_not(host.qemu) else ()) as machine:
            machine.start()
            while machine.running and _read(machine.transcript) is None:
                if cancel is not None:
                    cancel.check()
                time.sleep(_POLL_S)
            machine.kill()
            outcome = machine.wait()
            clock_ns = _read(machine.transcript)
    place = clock_parts.first(outcome.snapshots, Moment.PLACE)
    if clock_ns is None or place is None:
        return None if clock_ns is None else Milestone(clock_ns, None)
    return Milestone(clock_ns, place.idle_ns, replace(place, tsc_ns=clock_ns - _OWN_INSTRUCTIONS))


def _read(transcript: Path) -> int | None:
    if not transcript.exists():
        return None
    match = _MARK.search(transcript.read_bytes())
    return struct.unpack("<Q", match[1])[0] if match else None


def marked_at_setup(image: bytes, cache: Cache | None = None) -> bytes | None:
    """The image with the mark where its real-mode set-up jumps to."""
    if len(image) <= bzimage.JUMP + 1 or image[bzimage.JUMP] != 0xEB:
        return None
    target = bzimage.JUMP + 2 + image[bzimage.JUMP + 1]
    return _with(image, target, guest_code("milestone", bits=16, cache=cache))


def _at_protected_mode(image: bytes, cache: Cache | None) -> bytes | None:
    """The image with the mark at its 32-bit entry."""
    return _with(image, _entry_32(image), guest_code("milestone", bits=32, cache=cache))


def _at_efi_entry(image: bytes, cache: Cache | None) -> bytes | None:
    """The image with the mark where it begins as an EFI program; its sections lie in the file as in memory."""
    header = _number(image, bzimage.PE_HEADER, "<I")
    if image[header : header + 4] != _PE_MAGIC:
        return None
    return _with(image, _number(image, header + _PE_ENTRY, "<I"), guest_code("milestone", bits=64, cache=cache))


def _at_leaving(image: bytes, cache: Cache | None, *, stub_is_idle: bool = False) -> bytes | None:
    """The image with the mark in the zeros behind its code, and jumps to it where it leaves for the kernel.

    Where there are not enough zeros, the mark takes the place of the EFI stub's entry, if it `stub_is_idle`: no
    instruction of the stub runs in a boot without EFI.
    """
    code = guest_code("milestone", bits=64, cache=cache)
    entry = _entry_32(image)
    start = entry + _number(image, bzimage.PAYLOAD, "<I")
    end = start + _number(image, bzimage.PAYLOAD + 4, "<I")  # what is between is compressed
    places = [m.start() for m in _LEAVING.finditer(image) if entry <= m.start() < start or m.start() >= end]
    room = _room(image, entry, end, len(code))
    if room is None and stub_is_idle:
        room = _stub(image, end)
    if room is None or not places:
        return None
    marked = _with(image, room, code)
    for place in places:
        marked = _with(marked, place, b"\xe9" + struct.pack("<i", room - (place + 5)))
    return marked


def _room(image: bytes, entry: int, end: int, size: int) -> int | None:
    """Where zeros fill the last page of the code behind the compressed kernel; those before it are overwritten."""
    for zeros in re.finditer(rb"\0{%d,}" % (size + 2 * _MARGIN_BYTES), image[end:]):
        begin, stop = end + zeros.start(), end + zeros.end()
        page = entry + (begin - entry + _PAGE_BYTES - 1) // _PAGE_BYTES * _PAGE_BYTES
        if page <= stop and page - begin >= size + 2 * _MARGIN_BYTES:
            return begin + _MARGIN_BYTES
    return None


def _stub(image: bytes, end: int) -> int | None:
    """Where the EFI stub begins, if that is behind the compressed kernel: what is before it is overwritten."""
    header = _number(image, bzimage.PE_HEADER, "<I")
    if image[header : header + 4] != _PE_MAGIC:
        return None
    start = _number(image, header + _PE_ENTRY, "<I")
    return start if start >= end else None


def _entry_32(image: bytes) -> int:
    return (_number(image, bzimage.SETUP_SECTORS, "<B") + 1) * bzimage.SECTOR_BYTES


def _number(image: bytes, at: int, form: str) -> int:
    """A number of a header; 0 beyond the image's end."""
    whole = len(image) >= at + struct.calcsize(form)
    return int(struct.unpack_from(form, image, at)[0]) if whole else 0


def _with(image: bytes, at: int, code: bytes) -> bytes:
    """The image with other bytes at a place, as long as before. Errors: `InvalidInput` where it has no such place."""
    if not 0 < at <= len(image) - len(code):
        raise InvalidInput("kernel", f"{len(image)} bytes", "is not a whole bzImage", hint="build it again")
    return image[:at] + code + image[at + len(code) :]
