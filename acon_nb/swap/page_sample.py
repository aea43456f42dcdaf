"""Pages of any file and of a running process as data: a sample, what is in it, and what codecs make of it.

A sample is evenly spaced over all whole pages, zero and same-filled ones among them: their shares are the file's.
"""

from __future__ import annotations

import collections
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb.errors import AconError, InvalidInput
from acon_nb.units import format_bytes

PAGE_BYTES = 4096
PREFIX = "file:"
LEAST_PAGES = 64
LIMIT_BYTES = 64 << 30
_STATISTICS_PAGES = 2048
_DUMP_PAGES = 4096
_PRESENT, _SWAPPED = 1 << 63, 1 << 62  # pagemap, Documentation/admin-guide/mm/pagemap.rst
_SHARED = ("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero")
_PAGEMAP_PAGES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class PageStatistics:
    """What is in the pages of a sample: how many of how many, the shares that are zero or filled with one word, the
    mean entropy of a page's bytes in bits, and the ratio of each codec and level over the other pages."""

    sampled: int
    pages: int
    zero_share: float
    same_share: float
    entropy_bits: float
    ratio: Mapping[str, float]


def check_file(path: Path, field: str = "data") -> int:
    """Check that a file can be data; returns its number of whole pages. Errors: `InvalidInput`."""
    try:
        info = path.stat()
    except OSError as error:
        raise InvalidInput(field, path, error.strerror or "cannot be read", hint="the path of a file") from error
    if not stat.S_ISREG(info.st_mode):
        raise InvalidInput(field, path, "is not a regular file", hint="a dump or a copy: dd if=... of=FILE")
    if not os.access(path, os.R_OK):
        raise InvalidInput(field, path, "cannot be read: permission denied", hint=f"chmod u+r {path}")
    if info.st_size < LEAST_PAGES * PAGE_BYTES:
        size = format_bytes(info.st_size) if info.st_size else "empty"
        reason = f"is too small ({size})" if info.st_size else "is empty"
        raise InvalidInput(field, path, reason, hint=f"at least {LEAST_PAGES} pages of 4 KiB, 256 KiB")
    if info.st_size > LIMIT_BYTES:
        reason = f"is too large ({format_bytes(info.st_size)})"
        raise InvalidInput(field, path, reason, hint=f"at most {format_bytes(LIMIT_BYTES)}: take a part of it with dd")
    return info.st_size // PAGE_BYTES


def sample_file(path: Path, count: int) -> list[bytes]:
    """`count` pages of a file, evenly spaced; pages come again where it has fewer. Errors: as `check_file`."""
    have = check_file(path)
    with path.open("rb") as file:
        return [_page_at(file.fileno(), number * have // count) for number in range(count)]


def _page_at(descriptor: int, page: int) -> bytes:
    return os.pread(descriptor, PAGE_BYTES, page * PAGE_BYTES)


def kind_of(page: bytes) -> str:
    """The letter of a page's kind, as the guest takes it: z zero, s filled with one word, d data."""
    if page != page[:8] * (PAGE_BYTES // 8):
        return "d"
    return "s" if any(page[:8]) else "z"


def statistics_of_file(path: Path) -> PageStatistics:
    """The statistics of up to 2,048 pages of a file. Errors: as `check_file`."""
    have = check_file(path)
    return statistics(sample_file(path, min(have, _STATISTICS_PAGES)), have)


def statistics(pages: Sequence[bytes], have: int) -> PageStatistics:
    """The statistics of sampled pages out of `have`."""
    kinds = collections.Counter(map(kind_of, pages))
    data = [page for page in pages if kind_of(page) == "d"]
    return PageStatistics(
        sampled=len(pages),
        pages=have,
        zero_share=kinds["z"] / len(pages),
        same_share=kinds["s"] / len(pages),
        entropy_bits=sum(map(_entropy, pages)) / len(pages),
        ratio={name: _ratio(pack, data) for name, pack in _codecs().items()} if data else {},
    )


def _entropy(page: bytes) -> float:
    counts = collections.Counter(page).values()
    return -sum(count / len(page) * math.log2(count / len(page)) for count in counts)


def _ratio(pack: Callable[[bytes], bytes], pages: Sequence[bytes]) -> float:
    """Bytes over compressed bytes; a page that does not get smaller stays whole, as in zram and zswap."""
    return PAGE_BYTES * len(pages) / sum(min(PAGE_BYTES, len(pack(page))) for page in pages)


def _codecs() -> dict[str, Callable[[bytes], bytes]]:
    import lz4.block
    import zstandard

    codecs: dict[str, Callable[[bytes], bytes]] = {
        "lz4": lambda page: lz4.block.compress(page, store_size=False),
        "lz4:8": lambda page: lz4.block.compress(page, store_size=False, mode="fast", acceleration=8),
        "lz4hc": lambda page: lz4.block.compress(page, store_size=False, mode="high_compression", compression=9),
        "deflate": lambda page: zlib.compress(page, 6),
    }
    for level in (1, 3, 15):
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=False, write_checksum=False)
        codecs[f"zstd:{level}"] = compressor.compress
    return codecs


def sample_process(pid: int, count: int) -> tuple[list[bytes], int]:
    """Up to `count` pages of a process' anonymous and shared memory, evenly spaced, and how many there are.

    They are those in RAM or swap: pages that it has never written are not counted. Errors: `InvalidInput` (no such
    process, no permission),
    `AconError` (too few pages). Source: proc(5), pagemap.rst.
    """
    try:
        places = list(_places(pid))
        if len(places) < LEAST_PAGES:
            raise AconError(f"process {pid} has {len(places)} pages of memory: at least {LEAST_PAGES} are needed")
        count = min(count, len(places))
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            chosen = (places[number * len(places) // count] for number in range(count))
            pages = list(_readable(memory.fileno(), chosen))
    except FileNotFoundError as error:
        raise InvalidInput("pid", pid, "is not a running process", hint="ps -e") from error
    except PermissionError as error:
        hint = "run as its owner or as root (ptrace(2), kernel.yama.ptrace_scope)"
        raise InvalidInput("pid", pid, "may not be read: permission denied", hint=hint) from error
    except ProcessLookupError as error:
        raise InvalidInput("pid", pid, "has ended", hint="ps -e") from error
    return pages, len(places)


def _places(pid: int) -> Iterator[int]:
    """The addresses of a process' pages of anonymous and shared memory that are in RAM or swap."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for line in maps:
            area, rights, _, _, inode, *name = line.split(maxsplit=5)
            anonymous = inode == "0" and (not name or name[0].startswith(("[heap]", "[stack", "[anon")))
            if rights[:1] != "r" or not (anonymous or (name and name[0].startswith(_SHARED))):
                continue
            first, last = (int(word, 16) // PAGE_BYTES for word in area.split("-"))
            for start in range(first, last, _PAGEMAP_PAGES):
                raw = os.pread(pagemap.fileno(), 8 * min(_PAGEMAP_PAGES, last - start), 8 * start)
                for number, (flags,) in enumerate(struct.iter_unpack("<Q", raw[: len(raw) // 8 * 8])):
                    if flags & (_PRESENT | _SWAPPED):
                        yield (start + number) * PAGE_BYTES


def _readable(memory: int, places: Iterable[int]) -> Iterator[bytes]:
    for place in places:
        try:
            page = os.pread(memory, PAGE_BYTES, place)
        except OSError:  # unmapped since
            continue
        if len(page) == PAGE_BYTES:
            yield page


def write_private(pages: Sequence[bytes], path: Path) -> Path:
    """Write pages to a new file that its owner alone can read: memory may hold secrets. Errors: `InvalidInput`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise InvalidInput("out", path, "exists", hint="remove it, or give another folder with --out") from error
    except OSError as error:
        raise InvalidInput("out", path, error.strerror or "cannot be written", hint="another folder: --out") from error
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(pages)
    return path


def dump_process(pid: int, folder: Path) -> Path:
    """Write up to 4,096 pages of a process to FOLDER/pid-PID.pages. Errors: of `sample_process`, `write_private`."""
    pages, _ = sample_process(pid, _DUMP_PAGES)
    folder.mkdir(parents=True, exist_ok=True)
    return write_private(pages, folder / f"pid-{pid}.pages")


def statistics_text(name: str, counts: PageStatistics) -> str:
    """The statistics in two lines."""
    ratios = ", ".join(f"{codec} {ratio:.2f}" for codec, ratio in counts.ratio.items()) or "nothing to compress"
    shares = f"{100 * counts.zero_share:.1f} % zero, {100 * counts.same_share:.1f} % same-filled"
    return (
        f"{name}: {counts.sampled} of {counts.pages} pages: {shares}, {counts.entropy_bits:.2f} bits of entropy\n"
        f"  the others, by codec and level: {ratios}"
    )
