"""From wishes to a bzImage: tinyconfig, the wishes, olddefconfig, read back, compared, built out of tree, cached."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb import process
from acon_nb.cache import Cache, atomic_file, require_space, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.kernel import config as kconfig
from acon_nb.kernel import make, sizes
from acon_nb.kernel.features import Wish, wishes
from acon_nb.kernel.kconfig import Symbol, read_symbols
from acon_nb.kernel.source import SourceTree, fetch
from acon_nb.kernel.why import propose
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_BUILD_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class BuildSpec:
    """A kernel to build: profiles that add up, a source with patches, and the user's own `OPT=VAL` settings on top.

    `config` is a .config to start from in place of `make tinyconfig` (the guide's config-acon, say); profiles may then
    be empty.
    """

    profiles: tuple[str, ...] = ("guide",)
    source: str = "debian:6.12"
    settings: tuple[str, ...] = ()
    patches: tuple[Path, ...] = ()
    config: Path | None = None

    def __post_init__(self) -> None:
        if self.config is not None and not self.config.is_file():
            raise InvalidInput("config", self.config, "is no file", hint="give a kernel's .config")
        if self.config is not None and not kconfig.parse(self.config.read_text(errors="replace")):
            raise InvalidInput("config", self.config, "sets no kernel option", hint="give a kernel's .config")
        if self.config is None and not self.profiles:
            raise InvalidInput("profile", "", "names no profile", hint="such as guide, or give a config to start from")


@dataclass(frozen=True, kw_only=True)
class KernelImage:
    """A built kernel: bzImage and .config in the cache, its release, SHA-256, and what became of each wish."""

    image: Path
    config: Path
    version: str
    sha256: str
    seconds: float
    cached: bool
    wishes: tuple[kconfig.WishResult, ...]


def build(
    spec: BuildSpec,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> KernelImage:
    """Build the kernel of `spec`, or take it from the cache (key: source, wishes, compiler).

    `jobs` compilers run at a time (default: a CPU each). A cancelled or killed build goes on where it stopped.
    Errors: `InvalidInput`, `MissingRequirement`, `KernelConfigError` (before anything is compiled), `BuildFailed`,
    `NoSpace`, `Cancelled`.
    """
    store = cache or Cache()
    make.require_tools()
    plan = _plan(spec, store, on_progress, cancel)
    inputs = _inputs(spec, plan)

    def produce(folder: Path) -> None:
        require_space(folder, _BUILD_BYTES, "building a kernel")
        _build(plan, store, folder, jobs, on_progress, cancel)

    artifact = store.get("kernel", inputs, produce)
    image = artifact.path / "bzImage"
    facts = json.loads((artifact.path / "facts.json").read_text())
    return KernelImage(
        image=image,
        config=artifact.path / "config",
        version=facts["version"],
        sha256=sha256_file(image),
        seconds=artifact.seconds,
        cached=artifact.cached,
        wishes=tuple(kconfig.WishResult(**{**row, "proposal": ()}) for row in facts["wishes"]),
    )


def is_built(spec: BuildSpec, *, cache: Cache | None = None, on_progress: OnProgress = silent) -> bool:
    """Whether the kernel of `spec` is in the cache, so that `build` takes no time (its source may be fetched)."""
    store = cache or Cache()
    return store.has("kernel", _inputs(spec, _plan(spec, store, on_progress, None)))


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A configured, not compiled kernel: its source tree and options, the values they got, what became of each wish."""

    tree: SourceTree
    symbols: Mapping[str, Symbol]
    values: Mapping[str, str]
    wishes: tuple[kconfig.WishResult, ...]


def configure(
    spec: BuildSpec,
    *,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Configuration:
    """Configure the kernel of `spec` and read it back; compiles nothing, raises for no wish that fails."""
    store = cache or Cache()
    make.require_tools()
    plan = _plan(spec, store, on_progress, cancel, refuse=False)
    on_progress(Progress("configure kernel", 0.0))
    with _workdir(store, plan.tree, "check") as work:
        rows = _configure(plan, work, cancel)
        values = kconfig.parse((work / ".config").read_text())
        rows = _proposed(plan, work, rows, on_progress, cancel)
    on_progress(Progress("configure kernel", 1.0, f"{sum(row.ok for row in rows)} of {len(rows)} wishes took"))
    return Configuration(tree=plan.tree, symbols=plan.symbols, values=values, wishes=rows)


def check(
    spec: BuildSpec,
    *,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> tuple[kconfig.WishResult, ...]:
    """What would become of each wish of `spec` (see `configure`)."""
    return configure(spec, cache=cache, on_progress=on_progress, cancel=cancel).wishes


def install(image: KernelImage, directory: Path) -> tuple[Path, ...]:
    """Copy a kernel as `make install` names it: vmlinuz-VERSION, System.map-VERSION and config-VERSION."""
    names = {"vmlinuz": image.image, "System.map": image.image.with_name("System.map"), "config": image.config}
    done = []
    for name, source in names.items():
        target = directory / f"{name}-{image.version}"
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)
        done.append(target)
    return tuple(done)


def difference(left: str, right: str, version: str = "6.12") -> tuple[kconfig.Difference, ...]:
    """What differs between two sides: each a .config file, or profiles (`a,b`) and what they wish of a kernel version.

    Between profiles and a .config only the options count that the profiles name.
    """
    one, two = values_of(left, version), values_of(right, version)
    rows = kconfig.diff(one, two)
    if Path(left).is_file() == Path(right).is_file():
        return rows
    named = two if Path(left).is_file() else one
    return tuple(row for row in rows if row.option in named)


def values_of(side: str, version: str = "6.12") -> dict[str, str]:
    """The options of a .config file, or what profiles (`a,b`) wish of a kernel version (but for rules on a tree)."""
    if Path(side).is_file():
        return kconfig.parse(Path(side).read_text(errors="replace"))
    numbers = re.fullmatch(r"(\d+)\.(\d+)", version)
    if numbers is None:
        raise InvalidInput("kernel_version", version, "is no kernel version", hint="such as 6.12")
    profiles = [name for name in side.split(",") if name]
    if not profiles:
        raise InvalidInput("profile", side, "names no profile", hint="profiles (guide,study) or a .config file")
    found = wishes(profiles, (int(numbers[1]), int(numbers[2])))
    return {wish.option: wish.value for wish in found}


@dataclass(frozen=True, kw_only=True)
class _Plan:
    tree: SourceTree
    wishes: tuple[Wish, ...]
    symbols: Mapping[str, Symbol]
    start: Path | None


def _plan(
    spec: BuildSpec, store: Cache, on_progress: OnProgress, cancel: CancelToken | None, *, refuse: bool = True
) -> _Plan:
    wishes(spec.profiles, (0, 0), settings=spec.settings)  # bad names are refused before anything is fetched
    tree = fetch(spec.source, patches=spec.patches, cache=store, on_progress=on_progress, cancel=cancel)
    symbols = _symbols(tree, store)
    wanted = wishes(spec.profiles, tree.version, symbols, spec.settings)
    if refuse:
        kconfig.refuse_impossible(wanted, symbols)
    return _Plan(tree=tree, wishes=wanted, symbols=symbols, start=spec.config)


def _symbols(tree: SourceTree, store: Cache) -> dict[str, Symbol]:
    def produce(folder: Path) -> None:
        rows = [asdict(symbol) for symbol in read_symbols(tree.path).values()]
        (folder / "symbols.json").write_text(json.dumps(rows))

    artifact = store.get("symbols", {"source": tree.identity, "reader": 4}, produce)
    rows = json.loads((artifact.path / "symbols.json").read_text())
    return {row["name"]: _symbol(row) for row in rows}


def _symbol(row: dict[str, Any]) -> Symbol:
    pairs = {key: tuple(map(tuple, row[key])) for key in ("definitions", "selects")}
    return Symbol(**{**row, **pairs, "under": tuple(row["under"])})


def _inputs(spec: BuildSpec, plan: _Plan) -> dict[str, Any]:
    """All that an image is made from: the key of the cache."""
    return {
        "source": plan.tree.identity,
        "wishes": [[wish.option, wish.value, wish.optional] for wish in plan.wishes],
        "compiler": make.compilers(),
        "start": sha256_file(spec.config) if spec.config else "tinyconfig",
        "pins": dict(make.PINS),
        "make": make.VARIABLES,
        "layout": 2,  # of the artifact's folder: 2 has sizes.json
    }


@contextlib.contextmanager
def _workdir(store: Cache, tree: SourceTree, purpose: str) -> Iterator[Path]:
    inputs = {"source": tree.identity, "purpose": purpose}
    work = store.workdir("build", inputs)
    with store.lock(f"build-{work.name}"):
        yield work


def _configure(plan: _Plan, work: Path, cancel: CancelToken | None) -> tuple[kconfig.WishResult, ...]:
    argv, environment = make.argument_list(plan.tree, work), make.environment()
    dot_config = work / ".config"
    if plan.start is None:
        process.run([*argv, "tinyconfig"], env=environment, timeout_s=300, cancel=cancel)
    else:
        shutil.copyfile(plan.start, dot_config)
    with dot_config.open("a") as file:
        file.write("\n")  # a given config may lack the last line's end
        file.write(kconfig.fragment((wish for wish in plan.wishes if wish.option in plan.symbols), plan.symbols))
    process.run([*argv, "olddefconfig"], env=environment, timeout_s=300, cancel=cancel)
    values = kconfig.parse(dot_config.read_text())
    return (*kconfig.compare(plan.wishes, values, plan.symbols), *_lost(plan, values))


def _lost(plan: _Plan, values: Mapping[str, str]) -> tuple[kconfig.WishResult, ...]:
    """What a given .config had on, and no wish names, and this tree did not take: told, never in the way."""
    if plan.start is None:
        return ()
    given = kconfig.parse(plan.start.read_text(errors="replace"))
    wished = {wish.option for wish in plan.wishes}
    known = plan.symbols
    kept = (
        Wish(option=option, value=value, group="given .config", optional=True)
        for option, value in given.items()
        if value in ("y", "m") and option not in wished and (option not in known or known[option].prompted)
    )
    return tuple(row for row in kconfig.compare(tuple(kept), values, known) if not row.ok)


def _proposed(
    plan: _Plan,
    work: Path,
    rows: tuple[kconfig.WishResult, ...],
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> tuple[kconfig.WishResult, ...]:
    """The rows, each failed wish with the further options that let it take: tried with olddefconfig, never guessed."""
    if all(row.ok for row in rows):
        return rows
    config = kconfig.parse((work / ".config").read_text())
    found = []
    for row in rows:
        if not row.ok:
            on_progress(Progress("configure kernel", None, f"trying what lets {row.option} take"))
        found.append(_with_proposal(plan, work, row, config, cancel))
    return tuple(found)


def _with_proposal(
    plan: _Plan, work: Path, row: kconfig.WishResult, config: Mapping[str, str], cancel: CancelToken | None
) -> kconfig.WishResult:
    if row.ok or row.wanted == "n" or row.option not in plan.symbols:
        return row
    extra = propose(row.option, config, plan.symbols)
    if not extra or not _takes(plan, work, row, extra, cancel):
        return row
    settings = " ".join(f"--set {option}={value}" for option, value in extra)
    return replace(row, why=f"{row.why}; it takes with {settings}", proposal=extra)


def _takes(
    plan: _Plan,
    work: Path,
    row: kconfig.WishResult,
    extra: Sequence[tuple[str, str]],
    cancel: CancelToken | None,
) -> bool:
    """Whether a failed wish takes once `extra` options are set too, by Kconfig itself."""
    chosen = {wish.option: wish for wish in plan.wishes}
    chosen |= {option: Wish(option=option, value=value) for option, value in extra}
    results = _configure(replace(plan, wishes=tuple(chosen.values())), work, cancel)
    return all(result.ok for result in results if result.option in (row.option, *(name for name, _ in extra)))


def _build(
    plan: _Plan,
    store: Cache,
    folder: Path,
    jobs: int | None,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> None:
    with _workdir(store, plan.tree, "build") as work:
        on_progress(Progress("configure kernel", 0.0))
        rows = _configure(plan, work, cancel)
        if any(not row.ok and not row.optional for row in rows):
            kconfig.require(_proposed(plan, work, rows, on_progress, cancel))
        make.require_compressor(kconfig.parse((work / ".config").read_text()))
        on_progress(Progress("configure kernel", 1.0, f"{sum(row.ok for row in rows)} of {len(rows)} wishes took"))
        log = work / "build.log"
        log.unlink(missing_ok=True)
        make.compile_image(plan.tree, work, log, on_progress, cancel, jobs)
        release = (work / "include/config/kernel.release").read_text().strip()
        shutil.copyfile(work / "arch/x86/boot/bzImage", folder / "bzImage")
        shutil.copyfile(work / ".config", folder / "config")
        shutil.copyfile(work / "System.map", folder / "System.map")
        shutil.copyfile(log, folder / "build.log")
        sizes.save(sizes.measure(work), folder)
        facts = {"version": release, "wishes": [asdict(row) for row in rows]}
        (folder / "facts.json").write_text(json.dumps(facts, indent=1))
