"""Proposes kernel options whose objects never ran in a set of profiles; nothing is changed.

An option is proposed if it can be turned off in the configuration, if no other enabled option selects it, and if no
function ran of the objects that would no longer be linked: its own, and those of options that are off with it. Those
that only run while the kernel starts (`__init`) do not count if other functions of the objects, and more of them, never
ran: drivers and file systems register themselves in every boot. `init_count` is what such a proposal executed.
The idea is Cozart's (Kuo et al., "Set the Configuration for the Heart of the OS", POMACS 2020).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from acon_nb import results
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.kernel import dotconfig, kbuild
from acon_nb.kernel.build import symbols_of
from acon_nb.kernel.kconfig import Symbol, unmet
from acon_nb.kernel.source import SourceTree, fetch
from acon_nb.kernel.why import selectors
from acon_nb.profile import model
from acon_nb.profile.coverage import CANNOT_TELL, Coverage, PartCoverage, coverage
from acon_nb.profile.model import Profile
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.results.store import PROFILES

_NAME = re.compile(r"\w+")
_RELEASE = re.compile(r"^# Linux/\S+ (\d+\.\d+\.\d+)", re.MULTILINE)
_ON = ("y", "m")


@dataclass(frozen=True, kw_only=True)
class UnusedOption:
    """An option to consider turning off: its objects, how many functions and bytes of code they have.

    `goes_too` are enabled options that are off then, because they depend on it or only it selects them. `init_count` is
    what its `__init` functions executed: 0 if nothing of it ran.
    """

    option: str
    prompt: str
    objects: tuple[str, ...]
    functions: int
    code_bytes: int
    init_count: int = 0
    goes_too: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UnusedReport:
    """What never ran of a kernel, and the options to consider turning off."""

    coverage: Coverage
    options: tuple[UnusedOption, ...]


def report(
    kernel: Path,
    profiles: Sequence[Profile],
    *,
    source: str = "debian:6.12",
    config: Path | None = None,
    build: Path | None = None,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> UnusedReport:
    """Find what never ran of a kernel in `profiles`, and propose options.

    `source` is what the kernel was built from, as for `kernel.BuildSpec`, `config` its .config (default: the one
    kept with it), `build` as for `sources.map_of`. Errors: `InvalidInput`, those of `coverage` and of `kernel.fetch`.
    """
    store = cache or Cache()
    path = config_path(kernel, config)
    values = dotconfig.read_given(path)
    covered = coverage(kernel, profiles, build=build, cache=store)
    tree = fetch(source, cache=store, on_progress=on_progress, cancel=cancel)
    release = _RELEASE.search(path.read_text(errors="replace"))
    if release is not None and release[1] != tree.release:
        reason = f"is {tree.release}, but the kernel is {release[1]}"
        raise InvalidInput("source", source, reason, hint="give the source that the kernel was built from")
    symbols = symbols_of(tree, store)
    return UnusedReport(coverage=covered, options=proposals(covered, values, tree, symbols))


def config_path(kernel: Path, config: Path | None = None) -> Path:
    """The .config of a kernel: the given one, or that which is kept with a kernel that was built here."""
    candidates = [kernel.absolute().with_name("config")]
    if kernel.absolute().match("arch/x86/boot/bzImage"):
        candidates.append(kernel.absolute().parents[3] / ".config")
    path = next((one for one in ([config] if config else candidates) if one.is_file()), None)
    if path is None:
        raise InvalidInput("config", config or candidates[0], "is not a file", hint="give the kernel's .config")
    return path


def proposals(
    covered: Coverage, config: Mapping[str, str], tree: SourceTree, symbols: Mapping[str, Symbol]
) -> tuple[UnusedOption, ...]:
    """The options whose objects never ran, those with most code first; of nested ones the outermost.

    `tree` is the source of the kernel, `symbols` its options.
    """
    parts = {one.part: one for one in covered.objects}
    makefiles = kbuild.read(tree.path, parts)
    dependents = _Dependents(config, symbols)
    candidates = {name for needed in makefiles.needed.values() for options in needed for name in options}
    rows = []
    for option in sorted(candidates - makefiles.not_understood):
        if not _can_be_off(option, config, symbols):
            continue
        goes_too = dependents.of(option)
        if goes_too is None or goes_too & makefiles.not_understood:
            continue
        gone = _gone(makefiles, {option, *goes_too})
        own = [parts[name] for name in gone]
        if _is_unused(own):
            rows.append(
                UnusedOption(
                    option=option,
                    prompt=symbols[option].prompt,
                    objects=tuple(gone),
                    functions=sum(one.functions for one in own),
                    code_bytes=sum(one.code_bytes for one in own),
                    init_count=sum(one.init_count for one in own),
                    goes_too=tuple(sorted(goes_too)),
                )
            )
    inner = {name for row in rows for name in row.goes_too}
    outermost = (row for row in rows if row.option not in inner)
    return tuple(sorted(outermost, key=lambda row: (-row.code_bytes, row.option)))


def _is_unused(own: Sequence[PartCoverage]) -> bool:
    """Whether no function ran but `__init` ones, and not those if they are most of the code."""
    functions, lasting = sum(one.functions for one in own), sum(one.lasting for one in own)
    if any(one.used for one in own) or not functions:
        return False
    return lasting > functions - lasting or not any(one.ran for one in own)


def _can_be_off(option: str, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> bool:
    symbol = symbols.get(option)
    on = config.get(option) == "y"
    return (
        symbol is not None and on and symbol.prompted and not symbol.choice and not selectors(option, config, symbols)
    )


def _gone(makefiles: kbuild.ObjectOptions, off: set[str]) -> list[str]:
    """The objects that are no longer linked with options off: each alternative needs one of them."""
    return [name for name, needed in makefiles.needed.items() if all(options & off for options in needed)]


class _Dependents:
    """The enabled options that are off if one is."""

    def __init__(self, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> None:
        self._config, self._symbols = config, symbols
        self._mentions: dict[str, set[str]] = defaultdict(set)
        self._selectors: dict[str, set[str]] = defaultdict(set)
        for name, symbol in symbols.items():
            if config.get(name) in _ON:
                for target, _ in symbol.selects:
                    self._selectors[target].add(name)
                for text in {text for conditions in symbol.definitions for text in conditions}:
                    for word in _NAME.findall(text):
                        self._mentions[word].add(name)

    def of(self, option: str) -> set[str] | None:
        """The options that depend on one, None if another option selects one of them and so holds it on."""
        config = {**self._config, option: "n"}
        gone: set[str] = set()
        pending = [option]
        while pending:
            off = pending.pop()
            selected = {target for target, _ in self._symbols[off].selects}
            for name in sorted(self._mentions.get(off, set()) | selected):
                if name in gone or name == option or config.get(name) not in _ON:
                    continue
                if self._unmet(name, config) or (name in selected and self._only_selected(name, config)):
                    gone.add(name)
                    config[name] = "n"
                    pending.append(name)
        held = any(self._selected(name, config) for name in gone)
        return None if held else gone

    def _only_selected(self, name: str, config: Mapping[str, str]) -> bool:
        """Whether nothing holds an option on that was selected: it has no prompt and no default that we know of."""
        symbol = self._symbols.get(name)
        plain = symbol is not None and not symbol.prompted and not symbol.kind.startswith("def_")
        return plain and not self._selected(name, config)

    def _selected(self, name: str, config: Mapping[str, str]) -> bool:
        by = {one: self._symbols[one] for one in self._selectors.get(name, ())}
        return bool(selectors(name, config, by))

    def _unmet(self, name: str, config: Mapping[str, str]) -> bool:
        symbol = self._symbols[name]
        return bool(unmet(symbol, config)) and not unmet(symbol, self._config)


def text(made: UnusedReport, most: int | None = None) -> str:
    """The report for people."""
    rows = [
        {
            "option": row.option,
            "code bytes": f"{row.code_bytes:,}",
            "functions": row.functions,
            "__init ran": f"{row.init_count:,}" if row.init_count else "",
            "off with it": " ".join(row.goes_too[:3]) + (" ..." if len(row.goes_too) > 3 else ""),
            "prompt": row.prompt,
        }
        for row in made.options
    ]
    table = results.frame(rows[:most]).to_string(index=False) if rows else "no option whose objects all never ran"
    hidden = len(rows) - most if most is not None and len(rows) > most else 0
    more = [f"... {hidden} more"] if hidden else []
    folders = _folders_table(made.coverage, most)
    return "\n".join([made.coverage.sentence(), "", folders, "", table, *more, "", CANNOT_TELL])


def _folders_table(covered: Coverage, most: int | None) -> str:
    """The folders with most code in objects that never ran."""
    idle: Counter[str] = Counter()
    for one in covered.objects:
        if one.functions and not one.ran:
            idle[str(PurePosixPath(one.part).parent)] += one.code_bytes
    folders = {one.part: one for one in covered.folders}
    rows = [
        {
            "folder": name,
            "bytes of idle objects": f"{size:,}",
            "of code bytes": f"{folders[name].code_bytes:,}",
            "functions ran": f"{folders[name].ran:,}",
            "of": f"{folders[name].functions:,}",
        }
        for name, size in idle.most_common(most)
    ]
    return results.frame(rows).to_string(index=False) if rows else "some function of every object ran"


def json_values(made: UnusedReport) -> dict[str, Any]:
    """The report as values for JSON: of objects and folders how many functions ran, and all that did not."""
    return {
        "options": [asdict(row) for row in made.options],
        "objects": [asdict(one) for one in made.coverage.objects],
        "folders": [asdict(one) for one in made.coverage.folders],
        "functions": {
            "ran": sum(one.ran for one in made.coverage.functions),
            "all": len(made.coverage.functions),
        },
        "never_ran": [{"name": one.name, "file": one.source} for one in made.coverage.functions if not one.ran],
    }


def loaded(paths: Sequence[Path], kernel: Path) -> tuple[Profile, ...]:
    """Read saved profiles, and those of `kernel` in folders, such as the results of studies.

    Errors: `InvalidInput`, also for a folder without any of them.
    """
    sha256 = sha256_file(kernel)
    profiles: list[Profile] = []
    for path in paths:
        if not path.is_dir():
            profiles.append(model.load(path))
            continue
        stored = path / PROFILES if (path / PROFILES).is_dir() else path
        read = [model.load(file) for file in sorted(stored.rglob("*.json"))]
        of_kernel = [one for one in read if one.origin.get("kernel_sha256") == sha256]
        if not of_kernel:
            reason = f"contains {len(read)} profiles, none of {kernel}"
            raise InvalidInput(
                "profiles", path, reason, hint="acon-nb bench profile --save, or a plan with profile = true"
            )
        profiles += of_kernel
    return tuple(profiles)
