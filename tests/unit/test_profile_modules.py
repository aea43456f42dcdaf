"""Counts of modules by address: which module lies where, found by its code; what cannot be told stays one entry."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from acon_nb.initrd import FileTree, create
from acon_nb.profile import Region, diff, modules
from acon_nb.profile.counts import MODULES, Functions, PhaseEnd, profile_of
from acon_nb.profile.modules import GuestModules, ModuleCode
from acon_nb.profile.programs import GuestProgram
from acon_nb.vm import Snapshot, counting
from acon_nb.vm.counting import MODULES_BASE

iced_x86 = pytest.importorskip("iced_x86")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
PATH = "/lib/modules/6.12/tool.ko"
SOURCE = """
extern int helper(int), table[];
int init_module(void) __attribute__((alias("tool_init")));
int __attribute__((noinline)) planted(int n)
{ int s = 0; for (int i = 0; i < n; i++) s += table[i] ^ helper(i); return s; }
int other(int n) { return planted(n) * 7 + table[3] / (n | 1); }
__attribute__((section(".init.text"))) int tool_init(void)
{ int s = helper(1); for (int i = 0; i < 9; i++) s = s * 31 + other(i); return s; }
__attribute__((section(".exit.text"))) void tool_exit(void) { helper(2); }
"""


def compiled(folder: Path, source: str = SOURCE, name: str = "tool") -> Path:
    (folder / f"{name}.c").write_text(source)
    flags = ["-O2", "-c", "-fno-pic", "-mcmodel=kernel", "-fno-asynchronous-unwind-tables"]
    subprocess.run(["gcc", *flags, "-o", folder / f"{name}.ko", folder / f"{name}.c"], check=True)
    return folder / f"{name}.ko"


def loaded(code: ModuleCode, base: int) -> list[tuple[int, bytes]]:
    """All instructions of a module's functions as they are in memory, relocations filled in."""
    content = code.content.copy()
    content[~code.fixed] = 0x5A
    data, at, instructions = content.tobytes(), 0, []
    for one in iced_x86.Decoder(64, data, ip=base):
        if code.program.name_at(at) != code.program.path:
            instructions.append((base + at, data[at : at + one.len]))
        at += one.len
    return instructions


@needs_gcc
def test_modules_are_where_their_instructions_ran(tmp_path: Path) -> None:
    stays, init = list(modules.codes_of(PATH, compiled(tmp_path).read_bytes()))[:2]
    where = MODULES_BASE + 0x41000, MODULES_BASE + 0x45000
    ran = [*loaded(stays, where[0]), *loaded(init, where[1])]
    changed = ran.index(next(one for one in ran if len(one[1]) == 1))
    ran[changed] = (ran[changed][0], b"\xf1")  # as a return that the kernel changed
    names = modules.names_of([init, stays], ran)
    assert set(names.values()) == {(name, PATH) for name in ("planted", "other", "tool_init", "tool_exit")}
    starts = {name: start for start, _, name in stays.program.functions}
    first = next(one for one in ran if one[0] == where[0] + starts["planted"])
    assert names[first] == ("planted", PATH)
    assert ran[changed] in names
    # A module is at the start of a page, and not where only a little fits
    assert modules.names_of([stays, init], [(address + 8, code) for address, code in ran]) == {}
    assert modules.names_of([stays, init], ran[:3]) == {}


@needs_gcc
def test_modules_that_were_loaded_at_one_address_in_turn(tmp_path: Path) -> None:
    other = SOURCE.replace("31 + other(i)", "77 - planted(i) / 5").replace("tool_init", "next_init")
    files = {PATH: compiled(tmp_path), "/lib/next.ko": compiled(tmp_path, other, "next")}
    inits = [list(modules.codes_of(path, file.read_bytes()))[1] for path, file in files.items()]
    first, second = (loaded(code, MODULES_BASE) for code in inits)
    names = modules.names_of(inits, {*first, *second})
    assert {names[one] for one in set(first) - set(second)} == {("tool_init", PATH)}
    assert {names[one] for one in set(second) - set(first)} == {("next_init", "/lib/next.ko")}


@needs_gcc
def test_what_two_modules_may_be_is_not_named(tmp_path: Path) -> None:
    data = compiled(tmp_path).read_bytes()
    codes = [*modules.codes_of(PATH, data), *modules.codes_of("/lib/modules/6.12/same.ko", data)]
    assert modules.names_of(codes, loaded(codes[0], MODULES_BASE)) == {}


@needs_gcc
def test_a_profile_names_an_initrds_modules_and_its_sum_stays(tmp_path: Path) -> None:
    data = compiled(tmp_path).read_bytes()
    tree = FileTree()
    tree.add_file("init", b"#!/bin/sh\n", mode=0o755)
    tree.add_file("lib/modules/6.12/tool.ko.xz", lzma.compress(data, check=lzma.CHECK_CRC32))
    tree.add_file("lib/modules/6.12/damaged.ko", data[:900])
    tree.add_file("lib/modules/6.12/garbage.ko.xz", b"nothing")
    known = Functions({}).with_initrds(create(tree, tmp_path / "i.cpio").path)
    stays = next(modules.codes_of(PATH, data))
    ran = dict.fromkeys(loaded(stays, MODULES_BASE), 10)
    ran[MODULES_BASE + 0x9000, b"\x90"] = 3  # of another program that makes code, as of BPF
    counts = {MODULES_BASE: sum(ran.values()), 0: 5}
    total = sum(counts.values())
    end = Snapshot(moment=1, tsc_ns=total, idle_ns=0, counts=counts, physical={}, modules=ran)
    made = profile_of([PhaseEnd(name="kernel", end=end)], known)
    assert made.unattributed == 0
    rows = {(one.name, one.file): one.self_count for one in made.functions if one.region is Region.MODULE}
    path = f"{PATH}.xz"
    assert set(rows) == {("planted", path), ("other", path), ("tool_exit", path), (MODULES, "")}
    assert rows[MODULES, ""] == 3
    assert diff.difference(made, made).verdict is diff.DifferenceVerdict.EQUAL


def test_relocated_bytes_say_nothing() -> None:
    code = ModuleCode(
        GuestProgram(PATH), np.frombuffer(b"\xe8\0\0\0\0\x53", np.uint8), np.array([True, *[False] * 4, True])
    )
    assert code.fits(0, b"\xe8\x01\x02\x03\x04")
    assert not code.fits(0, b"\xe9\x01\x02\x03\x04")
    assert not code.fits(1, b"\x01\x02")  # an instruction does not begin in what a relocation fills in
    assert not code.fits(5, b"\x53\x54")


def test_the_plugins_lines_of_modules_are_read() -> None:
    lines = ["mark 2 30 0", "0 25", "module ffffffffa0000010 0f1f00 20", ".", "end 0 40 0", "0 30", "."]
    first, last = counting.read_snapshots(lines, (0,))
    assert (first.modules, last.modules) == ({(0xFFFFFFFFA0000010, b"\x0f\x1f\0"): 20}, {})


def test_no_module_is_looked_for_where_none_ran(tmp_path: Path) -> None:
    assert GuestModules((tmp_path / "missing",)).names({}) == {}
