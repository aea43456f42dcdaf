"""Programs of Debian packages in real guests, on the instruction clock; docs/workloads.md has the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.swap import workloads
from tests import page_parts

pytestmark = [pytest.mark.system, pytest.mark.weekly]

PAGE = Path(__file__).parents[2] / "docs" / "workloads.md"
PART = "tests/system/test_workloads.py"
HEAD = [
    "| workload | ends | guest | working set | it reports | of the guest's time |",
    "|---|---|---|---|---|---|",
]
MIB = 1 << 20
RUNS = "runs"
PRESSURE = {"postgres": 0.2}  # of a guest that is large because of its packages
FIXED = {"workload": "program", "swap": "zram:lz4", "data": "random", "dilation": 12.0, "timeout_s": 3000}


def line(name: str, row: dict[str, Any] | None) -> str:
    """The line of a workload: what its guest's row has, or by what it is refused here (no row)."""
    one = workloads.named(name)
    if row is None:
        return f"| `{name}` | refused before {one.since} |  |  |  |  |"
    right = (row["program_end"], row["error"]) == ("exited", "")
    operations = row.get("reported_operations")
    cells = [
        RUNS if right else f"{row['program_end']}: {row['error']}",
        one.memory,
        f"{row['working_set_bytes'] / MIB:.0f} MiB",
        f"{operations:,.0f} operations" if operations and operations > 0 else "nothing",
        f"{row['program_elapsed_ns'] / 1e9:.1f} s",
    ]
    return f"| `{name}` | " + " | ".join(cells) + " |"


def plan_of(names: Sequence[str], kernel: Path) -> Plan:
    """One study of all, so that its two further guests (codecs, a repeated one) are not run for each."""
    cells = [
        {"workload_name": name, "memory": workloads.named(name).memory, "pressure": PRESSURE.get(name, 0.6)}
        for name in names
    ]
    fixed = {**FIXED, "kernel": str(kernel)}
    return Plan(name="workloads", study="swap", cells=cells, fixed=fixed, runs=1, warmups=0)


def had(name: str) -> bool:
    """Whether this release of Debian has a workload's packages."""
    try:
        workloads.check_packages(name)
    except InvalidInput:
        assert workloads.named(name).since, "this release has its packages"
        return False
    return True


@pytest.fixture(scope="module")
def measured(study_kernel, tmp_path_factory):
    """The row of each workload that this release has, and where its log is."""
    out = tmp_path_factory.mktemp("workloads")
    names = [name for name in workloads.workloads() if had(name)]
    rows = study_of(plan_of(names, study_kernel.image), out).run(on_progress=TextProgress(every_s=30))
    rows = rows[(rows["factor_workload"] == "program") & (rows["factor_copy"] == "")]
    return {row["factor_workload_name"]: {**row, "log": out / row["log"]} for row in rows.to_dict("records")}


@pytest.mark.parametrize("name", workloads.workloads())
def test_each_named_workload_runs_to_its_end(measured, name):
    row = measured.get(name)
    compare(name, line(name, row))
    if row is None:
        return
    assert (row["program_end"], row["error"]) == ("exited", ""), row["log"].read_text()
    if not workloads.named(name).reports.startswith("nothing"):
        assert row["reported_operations"] > 0
        assert row["reported_invalid"] == 0


def compare(name: str, made: str) -> None:
    """Compare how a workload ended with the page's line: its numbers are those of one host's packages."""
    if page_parts.is_written():
        page_parts.write_lines(PAGE, PART, HEAD, {name: made}, list(workloads.workloads()))
    in_page = page_parts.lines_by_name(PAGE, PART)[name]
    refused = workloads.named(name).since and "refused" in in_page + made
    assert refused or in_page.split(" | ")[1] == made.split(" | ")[1], "run it with ACON_NB_WRITE_TABLES=1"


def test_the_page_has_every_workload():
    assert list(page_parts.lines_by_name(PAGE, PART)) == list(workloads.workloads())
