"""QEMU's monitors (QMP): talk on a connected socket, and ask from another thread."""

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
    """Talk QMP on a connected socket, until `with_client` is done or QEMU ends, which is no error."""
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
    """Why the guest ends, if the event says so (QEMU: SHUTDOWN's reason); else nothing."""
    if event["event"] not in ("SHUTDOWN", "GUEST_PANICKED"):
        return ""
    data = event.get("data")
    return str(data.get("reason", "guest-panic")) if isinstance(data, dict) else "guest-panic"


def ask(
    work: Coroutine[Any, Any, _T], loop: asyncio.AbstractEventLoop, running: Callable[[], bool], timeout_s: float
) -> _T:
    """Have `work` done by the loop of a machine and wait for its result, as long as the machine is `running`.

    Errors: `AconError` when QEMU refuses, does not answer in time, or does not run.
    """
    try:
        future = asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError as error:  # the loop has just closed
        work.close()
        raise AconError("the guest does not run", hint="see wait() for how it ended") from error
    deadline = time.monotonic() + timeout_s
    while running() and time.monotonic() < deadline and not wait((future,), _LOOK_S).done:
        pass  # a loop that has just closed never comes to the work
    try:
        return future.result(0)
    except ExecuteError as error:
        raise AconError(f"QEMU refused: {error}") from error
    except (TimeoutError, CancelledError, QMPError, OSError, EOFError) as error:
        future.cancel()
        if not running():  # else it is the loop's
            work.close()
        hint = "see wait() for how the guest ended"
        raise AconError(f"QEMU did not answer: {type(error).__name__}", hint=hint) from error
