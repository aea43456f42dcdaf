"""Which options an object needs, by the Makefiles of a small tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb.kernel import kbuild

FILES = {
    "Kbuild": "obj-y += mm/ arch/$(SRCARCH)/\nobj-$(CONFIG_NET) += net/\nobj-y += $(ARCH_LIB)\nobj-y += drivers/\n",
    "Makefile": "libs-y := lib/\nifeq ($(CONFIG_GONE),y)\nCFLAGS += -g\nendif\n",
    "arch/x86/Makefile": "drivers-$(CONFIG_PCI) += arch/x86/pci/\nlibs-y += arch/x86/lib/\n",
    "arch/x86/Kbuild": "obj-y += kernel/\nobj-$(subst m,y,$(CONFIG_HYPERV)) += hyperv/\n",
    "arch/x86/kernel/Makefile": "obj-y := head.o\nobj-$(CONFIG_SMP) += smp.o cpu/\n",
    "arch/x86/kernel/cpu/Makefile": "obj-y += common.o # always\n",
    "arch/x86/pci/Makefile": "obj-y := i386.o\n",
    "arch/x86/hyperv/Makefile": "obj-y := hv.o\n",
    "mm/Makefile": (
        "mmu-y := memory.o \\\n\t vma.o\n"
        "ifdef CONFIG_CROSS\nmmu-$(CONFIG_MMU) += process.o\nendif\n"
        "obj-y := filemap.o $(mmu-y)\n"
        "page-alloc-y := page_alloc.o\npage-alloc-$(CONFIG_SHUFFLE) += shuffle.o\nobj-y += page-alloc.o\n"
        "ifdef CONFIG_MMU\n\tobj-$(CONFIG_ADVISE) += madvise.o\nelse\nobj-$(CONFIG_NOMMU) += nommu.o\nendif\n"
        "obj-$(CONFIG_A) += shared.o\nobj-$(CONFIG_B) += shared.o\n"
        "obj-$(CONFIG_ODD)$(CONFIG_ODDER) += odd.o\n"
        "KASAN_SANITIZE_x.o := $(CONFIG_KASAN_HERE)\n"
    ),
    "net/Makefile": "obj-$(CONFIG_INET) += ipv4/\n",
    "net/ipv4/Makefile": "obj-y += tcp.o\nobj-$(CONFIG_TUNNEL) += tunnel4.o\n",
    "lib/Makefile": "lib-y := string.o\nobj-$(CONFIG_ZSTD) += zstd/\n",
    "lib/zstd/Makefile": "obj-$(CONFIG_ZSTD_COMPRESS) += zstd_compress.o\nzstd_compress-objs := a.o sub/b.o\n",
    "drivers/Makefile": "obj-y += base/\nobj-$(CONFIG_USB) += usb/\n",
    "drivers/usb/Makefile": "obj-$(CONFIG_USB) += core/\nifneq ($(CONFIG_X)$(CONFIG_Y),)\nobj-y += xy.o\nendif\n",
    "drivers/usb/core/Makefile": "obj-y += hub.o\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mm/filemap.o", [""]),
        ("mm/vma.o", [""]),
        ("mm/process.o", ["CROSS MMU"]),
        ("mm/page_alloc.o", [""]),
        ("mm/shuffle.o", ["SHUFFLE"]),
        ("mm/madvise.o", ["ADVISE MMU"]),
        ("mm/shared.o", ["A", "B"]),
        ("mm/unknown.o", [""]),
        ("arch/x86/kernel/head.o", [""]),
        ("arch/x86/kernel/cpu/common.o", ["SMP"]),
        ("arch/x86/pci/i386.o", ["PCI"]),
        ("arch/x86/hyperv/hv.o", ["HYPERV"]),
        ("net/ipv4/tcp.o", ["INET NET"]),
        ("net/ipv4/tunnel4.o", ["INET NET TUNNEL"]),
        ("lib/string.o", [""]),
        ("lib/zstd/a.o", ["ZSTD ZSTD_COMPRESS"]),
        ("lib/zstd/sub/b.o", ["ZSTD ZSTD_COMPRESS"]),
        ("drivers/usb/core/hub.o", ["USB"]),
        ("drivers/usb/xy.o", ["USB"]),
    ],
)
def test_the_options_that_an_object_needs(name: str, options: list[str], tree: Path) -> None:
    needed = kbuild.read(tree, [name]).needed[name]
    assert set(needed) == {frozenset(one.split()) for one in options}


def test_what_is_not_understood_is_reported(tree: Path) -> None:
    names = ["mm/filemap.o", "drivers/usb/xy.o"]
    assert kbuild.read(tree, names).not_understood == {"ODD", "ODDER", "KASAN_HERE", "X", "Y"}


def test_makefiles_that_list_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("a-y := b.o\nb-y := a.o\nobj-y += $(a-y)\na-y += $(b-y)\nb-y += $(a-y)\n")
    assert set(kbuild.read(tmp_path, ["a.o", "b.o"]).needed) == {"a.o", "b.o"}


def test_a_tree_without_makefiles_says_nothing(tmp_path: Path) -> None:
    assert kbuild.read(tmp_path, ["mm/a.o"]).needed == {"mm/a.o": (frozenset(),)}
