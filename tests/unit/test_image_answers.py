"""The answers about an image, from made-up rows whose answers are known: ratios, savings, deaths, and what is best."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest

from acon_nb.stats.comparison import Verdict
from acon_nb.swap.image import words
from acon_nb.swap.image.answers import Answers, answers_of
from acon_nb.swap.image.corpus import CorpusSummary
from acon_nb.swap.image.plan import UNLIMITED, Place
from tests.unit.test_image_question import found

MIB = 1 << 20
PEAK = 200 * MIB
PLACES = (
    Place(at="1x", available_bytes=200 * MIB, memory_bytes=264 * MIB),
    Place(at="0.5x", available_bytes=100 * MIB, memory_bytes=164 * MIB),
    Place(at=UNLIMITED, available_bytes=300 * MIB, memory_bytes=364 * MIB),
)


def row_of(setup: str, place: Place, seed: int, seconds: float | None, **more: Any) -> dict[str, Any]:
    swap, _, compressor = setup.partition("-")
    return {
        "seed": seed, "end": "powered_off" if seconds else "out_of_memory", "error": "" if seconds else "killed",
        "host_fault": "", "warmup": False, "factor_workload": "program", "factor_copy": "", "factor_setup": setup,
        "factor_swap": swap, "factor_compressor": compressor, "factor_available": str(place.available_bytes),
        "factor_driver": "", "factor_program_time": "", "factor_encryption": "none", "reported": None,
        "program_elapsed_ns": (seconds or math.nan) * 1e9, "system_cpu_ns": 1e9, "major_faults": 7.0, **more,
    }  # fmt: skip


def made(seeds: int = 5, *, rows: tuple[dict[str, Any], ...] = (), **changes: Any) -> Answers:
    """zram-zstd takes 1.5 s at half of the peak, disk 3 s, without swap it dies; a second without a limit."""
    times = {("zram-zstd", "0.5x"): 1.5, ("disk", "0.5x"): 3.0, ("none", "0.5x"): None, ("zram-zstd", "1x"): 1.01}
    times |= {("disk", "1x"): 1.0, ("none", "1x"): 1.0, ("none", UNLIMITED): 1.0}
    where = {place.at: place for place in PLACES}
    records = [
        row_of(setup, where[at], seed, None if value is None else value * (1 + seed / 1000), **changes)
        for (setup, at), value in times.items()
        for seed in range(1, seeds + 1)
    ]
    return answers_of(pd.DataFrame([*records, *rows]), PLACES, PEAK, clock="instructions")


def test_each_set_up_has_its_ratio_and_what_it_saves() -> None:
    by_name = {(one.at, one.setup): one for one in made().answers}
    assert by_name["0.5x", "zram-zstd"].ratio_to_unlimited == pytest.approx(1.5)
    disk = by_name["0.5x", "disk"]
    assert disk.ratio_to_unlimited == pytest.approx(3.0)
    assert (disk.ratio_seeds, disk.interval) == (5, "bootstrap 95 %, 5 seeds")
    assert by_name["0.5x", "disk"].saved_bytes == 100 * MIB
    assert by_name["1x", "none"].saved_bytes == 0
    dead = by_name["0.5x", "none"]
    assert (dead.end, dead.ended_well, dead.runs) == ("out_of_memory", 0, 5)
    assert dead.ratio_to_unlimited is None
    assert dead.saved_bytes is None


def test_the_best_is_that_of_the_smallest_share_that_is_survived() -> None:
    best = made().data()["best"]
    assert (best["at"], best["setups"], best["verdict"]) == ("0.5x", ("zram-zstd",), Verdict.BETTER)
    assert best["died"] == ("none",)
    assert [one["at"] for one in best["by_at"]] == ["0.5x", "1x"]
    assert json.loads(json.dumps(best))


@pytest.mark.parametrize("lost", [5, 2])
def test_a_run_without_a_limit_that_dies_is_named_in_the_answer(lost: int) -> None:
    times = {("disk", PLACES[1]): 3.0, ("none", PLACES[2]): 1.0}
    rows = [
        row_of(setup, place, seed, None if place.at == UNLIMITED and seed <= lost else value)
        for (setup, place), value in times.items()
        for seed in range(1, 6)
    ]
    answers = answers_of(pd.DataFrame(rows), PLACES[1:], PEAK, clock="instructions")
    lines = words.lines(answers, found(), None)
    assert any(
        line.startswith(f"Without a limit (300.0 MiB available): out of memory in {lost} of 5") for line in lines
    )
    assert not any("does not report" in line for line in lines)
    assert any("without a limit it did not end well" in line for line in lines) == (lost == 5)
    assert answers.data()["unlimited"]["ended_well"] == 5 - lost


def test_an_answer_without_any_run_that_counts_says_so() -> None:
    rows = pd.DataFrame([row_of("disk", PLACES[1], 1, 1.0, host_fault="suspended")])
    lines = words.lines(answers_of(rows, PLACES[1:], PEAK, clock="instructions"), found(), None)
    assert "No run without a limit counts: there is nothing to compare its time with." in lines


def test_two_seeds_rank_nothing() -> None:
    answers = made(seeds=2)
    half = answers.best[0]
    assert half.setups == ("zram-zstd", "disk")
    assert half.verdict == Verdict.TOO_FEW_SEEDS
    line = words.best_line(half, answers)
    assert "no order is given: too few seeds" in line
    assert "is the best" not in line


def test_where_all_die_nothing_is_best() -> None:
    tiny = Place(at="0.1x", available_bytes=20 * MIB, memory_bytes=80 * MIB)
    rows = [row_of(name, tiny, seed, None) for name in ("none", "disk") for seed in range(1, 6)]
    rows += [row_of("none", PLACES[2], seed, 1.0) for seed in range(1, 6)]
    answers = answers_of(pd.DataFrame(rows), (tiny, PLACES[2]), PEAK, clock="instructions")
    assert answers.best[0].setups == ()
    assert words.best_line(answers.best[0], answers) == "At 0.1x: no set-up gets through (out of memory)."
    assert answers.data()["best"]["at"] is None


def test_one_seed_that_dies_is_never_the_best() -> None:
    dead = row_of("zram-zstd", PLACES[1], 6, None)
    others = [row_of("disk", PLACES[1], 6, 3.0), row_of("none", PLACES[2], 6, 1.0)]
    answers = made(rows=(dead, *others))
    assert "zram-zstd" in answers.best[0].died
    assert answers.best[0].setups == ("disk",)
    line = next(words.answer_line(one, answers) for one in answers.answers if one.setup == "zram-zstd")
    assert "out of memory in 1 of 6 runs" in line


def test_what_the_pool_saved_is_that_of_the_run_not_of_its_end() -> None:
    samples = [{"pool_bytes": 10, "pool_stored_bytes": 35}, {"pool_bytes": 5, "pool_stored_bytes": 6}, {"t_ns": 1}]
    answers = made(samples=json.dumps(samples), saved_bytes=1.0)
    assert {one.pool_saved_bytes for one in answers.answers if one.ended_well} == {25}


def test_warm_ups_and_faults_of_the_host_do_not_count() -> None:
    rows = (
        row_of("disk", PLACES[1], 9, 900.0, warmup=True),
        row_of("disk", PLACES[1], 8, None, host_fault="no_space"),
    )
    answers = made(rows=rows)
    disk = next(one for one in answers.answers if (one.at, one.setup) == ("0.5x", "disk"))
    assert (disk.runs, disk.ended_well) == (5, 5)
    assert disk.ratio_to_unlimited == pytest.approx(3.0)


def test_with_a_driver_its_time_counts_and_its_latencies_are_the_programs() -> None:
    def reported(ns: float) -> str:
        return json.dumps({"image-run": {"max_ns": ns, "p99_ns": ns}, "get": {"p99_ns": 5e6}})

    rows = [
        row_of(name, place, seed, 9.0, factor_driver="client", reported=reported(ns))
        for name, place, ns in (("disk", PLACES[1], 4e9), ("none", PLACES[2], 2e9))
        for seed in range(1, 6)
    ]
    answers = answers_of(pd.DataFrame(rows), (PLACES[1], PLACES[2]), PEAK, clock="instructions")
    (one,) = answers.answers
    assert answers.counted == "the driver's time"
    assert one.ratio_to_unlimited == pytest.approx(2.0)
    assert one.p99_ns == 5e6


def test_a_server_for_a_time_counts_by_what_it_reports_or_not_at_all() -> None:
    fields = {"factor_program_time": "3s"}
    silent = made(**fields)
    assert {one.ratio_to_unlimited for one in silent.answers} == {None}
    assert all(one.setups == () or one.verdict != Verdict.BETTER for one in silent.best)
    rows = [
        row_of(name, place, seed, 3.0, reported_ops_per_s=rate, **fields)
        for name, place, rate in (("disk", PLACES[1], 50.0), ("none", PLACES[2], 100.0))
        for seed in range(1, 6)
    ]
    (one,) = answers_of(pd.DataFrame(rows), (PLACES[1], PLACES[2]), PEAK, clock="instructions").answers
    assert one.ratio_to_unlimited == pytest.approx(2.0)


def test_the_words_name_the_peak_the_pages_and_every_set_up() -> None:
    corpus = CorpusSummary(
        pages=100, compressed_pages=90, zero_share=0.1, same_share=0.0, anonymous_share=1.0, ratio={"lz4": 2.0},
        ratio_all={"lz4": 2.22}, ratio_pool={"lz4": 2.0}, whole_share={"lz4": 0.0}, t_ns=1,
        charged_bytes=2, path="p", sha256="s",
    )  # fmt: skip
    answers = made()
    lines = words.lines(answers, found(), corpus)
    assert lines[0].startswith("Peak: 200.0 MiB")
    assert "lz4 2.22 (100 pages, 10 % of them zero or filled with one word)" in lines[2]
    assert "with zram it gets through, by arithmetic, in 97.3 MiB with lz4" in lines[2]
    assert any(
        line.startswith("At 0.5x: zram-zstd is the best; it saves 100.0 MiB and takes 1.50 times") for line in lines
    )
    assert len([line for line in lines if line.startswith("  ")]) == 6
    assert words.measured_lines(found(), None)[-1].startswith("No sample of its pages")
    table = words.answer_table(answers)
    assert list(table["time / unlimited"])[:1] == ["1.50 [1.50, 1.50]"]


def test_a_ratio_has_the_interval_of_its_seeds_and_names_its_kind() -> None:
    """Ratios of 2.0 to 2.8: three seeds show their range, one seed shows no interval."""
    ratios = {1: 2.0, 2: 2.8, 3: 2.2}

    def answers(seeds: int) -> Answers:
        rows = [row_of("disk", PLACES[1], seed, ratios[seed] * seed) for seed in range(1, seeds + 1)]
        rows += [row_of("none", PLACES[2], seed, float(seed)) for seed in range(1, seeds + 1)]
        return answers_of(pd.DataFrame(rows), (PLACES[1], PLACES[2]), PEAK, clock="instructions")

    (three,) = answers(3).answers
    assert (three.ratio_to_unlimited, three.ratio_low, three.ratio_high) == pytest.approx((2.2, 2.0, 2.8))
    line = words.answer_line(three, answers(3))
    assert "takes 2.20 [2.00, 2.80] times as long as without a limit (its time; range of 3 seeds)" in line
    (one,) = answers(1).answers
    assert "takes 2.00 times as long as without a limit (its time; 1 seed)" in words.answer_line(one, answers(1))
