"""Call trees: what the plugin writes of them, by stack and by function."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.vm import calls, counting

KERNEL = 0xFFFF_FFFF_8100_0000
ADDRESSES = (0, KERNEL, KERNEL + 16, KERNEL + 32)
NAMES = {KERNEL: "start_kernel", KERNEL + 16: "memset", KERNEL + 32: "irq_entries_start"}
SAID = """\
node 0 0
node 0 4
node 0 5
node 0 1
node 4 2
node 2 3
node 6 2
self 1 500
self 4 30
self 5 12
self 6 2
self 7 5
returns 10 1
mark 1 1000 40
0 500
1 30
2 17
3 2
.
node 5 2
self 5 8
self 8 3
returns 14 1
end 0 0 -1
0 500
1 30
2 28
3 2
.
"""


def test_counts_are_read_by_stack() -> None:
    first, last = counting.read_snapshots(SAID.splitlines(), ADDRESSES)
    assert first.calls is not None
    assert last.calls is not None
    assert first.calls.by_function() == first.counts
    assert last.calls.by_function() == last.counts
    assert first.calls.stacks(NAMES) == {
        ("(user space)",): 500,
        ("start_kernel",): 30,
        ("start_kernel", "memset"): 12,
        ("(interrupts)", "irq_entries_start"): 2,
        ("(interrupts)", "irq_entries_start", "memset"): 5,
    }
    assert (first.calls.returns, first.calls.unmatched_returns) == (10, 1)


def test_a_function_below_one_of_its_name_is_one_with_it() -> None:
    first, last = counting.read_snapshots(SAID.splitlines(), ADDRESSES)
    assert last.calls is not None
    assert last.calls.stacks(NAMES, first.calls) == {("start_kernel", "memset"): 11}


def test_inclusive_counts_have_each_stack_once() -> None:
    _, last = counting.read_snapshots(SAID.splitlines(), ADDRESSES)
    assert last.calls is not None
    inclusive = last.calls.inclusive(NAMES)
    assert inclusive["start_kernel"] == 30 + 12 + 8 + 3
    assert inclusive["memset"] == last.counts[KERNEL + 16]


def test_a_guest_without_a_call_tree_has_none() -> None:
    lines = [line for line in SAID.splitlines() if not line.startswith(("node", "self", "returns"))]
    assert [one.calls for one in counting.read_snapshots(lines, ADDRESSES)] == [None, None]


@pytest.mark.parametrize("line", ["node 1 0", "node 0 6", "self 1 5", "self 0 5"])
def test_what_is_not_a_tree_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput, match="calls="):
        list(counting.read_snapshots([line], ADDRESSES))


def test_entries_of_the_kernel_are_known_by_name() -> None:
    names = {**NAMES, KERNEL: "asm_exc_page_fault", KERNEL + 16: "__switch_to_asm"}
    plain, entry, switch, stubs = calls.kinds_of(ADDRESSES, names)
    assert (plain, entry, switch, stubs) == (0, 1, 8, 7)


def test_a_kernel_without_names_has_no_call_tree() -> None:
    with pytest.raises(InvalidInput, match="__switch_to_asm"):
        calls.kinds_of(ADDRESSES, {})


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3), st.integers(0, 9)), max_size=50))
def test_stacks_add_up_to_functions(nodes: list[tuple[int, int, int]]) -> None:
    tree = calls.CallTree(addresses=ADDRESSES)
    for number, (parent, function, count) in enumerate(nodes, 1):
        tree.add_node(parent % number, function)
        tree.add_count(number, count)
    taken = tree.taken(returns=0, unmatched_returns=0)
    assert sum(taken.stacks(NAMES).values()) == sum(taken.by_function().values()) == sum(count for *_, count in nodes)
    inclusive = taken.inclusive(NAMES)
    assert all(inclusive[NAMES[address]] >= own for address, own in taken.by_function().items() if address)
