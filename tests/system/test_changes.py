"""A planted loop in real kernels: found by bisection, named by a series; a series that changes nothing is equal."""

from __future__ import annotations

import pytest

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.changes import BisectSpec, bisect, series, series_text
from acon_nb.changes.verdict import SeriesVerdict
from acon_nb.progress import TextProgress
from tests.system.planted_history import LOOPS, PLANTED, PlantedHistory

pytestmark = [pytest.mark.system, pytest.mark.weekly]
_PROFILE = "minimal"


@pytest.fixture(scope="module")
def history(store: Cache, tmp_path_factory: pytest.TempPathFactory) -> PlantedHistory:
    """33 commits of Debian's 6.12."""
    tree = kernel.fetch("debian:6.12", cache=store).path
    return PlantedHistory(tree, tmp_path_factory.mktemp("planted") / "linux.git")


def test_a_planted_loop_is_found_in_5_or_6_builds(history: PlantedHistory, store: Cache) -> None:
    good, bad = history.commits[0], history.commits[-1]
    spec = BisectSpec(tree=history.path, good=good, bad=bad, metric="guest_ns_reset_to_init", profile=_PROFILE)
    answer = bisect(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert answer.commit == history.commits[PLANTED]
    assert answer.subject == f"change {PLANTED}"
    assert answer.builds in (5, 6)
    (planted, *_) = answer.functions
    assert (planted.name, planted.before) == ("planted", None)
    assert planted.after is not None
    assert 2 * LOOPS <= planted.after <= 4 * LOOPS + 100
    assert answer.after - answer.before == pytest.approx(planted.after, rel=0.01)  # its call, and the image's bytes


def judged(history: PlantedHistory, base: str, head: str, store: Cache) -> series.SeriesReport:
    spec = series.SeriesSpec(tree=history.path, commits=f"{base}..{head}", suite="boot", profile=_PROFILE)
    report = series.judge(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert max(len(line) for line in series_text.plain(report).splitlines()) <= 72
    return report


def test_a_series_of_comments_is_equal(history: PlantedHistory, store: Cache) -> None:
    assert judged(history, history.commits[1], history.commits[4], store).verdict is SeriesVerdict.EQUAL


def test_lines_that_move_are_of_layout(history: PlantedHistory, store: Cache) -> None:
    # the numbers of the lines that warn are in the image
    base = history.commits[0]
    text = history.git("show", f"{base}:mm/util.c", raw=True)
    report = judged(history, base, history.change("mm/util.c", f"\n{text}", "an empty line", base), store)
    assert report.verdict is SeriesVerdict.EQUAL
    assert not report.same_image


def test_a_series_with_the_loop_is_different(history: PlantedHistory, store: Cache) -> None:
    report = judged(history, history.commits[PLANTED - 1], history.commits[PLANTED], store)
    assert report.verdict is SeriesVerdict.DIFFERENT
    (cell,) = report.cells
    assert cell.functions[0].name == "planted"
