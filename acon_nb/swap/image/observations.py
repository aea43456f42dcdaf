"""What a run of an image with ample memory showed: its peak, its working set over time, a sample of its pages."""

from __future__ import annotations

import base64
import binascii
import json
import statistics
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAGE_BYTES = 4096
PAGES_FILE = "pages"
_FILE = "measured.json"


@dataclass(frozen=True, kw_only=True)
class Window:
    """The program's memory over a stretch of its time.

    `t_ns` is the end, since the program's start, `window_ns` the length. `charged_bytes` is what its control group held
    at the end, `touched_bytes` what it referenced of its anonymous and shared memory, `resident_bytes` what it has.
    """

    t_ns: int
    window_ns: int
    charged_bytes: int
    touched_bytes: int
    resident_bytes: int
    anonymous_bytes: int
    files_bytes: int
    kernel_bytes: int


@dataclass(frozen=True, kw_only=True)
class PageSample:
    """Of which pages a sample was taken (anonymous, shared, of files that the program wrote), when, and what they are.

    `data` pages are compressed, `same` are filled with one word, `zero` with zeros; `lost` could not be read.
    """

    t_ns: int
    charged_bytes: int
    anonymous_pages: int
    shared_pages: int
    file_pages: int
    data: int
    same: int
    zero: int
    lost: int


@dataclass(frozen=True, kw_only=True)
class MeasuredProgram:
    """A program of an image, measured.

    `peak_bytes` is the most that its control group held: anonymous memory, files that it wrote, and what the kernel
    keeps for it (page tables, stacks, sockets); `peak_from` says how it is known (memory.peak, or samples).
    `base_bytes` is what a guest takes without it: kernel, the image's files, our own programs (without the kernel's 64
    bytes a page frame). `driver_peak_bytes` is that of the driver. `end` is exit, driver, for or limit, `status` as of
    wait(2).
    """

    peak_bytes: int
    peak_from: str
    base_bytes: int
    image_bytes: int
    memory_bytes: int
    driver_peak_bytes: int
    end: str
    status: int
    elapsed_ns: int
    ready_ns: int
    oom_kills: int
    failed: str
    output: str
    windows: tuple[Window, ...]
    sample: PageSample | None

    @property
    def working_set_bytes(self) -> int | None:
        """The median of what was touched in a window; None for a run that is shorter than one.

        A window at whose end the program was ending had nothing left to look at, and does not count.
        """
        touched = [window.touched_bytes for window in self.windows if window.resident_bytes]
        return int(statistics.median(touched)) if touched else None

    def save(self, folder: Path) -> None:
        """Write it to a folder."""
        (folder / _FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> MeasuredProgram:
        """Read what `save` wrote."""
        data = json.loads((folder / _FILE).read_text())
        windows = tuple(Window(**window) for window in data.pop("windows"))
        sample = data.pop("sample")
        return cls(**data, windows=windows, sample=PageSample(**sample) if sample else None)


def of_messages(events: Sequence[Mapping[str, Any]], *, memory_bytes: int, image_bytes: int) -> MeasuredProgram | None:
    """What a guest said of the run; None if it did not get to its end.

    Errors: `ValueError`, `KeyError` and the like for a guest that says what none says.
    """
    by_name = {str(event.get("event")): event for event in events}
    start, end = by_name.get("image-start"), by_name.get("image-end")
    if start is None or end is None:
        return None
    windows = tuple(_window(event) for event in events if event.get("event") == "image-watch")
    peak = int(end["program_peak"])
    sampled = max((window.charged_bytes for window in windows), default=0)
    available = int(start["meminfo_kib"]["MemAvailable"]) * 1024
    return MeasuredProgram(
        peak_bytes=max(peak, sampled),
        peak_from="memory.peak" if peak > 0 else "samples",
        base_bytes=memory_bytes - memory_bytes // 64 - available,
        image_bytes=image_bytes,
        memory_bytes=memory_bytes,
        driver_peak_bytes=max(0, int(end["driver_peak"])),
        end=str(end["why"]),
        status=int(end["status"]),
        elapsed_ns=int(end["t_ns"]),
        ready_ns=int(end["ready_ns"]),
        oom_kills=max(0, int(end["program_oom_kills"])) + max(0, int(end["driver_oom_kills"])),
        failed=str(end["failed"]),
        output=str(end["output"]).encode("latin-1", "replace").decode(errors="replace"),
        windows=windows,
        sample=_sample(by_name.get("image-sample")),
    )


def _window(event: Mapping[str, Any]) -> Window:
    stat = event["stat"]
    return Window(
        t_ns=int(event["t_ns"]), window_ns=int(event["window_ns"]), charged_bytes=int(event["current"]),
        touched_bytes=int(event["touched"]), resident_bytes=int(event["resident"]), anonymous_bytes=int(stat["anon"]),
        files_bytes=int(stat["file"]), kernel_bytes=int(stat["kernel"]),
    )  # fmt: skip


def _sample(event: Mapping[str, Any] | None) -> PageSample | None:
    if event is None:
        return None
    names = {"t_ns": "t_ns", "charged_bytes": "current", "anonymous_pages": "anon", "shared_pages": "shared"}
    names |= {"file_pages": "file", "data": "data", "same": "same", "zero": "zero", "lost": "lost"}
    return PageSample(**{field: int(event[name]) for field, name in names.items()})


def pages_of(events: Sequence[Mapping[str, Any]]) -> bytes:
    """The pages that a guest sent. Errors: `ValueError` for one whose checksum differs."""
    parts = []
    for event in events:
        if event.get("event") != "image-pages":
            continue
        try:
            data = base64.b64decode(str(event["data"]), validate=True)
        except binascii.Error as error:
            raise ValueError(f"the guest's pages are not base64: {error}") from error
        if len(data) != int(event["count"]) * PAGE_BYTES or zlib.crc32(data) != int(event["crc32"]):
            raise ValueError("the guest's pages were damaged on their way")
        parts.append(data)
    return b"".join(parts)
