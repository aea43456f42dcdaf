"""Kernels that another compiler than the host's gcc built."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb import boot, kernel
from acon_nb.boot.kernel_cost import CostSpec
from acon_nb.cache import Cache
from acon_nb.errors import BuildFailed
from acon_nb.kernel import dotconfig
from acon_nb.progress import TextProgress
from tests.system.debian_packages import fetch_llvm

pytestmark = [pytest.mark.system, pytest.mark.weekly]


def test_the_guides_kernel_of_llvm_is_built_and_boots(
    store: Cache, guide_kernel: kernel.KernelImage, boot_initrd: Path
) -> None:
    spec = kernel.BuildSpec(profiles=("guide",), llvm=f"{fetch_llvm(19)}/")
    image = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))
    values = dotconfig.read(image.config)
    assert (values["CC_IS_CLANG"], values["LD_IS_LLD"], values["AS_IS_LLVM"]) == ("y", "y", "y")
    assert [row for row in image.results if not row.ok and not row.optional] == []
    assert image.sha256 != guide_kernel.sha256
    row = boot.run(boot.BootCell(name="llvm", kernel=image.image, initrd=boot_initrd, timeout_s=300))
    assert row.kernel_release == image.version
    assert kernel.is_built(spec, cache=store)
    assert kernel.build(kernel.BuildSpec(profiles=("guide",)), cache=store).sha256 == guide_kernel.sha256


def test_a_compiler_of_another_name_is_another_kernel(store: Cache) -> None:
    compiler = next((name for name in ("gcc-11", "gcc-12", "gcc-13", "gcc-14") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("no compiler beside gcc is installed")
    (spec,) = CostSpec(groups=("minimal",)).steps()
    image = kernel.build(replace(spec, cc=compiler), cache=store, on_progress=TextProgress(every_s=30))
    assert dotconfig.read(image.config)["CC_VERSION_TEXT"].startswith(compiler)


def test_a_compiler_that_is_too_old_for_a_tree_is_named(store: Cache, tmp_path: Path) -> None:
    """As Kconfig says it: no compiler of Debian 12 is too old for the kernels in reach."""
    old = tmp_path / "gcc-4"
    old.write_text(
        "#!/bin/sh\ncase $* in\n*dumpmachine*) echo x86_64-linux-gnu ;;\n*--version*) echo gcc-4 4.9.0 ;;\n"
        '*-E*) echo GCC 4 9 0 ;;\n*) exec gcc "$@" ;;\nesac\n'
    )
    old.chmod(0o755)
    with pytest.raises(BuildFailed) as caught:
        kernel.configure(kernel.BuildSpec(profiles=("minimal",), cc=str(old)), cache=store)
    assert "the tree takes GCC from version" in str(caught.value)
