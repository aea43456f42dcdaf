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
from pathlib import Path

from acon_nb.errors import AconError
from acon_nb.profile.model import EARLY_KERNEL, FunctionCount, Profile, Region
from acon_nb.profile.modules import GuestModules, Instruction
from acon_nb.profile.programs import GuestPrograms, of_initrds
from acon_nb.vm import Snapshot
from acon_nb.vm.counting import KERNEL_BASE, MODULES_BASE

REPEATED = "(repeated after faults)"
USER, MODULES = "(user space)", "(modules)"
_WHOLE = {Region.USER: USER, Region.MODULE: MODULES}  # what functions are parts of
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

    `programs` and `modules` are those of the guest, whose functions have entries of their own.
    """

    names: Mapping[int, str]
    files: Mapping[int, str] = field(default_factory=dict)
    programs: GuestPrograms = field(default_factory=GuestPrograms)
    modules: GuestModules = field(default_factory=GuestModules)

    def with_initrds(self, *archives: Path) -> Functions:
        """The same with the programs and modules of a guest's initrd, given as the archives that it is made of."""
        return replace(self, programs=of_initrds(*archives), modules=GuestModules(archives))

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


@dataclass(frozen=True)
class _Names:
    """The names of what a guest executed: of the kernel's functions by address, of modules by instruction."""

    functions: Functions
    kernel: Mapping[int, str]
    modules: Mapping[Instruction, tuple[str, str]]

    def in_files(self, end: Snapshot, begin: Snapshot | None) -> Counter[tuple[str, str, Region]]:
        """What each function of the guest's programs and modules executed between two moments."""
        counts: Counter[tuple[str, str, Region]] = Counter()
        for snapshot, sign in ((end, 1), (begin, -1)):
            if snapshot is None:
                continue
            for (name, file), count in self.functions.programs.counts(snapshot.user).items():
                counts[name, file, Region.USER] += sign * count
            for instruction, count in snapshot.modules.items():
                if (place := self.modules.get(instruction)) is not None:
                    counts[*place, Region.MODULE] += sign * count
        return counts


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
    modules = functions.modules.names(phases[-1].end.modules) if phases else {}
    names = _Names(functions, functions.unique_names(), modules)
    rows: list[FunctionCount] = []
    before = timed = begin
    for phase in phases:
        counts = _counts(phase, before, names)
        before = phase.end
        if phase.end.tsc_ns:
            counts[REPEATED, "", Region.OTHER] = -_repeated(phase.end, timed, functions)
            timed = phase.end
        rows += _rows(phase.name, counts)
    total = executed(phases[-1].end) - (0 if begin is None else executed(begin)) if phases else 0
    stacks: dict[tuple[str, ...], int] = {}
    before = begin
    for phase in phases:
        stacks |= _stacks(phase, before, names)
        before = phase.end
    return Profile(
        total=total,
        phases=tuple(phase.name for phase in phases),
        functions=tuple(rows),
        stacks=stacks,
        origin=dict(origin or {}),
    )


def _counts(phase: PhaseEnd, before: Snapshot | None, names: _Names) -> Counter[tuple[str, str, Region]]:
    """What was counted in a phase, by name, file and region."""
    counts: Counter[tuple[str, str, Region]] = Counter()
    for snapshot, sign in ((phase.end, 1), (before, -1)):
        if snapshot is None:
            continue
        for address, count in names.functions.merged(snapshot).counts.items():
            counts[_entry(address, names)] += sign * count
        for address, count in snapshot.physical.items():
            counts[_physical(address, phase.early)] += sign * count
    for entry, count in names.in_files(phase.end, before).items():
        counts[entry] += count
        counts[_WHOLE[entry[2]], "", entry[2]] -= count
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


def _stacks(phase: PhaseEnd, before: Snapshot | None, names: _Names) -> dict[tuple[str, ...], int]:
    """The instructions of one phase by call stack, the phase first; empty without a tree.

    Names are those of `_rows`, but for modules, which are one function.
    """
    calls = phase.end.calls
    if calls is None:
        return {}
    parts = {address: _entry(address, names)[0] for address in calls.tree.addresses}
    parts |= {address + 1: names.kernel[address] for address in names.functions.entries()}
    counted = calls.stacks(parts, None if before is None else before.calls)
    stacks = {(phase.name, *stack): count for stack, count in counted.items()}
    for (name, _, region), count in names.in_files(phase.end, before).items():
        if region is Region.USER:
            stack = (phase.name, USER, name)
            stacks[stack] = stacks.get(stack, 0) + count
            stacks[stack[:2]] = stacks.get(stack[:2], 0) - count
    return {stack: count for stack, count in stacks.items() if count}


def _entry(address: int, names: _Names) -> tuple[str, str, Region]:
    if address in names.kernel:
        return names.kernel[address], names.functions.files.get(address, ""), Region.KERNEL
    if address < KERNEL_BASE:
        return USER, "", Region.USER
    if address == MODULES_BASE:
        return MODULES, "", Region.MODULE
    return (_OTHER, "", Region.OTHER) if names.kernel else (_KERNEL, "", Region.KERNEL)


def _physical(address: int, early: tuple[str, Region]) -> tuple[str, str, Region]:
    name, region = early
    if region is Region.UNPACKING and address in _ROM:
        name, region = "(firmware)", Region.FIRMWARE
    return name, "", region
