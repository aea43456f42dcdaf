"""Which options each object file of a kernel needs, read from the Makefiles of its tree.

Read are the forms that Documentation/kbuild/makefiles.rst gives: `obj-$(CONFIG_X) += foo.o dir/`, composite objects
(`foo-y`, `foo-objs`, `foo-$(CONFIG_Y)`), and `ifdef CONFIG_X`, `ifeq ($(CONFIG_X),y)` around them. Options that a
Makefile uses in another way are reported as not understood: nothing is concluded about them.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_ASSIGNMENT = re.compile(
    r"([\w.-]*?)-(?:y|m|objs|\$\(CONFIG_(\w+)\)|\$\(subst m,y,\$\(CONFIG_(\w+)\)\))\s*(?:\+=|:=|\?=|=)\s*(.*)"
)
_OPTION = re.compile(r"CONFIG_(\w+)")
_REFERENCE = re.compile(r"\$\(([\w.-]+)-(?:y|m|objs)\)")
_IF_ON = re.compile(
    r"ifdef\s+CONFIG_(\w+)$|ifeq\s*\(\s*\$\(CONFIG_(\w+)\)\s*,\s*y\s*\)$|ifneq\s*\(\s*\$\(CONFIG_(\w+)\)\s*,\s*\)$"
)
_ROOTS = frozenset(("obj", "lib", "core", "drivers", "libs", "head", "net", "virt"))
_MOST_ALTERNATIVES = 16
_DEPTH_LIMIT = 30
Options = frozenset[str]
_ALWAYS: tuple[Options, ...] = (frozenset(),)


@dataclass(frozen=True, kw_only=True)
class ObjectOptions:
    """What the Makefiles say of a kernel's objects.

    `needed` gives for each object the sets of options of which one must be on for it to be linked; `not_understood` are
    options that Makefiles use in forms that are not read.
    """

    needed: dict[str, tuple[Options, ...]]
    not_understood: Options


def read(tree: Path, objects: Iterable[str], arch: str = "x86") -> ObjectOptions:
    """Read the Makefiles of the folders of `objects` (as the build folder names them) and of the folders above."""
    names = sorted(set(objects))
    folders = {"", *(str(parent) for name in names for parent in Path(name).parents if str(parent) != ".")}
    makefiles = _Makefiles(arch=arch)
    for folder in sorted(folders):
        path = next((tree / folder / name for name in ("Kbuild", "Makefile") if (tree / folder / name).is_file()), None)
        if path is not None:
            makefiles.file(path, folder)
    for path in (tree / "Makefile", tree / "arch" / arch / "Makefile"):  # their folders are relative to the tree's
        if path.is_file():
            makefiles.file(path, "", mentions=False)
    return ObjectOptions(
        needed={name: makefiles.needed(name) for name in names}, not_understood=frozenset(makefiles.not_understood)
    )


@dataclass(frozen=True)
class _Use:
    """That a variable of a folder lists something if options are on: `obj` of mm lists mm/swap.o if SWAP is."""

    folder: str
    variable: str
    options: Options


@dataclass
class _Makefiles:
    arch: str
    uses: dict[str, list[_Use]] = field(default_factory=lambda: defaultdict(list))
    not_understood: set[str] = field(default_factory=set)
    known: dict[str, tuple[Options, ...]] = field(default_factory=dict)

    def file(self, path: Path, folder: str, *, mentions: bool = True) -> None:
        blocks: list[Options] = []
        for line in _lines(path):
            word = line.replace("(", " ").partition(" ")[0]
            if word in ("ifdef", "ifndef", "ifeq", "ifneq"):
                match = _IF_ON.match(line)
                on = frozenset(name for name in match.groups() if name) if match else frozenset[str]()
                blocks.append(on)
                if not on and mentions:
                    self.not_understood |= set(_OPTION.findall(line))
            elif word == "else" and blocks:
                blocks[-1] = frozenset()
            elif word == "endif" and blocks:
                blocks.pop()
            elif match := _ASSIGNMENT.fullmatch(line):
                option = match[2] or match[3]
                self.assignment(folder, match[1], frozenset().union(*blocks, [option] if option else []), match[4])
                if mentions:
                    self.not_understood |= set(_OPTION.findall(match[4]))
            elif mentions:
                self.not_understood |= set(_OPTION.findall(line))

    def assignment(self, folder: str, variable: str, options: Options, value: str) -> None:
        use = _Use(folder, variable, options)
        for word in value.replace("$(SRCARCH)", self.arch).split():
            if match := _REFERENCE.fullmatch(word):
                self.uses[f"{folder}:{match[1]}"].append(use)
            elif "$" not in word and word.endswith((".o", "/")):
                path = os.path.normpath(f"{folder or '.'}/{word}")
                self.uses[path].append(use)

    def needed(self, name: str, depth: int = 0) -> tuple[Options, ...]:
        """The alternatives of options that an object, a folder or a variable ("folder:name") needs."""
        if name in self.known:
            return self.known[name]
        uses = self.uses.get(name, ())
        if depth > _DEPTH_LIMIT or not uses:
            return _ALWAYS
        alternatives: set[Options] = set()
        for use in uses:
            for above in self.above(use, depth):
                alternatives.add(use.options | above)
        minimal = tuple(one for one in alternatives if not any(other < one for other in alternatives))
        self.known[name] = minimal if len(minimal) <= _MOST_ALTERNATIVES else _ALWAYS
        return self.known[name]

    def above(self, use: _Use, depth: int) -> tuple[Options, ...]:
        if use.variable in _ROOTS:
            return self.needed(use.folder, depth + 1) if use.folder else _ALWAYS
        composite = os.path.normpath(f"{use.folder or '.'}/{use.variable}.o")
        variable = f"{use.folder}:{use.variable}"
        options = [one for name in (composite, variable) if name in self.uses for one in self.needed(name, depth + 1)]
        return tuple(dict.fromkeys(options)) or _ALWAYS


def _lines(path: Path) -> Iterator[str]:
    """The lines of a Makefile without comments, continuations joined; blank lines are skipped."""
    joined = ""
    for raw in path.read_text(errors="replace").split("\n"):
        line = joined + raw.partition("#")[0].rstrip()
        if line.endswith("\\"):
            joined = line[:-1] + " "
            continue
        joined = ""
        if line.strip():
            yield line.strip()
