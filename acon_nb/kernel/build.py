"""Configures and builds guest kernels.

The requested options are added to tinyconfig, `make olddefconfig` resolves them, and each is read back and compared.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.cache import Cache, atomic_file, key_of, require_space, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.kernel import dotconfig, embedded, features, folders, given, make, objects, outdated, pins, sizes
from acon_nb.kernel.features import OptionRequest, requested_options
from acon_nb.kernel.git.opened import opened
from acon_nb.kernel.kconfig import Symbol, read_symbols
from acon_nb.kernel.source import SourceTree, fetch, require_unchanged
from acon_nb.kernel.toolchain import Toolchain
from acon_nb.kernel.why import propose
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.validation import check_fields

BUILD_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class BuildSpec:
    """A kernel to build: profiles, whose options add up, a source with patches, and `OPT=VAL` settings of the user.

    Some profiles bring a patch of their own, which is applied before `patches` (`features.patches`).
    `config` is a .config to start from instead of `make tinyconfig` (such as the guide's config-acon); no profile is
    needed then. `rename` requests its options under the names that they have in the source (`renames.became`).
    `cc` is another compiler than gcc, and `llvm` (1, -VERSION, FOLDER/) builds with LLVM's tools, as kbuild's CC= and
    LLVM= do (`toolchain.Toolchain`).
    """

    profiles: tuple[str, ...] = ("guide",)
    source: str = "debian:6.12"
    settings: tuple[str, ...] = ()
    patches: tuple[Path, ...] = ()
    config: Path | None = None
    rename: bool = False
    cc: str = ""
    llvm: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        Toolchain(cc=self.cc, llvm=self.llvm)
        if self.config is not None and not self.config.is_file():  # it is read more than once: no pipe
            raise InvalidInput("config", self.config, "is not a file", hint="give a kernel's .config")
        if self.config is not None:
            dotconfig.read_given(self.config)
        if self.rename and self.config is None:
            raise InvalidInput("rename", "yes", "needs a config to start from", hint="give --config FILE")
        if self.config is None and not self.profiles:
            raise InvalidInput("profile", "", "is empty", hint="such as guide, or give a config to start from")

    @property
    def toolchain(self) -> Toolchain:
        """What compiles it."""
        return Toolchain(cc=self.cc, llvm=self.llvm)


@dataclass(frozen=True, kw_only=True)
class KernelImage:
    """A built kernel: bzImage and .config in the cache, its release, SHA-256, and the result of each request.

    `modules` is a folder with lib/modules/RELEASE if an option is m (`--edits` of an initrd takes it), else None.
    """

    image: Path
    config: Path
    version: str
    sha256: str
    seconds: float
    cached: bool
    results: tuple[dotconfig.OptionResult, ...]
    modules: Path | None = None


def build(
    spec: BuildSpec,
    *,
    tree: SourceTree | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> KernelImage:
    """Build the kernel of `spec`, or take it from the cache (key: source, requested options, compiler).

    `tree` takes the place of the spec's source and patches (`source.tree_in`). Commits of a git tree on this host are
    built in one checkout (`git.opened`).
    `jobs` is the number of parallel jobs (default: the number of CPUs). A cancelled or killed build resumes where it
    stopped.
    Errors: `InvalidInput`, `MissingRequirement`, `KernelConfigError` (before anything is compiled), `BuildFailed`,
    `NoSpace`, `Cancelled`.
    """
    store = cache or Cache()
    make.require_tools(spec.toolchain)
    _refuse_unknown(spec)
    if tree is None:
        with source_of(spec, store, on_progress, cancel) as tree:
            return _build_in(tree, spec, store, jobs, on_progress, cancel)
    return _build_in(tree, spec, store, jobs, on_progress, cancel)


def _build_in(
    tree: SourceTree,
    spec: BuildSpec,
    store: Cache,
    jobs: int | None,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> KernelImage:
    plan = _plan(spec, store, tree)
    inputs = _inputs(spec, plan)
    purpose = {"compiler": inputs["compiler"], "profiles": spec.profiles, "start": inputs["start"]}

    def produce(folder: Path) -> None:
        require_space(folder, BUILD_BYTES, "building a kernel")
        _build(plan, store, purpose, folder, jobs, on_progress, cancel)

    artifact = store.get("kernel", inputs, produce, on_progress=on_progress, cancel=cancel)
    image = artifact.path / "bzImage"
    facts = json.loads((artifact.path / "facts.json").read_text())
    return KernelImage(
        image=image,
        config=artifact.path / "config",
        version=facts["version"],
        sha256=sha256_file(image),
        seconds=artifact.seconds,
        cached=artifact.cached,
        results=tuple(dotconfig.OptionResult(**{**row, "proposal": ()}) for row in facts["wishes"]),
        modules=artifact.path / "modules" if (artifact.path / "modules").is_dir() else None,
    )


def is_built(spec: BuildSpec, *, cache: Cache | None = None, on_progress: OnProgress = silent) -> bool:
    """Whether the cache holds the kernel of `spec`, so that `build` returns immediately (the source may be fetched)."""
    store = cache or Cache()
    _refuse_unknown(spec)
    with source_of(spec, store, on_progress, None) as tree:
        return store.has("kernel", _inputs(spec, _plan(spec, store, tree)))


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A kernel that is configured but not compiled: its source tree, its options and their values.

    `results` holds the result of each requested option, and of each that a given .config sets; `renamed` the names that
    options of that have in this tree, if they were asked for. `advice` names groups that do not stand alone, if an
    option was not applied.
    """

    tree: SourceTree
    symbols: Mapping[str, Symbol]
    values: Mapping[str, str]
    results: tuple[dotconfig.OptionResult, ...]
    renamed: Mapping[str, str]
    advice: str = ""


def configure(
    spec: BuildSpec,
    *,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Configuration:
    """Configure the kernel of `spec` without compiling it, and read the result back.

    A request that was not applied is reported in `results`, not raised.
    """
    store = cache or Cache()
    make.require_tools(spec.toolchain)
    _refuse_unknown(spec)
    tree = fetch(spec.source, patches=_patches(spec), cache=store, on_progress=on_progress, cancel=cancel)
    plan = _plan(spec, store, tree, refuse=False)
    on_progress(Progress("configure kernel", 0.0))
    rows, dot_config = _configure(plan, store, cancel)
    values = dotconfig.parse(dot_config)
    rows = _proposed(plan, store, rows, values, on_progress, cancel)
    on_progress(Progress("configure kernel", 1.0, dotconfig.summary(rows)))
    names = given.renamed(spec.config, plan.symbols) if spec.rename and spec.config is not None else {}
    failed = any(not row.ok and not row.optional for row in rows)
    return Configuration(
        tree=plan.tree,
        symbols=plan.symbols,
        values=values,
        results=rows,
        renamed=names,
        advice=plan.advice if failed else "",
    )


def check(
    spec: BuildSpec,
    *,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> tuple[dotconfig.OptionResult, ...]:
    """Return the result of each option that `spec` requests, without compiling anything (see `configure`)."""
    return configure(spec, cache=cache, on_progress=on_progress, cancel=cancel).results


def install(image: KernelImage, directory: Path) -> tuple[Path, ...]:
    """Copy a kernel to `directory` as `make install` names its files.

    Returns the paths of vmlinuz-VERSION, System.map-VERSION, config-VERSION, and lib/modules/VERSION if it has any.
    """
    names = {"vmlinuz": image.image, "System.map": image.image.with_name("System.map"), "config": image.config}
    installed = []
    for name, source in names.items():
        target = directory / f"{name}-{image.version}"
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)
        installed.append(target)
    if image.modules is not None:
        target = directory / "lib/modules" / image.version
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(image.modules / "lib/modules" / image.version, target, symlinks=True)
        installed.append(target)
    return tuple(installed)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    tree: SourceTree
    requests: tuple[OptionRequest, ...]
    symbols: Mapping[str, Symbol]
    start: Path | None
    toolchain: Toolchain
    compiler: tuple[str, ...]
    advice: str


def _refuse_unknown(spec: BuildSpec) -> None:
    """Refuse names of profiles and options that are invalid in every tree, before one is fetched."""
    requested_options(spec.profiles, (0, 0), settings=spec.settings)


def _plan(spec: BuildSpec, store: Cache, tree: SourceTree, *, refuse: bool = True) -> _Plan:
    symbols = symbols_of(tree, store)
    requests = requested_options(spec.profiles, tree.version, symbols, spec.settings)
    if spec.rename and spec.config is not None:
        known = {request.option for request in requests}
        requests = (
            *(row for row in given.renamed_requests(spec.config, symbols) if row.option not in known),
            *requests,
        )
    if refuse:
        dotconfig.refuse_impossible(requests, symbols)
    compiler = tuple(spec.toolchain.versions())
    return _Plan(
        tree=tree,
        requests=requests,
        symbols=symbols,
        start=spec.config,
        toolchain=spec.toolchain,
        compiler=compiler,
        advice=features.advice(spec.profiles) if spec.config is None else "",
    )


def source_of(
    spec: BuildSpec, store: Cache, on_progress: OnProgress, cancel: CancelToken | None
) -> AbstractContextManager[SourceTree]:
    """The source of a kernel, with the patches of its profiles and its own, while it is built."""
    return opened(spec.source, patches=_patches(spec), cache=store, on_progress=on_progress, cancel=cancel)


def _patches(spec: BuildSpec) -> tuple[Path, ...]:
    return (*features.patches(spec.profiles), *spec.patches)


def symbols_of(tree: SourceTree, store: Cache) -> dict[str, Symbol]:
    """Read every option that a tree defines, or take them from the cache (see `read_symbols`)."""

    def produce(folder: Path) -> None:
        rows = [asdict(symbol) for symbol in read_symbols(tree.path).values()]
        (folder / "symbols.json").write_text(json.dumps(rows))

    artifact = store.get("symbols", {"source": tree.configuring, "reader": 6}, produce)
    rows = json.loads((artifact.path / "symbols.json").read_text())
    return {row["name"]: _symbol(row) for row in rows}


def _symbol(row: dict[str, Any]) -> Symbol:
    pairs = {key: tuple(map(tuple, row[key])) for key in ("definitions", "selects", "ranges")}
    lists = {key: tuple(row[key]) for key in ("under", "defaults")}
    return Symbol(**{**row, **pairs, **lists})


def _inputs(spec: BuildSpec, plan: _Plan) -> dict[str, Any]:
    """Return everything that determines an image: the key of the cache.

    What only some requests bring in has an entry only then, so that it renews no other kernel of the cache.
    """
    values = dotconfig.read(spec.config) if spec.config else {}
    values |= {request.option: request.value for request in plan.requests}
    files = embedded.digests(values, plan.tree)
    modules = "m" in values.values() or values.get("MODULES") == "y"
    compressor = make.compressor(values)
    return {
        "source": plan.tree.identity,
        # the key's name, here and in facts.json, is part of the cache: another one would rebuild every kernel
        "wishes": [[request.option, request.value, request.optional] for request in plan.requests],
        "compiler": list(plan.compiler),
        "start": sha256_file(spec.config) if spec.config else "tinyconfig",
        "pins": dict(make.PINS),
        "make": make.VARIABLES,
        "layout": 3 if modules else 2,  # of the artifact's folder: 2 has sizes.json, 3 modules
        **({"files": files} if files else {}),
        **({"compressor": compressor} if compressor else {}),
        **({"pinned": 1} if pins.concern(values) else {}),
    }


def _configure(plan: _Plan, store: Cache, cancel: CancelToken | None) -> tuple[tuple[dotconfig.OptionResult, ...], str]:
    """Return the result of each request, and the text of the .config."""
    with folders.configuring(store, plan.tree, plan.compiler) as work:
        argv = make.argument_list(plan.tree, work, plan.toolchain)
        path = work / ".config"
        # the same for all requests of a tree
        tiny = work / (f"tinyconfig-{key_of({'source': plan.tree.configuring})}" if plan.tree.place else "tinyconfig")
        if plan.start is None and not tiny.is_file():
            make.configure([*argv, "tinyconfig"], cancel)
            with atomic_file(tiny) as temporary:
                shutil.copyfile(path, temporary)
        shutil.copyfile(plan.start or tiny, path)
        with path.open("a") as file:
            file.write("\n")  # the last line of a given config may not end with a newline
            known = (request for request in plan.requests if request.option in plan.symbols)
            file.write(dotconfig.fragment(known, plan.symbols))
        make.configure([*argv, "olddefconfig"], cancel)
        text = path.read_text()
    values = dotconfig.parse(text)
    rows = dotconfig.compare(plan.requests, values, plan.symbols)
    if plan.start is not None:
        rows = (*rows, *given.results(plan.start, plan.requests, values, plan.symbols))
    return rows, text


def _proposed(
    plan: _Plan,
    store: Cache,
    rows: tuple[dotconfig.OptionResult, ...],
    values: Mapping[str, str],
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> tuple[dotconfig.OptionResult, ...]:
    """Add to each request that failed the further options it needs; each proposal is verified with olddefconfig."""
    if all(row.ok for row in rows):
        return rows
    proposed = []
    for row in rows:
        if not row.ok:
            on_progress(Progress("configure kernel", None, f"looking for what {row.option} needs"))
        proposed.append(_with_proposal(plan, store, row, values, cancel))
    return tuple(proposed)


def _with_proposal(
    plan: _Plan, store: Cache, row: dotconfig.OptionResult, values: Mapping[str, str], cancel: CancelToken | None
) -> dotconfig.OptionResult:
    if row.ok or row.wanted == "n" or row.option not in plan.symbols:
        return row
    requested = {(request.option, request.value) for request in plan.requests}
    extra = propose(row.option, values, plan.symbols)
    if row.group == dotconfig.GIVEN and any((option, "n") in requested for option, _ in extra):
        return row  # lost because a request turned off what it needs
    if not extra or not _works(plan, store, row, extra, cancel):
        return row
    settings = " ".join(f"--set {option}={value}" for option, value in extra)
    return replace(row, why=f"{row.why}; it works with {settings}", proposal=extra)


def _works(
    plan: _Plan,
    store: Cache,
    row: dotconfig.OptionResult,
    extra: Sequence[tuple[str, str]],
    cancel: CancelToken | None,
) -> bool:
    """Whether a failed request is applied once `extra` options are set too, according to Kconfig itself."""
    requests = {request.option: request for request in plan.requests}
    requests |= {option: OptionRequest(option=option, value=value) for option, value in extra}
    results, _ = _configure(replace(plan, requests=tuple(requests.values())), store, cancel)
    return all(result.ok for result in results if result.option in (row.option, *(name for name, _ in extra)))


def _build(
    plan: _Plan,
    store: Cache,
    purpose: Mapping[str, Any],
    folder: Path,
    jobs: int | None,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> None:
    on_progress(Progress("configure kernel", 0.0))
    rows, dot_config = _configure(plan, store, cancel)
    values = dotconfig.parse(dot_config)
    if any(not row.ok and not row.optional for row in rows):
        dotconfig.require(_proposed(plan, store, rows, values, on_progress, cancel), plan.advice)
    make.require_for(values)
    pins.refuse(values, plan.tree)
    if "m" in values.values():
        make.require_depmod()
    on_progress(Progress("configure kernel", 1.0, dotconfig.summary(rows)))
    with folders.building(store, plan.tree, purpose, dot_config, on_progress, cancel) as work:
        log = work / "build.log"
        log.unlink(missing_ok=True)
        pins.prepare(plan.tree, work)
        embedded.remove_outdated(work, embedded.digests(values, plan.tree))
        make.compile_image(plan.tree, work, log, on_progress, cancel, jobs, toolchain=plan.toolchain)
        make.install_modules(plan.tree, work, folder / "modules", log, cancel, toolchain=plan.toolchain)
        require_unchanged(plan.tree, store)
        outdated.finish(work, plan.tree)
        release = (work / "include/config/kernel.release").read_text().strip()
        shutil.copyfile(work / "arch/x86/boot/bzImage", folder / "bzImage")
        shutil.copyfile(work / ".config", folder / "config")
        shutil.copyfile(work / "System.map", folder / "System.map")
        shutil.copyfile(log, folder / "build.log")
        sizes.save(sizes.measure(work), folder)
        objects.keep(work, folder)
    facts = {"version": release, "wishes": [asdict(row) for row in rows]}
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))
