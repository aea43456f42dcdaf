"""Programs of Debian packages in real guests, on the instruction clock."""

from __future__ import annotations

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.swap import workloads

pytestmark = [pytest.mark.system, pytest.mark.weekly]

PRESSURE = {"postgres": 0.2}  # of a guest that is large because of its packages
FIXED = {"workload": "program", "swap": "zram:lz4", "data": "random", "timeout_s": 3000}


@pytest.mark.parametrize("name", workloads.workloads())
def test_each_named_workload_runs_to_its_end(study_kernel, tmp_path, name):
    one = workloads.named(name)
    try:
        workloads.check_packages(name)
    except InvalidInput:
        assert one.since, "this release has its packages"
        pytest.skip(f"refused by name: {one.since} has its packages")
    cell = {"workload_name": name, "memory": one.memory, "pressure": PRESSURE.get(name, 0.6)}
    plan = Plan(name=name, study="swap", cells=[cell], fixed={**FIXED, "kernel": str(study_kernel.image)}, runs=1)
    rows = study_of(plan, tmp_path).run(on_progress=TextProgress())
    measured = rows[(rows["factor_workload_name"] == name) & (rows["factor_copy"] == "")].iloc[0]
    assert (measured["program_end"], measured["error"]) == ("exited", ""), (tmp_path / measured["log"]).read_text()
    if not one.reports.startswith("nothing"):
        assert measured["reported_operations"] > 0
        assert measured["reported_invalid"] == 0
