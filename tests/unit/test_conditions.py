"""Factors that apply only to some levels of others: the cells of a plan, its rows, what is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from acon_nb.analysis.compare import compare
from acon_nb.errors import InvalidInput
from acon_nb.host import environment
from acon_nb.results.select import having
from acon_nb.study import form
from acon_nb.study.cluster.dispatch import plan_of
from acon_nb.study.kinds import kind
from acon_nb.study.plan import Plan, PlannedRun, load
from acon_nb.study.runner import Measured, run_row
from acon_nb.swap import SwapFactors
from acon_nb.swap.analysis.choices import Choice
from acon_nb.swap.analysis.effects import combinations, effects
from acon_nb.swap.analysis.rows import counted
from acon_nb.swap.experiment import with_checks
from acon_nb.vm import Clock, End

POOLS: dict[str, Any] = {"swap": ["disk", "zswap:lz4"], "pool_percent": [20, 50]}


def swap_plan(**more: Any) -> Plan:
    return Plan(**{"name": "pools", "study": "swap", "factors": POOLS, **more})


def labels(plan: Plan) -> list[str]:
    return [cell.label for cell in plan.all_cells]


def test_a_factor_of_one_swap_is_in_its_cells_alone() -> None:
    plan = swap_plan()
    assert labels(plan) == ["swap=disk", "swap=zswap:lz4, pool_percent=20", "swap=zswap:lz4, pool_percent=50"]
    assert [cell.without for cell in plan.all_cells] == [("pool_percent",), (), ()]
    kind("swap").check(plan)


def test_conditions_follow_from_each_other_and_from_set_ups() -> None:
    factors = {"swap": ["none", "zram:lz4", "disk"], "encryption": ["none", "@"], "tags": ["ram", "disk"]}
    assert labels(swap_plan(factors=factors)) == [
        "swap=none", "swap=zram:lz4", "swap=disk, encryption=none",
        "swap=disk, encryption=@, tags=ram", "swap=disk, encryption=@, tags=disk",
    ]  # fmt: skip
    plan = swap_plan(factors={"setup": ["disk", "zswap-zstd"], "pool_percent": [20, 50]})
    assert labels(plan) == ["setup=disk", "setup=zswap-zstd, pool_percent=20", "setup=zswap-zstd, pool_percent=50"]
    kind("swap").check(plan)


def test_levels_and_times_apply_to_what_has_them() -> None:
    factors = {"swap": ["disk", "zram:lzo", "zram:zstd"], "compressor_level": [1, 15]}
    assert labels(swap_plan(factors=factors)) == [
        "swap=disk", "swap=zram:lzo", "swap=zram:zstd, compressor_level=1", "swap=zram:zstd, compressor_level=15",
    ]  # fmt: skip
    factors = {"damon_reclaim": [False, True], "damon_min_age": ["1s", "5s"]}
    assert len(swap_plan(factors=factors).all_cells) == 3


def test_a_fixed_factor_is_left_out_where_it_does_not_apply() -> None:
    plan = swap_plan(factors={"swap": ["disk", "zram", "zswap"]}, fixed={"pool_percent": 50, "compressor": "zstd"})
    assert [dict(cell.levels) for cell in plan.all_cells] == [
        {"swap": "disk"}, {"compressor": "zstd", "swap": "zram"},
        {"pool_percent": 50, "compressor": "zstd", "swap": "zswap"},
    ]  # fmt: skip
    kind("swap").check(plan)


@pytest.mark.parametrize(
    "plan",
    [
        {"factors": {"swap": ["disk", "zram"], "pool_percent": [30, 50]}},
        {"factors": {"swap": ["disk", "zram"]}, "fixed": {"pool_percent": 50}},
        {"factors": {}, "cells": [{"swap": "disk", "pool_percent": 50}, {"swap": "zswap"}]},
    ],
)
def test_what_applies_nowhere_or_is_listed_is_still_refused_by_name(plan: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        kind("swap").check(swap_plan(**plan))
    assert caught.value.field == "pool_percent"


def test_a_plan_says_its_own_conditions(tmp_path: Path) -> None:
    file = tmp_path / "sizes.toml"
    file.write_text(
        'study = "boot"\n[factors]\nmachine = ["q35", "microvm"]\nmemory = ["256M", "512M"]\n'
        '[applies]\nmemory = {machine = ["q35"]}\n'
    )
    plan = load(file)
    assert labels(plan) == ["machine=q35, memory=256M", "machine=q35, memory=512M", "machine=microvm"]
    assert plan.key != replace(plan, applies={}).key
    plain = swap_plan(factors={"swap": ["disk", "zram:lz4"]})
    assert plain.key == replace(plain, applies={}).key
    zram = swap_plan(
        factors={"swap": ["disk", "zram:lz4"], "swappiness": [60, 180]}, applies={"swappiness": {"swap": ["zram"]}}
    )
    assert labels(zram) == ["swap=disk", "swap=zram:lz4, swappiness=60", "swap=zram:lz4, swappiness=180"]


@pytest.mark.parametrize(
    ("applies", "field"),
    [
        ({"pool_percnt": {"swap": ["zswap"]}}, "applies.pool_percnt"),
        ({"pool_percent": {"swop": ["zswap"]}}, "applies.pool_percent.swop"),
        ({"pool_percent": {"swap": ["zram"]}}, "applies.pool_percent.swap"),
        ({"pool_percent": {"pool_percent": [20]}}, "applies.pool_percent.pool_percent"),
        ({"pool_percent": {"swap": []}}, "applies.pool_percent.swap"),
        ({"pool_percent": {"swap": "zswap"}}, "applies.pool_percent.swap"),
    ],
)
def test_conditions_name_what_the_plan_has(applies: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        swap_plan(applies=applies)
    assert caught.value.field == field
    assert caught.value.hint


def test_the_cells_of_built_in_plans_are_what_they_were() -> None:
    assert {cell.without for name in ("paper", "answers", "disks", "smoke") for cell in load(name).all_cells} == {()}


def test_a_form_has_the_conditions() -> None:
    plan = swap_plan(factors={**POOLS, "swappiness": [60, 180]}, applies={"swappiness": {"swap": ["zswap"]}})
    texts = form.texts_of(plan)
    assert texts["applies"] == "swappiness: swap = zswap"
    back, wrong = form.read_texts(texts, plan)
    assert wrong == {}
    assert back is not None
    assert labels(back) == labels(plan)
    assert labels(back)[0] == "swap=disk"
    assert "only with swap zswap" in set(form.design_table(plan)["levels"])
    for text in ("swappiness", "swappiness: swap = zram", "swapiness: swap = zswap", "swappiness: swop = zswap"):
        back, wrong = form.read_texts({**texts, "applies": text}, plan)
        assert back is None
        assert list(wrong) == ["applies"]


def test_a_cell_on_another_host_is_the_same() -> None:
    plan = with_checks(swap_plan(fixed={"accept_percent": 80}))
    for number, cell in enumerate(plan.all_cells):
        (one,) = plan_of(plan, number).all_cells
        assert (one.label, one.levels) == (cell.label, cell.levels)


def rows_of(plan: Plan) -> pd.DataFrame:
    rows = []
    for cell in plan.all_cells:
        levels = SwapFactors.of(cell.levels).levels()
        for seed in (1, 2, 3):
            ops = {"disk": 1000.0}.get(levels["swap"], 2000.0) * (1 + 0.01 * seed) + levels["pool_percent"]
            row = {**{f"factor_{name}": level for name, level in levels.items()}, "seed": seed, "access_ops_per_s": ops}
            rows.append(
                run_row(
                    Measured(row=row, end=End.POWERED_OFF, console=Path()), plan=plan, kind="swap", session="", key="",
                    cell=cell, planned=PlannedRun(cell=0, block=seed, position=0), clock=Clock.INSTRUCTIONS, attempt=1,
                    seconds=1.0, host=environment(),
                )
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_a_row_has_no_level_of_what_does_not_apply_and_nothing_pairs_with_it() -> None:
    rows = rows_of(swap_plan())
    disk = rows[rows["factor_swap"] == "disk"]
    assert disk["factor_pool_percent"].isna().all(), "not the default, 20"
    assert set(disk["not_applicable"]) == {"pool_percent"}
    assert len(having(rows, "pool_percent")) == 6
    compared = compare(rows, "access_ops_per_s", factor="pool_percent")
    assert [(str(row["baseline"]), str(row["cell"])) for row in compared.to_dict("records")] == [("20.0", "50.0")]
    with pytest.raises(InvalidInput, match="applies to none"):
        compare(disk, "access_ops_per_s", factor="pool_percent")
    study = counted(rows)
    assert [str(choice) for choice in study.choices] == ["disk", "zswap lz4 pool 20 %", "zswap lz4 pool 50 %"]
    assert study.choices[0] == Choice("disk")
    assert set(combinations(study, "pool_percent", "access_ops_per_s")) == {"20", "50"}
    assert [(one.factor, one.baseline, one.level) for one in effects(study, "access_ops_per_s")] == [
        ("pool_percent", "20", "50")
    ]


def test_a_situation_that_some_cells_do_not_have_is_no_level_of_theirs() -> None:
    factors = {"workload": ["anon", "file"], "file_share": [0.2, 0.6], "swap": ["disk", "zram:lz4"]}
    rows = rows_of(swap_plan(factors=factors))
    assert len(rows) == 3 * 6
    study = counted(rows)
    assert set(combinations(study, "file_share", "access_ops_per_s")) == {"0.2", "0.6"}
    assert {text for text in study.frame["situation"] if "anon" in text} == {"workload=anon, file_share=none"}


def test_rows_of_a_version_without_a_factor_have_its_default() -> None:
    rows = rows_of(swap_plan(factors={"swap": ["disk", "zram:lz4"]}))
    older = rows.drop(columns=["factor_setup", "factor_locality"]).assign(seed=rows["seed"] + 3)
    study = counted(pd.concat([rows, older], ignore_index=True))
    assert [str(choice) for choice in study.choices] == ["disk", "zram lz4"]
    assert study.situations == ()
