"""Which compiler builds a kernel, and what it says when it does not fit the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb.errors import BuildFailed, InvalidInput, MissingRequirement
from acon_nb.kernel import BuildSpec, make
from acon_nb.kernel.build_errors import build_errors, hint_for
from acon_nb.kernel.source import SourceTree
from acon_nb.kernel.toolchain import GCC, Toolchain
from acon_nb.known_errors import KnownError
from acon_nb.progress import silent

# Lines of public reports and of other places of the tree that are no example of the table
REPORTS = {
    "./include/linux/types.h:35:33: error: ‘bool’ cannot be defined via ‘typedef’": "--cc gcc-14",
    "scripts/sign-file.c:25:10: fatal error: openssl/opensslv.h: No such file or directory": "libssl-dev",
    "btf_encoder__encode: btf__dedup failed!": "DEBUG_INFO_BTF=n",
    "*** C compiler is too old.\n***   Your Clang version:    12.0.1\n***   Minimum Clang version: 13.0.1": "13.0.1",
    "/usr/bin/ld: scripts/dtc/dtc-parser.tab.o:(.bss+0x8): multiple definition of 'yylloc'; first here": "5.6",
}


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cc": "gcc -m32"}, "without blanks"),
        ({"cc": "-o"}, "without blanks"),
        ({"cc": "gcc;reboot"}, "without blanks"),
        ({"cc": "gcc", "llvm": "1"}, "is given together with llvm"),
        ({"llvm": "19"}, "kbuild's LLVM"),
        ({"llvm": "/usr/lib/llvm-19/bin"}, "kbuild's LLVM"),
    ],
)
def test_what_is_not_a_compiler_is_refused(fields: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        BuildSpec(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("toolchain", "compiler", "linker"),
    [
        (GCC, "gcc", "ld"),
        (Toolchain(cc="gcc-13"), "gcc-13", "ld"),
        (Toolchain(llvm="1"), "clang", "ld.lld"),
        (Toolchain(llvm="-19"), "clang-19", "ld.lld-19"),
        (Toolchain(llvm="/opt/llvm/bin/"), "/opt/llvm/bin/clang", "/opt/llvm/bin/ld.lld"),
    ],
)
def test_the_tools_are_those_of_kbuild(toolchain: Toolchain, compiler: str, linker: str) -> None:
    assert (toolchain.compiler, toolchain.linker) == (compiler, linker)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("echo aarch64-linux-gnu", "compiles for aarch64-linux-gnu: guests are x86_64, and nothing is cross-compiled"),
        ("exit 1", "does not answer as gcc and clang do"),
        ("", "compiles for an unknown machine"),
    ],
)
def test_a_compiler_for_another_machine_is_refused_by_name(tmp_path: Path, answer: str, reason: str) -> None:
    compiler = program(tmp_path / "gcc-of-elsewhere", answer)
    with pytest.raises(InvalidInput, match=reason) as caught:
        Toolchain(cc=str(compiler)).require()
    assert caught.value.field == "cc"


def test_a_compiler_of_this_machine_is_taken_and_its_version_is_part_of_the_identity(tmp_path: Path) -> None:
    compiler = program(tmp_path / "cc", 'case $1 in --version) echo "cc 99";; *) echo x86_64-linux-gnu;; esac')
    other = Toolchain(cc=str(compiler))
    other.require()
    assert other.versions()[0] == "cc 99"
    assert other.versions()[1:3] == GCC.versions()[1:3]


@pytest.mark.parametrize(
    ("toolchain", "package"),
    [(Toolchain(cc="gcc-99"), "gcc-99"), (Toolchain(llvm="-99"), "clang-99 lld-99 llvm-99")],
)
def test_a_missing_compiler_is_named_with_its_package(toolchain: Toolchain, package: str) -> None:
    with pytest.raises(MissingRequirement) as caught:
        make.require_tools(toolchain)
    assert caught.value.hint == f"apt-get install {package}"


@pytest.mark.parametrize("row", build_errors(), ids=lambda row: row.example[:60])
def test_an_example_is_explained_by_its_own_row(row: KnownError) -> None:
    assert next(one for one in build_errors() if one.match.search(row.example)) is row
    assert row.source
    assert "{" not in hint_for([row.example])


@pytest.mark.parametrize(("lines", "words"), REPORTS.items())
def test_lines_of_public_reports_have_a_hint(lines: str, words: str) -> None:
    assert words in hint_for(lines.splitlines())


@pytest.mark.parametrize("row", build_errors(), ids=lambda row: row.example[:60])
@pytest.mark.parametrize("target", ["bzImage", "olddefconfig"])
def test_a_failed_build_shows_the_line_and_says_what_to_do(row: KnownError, target: str, tmp_path: Path) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    work.mkdir()
    (work / ".config").write_text("CONFIG_64BIT=y\n")
    (work / "text").write_text(f"  CC      a.o\n{row.example}\n")
    (source / "Makefile").write_text(f"%:\n\t@cat {work}/text >&2\n\t@false\n")
    tree = SourceTree(path=source, identity="x", version=(6, 1), release="6.1.0")
    argv = [*make.argument_list(tree, work, GCC), target]
    run = {
        "bzImage": lambda: make.compile_image(tree, work, work / "log", silent, None, 1),
        "olddefconfig": lambda: make.configure(argv, None),
    }
    with pytest.raises(BuildFailed) as caught:
        run[target]()
    assert any(row.example in line for line in caught.value.details)
    assert caught.value.hint == hint_for([row.example])


def test_any_other_failure_names_the_first_error_and_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("")
    (tmp_path / "Makefile").write_text("%:\n\t@echo 'a.c:1:1: error: odd' >&2; false\n")
    tree = SourceTree(path=tmp_path, identity="x", version=(6, 1), release="6.1.0")
    with pytest.raises(BuildFailed, match="did not build") as caught:
        make.compile_image(tree, tmp_path, tmp_path / "log", silent, None, 1)
    assert f"rm -r {tmp_path}" in caught.value.hint
