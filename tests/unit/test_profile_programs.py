"""Counts of user space by page of a file: which program and function each is of, and what is of none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from acon_nb.initrd import FileTree, create
from acon_nb.profile import Profile, Region, diff, programs
from acon_nb.profile.counts import Functions, PhaseEnd, profile_of
from acon_nb.profile.diff import DifferenceVerdict
from acon_nb.profile.model import FunctionCount
from acon_nb.profile.programs import GuestProgram, GuestPrograms
from acon_nb.vm import Snapshot, counting

PROGRAM = GuestProgram("/bin/tool", ((0x100, 0x180, "first"), (0x200, 0x240, "second")))
KNOWN = GuestPrograms({7: (PROGRAM, 0), 8: (PROGRAM, 4096)})


def test_a_function_ends_where_its_symbol_does() -> None:
    counts = KNOWN.counts({(7, 0x100): 5, (7, 0x17F): 1, (7, 0x180): 10, (7, 0x200): 100, (8, 0): 1000, (9, 0): 4})
    assert counts == {("first", "/bin/tool"): 6, ("/bin/tool", "/bin/tool"): 1010, ("second", "/bin/tool"): 100}


def test_the_hash_is_that_of_the_plugin() -> None:
    page = bytes(range(256)) * 16
    value = 0
    for at in range(0, 4096, 8):
        value = (value * 0x9E3779B97F4A7C15 + int.from_bytes(page[at : at + 8], "little")) % (1 << 64)
    assert programs._hashes(page + page[:100]) == [value, programs._hashes(page[:100] + bytes(3996))[0]]


def snapshot(moment: int, count: int, user: dict[tuple[int, int], int]) -> Snapshot:
    return Snapshot(moment=moment, tsc_ns=count, idle_ns=0, counts={0: count}, physical={}, user=user)


def test_programs_are_entries_and_the_sum_stays() -> None:
    ends = [
        PhaseEnd(name="kernel", end=snapshot(1, 50, {(7, 0x100): 40})),
        PhaseEnd(name="/init", end=snapshot(2, 170, {(7, 0x100): 45, (7, 0x200): 100, (1, 1): 10})),
    ]
    made = profile_of(ends, Functions({}, programs=KNOWN))
    assert made.unattributed == 0
    rows = {(one.phase, one.name, one.file): one.self_count for one in made.functions if one.region is Region.USER}
    assert rows == {
        ("kernel", "first", "/bin/tool"): 40, ("kernel", "(user space)", ""): 10,
        ("/init", "first", "/bin/tool"): 5, ("/init", "second", "/bin/tool"): 100, ("/init", "(user space)", ""): 15,
    }  # fmt: skip


def test_the_plugins_lines_are_read() -> None:
    lines = ["mark 2 30 0", "0 25", "user ff 16 20", "user ff 17 3", ".", "end 0 40 0", "0 30", "user ff 16 25", "."]
    first, last = counting.read_snapshots(lines, (0,))
    assert (first.user, first.counted) == ({(255, 16): 20, (255, 17): 3}, 25)
    assert last.user == {(255, 16): 25}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_the_programs_of_an_initrd(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("int planted(int n) { return n * 3; }\nint main(void) { return planted(1); }\n")
    subprocess.run(["gcc", "-O0", "-static", "-o", tmp_path / "a", source], check=True)
    tree = FileTree()
    tree.add_file("bin/a", tmp_path / "a", mode=0o755)
    tree.add_file("bin/damaged", (tmp_path / "a").read_bytes()[:3000], mode=0o755)
    tree.add_file("init", b"#!/bin/a\n", mode=0o755)
    known = programs.of_initrds(create(tree, tmp_path / "i.cpio").path)
    every = {program.path: program for program, _ in known.pages.values()}
    assert set(every) == {"/bin/a"}
    (start,) = (start for start, _, name in every["/bin/a"].functions if name == "planted")
    data = (tmp_path / "a").read_bytes()
    page = data[start & -4096 : (start & -4096) + 4096]
    assert known.counts({(programs._hashes(page)[0], start % 4096): 9}) == {("planted", "/bin/a"): 9}


def test_a_broken_initrd_has_no_programs(tmp_path: Path) -> None:
    (tmp_path / "i.cpio").write_bytes(b"070701 nonsense")
    assert programs.of_initrds(tmp_path / "i.cpio", tmp_path / "none").pages == {}


def test_a_program_is_compared_by_file_where_the_kernels_files_are_not_known() -> None:
    def profile(first: int, second: int) -> Profile:
        rows = (
            FunctionCount(name="walk", phase="/init", self_count=30),
            FunctionCount(name="main", phase="/init", self_count=first, file="/bin/a", region=Region.USER),
            FunctionCount(name="main", phase="/init", self_count=second, file="/bin/b", region=Region.USER),
        )
        return Profile(total=30 + first + second, phases=("/init",), functions=rows)

    compared = diff.difference(profile(5, 6), profile(5, 8))
    assert not compared.by_file
    assert [(row.name, row.file, row.change) for row in compared.changes] == [("main", "/bin/b", 2)]
    assert compared.verdict is DifferenceVerdict.DIFFERENT
