"""Kernels as levels of a plan: what each names, what is built for it, and how answers compare them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from acon_nb.changes import suite
from acon_nb.errors import InvalidInput
from acon_nb.kernel import BuildSpec
from acon_nb.study.kernels import check_kernels, spec_of
from acon_nb.study.kinds import experiment_of
from acon_nb.study.plan import Plan, load
from acon_nb.swap.analysis.question import Question
from acon_nb.swap.analysis.study import SwapAnalysis

BASE = BuildSpec(profiles=("guide", "study"), source="debian:6.12", settings=("HZ_100=y",))


def test_a_level_names_what_is_built() -> None:
    table = {"mine": {"source": "debian:6.1", "settings": "LRU_GEN=y", "patches": ["a.patch"]}}
    assert spec_of("build", BASE, table) == BASE
    assert spec_of("debian:7.0", BASE, table) == replace(BASE, source="debian:7.0")
    mine = spec_of("mine", BASE, table)
    assert mine == replace(BASE, source="debian:6.1", settings=("HZ_100=y", "LRU_GEN=y"), patches=(Path("a.patch"),))
    assert spec_of("/boot/vmlinuz", BASE, table) is None
    assert spec_of("package:linux-image-cloud-amd64", BASE, table) is None


@pytest.mark.parametrize(
    ("table", "levels", "field", "words"),
    [
        ({}, ["patched"], "kernel", "[kernels]"),
        ({"patched": {}}, ["patchd", "patched"], "kernel", "did you mean patched?"),
        ({"patched": {"sauce": "x"}}, ["patched"], "kernels.patched.sauce", "source"),
        ({"patched": {"patches": ["no.patch"]}}, ["patched"], "kernels.patched.patches", "git format-patch"),
        ({"patched": {"patches": "no.patch"}}, ["patched"], "kernels.patched.patches", "list"),
        ({"build": {}}, ["build"], "kernels", "not build"),
        ({"spare": {}}, ["build"], "kernels.spare", "kernel = "),
    ],
)
def test_a_kernel_that_cannot_be_is_refused_by_name(
    table: dict[str, Any], levels: list[str], field: str, words: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_kernels(table, dict.fromkeys(levels))
    assert caught.value.field == field
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["swap", "boot"])
def test_a_plan_is_refused_before_anything_is_built(kind: str) -> None:
    plan = Plan(name="k", study=kind, factors={"kernel": ["build", "topic"]})
    with pytest.raises(InvalidInput, match="topic"):
        experiment_of(plan)
    experiment_of(replace(plan, kernels={"topic": {"settings": "LRU_GEN=y"}}))


def test_patches_are_relative_to_the_plan(tmp_path: Path) -> None:
    (tmp_path / "my.patch").write_text("x")
    (tmp_path / "p.toml").write_text(
        'study = "swap"\n[factors]\nkernel = ["debian:6.12", "patched"]\n[kernels.patched]\npatches = ["my.patch"]\n'
    )
    plan = load(tmp_path / "p.toml")
    assert plan.kernels["patched"]["patches"] == [str(tmp_path / "my.patch")]
    experiment_of(plan)


def test_a_plan_without_named_kernels_keeps_its_key() -> None:
    plan = Plan(name="k", study="swap", factors={"swap": ["disk", "zram"]})
    assert plan.key == "4ca4ca4360576b75ec0ab9b47a22f599"
    assert replace(plan, kernels={"a": {}}).key != plan.key


def test_the_suite_of_series_is_a_plan_of_kernels() -> None:
    plan = suite.plan_of(suite.cells("quick"), "swap", ["debian:6.1", "debian:6.12"])
    experiment_of(plan)
    assert {cell.levels["kernel"] for cell in plan.all_cells} == {"debian:6.1", "debian:6.12"}


def rows_of_two_kernels() -> pd.DataFrame:
    """Rows in which zram on 6.12 is twice as fast as all else, in each of five seeds."""
    return pd.DataFrame(
        [
            {
                "clock": "instructions", "end": "powered_off", "error": "", "factor_swap": swap, "factor_seed": 0,
                "factor_kernel": kernel, "kernel_sha256": kernel, "seed": seed, "corrupt_pages": 0, "oom_kills": 0,
                "access_ops_per_s": (2000.0 if (swap, kernel) == ("zram", "debian:6.12") else 1000.0)
                * (1 + 0.01 * ((seed * 7 + len(swap) + len(kernel)) % 5)),
            }
            for seed in range(1, 6)
            for swap in ("disk", "zram")
            for kernel in ("debian:6.1", "debian:6.12")
        ]
    )  # fmt: skip


def test_kernels_are_a_situation_or_what_is_decided() -> None:
    rows = rows_of_two_kernels()
    given = SwapAnalysis(rows, Question()).clocks[0]
    assert [answer.situation for answer in given.answers] == ["kernel=debian:6.1", "kernel=debian:6.12"]
    assert not any("different guests" in note for note in given.rows.notes)
    decided = SwapAnalysis(rows, Question(decide="kernel"), baseline="disk on debian:6.1").clocks[0]
    assert len(decided.answers) == 1
    assert [str(choice) for choice in decided.answers[0].best.choices] == ["zram on debian:6.12"]
    assert "zram on debian:6.12 compared with disk on debian:6.1" in "\n".join(decided.answers[0].words)


def test_what_does_not_vary_cannot_be_decided() -> None:
    with pytest.raises(InvalidInput, match="does not vary"):
        _ = SwapAnalysis(rows_of_two_kernels(), Question(decide="machine")).clocks
