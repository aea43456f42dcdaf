"""The search for a commit: over real git repositories, with a number in a file in place of a guest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from acon_nb.cache import Cache
from acon_nb.changes import BisectSpec, bisection, search
from acon_nb.cli import main
from acon_nb.errors import BuildFailed, Cancelled, CannotTell, InvalidInput
from acon_nb.kernel.git.checkout import checked_out
from acon_nb.kernel.git.opened import opened
from acon_nb.kernel.git.repository import Repository, open_repository
from acon_nb.progress import CancelToken
from tests.unit.kernel_history import History


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "linux")


def linear(history: History, costs: list[int]) -> list[str]:
    return [history.commit(f"commit {number}", cost=str(cost)) for number, cost in enumerate(costs)]


def find(history: History, good: str, bad: str, measure: Callable[[str], float] | None = None) -> search.Cause:
    repository = open_repository(history.path)
    return search.find(repository, good, bad, measure or (lambda commit: float(history.cost(commit))))


@pytest.fixture(scope="module")
def long_history(tmp_path_factory: pytest.TempPathFactory) -> tuple[History, list[str]]:
    history = History(tmp_path_factory.mktemp("long") / "linux")
    return history, [history.commit(f"commit {number}") for number in range(33)]


@pytest.mark.parametrize("planted", range(1, 33))
def test_a_step_anywhere_in_32_commits_is_found_in_5_or_6_builds(
    long_history: tuple[History, list[str]], planted: int
) -> None:
    history, commits = long_history
    # each commit changes the number a little, as code that moves does
    numbers = [1000 + 3 * number % 7 + (500 if number >= planted else 0) for number in range(33)]
    found = find(history, commits[0], commits[-1], lambda commit: float(numbers[commits.index(commit)]))
    assert found.commit == commits[planted]
    assert (found.before, found.after) == (numbers[planted - 1], numbers[planted])
    assert len(found.tried) in (5, 6)


def test_the_commit_is_that_of_git_bisect(history: History) -> None:
    commits = linear(history, [5, 5, 5, 5, 9, 9, 9])
    found = find(history, commits[0], commits[-1])
    history.git("bisect", "start", commits[-1], commits[0])
    answer = history.git("bisect", "run", "sh", "-c", "test $(cat cost.c) = 5")
    assert f"{found.commit} is the first bad commit" in answer


def test_a_commit_on_a_merged_branch_is_found(history: History) -> None:
    first, *_ = linear(history, [1, 1, 1])
    history.git("checkout", "--quiet", "-b", "side")
    history.commit("side 1", other="1")
    planted = history.commit("side 2", cost="100")
    history.commit("side 3", other="3")
    history.git("checkout", "--quiet", "main")
    for number in range(3):
        history.commit(f"main {number}", main=str(number))
    history.git("merge", "--quiet", "--no-edit", "side")
    history.commit("after", after="1")
    found = find(history, first, history.git("rev-parse", "HEAD"))
    assert (found.commit, found.before, found.after) == (planted, 1, 100)


def test_a_merge_may_be_the_cause_itself(history: History) -> None:
    first = history.commit("first", cost="1", b="0")
    history.git("checkout", "--quiet", "-b", "side")
    history.commit("side", b="1")
    history.git("checkout", "--quiet", "main")
    history.commit("main", c="1")
    history.git("merge", "--quiet", "--no-commit", "side")
    merge = history.commit("merge", cost="7")
    found = find(history, first, merge)
    assert (found.commit, found.before, found.after) == (merge, 1, 7)


def test_commits_that_do_not_build_are_skipped(history: History) -> None:
    commits = linear(history, [1, 1, 1, 1, 1, 1, 1, 1, 1, 9, 9, 9, 9])

    def measure(commit: str) -> float:
        if commit in commits[4:8]:
            raise search.Untestable("does not build")
        return history.cost(commit)

    found = find(history, commits[0], commits[-1], measure)
    assert found.commit == commits[9]
    assert set(found.skipped) <= set(commits[4:8])


def test_a_cause_among_skipped_commits_cannot_be_told(history: History) -> None:
    commits = linear(history, [1, 1, 1, 9, 9])

    def measure(commit: str) -> float:
        if commit in commits[1:4]:
            raise search.Untestable("mm/page_alloc.c:1:1: error: x")
        return history.cost(commit)

    with pytest.raises(CannotTell, match="which of 4 commits") as caught:
        find(history, commits[0], commits[-1], measure)
    assert "error: x" in str(caught.value)
    assert commits[0][:12] not in str(caught.value)


def test_an_end_that_does_not_build_is_an_error(history: History) -> None:
    commits = linear(history, [1, 9])

    def measure(commit: str) -> float:
        if commit == commits[1]:
            raise BuildFailed("the kernel did not build")
        return 1.0

    with pytest.raises(BuildFailed):
        find(history, commits[0], commits[1], measure)


@pytest.mark.parametrize(("good", "bad"), [(1, 0), (1, 1)])
def test_ends_in_the_wrong_order_are_refused(history: History, good: int, bad: int) -> None:
    commits = linear(history, [1, 9])
    with pytest.raises(InvalidInput, match="good=") as caught:
        find(history, commits[good], commits[bad])
    assert "merge-base GOOD BAD prints" in str(caught.value.hint)


# the whole bisection, with a row of each commit in place of a build and a guest


def rows(history: History, log: list[str]) -> Callable[[str, bool], Mapping[str, Any]]:
    def row(commit: str, profile: bool) -> Mapping[str, Any]:
        log.append(commit)
        cost = history.cost(commit)
        return {"executed_ns": cost, "functions": f"schedule 70\nfree_area_init {cost - 70}"}

    return row


def spec(history: History, good: str, bad: str, **fields: Any) -> BisectSpec:
    return BisectSpec(tree=history.path, good=good, bad=bad, metric="executed_ns", **fields)


def test_a_bisection_names_commit_step_and_functions(history: History, cache: Cache) -> None:
    commits = linear(history, [100, 100, 100, 140, 140])
    history.git("tag", "before", commits[0])
    found = bisection.bisect(spec(history, "before", "main"), row_of=rows(history, []), cache=cache)
    values = found.values()
    assert (values["commit"], values["before"], values["after"]) == (commits[3], 100, 140)
    assert values["subject"] == "commit 3"
    assert values["builds"] == 2
    assert [(one["name"], one["before"], one["after"]) for one in values["functions"]] == [("free_area_init", 30, 70)]
    text = bisection.text_of(found)
    assert f"{commits[3][:12]} commit 3" in text
    assert "40 instructions longer" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_an_interrupted_bisection_resumes(history: History, cache: Cache) -> None:
    commits = linear(history, [100, 100, 100, 100, 140, 140, 140, 140, 140])
    log: list[str] = []
    row = rows(history, log)

    def interrupted(commit: str, profile: bool) -> Mapping[str, Any]:
        if len(log) == 3:
            raise Cancelled()
        return row(commit, profile)

    one = spec(history, commits[0], commits[-1])
    with pytest.raises(Cancelled):
        bisection.bisect(one, row_of=interrupted, cache=cache)
    whole: list[str] = []
    found = bisection.bisect(one, row_of=rows(history, whole), cache=cache)
    assert found.commit == commits[4]
    # measured again are only the two rows whose functions are compared
    assert not set(whole) - {found.commit, commits[3]} & set(log)


def test_a_damaged_state_is_made_again(history: History, tmp_path: Path, cache: Cache) -> None:
    commits = linear(history, [1, 2, 2])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/bisect.json").write_text("{torn")
    one = spec(history, commits[0], commits[-1], out=tmp_path / "out")
    assert bisection.bisect(one, row_of=rows(history, []), cache=cache).commit == commits[1]


def test_what_was_skipped_is_not_built_again(history: History, cache: Cache) -> None:
    commits = linear(history, [1, 1, 1, 9, 9])
    log: list[str] = []

    def row(commit: str, profile: bool) -> Mapping[str, Any]:
        if commit == commits[2]:
            log.append(commit)
            raise BuildFailed("the kernel did not build: x.c: error")
        return rows(history, [])(commit, profile)

    one = spec(history, commits[0], commits[-1])
    for _ in range(2):
        with pytest.raises(CannotTell):
            bisection.bisect(one, row_of=row, cache=cache)
    assert log == [commits[2]]


@pytest.mark.parametrize(("limit", "equal"), [("", False), ("40", True), ("39", False), ("40%", True), ("1%", False)])
def test_ends_that_differ_by_less_than_the_limit_cannot_be_told(
    history: History, cache: Cache, limit: str, equal: bool
) -> None:
    commits = linear(history, [100, 140])
    one = spec(history, commits[0], commits[1], limit=limit)
    if equal:
        with pytest.raises(CannotTell, match="cannot tell") as caught:
            bisection.bisect(one, row_of=rows(history, []), cache=cache)
        assert caught.value.exit_status == 3
    else:
        assert bisection.bisect(one, row_of=rows(history, []), cache=cache).builds == 0


def test_a_cancelled_search_stops(history: History, cache: Cache) -> None:
    commits = linear(history, [1, 1, 2, 2])
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        bisection.bisect(spec(history, commits[0], commits[-1]), row_of=rows(history, []), cache=cache, cancel=token)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"metric": "no_such_column"}, "metric"),
        ({"metric": "host_ns_init"}, "metric"),
        ({"metric": "pswpout_pages"}, "metric"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "much"}, "limit"),
        ({"limit": "nan"}, "limit"),
        ({"plan": "quick"}, "cell"),
        ({"plan": "quick", "cell": "clock=wall"}, "cell"),
        ({"plan": "quick", "cell": "clock=wall, firmware=ovmf"}, "cell"),
        ({"plan": "smoke", "cell": "swap=disk", "metric": "pswpout_pages"}, "dilation"),
        ({"profile": "nothing-of-the-kind"}, "profile"),
        ({"settings": ("not a setting",)}, "set"),
        ({"config": Path("/nowhere")}, "config"),
    ],
)
def test_what_cannot_be_is_refused_by_name(history: History, fields: dict[str, Any], name: str) -> None:
    commits = linear(history, [1, 2])
    values = {"tree": history.path, "good": commits[0], "bad": commits[1], "metric": "executed_ns", **fields}
    with pytest.raises(InvalidInput) as caught:
        BisectSpec(**values)
    assert caught.value.field == name


def test_a_swap_counter_of_a_named_cell_is_a_metric(history: History) -> None:
    one = BisectSpec(
        tree=history.path, good="a", bad="b", metric="pswpout_pages", plan="tour", cell="swap=disk", profile="minimal"
    )
    assert one.measured.levels["swap"] == "disk"
    assert one.measured.build.profiles == ("minimal",)


# git trees


def test_a_users_tree_is_only_read(history: History, cache: Cache) -> None:
    first = history.commit("first", a="1")
    history.commit("second", a="2", b="1")
    hook = history.path / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\ntouch hooked\n")
    hook.chmod(0o755)
    before = listing(history.path)
    repository = open_repository(history.path)
    with checked_out(repository, first, cache=cache) as tree:
        assert (tree.path / "a.c").read_text() == "1"
        assert not (tree.path / "b.c").exists()
        assert (tree.version, tree.release) == ((6, 12), "6.12.1")
        assert not (tree.path / ".git").exists(), "a kernel's release must not depend on tags"
        assert not (tree.path / "hooked").exists()
    assert listing(history.path) == before


def listing(folder: Path) -> list[tuple[str, int, int]]:
    return [(str(path), path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(folder.rglob("*"))]


def test_only_what_a_commit_changed_is_written(history: History, cache: Cache) -> None:
    first = history.commit("first", a="1", b="1")
    second = history.commit("second", a="2")
    repository = open_repository(history.path)
    with checked_out(repository, first, cache=cache) as tree:
        times = {name: (tree.path / name).stat().st_mtime_ns for name in ("a.c", "b.c")}
        (tree.path / "left behind.c").write_text("x")
    with checked_out(repository, second, cache=cache) as other:
        assert (other.path, other.place) == (tree.path, tree.place)
        assert other.identity != tree.identity
        assert (other.path / "a.c").stat().st_mtime_ns > times["a.c"]
        assert (other.path / "b.c").stat().st_mtime_ns == times["b.c"]
        assert not (other.path / "left behind.c").exists()


def test_a_kernels_source_of_a_git_tree_is_what_a_bisection_builds(history: History, cache: Cache) -> None:
    first, second = history.commit("first", a="1", b="1"), history.commit("second", a="2")
    (history.path / "a.c").write_text("not committed")
    with opened(f"{history.path}#{first}", cache=cache) as tree:
        b_written_ns = (tree.path / "b.c").stat().st_mtime_ns
    with opened(f"{history.path}#main", cache=cache) as other:
        assert (other.path / "a.c").read_text() == "2"
        assert (other.path / "b.c").stat().st_mtime_ns == b_written_ns, "make would compile it again"
    history.git("checkout", "--quiet", "--", "a.c")
    with checked_out(open_repository(history.path), second, cache=cache) as bisected:
        assert (bisected.path, bisected.identity, bisected.place) == (other.path, other.identity, other.place)
    with pytest.raises(InvalidInput, match="source="), opened(f"{history.path}#missing", cache=cache):
        pass


def test_commits_with_the_same_files_have_the_same_identity(history: History, cache: Cache) -> None:
    commits = [history.commit("first", a="1"), history.commit("nothing")]
    repository = open_repository(history.path)
    identities = set()
    for commit in commits:
        with checked_out(repository, commit, cache=cache) as tree:
            identities.add(tree.identity)
    assert len(identities) == 1


def test_a_patch_is_applied_and_taken_back(history: History, tmp_path: Path, cache: Cache) -> None:
    first = history.commit("first", a="1\n")
    patch = tmp_path / "0001-a.patch"
    patch.write_text("--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-1\n+2\n")
    repository = open_repository(history.path)
    with checked_out(repository, first, patches=[patch], cache=cache) as tree:
        assert (tree.path / "a.c").read_text() == "2\n"
    with checked_out(repository, first, cache=cache) as plain:
        assert (plain.path / "a.c").read_text() == "1\n"
    assert plain.identity != tree.identity


@pytest.mark.parametrize(
    "text",
    ["--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-9\n+2\n", "--- /dev/null\n+++ b/../../out.c\n@@ -0,0 +1 @@\n+2\n"],
    ids=["other text", "a path outside"],
)
def test_a_patch_that_does_not_apply_is_named(history: History, tmp_path: Path, cache: Cache, text: str) -> None:
    first = history.commit("first", a="1\n")
    patch = tmp_path / "0001-a.patch"
    patch.write_text(text)
    with (
        pytest.raises(InvalidInput, match=r"0001-a\.patch"),
        checked_out(open_repository(history.path), first, patches=[patch], cache=cache),
    ):
        pass
    assert not list(tmp_path.rglob("out.c"))


def test_a_folder_of_a_git_tree_is_its_kernel(tmp_path: Path, cache: Cache) -> None:
    outer = tmp_path / "outer"
    history = History(outer)
    (outer / "linux").mkdir()
    for name in ("Makefile", "Kconfig"):
        (outer / name).rename(outer / "linux" / name)
    first = history.commit("first", a="1")
    with checked_out(open_repository(outer / "linux"), first, cache=cache) as tree:
        assert (tree.path / "Makefile").is_file()
    with (
        pytest.raises(InvalidInput, match="not a kernel tree"),
        checked_out(open_repository(outer), first, cache=cache),
    ):
        pass


def test_a_tree_with_changes_is_refused(history: History) -> None:
    history.commit("first", a="1")
    (history.path / "a.c").write_text("2")
    with pytest.raises(InvalidInput, match=r"not committed.*a\.c"):
        open_repository(history.path)


def test_a_shallow_clone_is_refused(history: History, tmp_path: Path) -> None:
    linear(history, [1, 2])
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{history.path}", tmp_path / "shallow"], check=True)
    with pytest.raises(InvalidInput, match="shallow"):
        open_repository(tmp_path / "shallow")


def test_a_partial_clone_is_refused(history: History, tmp_path: Path) -> None:
    linear(history, [1, 2])
    history.git("config", "uploadpack.allowFilter", "true")
    argv = ["git", "clone", "--quiet", "--filter=blob:none", f"file://{history.path}", tmp_path / "partial"]
    subprocess.run(argv, check=True)
    with pytest.raises(InvalidInput, match="partial"):
        open_repository(tmp_path / "partial")


def test_what_is_not_a_git_tree_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidInput, match="tree="):
            open_repository(path)


@pytest.mark.parametrize("ref", ["missing", "--all", "--output=/tmp/x", "main..main", "", "main:a.c", "\n", "-1"])
def test_refs_are_never_options(history: History, ref: str) -> None:
    history.commit("first", a="1")
    repository = open_repository(history.path)
    with pytest.raises(InvalidInput, match="good="):
        repository.commit(ref, field="good")


@pytest.mark.parametrize("ref", ["main", "HEAD", "v1", "a-branch/with.dots"])
def test_refs_name_commits(history: History, ref: str) -> None:
    first = history.commit("first", a="1")
    history.git("tag", "-a", "-m", "annotated", "v1")
    history.git("branch", "a-branch/with.dots")
    assert open_repository(history.path).commit(ref, field="good") == first


def test_a_subject_is_one_line_of_plain_text(history: History) -> None:
    first = history.commit("red \x1b[31m text", a="1")
    assert open_repository(history.path).subject(first) == "red ?[31m text"


def test_the_command_says_with_status_3_that_it_cannot_tell(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commits = linear(history, [1, 1])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = bisection.bisect
    monkeypatch.setattr(bisection, "bisect", lambda spec, **more: whole(spec, row_of=rows(history, []), **more))
    argv = ["bench", "bisect", "--tree", str(history.path), "--good", commits[0], "--bad", commits[1]]
    result = CliRunner().invoke(main, [*argv, "--metric", "executed_ns", "--json"])
    assert result.exit_code == 3
    assert "cannot tell" in result.stderr


def test_bare_repositories_are_git_trees(history: History, tmp_path: Path, cache: Cache) -> None:
    first = history.commit("first", a="1")
    subprocess.run(["git", "clone", "--quiet", "--bare", history.path, tmp_path / "bare.git"], check=True)
    repository: Repository = open_repository(tmp_path / "bare.git")
    with checked_out(repository, first, cache=cache) as tree:
        assert (tree.path / "a.c").is_file()
