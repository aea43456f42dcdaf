"""Workloads in control groups of their own, in real guests: limits hold, ends are named, threads are checked."""

from __future__ import annotations

import json

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.swap.experiment import determinism

pytestmark = [pytest.mark.system, pytest.mark.weekly]

MIB = 1 << 20
FIXED = {
    "memory": "128M", "pressure": 0.25, "data": "like-redis", "accesses": 4000, "dilation": 10.0, "workload": "anon",
    "pattern": "zipf", "swap": "zram:lz4", "tools": "",
}  # fmt: skip
CELLS = {
    "three": {"groups": 3, "cgroup_max": "0.5x"},
    "one": {"cgroup_max": "0.5x"},
    "high": {"cgroup_high": "0.5x", "workload": "tmpfs"},
    "reclaim": {
        "reclaim_interval": "10ms", "reclaim_target": 0.5, "reclaim_step": 0.05, "reclaim_floor": "0.5x",
    },
    "killed": {"groups": 2, "cgroup_max": "0.5x", "cgroup_swap_max": "0.2x"},
    "threads": {"threads": 4, "cgroup_max": "0.5x", "write_share": 0.3},
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(study_kernel, tmp_path_factory):
    plan = Plan(name="groups", study="swap", cells=list(CELLS.values()), fixed=FIXED, runs=1, warmups=0)
    table = study_of(plan, tmp_path_factory.mktemp("groups")).run(on_progress=TextProgress())
    named = dict(zip(CELLS, (cell.label for cell in plan.all_cells), strict=True))
    return table, {name: table[table["cell"] == label].iloc[0] for name, label in named.items()}


def test_limits_hold_and_are_the_pressure(rows):
    _, cells = rows
    assert {name: row["end"] for name, row in cells.items()} == {
        **dict.fromkeys(CELLS, "powered_off"), "killed": "out_of_memory",
    }  # fmt: skip
    whole = [cells[name] for name in CELLS if name != "killed"]
    assert [row["corrupt_pages"] for row in whole] == [0] * 5
    for name in ("one", "three", "threads"):
        row = cells[name]
        assert row["pressure_available"] == pytest.approx(2.0, rel=0.01)
        assert row["cgroup_peak_bytes"] <= row["limit_bytes"]
        assert row["cgroup_peak_bytes"] >= 0.95 * row["limit_bytes"]
        assert row["cgroup_max_events"] > 0
        assert row["cgroup_swap_bytes"] >= 0.9 * (row["working_set_bytes"] - row["limit_bytes"])
        assert "memory.max=" in row["knobs"]
    assert cells["high"]["cgroup_high_events"] > 0
    assert cells["high"]["cgroup_psi_some_ns"] > 0


def test_several_workers_share_working_set_and_accesses(rows):
    _, cells = rows
    groups = json.loads(cells["three"]["cgroups"])
    assert len(groups) == 3
    assert sum(group["accesses"] for group in groups) == cells["three"]["access_count"]
    assert all(group["accesses"] for group in groups)
    assert cells["three"]["things"] == pytest.approx(cells["one"]["things"], abs=3)


def test_a_group_without_room_is_killed_by_its_own_limit(rows):
    _, cells = rows
    assert cells["killed"]["oom_killer"] == "group"
    assert "the OOM killer of its group (memory.max)" in cells["killed"]["error"]
    assert cells["killed"]["memavailable_start_bytes"] > cells["killed"]["working_set_bytes"], "the guest had room"


def test_the_controller_reclaims_down_to_its_floor(rows):
    _, cells = rows
    row = cells["reclaim"]
    assert row["reclaim_rounds"] > 3
    assert row["reclaim_asked_bytes"] > MIB
    assert row["cgroup_swap_bytes"] > MIB
    assert row["cgroup_anon_bytes"] >= 0.45 * row["working_set_bytes"]


def test_equal_guests_with_groups_have_equal_counts(rows):
    table, _ = rows
    assert determinism(table)["same"].all()


def test_a_kernel_without_memory_groups_is_refused_by_name(tmp_path):
    plan = Plan(name="none", study="swap", fixed={**FIXED, "cgroup_max": "0.5x", "profile": "guide,delay-disk"})
    with pytest.raises(InvalidInput, match="CONFIG_MEMCG"):
        study_of(plan, tmp_path).run(on_progress=TextProgress())
