"""What never ran of a made kernel, and the options that are proposed for it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.kernel import objects
from acon_nb.kernel.kconfig import read_symbols
from acon_nb.kernel.objects import ObjectMap, Piece
from acon_nb.kernel.source import SourceTree
from acon_nb.profile import FunctionCount, Profile, coverage, unused

KCONFIG = """
config CORE
	bool "Core"
config BUS
	bool "A bus"
config DEVICE
	bool "A device on the bus"
	depends on BUS
config LIBRARY
	bool "A library"
config USER
	bool "What selects the library"
	select LIBRARY
	select PLAIN
config PLAIN
	bool
config HIDDEN
	bool
	default y
config RUNS
	bool "What runs"
config EXTRA
	bool "An addition to what runs"
	depends on RUNS
config HELD
	bool "What another option holds on"
	depends on BASE
config BASE
	bool "What it depends on"
config HOLDER
	bool "What holds it on"
	select HELD
config OFF
	bool "Off"
"""
MAKEFILE = """
obj-y += main.o
obj-$(CONFIG_BUS) += bus.o
obj-$(CONFIG_DEVICE) += device.o
obj-$(CONFIG_LIBRARY) += library.o
obj-$(CONFIG_USER) += user.o
obj-$(CONFIG_HIDDEN) += hidden.o
obj-$(CONFIG_RUNS) += runs.o
obj-$(CONFIG_EXTRA) += extra.o
obj-$(CONFIG_BASE) += base.o
obj-$(CONFIG_HELD) += held.o
obj-$(CONFIG_PLAIN) += plain.o
"""
NAMES = ("main", "bus", "device", "library", "user", "hidden", "runs", "extra", "base", "held", "plain")
INIT = {"user": ("user_setup",), "extra": ("extra_a", "extra_b", "extra_c")}
BASE = 0xFFFF_FFFF_8100_0000
INIT_START = BASE + (1 << 16)
CONFIG = "# Linux/x86 6.12.1 Kernel Configuration\n" + "".join(
    f"CONFIG_{name}=y\n"
    for name in (
        "CORE",
        "BUS",
        "DEVICE",
        "LIBRARY",
        "USER",
        "HIDDEN",
        "RUNS",
        "EXTRA",
        "HELD",
        "BASE",
        "HOLDER",
        "PLAIN",
    )
)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A kernel of eleven objects, each with a function of 256 bytes and one of 16; two have `__init` functions too."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    (folder / "bzImage").write_bytes(b"a kernel")
    starts = {name: BASE + 1024 * number for number, name in enumerate(NAMES)}
    lines = [f"{start:016x} T {name}_init\n{start + 256:016x} t show\n" for name, start in starts.items()]
    lines += [f"{BASE - 16:016x} t __pfx_main_init\n", *(f"{BASE + (1 << 20):016x} D data{n}\n" for n in range(40))]
    pieces = [Piece(start=start, end=start + 272, object=f"{name}.o", source=f"{name}.c") for name, start in
              starts.items()]  # fmt: skip
    start = INIT_START
    lines.append(f"{start - 64:016x} T _etext\n")
    for name, functions in INIT.items():
        pieces.append(Piece(start=start, end=start + 48, object=f"{name}.o", source=f"{name}.c"))
        lines += [f"{start + 16 * number:016x} t {one}\n" for number, one in enumerate(functions)]
        start += 48
    (folder / "System.map").write_text("".join([*lines, f"{start:016x} T _einittext\n"]))  # Debian's stubs are shorter
    objects.save(ObjectMap(pieces=tuple(pieces)), folder)
    (folder / "config").write_text(CONFIG)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Kconfig").write_text(KCONFIG)
    (tree / "Kbuild").write_text(MAKEFILE)
    (tree / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n")
    return folder / "bzImage"


def ran(kernel: Path, *names: str) -> Profile:
    rows = tuple(FunctionCount(name=name, phase="kernel", self_count=5) for name in names)
    return Profile(
        total=5 * len(rows), phases=("kernel",), functions=rows, origin={"kernel_sha256": sha256_file(kernel)}
    )


def test_what_ran_in_any_profile_ran(kernel: Path, cache: Cache) -> None:
    covered = coverage.coverage(kernel, [ran(kernel, "main_init"), ran(kernel, "show#2", "bus_init")], cache=cache)
    counts = {one.part: (one.ran, one.functions, one.code_bytes) for one in covered.objects}
    assert counts["main.o"] == (1, 2, 272)
    assert counts["bus.o"] == (2, 2, 272)
    assert counts["user.o"] == (0, 3, 320)
    assert [(one.part, one.ran, one.functions) for one in covered.folders] == [(".", 3, 26)]
    assert covered.sentence().startswith("3 of 26 functions ran; 9 of 11 objects never did (2 of 3 KiB")


def options_of(kernel: Path, cache: Cache, *names: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    tree = SourceTree(path=kernel.parents[1] / "tree", identity="made", version=(6, 12), release="6.12.1")
    covered = coverage.coverage(kernel, [ran(kernel, *names)], cache=cache)
    config = {name: "y" for name in CONFIG.replace("CONFIG_", "").replace("=y", "").split("\n")[1:] if name}
    rows = unused.proposals(covered, config, tree, read_symbols(tree.path))
    return {row.option: (row.objects, row.goes_too) for row in rows}


def test_options_are_proposed_whose_objects_never_ran(kernel: Path, cache: Cache) -> None:
    """Not proposed: LIBRARY, which USER selects; HIDDEN, which has no prompt; BASE, on which HELD depends, which HOLDER
    holds on; EXTRA could be turned off alone, but RUNS not.
    """
    assert options_of(kernel, cache, "main_init", "runs_init") == {
        "BUS": (("bus.o", "device.o"), ("DEVICE",)),
        "USER": (("plain.o", "user.o"), ("PLAIN",)),
        "EXTRA": (("extra.o",), ()),
    }


def test_code_that_every_boot_runs_does_not_count_unless_it_is_most_of_it(kernel: Path, cache: Cache) -> None:
    names = ("main_init", "runs_init", "user_setup", "extra_a")
    assert set(options_of(kernel, cache, *names)) == {"BUS", "USER"}
    source = str(kernel.parents[1] / "tree")
    made = unused.report(kernel, [ran(kernel, *names)], source=source, cache=cache)
    assert {row.option: row.init_count for row in made.options} == {"BUS": 0, "USER": 5}


def test_an_option_whose_dependents_ran_is_not_proposed(kernel: Path, cache: Cache) -> None:
    assert "BUS" not in options_of(kernel, cache, "main_init", "device_init")
    assert "DEVICE" in options_of(kernel, cache, "main_init", "bus_init")


def test_the_report_of_a_kernel_and_its_source(kernel: Path, cache: Cache) -> None:
    source = str(kernel.parents[1] / "tree")
    made = unused.report(kernel, [ran(kernel, "main_init", "runs_init")], source=source, cache=cache)
    assert {row.option for row in made.options} == {"BUS", "USER", "EXTRA"}
    text = unused.text(made, 2)
    assert "USER" in text
    assert "... 1 more" in text
    assert re.search(r"^ +\. +2,\d{3} +3,\d{3} +2 +26$", text, re.MULTILINE)
    assert "other hardware" in text
    values = unused.json_values(made)
    assert values["functions"] == {"ran": 2, "all": 26}
    assert {"name": "bus_init", "file": "bus.c"} in values["never_ran"]
    assert len(values["never_ran"]) == 24
    assert values["options"][0]["option"] == "USER"


def test_a_source_of_another_release_is_refused(kernel: Path, cache: Cache) -> None:
    tree = kernel.parents[1] / "tree"
    (tree / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 9\n")
    with pytest.raises(InvalidInput, match=r"is 6\.1\.9, but the kernel is 6\.12\.1"):
        unused.report(kernel, [ran(kernel, "main_init")], source=str(tree), cache=cache)


def test_profiles_of_another_kernel_are_refused(kernel: Path, cache: Cache) -> None:
    profile = ran(kernel, "main_init")
    kernel.write_bytes(b"another kernel")
    with pytest.raises(InvalidInput, match="of another kernel"):
        coverage.coverage(kernel, [profile], cache=cache)
    with pytest.raises(InvalidInput, match="profiles="):
        coverage.coverage(kernel, [], cache=cache)


def test_a_kernel_without_known_objects_is_refused(kernel: Path, cache: Cache) -> None:
    kernel.with_name(objects.FILE).unlink()
    with pytest.raises(InvalidInput, match="no known functions or object files"):
        coverage.coverage(kernel, [ran(kernel, "main_init")], cache=cache)


def test_profiles_are_read_from_files_and_folders(kernel: Path, tmp_path: Path) -> None:
    """A study's folder has profiles of other kernels too, and other files."""
    folder = tmp_path / "results"
    for number in (1, 2):
        ran(kernel, "main_init").save(folder / "profiles" / f"{number}.json")
    other = replace(ran(kernel, "main_init"), origin={"kernel_sha256": "0"})
    other.save(folder / "profiles" / "3.json")
    (folder / "plan.json").write_text("{}")
    assert len(unused.loaded([folder, folder / "profiles/1.json"], kernel)) == 3
    (tmp_path / "empty").mkdir()
    other.save(tmp_path / "others" / "1.json")
    for name in ("empty", "others"):
        with pytest.raises(InvalidInput, match=r"contains . profiles, none of .*bzImage"):
            unused.loaded([tmp_path / name], kernel)
