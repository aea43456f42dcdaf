"""The plain text of a series fits 72 columns, whatever its kernels, functions and numbers are called."""

from __future__ import annotations

import dataclasses
import re

import pytest
import wcwidth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acon_nb.changes import functions, series_text, suite
from acon_nb.changes.functions import CountChange
from acon_nb.changes.plain_text import WIDTH
from acon_nb.changes.series import SeriesReport, SeriesStep, StepChange
from acon_nb.changes.verdict import CellChange, MeasureChange, SeriesVerdict

NUMBERS = st.none() | st.integers(0, 10**18) | st.floats(0, 1e300)
TEXTS = st.text(max_size=150) | st.from_regex(r"[\w./+~-]{60,120}", fullmatch=True)
COUNTS = st.none() | st.integers(0, 10**24)
MEASURES = ("executed_ns", "memavailable_bytes", "workingset_refault_anon_pages")


@st.composite
def cells(draw: st.DrawFn) -> CellChange:
    return CellChange(
        name=draw(TEXTS),
        verdict=draw(st.sampled_from(SeriesVerdict)),
        measures=tuple(MeasureChange(name=name, before=draw(NUMBERS), after=draw(NUMBERS)) for name in MEASURES),
        functions=tuple(draw(st.lists(st.builds(CountChange, name=TEXTS, before=COUNTS, after=COUNTS), max_size=3))),
        layout_change=draw(st.integers(-(10**15), 10**15)),
        ends=draw(st.sampled_from([("powered_off", "powered_off"), ("powered_off", "timed_out")])),
    )


STEPS = st.builds(SeriesStep, name=TEXTS, subject=TEXTS)
REPORTS = st.builds(
    SeriesReport,
    suite=st.sampled_from(suite.suites()),
    verdict=st.sampled_from(SeriesVerdict),
    base=STEPS,
    head=STEPS,
    count=st.integers(1, 10**6),
    cells=st.lists(cells(), min_size=1, max_size=2).map(tuple),
    each=st.lists(
        st.builds(StepChange, step=STEPS, verdict=st.sampled_from(SeriesVerdict), cells=st.tuples(cells())), max_size=1
    ).map(tuple),
    environment=st.dictionaries(st.sampled_from(["guests", "compiler", "options"]), TEXTS),
    same_image=st.booleans(),
)


def columns(text: str) -> int:
    return max(map(wcwidth.wcswidth, text.split("\n")))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(report=REPORTS)
def test_no_line_is_longer_than_a_cover_letter_takes(report: SeriesReport) -> None:
    text = series_text.plain(report)
    assert columns(text) <= WIDTH
    assert text.replace("\n", "").isprintable()


def report_of(name: str, *, same_image: bool = False) -> SeriesReport:
    step = SeriesStep(name=name, subject="mm: reclaim less")
    one = MeasureChange(name="executed_ns", before=325_920_766, after=10**15 + 10)
    cell = CellChange(
        name="boot",
        verdict=SeriesVerdict.DIFFERENT,
        measures=(one,),
        functions=(CountChange(name=name, before=1, after=2),),
    )
    return SeriesReport(
        suite="boot",
        verdict=SeriesVerdict.EQUAL if same_image else SeriesVerdict.DIFFERENT,
        base=step,
        head=step,
        count=1,
        cells=(cell,),
        each=(),
        environment={"guests": "QEMU 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18) (TCG), 1 vCPU, instruction clock"},
        same_image=same_image,
    )


@pytest.mark.parametrize("name", suite.suites())
def test_kernels_that_are_the_same_fit_too(name: str) -> None:
    report = dataclasses.replace(report_of("v6.12", same_image=True), suite=name)
    text = series_text.plain(report)
    assert columns(text) <= WIDTH
    assert "equal; the kernels are the same byte for byte" in " ".join(text.split())


def test_no_name_or_number_is_cut() -> None:
    name = "a_function_whose_name_is_longer_than_the_column_of_the_table_" * 2
    text = series_text.plain(report_of(name))
    assert name in re.sub(r"\s", "", text)
    assert "1,000,000,000,000,010" in text
    assert "+999,999,674,079,244" in text


def test_text_that_is_not_printed_is_left_out() -> None:
    text = series_text.plain(report_of("v6\x1b[31m.12\t\r\x00\u202e"))
    assert text.replace("\n", "").isprintable()


def test_a_table_of_functions_keeps_its_columns() -> None:
    rows = functions.table([CountChange(name="shrink_folio_list", before=1_000, after=None)])
    assert rows == [
        "function                            before          after     difference",
        "shrink_folio_list                    1,000              -         -1,000",
    ]
