"""QEMU's monitors (QMP): serve a connected socket, and send commands from another thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, wait
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from acon_nb.errors import AconError

_log = logging.getLogger(__name__)
_LOOK_S = 0.1
_T = TypeVar("_T")


async def talk(connected: socket.socket, with_client: Callable[[QMPClient], Coroutine[Any, Any, None]]) -> None:
    """Speak QMP on a connected socket until `with_client` returns or QEMU ends, which is not an error."""
    client = QMPClient("acon-vm")
    client.logger.setLevel(logging.CRITICAL)
    try:
        await client.connect(connected)
        await with_client(client)
    except (QMPError, OSError, EOFError) as error:
        _log.debug("QMP ended: %r", error)
    finally:
        with contextlib.suppress(QMPError, OSError, EOFError):
            await client.disconnect()


def reason_of(event: Mapping[str, Any]) -> str:
    """Return why the guest ends if the event contains it (QEMU: the reason of SHUTDOWN), else ""."""
    if event["event"] not in ("SHUTDOWN", "GUEST_PANICKED"):
        return ""
    data = event.get("data")
    return str(data.get("reason", "guest-panic")) if isinstance(data, dict) else "guest-panic"


def ask(
    work: Coroutine[Any, Any, _T], loop: asyncio.AbstractEventLoop, running: Callable[[], bool], timeout_s: float
) -> _T:
    """Run `work` in a machine's event loop and wait for its result while the machine is `running`.

    Errors: `AconError` if QEMU refuses, does not answer in time, or is not running.
    """
    try:
        future = asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError as error:  # the loop has just closed
        work.close()
        raise AconError("the guest is not running", hint="wait() returns how it ended") from error
    deadline = time.monotonic() + timeout_s
    while running() and time.monotonic() < deadline and not wait((future,), _LOOK_S).done:
        pass  # a loop that has just closed never runs the work
    try:
        return future.result(0)
    except ExecuteError as error:
        raise AconError(f"QEMU refused: {error}") from error
    except (TimeoutError, CancelledError, QMPError, OSError, EOFError) as error:
        future.cancel()
        if not running():  # otherwise the loop owns it
            work.close()
        hint = "wait() returns how the guest ended"
        raise AconError(f"QEMU did not answer: {type(error).__name__}", hint=hint) from error
