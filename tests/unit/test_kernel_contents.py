"""A folder of kernel source is what it holds: each edit is noticed whatever its times; what does not count is not."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from acon_nb.cache import Cache
from acon_nb.errors import AconError, InvalidInput
from acon_nb.kernel import contents, outdated
from acon_nb.kernel.source import SourceTree, fetch, require_unchanged

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]


def git(tree: Path, *argv: str) -> None:
    subprocess.run([*GIT, "-C", tree, *argv], check=True, capture_output=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(params=["checkout", "plain"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tree with a link to a folder outside it, once as a git checkout."""
    folder = tmp_path / "tree"
    write(folder / "Makefile", "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 9\n")
    write(folder / "Kconfig", 'mainmenu "x"\n')
    write(folder / "mm/util.c", "int one;\n")
    write(folder / "scripts/list.sh", "echo a\n")
    write(folder / ".gitignore", "*.o\n/tags\n")
    write(tmp_path / "outside/driver.c", "int driver;\n")
    (folder / "drivers").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(".")
    (folder / "link").symlink_to("Makefile")
    if request.param == "checkout":
        git(folder, "init", "-q")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "one")
    return folder


def keeping_times(path: Path, change: Callable[[], object]) -> None:
    times = path.stat()
    change()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def older_copy(tree: Path) -> None:
    old = tree.parent / "old.c"
    old.write_text("int two;\n")
    os.utime(old, (1, 1))
    subprocess.run(["cp", "-a", old, tree / "mm/util.c"], check=True)


def renamed_over(tree: Path) -> None:
    other = tree.parent / "other.c"
    shutil.copy2(tree / "mm/util.c", other)
    keeping_times(other, lambda: other.write_text("int two;\n"))
    other.rename(tree / "mm/util.c")


EDITS: dict[str, Callable[[Path], object]] = {
    "an edit": lambda tree: (tree / "mm/util.c").write_text("int one, two;\n"),
    "an edit that keeps size and time": lambda tree: keeping_times(
        tree / "mm/util.c", lambda: (tree / "mm/util.c").write_text("int two;\n")
    ),
    "an older version copied over it": older_copy,
    "another file renamed over it": renamed_over,
    "behind a linked folder": lambda tree: (tree / "drivers/driver.c").write_text("int other;\n"),
    "a new file behind a linked folder": lambda tree: (tree / "drivers/more.c").write_text(""),
    "chmod": lambda tree: (tree / "scripts/list.sh").chmod(0o755),
    "a new file": lambda tree: write(tree / "mm/new.c", ""),
    "a file that went": lambda tree: (tree / "mm/util.c").unlink(),
    "another name": lambda tree: (tree / "mm/util.c").rename(tree / "mm/utils.c"),
    "a link elsewhere": lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("Kconfig")),
    "a file instead of a link": lambda tree: ((tree / "link").unlink(), shutil.copy(tree / "Makefile", tree / "link")),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_is_noticed(tree: Path, cache: Cache, edit: str) -> None:
    before = fetch(str(tree), cache=cache)
    EDITS[edit](tree)
    after = fetch(str(tree), cache=cache)
    assert after.identity != before.identity
    assert after.place == before.place, "it is built where it was"
    with pytest.raises(AconError, match="changed while its kernel was built"):
        require_unchanged(before, cache)
    require_unchanged(after, cache)


RELEASE_EDITS: dict[str, Callable[[Path], object]] = {
    ".scmversion that git ignores": lambda tree: write(tree / ".scmversion", "-mine"),
    "localversion that git ignores": lambda tree: write(tree / "localversion-mine", "-mine"),
    "a mode behind a linked file": lambda tree: (tree / "Makefile").chmod(0o700),
}


@pytest.mark.parametrize("edit", RELEASE_EDITS)
def test_files_of_the_release_count_even_where_git_ignores_them(tree: Path, cache: Cache, edit: str) -> None:
    with (tree / ".gitignore").open("a") as file:
        file.write(".*\nlocalversion-*\n")
    (tree / "Makefile").chmod(0o644)
    before = fetch(str(tree), cache=cache).identity
    RELEASE_EDITS[edit](tree)
    assert fetch(str(tree), cache=cache).identity != before


def test_a_mode_behind_a_link_out_of_the_tree_is_noticed(tree: Path, cache: Cache) -> None:
    write(tree.parent / "outside/more.sh", "echo")
    (tree / "scripts/more.sh").symlink_to("../../outside/more.sh")
    (tree / "drivers").unlink()
    before = fetch(str(tree), cache=cache).identity
    (tree.parent / "outside/more.sh").chmod(0o755)
    assert fetch(str(tree), cache=cache).identity != before


def checkout_of(tree: Path) -> Path:
    if not (tree / ".git").exists():
        git(tree, "init", "-q")
        git(tree, "add", ".")
        git(tree, "commit", "-qm", "one")
    return tree


def test_a_tag_of_the_version_behind_a_nearer_one_is_noticed(tree: Path, cache: Cache) -> None:
    git(checkout_of(tree), "commit", "--allow-empty", "-qm", "two")
    git(tree, "tag", "-am", "x", "nearer")
    git(tree, "commit", "--allow-empty", "-qm", "three")
    before = fetch(str(tree), cache=cache).identity
    git(tree, "tag", "-am", "x", "v6.12.9", "HEAD~2")
    assert fetch(str(tree), cache=cache).identity != before


def test_what_is_staged_only_is_noticed(tree: Path, cache: Cache) -> None:
    """kbuild adds -dirty to the release, although each file is as it was."""
    before = fetch(str(checkout_of(tree)), cache=cache).identity
    text = (tree / "mm/util.c").read_text()
    write(tree / "mm/util.c", "int staged;")
    git(tree, "add", "mm/util.c")
    write(tree / "mm/util.c", text)
    assert fetch(str(tree), cache=cache).identity != before


def test_another_repository_in_the_environment_does_not_hide_a_commit(
    tree: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tree.parent / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "--allow-empty", "-qm", "other")
    checkout_of(tree)
    with monkeypatch.context() as patched:
        patched.setenv("GIT_DIR", str(other / ".git"))
        before = fetch(str(tree), cache=cache).identity
    git(tree, "commit", "--allow-empty", "-qm", "two")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert fetch(str(tree), cache=cache).identity != before


def test_a_file_edited_and_restored_meanwhile_is_noticed_at_the_end(tree: Path, cache: Cache) -> None:
    before = fetch(str(tree), cache=cache)
    text = (tree / "mm/util.c").read_text()
    keeping_times(tree / "mm/util.c", lambda: write(tree / "mm/util.c", "int other;"))
    keeping_times(tree / "mm/util.c", lambda: write(tree / "mm/util.c", text))
    assert fetch(str(tree), cache=cache).identity == before.identity
    with pytest.raises(AconError, match=r"mm/util.c changed while its kernel was built"):
        require_unchanged(before, cache)


@pytest.mark.parametrize("argv", [("commit", "--allow-empty", "-qm", "two"), ("tag", "v1"), ("tag", "-am", "x", "v2")])
def test_a_commit_and_a_tag_are_noticed(tree: Path, cache: Cache, argv: tuple[str, ...]) -> None:
    if not (tree / ".git").exists():
        git(tree, "init", "-q")
        git(tree, "add", ".")
        git(tree, "commit", "-qm", "one")
    before = fetch(str(tree), cache=cache).identity
    git(tree, *argv)
    assert fetch(str(tree), cache=cache).identity != before


def test_what_does_not_count_is_not_noticed(tree: Path, cache: Cache) -> None:
    before = fetch(str(tree), cache=cache)
    os.utime(tree / "mm/util.c", (5, 5))
    write(tree / "mm/util.c~", "backup")
    write(tree / "mm/.util.c.swp", "swap file")
    if (tree / ".git").exists():
        write(tree / "tags", "made by an editor")
        write(tree / "mm/util.o", "an object")
        git(tree, "status")
    assert fetch(str(tree), cache=cache).identity == before.identity


def test_two_folders_with_the_same_files_are_the_same_source(tree: Path, cache: Cache) -> None:
    other = tree.parent / "copy"
    shutil.copytree(tree, other, symlinks=True)
    assert fetch(str(other), cache=cache).identity == fetch(str(tree), cache=cache).identity


def test_only_files_of_kconfig_and_kbuild_decide_the_options(tree: Path, cache: Cache) -> None:
    before = fetch(str(tree), cache=cache).configuring
    write(tree / "mm/util.c", "int x;")
    assert fetch(str(tree), cache=cache).configuring == before
    write(tree / "Kconfig", 'mainmenu "y"\n')
    assert fetch(str(tree), cache=cache).configuring != before


def test_a_settled_file_is_not_read_again(tree: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_SETTLED_NS", -1)
    first = contents.read(tree, cache)
    read: list[str] = []
    digest = contents.hashlib.file_digest
    monkeypatch.setattr(contents.hashlib, "file_digest", lambda *given: read.append("x") or digest(*given))
    assert contents.read(tree, cache).identity == first.identity
    assert read == []


def test_a_link_to_a_whole_file_system_is_refused(tree: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_FILES", 20)
    for number in range(20):
        write(tree.parent / f"outside/{number}.c", "")
    with pytest.raises(InvalidInput, match="holds more than 20 files"):
        fetch(str(tree), cache=cache)


def test_no_program_that_a_repository_names_is_run(tree: Path, cache: Cache) -> None:
    if not (tree / ".git").exists():
        git(tree, "init", "-q")
    hook = tree.parent / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tree.parent}/was-run\n")
    hook.chmod(0o755)
    git(tree, "config", "core.fsmonitor", str(hook))
    fetch(str(tree), cache=cache)
    assert not (tree.parent / "was-run").exists()


@pytest.fixture
def built(tree: Path, cache: Cache, tmp_path: Path) -> tuple[SourceTree, Path]:
    """A build folder as kbuild leaves it, of two objects and a table that a script made."""
    work = tmp_path / "work"
    write(tree / "lib/opcodes.txt", "00: add\n")
    write(tree / "lib/names.tbl", "0 read\n")
    write(tree / "lib/unused.c", "int unused;\n")
    write(tree / "lib/Makefile", "obj-y := other.o\n$(obj)/names.h: $(src)/names.tbl\n\t$(call cmd,opcodes)\n")
    write(tree / "notes", "mine\n")
    write(tree / "lib/stray.data", "mine\n")
    write(tree / "tools/objtool/check.c", "int check;\n")
    (tree / "include").mkdir()
    (tree / "include/x.h").write_text("#define X 1\n")
    (tree / "also").symlink_to("include")
    source = fetch(str(tree), cache=cache)
    outdated.remove(work, source)
    real = tree.resolve()
    for name, uses in {
        "mm/util.o": ["mm/util.c", "include/x.h"],
        "lib/other.o": ["lib/other.c", "also/x.h"],
        "drivers/driver.o": ["drivers/driver.c"],
    }.items():
        write(work / name, "object")
        path = work / name
        lines = "".join(f"  {real}/{use} \\\n" for use in uses)
        write(path.with_name(f".{path.name}.cmd"), f"savedcmd_{name} := gcc\n\ndeps_{name} := \\\n{lines}\n$(deps):\n")
    write(work / "include/generated/table.h", "made by a script")
    write(work / ".config", "CONFIG_A=y\n")
    outdated.finish(work, source)
    return source, work


def test_what_was_made_of_a_changed_file_is_made_again(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    EDITS["an edit that keeps size and time"](source.path)
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert not (work / "mm/util.o").exists()
    assert (work / "lib/other.o").exists()
    assert (work / "include/generated/table.h").exists()


def test_a_tree_given_by_a_link_is_the_tree_that_kbuild_names(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    link = source.path.parent / "by-link"
    link.symlink_to(source.path)
    assert fetch(str(link), cache=cache).place == source.place
    EDITS["an edit that keeps size and time"](source.path)
    outdated.remove(work, fetch(str(link), cache=cache))
    assert not (work / "mm/util.o").exists()


def test_users_of_a_header_under_each_of_its_names_are_made_again(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    header = source.path / "include/x.h"
    keeping_times(header, lambda: header.write_text("#define X 2\n"))
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert not (work / "mm/util.o").exists()
    assert not (work / "lib/other.o").exists()
    assert (work / "drivers/driver.o").exists()


def test_a_folder_link_that_leads_elsewhere_makes_its_users_again(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    shutil.copytree(source.path.parent / "outside", source.path.parent / "another")
    (source.path / "drivers").unlink()
    (source.path / "drivers").symlink_to("../another")
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert not (work / "drivers/driver.o").exists()
    assert (work / "mm/util.o").exists()


def test_a_new_header_that_hides_another_makes_its_users_again(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    write(source.path / "mm/x.h", "#define X 3\n")
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert not (work / "mm/util.o").exists()
    assert (work / "include/generated/table.h").exists()


@pytest.mark.parametrize(
    "name", ["lib/opcodes.txt", "lib/names.tbl", "scripts/list.sh", "tools/objtool/check.c", "lib/unused.c"]
)
@pytest.mark.parametrize("later_ns", [0, 1_000_000_000])
def test_the_folder_is_emptied_where_no_command_tells_what_was_made_of_a_file(
    built: tuple[SourceTree, Path], cache: Cache, name: str, later_ns: int
) -> None:
    """Such a file may be newer than the record of the build and yet older than what was made of it."""
    source, work = built
    path = source.path / name
    times = path.stat()
    path.write_text("changed\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + later_ns))
    outdated.remove(work, fetch(str(source.path), cache=cache))
    noticed_by_make = name.endswith("unused.c") and later_ns > 0
    assert (work / "include/generated/table.h").exists() is noticed_by_make
    assert (work / ".config").exists()


@pytest.mark.parametrize("name", ["notes", "lib/stray.data", "Documentation/x.txt", "lib/unused.c", "lib/Kconfig"])
@pytest.mark.parametrize("new", [True, False])
def test_a_file_that_nothing_is_made_of_keeps_what_was_built(
    built: tuple[SourceTree, Path], cache: Cache, name: str, new: bool
) -> None:
    source, work = built
    if new:
        name += ".new"
    write(source.path / name, "changed\n")
    os.utime(source.path / name, (4e9, 4e9))
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert (work / "mm/util.o").exists()
    assert (work / "include/generated/table.h").exists()


def test_a_mode_alone_makes_nothing_again(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    EDITS["chmod"](source.path)
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert (work / "include/generated/table.h").exists()


def test_a_file_restored_after_a_failed_build_counts_as_changed(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    path, text = source.path / "mm/util.c", (source.path / "mm/util.c").read_text()
    keeping_times(path, lambda: path.write_text("int fails;\n"))
    outdated.remove(work, fetch(str(source.path), cache=cache))
    write(work / "mm/util.o", "object of the edited file")  # make got as far as that
    keeping_times(path, lambda: path.write_text(text))
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert not (work / "mm/util.o").exists()
    assert (work / "lib/other.o").exists()


def test_a_file_edited_and_restored_during_a_killed_build_counts_as_changed(
    built: tuple[SourceTree, Path], cache: Cache
) -> None:
    source, work = built
    path, text = source.path / "mm/util.c", (source.path / "mm/util.c").read_text()
    outdated.remove(work, source)
    keeping_times(path, lambda: path.write_text("int other;\n"))
    keeping_times(path, lambda: path.write_text(text))
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert not (work / "mm/util.o").exists()
    assert (work / "lib/other.o").exists()


def test_a_killed_build_resumes_where_it_stopped(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    outdated.remove(work, source)
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert (work / "mm/util.o").exists()
    assert (work / "include/generated/table.h").exists()


def test_a_folder_without_a_record_is_emptied(built: tuple[SourceTree, Path]) -> None:
    source, work = built
    (work / "sources.json").unlink()
    outdated.remove(work, source)
    assert not (work / "mm/util.o").exists()
    assert (work / "sources.json").exists()
