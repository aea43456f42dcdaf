"""From what a counted guest executed to its profile: the differences between moments, by function.

Names are the kernel's own, with what the compiler adds (.isra.0, .constprop.0, .cold). Several functions of one name
stay apart: each has its number in the order of their addresses ("type_show#2"), `base_name` is without it.

The plugin counts an instruction when it begins, the clock when it is completed: one that faults and is repeated is
counted twice. How many faults there were is counted at the kernel's entries for them, and up to that number the
difference is an entry of its own, below 0. A fault at the fetch of an instruction counts no instruction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from acon_nb.errors import AconError
from acon_nb.profile.model import EARLY_KERNEL, FunctionCount, Profile, Region
from acon_nb.profile.programs import GuestPrograms
from acon_nb.study.functions import MODULES_BASE
from acon_nb.vm import Snapshot
from acon_nb.vm.counting import KERNEL_BASE

REPEATED = "(repeated after faults)"
USER, MODULES = "(user space)", "(modules)"
_KERNEL, _OTHER = "(kernel)", "(other kernel addresses)"
_ROM = range(0xC_0000, 0x10_0000)  # of a PC's firmware, which the kernel's real-mode set-up calls
# Source: arch/x86/include/asm/idtentry.h; arch/x86/kernel/head_64.S. Exceptions of class fault: Intel SDM 3, 6.15.
_FAULTS = frozenset(
    f"asm_exc_{name}"
    for name in (
        "page_fault", "general_protection", "invalid_op", "device_not_available", "divide_error", "bounds",
        "segment_not_present", "stack_segment", "alignment_check", "invalid_tss",
    )
) | {"early_idt_handler_common"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PhaseEnd:
    """A phase, and what had been counted as it ended.

    Where `end` has no time (`tsc_ns` is 0), what was counted twice is an entry of the next phase whose end has one. The
    last must have it. `early` is what ran in it before the kernel did, at physical addresses.
    """

    name: str
    end: Snapshot
    early: tuple[str, Region] = (EARLY_KERNEL, Region.KERNEL)


@dataclass(frozen=True)
class Functions:
    """A kernel's functions by address, `names` as of `study.functions`, `files` their sources where they are known.

    `programs` are those of the guest, whose functions have entries of their own.
    """

    names: Mapping[int, str]
    files: Mapping[int, str] = field(default_factory=dict)
    programs: GuestPrograms = field(default_factory=GuestPrograms)

    def starts(self) -> tuple[int, ...]:
        """The addresses by which a guest is counted: functions, modules, and the second byte of entries for faults."""
        return (*self.names, MODULES_BASE, *(address + 1 for address in self.entries()))

    def merged(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot by functions alone, as of a guest that is counted without entries for faults."""
        counts = dict(snapshot.counts)
        for address in self.entries():
            if rest := counts.pop(address + 1, 0):
                counts[address] = counts.get(address, 0) + rest
        return replace(snapshot, counts=counts)

    def faults(self, snapshot: Snapshot) -> int:
        """How many faults the kernel has entered: the first instruction of an entry is counted alone."""
        return sum(snapshot.counts.get(address, 0) for address in self.entries())

    def unique_names(self) -> dict[int, str]:
        """The name of each function, with its number where several have it."""
        several = Counter(self.names.values())
        numbers: Counter[str] = Counter()
        names = {}
        for address in sorted(self.names):
            name = self.names[address]
            numbers[name] += 1
            names[address] = name if several[name] == 1 else f"{name}#{numbers[name]}"
        return names

    def entries(self) -> list[int]:
        """The addresses at which the kernel is entered for a fault."""
        return [address for address, name in self.names.items() if name in _FAULTS]


def base_name(name: str) -> str:
    """A function's name without the number that tells it from others of that name."""
    return name.partition("#")[0]


def executed(snapshot: Snapshot) -> int:
    """The instructions executed until a moment, of its time. Errors: `AconError` where the idle time is not known."""
    if snapshot.idle_ns is None:
        hint = "use a QEMU that exports its clock to plugins, as Debian's does"
        raise AconError("this QEMU does not report the idle time that it skipped", hint=hint)
    return snapshot.tsc_ns - snapshot.idle_ns


def profile_of(
    phases: Sequence[PhaseEnd],
    functions: Functions,
    *,
    begin: Snapshot | None = None,
    origin: Mapping[str, str] | None = None,
) -> Profile:
    """The profile of a guest from `begin` (None: reset) over its phases, counted by `Functions.starts`.

    Errors: `AconError` as of `executed`.
    """
    names = functions.unique_names()
    rows: list[FunctionCount] = []
    before = timed = begin
    for phase in phases:
        counts = _counts(phase, before, functions, names)
        before = phase.end
        if phase.end.tsc_ns:
            counts[REPEATED, "", Region.OTHER] = -_repeated(phase.end, timed, functions)
            timed = phase.end
        rows += _rows(phase.name, counts)
    total = executed(phases[-1].end) - (0 if begin is None else executed(begin)) if phases else 0
    stacks: dict[tuple[str, ...], int] = {}
    before = begin
    for phase in phases:
        stacks |= _stacks(phase, before, functions, names)
        before = phase.end
    return Profile(
        total=total,
        phases=tuple(phase.name for phase in phases),
        functions=tuple(rows),
        stacks=stacks,
        origin=dict(origin or {}),
    )


def _counts(
    phase: PhaseEnd, before: Snapshot | None, functions: Functions, names: Mapping[int, str]
) -> Counter[tuple[str, str, Region]]:
    """What was counted in a phase, by name, file and region."""
    counts: Counter[tuple[str, str, Region]] = Counter()
    for snapshot, sign in ((phase.end, 1), (before, -1)):
        if snapshot is None:
            continue
        for address, count in functions.merged(snapshot).counts.items():
            counts[_entry(address, functions, names)] += sign * count
        for address, count in snapshot.physical.items():
            counts[_physical(address, phase.early)] += sign * count
    for (name, file), count in _of_programs(phase, before, functions).items():
        counts[name, file, Region.USER] += count
        counts[USER, "", Region.USER] -= count
    return counts


def _of_programs(phase: PhaseEnd, before: Snapshot | None, functions: Functions) -> Counter[tuple[str, str]]:
    """What each function of the guest's programs executed in a phase, by name and file."""
    counts = functions.programs.counts(phase.end.user)
    counts.subtract(functions.programs.counts({} if before is None else before.user))
    return counts


def _repeated(end: Snapshot, begin: Snapshot | None, functions: Functions) -> int:
    """The instructions that were counted twice between two moments, as far as faults explain them."""
    excess, faults = end.counted - executed(end), functions.faults(end)
    if begin is not None:
        excess, faults = excess - (begin.counted - executed(begin)), faults - functions.faults(begin)
    return max(0, min(excess, faults))


def _rows(phase: str, counts: Counter[tuple[str, str, Region]]) -> Iterator[FunctionCount]:
    """The entries of one phase, the most instructions first."""
    for name, file, region in sorted((entry for entry in counts if counts[entry]), key=lambda one: (-counts[one], one)):
        yield FunctionCount(name=name, phase=phase, self_count=counts[name, file, region], file=file, region=region)


def _stacks(
    phase: PhaseEnd, before: Snapshot | None, functions: Functions, names: Mapping[int, str]
) -> dict[tuple[str, ...], int]:
    """The instructions of one phase by call stack, the phase first, with the names of `_rows`; empty without a tree."""
    calls = phase.end.calls
    if calls is None:
        return {}
    parts = {address: _entry(address, functions, names)[0] for address in calls.tree.addresses}
    parts |= {address + 1: names[address] for address in functions.entries()}
    counted = calls.stacks(parts, None if before is None else before.calls)
    stacks = {(phase.name, *stack): count for stack, count in counted.items()}
    for (name, _), count in _of_programs(phase, before, functions).items():
        stack = (phase.name, USER, name)
        stacks[stack] = stacks.get(stack, 0) + count
        stacks[stack[:2]] = stacks.get(stack[:2], 0) - count
    return {stack: count for stack, count in stacks.items() if count}


def _entry(address: int, functions: Functions, names: Mapping[int, str]) -> tuple[str, str, Region]:
    if address in names:
        return names[address], functions.files.get(address, ""), Region.KERNEL
    if address < KERNEL_BASE:
        return USER, "", Region.USER
    if address == MODULES_BASE:
        return MODULES, "", Region.MODULE
    return (_OTHER, "", Region.OTHER) if names else (_KERNEL, "", Region.KERNEL)


def _physical(address: int, early: tuple[str, Region]) -> tuple[str, str, Region]:
    name, region = early
    if region is Region.UNPACKING and address in _ROM:
        name, region = "(firmware)", Region.FIRMWARE
    return name, "", region
