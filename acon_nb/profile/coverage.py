"""Which functions, object files and folders of a kernel never ran in a set of profiles.

What did not run in these guests may run in others: on errors, with other hardware, another command line or workload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.profile.counts import Functions
from acon_nb.profile.model import Profile, Region
from acon_nb.profile.sources import map_of
from acon_nb.study.functions import functions_of

CANNOT_TELL = (
    "What did not run here may run elsewhere: on errors, with other hardware or devices, another command line or"
    " workload. Code that replaces or guards other code inside a file that ran is not seen."
)
_INIT_CODE = ("_etext", "_einittext")  # Functions between them are __init: arch/x86/kernel/vmlinux.lds.S
_PADDING = "__pfx_"  # bytes before a function, which objtool names


@dataclass(frozen=True, kw_only=True)
class CoveredFunction:
    """A function of a kernel, its object file and source, and what it executed at most in one of the profiles.

    `init` is true for code that only runs while the kernel starts (`__init`), whether its option is used or not.
    """

    name: str
    object: str
    source: str
    count: int
    init: bool = False

    @property
    def ran(self) -> bool:
        """Whether it ran in any of the profiles."""
        return self.count > 0


@dataclass(frozen=True, kw_only=True)
class PartCoverage:
    """How many of the functions of an object or folder ran, and the bytes of its code.

    `used` is how many ran that are not `__init`, `lasting` how many are not; `init_count` is what the others executed.
    """

    part: str
    ran: int
    functions: int
    code_bytes: int
    used: int
    lasting: int
    init_count: int


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The functions of a kernel whose object is known, and the bytes of code of each object."""

    functions: tuple[CoveredFunction, ...]
    code_bytes: dict[str, int]

    @cached_property
    def objects(self) -> tuple[PartCoverage, ...]:
        """Coverage by object, in the order of names."""
        return self._by(lambda name: name)

    @cached_property
    def folders(self) -> tuple[PartCoverage, ...]:
        """Coverage by folder, in the order of names; folders below are not part of one."""
        return self._by(lambda name: str(PurePosixPath(name).parent))

    def _by(self, part: Callable[[str], str]) -> tuple[PartCoverage, ...]:
        functions: dict[str, list[CoveredFunction]] = {}
        sizes: Counter[str] = Counter()
        for one in self.functions:
            functions.setdefault(part(one.object), []).append(one)
        for name, size in self.code_bytes.items():
            sizes[part(name)] += size
        return tuple(_part_coverage(name, functions.get(name, []), sizes[name]) for name in sorted(sizes))

    def sentence(self) -> str:
        """What ran, in one line."""
        ran = sum(one.ran for one in self.functions)
        with_code = [one for one in self.objects if one.functions]
        idle = [one for one in with_code if not one.ran]
        return (
            f"{ran:,} of {len(self.functions):,} functions ran; {len(idle):,} of {len(with_code):,} objects never did"
            f" ({sum(one.code_bytes for one in idle) >> 10:,} of {sum(self.code_bytes.values()) >> 10:,} KiB of code)"
        )


def _part_coverage(part: str, functions: Sequence[CoveredFunction], code_bytes: int) -> PartCoverage:
    return PartCoverage(
        part=part,
        ran=sum(one.ran for one in functions),
        functions=len(functions),
        code_bytes=code_bytes,
        used=sum(one.ran and not one.init for one in functions),
        lasting=sum(not one.init for one in functions),
        init_count=sum(one.count for one in functions if one.init),
    )


def coverage(
    kernel: Path,
    profiles: Sequence[Profile],
    *,
    system_map: Path | None = None,
    build: Path | None = None,
    cache: Cache | None = None,
) -> Coverage:
    """What ran of a kernel in `profiles`, all of which must be of it.

    `build` as for `sources.map_of`. Errors: `InvalidInput` for profiles of another kernel or none, and for a kernel
    whose functions or objects are not known.
    """
    if not profiles:
        raise InvalidInput("profiles", "", "are missing", hint="acon-nb bench profile --kernel K --save FILE makes one")
    sha256 = sha256_file(kernel)
    for profile in profiles:
        if profile.origin.get("kernel_sha256", sha256) != sha256:
            name = profile.origin.get("name", "")
            raise InvalidInput("profiles", name, f"is of another kernel than {kernel}", hint="profile this kernel")
    names = functions_of(kernel, system_map)
    known = map_of(kernel, build, cache=cache)
    if not names or known is None:
        hint = "kernels that acon-nb kernel build makes are known; for others give the folder of their build"
        raise InvalidInput("kernel", kernel, "has no known functions or object files", hint=hint)
    most: Counter[str] = Counter()
    for profile in profiles:
        most |= _counts(profile)
    first, last = (next((address for address, name in names.items() if name == one), 0) for one in _INIT_CODE)
    functions = []
    for address, name in Functions(names).unique_names().items():
        piece = known.piece_at(address)
        if piece is None or name.startswith(_PADDING):
            continue
        init = first <= address < last
        functions.append(
            CoveredFunction(name=name, object=piece.object, source=piece.source, count=most[name], init=init)
        )
    code_bytes: dict[str, int] = {}
    for piece in known.pieces:
        code_bytes[piece.object] = code_bytes.get(piece.object, 0) + piece.end - piece.start
    return Coverage(functions=tuple(functions), code_bytes=code_bytes)


def _counts(profile: Profile) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in profile.functions:
        if row.region is Region.KERNEL:
            counts[row.name] += row.self_count
    return counts
