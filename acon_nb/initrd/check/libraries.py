"""The libraries that a dynamic program needs, found as its loader would find them, and what is missing.

Sources: ld.so(8) and elf/dl-load.c of glibc 2.36; ldso/dynlink.c of musl 1.2. Nothing of LD_LIBRARY_PATH: the kernel
starts init without it.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from acon_nb.archive.tree import Entry
from acon_nb.initrd.check import elf
from acon_nb.initrd.check.elf import Damaged, Elf
from acon_nb.initrd.check.files import Files, Found, head, plain

# Folders below each folder of libraries that are searched first, and that a guest's processor model can use
_CAPABILITIES = (b"glibc-hwcaps/x86-64-v3", b"glibc-hwcaps/x86-64-v2", b"tls/x86_64", b"tls", b"x86_64", b"")
_GLIBC_FOLDERS = re.compile(rb"(?:/[!-~]*lib[!-~]*/\0){1,8}")
_GLIBC_DEFAULTS = (
    b"/lib/x86_64-linux-gnu",
    b"/usr/lib/x86_64-linux-gnu",
    b"/lib64",
    b"/usr/lib64",
    b"/lib",
    b"/usr/lib",
)
_CACHE_PATH = re.compile(rb"/[!-~]*/ld\.so\.cache")
_MUSL_PATH = b"/lib:/usr/local/lib:/usr/lib"
_MUSL_OWN = ("c", "pthread", "rt", "m", "dl", "util", "xnet")  # libraries that are musl's loader itself
_CACHE_BITS = {0x0300: 64, 0: 32}  # FLAG_X8664_LIB64; i386 has no flag of its own
_LOADER_BYTES = 4 << 20
_CACHE_BYTES = 16 << 20
_MOST_LIBRARIES = 4096
_TOKEN = re.compile(rb"\$(?:\{(\w+)\}|(\w+))")

Reader = Callable[[Entry], Elf | Damaged]


@dataclass(frozen=True)
class Fault:
    """Why a program does not start: `what` is missing or wrong, `why` in a clause, `fix`."""

    what: str
    why: str
    fix: str = ""
    sure: bool = True


@dataclass(frozen=True)
class _Loaded:
    """A program or library of a process: the path by which it was opened, and what needs it."""

    path: bytes
    elf: Elf
    loader: _Loaded | None = None

    def chain(self) -> Iterator[_Loaded]:
        one: _Loaded | None = self
        while one is not None:
            yield one
            one = one.loader


class Loader:
    """The dynamic loader at a path of the guest: how it finds libraries."""

    def __init__(self, files: Files, read: Reader, path: bytes, entry: Entry) -> None:
        self._files, self._read, self.path = files, read, path
        body = head(entry, _LOADER_BYTES)
        self.is_musl = b"ld-musl-" in path or b"/etc/ld-musl-" in body
        match = _CACHE_PATH.search(body)
        self.known = self.is_musl or match is not None
        if self.is_musl:
            self._folders = self._musl_folders()
        else:
            folders = _GLIBC_FOLDERS.search(body)
            self._folders = (
                tuple(name.rstrip(b"/") for name in folders[0].split(b"\0") if name) if folders else _GLIBC_DEFAULTS
            )
            self._cache = _read_cache(files, match[0]) if match else {}

    def load(self, path: bytes, program: Elf, *, proc: bool) -> tuple[list[bytes], list[Fault]]:
        """Return the libraries that this loader loads for a program, by path, and why it would not start it.

        `proc` is whether /proc is mounted by then.
        """
        main = _Loaded(path, program)
        loaded = {self.path.rpartition(b"/")[2]: main}
        objects = [main]
        todo = deque([main])
        faults: dict[bytes, Fault] = {}
        while todo and len(objects) < _MOST_LIBRARIES:
            user = todo.popleft()
            for name in user.elf.needed:
                if name in loaded or name in faults or self._is_own(name):
                    continue
                library = self._find(name, user, proc=proc)
                if isinstance(library, Fault):
                    faults[name] = library
                    continue
                loaded[name] = library
                if library.elf.soname:
                    loaded.setdefault(library.elf.soname, library)
                objects.append(library)
                todo.append(library)
        wrong = [] if self.is_musl else list(_version_faults(objects, loaded))
        return [one.path for one in objects[1:]], [*faults.values(), *wrong]

    def _is_own(self, name: bytes) -> bool:
        """Whether musl takes itself for a library (`load_library`)."""
        if not self.is_musl or not name.startswith(b"lib"):
            return False
        stem = name[3:].partition(b".")[0].decode(errors="replace")
        return stem in _MUSL_OWN and b"." in name[3:]

    def _find(self, name: bytes, user: _Loaded, *, proc: bool) -> _Loaded | Fault:
        skipped = ""
        for path in self._candidates(name, user, proc=proc):
            entry = self._files.file(path)
            if entry is None:
                continue
            library = self._read(entry) if head(entry, 4) == elf.MAGIC else Damaged("it is not an ELF file")
            if isinstance(library, Damaged):
                what = f"{plain(path)}, a library of {plain(user.path)}, is damaged"
                return Fault(what, library.why, "copy the file again")
            same = (library.bits, library.machine) == (user.elf.bits, user.elf.machine)
            if same:
                return _Loaded(path, library, user)
            skipped = f"; {plain(path)} is for another machine"
        return self._not_found(name, user, skipped, proc=proc)

    def _not_found(self, name: bytes, user: _Loaded, skipped: str, *, proc: bool) -> Fault:
        what = f"{plain(name)}, a library of {plain(user.path)}, is missing"
        why = f"the loader {plain(self.path)} ends the program{skipped}"
        if not proc and any(b"ORIGIN" in folder for one in user.chain() for folder in self._run_paths(one, raw=True)):
            why += "; $ORIGIN is known only once /proc is mounted, which it is not when the kernel starts init"
        elsewhere = next((path for path in _usual_places(name) if self._files.file(path) is not None), None)
        fix = "add it to the image"
        if elsewhere is not None and not skipped:
            why += f"; {plain(elsewhere)} is not where it looks"
            fix = "run ldconfig in the image, or move it to /usr/lib" if not self.is_musl else "move it to /usr/lib"
        return Fault(what, why, fix, sure=self.known)

    def _candidates(self, name: bytes, user: _Loaded, *, proc: bool) -> Iterator[bytes]:
        """The paths at which a library is looked for, in order."""
        if b"/" in name:
            expanded = self._expanded(name, user, proc=proc)
            if expanded is not None:
                yield expanded if expanded.startswith(b"/") else b"/" + expanded
            return
        if self.is_musl:
            for one in user.chain():
                for folder in self._run_paths(one, proc=proc):
                    yield folder + b"/" + name
            for folder in self._folders:
                yield folder + b"/" + name
            return
        folders: list[bytes] = []
        if user.elf.runpath is None:
            for one in user.chain():
                if one.elf.runpath is None:
                    folders += self._run_paths(one, proc=proc)
        else:
            folders += self._run_paths(user, proc=proc)
        for folder in folders:
            yield from _with_capabilities(folder, name)
        cached = self._cache.get((name, user.elf.bits))
        if cached is not None:
            yield cached
        if user.elf.default_folders:
            for folder in self._folders:
                yield from _with_capabilities(folder, name)

    def _run_paths(self, one: _Loaded, *, proc: bool = True, raw: bool = False) -> list[bytes]:
        """The folders of an object's RUNPATH, or else its RPATH."""
        text = one.elf.rpath if one.elf.runpath is None else one.elf.runpath
        parts = [] if text is None else text.split(b":")
        if raw:
            return parts
        expanded = (self._expanded(part, one, proc=proc) for part in parts)
        return [folder.rstrip(b"/") if folder else b"" for folder in expanded if folder is not None]

    def _expanded(self, text: bytes, one: _Loaded, *, proc: bool) -> bytes | None:
        """Replace $ORIGIN, $LIB and $PLATFORM; None if the loader cannot."""
        unknown = False

        def value(match: re.Match[bytes]) -> bytes:
            nonlocal unknown
            token = match[1] or match[2]
            if token == b"ORIGIN" and (one.loader is not None or proc):
                path = one.path
                if one.loader is None and isinstance(real := self._files.lookup(path), Found):
                    path = real.path  # the program's own is that of /proc/self/exe
                return path.rpartition(b"/")[0]
            if token == b"LIB" and not self.is_musl:
                return self._folders[0].removeprefix(b"/usr").lstrip(b"/")
            if token == b"PLATFORM" and not self.is_musl:
                return b"x86_64"
            unknown = True
            return b""

        expanded = _TOKEN.sub(value, text)
        return None if unknown else expanded

    def _musl_folders(self) -> tuple[bytes, ...]:
        prefix = self.path.rpartition(b"/")[0].rpartition(b"/")[0]
        name = self.path.rpartition(b"/")[2].removesuffix(b".so.1")
        entry = self._files.file(prefix + b"/etc/" + name + b".path")
        text = _MUSL_PATH if entry is None else head(entry, 1 << 16)
        return tuple(folder.rstrip(b"/") for folder in re.split(rb"[:\n]", text) if folder)


def _version_faults(objects: list[_Loaded], loaded: dict[bytes, _Loaded]) -> Iterator[Fault]:
    """The versions of symbols that a library lacks, as glibc checks them before a program starts."""
    for one in objects:
        for name, versions in one.elf.version_needs.items():
            library = loaded.get(name)
            if library is None or library is objects[0]:
                continue
            # without any versions the loader warns, and fails an assertion as soon as it looks up the symbol
            have = library.elf.version_defs or frozenset()
            lacking = [version for version in versions if version not in have]
            if lacking:
                what = f"{plain(library.path)} is too old for {plain(one.path)}"
                why = f"it lacks the version {', '.join(lacking)}, so the loader ends the program"
                yield Fault(what, why, "take both from the same release of the distribution")


def _with_capabilities(folder: bytes, name: bytes) -> Iterator[bytes]:
    for capability in _CAPABILITIES:
        yield b"/".join(part for part in (folder, capability, name) if part or part is folder)


def _usual_places(name: bytes) -> Iterator[bytes]:
    for folder in (*_GLIBC_DEFAULTS, b"/usr/local/lib", b"/usr/local/lib/x86_64-linux-gnu", b"/opt/lib"):
        yield folder + b"/" + name


def _read_cache(files: Files, path: bytes) -> dict[tuple[bytes, int], bytes]:
    """Read ld.so.cache: the path of each library by name and bits. Source: elf/cache.c and dl-cache.h of glibc."""
    entry = files.file(path)
    if entry is None or entry.content.size > _CACHE_BYTES:
        return {}
    data = entry.content.read()
    start = data.find(b"glibc-ld.so.cache1.1")
    if start < 0:
        return {}
    data = data[start:]
    paths: dict[tuple[bytes, int], bytes] = {}
    try:
        (count,) = struct.unpack_from("<I", data, 20)
        for number in range(min(count, len(data) // 24)):
            flags, key, value = struct.unpack_from("<iII", data, 48 + 24 * number)
            bits = _CACHE_BITS.get(flags & 0xFF00)
            if bits is not None:
                paths.setdefault((_text_at(data, key), bits), _text_at(data, value))
    except struct.error:
        return {}
    return paths


def _text_at(data: bytes, offset: int) -> bytes:
    return data[offset : data.find(b"\0", offset)]
