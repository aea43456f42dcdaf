from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from acon_nb import plots
from acon_nb.boot.kernel_cost import CostSpec, added, cost_table
from acon_nb.errors import InvalidInput

STEPS = pd.DataFrame(
    {
        "name": ["minimal", "+ container", "+ not-needed"],
        "options_on": [400, 500, 480],
        "bzimage_bytes": [1 << 20, 2 << 20, (2 << 20) - 102400],
        "linked_bytes": [4 << 20, 8 << 20, 7 << 20],
        "gone_bytes": [10 << 20, 14 << 20, 13 << 20],
        "init_ns": [100_000_000, 150_000_000, 540_000_000],
        "executed_ns": [100_000_000, 149_000_000, 139_000_000],
        "busy_waiting_ns": [0, 1_000_000, 1_000_000],
        "idle_ns": [0, 0, 400_000_000],
    }
)


def test_a_steps_cost_is_its_difference_from_the_one_before() -> None:
    frame = added(STEPS)
    assert list(frame["added_bzimage_bytes"]) == [1 << 20, 1 << 20, -102400]
    assert list(frame["added_executed_ns"]) == [100_000_000, 49_000_000, -10_000_000]
    table = cost_table(frame)
    assert list(table["bzImage / KiB"]) == ["1024", "2048 (+1024)", "1948 (-100)"]
    assert list(table["10⁶ instructions to /init"]) == ["100.0", "149.0 (+49.0)", "139.0 (-10.0)"]
    assert list(table["idle / ms"]) == ["0.0", "0.0 (+0.0)", "400.0 (+400.0)"]
    assert list(table["clock at /init / ms"])[-1] == "540.0 (+390.0)"


def test_each_step_adds_a_group_to_the_profiles() -> None:
    steps = CostSpec(groups=("minimal", "container"), source="debian:6.1").steps()
    assert [step.profiles for step in steps] == [("minimal",), ("minimal", "container")]
    assert {step.source for step in steps} == {"debian:6.1"}


@pytest.mark.parametrize("groups", [("nonsense",), ()])
def test_what_is_no_group_is_refused(groups: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="groups"):
        CostSpec(groups=groups)


def test_the_plot_is_a_picture_in_the_format_of_its_name(tmp_path: Path) -> None:
    figure = plots.plot_cost(added(STEPS))
    plots.save(figure, tmp_path / "cost.svg")
    assert "<svg" in (tmp_path / "cost.svg").read_text()
    with pytest.raises(InvalidInput, match="plot"):
        plots.picture_format(tmp_path / "cost.txt")
