"""Studies with real guests."""

from __future__ import annotations

import pytest

from acon_nb.analysis.tables import failures, study_table
from acon_nb.errors import KernelConfigError
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan

pytestmark = pytest.mark.system


def test_counted_runs_are_equal_and_a_guest_that_panics_is_a_row(guide_kernel, boot_initrd, tmp_path):
    plan = Plan(
        name="ends",
        study="boot",
        factors={"cmdline": ["", "rdinit=/nothing root=/dev/none"]},
        fixed={"kernel": str(guide_kernel.image), "initrd": f"file:{boot_initrd}"},
        runs=2,
    )
    study = study_of(plan, tmp_path)
    rows = study.run()
    good, bad = (rows[rows["cell"] == row.label] for row in plan.all_cells)
    assert list(good["end"]) == ["powered_off"] * 2
    assert good["guest_ns_reset_to_init"].nunique() == 1
    assert list(bad["end"]) == ["panic"] * 2
    assert "VFS" in failures(rows, tmp_path)[0]
    table = study_table(rows)
    assert table["time"].iloc[0].endswith("the same in all 2 runs")
    assert table["time"].iloc[1].endswith("no whole run")
    again = study_of(plan, tmp_path)
    again.run()
    assert sum(cell.kept for cell in again.state.cells) == 4


def test_a_kernel_that_cannot_be_is_a_row_with_its_reason_and_the_others_boot(guide_kernel, boot_initrd, tmp_path):
    plan = Plan(
        name="kernels",
        study="boot",
        factors={"settings": ["", "NOT_AN_OPTION=y"]},
        fixed={"initrd": f"file:{boot_initrd}"},
        runs=1,
    )
    rows = study_of(plan, tmp_path).run()
    assert list(rows["end"]) == ["powered_off", "not_built"]
    (told,) = failures(rows, tmp_path)
    assert "not built" in told
    assert "CONFIG_NOT_AN_OPTION=y: this tree has no such option" in told
    assert study_table(rows)["time"].iloc[1].endswith("no whole run")
    with pytest.raises(KernelConfigError, match="no such option"):
        study_of(
            Plan(name="none", study="boot", factors={}, fixed={"settings": "NOT_AN_OPTION=y"}, runs=1), tmp_path
        ).run()
