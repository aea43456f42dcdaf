"""The report of a boot: the program that brings it, put in front of any initrd, and what the host reads from it.

The kernel unpacks consecutive archives into one file system, whatever each is compressed with. Ours comes first: it is
not compressed and a multiple of 512 bytes long, so the user's may be of any format, have several parts or end in
anything. `rdinit=` makes the kernel start our program, which becomes the user's (guest/src/boot_report.c). Where the
user's initrd has the report program itself (`boot.boot_initrd`), its /init starts it at its end, and nothing is added.

Source: Documentation/driver-api/early-userspace/buffer-format.rst; init/initramfs.c, init/main.c of the kernel.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb.archive import cpio
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import AconError, InvalidInput
from acon_nb.guest import kernel_log
from acon_nb.guest.programs import report_program
from acon_nb.initrd import DEFAULT_MTIME, FileTree, join, load
from acon_nb.vm import Clock, Message, first_program

REPORT = "/acon/boot-report"
WRAPPER = "/acon/init"
MARK = "/acon/boot-mark"
_NEXT = "/acon/next"
_RUN = re.compile(r"Run \S+ as init process")
_MARKS = ("acon-nb: init", "acon-nb: ready")
_NUMBERS = re.compile(r"^([^:\s]{1,127})[:\s]\s*(\d{1,19})", re.MULTILINE)
_PAGES = re.compile(r"\spages=(\d{1,15})")
_STACK_PAGES, _GUARD_BYTES = 4, 4096


def has_report(initrd: Path) -> bool:
    """Whether an initrd brings the report program, started by its own /init. One that cannot be read does not."""
    return REPORT in _brought(initrd)


def has_mark(initrd: Path) -> bool:
    """Whether an initrd brings the program that marks its /init. One that cannot be read does not."""
    return MARK in _brought(initrd)


def _brought(initrd: Path) -> frozenset[str]:
    if not initrd.is_file():
        return frozenset()
    stat = initrd.stat()
    return _ours_in(initrd.absolute(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _ours_in(initrd: Path, _size: int, _mtime_ns: int) -> frozenset[str]:
    """Our programs that an initrd brings."""
    try:
        tree = load(initrd)
    except AconError:  # a format that only the kernel reads, or no archive at all
        return frozenset()
    return frozenset(name for name in (REPORT, MARK) if name.lstrip("/") in tree)


def archive(program: str = first_program.INIT, *, store: Cache | None = None) -> Path:
    """The archive that goes in front of an initrd whose first process is `program`; in the user cache.

    Errors: those of `guest.programs.guest_program`.
    """
    store = store or Cache()
    wrapper = report_program(store)
    inputs = {"archive": "report", "wrapper": sha256_file(wrapper), "program": program}

    def make(folder: Path) -> None:
        tree = FileTree()
        tree.add_dir("acon")
        tree.add_file(WRAPPER.lstrip("/"), wrapper, mode=0o755)
        if program != first_program.INIT:
            tree.add_symlink(_NEXT.lstrip("/"), program)
        with (folder / "report.cpio").open("wb") as file:
            cpio.write(tree, file, mtime=DEFAULT_MTIME, owner=(0, 0))

    return store.get("report", inputs, make).path / "report.cpio"


def joined(front: Path, initrd: Path, *, store: Cache | None = None) -> Path:
    """The initrd with an archive in front of it, in the user cache. Errors: `InvalidInput` (no file), `NoSpace`."""
    if not initrd.is_file():
        raise InvalidInput("initrd", initrd, "is not a file", hint="make one: acon-nb initrd from busybox -o FILE")
    inputs = {"joined": [sha256_file(front), sha256_file(initrd)]}

    def make(folder: Path) -> None:
        join((front, initrd), folder / "initrd")

    return (store or Cache()).get("report", inputs, make).path / "initrd"


def command_line(append: str) -> tuple[str, str]:
    """The command line by which the kernel starts our program, and the program that it is to become.

    See `first_program.replaced`, also for the errors.
    """
    return first_program.replaced(append, WRAPPER)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a guest reported of its boot.

    `at_end` is whether it was made at /init's end, else at its begin. `tsc` and `monotonic_ns` were read at the moment
    of the record `mark_us` of the kernel's log; `init_us` is when the kernel started the first process (None: the log
    does not tell). `taken_ns` is what the report took of the guest's time before the user's program ran (None: it
    never did), `arrived_ns` the host's time of arrival of what was sent `sending_ns` after the mark. `memory` is what
    `boot.memory.parts` takes.
    """

    at_end: bool
    tsc: int
    mark_us: int | None
    init_us: int | None
    arrived_ns: int
    sending_ns: int
    memory: Mapping[str, Any]
    memory_line: str
    release: str
    cmdline: str
    taken_ns: int | None
    log: tuple[kernel_log.Record, ...]


def read(messages: Sequence[Message], clock: Clock) -> Report | None:
    """The report among a guest's messages; None if there is none, or it is not one of ours."""
    sent = next((message for message in messages if message.data.get("event") == "boot"), None)
    if sent is None:
        return None
    data = sent.data
    tsc, monotonic_ns, sent_ns = (_whole(data.get(name)) for name in ("tsc", "monotonic_ns", "sent_ns"))
    if tsc is None or monotonic_ns is None or sent_ns is None:
        return None
    log = kernel_log.of_messages(message.data for message in messages)
    mark_us = next((record.us for record in log if record.text.startswith(_MARKS)), None)
    init_us = next((record.us for record in log if _RUN.match(record.text)), None)
    counter, at_mark = ("tsc", tsc) if clock is Clock.INSTRUCTIONS else ("monotonic_ns", monotonic_ns)
    return Report(
        at_end=data.get("at") == "end",
        tsc=tsc,
        mark_us=mark_us,
        init_us=init_us,
        arrived_ns=sent.host_ns,
        sending_ns=sent_ns - monotonic_ns,
        memory=_memory(data),
        memory_line=next((record.text for record in log if record.text.startswith("Memory: ")), ""),
        release=str(data.get("release", "")),
        cmdline=str(data.get("cmdline", "")),
        taken_ns=_taken_ns(messages, counter, at_mark, mark_us, init_us),
        log=log,
    )


def ready_tsc(messages: Iterable[Message]) -> int | None:
    """The time stamp counter in the message "ready" of a program in the guest; None without one."""
    ready = (message.data for message in messages if message.data.get("event") == "ready")
    return _whole(next(ready, {}).get("tsc"))


def _taken_ns(
    messages: Iterable[Message], counter: str, at_mark: int, mark_us: int | None, init_us: int | None
) -> int | None:
    """From the kernel's start of our program to that of the user's: what the user's /init waited for the report."""
    over = next((message.data for message in messages if message.data.get("event") == "handover"), {})
    then = _whole(over.get(counter))
    if then is None or mark_us is None or init_us is None:
        return None
    return then - at_mark + 1000 * (mark_us - init_us)


def _memory(data: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: str(data.get(name, "")) for name in ("meminfo", "vmstat", "zoneinfo", "iomem", "vmallocinfo")}
    return {
        "page_bytes": data.get("page_bytes"),
        "meminfo_kib": _numbers(texts["meminfo"]),
        "vmstat": _numbers(texts["vmstat"]),
        "zoneinfo": texts["zoneinfo"],
        "iomem": texts["iomem"],
        "vmalloc": _vmalloc(texts["vmallocinfo"]),
    }


def _numbers(text: str) -> dict[str, int]:
    """ "MemTotal:   497868 kB" and "nr_free_pages 1234": names and numbers."""
    return {name: int(number) for name, number in _NUMBERS.findall(text)}


def _vmalloc(text: str) -> dict[str, int]:
    """The areas of vmalloc that are kernel stacks (four pages and a guard page), and the pages of all areas."""
    areas = pages = 0
    for line in text.splitlines():
        match = _PAGES.search(line)
        if not match:
            continue
        count, size = int(match[1]), line.split()[1]
        areas += count == _STACK_PAGES and size == str(_STACK_PAGES * 4096 + _GUARD_BYTES)
        pages += count
    return {"stack_areas": areas, "pages": pages}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None
