"""A third kind of study, in a package of its own (tests/toy_kind), through every room that asks rows of any kind.

The package is built and unpacked where Python looks for packages, as an installer would; gzip really runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from acon_nb import registry, results, widgets
from acon_nb.analysis import explore, nightly, selfcheck, tables
from acon_nb.analysis.compare import compare
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.results.metrics import metric
from acon_nb.results.store import Store
from acon_nb.study import form, host_lock, kinds, plan
from acon_nb.study.cluster import cluster_study_of
from acon_nb.study.plan import Plan
from acon_nb.widgets.board import cells_table

TOY = Path(__file__).parents[1] / "toy_kind"
DOCS = Path(__file__).parents[2] / "docs/study.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The toy kind, installed."""
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=TOY, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        locks = tmp_path_factory.mktemp("lock")
        patch.setattr(host_lock, "_folder", lambda: locks)  # gzip need not wait for a study on this host
        registry.refresh()
        yield folder
    registry.refresh()
    for name in [name for name in sys.modules if name.partition(".")[0] == "packing"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def out(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of its plan, run from the command line, beside a row of another kind."""
    folder = tmp_path_factory.mktemp("out")
    output = said("bench", "study", "levels", "--out", folder)
    assert "packs best: " in output
    Store(folder).add("boot", {**results.stamp(), "study": "other", "cell": "x", "clock": "wall"})
    return folder


@pytest.fixture
def rows(out: Path) -> pd.DataFrame:
    return results.load(out, study="levels")


def said(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == status, result.output
    return result.output


def test_the_page_shows_the_kind_as_it_is() -> None:
    text = DOCS.read_text()
    for path in ("pyproject.toml", "packing/kind.py", "packing/columns.toml", "packing/plans/levels.toml"):
        lines = (TOY / path).read_text().splitlines()
        assert "".join(f"    {line}\n" if line else "\n" for line in lines) in text, path


def test_its_plans_are_checked_and_sized_before_anything_runs(out: Path) -> None:
    assert "packing" in kinds.names()
    assert "levels" in plan.built_in()
    levels = plan.load("levels")
    changed, wrong = form.read_texts({**form.texts_of(levels, ("level",)), "level": "0 1"}, levels, ("level",))
    assert changed is None
    assert "level=0 is out of range" in wrong["level"]
    with pytest.raises(InvalidInput, match="did you mean level"):
        kinds.kind("packing").check(Plan(name="p", study="packing", factors={"levle": [1]}))
    assert "3 cells, 18 runs, some" in kinds.estimate_of(levels, results.load(out, "packing")).text()
    assert "level=1: 6 runs, wall clock" in said("bench", "study", "levels", "--dry-run", "--out", out)


def test_its_rows_are_those_of_the_runner(out: Path, rows: pd.DataFrame) -> None:
    assert len(rows) == 18
    assert set(rows["kind"]) == {"packing"}
    assert set(rows["baseline"]) == {"level=6"}
    assert rows[~rows["warmup"]].groupby("cell")["block"].apply(list).map(sorted).tolist() == [[0, 1, 2, 3, 4]] * 3
    ratios = rows.groupby("factor_level")["packing_ratio"].median()
    assert ratios[9] > ratios[1] > 1
    before = len(results.load(out, "packing"))
    said("bench", "study", "levels", "--out", out)
    assert len(results.load(out, "packing")) == before, "nothing is measured twice"


def test_its_columns_are_measures(rows: pd.DataFrame) -> None:
    assert (metric("pack_ns").label, metric("pack_ns").unit, metric("packing_ratio").more_is_better) == (
        "time to pack",
        "s",
        True,
    )
    assert {"pack_ns", "packing_ratio"} <= set(explore.metrics(rows, "wall"))
    (first, *_) = tables.study_table(rows).to_dict("records")
    assert list(first) == ["clock", "cell", "runs", "time to pack", "size over packed size", "not counted"]
    assert (first["runs"], first["not counted"]) == (5, "1 warm-up")
    (row, _) = compare(rows, "packing_ratio", factor="level").to_dict("records")
    assert row["verdict"]


def test_the_explorer_the_designer_and_the_board_show_it(site: Path, out: Path, tmp_path: Path) -> None:
    shown = widgets.explorer(out, kind="packing")
    assert shown.view.metric == "pack_ns"
    assert shown.look(explore.View(metric="packing_ratio", x="level", baseline="6")) is not None
    assert shown.export(tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    designer = widgets.study_designer(plan.load("levels"), out)
    assert designer.shown == ("level", "lines")
    assert "3 cells, 18 runs, some" in designer.report().to_html()
    study = kinds.study_of(plan.load("levels"), tmp_path / "none")
    assert list(cells_table(widgets.board(study).study.state)["state"]) == ["waiting"] * 3


def test_the_command_line_asks_its_rows(out: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    assert "18 rows" in said("bench", "rows", "--out", out, "--kind", "packing", "-o", table)
    assert "pack_ns" in table.read_text().splitlines()[0]
    assert "kind='': is missing" in said("bench", "rows", "--out", out, "-o", table, status=2)
    asked = ("bench", "compare", "levels", "--out", out, "--factor", "level", "--baseline", "6")
    assert "size over packed size" in said(*asked, "--metric", "packing_ratio")
    assert len(json.loads(said(*asked, "--metric", "pack_ns", "--json"))["comparisons"]) == 2
    picture = tmp_path / "p.png"
    for how in (("--metric", "pack_ns", "--x", "level"), ("--figure", "trade")):
        picture.unlink(missing_ok=True)
        assert "18 runs" in said("bench", "plot", "levels", "--out", out, *how, "-o", picture) or how[0] == "--metric"
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert "figure='pie': is not a figure of packing studies" in said(
        "bench", "plot", "levels", "--out", out, "--figure", "pie", "-o", picture, status=2
    )
    assert "cannot be combined with --figure" in said(
        "bench", "plot", "levels", "--out", out, "--figure", "trade", "--metric", "pack_ns", "-o", picture, status=2
    )
    assert "give --metric or --figure" in said("bench", "plot", "levels", "--out", out, "-o", picture, status=2)


def test_nights_follow_its_measures(site: Path, tmp_path: Path) -> None:
    spec = nightly.NightlySpec(history=tmp_path, plan="levels", night="2026-01-01")
    nightly.measure(spec)
    judged = nightly.judge(spec)
    assert judged.passed, judged.sentences()
    assert {series.metric for series in judged.series} == {"pack_ns", "packing_ratio"}


def test_the_check_of_the_tool_itself_runs_its_copies(site: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies.toml"
    copies.write_text('study = "packing"\nwarmups = 0\n[fixed]\nlines = 2000\n[factors]\ncopy = ["a", "b"]\n')
    check = selfcheck.measured(tmp_path / "out", "wall", 1, plan_name=str(copies))
    assert check.comparisons == 1
    assert len(results.load(tmp_path / "out")) == 10
    with pytest.raises(InvalidInput, match="clock='instructions': is not that of the plan"):
        selfcheck.measured(tmp_path / "out", "instructions", 1, plan_name=str(copies))


def test_it_cannot_travel_and_says_so(site: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="study='packing': cannot be measured on other hosts"):
        cluster_study_of(plan.load("levels"), tmp_path, None)  # type: ignore[arg-type]


def test_rows_of_a_kind_that_is_gone_can_still_be_asked(out: Path, rows: pd.DataFrame) -> None:
    gone = rows.assign(kind="unknown")
    assert explore.first_view(gone).metric in explore.metrics(gone, "wall")
    assert list(tables.study_table(gone)["runs"]) == [5, 5, 5]
