from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.validation import Meta, OneOf, build, check_fields, closest, read_text


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Box:
    name: str
    count: Annotated[int, Meta(ge=1, le=9)] = 3
    share: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    limit_s: Annotated[float, Meta(gt=0, description="give seconds above 0")] = 1.0
    kind: Annotated[str, OneOf(("", "tall", "small"))] = ""
    colour: Colour = Colour.RED
    closed: bool = False
    path: Path | None = None
    tags: tuple[str, ...] = ()
    levels: Mapping[str, Sequence[str | int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": 3}, ["name=3: is not text", "give text"]),
        ({"count": 0}, ["count=0: is out of range", "a whole number: 1 to 9"]),
        ({"count": "3"}, ["count='3': is not a whole number"]),
        ({"count": True}, ["count=True: is not a whole number"]),
        ({"count": 2.5}, ["count=2.5: is not a whole number"]),
        ({"share": 1}, ["share=1: is out of range", "0 or more and less than 1"]),
        ({"share": float("nan")}, ["share=nan: is out of range"]),
        ({"limit_s": 0}, ["limit_s=0: is out of range", "give seconds above 0"]),
        ({"kind": "tal"}, ["kind='tal': is not known", "did you mean tall?", "one of nothing, tall, small"]),
        ({"colour": "green"}, ["colour='green'", "red, blue"]),
        ({"closed": "yes"}, ["closed='yes': is not true or false"]),
        ({"path": "a"}, ["path='a'"]),
        ({"tags": "abc"}, ["tags='abc': is not a list"]),
        ({"tags": ("a", 1)}, ["tags[1]=1: is not text"]),
        ({"levels": {"a": ["b", 2.5]}}, ["levels.a[1]=2.5: is not text or a whole number"]),
        ({"levels": ["a"]}, ["levels=['a']: is not a table"]),
    ],
)
def test_a_field_that_does_not_hold_is_refused_by_name(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        Box(**{"name": "box", **fields})
    assert re.match(r"\w+", caught.value.field)[0] == next(iter(fields))  # type: ignore[index]
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_fits_is_taken_and_a_whole_number_is_a_number() -> None:
    box = Box(name="box", share=0, colour="blue", path=Path("x"), tags=("a",))  # type: ignore[arg-type]
    assert (box.share, type(box.share), box.colour) == (0.0, float, Colour.BLUE)
    assert replace(box, count=9).count == 9
    with pytest.raises(InvalidInput, match="count=10"):
        replace(box, count=10)


def test_a_mapping_builds_it_and_a_wrong_name_gets_the_nearest() -> None:
    assert build(Box, {"name": "b", "count": 2}, what="a box") == Box(name="b", count=2)
    with pytest.raises(InvalidInput, match="is not a field of a box") as caught:
        build(Box, {"name": "b", "cuont": 2}, what="a box")
    assert "did you mean count?" in str(caught.value)
    with pytest.raises(InvalidInput, match="name=None: is missing"):
        build(Box, {"count": 2}, what="a box")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("count", "4", 4), ("share", "0.25", 0.25), ("closed", "yes", True), ("closed", "off", False), ("name", "4", "4")],
)
def test_the_text_of_a_form_is_read(name: str, text: str, value: object) -> None:
    assert read_text(Box, name, text) == value


@pytest.mark.parametrize(("name", "text"), [("count", "four"), ("count", "12"), ("count", ""), ("closed", "maybe")])
def test_a_text_that_is_not_its_field_s_is_refused_as_it_was_typed(name: str, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_text(Box, name, text)
    assert (caught.value.field, caught.value.value) == (name, text)


def refused_field(name: str, value: object) -> str | None:
    try:
        Box(**{"name": "box", name: value})
    except InvalidInput as error:
        return re.split(r"[.\[]", error.field)[0]
    return None


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_any_value_fits_or_is_refused_by_name(value: Any) -> None:
    for name in ("name", "count", "share", "kind", "colour", "closed", "tags", "levels"):
        assert refused_field(name, value) in (None, name)


def test_all_known_names_are_listed_where_none_is_near() -> None:
    assert closest("zzz", ["a", ""]) == "one of a, nothing"
