"""Call trees: a guest's instructions by call stack, as the plugin (`calls.c`) counted them.

A *node* is a function under a chain of callers; its count is what the function executed itself there. A function that
jumps to another stays in its chain, as if it had called it. Exceptions and system calls are below what they
interrupted, interrupts below a root of their own.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from acon_nb.errors import InvalidInput

INTERRUPTS = "(interrupts)"
FOLDED = "(folded)"
USER = "(user space)"
_ENTRY, _INTERRUPT, _STUBS, _SWITCH, _THUNK = 1, 2, 4, 8, 16  # enum kind of calls.c
_KINDS = {
    "__switch_to_asm": _SWITCH,
    "early_idt_handler_array": _ENTRY | _STUBS,
    "irq_entries_start": _ENTRY | _INTERRUPT | _STUBS,
    "spurious_entries_start": _ENTRY | _INTERRUPT | _STUBS,
    "entry_SYSCALL_64": _ENTRY,
    "entry_SYSCALL_compat": _ENTRY,
    "entry_SYSENTER_compat": _ENTRY,
    "entry_INT80_compat": _ENTRY,
    "asm_int80_emulation": _ENTRY,
    "asm_fred_entrypoint_user": _ENTRY,
    "asm_fred_entrypoint_kernel": _ENTRY,
}


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Instructions by call stack up to a moment.

    `counts` are instructions by node of the `tree`. Of `returns`, `unmatched_returns` returned to what no call and no
    entry into the kernel had left, as does the first return of each new task.
    """

    tree: CallTree
    counts: Sequence[int]
    returns: int
    unmatched_returns: int

    def since(self, begin: Calls | None) -> Iterator[tuple[int, int]]:
        """The nodes that executed something since `begin` (None: since reset), with their instructions."""
        before = [] if begin is None else begin.counts
        for node, count in enumerate(self.counts):
            own = count - (before[node] if node < len(before) else 0)
            if own:
                yield node, own

    def by_function(self, begin: Calls | None = None) -> dict[int, int]:
        """Instructions by the address at which a function starts, as of `Snapshot.counts`."""
        sums: dict[int, int] = {}
        for node, own in self.since(begin):
            address = self.tree.address(node)
            sums[address] = sums.get(address, 0) + own
        return sums

    def stacks(self, names: Mapping[int, str], begin: Calls | None = None) -> dict[tuple[str, ...], int]:
        """Instructions since `begin` by call stack, the outermost function first."""
        every = self.tree.stacks(names)
        sums: dict[tuple[str, ...], int] = {}
        for node, own in self.since(begin):
            sums[every[node]] = sums.get(every[node], 0) + own
        return sums

    def inclusive(self, names: Mapping[int, str], begin: Calls | None = None) -> dict[str, int]:
        """Instructions since `begin` by function with all that it called; once where it is in a stack twice."""
        sums: dict[str, int] = {}
        for stack, own in self.stacks(names, begin).items():
            for name in set(stack):
                sums[name] = sums.get(name, 0) + own
        return sums


@dataclass(kw_only=True)
class CallTree:
    """The nodes of a guest's call tree, as they are read; node 0 is the root."""

    addresses: Sequence[int]
    _parents: array[int] = field(default_factory=lambda: array("L", [0]))
    _functions: array[int] = field(default_factory=lambda: array("L", [0]))
    _counts: array[int] = field(default_factory=lambda: array("Q", [0]))

    def add_node(self, parent: int, function: int) -> None:
        """Add a node: the function with this index of `addresses`, below `parent`. Errors: `InvalidInput`."""
        if not 0 <= parent < len(self._parents) or not 0 <= function < len(self.addresses) + 2:
            raise InvalidInput("calls", f"node {parent} {function}", "is not a node of a call tree")
        self._parents.append(parent)
        self._functions.append(function)
        self._counts.append(0)

    def add_count(self, node: int, count: int) -> None:
        """Add instructions of a node. Errors: `InvalidInput`."""
        if not 0 < node < len(self._counts):
            raise InvalidInput("calls", f"self {node} {count}", "is not a node of the call tree")
        self._counts[node] += count

    def taken(self, *, returns: int, unmatched_returns: int) -> Calls:
        """What has been counted so far."""
        return Calls(tree=self, counts=self._counts[:], returns=returns, unmatched_returns=unmatched_returns)

    def address(self, node: int) -> int:
        """The address at which a node's function starts."""
        return self.addresses[self._functions[node]]

    def stacks(self, names: Mapping[int, str]) -> list[tuple[str, ...]]:
        """The functions of each node, the outermost first; two parts of one name, one above the other, are one."""
        stacks: list[tuple[str, ...]] = [()]
        for parent, function in itertools.islice(zip(self._parents, self._functions, strict=True), 1, None):
            name, above = self._name(function, names), stacks[parent]
            stacks.append(above if above[-1:] == (name,) else (*above, name))
        return stacks

    def _name(self, function: int, names: Mapping[int, str]) -> str:
        if function >= len(self.addresses):
            return (INTERRUPTS, FOLDED)[function - len(self.addresses)]
        address = self.addresses[function]
        return names.get(address) or (f"({address:#x})" if address else USER)


def kinds_of(addresses: Sequence[int], names: Mapping[int, str]) -> bytes:
    """What each function of a kernel is to the call tree: a byte, `enum kind` of calls.c.

    Errors: `InvalidInput` for names that are not those of an x86-64 kernel's functions.
    """
    kinds = bytes(_kind(names.get(address, "")) for address in addresses)
    if not any(kind & _SWITCH for kind in kinds):
        hint = "give the System.map of the kernel, or a kernel with KALLSYMS"
        raise InvalidInput("calls", f"{len(names)} functions", "do not have __switch_to_asm", hint=hint)
    return kinds


def _kind(name: str) -> int:
    if name.startswith("asm_exc_"):
        return _ENTRY
    if name.startswith("asm_sysvec_"):
        return _ENTRY | _INTERRUPT
    if name.startswith("__x86_indirect_") or "return_thunk" in name:
        return _THUNK
    return _KINDS.get(name, 0)
