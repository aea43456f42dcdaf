"""Call trees of real guests: exact by function, and true where the truth is known from elsewhere."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb.boot import BootCell, initcalls, profiling
from acon_nb.guest import symbols
from acon_nb.kernel import debian_kernel
from acon_nb.profile import tables
from acon_nb.study.functions import functions_of, starts_of
from acon_nb.vm import Capabilities, Clock, Machine, Moment, Outcome, VmSpec, capabilities, counting
from tests.system.debian_packages import SUITES, host_of
from tests.system.test_counting import initrd_of

pytestmark = pytest.mark.system
SYSTEM_CALL = ("(user space)", "entry_SYSCALL_64")


def guest(kernel: Path, folder: Path) -> VmSpec:
    """A guest whose /init is calls.c and whose kernel logs its initcalls."""
    initrd = initrd_of("calls", folder)
    cell = BootCell(name="calls", kernel=kernel, initrd=initrd, clock=Clock.INSTRUCTIONS, initcalls=True)
    append = cell.spec().append.replace("rdinit=/acon/init ", "").replace("quiet", "loglevel=8")
    return replace(cell.spec(), initrd=initrd, append=append)


def run(spec: VmSpec, *, calls: bool = True, host: Capabilities | None = None) -> Outcome:
    names = functions_of(spec.kernel)
    starts = starts_of(spec.kernel, spec.clock)
    with Machine(spec, host=host or capabilities(), count_by=starts, calls=names if calls else None) as machine:
        return machine.wait().check()


@pytest.fixture(scope="module")
def spec(guide_kernel, tmp_path_factory) -> VmSpec:
    return guest(guide_kernel.image, tmp_path_factory.mktemp("calls"))


@pytest.fixture(scope="module")
def counted(spec) -> Outcome:
    return run(spec)


@pytest.fixture(scope="module")
def names(spec):
    return functions_of(spec.kernel)


def spans(outcome: Outcome, names) -> list[dict[tuple[str, ...], int]]:
    """The stacks of each span between two marks of calls.c."""
    begins = [one.calls for one in outcome.snapshots if one.moment == Moment.BEGIN]
    ends = [one.calls for one in outcome.snapshots if one.moment == Moment.END]
    return [end.stacks(names, begin) for begin, end in zip(begins, ends, strict=True)]


def test_the_nodes_of_each_function_add_up_to_its_count(counted):
    assert len(counted.snapshots) == 9
    for one in counted.snapshots:
        assert one.calls.by_function() == dict(one.counts)


def test_the_call_tree_moves_neither_clock_nor_counts(spec, counted):
    flat = run(spec, calls=False)
    assert [(one.tsc_ns, one.idle_ns, one.counts) for one in flat.snapshots] == [
        (one.tsc_ns, one.idle_ns, one.counts) for one in counted.snapshots
    ]


def test_two_guests_have_the_same_tree(spec, counted, names):
    again = run(spec)
    for first, second in zip(counted.snapshots, again.snapshots, strict=True):
        assert first.calls.counts == second.calls.counts
    assert counted.snapshots[-1].calls.stacks(names) == again.snapshots[-1].calls.stacks(names)


def test_all_that_a_kernel_executed_is_below_few_roots(counted, names):
    at_init = next(one for one in counted.snapshots if one.moment == Moment.INIT)
    roots: dict[str, int] = {}
    for stack, own in at_init.calls.stacks(names).items():
        roots[stack[0]] = roots.get(stack[0], 0) + own
    assert set(roots) <= {"common_startup_64", "ret_from_fork_asm", "__switch_to_asm", "(interrupts)", "(user space)"}
    assert sum(roots.values()) == sum(at_init.counts.values())
    inclusive = at_init.calls.inclusive(names)
    assert 0.99 * roots["common_startup_64"] < inclusive["start_kernel"] < roots["common_startup_64"]
    assert roots["__switch_to_asm"] < 1e-4 * sum(roots.values())


def test_each_return_but_the_first_of_a_task_has_its_call(counted):
    last = counted.snapshots[-1].calls
    assert last.returns > 1_000_000
    assert 0 < last.unmatched_returns < 100


def test_initcalls_take_what_the_kernel_says_they_take(spec, counted, names):
    """Where an initcall waits, the kernel's time of it has other tasks in it, and the tree does not."""
    log = initcalls.read(symbols.named(counted.console.read_text(errors="replace"), names))
    at_init = next(one for one in counted.snapshots if one.moment == Moment.INIT)
    took: dict[str, int] = {}
    for stack, own in at_init.calls.stacks(names).items():
        if "do_one_initcall" in stack[:-1]:
            name = stack[stack.index("do_one_initcall") + 1]
            took[name] = took.get(name, 0) + own
    # before the kernel has a clock source it tells whole ticks
    timed = [call for call in log.calls if call.kernel_us and call.kernel_us % 1000]
    assert len(timed) > 80
    assert all(took[call.name] / 1000 < call.kernel_us + 1 for call in timed)
    equal = [call for call in timed if took[call.name] / 1000 > 0.99 * call.kernel_us - 1]
    assert len(equal) > 0.8 * len(timed)
    assert {"slab_late_init", "param_sysfs_builtin_init"} <= {call.name for call in equal}


def test_a_system_call_costs_the_same_each_time(counted, names):
    few, many, _ = spans(counted, names)
    costs = []
    for stacks, rounds in ((few, 1000), (many, 4000)):
        below = {stack: own for stack, own in stacks.items() if stack[-1].endswith("sys_getppid")}
        assert all(stack[:2] == SYSTEM_CALL for stack in below)
        own = sum(below.values())
        assert own % rounds == 0
        costs.append(own // rounds)
    assert costs[0] == costs[1] > 0


def test_tasks_that_take_turns_keep_their_stacks(counted, names):
    *_, turns = spans(counted, names)
    readers = [stack for stack in turns if "pipe_read" in stack or "anon_pipe_read" in stack]
    writers = [stack for stack in turns if "pipe_write" in stack or "anon_pipe_write" in stack]
    assert readers
    assert writers
    assert all(stack[:2] == SYSTEM_CALL and "ksys_read" in stack for stack in readers)
    assert all(stack[:2] == SYSTEM_CALL and "ksys_write" in stack for stack in writers)
    assert not {*readers} & {*writers}
    assert any("schedule" in stack for stack in readers)


def test_a_tree_without_room_is_folded_and_still_adds_up(spec, monkeypatch, names):
    monkeypatch.setattr(counting, "_FLAGS", (*counting._FLAGS, "-DNODES_LIMIT=5000u", "-DDEEPEST_NODE=12"))
    last = run(spec).snapshots[-1]
    assert last.calls.by_function() == dict(last.counts)
    stacks = last.calls.stacks(names)
    assert max(map(len, stacks)) <= 12
    assert len(last.calls.counts) < 5000 + len(names)
    assert any(stack[0] == "(folded)" for stack in stacks)


def test_a_profile_has_call_stacks_of_the_same_counts(guide_kernel, boot_initrd):
    cell = BootCell(name="calls", kernel=guide_kernel.image, initrd=boot_initrd, clock=Clock.INSTRUCTIONS)
    profile = profiling.profile(cell, until="ready", calls=True)
    flat = {(one.phase, one.name): one.self_count for one in profile.functions}
    sums: Counter[tuple[str, str]] = Counter()
    for (phase, *names), own in profile.stacks.items():
        sums[phase, names[-1]] += own
    for key in sums.keys() | {key for key in flat if key[0] in ("kernel", "/init") and not key[1].startswith("(")}:
        assert sums[key] == flat[key]
    assert tables.inclusive(profile)["kernel", "start_kernel"] > 20_000_000
    assert tables.callees(profile, "do_one_initcall")["acpi_init"] > 1_000_000
    assert int(profile.origin["unmatched_returns"]) < 1e-4 * int(profile.origin["returns"])


@pytest.mark.weekly
def test_a_kernel_of_debian_has_a_call_tree(store, tmp_path):
    """It has modules, tracing and symbols of its own, in which linker labels share addresses with functions."""
    image = debian_kernel(cache=store).image
    names = functions_of(image)
    outcome = run(guest(image, tmp_path))
    for one in outcome.snapshots:
        assert one.calls.by_function() == dict(one.counts)
    last = outcome.snapshots[-1].calls
    assert last.unmatched_returns < 1e-4 * last.returns
    assert len({stack[0] for stack in last.stacks(names)}) <= 6
    few, many, _ = spans(outcome, names)
    costs = [sum(own for stack, own in one.items() if stack[-1].endswith("sys_getppid")) for one in (few, many)]
    assert costs[1] == 4 * costs[0]


@pytest.mark.weekly
@pytest.mark.parametrize("suite", SUITES)
def test_a_later_qemu_has_the_same_call_tree(suite, guide_kernel, tmp_path, names, counted):
    if shutil.which("apt-get") is None:
        pytest.skip("QEMUs of other suites come by apt")
    later = run(guest(guide_kernel.image, tmp_path), host=host_of(suite))
    for one in later.snapshots:
        assert one.calls.by_function() == dict(one.counts)
    assert later.snapshots[-1].calls.unmatched_returns == counted.snapshots[-1].calls.unmatched_returns
    few, *_, turns = spans(later, names)
    assert sum(own for stack, own in few.items() if stack[-1].endswith("sys_getppid")) % 1000 == 0
    assert all("ksys_read" in stack for stack in turns if "pipe_read" in stack)
