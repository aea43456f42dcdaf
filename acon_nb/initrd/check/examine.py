"""Examines an unpacked initrd: whether its init can start, what it lacks, and how much memory it takes.

The result does not depend on the kernel: what a kernel must have for it is part of each trouble.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from acon_nb.archive.tree import FileTree
from acon_nb.initrd.check import accounts, services
from acon_nb.initrd.check.command_line import Start
from acon_nb.initrd.check.files import Files, Found, Missing, executable, plain
from acon_nb.initrd.check.findings import Severity, Trouble
from acon_nb.initrd.check.memory import Footprint, footprint
from acon_nb.initrd.check.programs import Programs

# What the kernel tries to execute if /init cannot be (kernel_init in init/main.c)
_FALLBACKS = (b"/sbin/init", b"/etc/init", b"/bin/init", b"/bin/sh")
_MOST_DROPPED = 8
_INIT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found in an initrd's files, the memory that they take, and the kernels for which it has modules."""

    troubles: tuple[Trouble, ...]
    footprint: Footprint
    wants_modules: bool = False
    module_releases: tuple[str, ...] = ()


def examine(tree: FileTree, start: Start) -> Examination:
    """Examine the files that the kernel has unpacked."""
    files = Files(tree)
    programs = Programs(files)
    troubles = list(_init_troubles(files, programs, start))
    init = files.file(start.init.encode(errors="surrogateescape"))
    ours = init is not None and init.content.size <= _INIT_BYTES and services.is_ours(init.content.read())
    if ours:
        troubles += services.troubles(files, programs, start)
    troubles += accounts.troubles(files, programs, our_init=ours)
    troubles += _dropped_troubles(tree)
    return Examination(
        troubles=tuple(dict.fromkeys(troubles)),
        footprint=footprint(tree),
        wants_modules=ours and bool(files.text(b"/etc/modules").strip()),
        module_releases=tuple(sorted(files.releases)),
    )


def _init_troubles(files: Files, programs: Programs, start: Start) -> Iterator[Trouble]:
    path = start.init.encode(errors="surrogateescape")
    target = files.lookup(path)
    if isinstance(target, Missing):
        yield _no_init(files, start, target)
        return
    bad = list(programs.troubles(path, Severity.ERROR, f"the kernel cannot start {start.init}"))
    yield from bad
    fallback = next((name for name in _FALLBACKS if name != path and _runs(files, name)), None)
    if fallback is not None and any(not trouble.options for trouble in bad):
        what = f"without a working {start.init} the kernel starts {plain(fallback)}"
        why = f"it tries {', '.join(map(plain, _FALLBACKS))} then, which is not what the image is made for"
        yield Trouble(severity=Severity.NOTE, what=what, why=why)


def _no_init(files: Files, start: Start, missing: Missing) -> Trouble:
    what = f"{start.init} is a link that leads nowhere" if missing.links else f"{start.init} is missing"
    if start.root:
        why = f"{missing}, so the kernel mounts root={start.root} and starts the init that is there"
        return Trouble(severity=Severity.ERROR, what=what, why=why, fix="check that root file system", sure=False)
    why = f"{missing}; the kernel then looks for a root file system on a disk (root=), finds none, and panics"
    other = next((name for name in _FALLBACKS if _runs(files, name)), None)
    fix = "add it: acon-nb initrd from IMAGE does, and acon-nb initrd init TREE"
    if other is not None:
        name = plain(other)
        why = f"{why}. It starts {name} of a disk, but not of an initrd" if name != "/bin/sh" else why
        fix = f"{fix}; or start {name}: KA=rdinit={name}"
    return Trouble(severity=Severity.ERROR, what=what, why=why, fix=fix)


def _runs(files: Files, path: bytes) -> bool:
    target = files.lookup(path)
    return isinstance(target, Found) and executable(target.entry)


def _dropped_troubles(tree: FileTree) -> Iterator[Trouble]:
    """What the image holds but the guest does not see, a warning for each reason."""
    for what, names in tree.dropped_by_reason().items():
        if not what.startswith("lost"):
            continue
        shown = ", ".join(plain(name) for name in names[:_MOST_DROPPED])
        more = f" and {len(names) - _MOST_DROPPED} more" if len(names) > _MOST_DROPPED else ""
        yield Trouble(severity=Severity.WARNING, what=f"{shown}{more}", why=what)
