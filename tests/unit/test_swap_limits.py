"""Control groups, threads and vCPUs of swap cells: what a guest is told, what is refused, what rows then say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.progress import Progress, silent
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.swap import group_report, limits
from acon_nb.swap.cell import SwapCell
from acon_nb.swap.derived import pressure_available
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.needs import needs_of
from acon_nb.vm import Capabilities, argument_list
from tests.unit import bzimages

MIB = 1 << 20


def factors(**levels: Any) -> SwapFactors:
    return SwapFactors(**{"workload": "anon", "memory": "128M", "pressure": 1.0, **levels})


def test_a_limit_is_a_size_or_a_share_of_what_one_group_holds() -> None:
    cell = factors(groups=4, cgroup_max="0.5x", cgroup_high="10M", cgroup_swap_max="0.25x")
    assert limits.columns(cell) == {
        "cgroup_max_bytes": 16 * MIB,
        "cgroup_high_bytes": 10 * MIB,
        "cgroup_swap_max_bytes": 8 * MIB,
        "limit_bytes": 40 * MIB,
    }
    text = limits.cell_words(cell)["limits"]
    assert text == f"memory.swap.max:{8 * MIB};memory.high:{10 * MIB};memory.max:{16 * MIB}"


def test_what_a_kernel_needs_for_it_is_known_before_a_guest_boots() -> None:
    needs = [need.text for need in needs_of(factors(swap="none", cgroup_max="0.5x", reclaim_interval="1s"))]
    assert needs == ["CONFIG_MEMCG", "CONFIG_MEMCG, Linux 5.19 or later", "CONFIG_PSI, Linux 5.19 or later"]


def test_a_cell_without_groups_is_told_nothing_of_them() -> None:
    assert limits.cell_words(factors()) == {}
    assert limits.columns(factors()) == {}


@pytest.mark.parametrize(
    ("levels", "field", "words"),
    [
        ({"cgroup_max": "half"}, "cgroup_max", "0.5x"),
        ({"cgroup_max": "0.001x"}, "cgroup_max", "less than 1 MiB"),
        ({"cgroup_low": "100M", "cgroup_max": "50M"}, "cgroup_low", "protects more"),
        ({"cgroup_swap_max": "1M", "swap": "none"}, "cgroup_swap_max", "not there"),
        ({"reclaim_target": 0.01}, "reclaim_target", "reclaim_interval"),
        ({"reclaim_floor": "0.5x"}, "reclaim_floor", "reclaim_interval"),
        ({"reclaim_interval": "10us"}, "reclaim_interval", "1ms"),
        ({"groups": 2, "workload": "redis", "pattern": "zipf"}, "groups", "tmpfs or anon"),
        ({"groups": 2, "until_steady": 100_000}, "until_steady", "several groups"),
        ({"groups": 60, "memory": "64M", "pressure": 0.5}, "groups", "fewer groups"),
        ({"vcpus": 2}, "vcpus", "in one thread"),
        ({"accelerator": "kvm"}, "accelerator", "counts no instructions"),
        ({"threads": 2, "workload": "redis"}, "threads", "redis has one thread"),
        ({"threads": 200, "accesses": 100}, "threads", "more accesses"),
    ],
)
def test_what_cannot_be_is_refused_by_name(levels: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        factors(**levels)
    assert caught.value.field == field
    assert words in str(caught.value)


def test_several_vcpus_are_of_the_wall_clock() -> None:
    cell = factors(clock="wall", vcpus=4, threads=8, accelerator="tcg")
    assert (cell.vcpus, cell.threads) == (4, 8)


def test_a_guest_of_kvm_has_its_vcpus_and_falls_back_to_tcg(tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd"
    bzimages.write(kernel)
    initrd.write_bytes(b"070701")
    cell = SwapCell(
        factors=factors(clock="wall", vcpus=4, threads=8, memory="2G"), kernel=kernel, initrd=initrd, disk_dilation=1.0
    )
    spec = cell.spec(1)
    with_kvm = Capabilities(qemu=Path("qemu"), kvm=True)
    without = Capabilities(qemu=Path("qemu"), kvm=False, kvm_why="no /dev/kvm")
    argv = argument_list(spec, with_kvm)
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert argv[argv.index("-smp") + 1] == "4"
    assert "threads=8" in spec.append
    argv = argument_list(spec, without)
    assert argv[argv.index("-accel") + 1] == "tcg"
    with pytest.raises(InvalidInput, match="no /dev/kvm"):
        limits.check_host(factors(clock="wall", accelerator="kvm"), without, silent)
    limits.check_host(factors(clock="wall", accelerator="kvm"), with_kvm, silent)


def test_more_vcpus_than_the_host_has_are_warned_of() -> None:
    said: list[Progress] = []
    limits.check_host(factors(clock="wall", vcpus=250), Capabilities(qemu=Path("qemu")), said.append)
    assert "250 vCPUs share" in said[0].text


def test_a_guest_that_does_not_fit_is_refused_before_anything_starts(tmp_path: Path) -> None:
    plan = Plan(name="large", study="swap", fixed={"memory": "16000G", "clock": "wall", "dilation": 9.0})
    with pytest.raises(InvalidInput, match="memory"):
        study_of(plan, tmp_path).check()


def test_limits_and_threads_are_not_the_calibrations(tmp_path: Path) -> None:
    fixed = {"groups": 2, "cgroup_max": "0.5x", "threads": 2, "workload": "anon", "reclaim_interval": "1s"}
    plan = Plan(name="checks", study="swap", factors={"swap": ["disk", "zram"]}, fixed=fixed)
    cells = {cell.levels["workload"]: cell.levels for cell in study_of(plan, tmp_path).plan.all_cells}
    assert cells["codec"]["groups"] == 1
    assert cells["codec"]["cgroup_max"] == ""


def group(**values: Any) -> dict[str, Any]:
    events = {"low": 0, "high": 3, "max": 5, "oom": 0, "oom_kill": 0, **values.pop("events", {})}
    stat = {"anon": 7 * MIB, "pgscan": 100, "workingset_refault_anon": 20, **values.pop("stat", {})}
    return {
        "group": 0,
        "peak": 16 * MIB,
        "swap": 4 * MIB,
        "psi_some_us": 1000,
        "events": events,
        "stat": stat,
        **values,
    }


def snapshot(phase: str, *groups: dict[str, Any]) -> dict[str, Any]:
    return {"event": "snapshot", "phase": phase, "cgroups": list(groups)}


def test_the_columns_of_groups_are_sums_and_growths() -> None:
    first, second = group(), group(psi_some_us=5000, stat={"pgscan": 900})
    gone = group(psi_some_us=5000, swap=0)
    events = [
        snapshot("fill", first, first), snapshot("settle", first, first), snapshot("warm-up", first, first),
        snapshot("access", second, first), snapshot("end", gone, gone),
        {"event": "result", "reclaim": {"rounds": 9, "backoffs": 2, "asked_bytes": 4096, "refused": 0}},
    ]  # fmt: skip
    row = group_report.row_of(events)
    assert row["cgroup_peak_bytes"] == 32 * MIB
    assert row["cgroup_swap_bytes"] == 8 * MIB, "while it was held, not of workers that have ended"
    assert row["cgroup_anon_bytes"] == 14 * MIB
    assert row["cgroup_max_events"] == 10
    assert row["cgroup_psi_some_ns"] == 4_000_000
    assert row["fill_cgroup_psi_some_ns"] == 0
    assert row["cgroup_pgscan_pages"] == 800
    assert (row["reclaim_rounds"], row["reclaim_backoffs"]) == (9, 2)
    assert len(json.loads(row["cgroups"])) == 2
    assert "cgroup_zswap_bytes" not in row, "a kernel that does not have the file"
    assert group_report.row_of([{"event": "snapshot", "phase": "end"}]) == {}


def test_a_killed_group_is_told_from_a_guest_that_is_out_of_memory() -> None:
    in_group = [snapshot("fill", group(), group(events={"oom": 1, "oom_kill": 1}))]
    in_guest = [snapshot("fill", group(events={"oom_kill": 1}))]
    assert group_report.killer_of(in_group) == "group"
    assert group_report.killer_of(in_guest) == "guest"
    assert group_report.killer_of([snapshot("fill", group())]) == ""
    assert "memory.max" in group_report.killer_text("group")
    assert group_report.killer_text("") == "the OOM killer"


def test_pressure_is_over_the_limit_where_that_is_less_than_what_is_available() -> None:
    row = {"working_set_bytes": 96.0, "memavailable_start_bytes": 64.0}
    assert pressure_available(row) == 1.5
    assert pressure_available({**row, "limit_bytes": 48.0}) == 2.0
    assert pressure_available({**row, "limit_bytes": 80.0}) == 1.5
