from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.study import plan
from acon_nb.study.kinds import experiment_of
from acon_nb.study.plan import Plan


def test_a_plan_has_every_combination_of_the_levels() -> None:
    made = Plan(
        name="p", study="boot", factors={"memory": ["256M", "512M"], "machine": ["q35", "microvm"]}, fixed={"vcpus": 1}
    )
    assert [row.label for row in made.all_cells] == [
        "memory=256M, machine=q35", "memory=256M, machine=microvm",
        "memory=512M, machine=q35", "memory=512M, machine=microvm",
    ]  # fmt: skip
    assert made.all_cells[1].levels == {"vcpus": 1, "memory": "256M", "machine": "microvm"}
    assert made.varying == ("memory", "machine")
    assert made.baseline_label == "memory=256M, machine=q35"


def test_a_list_of_cells_stands_alone_or_beside_the_factors() -> None:
    listed = Plan(name="p", study="boot", cells=[{"machine": "q35"}, {"machine": "q35", "firmware": "ovmf"}])
    assert [row.label for row in listed.all_cells] == ["machine=q35", "machine=q35, firmware=ovmf"]
    both = Plan(name="p", study="boot", factors={"machine": ["q35"]}, cells=[{"machine": "microvm", "cmdline": ""}])
    assert [row.label for row in both.all_cells] == ["machine=q35", "machine=microvm, cmdline=none"]
    assert [row.label for row in Plan(name="p", study="boot").all_cells] == ["the cell"]


def test_a_block_is_one_run_of_each_cell_and_their_order_differs() -> None:
    made = Plan(name="p", study="boot", factors={"memory": ["1G", "2G", "3G", "4G"]}, runs=6, warmups=2)
    turns = list(made.schedule())
    warm, rest = turns[:8], turns[8:]
    assert all(planned.warmup for planned in warm)
    assert not any(planned.warmup for planned in rest)
    blocks = [[planned.cell for planned in rest if planned.block == number] for number in range(6)]
    assert all(sorted(block) == [0, 1, 2, 3] for block in blocks)
    assert len({tuple(block) for block in blocks}) > 1
    assert [planned.position for planned in rest] == [0, 1, 2, 3] * 6
    assert list(made.schedule()) == turns


def test_of_two_cells_the_order_alternates() -> None:
    made = Plan(name="p", study="boot", factors={"machine": ["q35", "microvm"]}, runs=4, warmups=0)
    order = [planned.cell for planned in made.schedule()]
    assert order in ([0, 1, 1, 0] * 2, [1, 0, 0, 1] * 2)


def test_a_toml_file_and_python_give_the_same_plan(tmp_path: Path) -> None:
    file = tmp_path / "sizes.toml"
    file.write_text(
        'study = "boot"\nruns = 3\nminimum_effect = 0.02\nbaseline = {memory = "1G"}\n[fixed]\nclock = "wall"\n'
        '[factors]\nmemory = ["512M", "1G"]\n'
    )
    same = Plan(
        name="sizes",
        study="boot",
        runs=3,
        minimum_effect=0.02,
        baseline={"memory": "1G"},
        fixed={"clock": "wall"},
        factors={"memory": ["512M", "1G"]},
    )
    assert plan.load(file) == same
    assert plan.load(file).key == same.key
    assert same.baseline_label == "memory=1G"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "../x"}, r"name='\.\./x': is not valid"),
    ({"name": "p", "runs": 0}, "runs=0"),
    ({"name": "p", "runs": True}, "runs=True"),
    ({"name": "p", "runs": "5"}, "runs='5'"),
    ({"name": "p", "minimum_effect": 1.5}, r"minimum_effect=1\.5"),
    ({"name": "p", "factors": {"memory": []}}, r"factors\.memory=\[\]"),
    ({"name": "p", "factors": {"memory": "1G"}}, r"factors\.memory='1G': is not a list"),
    ({"name": "p", "factors": {"memory": ["1G", "1G"]}}, "has a level twice"),
    ({"name": "p", "factors": {"memory": [["1G"]]}}, r"factors\.memory\[0\]=\['1G'\]: is not text or a whole number"),
    ({"name": "p", "factors": {"memory": ["1G"]}, "fixed": {"memory": "2G"}}, "varies too"),
    ({"name": "p", "cells": [{"a": 1}, {"a": 1}]}, "appears twice"),
    ({"name": "p", "factors": {"a": [1]}, "baseline": {"a": 2}}, "matches no cell"),
    ({"name": "p", "facters": {}}, "facters={}: is not a field of a plan"),
    ({"runs": 3}, "name=None: is missing"),
    ({"name": "p", "factors": ["a"]}, "factors=\\['a'\\]: is not a table"),
    ({"name": "p", "cells": "a"}, "cells='a': is not a list"),
]


@pytest.mark.parametrize(("data", "words"), BAD)
def test_a_bad_plan_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Plan.of({"study": "boot", **data})


def test_a_near_name_is_told() -> None:
    with pytest.raises(InvalidInput) as caught:
        Plan.of({"name": "p", "warmup": 1})
    assert caught.value.hint == "did you mean warmups?"


def test_a_plan_without_a_kind_of_study_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"study=None: is missing\n.*one of boot, swap"):
        Plan.of({"name": "p"})


def test_a_file_that_is_none_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file") as caught:
        plan.load(tmp_path / "none.toml")
    assert "quick" in caught.value.hint
    (tmp_path / "bad.toml").write_text("runs = ")
    with pytest.raises(InvalidInput, match="is not valid TOML"):
        plan.load(tmp_path / "bad.toml")


def test_a_profile_is_asked_for_by_the_plan_or_among_its_fixed_factors() -> None:
    base = {"name": "p", "study": "boot", "fixed": {"profile": "guide"}}
    assert not Plan.of(base).profile
    asked = Plan.of({**base, "profile": True})
    assert asked.profile
    assert asked.all_cells[0].levels == {"profile": "guide"}
    among = Plan.of({**base, "fixed": {"profile": True, "memory": "1G"}})
    assert among.profile
    assert among.all_cells[0].levels == {"memory": "1G"}
    assert Plan.of(base).key != asked.key


def test_profiles_are_refused_on_the_wall_clock() -> None:
    for study in ("boot", "swap"):
        wall = Plan.of({"name": "p", "study": study, "fixed": {"clock": "wall"}, "profile": True})
        with pytest.raises(InvalidInput, match=r"is counted in instructions: .* is on the wall clock"):
            experiment_of(wall)


def test_every_built_in_plan_is_one() -> None:
    assert plan.built_in()
    for name in plan.built_in():
        assert plan.load(name).name == name


def test_call_stacks_are_part_of_a_profile() -> None:
    asked = Plan.of({"name": "calls", "study": "boot", "fixed": {"profile": True, "calls": True}})
    assert asked.profile
    assert asked.calls
    assert not asked.fixed
    assert replace(asked, calls=False).key != asked.key
    with pytest.raises(InvalidInput, match="profile = true"):
        replace(asked, profile=False)
