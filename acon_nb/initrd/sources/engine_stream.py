"""What an engine sends while it pulls, builds and exports: events, bytes, and errors in its own terms.

Sources: Docker Engine API v1.41 (the JSON of ImageCreate and ImageBuild), podman's answers to the same requests.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from acon_nb.progress import CancelToken, OnProgress, Progress
from acon_nb.units import format_bytes

T = TypeVar("T")
_POLL_S = 0.1
_AHEAD = 8  # chunks of 1 MiB that may wait for the reader
_TAIL_LINES = 20
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STEP = re.compile(r"step \d+(?:/\d+)?\s*:", re.IGNORECASE)
_OF_STEP = re.compile(r"The command |(?:COPY|ADD) failed|.*\bwhile running runtime: exit status|.*building at STEP")
_BUILT = re.compile(r"Successfully built ([0-9a-f]{12,64})|([0-9a-f]{64})")  # docker's, and podman's last line

_REASONS = (
    (
        r"no such host|name resolution|server misbehaving|connection refused|connection reset|network is unreachable"
        r"|no route to host|i/o timeout|handshake timeout|deadline exceeded|awaiting headers|proxyconnect",
        "the registry of {name} cannot be reached",
        "check the network and the engine's proxy; without a registry, run `docker save {name} -o FILE` on a host that"
        " has the image, and here docker-archive:FILE, or `docker load -i FILE` and {name}",
    ),
    (
        r"no matching manifest|does not match the specified platform|no image found in .*(?:list|index)",
        "the registry has no image {name} for that platform",
        "give another --platform",
    ),
    (
        r"server gave HTTP response to HTTPS client|x509|certificate",
        "the engine does not trust the registry of {name}",
        "add the registry's certificate to the engine, or the registry to its insecure-registries",
    ),
    (
        r"toomanyrequests|rate limit",
        "the registry of {name} limits the number of pulls",
        "log in (docker login), or try later",
    ),
    (
        r"did not resolve to an alias|short-name",
        "the engine does not know which registry has {name}",
        "give the whole name, such as docker.io/library/{name}",
    ),
    (
        r"manifest\b.*not found|manifest unknown|name unknown|repository .*(?:not found|does not exist)|access denied"
        r"|unauthorized|authentication required",
        "the registry has no image {name}, or not for everyone",
        "check the name; for a private image, log in (docker login)",
    ),
    (
        r"requires buildkit|dockerfile parse error",
        "the Dockerfile is wrong, or needs BuildKit, which engines do not offer through this API",
        "correct it, or build it with `docker build`, and give its tag as the image",
    ),
    (r"no space left", "the engine's disk is full", "free some space, such as with `docker image prune`"),
)


def explain(message: str, name: str) -> tuple[str, str]:
    """Return what an engine's message about the image `name` means, and what to do; empty texts if it is not known."""
    if _OF_STEP.match(message):
        return "", "see the last lines of the step"
    for pattern, reason, hint in _REASONS:
        if re.search(pattern, message, re.IGNORECASE):
            return reason.format(name=name), hint.format(name=name)
    return "", ""


def printable(text: str) -> str:
    """Remove what would control a terminal from a line of an engine."""
    return _ESCAPES.sub("", text)


def interruptible(api: Any, call: Callable[[], Iterable[T]], cancel: CancelToken | None) -> Iterator[T]:
    """Yield what a call of an engine's API yields, and end soon after a cancellation, even if the engine is silent.

    The call runs in a thread, since a registry that does not answer, or a RUN line, may be silent for minutes. Closing
    the connection also ends what the engine does. Errors: those of the call, `Cancelled`.
    """
    if cancel is None:
        yield from call()
        return
    worker = _Worker(api, call)
    try:
        yield from worker.items(cancel)
    finally:
        worker.stop()


class _Worker:
    """Runs a call in a thread and hands over what it yields."""

    def __init__(self, api: Any, call: Callable[[], Iterable[Any]]) -> None:
        self._api, self._call = api, call
        self._items: queue.Queue[tuple[str, Any]] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._responses: list[Any] = []
        api.hooks["response"].append(self._hook)
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def items(self, cancel: CancelToken) -> Iterator[Any]:
        while True:
            cancel.check()
            with contextlib.suppress(queue.Empty):
                kind, value = self._items.get(timeout=_POLL_S)
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value

    def stop(self) -> None:
        """Close the connection, which ends the thread once the engine has answered."""
        self._stopped.set()
        with contextlib.suppress(ValueError):
            self._api.hooks["response"].remove(self._hook)
        for response in self._responses:
            _shut(response)

    def _hook(self, response: Any, *_: object, **__: object) -> None:
        self._responses.append(response)
        if self._stopped.is_set():
            _shut(response)

    def _run(self) -> None:
        try:
            for item in self._call():
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:  # raised again by the reader
            self._put("error", error)

    def _put(self, kind: str, value: Any) -> bool:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._items.put((kind, value), timeout=_POLL_S)
                return True
        return False


def _shut(response: Any) -> None:
    """Wake up a thread that waits for a response, and close its connection."""
    with contextlib.suppress(Exception):  # it may have ended meanwhile
        response.raw.shutdown()
    with contextlib.suppress(Exception):
        response.close()


class EngineMessage(Exception):
    """An error that an engine reported in a stream of events."""


def check_event(event: Mapping[str, Any]) -> None:
    """Errors: `EngineMessage` if the event reports an error."""
    if event.get("error"):
        raise EngineMessage(printable(str(event["error"]).strip()))


@dataclass
class PullProgress:
    """The bytes and layers of a pull so far, from its events."""

    name: str
    totals: dict[str, int] = field(default_factory=dict)
    downloaded: dict[str, int] = field(default_factory=dict)
    extracted: dict[str, int] = field(default_factory=dict)
    layers: dict[str, bool] = field(default_factory=dict)  # whether it is complete
    done: float = 0.0

    def take(self, event: Mapping[str, Any]) -> Progress:
        """Take an event into account; return the progress."""
        status, layer = printable(str(event.get("status") or "")), str(event.get("id") or "")
        detail = event.get("progressDetail") or {}
        if layer and not status.startswith("Pulling from"):
            self.layers.setdefault(layer, False)
            if status in ("Pull complete", "Already exists"):
                self.layers[layer] = True
                self.downloaded[layer] = self.extracted[layer] = self.totals.get(layer, 0)
            elif status in ("Downloading", "Extracting") and detail.get("total"):
                self.totals[layer] = int(detail["total"])
                sizes = self.downloaded if status == "Downloading" else self.extracted
                sizes[layer] = min(int(detail.get("current") or 0), self.totals[layer])
            elif status == "Download complete":
                self.downloaded[layer] = self.totals.get(layer, 0)
        total = sum(self.totals.values())
        loaded = sum(self.downloaded.values())
        if total:  # half of the work is to unpack it; the total grows while layers begin
            self.done = max(self.done, min(0.999, (loaded + sum(self.extracted.values())) / (2 * total)))
        parts = [f"{sum(self.layers.values())} of {len(self.layers)} layers"] if self.layers else []
        parts += [f"{format_bytes(loaded)} of {format_bytes(total)}"] if total else []
        return Progress(f"pull {self.name}", self.done if total else None, ", ".join([*parts, status]))


@dataclass
class BuildLog:
    """The lines of the step that a build is at, and what names the image that it built."""

    name: str
    lines: list[str] = field(default_factory=list)
    reported: str = ""
    printed: str = ""

    @property
    def identity(self) -> str:
        """The id of the image, "" before the build has ended."""
        return self.reported or self.printed

    def take(self, event: Mapping[str, Any], on_progress: OnProgress) -> None:
        """Take an event into account, and report its lines."""
        aux = event.get("aux")
        if isinstance(aux, Mapping) and aux.get("ID"):
            self.reported = str(aux["ID"])
        if event.get("status"):
            text = " ".join(filter(None, (str(event.get("id") or ""), str(event["status"]))))
            on_progress(Progress(f"build {self.name}", None, printable(text)))
        for raw in re.split(r"[\r\n]+", str(event.get("stream") or "")):
            line = printable(raw).rstrip()
            if not line:
                continue
            if _STEP.match(line):
                self.lines.clear()
            self.lines.append(line)
            del self.lines[1:-_TAIL_LINES]  # the step stays
            match = _BUILT.fullmatch(line)
            self.printed = match[1] or match[2] if match else self.printed
            on_progress(Progress(f"build {self.name}", None, line, is_log=True))


def watched(parts: Iterable[bytes], task: str, size: int, on_progress: OnProgress) -> Iterator[bytes]:
    """Yield the parts of an export, and report the share of `size` (0: unknown)."""
    done = 0
    for part in parts:
        done += len(part)
        on_progress(Progress(task, min(0.999, done / size) if size else None))
        yield part
    on_progress(Progress(task, 1.0))
