"""Finds the object file, and so the source file, of each address of a kernel's code, without debug information.

A linker copies each object's part of a section as one piece. A function that the object defines at an offset of a
section, and that System.map names at an address, therefore gives the address of the whole piece. Names that several
objects define (static functions) are decided by the other names of the piece, and pieces that remain by their
neighbours: within a section they lie in the order in which the objects were linked.

The map is kept with each kernel that is built here; `of_image` also makes it from the folder of a build.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import AconError, InvalidInput

_log = logging.getLogger(__name__)
FILE = "objects.json"
_ARCHIVES = ("vmlinux.a", "lib/lib.a", "arch/x86/lib/lib.a")
_IMAGE = "arch/x86/boot/bzImage"
_FORMAT = 1
_HEADING = re.compile(r"Symbols from .*\[(.+)\]:")
_SYMBOL = re.compile(r"([0-9a-f]{16}) [tTwW] (\S+)")
_SOURCE = re.compile(r"^source_\S+ := (\S+)$", re.MULTILINE)
_CODE = frozenset("tTW")
_TIMEOUT_S = 600  # nm takes 0.5 s on an idle host
_FEW = 1000  # one function in as many may contradict System.map; in finished builds of 6.12 none does
_COMMAND_HEAD = 1 << 16  # the compiler's command comes first in a .cmd file; long lists of headers follow


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One object's part of a section: addresses from `start` to below `end`.

    `object` is its name in the build folder ("mm/page_alloc.o"), `source` the file that it was compiled from, as the
    source tree names it ("mm/page_alloc.c").
    """

    start: int
    end: int
    object: str
    source: str


@dataclass(frozen=True, kw_only=True)
class ObjectMap:
    """The pieces of a kernel's code, in the order of their addresses."""

    pieces: tuple[Piece, ...]

    @cached_property
    def _starts(self) -> list[int]:
        return [piece.start for piece in self.pieces]

    def piece_at(self, address: int) -> Piece | None:
        """The piece that contains an address, None if no object is known to."""
        number = bisect.bisect_right(self._starts, address) - 1
        if number < 0 or address >= self.pieces[number].end:
            return None
        return self.pieces[number]

    def source_at(self, address: int) -> str:
        """The source file that the code at an address was compiled from; "" where it is not known."""
        piece = self.piece_at(address)
        return piece.source if piece else ""


def of_build(build: Path) -> ObjectMap:
    """Make the map of a finished build folder; it only reads there.

    Errors: `InvalidInput` for a folder without System.map or without the objects that vmlinux was linked from.
    """
    try:
        text = (build / "System.map").read_text(errors="replace")
    except OSError as error:
        raise InvalidInput("build", build, "has no System.map", hint="give the folder of a finished build") from error
    archives = [name for name in _ARCHIVES if (build / name).is_file()]
    if not archives:
        raise InvalidInput("build", build, "has no vmlinux.a", hint="give the folder of a finished build")
    addresses: dict[str, list[int]] = defaultdict(list)
    for match in _SYMBOL.finditer(text):
        addresses[match[2]].append(int(match[1], 16))
    parts = list(_parts(process.output(["nm", "--format=sysv", *archives], cwd=build, timeout_s=_TIMEOUT_S)))
    bases = _bases(parts, addresses)
    wrong = _contradictions(parts, bases, addresses)
    if wrong > len(addresses) // _FEW:
        reason = f"has {wrong} functions elsewhere than its System.map says: it is being built, or was changed since"
        raise InvalidInput("build", build, reason, hint="finish the build")
    sources = _sources(build, {part.object for part in parts})
    return _laid_out(parts, bases, sources)


def save(objects: ObjectMap, folder: Path) -> None:
    """Store the map in the folder of a built image."""
    sources = {piece.object: piece.source for piece in objects.pieces}
    numbers = {name: number for number, name in enumerate(sources)}
    values = {
        "format": _FORMAT,
        "objects": list(sources.items()),
        "pieces": [[piece.start, piece.end, numbers[piece.object]] for piece in objects.pieces],
    }
    (folder / FILE).write_text(json.dumps(values, separators=(",", ":")))


def keep(build: Path, folder: Path) -> None:
    """Store the map of a finished build in the folder of its image; one that cannot be made does not fail a build."""
    try:
        save(of_build(build), folder)
    except AconError as error:
        _log.warning("the source files of this kernel's functions stay unknown: %s", error)


def load(path: Path) -> ObjectMap:
    """Read a map that `save` wrote. Errors: `InvalidInput`."""
    try:
        values = json.loads(path.read_text())
        if values["format"] != _FORMAT:
            raise InvalidInput("objects", path, f"has format {values['format']}, not {_FORMAT}")
        names = [(str(name), str(source)) for name, source in values["objects"]]
        pieces = tuple(
            Piece(start=int(start), end=int(end), object=names[number][0], source=names[number][1])
            for start, end, number in values["pieces"]
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InvalidInput("objects", path, f"cannot be read as a map of objects: {error}") from error
    return ObjectMap(pieces=pieces)


def of_image(image: Path, cache: Cache | None = None) -> ObjectMap | None:
    """The map of a bzImage, None if none is known.

    It is looked for next to the image, in the cache of kernels that were built here, and, for a kernel that was built
    before the map was kept, in the folder of its build, as long as that exists.
    """
    store = cache or Cache()
    sha256 = sha256_file(image)
    kept = image.absolute().with_name(FILE)
    path = kept if kept.is_file() else store.file_beside("kernel", "bzImage", sha256, FILE)
    if path is not None:
        return load(path)
    inputs = {"bzImage": sha256, "format": _FORMAT}
    folder = _build_folder(image, sha256, store)
    if folder is None and not store.has("objects", inputs):
        return None

    def produce(target: Path) -> None:
        if folder is None:
            raise _Busy("the build folder is gone")
        with store.lock(f"kernel-build-{folder.name}", wait=False) as held:
            if not held or sha256_file(folder / _IMAGE) != sha256:
                raise _Busy("the build folder is in use")
            save(of_build(folder), target)

    with contextlib.suppress(_Busy, InvalidInput):
        return load(store.get("objects", inputs, produce).path / FILE)
    return None


class _Busy(AconError):
    pass


def _build_folder(image: Path, sha256: str, cache: Cache) -> Path | None:
    """The folder of the build that made an image."""
    path = image.resolve()
    if path.match(_IMAGE) and (path.parents[3] / "vmlinux.a").is_file():
        return path.parents[3]
    built = (one for one in sorted((cache.root / "kernel-build").glob(f"[!.]*/{_IMAGE}")) if sha256_file(one) == sha256)
    made = next(built, None)
    return made.parents[3] if made else None


@dataclass(frozen=True)
class _Part:
    """The functions that an object defines in a section, by name: their offset and size (0: not stated)."""

    object: str
    section: str
    functions: Mapping[str, tuple[int, int]]
    weak: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes that the functions are known to occupy."""
        return max(offset + max(size, 1) for offset, size in self.functions.values())

    @property
    def open_ended(self) -> bool:
        """Whether the last function does not state its size, as in assembly."""
        return max(self.functions.values())[1] == 0


def _parts(listing: str) -> Iterator[_Part]:
    """Read `nm --format=sysv` of archives: the parts of each object, in the order of linking."""
    for heading, rows in _members(listing):
        sections: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        weak = set()
        for row in rows:
            fields = [field.strip() for field in row.split("|")]
            if len(fields) != 7 or fields[2] not in _CODE:
                continue
            name, value, kind, _, size, _, section = fields
            sections[section][name] = (int(value, 16), int(size or "0", 16))
            if kind == "W":
                weak.add(name)
        for section, functions in sections.items():
            yield _Part(heading, section, functions, frozenset(weak))


def _members(listing: str) -> Iterator[tuple[str, list[str]]]:
    name, rows = "", list[str]()
    for line in listing.splitlines():
        if match := _HEADING.fullmatch(line):
            if rows:
                yield name, rows
            name, rows = match[1], []
        elif "|" in line:
            rows.append(line)
    if rows:
        yield name, rows


def _bases(parts: list[_Part], addresses: Mapping[str, list[int]]) -> dict[int, int]:
    """The address of each part, by its number; parts that cannot be decided are left out."""
    candidates = [_candidates(part, addresses) for part in parts]
    bases = {number: places[0] for number, places in enumerate(candidates) if len(places) == 1}
    sequences: dict[str, list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        sequences[part.section].append(number)
    taken = {(parts[number].section, base) for number, base in bases.items()}
    for section, numbers in sequences.items():
        for place, number in enumerate(numbers):
            if number in bases or not candidates[number]:
                continue
            below = max((bases[other] for other in numbers[:place] if other in bases), default=0)
            above = next((bases[other] for other in numbers[place + 1 :] if other in bases), 1 << 64)
            free = [one for one in candidates[number] if below < one < above and (section, one) not in taken]
            if free:
                bases[number] = min(free)
                taken.add((section, min(free)))
    return bases


def _candidates(part: _Part, addresses: Mapping[str, list[int]]) -> list[int]:
    """The addresses of the part with which most of its functions agree; a weak function may be another object's."""
    strong = {name: place for name, place in part.functions.items() if name not in part.weak} or part.functions
    votes = Counter(address - offset for name, (offset, _) in strong.items() for address in addresses.get(name, ()))
    most = max(votes.values(), default=0)
    return sorted(base for base, count in votes.items() if count == most)


def _contradictions(parts: list[_Part], bases: Mapping[int, int], addresses: Mapping[str, list[int]]) -> int:
    """Count the functions that System.map has, but not where their part lies."""
    return sum(
        name in addresses and name not in parts[number].weak and base + offset not in addresses[name]
        for number, base in bases.items()
        for name, (offset, _) in parts[number].functions.items()
    )


def _laid_out(parts: list[_Part], bases: Mapping[int, int], sources: Mapping[str, str]) -> ObjectMap:
    ordered = sorted((base, number) for number, base in bases.items())
    pieces = []
    for place, (base, number) in enumerate(ordered):
        part = parts[number]
        following = ordered[place + 1][0] if place + 1 < len(ordered) else base + part.size
        end = following if part.open_ended else min(base + part.size, max(following, base + 1))
        pieces.append(Piece(start=base, end=end, object=part.object, source=sources[part.object]))
    return ObjectMap(pieces=tuple(pieces))


def _sources(build: Path, objects: set[str]) -> dict[str, str]:
    """The source file of each object, of the command that made it; its name with .c if that was not saved."""
    tree = (build / "source").resolve() if (build / "source").exists() else build.resolve()
    return {name: _source(build, tree, name) for name in objects}


def _source(build: Path, tree: Path, name: str) -> str:
    path = build / name
    try:
        with (path.parent / f".{path.name}.cmd").open(errors="replace") as file:
            match = _SOURCE.search(file.read(_COMMAND_HEAD))
    except OSError:
        match = None
    if match is None:
        return str(Path(name).with_suffix(".c"))
    source = Path(os.path.normpath(build.absolute() / match[1]))
    folders = (build.absolute() / "source", tree, build.absolute())
    return next((str(source.relative_to(one)) for one in folders if source.is_relative_to(one)), str(source))
