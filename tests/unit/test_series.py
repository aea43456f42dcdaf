"""Series of patches: real git trees, mailboxes and folders; a hash of a file takes the place of kernel and guests."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from acon_nb.cache import Cache
from acon_nb.changes import patches, series, series_text, suite, verdict
from acon_nb.changes.series import SeriesReport, SeriesSpec, SeriesStep
from acon_nb.changes.verdict import SeriesVerdict
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.kernel.git.checkout import checked_out
from acon_nb.kernel.git.repository import open_repository
from acon_nb.profile import FunctionCount, Profile
from acon_nb.results.metrics import metric
from acon_nb.study import kinds
from tests.unit.kernel_history import History


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "linux")
    history.commit("base", cost="1000\n", note="1\n")
    history.git("tag", "base")
    return history


class Bench:
    """Makes a "kernel" of the files of a step, cost.c alone, and rows whose instructions are what that says."""

    def __init__(self, history: History, cache: Cache, folder: Path) -> None:
        self.repository = open_repository(history.path)
        self.cache = cache
        self.folder = folder
        self.built: list[str] = []
        self.measured = 0

    def image(self, step: SeriesStep) -> Path:
        paths = tuple(patch.path for patch in step.patches)
        with checked_out(self.repository, step.commit, patches=paths, cache=self.cache) as tree:
            cost = (tree.path / "cost.c").read_text()
        image = self.folder / hashlib.sha256(cost.encode()).hexdigest()
        image.write_text(cost)
        self.built.append(step.name)
        return image

    def rows(self, cells: Sequence[suite.SuiteCell], images: Sequence[Path]) -> list[dict[str, dict[str, Any]]]:
        self.measured += len(cells) * len(images)
        return [{cell.name: self.row(cell, image) for cell in cells} for image in images]

    def row(self, cell: suite.SuiteCell, image: Path) -> dict[str, Any]:
        cost = int(image.read_text())
        # only what reclaims has the cost
        count = 5_000_000 + (cost if "high" in cell.name else 0)
        row = {"executed_ns": count, "major_faults": 7, "pool_bytes": float("nan"), "kernel_bytes": cost}
        return {**row, "functions": f"shrink_folio_list {count - 4_000_000}\nschedule 7"}

    def judge(self, **fields: Any) -> SeriesReport:
        spec = SeriesSpec(tree=self.repository.path, **fields)
        return series.judge(spec, image_of=self.image, rows_of=self.rows, cache=self.cache)


@pytest.fixture
def bench(history: History, cache: Cache, tmp_path: Path) -> Bench:
    return Bench(history, cache, tmp_path)


def verdicts(report: SeriesReport) -> dict[str, str]:
    return {cell.name: cell.verdict.value for cell in report.cells}


def test_a_patch_to_reclaim_differs_where_memory_is_reclaimed(history: History, bench: Bench) -> None:
    history.commit("mm: think twice", cost="1250\n")
    report = bench.judge(commits="base..main")
    assert report.verdict is SeriesVerdict.DIFFERENT
    assert verdicts(report)["boot"] == "equal"
    assert verdicts(report)["memhog, zram, high"] == "different"
    (cell,) = (cell for cell in report.cells if cell.name == "memhog, zram, high")
    assert [(one.name, one.before, one.after) for one in cell.changed] == [("executed_ns", 5_001_000, 5_001_250)]
    assert [(one.name, one.difference) for one in cell.functions] == [("shrink_folio_list", 250)]


def test_a_null_series_is_equal_and_boots_nothing(history: History, bench: Bench) -> None:
    history.commit("comments", note="2\n")
    report = bench.judge(commits="base..HEAD")
    assert report.verdict is SeriesVerdict.EQUAL
    assert set(verdicts(report)) == {cell.name for cell in suite.cells("quick")}
    assert bench.measured == 0
    assert "equal" in series_text.plain(report).splitlines()[0]


def test_each_patch_is_judged(history: History, bench: Bench) -> None:
    history.commit("one: no effect", note="2\n")
    history.commit("two: an effect", cost="1100\n")
    history.commit("three: taken back", cost="1000\n")
    report = bench.judge(commits="base..main", each=True)
    assert [(one.step.subject, one.verdict.value) for one in report.each] == [
        ("one: no effect", "equal"), ("two: an effect", "different"), ("three: taken back", "different"),
    ]  # fmt: skip
    assert report.verdict is SeriesVerdict.EQUAL
    assert bench.measured == 2 * len(suite.cells("quick")), "kernels that are equal are measured once"
    assert "two: an effect: different" in series_text.plain(report)


def test_only_both_ends_are_built_without_each(history: History, bench: Bench) -> None:
    commits = [history.commit(f"{number}", cost=f"{1000 + number}\n") for number in range(1, 4)]
    report = bench.judge(commits="base..main")
    assert report.count == 3
    assert bench.built == [history.git("rev-parse", "base")[:12], commits[-1][:12]]


def test_the_plain_text_fits_a_cover_letter(history: History, bench: Bench) -> None:
    history.commit("mm: a subject that is much longer than anybody should write " * 3, cost="1234567890\n")
    report = bench.judge(commits="base..main", suite="full", each=True)
    text = series_text.plain(report)
    assert max(len(line) for line in text.splitlines()) <= 72
    assert "1,234,566,890" in text
    assert "QEMU" in text
    assert "gcc" in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_markdown_has_tables_and_no_marks_of_others(history: History, bench: Bench) -> None:
    history.commit("mm: a|b <img src=x> `c`", cost="1001\n")
    text = series_text.markdown(bench.judge(commits="base..main", each=True))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 6
    assert "<img" not in text.replace("\\<", "")
    assert r"a\|b" in text


def test_json_has_the_verdict_and_the_cells(history: History, bench: Bench) -> None:
    history.commit("mm: more", cost="1250\n")
    values = json.loads(json.dumps(bench.judge(commits="base..main").values()))
    assert values["verdict"] == "different"
    cells = {cell["cell"]: cell for cell in values["cells"]}
    assert cells["boot"]["measures"]["executed_ns"] == {"before": 5_000_000, "after": 5_000_000}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"commits": "base"}, "commits"),
        ({"commits": "base...main"}, "commits"),
        ({"commits": ""}, "commits"),
        ({"commits": "base..main", "tree": None}, "tree"),
        ({"commits": "base..main", "source": "debian:6.12"}, "source"),
        ({"commits": "base..main", "suite": "huge"}, "suite"),
        ({"commits": "base..main", "mbox": Path("x")}, "commits"),
        ({"commits": "base", "mbox": Path("x"), "patches": Path("y")}, "patches"),
        ({"mbox": Path("x"), "tree": None}, "source"),
        ({"commits": "base..main", "profile": "nothing-of-the-kind"}, "profile"),
    ],
)
def test_what_cannot_be_is_refused_by_name(history: History, fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SeriesSpec(**{"tree": history.path, **fields})
    assert caught.value.field == name


@pytest.mark.parametrize("commits", ["main..base", "base..base", "base..missing", "--all..main"])
def test_ranges_without_commits_are_refused(history: History, bench: Bench, commits: str) -> None:
    history.commit("one", cost="1\n")
    with pytest.raises(InvalidInput, match="commits="):
        bench.judge(commits=commits)


# patches


def formatted(history: History, folder: Path, *argv: str) -> list[Path]:
    history.git("format-patch", "--quiet", "-o", str(folder), *argv, "base..HEAD")
    return sorted(folder.glob("*.patch"))


def test_patches_of_a_folder_are_those_of_the_commits(history: History, bench: Bench, tmp_path: Path) -> None:
    history.commit("mm: one", cost="1100\n")
    history.commit("mm: two", cost="1300\n")
    formatted(history, tmp_path / "patches", "--cover-letter")
    by_commits = bench.judge(commits="base..main")
    report = bench.judge(commits="base", patches=tmp_path / "patches", each=True)
    assert [one.step.subject for one in report.each] == ["mm: one", "mm: two"]
    assert [cell.values() for cell in report.cells] == [cell.values() for cell in by_commits.cells]


def test_a_mailbox_is_put_in_order_and_replies_are_omitted(history: History, bench: Bench, tmp_path: Path) -> None:
    history.commit("mm: one\n\nFrom here on, it is slower.", cost="1100\n")
    history.commit("mm: two — ümlaut", cost="1300\n", note="ü\n")
    files = formatted(history, tmp_path / "patches", "--cover-letter", "--encode-email-headers")
    reply = (
        "From nobody Mon Sep 17 00:00:00 2001\nFrom: B <b@c.d>\nSubject: Re: [PATCH 1/2] mm: one\n\n"
        "> --- a/cost.c\n> +++ b/cost.c\n> @@ -1 +1 @@\n> -1000\n> +1100\nNice.\n\n"
    )
    mails = [path.read_text() for path in files]
    box = tmp_path / "series.mbox"
    box.write_text("\n".join([mails[2], reply, mails[0], mails[1]]))
    box.with_suffix(".gz").write_bytes(gzip.compress(box.read_bytes()))
    assert bench.judge(commits="base", mbox=box.with_suffix(".gz")).count == 2
    report = bench.judge(commits="base", mbox=box, each=True)
    assert [one.step.subject for one in report.each] == ["mm: one", "mm: two — ümlaut"]
    assert [one.verdict.value for one in report.each] == ["different", "different"]


def test_encoded_mails_are_decoded(history: History, tmp_path: Path, cache: Cache) -> None:
    history.commit("mm: one", cost="1100\n")
    (file,) = formatted(history, tmp_path / "patches")
    body = file.read_text().partition("\n\n")[2]
    head = "From x Mon Sep 17 00:00:00 2001\nSubject: [PATCH] mm: one\nContent-Type: text/plain; charset=utf-8\n"
    box = tmp_path / "one.mbox"
    encoded = base64.encodebytes(body.replace("\n", "\r\n").encode()).decode()
    box.write_text(f"{head}Content-Transfer-Encoding: base64\n\n{encoded}\n")
    (patch,) = patches.read_mbox(box, cache=cache)
    with checked_out(open_repository(history.path), history.git("rev-parse", "base"), cache=cache) as tree:
        subprocess.run(["git", "apply", "--check", patch.path], cwd=tree.path, check=True)


@pytest.mark.parametrize("numbers", [["1/2"], ["1/2", "1/2", "2/2"], ["2/2"], ["1/3", "3/3"]])
def test_an_incomplete_series_is_refused(tmp_path: Path, cache: Cache, numbers: list[str]) -> None:
    body = "--- a/cost.c\n+++ b/cost.c\n@@ -1 +1 @@\n-1\n+2\n"
    mails = [f"From x Mon Sep 17 00:00:00 2001\nSubject: [PATCH v2 {number}] x\n\n{body}\n" for number in numbers]
    (tmp_path / "x.mbox").write_text("\n".join(mails))
    with pytest.raises(InvalidInput, match="mbox="):
        patches.read_mbox(tmp_path / "x.mbox", cache=cache)


def test_a_quilt_series_has_its_own_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.patch").write_text(f"Subject: {name}\n\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n")
    (tmp_path / "series").write_text("# order\nb.patch -p1\n\na.patch\n")
    assert [patch.subject for patch in patches.read_folder(tmp_path)] == ["b", "a"]
    (tmp_path / "series").write_text("../../etc/passwd\n")
    with pytest.raises(InvalidInput, match="leads out"):
        patches.read_folder(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "--- a/x\n+++ b/../../x\n@@ -1 +1 @@\n-1\n+2\n",
        "--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-1\n+2\n",
        "diff --git a/x b/x\nrename from x\nrename to ../x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n",
        '--- "a/x"\n+++ "b/..\\/x"\n@@ -1 +1 @@\n-1\n+2\n',
        "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n--- a/y\n+++ b/../y\n@@ -1 +1 @@\n-1\n+2\n",
    ],
)
def test_patches_that_lead_out_of_the_tree_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "0001-evil.patch").write_text(text)
    with pytest.raises(InvalidInput, match=r"0001-evil\.patch"):
        patches.read_folder(tmp_path)


def test_lines_of_a_change_are_not_paths(tmp_path: Path) -> None:
    text = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- ../y\n-2\n+++ /z\n+2\n"
    (tmp_path / "0001-fine.patch").write_text(text)
    assert len(patches.read_folder(tmp_path)) == 1


def test_a_series_that_does_not_apply_is_refused_by_the_patch(history: History, cache: Cache, tmp_path: Path) -> None:
    history.commit("mm: one", cost="1100\n")
    history.commit("mm: two", cost="1300\n")
    files = formatted(history, tmp_path / "patches")
    files[0].unlink()
    spec = SeriesSpec(tree=history.path, commits="base", patches=tmp_path / "patches", profile="minimal")
    with pytest.raises(InvalidInput, match="patches='mm: two': does not apply"):
        series.judge(spec, cache=cache)


def test_a_patch_that_does_not_apply_to_a_source_is_named(history: History, cache: Cache, tmp_path: Path) -> None:
    history.commit("mm: one", cost="1100\n")
    formatted(history, tmp_path / "patches")
    spec = SeriesSpec(source=str(history.path), patches=tmp_path / "patches", profile="minimal")
    with pytest.raises(InvalidInput, match=r"patches='mm: one': does not apply to 6\.12\.1"):
        series.judge(spec, cache=cache)


def test_a_profiles_own_patch_that_does_not_apply_is_named_with_the_profile(
    history: History, cache: Cache, tmp_path: Path
) -> None:
    history.commit("mm: one", cost="1100\n")
    formatted(history, tmp_path / "patches")
    spec = SeriesSpec(tree=history.path, commits="base", patches=tmp_path / "patches", profile="guide,delay-disk")
    with pytest.raises(InvalidInput, match=r"profile='guide,delay-disk': .*does not apply") as caught:
        series.judge(spec, cache=cache)
    assert "--profile guide" in str(caught.value.hint)


@pytest.mark.parametrize("content", ["", "no mail\n", "From x Mon Sep 17 00:00:00 2001\nSubject: hello\n\nHi.\n"])
def test_a_mailbox_without_patches_is_refused(tmp_path: Path, cache: Cache, content: str) -> None:
    (tmp_path / "x.mbox").write_text(content)
    with pytest.raises(InvalidInput, match="has no patch"):
        patches.read_mbox(tmp_path / "x.mbox", cache=cache)


# the suite


@pytest.mark.parametrize("name", suite.suites())
def test_every_cell_of_a_suite_is_a_guest_of_its_kind(name: str) -> None:
    for cell in suite.cells(name):
        factors = kinds.kind(cell.study).read(cell.levels)
        assert factors.clock == "instructions"
        for column in cell.measures:
            assert metric(column).clock != "wall"
        assert metric(cell.measures[0]).counted


def test_the_suites_grow() -> None:
    names = [{cell.name for cell in suite.cells(name)} for name in suite.suites()]
    assert names[0] < names[1] < names[2]
    workloads: Mapping[str, Any] = {cell.name: cell.levels for cell in suite.cells("full")}
    assert {levels.get("workload") for levels in workloads.values()} == {None, "tmpfs", "anon", "redis"}
    assert {str(levels.get("swap")).partition(":")[0] for levels in workloads.values()} == {"None", "zram", "zswap"}


def test_the_command_prints_json(history: History, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    history.commit("comments", note="2\n")
    whole = series.judge
    monkeypatch.setattr(
        series, "judge",
        lambda spec, **more: whole(spec, image_of=bench.image, rows_of=bench.rows, cache=bench.cache, **more),
    )  # fmt: skip
    argv = ["bench", "series", "--tree", str(history.path), "base..main"]
    result = CliRunner().invoke(main, [*argv, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["verdict"] == "equal"
    assert CliRunner().invoke(main, [*argv, "--json", "--markdown"]).exit_code == 2
    assert CliRunner().invoke(main, [*argv, "--markdown"]).stdout.startswith("### ")


# profiles


def row_with(folder: Path, other: str = "", **counts: int) -> dict[str, Any]:
    """A row of a boot whose profile has these functions, `other` with other code than in other rows."""
    one = Profile(
        code={name: "changed" if name == other else "as it was" for name in counts},
        total=sum(counts.values()),
        phases=("kernel",),
        functions=tuple(
            FunctionCount(name=name, phase="kernel", self_count=count, file="mm/x.c") for name, count in counts.items()
        ),
    )
    path = folder / f"{one.sha256}{other}.json"
    one.save(path)
    return {"executed_ns": one.total, "memtotal_bytes": 1, "profile": str(path)}


def boot_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> verdict.CellChange:
    (cell,) = suite.cells("boot")
    (change,) = verdict.compare([cell], {"boot": before}, {"boot": after})
    return change


def test_functions_come_from_profiles(tmp_path: Path) -> None:
    change = boot_change(row_with(tmp_path, memset=10, gone=5, same=3), row_with(tmp_path, memset=4010, new=7, same=3))
    assert change.verdict is SeriesVerdict.DIFFERENT
    assert [(one.name, one.before, one.after) for one in change.functions] == [
        ("memset", 10, 4010), ("new", None, 7), ("gone", 5, None),
    ]  # fmt: skip


def test_what_is_of_layout_alone_is_equal(tmp_path: Path) -> None:
    # a function that is inlined: what it executed is in its caller now, less the call
    before = row_with(tmp_path, shrink_slab=1000, count_objects=400, same=3)
    after = row_with(tmp_path, shrink_slab=1380, same=3)
    change = boot_change(before, after)
    assert change.verdict is SeriesVerdict.LAYOUT
    assert change.layout_change == -20
    assert verdict.whole([change]) is SeriesVerdict.EQUAL
    more_memory = boot_change(before, {**after, "memtotal_bytes": 2})
    assert more_memory.verdict is SeriesVerdict.DIFFERENT, "memory is not of layout"


def test_what_is_of_timing_is_equal(tmp_path: Path) -> None:
    before = {**row_with(tmp_path, delay_tsc=1000, same=3), "idle_ns": 5_000_000, "memavailable_bytes": 8192}
    after = {**row_with(tmp_path, delay_tsc=1040, same=3), "idle_ns": 5_000_900, "memavailable_bytes": 0}
    change = boot_change(before, after)
    assert (change.verdict, change.timing_change) == (SeriesVerdict.LAYOUT, 40)
    assert [(one.name, one.change) for one in change.shown] == [("memavailable_bytes", -8192)]
    much = boot_change(before, {**after, "idle_ns": 25_000_000})
    assert much.verdict is SeriesVerdict.DIFFERENT, "no tick is so long"
    loop = boot_change(before, {**row_with(tmp_path, "delay_tsc", delay_tsc=1040, same=3), "idle_ns": 5_000_000})
    assert loop.verdict is SeriesVerdict.DIFFERENT
    other = boot_change(before, {**row_with(tmp_path, "same", delay_tsc=1040, same=3), "idle_ns": 5_000_000})
    assert other.verdict is SeriesVerdict.DIFFERENT, "other code ran"


def test_a_guest_that_fails_with_one_kernel_alone_is_a_difference() -> None:
    row = {"executed_ns": 5, "end": "powered_off"}
    change = boot_change(row, {**row, "end": "out_of_memory"})
    assert change.verdict is SeriesVerdict.DIFFERENT
    assert "out of memory" in change.failure
    same = boot_change({**row, "end": "out_of_memory"}, {**row, "end": "out_of_memory"})
    assert (same.verdict, same.failure) == (SeriesVerdict.EQUAL, "out of memory")
