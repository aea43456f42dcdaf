from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.profile import FunctionCount, Profile, Region, tables
from acon_nb.profile.model import load, of_values

PROFILE = Profile(
    total=100,
    phases=("firmware", "kernel init"),
    functions=(
        FunctionCount(name="(firmware)", phase="firmware", self_count=31, region=Region.FIRMWARE),
        FunctionCount(name="memset", phase="kernel init", self_count=70, file="arch/x86/lib/memset_64.S"),
    ),
    stacks={("kernel init", "start_kernel", "memset"): 70},
    origin={"kernel": "bzImage"},
)


def test_what_the_functions_do_not_explain_is_named() -> None:
    assert PROFILE.unattributed == -1
    assert sum(one.self_count for one in PROFILE.functions) + PROFILE.unattributed == PROFILE.total


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "one.profile.json"
    PROFILE.save(path)
    assert load(path) == PROFILE
    assert load(path).sha256 == PROFILE.sha256


def test_where_it_came_from_does_not_change_its_hash() -> None:
    elsewhere = of_values({**PROFILE.values(), "origin": {"kernel": "other"}})
    assert elsewhere.sha256 == PROFILE.sha256
    assert of_values({**PROFILE.values(), "total": 101}).sha256 != PROFILE.sha256


@given(st.dictionaries(st.lists(st.sampled_from("abc"), min_size=1).map(tuple), st.integers(1, 99)))
def test_call_stacks_are_read_as_they_were_written(stacks: dict[tuple[str, ...], int]) -> None:
    profile = replace(PROFILE, stacks=stacks)
    assert of_values(json.loads(json.dumps(profile.values()))).stacks == stacks
    assert of_values(profile.values()).sha256 == profile.sha256


def test_call_stacks_share_what_they_have_in_common() -> None:
    stacks = {("kernel", "a"): 1, ("kernel", "a", "b"): 2, ("kernel", "c"): 3}
    packed = replace(PROFILE, stacks=stacks).values()["stacks"]
    assert packed == {"names": ["a", "b", "c", "kernel"], "nodes": [[0, 3, 0], [1, 0, 1], [2, 1, 2], [1, 2, 3]]}


def test_inclusive_counts_and_callees() -> None:
    stacks = {
        ("kernel", "do_one_initcall"): 1,
        ("kernel", "do_one_initcall", "acpi_init", "memset"): 10,
        ("kernel", "do_one_initcall", "acpi_init", "do_one_initcall"): 5,
        ("/init", "do_one_initcall", "pty_init"): 7,
    }
    profile = replace(PROFILE, stacks=stacks)
    inclusive = tables.inclusive(profile)
    assert inclusive["kernel", "do_one_initcall"] == 16
    assert inclusive["/init", "do_one_initcall"] == 7
    assert inclusive["kernel", "memset"] == 10
    assert tables.callees(profile, "do_one_initcall") == {"acpi_init": 15, "pty_init": 7}
    assert "acpi_init" in tables.inclusive_text(profile).partition("initcall instructions")[2]


@pytest.mark.parametrize("nodes", [[[1, 0, 5]], [[-1, 0, 5]], [[0, 9, 5]], [[0, -1, 5]], [[0, 0]], [7]])
def test_call_stacks_that_are_no_tree_are_refused(nodes: object) -> None:
    with pytest.raises(InvalidInput, match="profile="):
        of_values({**PROFILE.values(), "stacks": {"names": ["a"], "nodes": nodes}})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format": 2}', json.dumps({**PROFILE.values(), "stacks": 1})]
)
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="profile="):
        load(path)
