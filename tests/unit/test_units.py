from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes, format_seconds, format_share, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        (512, 512),
        ("1k", 1024),
        ("512M", 512 << 20),
        ("512MiB", 512 << 20),
        ("512 MB", 512 << 20),
        (" 2g ", 2 << 30),
        ("3T", 3 << 40),
    ],
)
def test_sizes_are_parsed_in_units_of_1024(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


def test_a_bare_number_can_have_another_unit() -> None:
    assert parse_bytes("512", bare="M") == 512 << 20
    assert parse_bytes("512K", bare="M") == 512 << 10


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1.5", "0.0001K", ".5G", "1.G", "12X", "1e3", "0x10", "1 2", "512M\nx", "٣M"]
)
def test_an_invalid_size_is_refused_by_the_name_of_its_field(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_bytes(text, field="memory")
    assert "memory" in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "512M" in caught.value.hint


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 50), st.sampled_from(["", "K", "M", "G", "T"]), st.sampled_from(["", "B", "iB"]))
def test_every_unit_is_1024_times_the_one_below(number: int, unit: str, tail: str) -> None:
    assert parse_bytes(f"{number}{unit}{tail}") == number * 1024 ** " KMGT".index(unit or " ")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=8))
def test_any_text_is_a_size_or_is_refused(text: str) -> None:
    try:
        assert parse_bytes(text) >= 0
    except InvalidInput:
        return


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (14155776, "13.5 MiB"), (5 << 30, "5.0 GiB"), (2e13, "18.2 TiB")],
)
def test_sizes_are_formatted(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0000015, "1.5 µs"), (0.3065, "306.5 ms"), (1.55, "1.55 s"), (99.0, "99.00 s"), (250, "4 min 10 s")],
)
def test_durations_are_formatted(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.000123456, "0.012 %"),
        (1e-7, "0.00001 %"),
        (0.0371, "3.7 %"),
        (0.996, "100 %"),
        (3.7412, "374 %"),
        (0, "0 %"),
    ],
)
def test_shares_are_formatted_without_powers_of_ten(share: float, text: str) -> None:
    assert format_share(share) == text
    assert format_share(share, sign=True) == f"+{text}"
    assert format_share(-share, sign=True) == (f"-{text}" if share else f"+{text}")
