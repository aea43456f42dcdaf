"""Judges an initrd on a kernel with an amount of memory: what the kernel unpacks of it, and whether its init starts.

The kernel unpacks up to the first thing that it cannot read or that does not fit, and then starts what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from acon_nb.archive.decompress import program_of
from acon_nb.archive.segments import Segment, UnpackedInitrd, UnpackingProblem
from acon_nb.archive.tree import FileTree
from acon_nb.initrd.check.command_line import Start
from acon_nb.initrd.check.examine import Examination, examine
from acon_nb.initrd.check.findings import BootFinding, BootVerdict, Kernel, Severity, Trouble, verdict, weigh
from acon_nb.initrd.check.memory import PAGE_BYTES, Memory, Room, room

_LOST = "lost: the memory is full when the kernel unpacks it"
_HARMLESS = ("BOOT_CONFIG",)  # without it the kernel omits the parameters at the end, but unpacks all


@dataclass(frozen=True, kw_only=True)
class Image:
    """An initrd to judge: its size, what the kernel makes of it, and of its first so many bytes (`read`)."""

    packed_bytes: int
    unpacked: UnpackedInitrd
    read: Callable[[int], UnpackedInitrd]

    @property
    def window_bytes(self) -> int:
        """The memory that the decompressors take at most."""
        return max((segment.window_bytes for segment in self.unpacked.segments), default=0)


def judge(image: Image, start: Start, kernel: Kernel, memory: Memory) -> BootVerdict:
    """Return whether the image boots on the kernel with so much memory."""
    unpacked, cause = image.unpacked, _initrd_support(kernel)
    findings: list[BootFinding] = []
    lacking = next((one for one in (*unpacked.segments, *_unread(unpacked)) if _lacks(one, kernel)), None)
    if lacking is not None:
        reason = _weighed(_segment_trouble(lacking), kernel)
        cause = cause or (reason and replace(reason, severity=Severity.WARNING))
        unpacked = image.read(lacking.offset)
    elif unpacked.problem is not None:
        cause = cause or _problem_finding(unpacked.problem)
    findings += filter(None, (_weighed(_segment_trouble(one), kernel) for one in unpacked.segments if one.options))
    examined = examine(unpacked.tree, start)
    space = room(examined.footprint, image.packed_bytes, image.window_bytes, kernel, start, memory)
    findings += space.findings
    if space.cut_pages is not None:
        cause = cause or space.cause
        examined = examine(_cut(unpacked, space), start)
    if cause is not None and cause.severity is Severity.UNKNOWN:
        return verdict([cause, *findings])  # what is missing so far may be in what was not read
    findings += _findings(examined, kernel)
    return _with_cause(findings, cause)


def _with_cause(findings: list[BootFinding], cause: BootFinding | None) -> BootVerdict:
    """Add why not all is unpacked: an error if init does not start for it, and then errors that follow are left out."""
    if cause is None:
        return verdict(findings)
    fatal = cause.severity is Severity.ERROR or verdict(findings).boots is False
    rest = [one for one in findings if not (fatal and one.severity is Severity.ERROR)]
    severity = Severity.ERROR if fatal else cause.severity
    return verdict([replace(cause, severity=severity), *rest])


def _findings(examined: Examination, kernel: Kernel) -> Iterator[BootFinding]:
    yield from filter(None, (weigh(trouble, kernel) for trouble in examined.troubles))
    releases = examined.module_releases  # without any, /init ignores the list, which alpine's images have
    if examined.wants_modules and kernel.release and releases and kernel.release not in releases:
        yield BootFinding(
            severity=Severity.WARNING,
            what="/etc/modules lists modules, but the image has none for this kernel",
            why=f"the kernel is {kernel.release}; lib/modules has {', '.join(releases)}",
            fix=f"add lib/modules/{kernel.release}, or empty /etc/modules",
        )


def _initrd_support(kernel: Kernel) -> BootFinding | None:
    trouble = Trouble(
        severity=Severity.ERROR,
        what="the kernel takes no initrd",
        why="it must be built to unpack one",
        fix="set BLK_DEV_INITRD=y",
        options=("BLK_DEV_INITRD",),
    )
    return weigh(trouble, kernel)


def _lacks(segment: Segment, kernel: Kernel) -> bool:
    return any(kernel.value(option) in ("n", "m") for option in segment.options if option not in _HARMLESS)


def _unread(unpacked: UnpackedInitrd) -> Iterator[Segment]:
    """The segment that kernels read but acon_nb does not, of which only the place and the options are known."""
    problem = unpacked.problem
    if problem is not None and problem.kernel is None:
        yield Segment(offset=problem.offset, bytes=0, compression=problem.compression, options=problem.options)


def _segment_trouble(segment: Segment) -> list[Trouble]:
    form = program_of(segment.compression)
    where = f"the segment at offset {segment.offset}" if segment.offset else "the initrd"
    return [
        Trouble(
            severity=Severity.WARNING if option in _HARMLESS else Severity.ERROR,
            what=f"{where} is {'a bootconfig' if option in _HARMLESS else f'compressed by {form}'}",
            why="the kernel must be built to read it",
            fix=f"set {option}=y" + ("" if option in _HARMLESS else ", or compress it in another way"),
            options=(option,),
        )
        for option in segment.options
    ]


def _weighed(troubles: Iterable[Trouble], kernel: Kernel) -> BootFinding | None:
    return next((finding for trouble in troubles if (finding := weigh(trouble, kernel))), None)


def _problem_finding(problem: UnpackingProblem) -> BootFinding:
    where = f"at offset {problem.offset}" if problem.offset else "at its start"
    what = f"the initrd has a problem {where}: {problem.what}"
    if problem.kernel is None:
        why = "kernels may read it, but acon_nb cannot"
        return BootFinding(severity=Severity.UNKNOWN, what=what, why=why, fix=problem.hint)
    message = f" ({problem.kernel})" if problem.kernel else " without a word"
    why = f"the kernel unpacks what is before it, and stops there{message}"
    return BootFinding(severity=Severity.WARNING, what=what, why=why, fix=problem.hint)


def _cut(unpacked: UnpackedInitrd, space: Room) -> FileTree:
    """Return the files that fit, in the order of the archive."""
    assert space.cut_pages is not None
    tree = unpacked.tree
    cut = FileTree()
    cut.dropped = list(tree.dropped)
    used = 0
    order = [name for name in reversed(dict.fromkeys(reversed(unpacked.members))) if name in tree]
    for name in order:
        entry = tree[name]
        used += -(-entry.content.size // PAGE_BYTES) if entry.is_file else 0
        if used > space.cut_pages:
            cut.drop(_LOST, name)
        else:
            cut.add(name, entry)
    return cut
