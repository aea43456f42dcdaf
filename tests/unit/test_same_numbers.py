"""Rows that an older version measured give the numbers that it derived from them (data/rows_v2).

`data/make_rows.py` has the rows that are made up, `data/make_expected.py` wrote the expectations; both ran once, with
the version that wrote the rows. `numbers_api.py` is what to adapt when a function of the package moves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.canonical import differences, numbers_in
from tests.unit.quantities import DATA, QUANTITIES, Rows

EXPECTED: Mapping[str, Any] = json.loads((DATA / "expected.json").read_text())
NOW: Mapping[str, Any] = json.loads((DATA / "restated.json").read_text())

# Numbers that were changed on purpose: a quantity -> why, and what they are now, by their place in it.
_LEVEL = "one level, 0.05, for all comparisons: cells had 0.01 (docs/statistics.md)"
CHANGED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "explorer": (
        _LEVEL,
        {
            "/2/comparisons/0/needed": 2565, "/2/comparisons/0/sentence/numbers/9": 2565.0,
            "/2/comparisons/1/needed": 2416, "/2/comparisons/1/sentence/numbers/9": 2416.0,
            "/3/comparisons/0/needed": 12, "/3/comparisons/0/sentence/numbers/8": 12.0,
            "/3/comparisons/1/needed": 11, "/3/comparisons/1/sentence/numbers/8": 11.0,
        },
    ),
    "sentences of the boot notebook": (
        _LEVEL, {"/0/numbers/9": 13373.0, "/1/numbers/9": 13373.0, "/2/numbers/9": 13469.0},
    ),
    "check of the tool itself": (_LEVEL, {"/made up/alarms": 2}),
    "statistics": (
        "a test of samples with more than 20,000 arrangements is Mann and Whitney's, where it was of 9,999 drawn ones",
        {"/tests/2/0": 0.004376119589874326, "/tests/2/1": 3.3273419550419868e-09},
    ),
}  # fmt: skip
# Quantities whose rule was changed on purpose: why. What they are now is in restated.json (data/make_restated.py).
_RANKING = (
    "choices are compared by a paired t test of the log ratios, all pairs and situations of a study judged together:"
    " with a few seeds equal choices were ranked (docs/statistics.md)"
)
_PRESSURE = "pressure is the working set over the memory that was available; the nominal one is a label"
_INITRDS = "initrds that differ by the data in them are no longer noted as different guests"
_FREED = "the axis is the RAM freed, swap used less pool; the made-up rows do not say how much swap was used"
RESTATED: Mapping[str, str] = {
    **{
        f"{name} of {study}": _RANKING
        for study in ("net-swap", "made-swap")
        for name in (
            "swap: choices compared with the baseline", "swap: effects of factors", "swap: answers",
            "swap: the study in sentences",
        )
    },
    "choices and situations of net-swap": _INITRDS,
    "swap: best choices of net-swap": _RANKING,
    "figures of a swap study of net-swap": _RANKING,
    "swap: answers of an even number of seeds": _RANKING,
    "swap: Pareto front of net-swap": _FREED,
    "swap: Pareto front of made-swap": _FREED,
    "figures of a swap study of made-swap": _FREED,
    "tables that are written of made-swap": _FREED,
    "swap: along an axis of net-swap": _PRESSURE,
    "swap: break-evens of net-swap": _PRESSURE,
}  # fmt: skip
# Quantities whose sentences have their numbers in another order -> why.
REORDERED: Mapping[str, str] = dict.fromkeys(
    (
        "comparisons of cells of net-wall",
        "comparisons of a factor's levels",
        "explorer",
        "sentences of the boot notebook",
    ),
    "an undecided comparison gives the runs that it needs before the minimum effect",
)
# Quantities that the package has no more -> why.
GONE: Mapping[str, str] = {
    "swap question of the tour": "it is a plan of swap studies now, whose guests and rows are those of any such study",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return Rows.copied_to(tmp_path_factory.mktemp("rows"))


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in GONE])
def test_rows_of_an_older_version_give_the_numbers_that_it_gave(name: str, rows: Rows) -> None:
    expected, now = EXPECTED[name], json.loads(json.dumps(QUANTITIES[name](rows)))
    if name in RESTATED:
        assert list(differences(expected, now)) != [], f"{name} is what it was: {RESTATED[name]}"
        expected = NOW[name]
    if name in REORDERED:
        expected, now = in_order(expected), in_order(now)
    found = dict(differences(expected, now))
    why, values = CHANGED.get(name, ("", {}))
    for place, value in values.items():
        assert found.pop(place, ""), f"{name}{place} is what it was, and no exception: {why}"
        assert list(differences(value, value_at(now, place))) == [], why
    texts = [f"{name}{place} {text}" for place, text in found.items()]
    assert not texts, f"{len(texts)} numbers differ:\n" + "\n".join(texts[:20])


def test_nothing_is_computed_that_is_not_held_to_an_expectation() -> None:
    assert set(QUANTITIES) | set(GONE) == set(EXPECTED)
    assert set(CHANGED) | set(REORDERED) <= set(EXPECTED)
    assert set(NOW) == set(RESTATED)
    assert not set(CHANGED) & set(RESTATED)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("zram lz4 compared with disk: 3.40 times [-3.10, 1,234.5], n=5 (p=1e-05)", [3.4, -3.1, 1234.5, 5, 1e-05]),
        ("a 95 % interval of 1.5 × 10⁶ instructions, image 1f2e3d4c5b6a", [1.5]),
        ("memory=256M", [256]),
    ],
)
def test_numbers_of_a_sentence_are_found_whatever_its_words(text: str, numbers: list[float]) -> None:
    assert numbers_in(text) == numbers


def test_a_difference_is_found_at_its_place() -> None:
    before, after = {"a": [1.0, {"b": 2}], "c": None}, {"a": [1.0 + 1e-12, {"b": 3}], "c": 0.0}
    assert [place for place, _ in differences(before, after)] == ["/a/1/b", "/c"]


def value_at(values: Any, place: str) -> Any:
    for key in place.strip("/").split("/"):
        values = values[int(key) if isinstance(values, list) else key]
    return values


def in_order(values: Any) -> Any:
    """The same with the numbers of each sentence from the least to the greatest."""
    if isinstance(values, dict):
        return {key: sorted(item) if key == "numbers" else in_order(item) for key, item in values.items()}
    return [in_order(item) for item in values] if isinstance(values, list) else values
