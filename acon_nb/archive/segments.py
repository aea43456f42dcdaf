"""Reads an initrd file segment by segment, as the kernel does (init/initramfs.c, `unpack_to_rootfs`).

A segment is an uncompressed archive, which starts at a multiple of 4, or a compressed stream of archives. Zeros may be
in between. All are unpacked into one root, in order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.archive import cpio, spool, streams
from acon_nb.archive.cpio import Stopped, Truncated
from acon_nb.archive.decompress import is_skippable
from acon_nb.archive.formats import HEAD_BYTES, recognise
from acon_nb.archive.rootfs import Rootfs
from acon_nb.archive.tree import Content, FileTree, ImageLimits, Source, clean_name
from acon_nb.errors import TreeError

BOOTCONFIG = "bootconfig"
_BOOTCONFIG_MAGIC = b"#BOOTCONFIG\n"
_NO_MAGIC = "invalid magic at start of compressed archive"
_STREAMS = "kernels unpack stream by stream; pbzip2, pzstd and bgzip write several streams: recompress it as one"
EARLY = (b"kernel/x86/microcode/", b"kernel/firmware/acpi/")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of an initrd file that the kernel unpacks in one go.

    `offset` and `bytes` locate it in the file (with zeros behind an uncompressed archive); `compression` is "" (such an
    archive), gz, bz2, lzma, xz, lzo, lz4, zst, or bootconfig (appended parameters, which the kernel cuts off);
    `unpacked_bytes` is the size of its archives, `file_bytes` that of the files in them, `names` their number;
    `options` are what the kernel's configuration must set to read it; `window_bytes` is the memory for the dictionary
    of its decompressor; `early` marks an uncompressed archive at the start with microcode or ACPI tables.
    """

    offset: int
    bytes: int
    compression: str = ""
    unpacked_bytes: int = 0
    file_bytes: int = 0
    names: int = 0
    options: tuple[str, ...] = ()
    window_bytes: int = 0
    early: bool = False


@dataclass(frozen=True, kw_only=True)
class UnpackingProblem:
    """Where and why unpacking stops. All before it is unpacked, and a part of a file that is truncated there.

    `offset` is the start of the segment in the file, `compression` as in `Segment`; `kernel` is the reason that
    the kernel prints ("Initramfs unpacking failed: ...", or with CONFIG_BLK_DEV_RAM "rootfs image is not initramfs
    (...)"), "" if it unpacks a damaged image without a word, and None if kernels can read it but acon_nb cannot;
    `options` are those that they need for it.
    """

    offset: int
    compression: str
    what: str
    hint: str
    kernel: str | None
    options: tuple[str, ...] = ()

    def error(self, what: str) -> TreeError:
        """Return the error that refuses the image."""
        details = []
        if self.kernel:
            details.append(f"the kernel's reason: {self.kernel}")
        return TreeError(f"{what}, at offset {self.offset}: {self.what}", hint=self.hint, details=details)


@dataclass(frozen=True, kw_only=True)
class UnpackedInitrd:
    """What the kernel makes of an initrd file: its segments, the tree in the guest's root, and the problem, if any.

    `members` are the names of the archives' members in their order; `early` are the bytes of the early archives, if
    they were to be kept apart.
    """

    segments: tuple[Segment, ...]
    tree: FileTree
    early: Content | None = None
    problem: UnpackingProblem | None
    members: tuple[bytes, ...] = ()


def read(content: Content, what: str, limits: ImageLimits | None = None, *, apart: bool = False) -> UnpackedInitrd:
    """Unpack an initrd file as the kernel does, up to its end or the first problem.

    Contents of the tree are read when needed. With `apart`, early archives at the start that hold nothing but
    microcode and ACPI tables are not in the tree.
    Errors: `TreeError` for more bytes or names than the limits allow, and for names that lead out of the tree.
    """
    opened = spool.opened(content, what)
    assert opened.source is not None
    reader = _Reader(opened.source, opened.offset, opened.offset + opened.size, what, limits or ImageLimits())
    reader.apart = apart
    problem = reader.run()
    return UnpackedInitrd(
        segments=tuple(reader.segments),
        tree=reader.root.tree(),
        early=replace(opened, size=reader.early_bytes) if reader.early_bytes else None,
        problem=problem,
        members=tuple(map(clean_name, reader.root.members)),
    )


def read_whole(path: Path, limits: ImageLimits | None = None, *, apart: bool = False) -> UnpackedInitrd:
    """Unpack the file of an initrd (see `read`). Errors: `InvalidInput` (not a file), `TreeError` (also a problem)."""
    unpacked = read(spool.open_file(path), path.name, limits, apart=apart)
    if unpacked.problem is not None:
        raise unpacked.problem.error(path.name)
    return unpacked


class _Reader:
    def __init__(self, source: Source, start: int, end: int, what: str, limits: ImageLimits) -> None:
        self._source, self._start, self._end, self._what = source, start, end, what
        self._left_bytes = spool.stream_limit(limits)
        self.root = Rootfs(limits)
        self.segments: list[Segment] = []
        self.apart = False
        self.early_bytes = 0

    def run(self) -> UnpackingProblem | None:
        position = self._start
        self._end, appended = self._without_bootconfig()
        while position < self._end:
            position = cpio.skip_zeros(self._source, position, self._end)
            if position == self._end:
                break
            head = self._source.read_at(position, min(512, self._end - position))
            form = streams.format_of(head)
            try:
                if head[:1] == b"0" and (position - self._start) % 4 == 0:
                    position = self._plain(position)
                elif form is not None:
                    position = self._compressed(position, form)
                else:
                    raise _unknown(self._source.read_at(position, min(HEAD_BYTES, self._end - position)))
            except Stopped as stop:
                name = form.name if form else ""
                offset = position - self._start
                return UnpackingProblem(
                    offset=offset,
                    compression=name,
                    what=stop.what,
                    hint=stop.hint,
                    kernel=stop.kernel,
                    options=(form.option,) if form else (),
                )
        self.segments += appended
        if not self.root.members:
            return UnpackingProblem(
                offset=0, compression="", what="it contains no archive", hint="give an initrd", kernel=""
            )
        return None

    def _plain(self, position: int) -> int:
        before = self.root.file_bytes, len(self.root.members)
        rest = Content(size=self._end - position, source=self._source, offset=position)
        used = cpio.unpack(rest, self.root)
        members = self.root.members[before[1] :]
        early = all(segment.early for segment in self.segments) and any(name.startswith(EARLY) for name in members)
        self._append(position, used, before, unpacked_bytes=used, early=early)
        if self.apart and early and self.early_bytes == position - self._start and all(map(_is_early, members)):
            self.early_bytes += used
            self.root = self.root.emptied()
        return position + used

    def _compressed(self, position: int, form: streams.Format) -> int:
        stream = streams.Stream(self._source, position, self._end)
        before = self.root.file_bytes, len(self.root.members)
        stops: list[Stopped] = []
        unpacked = spool.keep(_until_stopped(form.chunks(stream, self._what), stops), self._left_bytes, self._what)
        self._left_bytes -= unpacked.size
        try:
            if not before[1] and not unpacked.size:
                raise Stopped("the first segment is empty", kernel=cpio.JUNK_AT_END)
            if not before[1] and unpacked.source is not None and unpacked.source.read_at(0, 1) == b"\0":
                raise Stopped("the first segment does not start with an archive", kernel=cpio.NO_MAGIC)
            cpio.unpack(unpacked, self.root, whole=True)
        except Truncated as stop:
            stops.append(Stopped(f"{stop.what}, within its compressed stream", kernel=cpio.JUNK_AT_END, hint=_STREAMS))
        except Stopped as stop:
            stops.append(stop)
        if stops:
            raise stops[0]
        self._append(
            position,
            stream.position - position,
            before,
            compression=form.name,
            unpacked_bytes=unpacked.size,
            options=(form.option, *stream.options),
            window_bytes=stream.window_bytes,
        )
        return stream.position

    def _append(self, position: int, count: int, before: tuple[int, int], **fields: Any) -> None:
        file_bytes, names = self.root.file_bytes - before[0], len(self.root.members) - before[1]
        offset = position - self._start
        self.segments.append(Segment(offset=offset, bytes=count, file_bytes=file_bytes, names=names, **fields))

    def _without_bootconfig(self) -> tuple[int, list[Segment]]:
        """Return the end of the archives, before parameters that are appended (init/main.c, bootconfig)."""
        tail = self._source.read_at(max(self._start, self._end - _BOOTCONFIG_BYTES), _BOOTCONFIG_BYTES)
        place = tail.rfind(_BOOTCONFIG_MAGIC)
        if place < 8 or len(tail) - place - len(_BOOTCONFIG_MAGIC) > 3:
            return self._end, []
        size, checksum = struct.unpack_from("<2I", tail, place - 8)
        start = self._end - len(tail) + place - 8 - size
        data = self._source.read_at(start, size) if self._start <= start and size <= _BOOTCONFIG_LIMIT else b""
        if len(data) != size or sum(data) & 0xFFFFFFFF != checksum:
            return self._end, []
        options = ("BOOT_CONFIG",)
        segment = Segment(offset=start - self._start, bytes=self._end - start, compression=BOOTCONFIG, options=options)
        return start, [segment]


def _is_early(name: bytes) -> bool:
    """Whether it is one of the names that tools put into an early archive: kernel/..., and a mark of dracut."""
    return name in (b".", b"kernel", b"early_cpio") or name.startswith(b"kernel/")


def _until_stopped(chunks: Iterator[bytes], stops: list[Stopped]) -> Iterator[bytes]:
    """Yield chunks until the decompressor stops; the kernel unpacks what came before, too."""
    try:
        yield from chunks
    except Stopped as stop:
        stops.append(stop)


def _unknown(head: bytes) -> Stopped:
    """Describe what is neither an archive nor a compression that kernels know."""
    for magic, what, hint in _NOT_FOR_KERNELS:
        if head.startswith(magic):
            return Stopped(f"{what}, which kernels do not read as an initrd", kernel=_NO_MAGIC, hint=hint)
    if is_skippable(head):
        what = "a skippable zstd frame, as pzstd writes it"
        return Stopped(f"{what}, which kernels do not read as an initrd", kernel=_NO_MAGIC, hint="use zstd")
    form = recognise(head)
    if form is not None:
        return Stopped(f"{form.what}, which kernels do not read as an initrd", kernel=_NO_MAGIC, hint=form.hint)
    reason = f"neither an archive nor a compression that kernels know: it starts with {head[:6].hex(' ')}"
    return Stopped(reason, kernel=_NO_MAGIC, hint="check that the file is a whole initrd")


_BOOTCONFIG_BYTES = len(_BOOTCONFIG_MAGIC) + 8 + 3
_BOOTCONFIG_LIMIT = (32 << 10) - 1  # XBC_DATA_MAX
_NOT_FOR_KERNELS = (
    (b"0", "an uncompressed archive that does not start at a multiple of 4", "pad what is before it with zeros"),
    (b"\x04\x22\x4d\x18", "the modern lz4 frame", "recompress it: lz4 -dc FILE | lz4 -l"),
    (b"\x1f\x9d", "the format of compress(1)", "recompress it: zcat FILE | gzip -n"),
)
