"""Adds kernel modules to a tree, with what `depmod` writes, so that the modprobe of busybox and that of kmod find them.

depmod itself is not called: it works on a folder on disk, is missing on many hosts, and its output depends on its
version. The tests compare with it.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb.archive import decompress
from acon_nb.archive.tree import FileTree
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import module_index

_SUFFIX = re.compile(r"\.ko(\.\w+)?")
_MAJOR = re.compile(r"(char|block)-major-(\d+)-(\d+)")
_MOST_BYTES = 1 << 28  # of one module, decompressed
_HEADINGS = {
    "modules.alias": "# Aliases extracted from modules themselves.",
    "modules.softdep": "# Soft dependencies extracted from modules themselves.",
    "modules.symbols": "# Aliases for symbols, used by symbol_request().",
    "modules.devname": "# Device nodes to trigger on-demand module loading.",
}


@dataclass(frozen=True)
class _Module:
    """What depmod takes from a module: the entries of .modinfo, and the symbols that it exports."""

    name: str
    info: tuple[tuple[str, str], ...]
    symbols: tuple[str, ...]

    def all_of(self, key: str) -> list[str]:
        return [value for name, value in self.info if name == key]

    @property
    def depends(self) -> list[str]:
        return [name_of(one) for value in self.all_of("depends") for one in value.split(",") if one]

    def lines_of(self, file: str) -> Iterator[str]:
        """Its lines in one of the lists of depmod."""
        if file == "modules.alias":
            yield from (f"alias {alias} {self.name}" for alias in self.all_of("alias"))
        elif file == "modules.symbols":
            yield from (f"alias symbol:{symbol} {self.name}" for symbol in self.symbols)
        elif file == "modules.softdep":
            yield from (f"softdep {self.name} {value}" for value in self.all_of("softdep"))
        else:
            yield from self._device()

    def _device(self) -> Iterator[str]:
        names = [alias.removeprefix("devname:") for alias in self.all_of("alias") if alias.startswith("devname:")]
        numbers = [match for alias in self.all_of("alias") if (match := _MAJOR.fullmatch(alias))]
        if names and numbers:
            kind, major, minor = numbers[-1].groups()
            yield f"{self.name} {names[-1]} {kind[0]}{major}:{minor}"


def name_of(file: str) -> str:
    """A module's name as the kernel knows it: of its file, with "_" for "-", without .ko and a compressor's suffix."""
    return _SUFFIX.sub("", posixpath.basename(file)).replace("-", "_")


def add_modules(tree: FileTree, release: str, modules: Sequence[Path], load: Sequence[str]) -> None:
    """Add kernel modules to a tree, and to depmod's lists of it; /init loads those named in `load`, by /etc/modules.

    Modules that the tree has of the same release stay known, but for those of the same names.
    Errors: `InvalidInput` for a file that is not a module, and for one that needs a module which is neither in
    `modules` nor known to the tree.
    """
    folder = f"lib/modules/{release}"
    parsed = {path: _module(path) for path in modules}
    names = {module.name for module in parsed.values()}
    for path in modules:
        tree.add_file(f"{folder}/{path.name}", path)
    kept = [line for line in _known(tree, folder, "modules.dep") if name_of(line.partition(":")[0]) not in names]
    lines = [*_dependencies(parsed, kept), *kept]
    _write(tree, folder, "modules.dep", lines, ((name_of(line.partition(":")[0]), line) for line in lines))
    for file, heading in _HEADINGS.items():
        # alias PATTERN MODULE, softdep MODULE ..., MODULE DEVICE NUMBERS
        place = {"modules.softdep": 1, "modules.devname": 0}.get(file, -1)
        old = [line for line in _known(tree, folder, file) if not {*line.split()[place:][:1]} & names]
        lines = [*(line for module in parsed.values() for line in module.lines_of(file)), *old]
        pairs = ((_normal(line.split()[1]), line.split()[2]) for line in lines if len(line.split()) == 3)
        _write(tree, folder, file, [heading, *lines], pairs if place == -1 else None)
    built_in = _lines(tree, f"{folder}/modules.builtin")
    if built_in and f"{folder}/modules.builtin.bin" not in tree:
        tree.add_file(f"{folder}/modules.builtin.bin", _index((name_of(line), "") for line in built_in))
    tree.remove(f"{folder}/modules.dep.bb")  # of a busybox that lists modules itself, if its list is missing
    wanted = [name for name in load if name_of(name) in names]
    asked = [line for line in _lines(tree, "etc/modules") if line not in wanted]
    tree.add_file("etc/modules", _text([*asked, *wanted]))


def _module(path: Path) -> _Module:
    """Read a module. Errors: `InvalidInput`."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(_content(path)))
        parts = {name: elf.get_section_by_name(name) for name in (".modinfo", "__ksymtab_strings")}
        info, symbols = (part.data() if part is not None else b"" for part in parts.values())
    except (ELFError, ConstructError, TreeError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise InvalidInput("modules", str(path), f"is not a kernel module: {error or type(error).__name__}") from error
    pairs = [one.partition("=") for one in info.decode(errors="replace").split("\0") if "=" in one]
    if parts[".modinfo"] is None:
        raise InvalidInput("modules", str(path), "is not a kernel module: it has no section .modinfo")
    exported = [one for one in symbols.decode(errors="replace").split("\0") if one]
    return _Module(name_of(path.name), tuple((key, value) for key, _, value in pairs), tuple(exported))


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        compression = decompress.compression_of(file.read(64))
        file.seek(0)
        chunks = decompress.decompressed(file, compression, path.name) if compression else iter([file.read()])
        data = bytearray()
        for chunk in chunks:
            data += chunk
            if len(data) > _MOST_BYTES:
                raise ValueError(f"it unpacks to more than {_MOST_BYTES >> 20} MiB")
        return bytes(data)


def _dependencies(modules: dict[Path, _Module], kept: Sequence[str]) -> list[str]:
    """The lines of modules.dep: each module's file, and all that it needs, what is loaded first last."""
    files = {module.name: path.name for path, module in modules.items()}
    needs = {module.name: module.depends for module in modules.values()}
    for line in kept:
        file, _, needed = line.partition(":")
        needs.setdefault(name_of(file), [name_of(one) for one in needed.split()][::-1])
        for one in (file, *needed.split()):
            files.setdefault(name_of(one), one)
    for path, module in modules.items():
        if missing := [name for name in module.depends if name not in files]:
            what = f"depends on {missing[0]}, which is neither given nor a module of the tree"
            raise InvalidInput("modules", str(path), what, hint="kernel.module_closure gives all that modules need")
    return [
        f"{files[module.name]}: {' '.join(files[name] for name in _closure(module.name, needs))}".rstrip()
        for module in modules.values()
    ]


def _closure(name: str, needs: dict[str, list[str]]) -> list[str]:
    """All that a module needs, each before what it needs itself."""
    ordered: list[str] = []
    seen = {name}
    pending = [(one, False) for one in reversed(needs[name])]
    while pending:
        one, ready = pending.pop()
        if ready:
            ordered.append(one)
        elif one not in seen:
            seen.add(one)
            pending += [(one, True), *((needed, False) for needed in reversed(needs.get(one, [])))]
    return ordered[::-1]


def _known(tree: FileTree, folder: str, file: str) -> list[str]:
    """The lines of a list of the tree; if it has only the index (mkinitcpio removes the lists), of that."""
    if file in _HEADINGS and f"{folder}/{file}" in tree:
        return [line for line in _lines(tree, f"{folder}/{file}") if not line.startswith("#")]
    if f"{folder}/{file}" in tree or f"{folder}/{file}.bin" not in tree:
        return _lines(tree, f"{folder}/{file}")
    where = tree.find(f"{folder}/{file}.bin")
    try:
        index = module_index.read(tree[where].content.read() if where is not None and tree[where].is_file else b"")
    except TreeError as error:
        tree.drop(f"a list of kernel modules is damaged ({error}) and replaced", where or file.encode())
        return []
    pairs = [(_decoded(key), _decoded(value)) for key, values in index.items() for value in values]
    return [value if file == "modules.dep" else f"alias {key} {value}" for key, value in pairs]


def _decoded(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _write(
    tree: FileTree, folder: str, file: str, lines: Sequence[str], pairs: Iterable[tuple[str, str]] | None
) -> None:
    tree.add_file(f"{folder}/{file}", _text(lines))
    if pairs is not None:
        tree.add_file(f"{folder}/{file}.bin", _index(pairs))


def _index(pairs: Iterable[tuple[str, str]]) -> bytes:
    encoded = ((key.encode(errors="surrogateescape"), value.encode(errors="surrogateescape")) for key, value in pairs)
    return module_index.write(encoded)


def _normal(alias: str) -> str:
    """An alias as kmod looks it up: "_" for "-", but in brackets (alias_normalize of kmod's shared/util.c)."""
    return re.sub(r"\[[^\]]*\]|-", lambda match: "_" if match[0] == "-" else match[0], alias)


def _lines(tree: FileTree, name: str) -> list[str]:
    entry = tree.get(tree.resolved(name.encode(), last=True))
    if entry is None or not entry.is_file:
        return []
    return _decoded(entry.content.read()).splitlines()


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
