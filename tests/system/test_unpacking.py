"""The kernel is the judge: what `segments.read` says of an initrd is what a guest finds in its root."""

from __future__ import annotations

import contextlib
import random
import stat
import struct
import subprocess
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from acon_nb import initrd, kernel, vm
from acon_nb.archive import cpio, segments
from acon_nb.bootcheck import initrd as bootcheck
from acon_nb.cache import Cache
from acon_nb.errors import TreeError
from acon_nb.initrd import Content, Entry, FileTree, ImageLimits
from tests.unit.archives import OPTIONS, PACK, REFUSED, TRAILER, aligned, archive, member, random_archive

pytestmark = pytest.mark.system

LETTERS = bytes({*range(1, 256)} - {ord("/")})
KINDS = (stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO)
BUILT_IN = {b"dev", b"dev/console", b"root"}  # of every kernel: usr/default_cpio_list


class Row(NamedTuple):
    mode: int
    uid: int
    gid: int
    mtime: int
    device: tuple[int, int]
    size: int
    crc: int
    target: bytes


@dataclass(frozen=True)
class Listing:
    """What the guest has in its root, and which names share an inode."""

    rows: dict[bytes, Row]
    links: set[frozenset[bytes]]
    booted: range = range(0)  # the seconds in which the guest ran


Lister = Callable[..., tuple[Listing, list[str]]]


@pytest.fixture(scope="module")
def lister(guide_kernel: kernel.KernelImage, tmp_path_factory: pytest.TempPathFactory) -> Lister:
    """A function that boots archives with lister.c as init in front of them: its listing, and the console's lines."""
    folder = tmp_path_factory.mktemp("lister")
    source = Path(__file__).with_name("lister.c")
    subprocess.run(["gcc", "-O2", "-static", "-Wall", "-Werror", "-s", "-o", folder / "lister", source], check=True)
    program = archive(b"lister", (folder / "lister").read_bytes())

    def boot(parts: Iterable[bytes], *, memory_mib: int = 512) -> tuple[Listing, list[str]]:
        path = folder / "initrd"
        with path.open("wb") as file:
            file.writelines([program, *parts])
        disk = folder / "listing.raw"
        disk.write_bytes(b"")
        with disk.open("r+b") as file:
            file.truncate(256 << 20)
        spec = vm.VmSpec(
            kernel=guide_kernel.image,
            initrd=path,
            append="console=ttyS0 panic=-1 rdinit=/lister",
            memory_bytes=memory_mib << 20,
            disks=(vm.DiskSpec(path=disk),),
            timeout_s=3600,
        )
        started = int(time.time())
        outcome = vm.boot(spec, folder=folder / "run")
        assert outcome.end == vm.End.POWERED_OFF, outcome.tail
        listing = replace(parsed(disk), booted=range(started, int(time.time()) + 1))
        return listing, outcome.console.read_text(errors="replace").splitlines()

    return boot


def parsed(disk: Path) -> Listing:
    rows, inodes = {}, defaultdict(set)
    with disk.open("rb") as file:
        for line in file:
            fields = line.split(b" ")
            if fields[0] == b"end":
                assert int(fields[1]) == len(rows)
                break
            name, target = bytes.fromhex(fields[9].decode()), bytes.fromhex(fields[10].decode())
            mode, (uid, gid, mtime, major, minor, inode, size, crc) = int(fields[0], 8), map(int, fields[1:9])
            size = 0 if stat.S_ISDIR(mode) else size
            rows[name] = Row(mode, uid, gid, mtime, (major, minor), size, crc, target)
            inodes[inode].add(name)
        else:
            pytest.fail("the listing is incomplete")
    return Listing(rows, {frozenset(names) for names in inodes.values() if len(names) > 1})


def expected(tree: FileTree) -> Listing:
    rows, inodes = {}, defaultdict(set)
    for name, entry in tree.items():
        crc = 0
        for chunk in entry.content.chunks() if entry.is_file else ():
            crc = zlib.crc32(chunk, crc)
        target = entry.content.read() if entry.is_link else b""
        size = entry.content.size if entry.is_file or entry.is_link else 0
        device = entry.device if entry.is_device else (0, 0)
        rows[name] = Row(entry.mode, entry.uid, entry.gid, entry.mtime, device, size, crc, target)
        if entry.inode is not None:
            inodes[entry.inode].add(name)
    return Listing(rows, {frozenset(names) for names in inodes.values() if len(names) > 1})


def differences(tree: FileTree, guest: Listing) -> list[tuple[bytes, Row | None, Row | None]]:
    """The names that differ, with what was expected and what the guest has.

    A folder has the guest's time if its name leads nowhere after the last member, when the kernel sets times.
    """
    own = expected(tree)
    names = sorted((own.rows.keys() | guest.rows.keys()) - (BUILT_IN - own.rows.keys()))
    pairs = [(name, own.rows.get(name), guest.rows.get(name)) for name in names]
    groups = {group for group in own.links ^ guest.links if group & {*names}}
    pairs += [(name, None, None) for group in groups for name in group]
    return [
        pair for pair in pairs if pair[1] is None or (pair[1] != pair[2] and not only_booted(pair[1], pair[2], guest))
    ]


def only_booted(own: Row, other: Row | None, guest: Listing) -> bool:
    return (
        other is not None
        and stat.S_ISDIR(other.mode)
        and other.mtime in guest.booted
        and own._replace(mtime=other.mtime) == other
    )


def read(parts: Iterable[bytes]) -> segments.UnpackedInitrd:
    return segments.read(Content.of(b"".join(parts)), "image", ImageLimits(total_bytes=1 << 30))


def segment(number: int, name: str, order: str) -> bytes:
    """A segment whose files are in a folder of their own."""
    folder = b"s%d%s" % (number, order.encode())
    raw = PACK[name](member(folder, mode=stat.S_IFDIR | 0o750) + archive(folder + b"/file", b"%d" % number * 900))
    return raw + (bytes(4) if name == "lz4" else b"")


def accepted() -> list[bytes]:
    """Segments of each compression before each other, with and without padding; the kernel reads them in one boot."""
    names = [name for name in PACK if name != "lzma"]  # the guide's kernel lacks RD_LZMA
    parts = []
    for first in names:
        for second in names:
            number = len(parts)
            parts += [
                aligned(segment(number, first, "a")),
                aligned(segment(number, second, "b")) + bytes(4 * (number % 3)),
            ]
    for zeros in range(1, 6):  # no alignment between compressed segments
        parts.append(segment(1000 + zeros, "zst", "z") + bytes(zeros) + segment(1000 + zeros, "gz", "g") + bytes(zeros))
    parts += [bytes(-sum(map(len, parts)) % 4), member(b"padded", b"x" * 5000, pad=3850)]
    parts += [member(b"pair1", inode=7, links=2), member(b"pair2", b"1", inode=7, links=2), TRAILER]
    parts += [member(b"pair3", inode=7, links=2), member(b"pair4", b"2", inode=7, links=2)]  # no end mark
    checked = member(b"checked", b"sum", magic=b"070702", checksum=sum(b"sum"))
    return [*parts, PACK["xz"](checked)]


def random_tree(seed: int, count: int) -> FileTree:
    """Trees in folders t00000, t00001, ...: names of any bytes, each kind of file, hard links, files of up to 3 MB."""
    dice = random.Random(seed)
    tree = FileTree()
    for number in range(count):
        folders = [b"t%05d" % number]
        linked: dict[int, bytes] = {}
        for _ in range(dice.randint(0, 9)):
            part = bytes(dice.choice(LETTERS) for _ in range(dice.choice((1, 2, 3, 8, 30, 255))))
            name = dice.choice(folders) + b"/" + part
            if part in (b".", b"..") or name in tree:
                continue
            kind = dice.choice(KINDS)
            entry = Entry(
                mode=kind | dice.randrange(0o10000),
                uid=dice.randrange(0xFFFFFFFF),
                gid=dice.randrange(0xFFFFFFFF),
                mtime=dice.randrange(1 << 32),
                device=(dice.randrange(1 << 12), dice.randrange(1 << 20)),
            )
            if kind == stat.S_IFDIR:
                folders.append(name)
            elif kind == stat.S_IFLNK:
                target = bytes(dice.choice(LETTERS) for _ in range(dice.choice((1, 5, 60, 4095))))
                entry = replace(entry, mode=kind | 0o777, content=Content.of(target))
            elif kind == stat.S_IFREG:
                size = dice.choice((0, 1, 3, 4, 100, 4095, 4096, 5000)) if dice.randrange(200) else 3_000_001
                entry = replace(entry, content=Content.of(dice.randbytes(size)))
            if kind not in (stat.S_IFDIR, stat.S_IFLNK) and dice.randrange(3) == 0:
                entry = replace(entry, inode=name)
                linked[kind] = name
            elif kind in linked and dice.randrange(2):
                entry = tree[linked[kind]]
            tree.add(name, entry)
        tree.add(folders[0], Entry(mode=stat.S_IFDIR | dice.randrange(0o10000), mtime=number))
    return tree


def random_parts(seed: int, count: int) -> list[bytes]:
    dice = random.Random(seed)
    parts = []
    while len(parts) < count:
        raw = random_archive(dice, b"r%05d" % len(parts), 3 * len(parts))
        with contextlib.suppress(TreeError):  # a hard link into something else: refused
            read([raw])
            parts.append(aligned(raw if len(parts) % 10 else PACK[dice.choice(["gz", "zst", "xz"])](raw)))
    return parts


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.weekly)])
def test_the_guest_has_what_was_written_and_what_is_read(lister: Lister, tmp_path: Path, count: int) -> None:
    """One boot of three: segments of each compression, odd archives by the hundred, and trees of our own writer."""
    tree = random_tree(count, count)
    image = tmp_path / "trees.cpio"
    with image.open("wb") as file:
        cpio.write(tree, file)
    parts = [aligned(b"".join(accepted())), *random_parts(count, count), image.read_bytes()]
    done = read(parts)
    assert done.problem is None
    assert {option for part in done.segments for option in part.options} == {
        option for name, options in OPTIONS.items() if name != "lzma" for option in options
    }
    guest, log = lister(parts, memory_mib=2048)
    assert [line for line in log if "initramfs" in line.lower() and "(" in line] == []
    guest.rows.pop(b"lister")
    assert not (rows := differences(done.tree, guest)), rows[:5]
    assert {what.partition(":")[0] for what, _ in done.tree.dropped} >= {"lost"}

    written = Listing({name: row for name, row in guest.rows.items() if name.startswith(b"t")}, guest.links)
    assert {stat.S_IFMT(row.mode) for row in written.rows.values()} == {*KINDS}
    assert not (rows := differences(tree, written)), rows[:5]


OFTEN = ("odc", "xz with CRC64", "an archive over two zstd frames")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.weekly) for name in REFUSED]
)
def test_the_kernel_stops_where_the_reader_does_and_says_why(lister: Lister, name: str) -> None:
    parts = [member(b"before", b"it"), TRAILER, REFUSED[name][0]]
    done = read(parts)
    assert done.problem is not None
    guest, log = lister(parts)
    assert [line for line in log if done.problem.kernel and done.problem.kernel in line], log
    guest.rows.pop(b"lister")
    guest.rows.pop(b"initrd.image")  # CONFIG_BLK_DEV_RAM: the kernel tries it as a disk
    if "several streams" in done.problem.hint:
        assert guest.rows.pop(b"init").size == 1000  # the file that is truncated, padded with zeros
    assert not (rows := differences(done.tree, guest)), rows[:5]


def lzop(data: bytes) -> bytes:
    """What lzop writes of data that do not compress: its header, and blocks of 256 KiB as they are."""
    header = struct.pack(">3H2B4IB", 0x1030, 0x20A0, 0x0940, 1, 5, 1, 0o100644, 0, 0, 0)
    parts = [b"\x89LZO\0\r\n\x1a\n", header, struct.pack(">I", zlib.adler32(header))]
    for start in range(0, len(data), 256 << 10):
        block = data[start : start + (256 << 10)]
        parts += [struct.pack(">3I", len(block), len(block), zlib.adler32(block)), block]
    return b"".join([*parts, bytes(4)])


@pytest.mark.weekly
@pytest.mark.parametrize("name", ["lzma", "lzo"])
def test_debians_kernel_boots_lzma_and_lzo_which_the_guides_lacks(
    store: Cache, guide_kernel: kernel.KernelImage, tmp_path: Path, name: str
) -> None:
    """lzma is read and judged; lzo boots, too, and we say that we cannot look into it."""
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    tree.add_file("test/run", b"#!/bin/sh\necho it is unpacked\npoweroff -f\n", mode=0o755)
    raw = initrd.create(tree, tmp_path / "raw.cpio").path.read_bytes()
    path = tmp_path / f"initrd.{name}"
    path.write_bytes(lzop(raw) if name == "lzo" else PACK["lzma"](raw))
    distro = kernel.debian_kernel(cache=store)
    append = "console=ttyS0 panic=-1 no_timer_check INIT=/test/run"  # no panic on a host that is busy
    memory = {"append": append, "memory_bytes": 512 << 20}
    outcome = vm.boot(vm.VmSpec(kernel=distro.image, initrd=path, results_port=False, timeout_s=600, **memory))
    assert outcome.end is vm.End.POWERED_OFF, outcome.tail
    assert "it is unpacked" in outcome.console.read_text(errors="replace")
    verdicts = [
        bootcheck.check(bootcheck.CheckSpec(image=str(path), kernel=image, firmware=False, **memory))
        for image in (distro.image, guide_kernel.image)
    ]
    assert [verdict.boots for verdict in verdicts] == [True if name == "lzma" else None, False]
    assert any(f"CONFIG_RD_{name.upper()}" in str(finding) for finding in verdicts[1].findings)
