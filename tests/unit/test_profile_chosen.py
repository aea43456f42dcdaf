"""Chosen profiles, their figures and their explorer: one or two, exact counts, exports by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from acon_nb import plots, widgets
from acon_nb.errors import InvalidInput
from acon_nb.profile import FunctionCount, Profile, Region, chosen, tables
from acon_nb.profile.chosen import ChosenProfiles
from acon_nb.profile.diff import difference

BEFORE = Profile(
    total=3_000_000,
    phases=("firmware", "kernel"),
    functions=(
        FunctionCount(name="(firmware)", phase="firmware", self_count=500_000, region=Region.FIRMWARE),
        FunctionCount(name="get_page", phase="kernel", self_count=1_500_000, file="mm/page_alloc.c"),
        FunctionCount(name="get_page", phase="firmware", self_count=1, file="mm/page_alloc.c"),
        FunctionCount(name="a$b<c", phase="kernel", self_count=999_999, file="fs/old.c"),
    ),
    origin={"kernel": "vmlinuz"},
)
AFTER = Profile(
    total=3_200_000,
    phases=BEFORE.phases,
    functions=(
        *BEFORE.functions[:-1],
        FunctionCount(name="new", phase="kernel", self_count=1_199_999, file="fs/new.c"),
    ),
)
ONE = ChosenProfiles(profiles=(BEFORE,), names=("old",))
TWO = ChosenProfiles(profiles=(BEFORE, AFTER), names=("old", "new"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    BEFORE.save(tmp_path / "old.json")
    AFTER.save(tmp_path / "new.json")
    return tmp_path


def test_stored_profiles_are_named_by_their_files(folder: Path) -> None:
    files = chosen.of_files([folder / "old.json", str(folder / "new.json")])
    assert files.names == ("old", "new")
    assert files.difference is not None
    assert files.difference.change == 200_000


def test_files_of_one_name_are_told_apart(folder: Path) -> None:
    names = chosen.of_files([folder / "old.json", folder / "old.json"]).names
    assert names[0] != names[1]


@pytest.mark.parametrize("number", [0, 3])
def test_other_numbers_of_profiles_are_refused(folder: Path, number: int) -> None:
    with pytest.raises(InvalidInput, match="is not one profile, or two"):
        chosen.of_files([folder / "old.json"] * number)


def rows_of(folder: Path) -> pd.DataFrame:
    names = {"memory=1": "old.json", "memory=2": "new.json", "memory=3": None}
    return pd.DataFrame({"cell": list(names), "profile": list(names.values())})


def test_the_first_and_the_last_cell_with_a_profile_are_compared(folder: Path) -> None:
    assert chosen.of_rows(rows_of(folder), folder).names == ("memory=1", "memory=2")
    assert chosen.of_rows(rows_of(folder), folder, ["=2"]).names == ("memory=2",)


def test_a_study_without_profiles_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="profile = true"):
        chosen.of_rows(pd.DataFrame({"cell": ["a"]}), folder)


def test_tables_have_exact_counts() -> None:
    one = ONE.table()
    assert list(one["self"]) == ["1,500,001", "999,999", "500,000"]
    two = TWO.table(1)
    assert list(two["difference"]) == ["+1,199,999"]
    assert list(ONE.folder_table()["instructions"])[:2] == ["1,500,001", "999,999"]
    assert dict(zip(TWO.folder_table()["folder"], TWO.folder_table()["difference"], strict=True))["fs"] == "+200,000"


def test_sentences_are_of_each_profile_and_the_difference() -> None:
    assert [line.split(":")[0] for line in TWO.sentences()[:2]] == ["old", "new"]
    assert "+200,000" in TWO.sentences()[2]
    assert len(ONE.sentences()) == 1


# --- figures ---


def texts_of(figure: Any) -> list[str]:
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    return [*texts, figure.get_suptitle(), *(ax.get_xlabel() for ax in figure.axes)]


def test_the_figure_of_a_profile_has_units_totals_and_counts() -> None:
    figure = plots.plot_profile(tables.ranked(BEFORE), most=1)
    texts = texts_of(figure)
    assert "1,500,001 (50.00%)" in texts
    assert "3,000,000 instructions executed, by phase and function" in texts
    assert any("1 other functions: 999,999" in text for text in texts)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels[0] == "firmware: 500,001 (16.7%)"


def test_the_figure_of_a_difference_adds_up(tmp_path: Path) -> None:
    figure = plots.plot_profile_difference(difference(BEFORE, AFTER), names=("old", "new"), most=1)
    texts = texts_of(figure)
    assert any("+1,199,999 (0 to 1,199,999)" in text for text in texts)
    assert "-999,999" in texts  # the others
    assert any("old to new: +200,000 instructions (+6.667%) of 3,000,000" in text for text in texts)
    plots.save(figure, tmp_path / "figure.svg")  # a$b is not taken for a formula


@pytest.mark.parametrize("profile", [Profile(total=0, phases=(), functions=()), BEFORE])
def test_equal_and_empty_profiles_have_figures(tmp_path: Path, profile: Profile) -> None:
    plots.save(plots.plot_profile(tables.ranked(profile)), tmp_path / "one.png")
    equal = difference(profile, profile)
    plots.save(plots.plot_profile_difference(equal, names=("a", "b")), tmp_path / "two.png")


# --- the explorer ---


def test_the_explorer_exports_by_the_files_name(tmp_path: Path) -> None:
    explorer = widgets.profile_explorer(TWO)
    assert "Difference: +200,000" in explorer.export(tmp_path / "x.html").read_text()
    with pytest.raises(InvalidInput, match="is a format of one profile"):
        explorer.export(tmp_path / "x.pb.gz")
    with pytest.raises(InvalidInput, match="no suffix of a known format"):
        explorer.export(tmp_path / "x.exe")
    explorer.shown = 1
    assert "kernel;[kernel];fs/;new.c;new 1199999" in explorer.export(tmp_path / "x.folded").read_text()
    assert "<title>Instructions of new</title>" in explorer.export(tmp_path / "x.html").read_text()


def test_the_explorer_makes_no_widget_in_headless_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    shown: list[Any] = []
    monkeypatch.setenv("ACON_NB_HEADLESS", "1")
    monkeypatch.setattr(IPython.display, "display", lambda *values: shown.extend(values))
    widgets.profile_explorer(TWO)._ipython_display_()
    assert [type(value).__name__ for value in shown] == ["ShownFigure", "Styler", "HTML"]
