"""The plugin that counts instructions, in real guests: a planted loop costs what it costs, and times add up."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb.boot import BootCell
from acon_nb.boot.experiment import BootExperiment
from acon_nb.guest.programs import guest_script
from acon_nb.initrd import FileTree, create
from acon_nb.study import clock_parts
from acon_nb.study.functions import functions_of, starts_of
from acon_nb.study.plan import Plan
from acon_nb.study.whole import run_plan
from acon_nb.vm import Clock, Machine, Moment, VmSpec, capabilities
from tests.system.debian_packages import SUITES, host_of

pytestmark = pytest.mark.system


def initrd_of(name: str, folder: Path) -> Path:
    """An initrd whose /init is a C program of this folder, by its name without .c."""
    program = folder / name
    headers = guest_script("mark.h").parent
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-O2", "-static", "-Wall", "-Werror", f"-I{headers}", "-o", program, source], check=True)
    tree = FileTree()
    tree.add_file("init", program, mode=0o755)
    return create(tree, folder / f"{name}.cpio").path


@pytest.fixture(scope="module")
def loops(guide_kernel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loops")
    cell = BootCell(
        name="loops", kernel=guide_kernel.image, initrd=initrd_of("loops", folder), clock=Clock.INSTRUCTIONS
    )
    append = cell.spec().append.replace("rdinit=/acon/init ", "")
    spec: VmSpec = replace(cell.spec(), initrd=cell.initrd, append=append)
    with Machine(spec, host=capabilities(), count_by=starts_of(spec.kernel, spec.clock)) as machine:
        return spec, machine.wait().check()


def test_a_loop_costs_its_instructions_to_the_last(loops):
    """Two loops of one guest: the longer one has 600,000 rounds more, of two instructions each."""
    _, outcome = loops
    begins = [one for one in outcome.snapshots if one.moment == Moment.BEGIN]
    ends = [one for one in outcome.snapshots if one.moment == Moment.END]
    user = [end.counts[0] - begin.counts[0] for begin, end in zip(begins, ends, strict=True)]
    assert user[1] - user[0] == 2 * 600_000


def test_idle_time_is_told_from_instructions(loops):
    spec, outcome = loops
    functions = functions_of(spec.kernel)
    begin, end = clock_parts.last_span(outcome.snapshots)
    parts = clock_parts.parts_of(end, functions, begin=begin)
    assert parts.clock_ns == end.tsc_ns - begin.tsc_ns
    assert parts.clock_ns >= 20_000_000
    assert 19_000_000 <= parts.idle_ns < parts.clock_ns  # idle begins after what the kernel does until it halts
    assert 0 < parts.executed_ns < 2_000_000


def test_the_counts_are_the_clock_but_for_repeated_instructions(loops):
    """An instruction that faults is counted again; QEMU's clock counts it once."""
    _, outcome = loops
    marks = [one for one in outcome.snapshots if one.moment not in (Moment.USER, Moment.EXIT)]
    assert len(marks) == 7
    for one in marks:
        assert 0 <= one.counted - (one.tsc_ns - one.idle_ns) < 200


def test_counting_does_not_move_the_clock(loops):
    spec, outcome = loops
    with Machine(spec, host=capabilities()) as machine:
        plain = machine.wait().check()
    said = [line for line in plain.tail if "Power down" in line]
    assert said == [line for line in outcome.tail if "Power down" in line]
    assert plain.snapshots == ()


def test_the_parts_of_each_row_add_up_to_the_clock(guide_kernel, boot_initrd):
    fixed = {"kernel": str(guide_kernel.image), "initrd": f"file:{boot_initrd}", "milestones": True}
    plan = Plan(name="parts", study="boot", fixed=fixed, runs=1, warmups=0)
    row = run_plan(plan, BootExperiment(plan)).iloc[0].to_dict()
    parts = clock_parts.parts_of_row(row)
    assert sum(parts.values()) == row["guest_ns_reset_to_init"]
    waits = {wait["function"]: wait["ns"] for wait in clock_parts.waits_of_row(row)}
    assert sum(waits.values()) == parts["busy_waiting"]
    assert waits["quick_pit_calibrate"] > 100_000
    assert "setup_boot_APIC_clock" not in waits or waits["setup_boot_APIC_clock"] < 1000
    assert row["functions"].splitlines()[0].startswith("(before the kernel, above 1 MiB) ")


@pytest.mark.weekly
@pytest.mark.parametrize("suite", SUITES)
def test_the_plugin_counts_in_a_later_qemu(suite, guide_kernel, tmp_path):
    cell = BootCell(
        name="loops", kernel=guide_kernel.image, initrd=initrd_of("loops", tmp_path), clock=Clock.INSTRUCTIONS
    )
    spec = replace(cell.spec(), initrd=cell.initrd, append=cell.spec().append.replace("rdinit=/acon/init ", ""))
    with Machine(spec, host=host_of(suite), count_by=starts_of(spec.kernel, spec.clock)) as machine:
        outcome = machine.wait().check()
    begins = [one for one in outcome.snapshots if one.moment == Moment.BEGIN]
    ends = [one for one in outcome.snapshots if one.moment == Moment.END]
    user = [end.counts[0] - begin.counts[0] for begin, end in zip(begins, ends, strict=True)]
    assert user[1] - user[0] == 2 * 600_000
    for one in (*begins, *ends):
        assert 0 <= one.counted - (one.tsc_ns - one.idle_ns) < 200
