"""From counts to a profile: phases are differences, what is counted twice is named, and everything adds up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.boot import BootCell, profiling
from acon_nb.errors import AconError, InvalidInput
from acon_nb.profile import Region, tables
from acon_nb.profile.counts import REPEATED, Functions, PhaseEnd, base_name, profile_of
from acon_nb.swap import profiling as guests
from acon_nb.vm import Capabilities, Clock, Moment, Snapshot
from acon_nb.vm.calls import CallTree
from acon_nb.vm.counting import KERNEL_BASE, MODULES_BASE

TEXT = 0xFFFF_FFFF_8100_0000
FAULT, FIRST, SECOND, LONE = TEXT, TEXT + 0x40, TEXT + 0x80, TEXT + 0xC0
NAMES = {FAULT: "asm_exc_page_fault", FIRST: "type_show", SECOND: "type_show", LONE: "copy_page.cold"}
FUNCTIONS = Functions(NAMES, {LONE: "arch/x86/lib/copy_page_64.S"})


def snapshot(
    executed: int, counts: dict[int, int], *, idle_ns: int | None = 0, physical: dict[int, int] | None = None
) -> Snapshot:
    return Snapshot(
        moment=Moment.INIT,
        tsc_ns=executed + (idle_ns or 0),
        idle_ns=idle_ns,
        counts=counts,
        physical=physical or {},
    )


EARLY = snapshot(100, {}, physical={0xE0000: 60, 0x10_0000: 40})
KERNEL = snapshot(
    160,
    {FAULT: 1, FAULT + 1: 9, FIRST: 20, SECOND: 10, LONE: 5, MODULES_BASE: 7, KERNEL_BASE: 2},
    idle_ns=1000,
    physical={0xE0000: 60, 0x10_0000: 47},
)
READY = snapshot(
    190,
    {FAULT: 3, FAULT + 1: 27, FIRST: 20, SECOND: 10, LONE: 5, MODULES_BASE: 7, KERNEL_BASE: 2, 0: 12},
    idle_ns=5000,
    physical={0xE0000: 60, 0x10_0000: 47},
)
PHASES = [
    PhaseEnd(name="firmware", end=EARLY, early=("(firmware)", Region.FIRMWARE)),
    PhaseEnd(name="kernel", end=KERNEL),
    PhaseEnd(name="/init", end=READY),
]


def test_each_phase_has_what_was_counted_in_it() -> None:
    profile = profile_of(PHASES, FUNCTIONS, origin={"kernel": "bzImage"})
    counts = {(one.name, one.phase): one.self_count for one in profile.functions}
    assert counts == {
        ("(firmware)", "firmware"): 100,
        ("type_show#1", "kernel"): 20,
        ("type_show#2", "kernel"): 10,
        ("asm_exc_page_fault", "kernel"): 10,
        ("(kernel at physical addresses)", "kernel"): 7,
        ("(modules)", "kernel"): 7,
        ("copy_page.cold", "kernel"): 5,
        ("(other kernel addresses)", "kernel"): 2,
        (REPEATED, "kernel"): -1,
        ("asm_exc_page_fault", "/init"): 20,
        ("(user space)", "/init"): 12,
        (REPEATED, "/init"): -2,
    }
    assert profile.total == 190
    assert profile.unattributed == 0
    assert profile.phases == ("firmware", "kernel", "/init")
    assert {one.file for one in profile.functions if one.name == "copy_page.cold"} == {"arch/x86/lib/copy_page_64.S"}


def test_call_stacks_have_the_names_of_functions() -> None:
    addresses = (0, KERNEL_BASE, FAULT, FAULT + 1, FIRST, SECOND, LONE, MODULES_BASE)
    tree = CallTree(addresses=addresses)
    # user space, below it the fault's entry and its rest, below that a function; a function at the root
    for parent, address in ((0, 0), (1, FAULT), (2, FAULT + 1), (3, SECOND), (0, FIRST)):
        tree.add_node(parent, addresses.index(address))
    for node, count in ((2, 1), (3, 9), (4, 10), (5, 20)):
        tree.add_count(node, count)
    kernel = replace(KERNEL, calls=tree.taken(returns=1, unmatched_returns=0))
    for node, count in ((1, 12), (2, 2), (3, 18)):
        tree.add_count(node, count)
    ready = replace(READY, calls=tree.taken(returns=1, unmatched_returns=0))
    phases = [PHASES[0], replace(PHASES[1], end=kernel), replace(PHASES[2], end=ready)]
    profile = profile_of(phases, FUNCTIONS)
    assert profile.stacks == {
        ("kernel", "(user space)", "asm_exc_page_fault"): 10,
        ("kernel", "(user space)", "asm_exc_page_fault", "type_show#2"): 10,
        ("kernel", "type_show#1"): 20,
        ("/init", "(user space)"): 12,
        ("/init", "(user space)", "asm_exc_page_fault"): 20,
    }
    assert replace(profile, stacks={}) == profile_of(PHASES, FUNCTIONS)


def test_the_set_up_calls_the_firmware() -> None:
    before = snapshot(50, {}, physical={0xF_0000: 50})
    end = snapshot(60, {}, physical={0xF_0000: 54, 0x1_0000: 6})
    phase = PhaseEnd(name="set-up", end=end, early=("(set-up)", Region.UNPACKING))
    rows = profile_of([phase], FUNCTIONS, begin=before).functions
    assert {one.name: one.self_count for one in rows} == {"(firmware)": 4, "(set-up)": 6}


def test_a_moment_without_a_time_leaves_what_was_repeated_to_the_next_phase() -> None:
    untimed = replace(KERNEL, tsc_ns=0)
    profile = profile_of([PHASES[0], PhaseEnd(name="kernel", end=untimed), PHASES[2]], FUNCTIONS)
    repeated = {one.phase: one.self_count for one in profile.functions if one.name == REPEATED}
    assert repeated == {"/init": -3}
    assert profile.total == 190
    assert profile.unattributed == 0


def test_functions_of_one_name_stay_apart() -> None:
    names = FUNCTIONS.unique_names()
    assert names[FIRST] != names[SECOND]
    assert base_name(names[FIRST]) == base_name(names[SECOND]) == "type_show"
    assert names[LONE] == "copy_page.cold"


def test_more_instructions_than_faults_explain_are_unattributed() -> None:
    late = snapshot(150, dict(KERNEL.counts), physical=dict(KERNEL.physical))
    profile = profile_of([PHASES[0], PhaseEnd(name="kernel", end=late)], FUNCTIONS)
    repeated = [one.self_count for one in profile.functions if one.name == REPEATED]
    assert repeated == [-1]
    assert profile.unattributed == -10


def test_a_fault_without_a_repeated_instruction_adds_none() -> None:
    fetched = snapshot(161, dict(KERNEL.counts), physical=dict(KERNEL.physical))
    profile = profile_of([PHASES[0], PhaseEnd(name="kernel", end=fetched)], FUNCTIONS)
    assert REPEATED not in {one.name for one in profile.functions}
    assert profile.unattributed == 0


def test_a_kernel_without_symbols_is_one_entry() -> None:
    end = snapshot(30, {KERNEL_BASE: 20, MODULES_BASE: 3, 0: 7})
    profile = profile_of([PhaseEnd(name="kernel", end=end)], Functions({}))
    assert {one.name: one.self_count for one in profile.functions} == {
        "(kernel)": 20,
        "(user space)": 7,
        "(modules)": 3,
    }


def test_part_of_a_guest_is_profiled_from_its_beginning() -> None:
    profile = profile_of([PHASES[2]], FUNCTIONS, begin=KERNEL)
    assert profile.total == 30
    assert sum(one.self_count for one in profile.functions) == 30


def test_without_the_idle_time_there_is_no_profile() -> None:
    with pytest.raises(AconError, match="idle time"):
        profile_of([PhaseEnd(name="kernel", end=snapshot(10, {}, idle_ns=None))], FUNCTIONS)


ADDRESSES = [0, KERNEL_BASE, MODULES_BASE, *NAMES, FAULT + 1]
GROWTH = st.dictionaries(st.sampled_from(ADDRESSES), st.integers(0, 1 << 40))
EARLIER = st.dictionaries(st.sampled_from([0x10000, 0xF0000, 0x10_0000]), st.integers(0, 1 << 40))


@given(st.lists(st.tuples(GROWTH, EARLIER, st.integers(0, 1 << 44), st.integers(0, 1 << 50)), min_size=1, max_size=5))
def test_functions_and_the_remainder_are_the_total(
    spans: list[tuple[dict[int, int], dict[int, int], int, int]],
) -> None:
    counts: dict[int, int] = {}
    physical: dict[int, int] = {}
    executed, idle = 0, 0
    phases = []
    for number, (grown, early, instructions, slept) in enumerate(spans):
        counts = {address: counts.get(address, 0) + grown.get(address, 0) for address in {*counts, *grown}}
        physical = {address: physical.get(address, 0) + early.get(address, 0) for address in {*physical, *early}}
        executed, idle = executed + instructions, idle + slept
        phases.append(PhaseEnd(name=f"phase {number}", end=snapshot(executed, counts, idle_ns=idle, physical=physical)))
    profile = profile_of(phases, FUNCTIONS)
    assert profile.total == executed
    assert sum(one.self_count for one in profile.functions) + profile.unattributed == executed
    counted = sum(one.self_count for one in profile.functions if one.name != REPEATED)
    assert counted == phases[-1].end.counted
    assert sum(tables.phase_counts(profile).values()) == counted - sum(
        -one.self_count for one in profile.functions if one.name == REPEATED
    )
    assert profile_of(phases, FUNCTIONS).sha256 == profile.sha256


def test_the_table_ranks_functions_of_all_phases() -> None:
    table = tables.ranked(profile_of(PHASES, FUNCTIONS))
    assert list(table["function"][:2]) == ["(firmware)", "asm_exc_page_fault"]
    assert list(table["kernel"][:2]) == [0, 10]
    assert table["self"].sum() == 190
    assert "asm_exc_page_fault" in tables.ranked_text(profile_of(PHASES, FUNCTIONS), 2)


@pytest.mark.parametrize(
    ("by", "first", "known"),
    [
        ("file", "(firmware)", "arch/x86/lib/copy_page_64.S"),
        ("folder", "(firmware)", "arch/x86/lib"),
        ("subsystem", "(firmware)", "arch/x86"),
    ],
)
def test_functions_are_summed_by_where_they_come_from(by: str, first: str, known: str) -> None:
    profile = profile_of(PHASES, FUNCTIONS)
    table = tables.grouped(profile, by)
    assert table[by].iloc[0] == first
    assert table["self"].sum() == profile.total - profile.unattributed == 190
    assert list(table[table[by] == known]["kernel"]) == [5]
    assert known in tables.grouped_text(profile, by)


def at(moment: int, one: Snapshot) -> Snapshot:
    return replace(one, moment=moment)


def test_a_swap_guest_has_the_phases_that_it_marks() -> None:
    snapshots = [
        replace(EARLY, moment=Moment.USER, tsc_ns=0),
        at(Moment.BEGIN, KERNEL),
        at(Moment.END, snapshot(170, dict(KERNEL.counts), physical=dict(KERNEL.physical))),
        at(Moment.BEGIN, snapshot(175, dict(KERNEL.counts), physical=dict(KERNEL.physical))),
        at(Moment.END, READY),
    ]
    profile = guests.of_snapshots(snapshots, FUNCTIONS)
    assert profile is not None
    assert profile.phases == ("boot", "set-up and fill", "warm-up", "measured")
    assert profile.total == 190
    one_window = guests.of_snapshots([*snapshots[:2], snapshots[-1]], FUNCTIONS)
    assert one_window is not None
    assert one_window.phases == ("boot", "set-up and fill", "measured")
    assert guests.of_snapshots(snapshots[:2], FUNCTIONS) is None


def test_the_wall_clock_and_unmarked_moments_are_refused(tmp_path: Path) -> None:
    initrd = tmp_path / "any.cpio"
    initrd.write_bytes(b"")
    wall = BootCell(name="one", kernel=initrd, initrd=initrd, clock=Clock.WALL)
    with pytest.raises(InvalidInput, match="counted in instructions"):
        profiling.profile(wall)
    counted = BootCell(name="one", kernel=initrd, initrd=initrd, clock=Clock.INSTRUCTIONS)
    with pytest.raises(InvalidInput, match="not marked"):
        profiling.profile(counted, until="ready")
    with pytest.raises(InvalidInput, match="not a moment"):
        profiling.profile(counted, until="soon")


@pytest.mark.parametrize(
    ("reached", "names", "entries"),
    [
        ((), ["firmware + real-mode set-up + unpacking + kernel"], {"(before the kernel)"}),
        (
            ("kernel_entry",),
            ["firmware", "real-mode set-up + unpacking + kernel"],
            {"(firmware)", "(before the kernel)"},
        ),
        (
            ("kernel",),
            ["firmware + real-mode set-up + unpacking", "kernel"],
            {"(before the kernel)", "(kernel at physical addresses)"},
        ),
    ],
)
def test_a_phase_whose_end_is_not_found_joins_the_next(
    reached: tuple[str, ...], names: list[str], entries: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(b"")
    cell = BootCell(name="one", kernel=kernel, initrd=kernel, clock=Clock.INSTRUCTIONS)
    monkeypatch.setattr(profiling, "cached_milestones", lambda *_: dict.fromkeys(reached, EARLY))
    monkeypatch.setattr(profiling, "origin_of", lambda *_: {})
    outcome = SimpleNamespace(snapshots=(KERNEL,))
    profile = profiling.of_outcome(cell, outcome, FUNCTIONS, until="init", host=Capabilities(qemu=kernel))  # type: ignore[arg-type]
    assert list(profile.phases) == names
    assert {one.name for one in profile.functions} >= entries
    assert profile.unattributed == 0
