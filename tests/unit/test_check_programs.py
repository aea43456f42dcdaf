"""Whether a program can be started: the kernel's rules for scripts and ELF files, and the loaders' for libraries."""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.initrd import Content, Entry, FileTree
from acon_nb.initrd.check.files import Files
from acon_nb.initrd.check.findings import Severity
from acon_nb.initrd.check.programs import Programs, first_line

LOADER = Path("/lib64/ld-linux-x86-64.so.2")
pytestmark = pytest.mark.skipif(not LOADER.exists(), reason="a host with glibc on x86-64")
LIBRARIES = "/lib/x86_64-linux-gnu"


def host_tree(*paths: str) -> FileTree:
    """A tree with files of this host, and the links that lead to them."""
    tree = FileTree()
    todo = list(paths)
    while todo:
        path = todo.pop()
        parts = path.strip("/").split("/")
        names = ["/" + "/".join(parts[: depth + 1]) for depth in range(len(parts))]
        link = next((name for name in names if Path(name).is_symlink()), None)
        if link is not None:
            target = Path(link).readlink()
            tree.add_symlink(link, str(target))
            todo.append(os.path.normpath(f"{Path(link).parent / target}{path[len(link) :]}"))
        else:
            tree.add_file(path, Path(path), mode=stat.S_IMODE(Path(path).stat().st_mode))
    return tree


def whys(tree: FileTree, path: str, *, proc: bool = True) -> list[str]:
    """What is wrong with a program on every kernel."""
    programs = Programs(Files(tree))
    found = programs.troubles(path.encode(), Severity.ERROR, "it does not run", proc=proc)
    return [f"{one.what}: {one.why}" for one in found if not one.options]


def scripted(first: bytes, **files: bytes) -> FileTree:
    tree = FileTree()
    tree.add_file("init", first, mode=0o755)
    tree.add_file("bin/sh", static_program(), mode=0o755)
    for name, data in files.items():
        tree.add_file(f"bin/{name}", data, mode=0o755)
    return tree


def static_program(machine: int = 62, kind: int = 2, bits: int = 2) -> bytes:
    """The smallest ELF program: a header and one segment."""
    if bits == 1:
        head = b"\x7fELF\x01\x01\x01" + bytes(9)
        head += struct.pack("<HHIIIIIHHHHHH", kind, machine, 1, 0x400054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        return head + struct.pack("<IIIIIIII", 1, 0, 0x400000, 0x400000, 84, 84, 5, 4096)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120, 120, 4096)


@pytest.mark.parametrize(
    ("line", "interpreter", "argument"),
    [
        (b"#!/bin/sh\n", b"/bin/sh", b""),
        (b"#! \t /bin/sh \t \n", b"/bin/sh", b""),
        (b"#!/bin/sh -e -x\n", b"/bin/sh", b"-e -x"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r", b""),
        (b"#!/bin/sh", b"/bin/sh", b""),
        (b"#!\n", b"", b""),
        (b"#!   \n", b"", b""),
        (b"#!/bin/sh\0hidden\n", b"/bin/sh", b""),
        (b"#!/" + b"x" * 252 + b"\n", b"/" + b"x" * 252, b""),
        (b"#!/" + b"x" * 253 + b"\n", b"", b""),
        (b"#!/" + b"x" * 400 + b"\n", b"", b""),
        (b"#!/bin/sh " + b"y" * 400 + b"\n", b"/bin/sh", b"y" * 245),
        (b"#!" + b" " * 300 + b"/bin/sh\n", b"", b""),
    ],
)
def test_the_first_line_is_read_as_the_kernel_does(line: bytes, interpreter: bytes, argument: bytes) -> None:
    assert first_line(line[:256]) == (interpreter, argument)


@pytest.mark.parametrize(
    "line",
    [
        b"#!/bin/sh\n",
        b"#!bin/sh\n",
        b"#!/bin/sh -e\n",
        b"#!/bin/env sh\n",
        b"#!/bin/env -S sh -e\n",
        b"#!/bin/env /bin/sh\n",
    ],
)
def test_scripts_that_run(line: bytes) -> None:
    assert whys(scripted(line, env=static_program()), "/init") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"#!/bin/bash\n", "/bin/bash does not exist"),
        (b"#!/bin/sh\r\n", "line ends of Windows"),
        (b"#!/bin/sh -e\r\n", "line ends of Windows"),
        (b"#!/init\n", "one script too many"),
        (b"#!/bin\n", "not a regular file"),
        (b"#!\n", "names no interpreter"),
        (b"echo hello\n", "neither a script nor a program"),
        (b"", "it is empty"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "neither a script nor a program"),
        (b"#!/bin/env bash\n", "env finds no 'bash'"),
        (b"#!/bin/env sh -e\n", "the kernel passes all that follows as one argument"),
        (b"#!/bin/env\n", "names no program for env"),
        (b"#!/bin/env /opt/sh\n", "env finds no '/opt/sh'"),
    ],
)
def test_scripts_that_do_not_run_say_why(line: bytes, words: str) -> None:
    (why,) = whys(scripted(line, env=static_program()), "/init")
    assert words in why


def test_five_scripts_may_be_each_others_interpreter_and_no_more() -> None:
    for count, runs in ((5, True), (6, False)):
        names = ["init", *(f"s{number}" for number in range(1, count))]
        tree = FileTree()
        tree.add_file("off", static_program(), mode=0o755)
        for name, following in zip(names, [*names[1:], "off"], strict=True):
            tree.add_file(name, f"#!/{following}\n".encode(), mode=0o755)
        assert (whys(tree, "/init") == []) is runs


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (static_program(183), "for another machine"),
        (static_program(kind=1), "not a program"),
        (static_program()[:100], "not a valid ELF file"),
        (static_program()[:54] + b"\x20" + static_program()[55:], "program headers"),
        (static_program()[:56] + b"\0" + static_program()[57:], "program headers"),
        (static_program()[:-1] + b"\xff", "bytes of it are missing"),
        (b"\x7fELF", "not a valid ELF file"),
        (static_program(machine=3), "for another machine"),
    ],
)
def test_programs_that_no_kernel_runs(data: bytes, words: str) -> None:
    if words.startswith("bytes"):
        data = static_program().replace(struct.pack("<QQ", 120, 120), struct.pack("<QQ", 9999, 9999))
    tree = FileTree()
    tree.add_file("init", data, mode=0o755)
    (why,) = whys(tree, "/init")
    assert words in why


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (static_program(), ("BINFMT_ELF",)),
        (static_program(machine=3, bits=1), ("IA32_EMULATION", "X86_32")),
        (static_program(machine=62, bits=1), ("X86_X32_ABI",)),
        (b"#!/bin/sh\n", ("BINFMT_SCRIPT",)),
    ],
)
def test_what_the_kernel_must_have_for_a_program(data: bytes, options: tuple[str, ...]) -> None:
    found = Programs(Files(scripted(data))).troubles(b"/init", Severity.ERROR, "")
    assert options in {one.options for one in found}


@pytest.mark.parametrize(
    ("target", "words"),
    [("usr/bin/systemd", "/init is a link to usr/bin/systemd, /usr does not exist"), ("/init", "more than 40 links")],
)
def test_links_that_lead_nowhere(target: str, words: str) -> None:
    tree = FileTree()
    tree.add_symlink("init", target)
    (why,) = whys(tree, "/init")
    assert words in why


def test_a_right_to_execute_is_needed() -> None:
    for mode, runs in ((0o644, False), (0o001, True), (0o100, True)):
        tree = FileTree()
        tree.add_file("init", static_program(), mode=mode)
        assert (whys(tree, "/init") == []) is runs


def closure_by_ldd(program: str) -> set[str] | None:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if done.returncode or "not a dynamic" in done.stdout or "not found" in done.stdout:
        return None
    lines = [line for line in done.stdout.splitlines() if "linux-vdso" not in line and "ld-linux" not in line]
    return {match[1] for line in lines if (match := re.search(r"=> (\S+) \(", line))}


def test_libraries_are_those_that_ldd_finds() -> None:
    """Programs of this host, chosen by chance; the whole host stands in for the guest."""
    names = sorted(name for name in os.listdir("/usr/bin") if os.access(f"/usr/bin/{name}", os.X_OK))
    chosen = random.Random(17).sample(names, min(len(names), 40))
    closures = {}
    for name in chosen:
        with open(f"/usr/bin/{name}", "rb") as file:  # noqa: PTH123
            if file.read(4) != b"\x7fELF":
                continue
        closure = closure_by_ldd(f"/usr/bin/{name}")
        if closure is not None:
            closures[f"/usr/bin/{name}"] = closure
    assert len(closures) > 10
    libraries = {path for closure in closures.values() for path in closure}
    tree = host_tree(str(LOADER), "/etc/ld.so.cache", *closures, *libraries)
    programs = Programs(Files(tree))
    for program, closure in closures.items():
        faults = programs.troubles(program.encode(), Severity.ERROR, "", proc=True)
        assert [one for one in faults if not one.options] == []
        assert {path.decode() for path in programs.libraries(program.encode())} == closure, program


@pytest.mark.parametrize("name", ["libc.so.6", "libselinux.so.1", "libpcre2-8.so.0"])
def test_a_missing_library_is_named_with_what_needs_it(name: str) -> None:
    program = "/usr/bin/ls"
    closure = closure_by_ldd(program) or set()
    gone = next((path for path in closure if path.endswith(name)), None)
    if gone is None:
        pytest.skip(f"ls does not use {name} here")
    tree = host_tree(program, str(LOADER), *closure)
    tree.remove(os.path.realpath(gone))
    (why,) = whys(tree, program)
    assert f"{name}, a library of " in why


def test_a_missing_loader_is_named() -> None:
    tree = host_tree("/usr/bin/ls")
    (why,) = whys(tree, "/usr/bin/ls")
    assert "the loader of /usr/bin/ls, /lib64/ld-linux-x86-64.so.2, is missing" in why


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Libraries with versions of symbols, as gcc makes them."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing")
    folder = tmp_path_factory.mktemp("built")
    (folder / "one.c").write_text("int one(void) { return 1; }\n")
    (folder / "old.map").write_text("OLD { global: one; };\n")
    (folder / "new.map").write_text("OLD { }; NEW { global: one; } OLD;\n")
    (folder / "user.c").write_text("int one(void); int main(void) { return one(); }\n")
    for version in ("old", "new"):
        (folder / version).mkdir()
        argv = ["gcc", "-shared", "-o", f"{version}/libone.so", "one.c", f"-Wl,--version-script={version}.map"]
        subprocess.run(argv, cwd=folder, check=True)
    for flag in ("--enable-new-dtags", "--disable-new-dtags"):
        name = "runpath" if flag == "--enable-new-dtags" else "rpath"
        argv = ["gcc", "-o", name, "user.c", "-Lnew", "-lone", f"-Wl,{flag},-rpath,$ORIGIN/own"]
        subprocess.run(argv, cwd=folder, check=True)
    return folder


def with_own(built: Path, program: str, version: str) -> FileTree:
    tree = host_tree(str(LOADER), f"{LIBRARIES}/libc.so.6")
    tree.add_file("opt/app", built / program, mode=0o755)
    tree.add_file("opt/own/libone.so", built / version / "libone.so")
    return tree


@pytest.mark.parametrize("program", ["rpath", "runpath"])
def test_origin_is_known_once_proc_is_mounted(built: Path, program: str) -> None:
    tree = with_own(built, program, "new")
    assert whys(tree, "/opt/app", proc=True) == []
    (why,) = whys(tree, "/opt/app", proc=False)
    assert "$ORIGIN is known only once /proc is mounted" in why


def test_a_library_of_an_older_version_is_named(built: Path) -> None:
    (why,) = whys(with_own(built, "rpath", "old"), "/opt/app")
    assert "/opt/own/libone.so is too old for /opt/app: it lacks the version NEW" in why


def test_a_library_that_only_ld_so_conf_names_is_not_found(built: Path) -> None:
    tree = with_own(built, "rpath", "new")
    tree.remove("opt/own")
    tree.add_file("usr/local/lib/libone.so", built / "new/libone.so")
    tree.add_file("etc/ld.so.conf", b"/usr/local/lib\n")
    (why,) = whys(tree, "/opt/app")
    assert "/usr/local/lib/libone.so is not where it looks" in why


def test_a_library_of_another_machine_is_passed_over(built: Path) -> None:
    tree = with_own(built, "rpath", "new")
    body = (built / "new/libone.so").read_bytes()
    tree.add_file("opt/own/libone.so", body[:18] + struct.pack("<H", 183) + body[20:])
    (why,) = whys(tree, "/opt/app")
    assert "/opt/own/libone.so is for another machine" in why
    tree.add_file("usr/lib/libone.so", body)
    assert whys(tree, "/opt/app") == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 20_000), st.binary(min_size=1, max_size=8), st.booleans())
def test_damaged_programs_are_judged_whatever_their_bytes(place: int, data: bytes, cut: bool) -> None:
    body = Path("/usr/bin/true").resolve().read_bytes()
    place %= len(body)
    body = body[:place] + data + (b"" if cut else body[place + len(data) :])
    tree = FileTree()
    tree.add("init", Entry(mode=stat.S_IFREG | 0o755, content=Content.of(body)))
    assert isinstance(whys(tree, "/init"), list)
