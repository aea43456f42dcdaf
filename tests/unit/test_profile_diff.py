"""Two profiles compared: sums are exact, a planted cost shows as what it is, and what compilers do is layout."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.profile import FunctionCount, Profile, Region, diff, diff_text, phases
from acon_nb.profile.diff import ChangeKind, DifferenceVerdict, difference
from acon_nb.profile.layout import Layout, canonical
from acon_nb.profile.timing import timing

KERNEL = "kernel"


def row(name: str, count: int, file: str = "mm/a.c", phase: str = KERNEL, region: Region = Region.KERNEL):
    return FunctionCount(name=name, phase=phase, self_count=count, file=file, region=region)


def profile(*rows: FunctionCount, extra: int = 0) -> Profile:
    return Profile(
        total=sum(one.self_count for one in rows) + extra,
        phases=tuple(dict.fromkeys(one.phase for one in rows)),
        functions=rows,
    )


BASE = (
    row("(firmware)", 400_000, "", "firmware", Region.FIRMWARE),
    row("(unpacking)", 9_000_000, "", "unpacking", Region.UNPACKING),
    row("alloc_pages", 50_000),
    row("alloc_pages", 700, phase="/init"),
    row("get_page.isra.0", 20_000),
    row("helper", 1_000),
    row("walk", 3_000, "mm/b.c"),
    row("type_show#1", 10, "fs/x.c"),
    row("type_show#2", 30, "fs/y.c"),
    row("(user space)", 12_345, "", "/init", Region.USER),
)


def with_counts(**counts: int) -> Profile:
    """The base profile with other counts in its kernel phase."""
    return profile(*(
        replace(one, self_count=counts.get(one.name, one.self_count)) if one.phase == KERNEL else one for one in BASE
    ))  # fmt: skip


def without(*names: str) -> tuple[FunctionCount, ...]:
    return tuple(one for one in BASE if one.name not in names)


def test_a_profile_is_equal_to_itself() -> None:
    compared = difference(profile(*BASE), profile(*BASE))
    assert compared.verdict is DifferenceVerdict.EQUAL
    assert diff_text.text(compared) == f"equal: {profile(*BASE).total:,} instructions"
    assert compared.changes == compared.of_layout == ()


def test_a_planted_loop_is_exactly_its_cost() -> None:
    compared = difference(profile(*BASE), with_counts(walk=3_000 + 2 * 100_000))
    (planted,) = compared.changes
    assert (planted.name, planted.phase, planted.file, planted.change) == ("walk", KERNEL, "mm/b.c", 200_000)
    assert compared.verdict is DifferenceVerdict.DIFFERENT
    assert "+200,000 by 1 function" in diff_text.sentence(compared)
    assert [(one.part, one.change) for one in compared.by(diff.folder_part) if one.change] == [("mm", 200_000)]


def test_a_planted_loop_is_exactly_its_cost_among_layout() -> None:
    """Another function is inlined in the same file at the same time, and the image is of another length."""
    after = profile(
        *(replace(one, self_count=one.self_count + {"(unpacking)": 700, "alloc_pages": 900, "get_page.isra.0": 50_000}
                  .get(one.name, 0) * (one.phase != "/init")) for one in without("helper"))
    )  # fmt: skip
    compared = difference(profile(*BASE), after)
    assert [(one.name, one.change) for one in compared.changes] == [("get_page.isra.0", 50_000)]
    assert {kind: change for kind, (_, change) in compared.layout_groups().items()} == {
        Layout.IMAGE: 700, Layout.INLINED: -100,
    }  # fmt: skip


def test_an_inlined_function_whose_callers_grow_is_layout() -> None:
    after = profile(
        *(replace(one, self_count=50_800) if one.self_count == 50_000 else one for one in without("helper"))
    )
    for one, other in ((profile(*BASE), after), (after, profile(*BASE))):
        compared = difference(one, other)
        assert compared.verdict is DifferenceVerdict.LAYOUT
        assert abs(compared.layout_change) == 200
        assert {found.name for found in compared.of_layout} == {"helper", "alloc_pages"}
        assert diff_text.sentence(compared) == f"equal, but for {compared.change:+,} instructions of layout"


@pytest.mark.parametrize("growth", [0, 100, 400, 1_200, 30_000])
def test_a_function_that_is_gone_and_not_inlined_is_a_change(growth: int) -> None:
    after = without("helper")
    after = tuple(replace(one, self_count=50_000 + growth) if one.self_count == 50_000 else one for one in after)
    compared = difference(profile(*BASE), profile(*after))
    gone = next(one for one in compared.changes if one.name == "helper")
    assert (gone.kind, gone.change) == (ChangeKind.REMOVED, -1_000)
    assert sum(one.change for one in compared.changes) == growth - 1_000


def test_callers_in_other_files_do_not_make_up_for_a_function() -> None:
    after = tuple(replace(one, self_count=3_900) if one.name == "walk" else one for one in without("helper"))
    assert len(difference(profile(*BASE), profile(*after)).changes) == 2


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("get_page.isra.0", "get_page.constprop.0", Layout.NAME),
        ("get_page.isra.0", "get_page", Layout.NAME),
        ("helper", "renamed_helper", Layout.RENAMED),
    ],
)
def test_a_function_of_another_name_and_the_same_counts_is_layout(before: str, after: str, why: Layout) -> None:
    renamed = tuple(replace(one, name=after) if one.name == before else one for one in BASE)
    compared = difference(profile(*BASE), profile(*renamed))
    assert [(one.name, one.before_name, one.layout) for one in compared.of_layout] == [(after, before, why)]
    assert diff_text.sentence(compared) == "equal, but for +0 instructions of layout"


def test_a_function_that_moved_to_another_file_is_one_function() -> None:
    for count in (3_000, 3_007):
        moved = tuple(replace(one, file="mm/new.c", self_count=count) if one.name == "walk" else one for one in BASE)
        compared = difference(profile(*BASE), profile(*moved))
        (only,) = compared.changes or compared.of_layout
        assert (only.file, only.before, only.after) == ("mm/new.c", 3_000, count)
        assert (only.layout is Layout.MOVED) == (count == 3_000)


def test_parts_that_the_compiler_splits_off_count_with_their_function() -> None:
    split = [row("alloc_pages.part.0", 30_000), row("alloc_pages.cold", 5)]
    rest = tuple(replace(one, self_count=19_995) if one.self_count == 50_000 else one for one in BASE)
    compared = difference(profile(*BASE), profile(*rest, *split))
    assert compared.verdict is DifferenceVerdict.LAYOUT
    assert compared.layout_change == 0


def test_functions_of_one_name_are_told_apart_by_their_files_alone() -> None:
    """Their numbers follow the order of addresses: a new function of the name shifts them."""
    renumbered = tuple(
        replace(one, name=one.name.translate(str.maketrans("12", "23"))) if "type_show" in one.name else one
        for one in BASE
    )
    compared = difference(profile(*BASE), profile(*renumbered, row("type_show#1", 7, "fs/new.c")))
    assert [(one.name, one.file, one.change) for one in compared.changes] == [("type_show", "fs/new.c", 7)]


def test_without_files_names_count() -> None:
    bare = profile(*(replace(one, file="") for one in BASE))
    compared = difference(bare, with_counts(walk=3_001))
    assert [(one.name, one.file, one.change) for one in compared.changes] == [("walk", "mm/b.c", 1)]
    assert "compared by name" in diff_text.text(compared)


def test_lookups_of_addresses_depend_on_where_the_code_lies() -> None:
    for change, of_layout in ((-6_855, True), (60_000, False)):
        profiles = [profile(*BASE, row("__orc_find", count)) for count in (9_581_104, 9_581_104 + change)]
        compared = difference(*profiles)
        assert (compared.verdict is DifferenceVerdict.LAYOUT) == of_layout
        assert compared.change == change


def test_much_more_unpacking_is_no_layout() -> None:
    bigger = tuple(replace(one, self_count=9_500_000) if one.name == "(unpacking)" else one for one in BASE)
    assert difference(profile(*BASE), profile(*bigger)).verdict is DifferenceVerdict.DIFFERENT


def test_what_no_function_explains_is_a_difference() -> None:
    compared = difference(profile(*BASE), profile(*BASE, extra=-7))
    assert compared.verdict is DifferenceVerdict.DIFFERENT
    assert "-7 unattributed" in diff_text.text(compared)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.isra.0", "a"),
        ("a.constprop.0.isra.12.cold", "a"),
        ("a.part.0#3", "a"),
        ("(user space)", "(user space)"),
        ("__do_sys_ni_syscall", "__do_sys_ni_syscall"),
        ("__already_done.5", "__already_done"),
        ("a.partial", "a.partial"),
    ],
)
def test_the_names_that_compilers_make(name: str, expected: str) -> None:
    assert canonical(name) == expected


NAMES = st.sampled_from(["a", "b", "a.isra.0", "a.cold", "b.part.0", "c#1", "c#2", "(firmware)"])
ROWS = st.builds(
    FunctionCount,
    name=NAMES,
    phase=st.sampled_from(["kernel", "/init"]),
    self_count=st.integers(-5, 2000),
    file=st.sampled_from(["", "mm/a.c", "fs/b.c"]),
    region=st.sampled_from(Region),
)
PROFILES = st.builds(lambda rows, extra: profile(*rows, extra=extra), st.lists(ROWS, max_size=12), st.integers(-3, 3))


@settings(deadline=None)
@given(PROFILES, PROFILES)
def test_changes_sum_exactly_to_the_difference_of_the_totals(one: Profile, other: Profile) -> None:
    compared = difference(one, other)
    assert compared.change == other.total - one.total
    changes = sum(row.change for row in compared.changes)
    assert changes + compared.layout_change + compared.unattributed_change == compared.change
    for part in (diff.file_part, diff.folder_part, diff.subsystem_part, diff.phase_part):
        parts = compared.by(part)
        assert sum(one.before for one in parts) + compared.unattributed[0] == one.total
        assert sum(one.change for one in parts) + compared.unattributed_change == compared.change
        assert sum(one.layout for one in parts) == compared.layout_change
    values = json.loads(json.dumps(diff.json_values(compared)))
    assert sum(row["change"] for row in values["functions"]) + compared.unattributed_change == values["change"]
    assert diff_text.text(compared, 3)


@settings(deadline=None)
@given(PROFILES)
def test_a_profile_never_differs_from_itself(one: Profile) -> None:
    assert difference(one, one).verdict is DifferenceVerdict.EQUAL


def test_phases_that_one_kernel_has_joined_are_joined_in_the_other() -> None:
    stacks = {("unpacking", "(unpacking)"): 9_000_000, (KERNEL, "alloc_pages"): 50_000}
    apart = replace(profile(*BASE, row("(kernel at physical addresses)", 40, "")), stacks=stacks)
    rows = [
        row("(firmware)", 400_000, "", "firmware", Region.FIRMWARE),
        row("(before the kernel)", 9_000_100, "", "unpacking + kernel", Region.OTHER),
        *(
            replace(one, phase="unpacking + kernel" if one.phase == KERNEL else one.phase)
            for one in BASE
            if one.phase in (KERNEL, "/init")
        ),
    ]
    joined = profile(*rows)
    compared = difference(apart, joined)
    assert (compared.verdict, compared.change) == (DifferenceVerdict.LAYOUT, 60)
    assert compared.layout_groups() == {Layout.IMAGE: (1, 60)}
    (changed,) = (one for one in compared.functions if one.change)
    assert (changed.name, changed.before, changed.after) == ("(before the kernel)", 9_000_040, 9_000_100)
    first, second = phases.alike(apart, joined)
    assert (first.phases, second) == (joined.phases, joined)
    assert first.total == apart.total
    assert first.stacks == {
        ("unpacking + kernel", "(before the kernel)"): 9_000_000, ("unpacking + kernel", "alloc_pages"): 50_000
    }  # fmt: skip


def test_joined_phases_that_overlap_are_one() -> None:
    one = profile(row("(before the kernel)", 5, "", "a + b", Region.OTHER), row("walk", 3, phase="c"))
    other = profile(row("(firmware)", 2, "", "a", Region.FIRMWARE), row("walk", 6, phase="b + c"))
    for left, right in ((one, other), (other, one)):
        both = phases.alike(left, right)
        assert [each.phases for each in both] == [("a + b + c",)] * 2
        assert difference(left, right).change == right.total - left.total


# timing


TIMED = sorted(timing())


def coded(counts: dict[str, int], other: str = "") -> Profile:
    """A profile of functions whose code is the same in each of these, but for that of `other`."""
    made = profile(*(row(name, count) for name, count in counts.items()))
    return replace(made, code={name: "changed" if name == other else "as it was" for name in counts})


def test_what_is_of_timing_is_equal_but_for_it() -> None:
    before = {"alloc_pages": 50_000, "__update_load_avg_se": 9_000, "init_acpi_pm_clocksource": 700}
    after = {**before, "__update_load_avg_se": 9_249, "init_acpi_pm_clocksource": 661}
    compared = difference(coded(before), coded(after))
    assert compared.verdict is DifferenceVerdict.LAYOUT
    assert compared.timing_change == compared.change == 210
    assert compared.changes == ()
    assert diff_text.sentence(compared) == "equal, but for +0 instructions of layout and +210 of timing"
    assert "period of 1,024 us" in diff_text.text(compared)
    assert diff.json_values(compared)["timing"] == 210


@pytest.mark.parametrize("name", TIMED)
def test_a_loop_in_a_function_of_the_list_is_a_difference(name: str) -> None:
    before = {"alloc_pages": 50_000, name: 9_000}
    for more in (3, 200, 200_002):
        compared = difference(coded(before), coded({**before, name: 9_000 + more}, other=name))
        assert compared.verdict is DifferenceVerdict.DIFFERENT
        assert [(one.name, one.change) for one in compared.changes] == [(name, more)]


@pytest.mark.parametrize("name", TIMED)
def test_a_wait_that_is_longer_is_a_difference(name: str) -> None:
    # a delay of other length may be in a table, with the same code: it is more than any tick or poll
    before = {"alloc_pages": 50_000, name: 9_000}
    compared = difference(coded(before), coded({**before, name: 9_000 + timing()[name].most + 1}))
    assert compared.verdict is DifferenceVerdict.DIFFERENT


def test_timing_is_no_excuse_where_other_code_ran() -> None:
    before = {"alloc_pages": 50_000, "delay_tsc": 9_000}
    compared = difference(coded(before), coded({**before, "delay_tsc": 9_100}, other="alloc_pages"))
    assert compared.of_timing
    assert compared.verdict is DifferenceVerdict.DIFFERENT
    assert "other code" in diff_text.text(compared)


def test_where_code_is_not_known_nothing_is_of_timing() -> None:
    before, after = profile(row("delay_tsc", 9_000)), profile(row("delay_tsc", 9_100))
    for one, other in ((before, after), (before, replace(after, code={"delay_tsc": "a"}))):
        assert difference(one, other).verdict is DifferenceVerdict.DIFFERENT


def test_a_function_that_only_one_of_two_guests_ran_is_of_timing() -> None:
    before, after = coded({"a": 5, "tick_periodic": 40}), coded({"a": 5})
    compared = difference(before, replace(after, code=before.code))
    assert compared.verdict is DifferenceVerdict.LAYOUT
    assert compared.timing_change == -40


def test_a_loop_in_the_lookups_is_a_difference() -> None:
    counts = {"__orc_find": 9_581_104}
    after = {"__orc_find": 9_581_104 + 3_000}
    assert difference(coded(counts), coded(after)).verdict is DifferenceVerdict.LAYOUT
    assert difference(coded(counts), coded(after, other="__orc_find")).verdict is DifferenceVerdict.DIFFERENT


def test_a_loop_in_a_function_that_is_no_longer_inlined_is_a_difference() -> None:
    before = profile(row("caller", 1_300_000))
    after = profile(row("caller", 300_000), row("helper", 1_200_002))
    assert difference(before, after).verdict is DifferenceVerdict.DIFFERENT


def test_a_profile_can_end_with_a_phase() -> None:
    whole = profile(*BASE, extra=7)
    kernel = phases.until(whole, KERNEL)
    assert kernel.phases == ("firmware", "unpacking", KERNEL)
    assert kernel.total == whole.total - 700 - 12_345
    assert kernel.unattributed == whole.unattributed == 7
    assert phases.until(whole, "no such phase") == whole


def test_a_page_fault_more_is_of_timing_and_named() -> None:
    before = {"alloc_pages": 50_000, "asm_exc_page_fault": 20, "clear_page_orig": 1_420, "mt_find": 300}
    after = {**before, "asm_exc_page_fault": 10, "clear_page_orig": 710, "mt_find": 121}
    compared = difference(coded(before), coded(after))
    assert compared.verdict is DifferenceVerdict.LAYOUT
    assert compared.timing_change == compared.change == -899
    assert "a page fault more or less" in diff_text.text(compared)
    # no fault more: something else clears pages
    compared = difference(coded(before), coded({**before, "clear_page_orig": 710}))
    assert compared.verdict is DifferenceVerdict.DIFFERENT
