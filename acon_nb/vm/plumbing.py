"""What connects a machine with its host: socket pairs, a folder for the run, the reader of the results."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from acon_nb.cache import default_root, writable_folder, writing

_log = logging.getLogger(__name__)
_RUNS_KEPT = 100
_MESSAGE_LIMIT_BYTES = 4 << 20


def socket_pairs(
    names: Sequence[str], stack: contextlib.ExitStack
) -> tuple[dict[str, socket.socket], dict[str, socket.socket]]:
    """Create a connected pair of sockets for each name: our ends and QEMU's, all closed with `stack`."""
    ours: dict[str, socket.socket] = {}
    theirs: dict[str, socket.socket] = {}
    for name in names:
        ours[name], theirs[name] = socket.socketpair()
        stack.callback(ours[name].close)
        stack.callback(theirs[name].close)
    return ours, theirs


@contextlib.contextmanager
def held(folder: Path, kind: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Hold a lock on a run's folder, released when the process ends. Errors: `BlockingIOError` if another has it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, kind)
        yield
    finally:
        os.close(fd)


def run_folder() -> Path:
    """Create a folder for one run, and remove all but the newest ones, unless their machine still runs.

    Errors: `NoSpace`, `NotWritable`.
    """
    runs = writable_folder(default_root() / "runs")
    for old in sorted(runs.iterdir())[:-_RUNS_KEPT]:
        with contextlib.suppress(OSError), held(old, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(old, ignore_errors=True)
    with writing(runs):
        return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%dT%H%M%S-"), dir=runs))


async def take_messages(results: socket.socket, take: Callable[[Mapping[str, Any]], None]) -> None:
    """Pass each JSON object that arrives as a line to `take`, until the guest is gone."""
    reader, writer = await asyncio.open_connection(sock=results, limit=_MESSAGE_LIMIT_BYTES)
    try:
        while line := await reader.readline():
            try:
                data = json.loads(line)
            except ValueError:
                _log.warning("the guest sent a line that is not JSON: %.200r", line)
                continue
            if isinstance(data, dict):
                take(data)
    except ConnectionError:
        return
    except ValueError as error:  # a line over the limit: something is wrong in the guest
        _log.warning("no more of the guest's results are read: %s", error)
    finally:
        writer.close()
