"""Corpora: 1,024 pages (4 MiB) each of the memory of programs that are run for the purpose, and of Debian's files.

redis with JSON documents, a Python heap, a compiler's heap; and files of a Debian root. Zero and same-filled pages are
left out, since the kernel does not compress them: a mix names them apart. A corpus is kept in the user cache; made
again, it differs in addresses and versions, and its hash (in every row's `data_sha256`) shows it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, atomic_file, key_of
from acon_nb.errors import AconError, InvalidInput
from acon_nb.guest.programs import guest_script, load_program
from acon_nb.host import apt
from acon_nb.initrd import tree_of, write_folder
from acon_nb.process import Child
from acon_nb.progress import OnProgress, Progress, silent

NAMES = ("redis", "python", "compiler", "files")
PAGES = 1024
PAGE_BYTES = 4096
REDIS_IMAGE = "busybox+redis-server+redis-tools"
_VERSION = 1
# The names of the two libraries are those of the release: what these packages depend on.
_FILES_OF = ("bash", "coreutils", "libc6", "perl-base", "libpython3-stdlib", "tzdata", "openssl")
_LIBRARIES_OF = re.compile(r"libpython3\.\d+-stdlib|libssl3(t64)?")
_DOCUMENTS = 40_000
_COMPILER_BYTES = 96 << 20
_START_S = 30.0


def build(name: str, *, cache: Cache | None = None, on_progress: OnProgress = silent) -> Path:
    """A corpus' file, made if it is not in the cache.

    Errors: `InvalidInput` (no such corpus), `MissingRequirement`, `AconError` (a program shows too little memory).
    """
    _check(name)
    store = cache or Cache()

    def make(folder: Path) -> None:
        on_progress(Progress(f"corpus {name}", 0.0))
        (folder / name).write_bytes(chosen(name, _MAKERS[name](store)))
        on_progress(Progress(f"corpus {name}", 1.0))

    return store.get("corpus", {"name": name, "version": _VERSION}, make).path / name


def chosen(name: str, pages: Iterator[bytes]) -> bytes:
    """1,024 of the pages that are not same-filled, evenly spaced. Errors: `AconError` when there are fewer."""
    good = [page for page in pages if len(page) == PAGE_BYTES and page != page[:8] * (PAGE_BYTES // 8)]
    if len(good) < PAGES:
        raise AconError(f"the corpus {name} would have {len(good)} pages, which is fewer than {PAGES}")
    return b"".join(good[number * len(good) // PAGES] for number in range(PAGES))


def memory_pages(pid: int) -> Iterator[bytes]:
    """The pages of a process' private, writable memory that belong to no file. Source: proc(5), maps and mem."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            area, rights, _, _, inode, *name = line.split(maxsplit=5)
            if not rights.startswith("rw-p") or inode != "0" or (name and name[0] not in ("[heap]",)):
                continue
            first, last = (int(word, 16) for word in area.split("-"))
            yield from _area(memory.fileno(), first, last)


def _area(memory: int, first: int, last: int) -> Iterator[bytes]:
    step = 1 << 20
    for place in range(first, last, step):
        try:
            data = os.pread(memory, min(step, last - place), place)
        except OSError:  # a guard page
            continue
        yield from pages_of(data)


def pages_of(data: bytes) -> Iterator[bytes]:
    """The pages of some bytes; the last may be short."""
    return (data[start : start + PAGE_BYTES] for start in range(0, len(data), PAGE_BYTES))


def _python(store: Cache) -> Iterator[bytes]:
    del store
    argv: list[str | Path] = [sys.executable, "-I", guest_script("heap.py")]
    with Child(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        if not child.stdout.readline().startswith(b"ready"):
            raise AconError("the Python program for the corpus did not start")
        yield from memory_pages(child.pid or 0)


def _compiler(store: Cache) -> Iterator[bytes]:
    """The memory of gcc's compiler proper in the middle of a large file, which is stopped and then ended."""
    del store
    cc1 = process.output(["gcc", "-print-prog-name=cc1"]).strip()
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as name:
        source = Path(name, "large.c")
        source.write_text("".join(_function(number) for number in range(12_000)))
        with Child([cc1, "-quiet", "-O2", source, "-o", Path(name, "large.s")]) as child:
            pid = child.pid or 0
            _until(lambda: _resident_bytes(pid) > _COMPILER_BYTES or child.poll() is not None, "the compiler")
            if child.poll() is not None:
                raise AconError("the compiler ended before its memory was read")
            os.kill(pid, signal.SIGSTOP)
            yield from memory_pages(pid)


def _function(number: int) -> str:
    return (
        f"struct item_{number} {{ long key, count[{number % 7 + 2}]; const char *name; }};\n"
        f"long visit_{number}(struct item_{number} *item, long limit)\n{{\n\tlong sum = {number};\n"
        f"\tfor (long i = 0; i < limit; i++) {{\n\t\tif (item[i].key % {number % 13 + 3} == 0)\n"
        f"\t\t\tsum += item[i].count[i % {number % 7 + 2}] * {number % 101};\n"
        f"\t\telse if (item[i].name)\n\t\t\tsum ^= item[i].name[i % 16];\n\t}}\n\treturn sum;\n}}\n"
    )


def _redis(store: Cache) -> Iterator[bytes]:
    """redis-server's memory with the documents that the guest's workload keeps in it."""
    program = load_program(store)
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as name, contextlib.ExitStack() as stack:
        root, place = Path(name, "root"), Path(name, "redis")
        write_folder(tree_of(REDIS_IMAGE, cache=store), root)
        argv = redis_argv(root, place)
        child = stack.enter_context(Child(argv, cwd=Path(name)))
        _until(lambda: place.exists() or child.poll() is not None, "redis-server")
        documents = process.run_bytes([program, "documents", str(_DOCUMENTS), "1"])
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(place))
            _send(link, documents, _DOCUMENTS)
            yield from memory_pages(child.pid or 0)


def redis_argv(root: Path, place: Path) -> list[str | Path]:
    """The command of a redis-server out of an unpacked `REDIS_IMAGE`, by its own libraries, on a Unix socket."""
    libraries = [root / name / "x86_64-linux-gnu" for name in ("lib", "usr/lib")]
    loaders = list(root.glob("lib64/ld-linux-x86-64.so.2"))
    if not loaders:
        raise AconError("the image for the redis corpus has no loader", hint="apt-get update, then try again")
    argv: list[str | Path] = [loaders[0], "--library-path", ":".join(str(path) for path in libraries)]
    return [
        *argv,
        root / "usr/bin/redis-server",
        "--port",
        "0",
        "--unixsocket",
        place,
        "--save",
        "",
        "--appendonly",
        "no",
    ]


def _send(link: socket.socket, commands: bytes, count: int) -> None:
    """Send commands in pieces and wait for as many answers."""
    answers = 0
    view = memoryview(commands)
    link.settimeout(_START_S)
    while view:
        sent = link.send(view[: 1 << 16])
        view = view[sent:]
        link.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            answers += link.recv(1 << 20).count(b"\n")
        link.settimeout(_START_S)
    while answers < count:
        answers += link.recv(1 << 20).count(b"\n")


def _files(store: Cache) -> Iterator[bytes]:
    for name in _FILES_OF:
        package = apt.unpack(name, cache=store)
        libraries = [needed for needed in package.package.depends if _LIBRARIES_OF.fullmatch(needed)]
        for root in (package.root, *(apt.unpack(library, cache=store).root for library in libraries)):
            for path in sorted(root.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    yield from pages_of(path.read_bytes())


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0


def _until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_S
    while not done():
        if time.monotonic() > deadline:
            raise AconError(f"{what} does not get ready for its corpus within {_START_S:g} s")
        time.sleep(0.01)


_MAKERS: dict[str, Callable[[Cache], Iterator[bytes]]] = {
    "redis": _redis,
    "python": _python,
    "compiler": _compiler,
    "files": _files,
}


def copy(corpus: Path, folder: Path) -> Path:
    """A copy of a corpus in a folder, as NAME.pages. Errors: `NoSpace`."""
    with atomic_file(folder / f"{corpus.name}.pages") as temporary:
        shutil.copyfile(corpus, temporary)
    return folder / f"{corpus.name}.pages"


def forget(name: str, *, cache: Cache | None = None) -> None:
    """Take a corpus out of the cache, so that the next use makes it anew."""
    _check(name)
    store = cache or Cache()
    shutil.rmtree(store.root / "corpus" / key_of({"name": name, "version": _VERSION}), ignore_errors=True)


def _check(name: str) -> None:
    if name not in NAMES:
        raise InvalidInput("corpus", name, "is not known", hint=f"one of {', '.join(NAMES)}")
