"""How reading layers grows with the number of names, and how soon hostile layers meet a limit.

    python benchmarks/initrd_growth.py [--names 1000 10000 100000] [--only opaque whiteouts ... hostile]

Prints seconds of CPU and, behind the second and later counts, how many times as long that is as the count before (ten
times as many names: about 10 if it is linear). Each is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import tarfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext

from acon_nb.archive import cpio, layers, tar
from acon_nb.errors import AconError
from acon_nb.initrd import Content, FileTree, ImageLimits

Line = tuple[str, str]  # a name and "" for a file, "/" a folder, "->" or "=>" and a target
LIMITS = ImageLimits()


class Memory:
    """Bytes as the source of contents."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, count: int) -> bytes:
        """Read `count` bytes from `offset`."""
        return self.data[offset : offset + count]


def packed(lines: Iterator[Line]) -> Content:
    """A tar of these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, rest in lines:
            info = tarfile.TarInfo(name)
            if rest == "/":
                info.type = tarfile.DIRTYPE
            elif rest:
                info.type = tarfile.SYMTYPE if rest.startswith("->") else tarfile.LNKTYPE
                info.linkname = rest[2:]
            archive.addfile(info)
    return Content(size=out.tell(), source=Memory(out.getvalue()))


def lay(tree: FileTree, content: Content) -> None:
    """Lay a layer over a tree."""
    layers.add_layer(tree, tar.members(content, "x.tar", limits=LIMITS, warn=tree.drop), limits=LIMITS, whiteouts=True)


def many(count: int, rest: str = "", start: str = "d/f") -> Iterator[Line]:
    """Names that are numbered."""
    return ((f"{start}{number}", rest) for number in range(count))


def folders(count: int) -> Iterator[Line]:
    """Half as many folders, with a file in each."""
    return ((f"d/f{number // 2}" + "/x" * (number % 2), "/" if number % 2 == 0 else "") for number in range(count))


def chain(count: int, sign: str) -> Iterator[Line]:
    """Links to each other, the last one first."""
    yield from ((f"l{number}", f"{sign}l{number + 1}") for number in range(count))
    yield (f"l{count}", "")


def late(count: int) -> Iterator[Line]:
    """Names below links that are listed last."""
    yield from ((f"l{number % 100}/f{number}", "") for number in range(count))
    yield from ((f"l{number}", f"->d{number}") for number in range(100))


# What is below, what is laid over it
SHAPES: dict[str, tuple[Callable[[int], Iterator[Line]], Callable[[int], Iterator[Line]]]] = {
    "files": (lambda count: many(0), many),
    "opaque": (folders, lambda count: iter([("d/.wh..wh..opq", "")])),
    "whiteouts": (many, lambda count: many(count, start="d/.wh.f")),
    "whiteouts of folders": (folders, lambda count: many(count // 2, start="d/.wh.f")),
    "whiteouts of nothing": (lambda count: many(0), lambda count: many(count, start="no/such/.wh.f")),
    "a folder replaced by a file": (folders, lambda count: iter([("d", "")])),
    "below a link": (
        lambda count: many(0),
        lambda count: (line for part in ([("d", "->usr/d")], many(count)) for line in part),
    ),
    "links listed last": (lambda count: many(0), late),
    "hard links listed backwards": (lambda count: many(0), lambda count: chain(count, "=>")),
    "hard links to a layer below": (many, lambda count: ((f"h{number}", f"=>d/f{number}") for number in range(count))),
}


def layered(name: str, count: int) -> float:
    """The CPU time of laying one layer over another."""
    below, above = SHAPES[name]
    tree = FileTree()
    lay(tree, packed(below(count)))
    content = packed(above(count))
    started = time.process_time()
    lay(tree, content)
    return time.process_time() - started


def edited(name: str, count: int) -> float:
    """The CPU time of changing a tree of folders."""
    tree = FileTree()
    lay(tree, packed(folders(count)))
    tree.add_symlink("l", "d")
    started = time.process_time()
    if name == "edits":
        for number in range(count):
            tree.add_file(f"l/f{number // 2}/y{number}", b"")
    elif name == "remove":
        for number in range(count // 2):
            tree.remove(f"l/f{number}")
    elif name == "select":
        tree.only([f"l/f{number}" for number in range(count // 2)])
    else:
        cpio.write(tree, io.BytesIO())
    return time.process_time() - started


EDITS = ("edits", "remove", "select", "write")


def hostile() -> Iterator[tuple[str, Callable[[], Iterator[Line]]]]:
    """Layers that mean to take long or to fill the memory."""
    deep = "a/" * 2000
    yield "deep names", lambda: ((f"{number}/{deep}x", "") for number in range(20_000))
    yield "a chain of links", lambda: chain(1000, "->")
    yield (
        "links listed last, each behind another",
        lambda: (
            line
            for part in (
                [("l0/x", "")],
                ((f"l{number}", f"->l{number + 1}") for number in range(100_000)),
            )
            for line in part
        ),
    )
    yield (
        "names through 39 long links",
        lambda: (
            line
            for part in (
                ((f"l{number}", f"->{'./' * 2000}l{number + 1}") for number in range(39)),
                [("l39", "/")],
                ((f"l0/{number}", "") for number in range(100_000)),
            )
            for line in part
        ),
    )
    yield "whiteouts below a deep name", lambda: ((f"{deep}.wh.{number}", "") for number in range(50_000))


def measure(name: str, count: int, answer: Connection) -> None:
    """Measure in this process, and send what is to be printed."""
    if name not in dict(hostile()):
        answer.send(edited(name, count) if name in EDITS else layered(name, count))
        return
    content = packed(dict(hostile())[name]())
    tree = FileTree()
    started = time.process_time()
    try:
        lay(tree, content)
        end = f"{len(tree):,} names"
    except AconError as error:
        end = error.what if len(error.what) < 160 else f"{error.what[:60]}...{error.what[-80:]}"
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer.send(f"{seconds:.1f} s, peak {peak:,.0f} MiB: {end}")


def result(processes: SpawnContext, name: str, count: int) -> float | str:
    """Measure in a process of its own."""
    here, there = processes.Pipe()
    process = processes.Process(target=measure, args=(name, count, there))
    process.start()
    there.close()
    answer: float | str = here.recv()
    process.join()
    return answer


def main() -> None:
    names = [*SHAPES, *EDITS, "hostile"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    asked = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    for name in asked.only:
        if name == "hostile":
            for what, _ in hostile():
                print(f"hostile: {what}: {result(processes, what, 0)}", flush=True)
            continue
        texts, before = [], 0.0
        for count in asked.names:
            seconds = float(result(processes, name, count))
            texts.append(f"{count:,}: {seconds:.3f} s" + (f" ({seconds / before:.1f})" if before else ""))
            before = seconds
        print(f"{name}: {', '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
