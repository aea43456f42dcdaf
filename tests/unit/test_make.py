from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb import process
from acon_nb.errors import MissingRequirement
from acon_nb.kernel import make
from acon_nb.kernel.source import SourceTree
from acon_nb.kernel.toolchain import GCC, Toolchain


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    return SourceTree(path=tmp_path / "source", identity="x", version=(6, 12), release="6.12.0")


def programs(folder: Path, *names: str) -> str:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_ccache_is_used_if_installed(tree: SourceTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "with", "ccache"))
    assert "CC=ccache gcc" in make.argument_list(tree, tmp_path, GCC)
    clang = make.argument_list(tree, tmp_path, Toolchain(llvm="-19"))
    assert {"LLVM=-19", "CC=ccache clang-19", "HOSTCC=ccache clang-19"} <= set(clang)
    assert "CC=gcc-13" in make.argument_list(tree, tmp_path, Toolchain(cc="gcc-13"), afresh=True)
    monkeypatch.setenv("PATH", programs(tmp_path / "without"))
    assert not any(word.startswith("CC=") for word in make.argument_list(tree, tmp_path, GCC))
    words = make.argument_list(tree, tmp_path, Toolchain(cc="/opt/x/bin/clang"))
    assert "CC=/opt/x/bin/clang" in words
    assert not any(word.startswith("HOSTCC=") for word in words)


def test_the_callers_flags_do_not_leak_into_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAKEFLAGS", "CFLAGS", "KCFLAGS", "LOCALVERSION"):
        monkeypatch.setenv(name, "-O0")
    monkeypatch.setenv("CCACHE_DIR", "/somewhere")
    found = make.environment()
    assert not {"MAKEFLAGS", "CFLAGS", "KCFLAGS", "LOCALVERSION"} & set(found)
    assert found["CCACHE_DIR"] == "/somewhere"
    assert found["KBUILD_BUILD_TIMESTAMP"] == make.PINS["KBUILD_BUILD_TIMESTAMP"]


def test_a_missing_compressor_is_reported_before_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "tools", "zstd"))
    make.require_for({"KERNEL_ZSTD": "y", "KERNEL_XZ": "n"})
    with pytest.raises(MissingRequirement, match="xz") as caught:
        make.require_for({"KERNEL_XZ": "y"})
    assert "xz-utils" in caught.value.hint


def test_modules_are_built_where_an_option_is_m(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("CONFIG_MODULES=y\nCONFIG_ZRAM=y\n")
    assert not make.has_modules(tmp_path)
    (tmp_path / ".config").write_text("CONFIG_MODULES=y\nCONFIG_ZRAM=m\n")
    assert make.has_modules(tmp_path)


def test_depmod_is_found_where_a_user_does_not_look_and_else_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_SYSTEM", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingRequirement, match="depmod") as caught:
        make.require_depmod()
    assert "apt-get install kmod" in caught.value.hint


def test_the_compressor_of_the_image_counts_but_for_zstd_which_the_compilers_have() -> None:
    assert make.compressor({"KERNEL_ZSTD": "y", "KERNEL_XZ": "n"}) == ""
    assert "XZ Utils" in make.compressor({})
    assert "LZ4" in make.compressor({"KERNEL_LZ4": "y"})
