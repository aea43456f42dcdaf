"""Archives and segments as other tools make them, byte by byte, for tests of how an initrd is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import lz4.block
import lz4.frame
import zstandard

from acon_nb.archive import cpio
from acon_nb.errors import AconError
from acon_nb.initrd import tree_of

INIT = b"#!/bin/sh\n"


def member(
    name: bytes,
    data: bytes = b"",
    mode: int = stat.S_IFREG | 0o755,
    *,
    inode: int = 1,
    links: int = 1,
    pad: int = 1,
    magic: bytes = b"070701",
    checksum: int = 0,
    owner: int = 0,
    mtime: int = 5,
    device: tuple[int, int] = (0, 0),
) -> bytes:
    numbers = (inode, mode, owner, owner, links, mtime, len(data), 0, 0, *device, len(name) + pad, checksum)
    head = magic + b"".join(b"%08X" % number for number in numbers) + name + bytes(pad)
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


TRAILER = member(b"TRAILER!!!", mode=0)


def archive(name: bytes = b"init", data: bytes = INIT) -> bytes:
    return member(name, data) + TRAILER


def legacy_lz4(data: bytes) -> bytes:
    block = lz4.block.compress(data, store_size=False)
    return struct.pack("<2I", 0x184C2102, len(block)) + block


def xz(data: bytes, **options: object) -> bytes:
    return lzma.compress(data, **{"check": lzma.CHECK_CRC32, **options})  # type: ignore[arg-type]


PACK = {
    "": bytes,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": xz,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": legacy_lz4,
}
NAMES = {"gz": "GZIP", "bz2": "BZIP2", "xz": "XZ", "lzma": "LZMA", "zst": "ZSTD", "lz4": "LZ4"}
OPTIONS = {suffix: (f"RD_{name}",) for suffix, name in NAMES.items()}


def aligned(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)


MODERN_LZ4 = lz4.frame.compress(archive())
SKIPPABLE = struct.pack("<2I", 0x184D2A50, 4) + b"abcd"
_WIDE = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=28)).compressobj()
WIDE = _WIDE.compress(archive()) + _WIDE.flush()
ODD = next(raw for raw in (PACK["gz"](archive(data=b"x" * size)) for size in range(99)) if len(raw) % 4)


def two_halves(pack: str) -> bytes:
    raw = member(b"init", INIT * 100) + TRAILER
    return PACK[pack](raw[:300]) + PACK[pack](raw[300:])


def bgzip() -> bytes:
    head = b"\x1f\x8b\x08\x04" + bytes(6) + struct.pack("<H", 6) + b"BC\2\0\0\0"
    return head + PACK["gz"](archive())[10:]


# What no kernel reads: the image, a part of our reason, a part of the kernel's
REFUSED = {
    "odc": (b"070707" + bytes(200), "odc", "incorrect cpio method used: use -H newc option"),
    "modern lz4": (MODERN_LZ4, "modern lz4 frame", "invalid magic at start of compressed archive"),
    "xz with CRC64": (xz(archive(), check=lzma.CHECK_CRC64), "CRC64", "not supported by this XZ decoder"),
    "xz with SHA-256": (xz(archive(), check=lzma.CHECK_SHA256), "SHA-256", "not supported by this XZ decoder"),
    "xz with delta": (
        xz(archive(), filters=[{"id": lzma.FILTER_DELTA}, {"id": lzma.FILTER_LZMA2}]),
        "delta",
        "not supported by this XZ decoder",
    ),
    "zstd --long=28": (WIDE, "256 MiB; kernels support 128 MiB", "probably corrupt"),
    "pzstd": (SKIPPABLE + PACK["zst"](archive()), "skippable", "invalid magic at start of compressed archive"),
    "an archive over two gzip members": (
        two_halves("gz"),
        "write several streams",
        "junk at the end of compressed archive",
    ),
    "an archive over two bzip2 streams": (two_halves("bz2"), "write several streams", "junk at the end of compressed"),
    "an archive over two zstd frames": (two_halves("zst"), "write several streams", "junk at the end of compressed"),
    "bgzip": (bgzip(), "flags 0x04", "uncompression error"),
    "a wrong sum": (member(b"init", INIT, magic=b"070702", checksum=1), "checksum of 'init'", "bad data checksum"),
    "a tar": (bytes([ord("x")]) * 257 + b"ustar" + bytes(250), "a tar", "invalid magic"),
    "lz4 and too few zeros": (
        legacy_lz4(archive()) + bytes(2) + PACK["zst"](archive(b"b")),
        "at least 4 zeros",
        "Decoding failed",
    ),
    "an archive at an odd place": (ODD + archive(b"b"), "does not start at a multiple of 4", "invalid magic at start"),
    "zeros at an odd place": (archive() + bytes(2) + PACK["gz"](archive(b"b")), "multiple of 4", "broken padding"),
    "junk behind": (archive() + b"junk", "neither an archive", "invalid magic at start of compressed archive"),
    "junk within": (PACK["gz"](archive() + b"junk"), "followed by something else", "junk within compressed archive"),
    "no NUL": (member(b"init", INIT, pad=0), "not terminated", "malformed archive"),
}


# What one archive may do to names that it, or an earlier member, already has
_NAMES = (b"a", b"b", b"a/x", b"a/y", b"b/x", b"l", b"l/x", b"m", b"a/x/z", b"\xff\n", b"a/" + b"n" * 255, b"n" * 256)
_TARGETS = (b"a", b"b", b"../%s/b", b"/%s/a", b"missing", b"l", b"m", b"", b"x" * 300)
_KINDS = (
    *[stat.S_IFREG] * 5,
    *[stat.S_IFDIR] * 3,
    *[stat.S_IFLNK] * 2,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
    0,
)


def random_archive(dice: random.Random, folder: bytes, inode: int) -> bytes:
    """Write an archive below a folder: names again and again, of other kinds, below links and missing folders.

    Its hard links are those of the inodes `inode` to `inode + 2`.
    """
    raw = member(folder, mode=stat.S_IFDIR | 0o755)
    for _ in range(dice.randint(1, 12)):
        kind = dice.choice(_KINDS)
        data, device = b"", (0, 0)
        links = 1 if kind in (stat.S_IFLNK, stat.S_IFDIR) else dice.choice((1, 1, 2))
        if kind == stat.S_IFREG:
            data = bytes(dice.randrange(256) for _ in range(dice.choice((0, 0, 1, 5, 70))))
        elif kind == stat.S_IFLNK:
            data = dice.choice(_TARGETS).replace(b"%s", folder)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            device = (dice.randrange(1 << 12), dice.randrange(1 << 20))
        raw += member(
            folder + b"/" + dice.choice(_NAMES),
            data,
            kind | dice.randrange(0o10000),
            inode=inode + dice.randrange(3),
            links=links,
            pad=dice.choice((1, 1, 1, 2, 9)),
            owner=dice.choice((0, 33, 65534, 0xFFFFFFFE, 0xFFFFFFFF)),
            mtime=dice.randrange(1 << 32),
            device=device,
        )
        if not dice.randrange(12):
            raw += TRAILER
    return raw + (TRAILER if dice.randrange(4) else b"") + bytes(4 * dice.randrange(3))


def mutated(archive: bytes, changes: Iterable[tuple[int, int]]) -> bytes:
    """A tar with bytes changed; the sums of the blocks are made right, since such headers reach further."""
    raw = bytearray(archive)
    for place, value in changes:
        raw[place % len(raw)] = value
        block = place % len(raw) // 512 * 512
        head = raw[block : block + 512]
        head[148:156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:]) + 8 * 32)
        raw[block : block + 512] = head
    return bytes(raw)


def assert_read_or_refused(path: Path) -> None:
    """A tar gives names that stay in the tree, and can be written, or an error of the package."""
    try:
        tree = tree_of(f"tar:{path}", devices=True)
        cpio.write(tree, io.BytesIO())
    except AconError:
        return
    assert all(not set(name.split(b"/")) & {b"", b".", b".."} for name, _ in tree.items())


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar of regular files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()
