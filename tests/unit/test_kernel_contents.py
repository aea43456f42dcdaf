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
    source = fetch(str(tree), cache=cache)
    for name, uses in {"mm/util.o": ["mm/util.c", "include/x.h"], "lib/other.o": ["lib/other.c"]}.items():
        write(work / name, "object")
        path = work / name
        lines = "".join(f"  {tree}/{use} \\\n" for use in uses)
        write(path.with_name(f".{path.name}.cmd"), f"savedcmd_{name} := gcc\n\ndeps_{name} := \\\n{lines}\n$(deps):\n")
    outdated.remove(work, source)
    write(work / "include/generated/table.h", "made by a script")
    write(work / ".config", "CONFIG_A=y\n")
    return source, work


def test_what_was_made_of_a_changed_file_is_made_again(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    EDITS["an edit that keeps size and time"](source.path)
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert not (work / "mm/util.o").exists()
    assert (work / "lib/other.o").exists()
    assert (work / "include/generated/table.h").exists()


def test_a_mode_alone_makes_nothing_again(built: tuple[SourceTree, Path], cache: Cache) -> None:
    source, work = built
    EDITS["chmod"](source.path)
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert (work / "include/generated/table.h").exists()


@pytest.mark.parametrize("kept", [True, False])
def test_a_changed_script_empties_the_folder_if_its_time_says_nothing(
    built: tuple[SourceTree, Path], cache: Cache, kept: bool
) -> None:
    source, work = built
    script = source.path / "scripts/list.sh"
    if kept:
        keeping_times(script, lambda: script.write_text("echo b\n"))
    else:
        script.write_text("echo b\n")
        os.utime(script, (4e9, 4e9))
    outdated.remove(work, fetch(str(source.path), cache=cache))
    assert (work / "include/generated/table.h").exists() is not kept
    assert (work / ".config").exists()


def test_a_folder_without_a_record_is_emptied(built: tuple[SourceTree, Path]) -> None:
    source, work = built
    (work / "sources.json").unlink()
    outdated.remove(work, source)
    assert not (work / "mm/util.o").exists()
    assert (work / "sources.json").exists()
