"""The report of a boot: how it comes before any initrd, what it leaves behind (nothing), what the host reads of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.boot import BootCell, report
from acon_nb.boot.factors import BootFactors
from acon_nb.errors import InvalidInput
from acon_nb.guest.programs import report_program
from acon_nb.initrd import FileTree, create, load
from acon_nb.vm import Clock, Message

QUIET = "console=ttyS0 panic=-1 quiet"
# A program that tells how it was started; the folder of the report is looked for from inside.
TELL = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **argv, char **environment)
{
	struct stat status;
	printf("pid %d\n", getpid());
	while (count--)
		printf("argument %s\n", *argv++);
	while (*environment)
		printf("environment %s\n", *environment++);
	for (int fd = 3; fd < 9; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf("descriptor %d\n", fd);
	if (!stat("/acon", &status))
		puts("the folder is there");
	stat("/", &status);
	printf("changed %ld\n", (long)status.st_mtime);
}
"""
# Start what a folder has as its /acon/init, as the kernel would.
START = r"""
#include <unistd.h>
int main(int count, char **argv)
{
	char *arguments[] = { "/acon/init", "single", NULL }, *environment[] = { "HOME=/", "TERM=linux", NULL };
	return count != 2 || chroot(argv[1]) || chdir("/") || execve("/acon/init", arguments, environment);
}
"""


def tree_with(*names: str) -> FileTree:
    tree = FileTree()
    for name in ("init", *names):
        tree.add_file(name, b"#!/bin/sh\n", mode=0o755)
    return tree


@pytest.mark.parametrize(
    ("append", "line", "program"),
    [
        (QUIET, f"rdinit=/acon/init {QUIET}", "/init"),
        ("", "rdinit=/acon/init", "/init"),
        ("a rdinit=/sbin/myinit b", "a rdinit=/acon/init b", "/sbin/myinit"),
        ("rdinit=/one single rdinit=/two", "rdinit=/acon/init single rdinit=/acon/init", "/two"),
        ("quiet -- rdinit=/argument", "rdinit=/acon/init quiet -- rdinit=/argument", "/init"),
        ('foo="a rdinit=/q b"', 'rdinit=/acon/init foo="a rdinit=/q b"', "/init"),
        ("quiet --", "rdinit=/acon/init quiet --", "/init"),
        ("a\trdinit=/x\t-- b", "a\trdinit=/acon/init\t-- b", "/x"),
        ("xrdinit=/no INIT=/a", "rdinit=/acon/init xrdinit=/no INIT=/a", "/init"),
    ],
)
def test_the_kernel_is_told_to_start_the_report_where_it_would_start_the_users_program(
    append: str, line: str, program: str
) -> None:
    assert report.command_line(append) == (line, program)


@pytest.mark.parametrize("append", ['rdinit="/a b"', "quiet rdinit=", '"rdinit=/a b"'])
def test_a_rdinit_that_cannot_be_followed_is_refused(append: str) -> None:
    with pytest.raises(InvalidInput, match="plain path"):
        report.command_line(append)
    with pytest.raises(InvalidInput, match="plain path"):
        BootFactors(append=append)


@given(st.text(alphabet='abc =/"-'))
def test_only_words_about_init_are_changed(append: str) -> None:
    try:
        line, _ = report.command_line(append)
    except InvalidInput:
        return
    others = [word for word in line.split() if word != "rdinit=/acon/init"]
    assert others == [word for word in append.split() if not word.startswith("rdinit=")]


@pytest.mark.parametrize("suffix", ["cpio", "cpio.gz", "cpio.xz", "cpio.zst", "cpio.lz4"])
def test_the_archive_goes_before_an_initrd_of_any_format(tmp_path: Path, suffix: str) -> None:
    given_initrd = create(tree_with("a", "b"), tmp_path / f"i.{suffix}").path
    cell = BootCell(name="x", kernel=tmp_path / "k", initrd=given_initrd)
    assert not cell.reports_itself
    booted = cell.booted_initrd()
    front = report.archive()
    assert booted.read_bytes() == front.read_bytes() + given_initrd.read_bytes()
    assert front.stat().st_size % 512 == 0, "what follows begins at a multiple of 4"
    assert front.stat().st_size < 16384
    assert {b"init", b"a", b"b", b"acon", b"acon/init"} == {name for name, _ in load(booted).items()}
    assert load(booted)["acon/init"].mode & 0o777 == 0o755


def test_another_program_is_named_by_a_link() -> None:
    assert load(report.archive("/sbin/myinit"))["acon/next"].content.read() == b"/sbin/myinit"
    assert "acon/next" not in load(report.archive())


def test_an_initrd_with_the_report_is_booted_as_it_is(tmp_path: Path) -> None:
    ours = create(tree_with("acon/boot-report"), tmp_path / "ours.cpio.zst").path
    cell = BootCell(name="x", kernel=tmp_path / "k", initrd=ours)
    assert cell.reports_itself
    assert cell.booted_initrd() == ours
    assert str(cell.until) == "message"
    assert not BootCell(name="x", kernel=tmp_path / "k", initrd=ours, ready="init").reports_itself


def test_what_only_a_kernel_reads_gets_the_archive_too(tmp_path: Path) -> None:
    strange = tmp_path / "initrd.lzma"
    strange.write_bytes(b"\x5d\0\0\x80\0" + bytes(100))
    assert not report.has_report(strange)
    assert report.joined(report.archive(), strange).read_bytes().endswith(strange.read_bytes())
    with pytest.raises(InvalidInput, match="is not a file"):
        report.joined(report.archive(), tmp_path / "none")


def run_wrapper(folder: Path, program: str | None) -> subprocess.CompletedProcess[str]:
    """Run the wrapper as process 1 of a root folder of its own, without a kernel of ours: no log, no port."""
    for name, text in (("tell", TELL), ("start", START)):
        (folder / f"{name}.c").write_text(text)
        subprocess.run(["gcc", "-static", "-o", folder / name, folder / f"{name}.c"], check=True)
    root = folder / "root"
    (root / "acon").mkdir(parents=True)
    (root / "acon/init").write_bytes(report_program().read_bytes())
    (root / "acon/init").chmod(0o755)
    (root / "init").write_bytes((folder / "tell").read_bytes())
    (root / "init").chmod(0o755)
    if program is not None:
        (root / "acon/next").symlink_to(program)
    subprocess.run(["touch", "-d", "2000-01-01T00:00:00Z", root], check=True)
    unshared = ["unshare", "-Urmpf", "true"]
    if subprocess.run(unshared, check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    argv = ["unshare", "-Urmpf", folder / "start", root]
    return subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("program", [None, "/init"])
def test_it_becomes_the_users_program_and_leaves_nothing_behind(tmp_path: Path, program: str | None) -> None:
    done = run_wrapper(tmp_path, program)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "pid 1", "argument /init", "argument single", "environment HOME=/", "environment TERM=linux",
        "changed 946684800",
    ]  # fmt: skip
    assert done.stderr == "acon: /init is reached; there is no virtio port for the report\n"


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run_wrapper(tmp_path, "/sbin/none")
    assert done.returncode == 1
    assert "Requested init failed: /sbin/none or its interpreter does not exist" in done.stderr


def messages(**changed: Any) -> list[Message]:
    boot = {
        "event": "boot", "at": "init", "tsc": 500_000_000, "monotonic_ns": 90_000_000, "sent_ns": 95_000_000,
        "page_bytes": 4096, "release": "6.12", "cmdline": "quiet", "meminfo": "MemTotal:   500 kB\nMemFree: 400 kB\n",
        "vmstat": "nr_free_pages 100\n", "zoneinfo": "", "iomem": "",
        "vmallocinfo": "0x1-0x2   20480 fork pages=4 vmalloc\n0x2-0x3    8192 ioremap phys=0x1 ioremap\n",
    } | changed  # fmt: skip
    records = [[1, "Memory: 1K/2K available"], [79_000, "Run /acon/init as init process"], [80_000, "acon-nb: init"]]
    log = {"event": "log", "first": 0, "records": records}
    over = {"event": "handover", "monotonic_ns": 96_000_000, "tsc": 506_500_000}
    return [Message(10**9 * number, data) for number, data in enumerate((boot, log, over), 1)]


def test_what_the_host_reads_of_a_report() -> None:
    found = report.read(messages(), Clock.INSTRUCTIONS)
    assert found is not None
    assert (found.at_end, found.mark_us, found.init_us) == (False, 80_000, 79_000)
    assert found.taken_ns == 6_500_000 + 1_000_000, "from the start of the report to that of the program"
    assert found.sending_ns == 5_000_000
    assert found.memory["meminfo_kib"] == {"MemTotal": 500, "MemFree": 400}
    assert found.memory["vmalloc"] == {"stack_areas": 1, "pages": 4}
    assert found.memory_line == "Memory: 1K/2K available"
    wall = report.read(messages(), Clock.WALL)
    assert wall is not None
    assert wall.taken_ns == 6_000_000 + 1_000_000


@pytest.mark.parametrize("broken", [{"event": "other"}, {"tsc": "x"}, {"sent_ns": -1}, {"monotonic_ns": None}])
def test_a_report_that_is_none_of_ours_is_none(broken: dict[str, Any]) -> None:
    assert report.read(messages(**broken), Clock.WALL) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.sampled_from(sorted(messages()[0].data)), json_values))
def test_no_guest_can_break_the_reading(changed: dict[str, Any]) -> None:
    json.dumps(changed)
    report.read(messages(**changed), Clock.INSTRUCTIONS)
