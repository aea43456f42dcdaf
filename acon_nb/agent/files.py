"""Files into a guest and out of it, and folders of the host in it, over the agent's channel: no program of the guest.

The agent itself runs the commands `acon:put`, `acon:get` and `acon:mount` (guest/src/exec_agent.c).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from acon_nb.cache import atomic_file
from acon_nb.errors import GuestFailed, InvalidInput
from acon_nb.vm import Machine
from acon_nb.vm.commands import Executed, GuestCommand

REFUSED = "refused"  # the end of a `GuestFailed` whose guest runs on


@dataclass(frozen=True, kw_only=True)
class Transfers:
    """Files of a run: `put` are (host, guest) before the command, `get` are (guest, host) after it."""

    put: tuple[tuple[Path, str], ...] = ()
    get: tuple[tuple[str, Path], ...] = ()

    @classmethod
    def of(cls, put: Iterable[str] = (), get: Iterable[str] = ()) -> Transfers:
        """Parse `HOST:GUEST` and `PATH`, which goes into the current folder. Errors: `InvalidInput`."""
        return cls(put=tuple(map(parse_put, put)), get=tuple(map(parse_get, get)))


NO_TRANSFERS = Transfers()


def parse_put(text: str) -> tuple[Path, str]:
    """Parse `HOST:GUEST`; the guest's path is absolute, the host's a file. Errors: `InvalidInput`."""
    host, colon, guest = text.rpartition(":")
    if not colon or not host or not guest.startswith("/") or "\0" in text:
        raise InvalidInput("put", text, "is not HOST:GUEST", hint="such as data.bin:/tmp/data.bin, or data.bin:/tmp/")
    if not Path(host).is_file():
        reason = "is a folder" if Path(host).is_dir() else "is not a file"
        raise InvalidInput("put", host, reason, hint="put one file; give a folder by --share")
    return Path(host), guest


def parse_get(text: str) -> tuple[str, Path]:
    """Parse the PATH of a file of the guest, which goes into the current folder. Errors: `InvalidInput`."""
    name = PurePosixPath(text).name
    if not text.startswith("/") or text.endswith("/") or not name or name == ".." or "\0" in text:
        hint = "such as /proc/config.gz; of a folder get an archive: --exec 'tar -cf /tmp/a.tar DIR' --get /tmp/a.tar"
        raise InvalidInput("get", text, "is not the absolute path of a file", hint=hint)
    return text, Path(name)


def put(machine: Machine, source: Path, target: str) -> None:
    """Copy a file of the host into the running guest, mode included; parents are made.

    A `target` that is a folder, or ends with `/`, gets the file under its name. The file appears whole or not at all.
    Errors: `InvalidInput` (no such file), `GuestFailed` (the guest's reason: no space, read-only).
    """
    try:
        file = source.open("rb")
        mode = stat.S_IMODE(source.stat().st_mode)
    except OSError as error:
        raise InvalidInput("put", source, error.strerror or "cannot be read", hint="name a file") from error
    with file:
        argv = ["acon:put", target, f"{mode:o}", source.name]
        _check(machine.execute(argv, stdin=file), f"{source} was not put into the guest")


def get(machine: Machine, path: str, target: Path) -> None:
    """Copy a file of the running guest to the host; `target` is replaced when all of it has arrived.

    Errors: `GuestFailed` (no such file, a folder), `NoSpace`, `NotWritable`.
    """
    with atomic_file(target) as temporary, temporary.open("wb") as file:
        errors: list[OSError] = []

        def take(data: bytes) -> None:
            try:
                file.write(data)
            except OSError as error:  # not in the agent's thread: the command's end is awaited here
                errors.append(error)

        done = machine.execute(GuestCommand(argv=["acon:get", path], on_stdout=take))
        if errors:
            raise errors[0]
        _check(done, f"{path} was not got from the guest")


def mount_shares(machine: Machine) -> None:
    """Mount the folders of the spec's `shares` in the running guest.

    Errors: `GuestFailed` (a kernel without 9p, no such folder in a file system that is read-only).
    """
    for number, share in enumerate(machine.spec.shares):
        argv = ["acon:mount", share.tag(number), share.guest, "rw" if share.writable else "ro"]
        hint = "its kernel needs CONFIG_NET_9P_VIRTIO and CONFIG_9P_FS (built in, or modules that modprobe finds)"
        _check(machine.execute(argv), f"{share.host} is not shared at {share.guest}", hint)


def _check(done: Executed, what: str, hint: str = "") -> None:
    if done.status:
        reason = done.stderr.decode(errors="replace").strip()
        shown = hint if "No such device" in reason else ""
        raise GuestFailed(f"{what}: {reason or f'status {done.status}'}", end=REFUSED, hint=shown)
