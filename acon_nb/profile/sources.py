"""Where the functions of a profile come from: source files, folders and subsystems of the kernel's tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from acon_nb.cache import Cache
from acon_nb.kernel import debug_info, objects
from acon_nb.kernel.objects import ObjectMap
from acon_nb.profile.counts import Functions
from acon_nb.profile.model import FunctionCount, Profile, Region
from acon_nb.study.functions import functions_of

_DEPTH = 2  # parts of a path that name a subsystem: drivers/pci, arch/x86
UNKNOWN = "(unknown)"


def map_of(kernel: Path, given: Path | None = None, *, cache: Cache | None = None) -> ObjectMap | None:
    """The source files of a kernel by address; None for a kernel of which they are not known.

    Known are those of kernels that were built here (`kernel.objects.of_image`). For one that was built elsewhere,
    `given` names the folder of its build or its vmlinux with debug information. Errors: `InvalidInput` (`given`).
    """
    if given is None:
        return objects.of_image(kernel, cache)
    return objects.of_build(given) if given.is_dir() else debug_info.of_vmlinux(given)


def files_of(
    kernel: Path, addresses: Iterable[int], given: Path | None = None, *, cache: Cache | None = None
) -> dict[int, str]:
    """The source file of each function by its address; "" where it is not known."""
    known = map_of(kernel, given, cache=cache)
    return {address: known.source_at(address) if known else "" for address in addresses}


def functions(
    kernel: Path, system_map: Path | None = None, given: Path | None = None, *, cache: Cache | None = None
) -> Functions:
    """The functions of a kernel, by which a guest is counted; `given` is as of `map_of`. Errors: as of `map_of`."""
    names = functions_of(kernel, system_map)
    return Functions(names, files_of(kernel, names, given, cache=cache))


def folder_of(function: FunctionCount) -> str:
    """The folder of a function's source file; for what is not the kernel's, its region."""
    if function.region is not Region.KERNEL:
        return f"({function.region})"
    return str(PurePosixPath(function.file).parent) if function.file else UNKNOWN


def subsystem_of(function: FunctionCount) -> str:
    """The first one or two folders of a function's source file; for what is not the kernel's, its region."""
    return "/".join(folder_of(function).split("/")[:_DEPTH])


def file_of(function: FunctionCount) -> str:
    """The source file of a function, or what takes its place in a table."""
    return function.file or (UNKNOWN if function.region is Region.KERNEL else f"({function.region})")


def counts_by(profile: Profile, part: Callable[[FunctionCount], str]) -> dict[str, int]:
    """Sum a profile's instructions by `file_of`, `folder_of` or `subsystem_of`; the largest first."""
    sums: Counter[str] = Counter()
    for function in profile.functions:
        sums[part(function)] += function.self_count
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))
