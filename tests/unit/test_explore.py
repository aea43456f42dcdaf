from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from acon_nb import widgets
from acon_nb.analysis import explore
from acon_nb.analysis.explore import View
from acon_nb.errors import InvalidInput
from acon_nb.plots import plot_study
from acon_nb.results.store import SCHEMA, Store

COUNT = "guest_ns_reset_to_init"


def rows(**columns: Any) -> pd.DataFrame:
    """Counted runs by memory and machine, and some on the wall clock."""
    found = []
    for memory, base in (("1G", 100), ("256M", 90)):
        for machine, more in (("q35", 20), ("microvm", 0)):
            for block in range(2):
                labels = {"cell": f"{memory} {machine}", "factor_memory": memory, "factor_machine": machine}
                common = {**labels, "block": block, "host_class": "h", "end": "powered_off", "session": ""}
                found.append({**common, "clock": "instructions", COUNT: (base + more) * 1_000_000})
                found.append({**common, "clock": "wall", "host_ns_init": (base + more) * 2_000_000 + block})
    stamps = {"timestamp": [f"2026-01-01T00:00:{n:02d}" for n in range(len(found))], "note": "x"}
    return pd.DataFrame(found).assign(**stamps, **columns)


def test_what_rows_offer() -> None:
    assert explore.factors(rows()) == ["cell", "memory", "machine"]
    assert explore.clocks(rows()) == ["instructions", "wall"]
    assert explore.metrics(rows(), "instructions") == [COUNT]
    assert explore.metrics(rows(), "wall") == ["host_ns_init"]
    assert explore.levels(rows(), "memory") == ["256M", "1G"], "sizes by size"


def test_levels_are_compared_within_the_other_factors() -> None:
    found = explore.explore(rows(), View(metric=COUNT, x="memory", colour="machine"))
    assert found.clock == "instructions"
    assert list(found.comparisons["stratum"]) == ["machine=q35", "machine=microvm"]
    assert len(found.sentences) == 2
    assert list(found.summary["machine"]) == ["q35", "q35", "microvm", "microvm"]
    assert list(found.summary["memory"]) == ["256M", "1G"] * 2
    assert set(found.summary["interval"]) == {"all equal"}


def test_the_plot_has_a_panel_a_level_and_names_unit_clock_and_runs() -> None:
    figure = plot_study(explore.explore(rows(), View(metric=COUNT, x="memory", facet="machine")))
    assert [ax.get_title() for ax in figure.axes] == ["machine = q35", "machine = microvm"]
    assert "10⁹ instructions" in figure.axes[0].get_ylabel()
    assert "(instructions clock)" in figure.axes[0].get_ylabel()
    assert "n = 2" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ({"metric": "cell"}, "metric='cell'"),
        ({"metric": COUNT, "clock": "sun"}, "clock='sun'"),
        ({"metric": COUNT, "x": "memory", "facet": "memory"}, "shown twice"),
        ({"metric": COUNT, "x": "kernel"}, "factor='kernel'"),
        ({"metric": COUNT, "colour": "kernel"}, "factor='kernel'"),
        ({"metric": COUNT, "baseline": "2G", "x": "memory"}, "baseline='2G'"),
        ({"metric": COUNT, "session": "monday"}, "has no rows"),
        ({"metric": "memavailable_bytes"}, "rows of both"),
    ],
)
def test_a_view_that_cannot_be_is_refused(view: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        explore.explore(rows(memavailable_bytes=5), View(**view))


def test_the_explorer_looks_chooses_and_exports_without_a_widget(tmp_path: Path) -> None:
    for number, row in enumerate(rows().to_dict("records")):
        plain = {str(key): None if value != value else value for key, value in row.items()}
        study = "a" if row["clock"] == "wall" else "b"
        Store(tmp_path).add("boot", {**plain, "schema": SCHEMA, "run_id": str(number), "study": study})
    shown = widgets.explorer(tmp_path)
    assert shown.studies == ["a", "b"]
    shown.choose("b")
    assert shown.view.metric == COUNT, "what the study does not have is not asked for"
    assert shown.export(tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "1G q35" in shown.export(tmp_path / "x.md").read_text()
    assert shown.look(View(metric=COUNT, x="nothing")) is None
    assert "factor='nothing'" in shown.error
    with pytest.raises(InvalidInput, match="shows nothing"):
        shown.export(tmp_path / "y.csv")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has no rows"):
        widgets.explorer(tmp_path)
