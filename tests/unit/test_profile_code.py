"""Digests of functions: the same wherever the linker puts them, another one for each change of what they do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from acon_nb.profile import code

SOURCE = """
extern volatile int counter; volatile int counter = 5; static const char *text = "%s";
__attribute__((noipa)) void other(int step) { counter += step; }
__attribute__((noipa)) void leaf(int step) { counter -= step; }
__attribute__((noipa)) int caller(int many)
{
	int sum = 0;
	for (int i = 0; i < many; i++) { leaf(i); sum += counter; }
	long own;  // a variable of each CPU, at a small address that is reached relative to the instruction
	__asm__ volatile("movq %%%%gs:cpu_own(%%%%rip), %%0" : "=r"(own));
	return sum + text[many] + own;
}
void _start(void) { caller(%d); }
"""
FLAGS = ("-O2", "-fno-pie", "-mcmodel=kernel", "-fno-asynchronous-unwind-tables", "-falign-functions=16", "-nostdlib")


def linked(folder: Path, source: str, *, text: int, data: int) -> dict[str, str]:
    """The digest of each function of a program that lies where the kernel does."""
    folder.mkdir()
    (folder / "a.c").write_text(source)
    subprocess.run(["gcc", *FLAGS, "-c", "-o", "a.o", "a.c"], cwd=folder, check=True)
    places = [f"-Ttext={text:#x}", f"-Tdata={data:#x}", f"-Tbss={data + 0x4000:#x}"]
    subprocess.run(["ld", "--defsym=cpu_own=0x1f0", *places, "-o", "a", "a.o"], cwd=folder, check=True)
    listed = subprocess.run(["nm", "a"], cwd=folder, check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    names = {int(address, 16): name for address, kind, name in rows if kind in "tT"}
    known = code.of_elf((folder / "a").read_bytes(), names)
    assert known is not None
    return {names[address]: digest for address, digest in known.digests(names).items()}


BASE = SOURCE % ("abc", 7)
TEXT, DATA = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000


@pytest.fixture
def base(tmp_path: Path) -> dict[str, str]:
    return linked(tmp_path / "base", BASE, text=TEXT, data=DATA)


def test_code_that_lies_elsewhere_is_the_same(base: dict[str, str], tmp_path: Path) -> None:
    assert set(base) == {"other", "leaf", "caller", "_start"}
    assert len(set(base.values())) == 4
    assert linked(tmp_path / "moved", BASE, text=TEXT + 0x12340, data=DATA + 0x5678) == base
    longer = SOURCE % ("a longer text that moves what is behind it", 7)
    assert linked(tmp_path / "text", longer, text=TEXT, data=DATA) == base


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("counter -= step; }", "counter -= step; for (int i = 0; i < 9; i++) counter; }", {"leaf"}),
        ("sum += counter", "sum -= counter", {"caller"}),
        ("leaf(i)", "other(i)", {"caller"}),
        ("caller(7)", "caller(8)", {"_start"}),
        ("counter += step", "counter += 2 * step", {"other"}),
    ],
)
def test_code_that_does_something_else_is_not(
    base: dict[str, str], tmp_path: Path, old: str, new: str, changed: set[str]
) -> None:
    assert old in BASE
    after = linked(tmp_path / "changed", BASE.replace(old, new), text=TEXT, data=DATA)
    assert {name for name in base if base[name] != after[name]} == changed


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(200), bytes(64)])
def test_what_is_no_elf_file_has_no_code(data: bytes) -> None:
    assert code.of_elf(data, {TEXT: "a"}) is None
