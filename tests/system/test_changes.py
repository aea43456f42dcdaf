"""A planted loop in real kernels: found by bisection, named by a series; a series that changes nothing is equal."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.changes import BisectSpec, bisect, series, series_text, suite, verdict
from acon_nb.changes.verdict import SeriesVerdict
from acon_nb.cli import main
from acon_nb.progress import TextProgress
from acon_nb.results import Store
from tests.system.planted_history import LOOPS, PLANTED, PlantedHistory

pytestmark = pytest.mark.system
# What any kernel needs to report, as the plan kernel-cost has it
_SETTINGS = ("PCI=y", "VIRTIO_MENU=y", "VIRTIO_PCI=y", "VIRTIO_CONSOLE=y", "KERNEL_ZSTD=y")


def test_an_image_of_other_bytes_is_equal_and_a_number_is_measured_once(
    guide_kernel: kernel.KernelImage, tmp_path: Path
) -> None:
    other = tmp_path / "other/bzImage"
    other.parent.mkdir()
    other.write_bytes(guide_kernel.image.read_bytes() + bytes(16))
    shutil.copyfile(guide_kernel.image.with_name("System.map"), other.with_name("System.map"))
    cells, out = suite.cells("boot"), Store(tmp_path / "rows")
    rows = suite.rows_of(cells, [guide_kernel.image, other], out)
    (change,) = verdict.compare(cells, *rows)
    assert verdict.whole([change]) is SeriesVerdict.EQUAL
    assert len(out.load("boot")) == 2
    again = suite.rows_of(cells, [guide_kernel.image, other], out)
    assert [row["boot"]["executed_ns"] for row in again] == [row["boot"]["executed_ns"] for row in rows]
    assert len(out.load("boot")) == 2


@pytest.fixture(scope="module")
def history(store: Cache, tmp_path_factory: pytest.TempPathFactory) -> PlantedHistory:
    """33 commits of Debian's 6.12."""
    tree = kernel.fetch("debian:6.12", cache=store).path
    return PlantedHistory(tree, tmp_path_factory.mktemp("planted") / "linux.git")


@pytest.mark.weekly
def test_a_planted_loop_is_found_in_5_or_6_builds(history: PlantedHistory, store: Cache) -> None:
    good, bad = history.commits[0], history.commits[-1]
    spec = BisectSpec(
        tree=history.path,
        good=good,
        bad=bad,
        metric="guest_ns_reset_to_init",
        plan="kernel-cost",
        cell="profile=minimal",
    )
    answer = bisect(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert answer.commit == history.commits[PLANTED]
    assert answer.subject == f"change {PLANTED}"
    assert answer.builds in (5, 6)
    (planted, *_) = answer.functions
    assert (planted.name, planted.before) == ("planted", None)
    assert planted.after == 2 * LOOPS + 2
    # the rest of the step is of layout, of when ticks come, and of functions that a larger kernel lets do more
    assert answer.after - answer.before == answer.change
    parts = (answer.others, answer.layout, answer.timing)
    assert answer.change == sum(one.difference for one in answer.functions) + sum(parts)


def judged(
    history: PlantedHistory, base: str, head: str, store: Cache, settings: tuple[str, ...] = _SETTINGS
) -> series.SeriesReport:
    spec = series.SeriesSpec(
        tree=history.path, commits=f"{base}..{head}", suite="boot", profile="minimal", settings=settings
    )
    report = series.judge(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert max(len(line) for line in series_text.plain(report).splitlines()) <= 72
    return report


@pytest.mark.weekly
def test_a_series_of_comments_is_equal(history: PlantedHistory, store: Cache) -> None:
    assert judged(history, history.commits[1], history.commits[4], store).verdict is SeriesVerdict.EQUAL


@pytest.mark.weekly
def test_lines_that_move_are_of_layout(history: PlantedHistory, store: Cache) -> None:
    # with DEBUG_BUGVERBOSE the numbers of the lines that warn are in the image; this file warns at many
    base, name = history.commits[0], "mm/page_alloc.c"
    head = history.change(name, "\n" + history.git("show", f"{base}:{name}", raw=True), "an empty line", base)
    report = judged(history, base, head, store, (*_SETTINGS, "EXPERT=y", "DEBUG_BUGVERBOSE=y"))
    assert not report.same_image
    assert report.verdict is SeriesVerdict.EQUAL, series_text.plain(report)
    assert "equal, but for" in series_text.plain(report)


@pytest.mark.weekly
def test_a_series_with_the_loop_is_different(history: PlantedHistory, store: Cache) -> None:
    report = judged(history, history.commits[PLANTED - 1], history.commits[PLANTED], store)
    assert report.verdict is SeriesVerdict.DIFFERENT
    (cell,) = report.cells
    assert cell.functions[0].name == "planted"


@pytest.mark.weekly
def test_a_night_bisects_its_regression_and_two_nights_link_their_difference(
    history: PlantedHistory, tmp_path: Path
) -> None:
    plan = tmp_path / "nights.toml"
    settings = ",".join(_SETTINGS)
    plan.write_text(
        f'study = "boot"\nprofile = true\nruns = 1\nwarmups = 0\n[fixed]\nclock = "instructions"\n'
        f'profile = "minimal"\nsettings = "{settings}"\n'
    )
    common = ["bench", "nightly", "--plan", str(plan), "--history", str(tmp_path / "history"), "--json"]

    def night(name: str, commit: str) -> tuple[int, dict[str, Any]]:
        tree = ["--tree", str(history.path), "--commit", commit, "--night", name, "--limit-instructions", "0.001"]
        done = CliRunner().invoke(main, [*common, *tree, "-o", str(tmp_path / f"reports/{name}.html")])
        assert done.exit_code in (0, 1), done.output
        assert done.stdout, f"{done.output}\n{done.exception!r}"
        return done.exit_code, json.loads(done.stdout)

    status, first = night("2026-01-01", history.commits[PLANTED - 3])
    assert (status, first["verdict"], first["bisections"]) == (0, "baseline_recorded", [])
    status, second = night("2026-01-02", history.commits[PLANTED + 1])
    assert (status, second["verdict"]) == (1, "worse")
    answers = {one["metric"]: one["answer"] for one in second["bisections"]}
    answer = answers["guest_ns_reset_to_init"]
    assert answer["commit"] == history.commits[PLANTED]
    assert answer["builds"] <= 2
    page = (tmp_path / "reports/2026-01-02.html").read_text()
    assert f"change {PLANTED}" in page

    compared = tmp_path / "reports/compared.html"
    done = CliRunner().invoke(main, [*common, "--compare", "2026-01-01", "2026-01-02", "-o", str(compared)])
    assert done.exit_code == 0, done.output
    (link,) = re.findall(r'href="(profile-[^"]+\.html)"', compared.read_text())
    assert "planted" in compared.read_text()
    assert "planted" in (compared.parent / link).read_text()
