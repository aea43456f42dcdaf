"""The workers, as the driver sees them: `DaskPool` is a Dask distributed cluster; other pools can replace it.

A run is always sent to one worker by its address, so that the scheduler never repeats it without the driver,
and holds one unit of the worker's resource `vm`, so that drivers that share a cluster share its hosts too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from acon_nb.errors import AconError, InvalidInput, MissingRequirement
from acon_nb.progress import CancelToken
from acon_nb.study.cluster import worker
from acon_nb.study.cluster.worker import Reply, Ticket

if TYPE_CHECKING:
    from distributed import Client, Future
    from distributed.security import Security

RESOURCE = "vm"
_log = logging.getLogger(__name__)
_AT_A_TIME = 32  # how many workers get a large message at the same time
_CONNECT_S = 20.0
_HOME = ("127.0.0.1", "::1", "localhost", "")


class Lost(AconError):
    """The worker of a run is gone, and with it what it measured."""


class Pool(Protocol):
    """Workers by their address. All methods may be called from several threads."""

    def workers(self) -> Mapping[str, int]:
        """Return the present workers, each with how many runs it takes at a time (its resource `vm`; 0: none)."""
        ...

    def ask(
        self, function: Callable[..., Any], *args: Any, workers: Sequence[str], large: bool = False
    ) -> dict[str, Any]:
        """Call a function on each worker while its runs continue; an exception is returned as that worker's answer.

        `large` arguments go to a few workers at a time. A worker that is gone has no answer.
        """
        ...

    def submit(self, address: str, ticket: Ticket, on_done: Callable[[Any], None]) -> Any:
        """Send a run to a worker; `on_done(handle)` is called from any thread when it has ended. Returns the handle."""
        ...

    def result(self, handle: Any) -> Reply:
        """Return the reply of an ended run. Errors: `Lost`, and what the run raised."""
        ...

    def cancel(self, handles: Iterable[Any]) -> None:
        """Cancel runs: their guests are killed, and `on_done` may not be called."""
        ...


class DaskPool:
    """A Dask distributed cluster, through a client that is the caller's to close."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._slots: dict[str, int] = {}

    def workers(self) -> dict[str, int]:
        """See `Pool`. Errors: `AconError` when the scheduler does not answer."""
        try:
            addresses = self._client.nthreads().keys()
            if not addresses <= self._slots.keys():
                workers = self._client.scheduler_info()["workers"]
                self._slots = {name: int(row["resources"].get(RESOURCE, 0)) for name, row in workers.items()}
        except (OSError, TimeoutError, AttributeError) as error:  # AttributeError: the client has closed
            raise _gone(error) from error
        return {name: self._slots[name] for name in addresses if name in self._slots}

    def ask(
        self, function: Callable[..., Any], *args: Any, workers: Sequence[str], large: bool = False
    ) -> dict[str, Any]:
        """See `Pool`."""
        results: dict[str, Any] = {}
        for part in _parts(workers, _AT_A_TIME if large else max(1, len(workers))):
            try:
                answers = self._client.run(_call, function, args, workers=part, on_error="return")
            except (OSError, TimeoutError, AttributeError) as error:
                raise _gone(error) from error
            for address, answer in answers.items():
                if isinstance(answer, OSError):
                    _log.info("%s did not answer: %s", address, answer)
                else:  # an error is from loading the function: another acon_nb, or none
                    results[address] = answer if isinstance(answer, Exception) else answer[0]
        return results

    def submit(self, address: str, ticket: Ticket, on_done: Callable[[Any], None]) -> Future[Reply]:
        """See `Pool`."""
        key = f"acon-nb-{uuid.uuid4().hex}"
        future = self._client.submit(
            _task,
            ticket,
            key,
            key=key,
            workers=[address],
            allow_other_workers=False,
            resources={RESOURCE: 1},
            pure=False,
            retries=0,
        )
        future.add_done_callback(on_done)
        return future

    def result(self, handle: Future[Reply]) -> Reply:
        """See `Pool`."""
        from concurrent.futures import CancelledError

        from distributed.scheduler import KilledWorker, NoValidWorkerError

        try:
            reply: Reply = handle.result()
            return reply
        except (CancelledError, KilledWorker, NoValidWorkerError, OSError, TimeoutError) as error:
            raise Lost(f"the worker of a run is gone: {type(error).__name__}") from error

    def cancel(self, handles: Iterable[Future[Reply]]) -> None:
        """See `Pool`."""
        with contextlib.suppress(OSError, TimeoutError):
            self._client.cancel(list(handles), force=True)


class _TaskToken(CancelToken):
    """Cancelled when the scheduler cancels the task: the driver has cancelled it, or is gone."""

    def __init__(self, key: str) -> None:
        from distributed import get_worker

        super().__init__()
        self._tasks = get_worker().state.tasks
        self._key = key

    @property
    def cancelled(self) -> bool:
        task = self._tasks.get(self._key)
        return super().cancelled or task is None or task.state == "cancelled"


def connect(scheduler: str, *, tls: Mapping[str, Path] | None = None) -> Client:
    """Connect to the scheduler at an address such as tcp://127.0.0.1:8786, or of a scheduler file; return the client.

    `tls` has the paths `ca`, `cert` and `key`; without it Dask's own configuration applies. Whoever reaches a scheduler
    without TLS can run programs on its workers: the log has a warning for an address that is not of this host.
    Errors: `MissingRequirement` (no distributed), `InvalidInput`, `AconError` if nothing answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise no_distributed() from error
    argument = {"scheduler_file": scheduler} if scheduler.endswith(".json") else {"address": scheduler}
    if "address" in argument and urlsplit(scheduler).scheme not in ("tcp", "tls", "ws", "wss", "ucx"):
        hint = "such as tcp://127.0.0.1:8786, tls://host:8786, or a scheduler file (.json)"
        raise InvalidInput("scheduler", scheduler, "is not a valid address", hint=hint)
    if "scheduler_file" in argument and not Path(scheduler).is_file():
        raise InvalidInput(
            "scheduler", scheduler, "is not a file", hint="as `dask scheduler --scheduler-file` wrote it"
        )
    security = _security(tls)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it logs the errors that are raised here
    try:
        client = Client(**argument, security=security, timeout=_CONNECT_S, set_as_default=False, name="acon-nb")
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        hint = f"check that a scheduler runs there, with the same TLS: {error}"
        raise AconError(f"no scheduler answers at {scheduler}", hint=hint) from error
    url = urlsplit(str(client.scheduler.address))
    if url.scheme == "tcp" and (url.hostname or "") not in _HOME:
        _log.warning("the scheduler at %s is open to its network: use TLS (docs/cluster.md)", url.netloc)
    return client


def no_distributed() -> MissingRequirement:
    """The error of a feature that needs Dask distributed."""
    return MissingRequirement("distributed", "measuring on many hosts", hint="pip install 'acon-nb[cluster]'")


def _security(tls: Mapping[str, Path] | None) -> Security | None:
    if not tls:
        return None
    from distributed.security import Security

    for name in ("ca", "cert", "key"):
        if name not in tls:
            raise InvalidInput(f"tls_{name}", None, "is missing", hint="TLS needs all three: ca, cert, key")
        if not tls[name].is_file():
            raise InvalidInput(f"tls_{name}", tls[name], "is not a file", hint="a PEM file")
    return Security(
        tls_ca_file=str(tls["ca"]),
        tls_client_cert=str(tls["cert"]),
        tls_client_key=str(tls["key"]),
        require_encryption=True,
    )


def _gone(error: BaseException) -> AconError:
    return AconError(
        f"the scheduler does not answer: {type(error).__name__}", hint="start it and run this again: rows are kept"
    )


def _parts(names: Sequence[str], size: int) -> Iterable[list[str]]:
    rest = iter(names)
    return iter(lambda: list(itertools.islice(rest, size)), [])


async def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any]:
    """Run on a worker in a thread, so that its event loop keeps answering."""
    try:
        return (await asyncio.to_thread(function, *args),)
    except Exception as error:
        return (error,)


def _task(ticket: Ticket, key: str) -> Reply:
    """Do one run, on a worker."""
    return worker.run(ticket, _TaskToken(key))
