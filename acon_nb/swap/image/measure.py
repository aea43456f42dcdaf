"""Runs an image once with ample memory and watches it (guest/src/image_run.c); what came of it is kept in the cache.

The guest is that of the study: its kernel, its clock, one vCPU. It gets more memory until the program ends without the
OOM killer, as long as this host has it.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb.archive import cpio
from acon_nb.archive.tree import FileTree
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.guest.programs import host_tsc_khz
from acon_nb.host.facts import memory_available_bytes
from acon_nb.initrd import DEFAULT_MTIME
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.study.host_lock import run_locked
from acon_nb.swap.image import observations
from acon_nb.swap.image.archive import ImageArchive
from acon_nb.swap.image.observations import MeasuredProgram
from acon_nb.swap.image.running import Running
from acon_nb.swap.levels import whole_mib
from acon_nb.units import format_bytes, format_seconds
from acon_nb.vm import Capabilities, Clock, Machine, Outcome, VmSpec, kernel_words

LEAST_PEAK_BYTES = 8 << 20
_FIRST_BYTES = 512 << 20
_HOST_SHARE = 0.75  # of the host's available memory, which a guest may have
_SCRIPT = "/acon/image-measure"
_NETWORK = re.compile(
    r"temporary failure in name resolution|could not resolve|name or service not known|network is unreachable|"
    r"no such host|bad address|getaddrinfo|name does not resolve",
    re.IGNORECASE,
)
_SHOWN_LINES = 12
_START_HINT = "acon-nb initrd tar IMAGE | tar -tv shows the image's files, their modes and owners"
_START_HINTS = {
    os.strerror(errno.ENOENT): "name a program of the image, with its path if it is not in PATH; if it is there"
    " (acon-nb initrd tar IMAGE | tar -tv), then the loader or interpreter that it names is not",
    os.strerror(errno.ENOEXEC): "the program is of another processor, or a script without its first line (#!):"
    " take the image for x86-64 (--platform linux/amd64)",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How an image is measured: the kernel, the root of the guest (an initrd), the clock, the time after which the
    program must have ended (of the guest's clock, and on the wall)."""

    kernel: Path
    initrd: Path
    clock: Clock
    limit_ns: int
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """What was measured, and the file of its sampled pages that are not filled with one word."""

    program: MeasuredProgram
    pages: Path


def measure(
    image: ImageArchive,
    running: Running,
    setting: Setting,
    *,
    name: str,
    host: Capabilities,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> MeasuredImage:
    """Measure a program of an image, called `name` in errors; the second time it comes from the cache.

    Errors: `InvalidInput` for a command that does not start, does not end, ends at once or with an error, and for one
    whose peak this host cannot give a guest; `GuestFailed` for a guest that says nothing.
    """
    store = cache or Cache()
    description = running.description(limit_ns=setting.limit_ns)
    inputs = {
        "image": sha256_file(image.path), "running": description.hex(), "kernel": sha256_file(setting.kernel),
        "initrd": sha256_file(setting.initrd), "clock": setting.clock, "qemu": host.version, "version": 1,
    }  # fmt: skip

    def make(folder: Path) -> None:
        program, pages = _grown(image, name, description, setting, host, on_progress, cancel)
        _refuse(program, running)
        (folder / observations.PAGES_FILE).write_bytes(pages)
        program.save(folder)

    folder = store.get("swap-image-measured", inputs, make).path
    return MeasuredImage(program=MeasuredProgram.load(folder), pages=folder / observations.PAGES_FILE)


def _grown(
    image: ImageArchive,
    image_name: str,
    description: bytes,
    setting: Setting,
    host: Capabilities,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> tuple[MeasuredProgram, bytes]:
    """Run in guests of growing memory until one suffices."""
    room = boot_room(image) + setting.initrd.stat().st_size * 2
    memory = whole_mib(_FIRST_BYTES + image.memory_bytes + room)
    most = int(memory_available_bytes() * _HOST_SHARE)
    while True:
        if memory > most:
            reason = f"needs a guest of {format_bytes(memory)}, and this host can give {format_bytes(most)}"
            hint = "free memory of the host, run it on a larger one, or give the command less work"
            raise InvalidInput("image", image_name, reason, hint=hint)
        on_progress(Progress("measure the image", None, f"in a guest of {format_bytes(memory)}"))
        outcome = _run(image, description, setting, memory, host, on_progress, cancel)
        program, pages = _read(outcome, image, memory)
        if not program.oom_kills and program.peak_bytes < 0.8 * (memory - memory // 64 - program.base_bytes):
            on_progress(Progress("measure the image", 1.0, f"peak {format_bytes(program.peak_bytes)}"))
            return program, pages
        memory *= 2


def _run(
    image: ImageArchive,
    description: bytes,
    setting: Setting,
    memory_bytes: int,
    host: Capabilities,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> Outcome:
    words = ["console=ttyS0 panic=-1 quiet nokaslr"]
    words.append(kernel_words(setting.clock, host_tsc_khz() if setting.clock is Clock.WALL else None))
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as name:
        initrd = Path(name, "initrd")
        with initrd.open("wb") as file:
            cpio.write(described(description), file, mtime=DEFAULT_MTIME, owner=(0, 0))
            for part in (image.path, setting.initrd):
                file.write(part.read_bytes())
        spec = VmSpec(
            kernel=setting.kernel, initrd=initrd, append=" ".join([*words, f"INIT={_SCRIPT}"]),
            memory_bytes=memory_bytes, clock=setting.clock, timeout_s=setting.timeout_s,
        )  # fmt: skip

        def work(token: CancelToken) -> Outcome:
            with Machine(spec, host=host) as machine:
                return machine.wait(token)

        outcome, _ = run_locked(work, alone=setting.clock is Clock.WALL, cancel=cancel, on_progress=on_progress)
    return outcome


def described(description: bytes) -> FileTree:
    """The tree of a small archive with the description of a run."""
    tree = FileTree()
    tree.add_file("acon/cell/run", description)
    return tree


def boot_room(image: ImageArchive) -> int:
    """The memory that unpacking an image's archive takes beyond the files that come of it."""
    return image.path.stat().st_size


def _read(outcome: Outcome, image: ImageArchive, memory_bytes: int) -> tuple[MeasuredProgram, bytes]:
    """What a guest said. Errors: `GuestFailed` for one that did not say how the program ended."""
    events: list[Mapping[str, Any]] = [message.data for message in outcome.messages]
    reasons = [str(event["what"]) for event in events if event.get("event") == "error" and "what" in event]
    try:
        program = observations.of_messages(events, memory_bytes=memory_bytes, image_bytes=image.memory_bytes)
        pages = observations.pages_of(events)
    except (KeyError, TypeError, ValueError) as problem:
        raise outcome.failure(f"the guest that measures the image said what none says: {problem!r}") from problem
    if program is None:
        raise outcome.failure(f"the image was not measured: {'; '.join(reasons) or outcome.end.text}")
    return program, pages


def _refuse(program: MeasuredProgram, running: Running) -> None:
    """Refuse a run that answers nothing. Errors: `InvalidInput` that names why, with the end of its output."""
    shown = program.output.splitlines()[-_SHOWN_LINES:]
    field, command = "command", " ".join(running.argv)
    if running.driver and (program.end == "driver" or (program.failed and program.ready_ns)):  # the driver's it is then
        field, command = "driver", " ".join(running.driver)
    after = f"after {format_seconds(program.elapsed_ns / 1e9)} of the guest's time"
    if program.failed:
        hint = next((hint for words, hint in _START_HINTS.items() if words in program.failed), _START_HINT)
        raise InvalidInput(field, command, f"does not start: {program.failed}", hint=hint, details=shown)
    if program.end == "limit":
        hint = "a server needs a time (--for 30s), or --driver and --ready; a long job a higher --limit"
        raise InvalidInput("command", command, f"has not ended {after}", hint=hint, details=shown)
    if running.driver and program.end != "driver":
        what = "was never ready" if not program.ready_ns else "ended before its driver did"
        hint = "ready: a text that it writes, or port:N on which it answers"
        raise InvalidInput("command", command, f"{what} ({_status(program.status)} {after})", hint=hint, details=shown)
    if program.status:
        hint, needs = "its own output, above, says why", ""
        if _NETWORK.search(program.output):
            needs = "needs the network, which a guest does not have, and "
            hint = "give it its data in the image; docker run --network none shows the same"
        reason = f"{needs}ended with {_status(program.status)} {after}"
        raise InvalidInput(field, command, reason, hint=hint, details=shown)
    if program.peak_bytes < LEAST_PEAK_BYTES:
        reason = f"ends {after} with a peak of {format_bytes(program.peak_bytes)}: there is nothing to compress"
        hint = f"give it work that takes {format_bytes(LEAST_PEAK_BYTES)} or more"
        raise InvalidInput("command", command, reason, hint=hint, details=shown)


def _status(status: int) -> str:
    if os.WIFSIGNALED(status):
        try:
            return signal.Signals(os.WTERMSIG(status)).name
        except ValueError:
            return f"signal {os.WTERMSIG(status)}"
    return f"status {os.WEXITSTATUS(status)}"
