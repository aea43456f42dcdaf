from __future__ import annotations

import json
from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.profile import FunctionCount, Profile, Region
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


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format": 2}', json.dumps({**PROFILE.values(), "stacks": 1})]
)
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="profile="):
        load(path)
