"""Profiles of kernels that differ by a patch, and the objects of a kernel that was built."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from acon_nb import kernel
from acon_nb.boot import BootCell, profiling
from acon_nb.cache import Cache
from acon_nb.guest.symbols import read_map
from acon_nb.kernel import dotconfig, kbuild, objects
from acon_nb.profile import Profile, diff, diff_text
from acon_nb.profile.diff import DifferenceVerdict
from acon_nb.progress import TextProgress
from acon_nb.vm import Clock

pytestmark = pytest.mark.system
# A comment that moves every line of a file, and so what __LINE__ is in it
COMMENT = Path(__file__).with_name("comment.patch")
# One instruction, and two for each of 100,000 rounds, in a function that runs once
LOOP = Path(__file__).with_name("loop.patch")
ROUNDS = 100_000


@pytest.fixture(scope="module")
def known(guide_kernel: kernel.KernelImage, store: Cache) -> objects.ObjectMap:
    made = objects.of_image(guide_kernel.image, store)
    if made is None:
        pytest.skip("this host's guide kernel was built before its map was kept")
    return made


def test_the_functions_of_a_built_kernel_have_source_files(
    guide_kernel: kernel.KernelImage, known: objects.ObjectMap
) -> None:
    names = read_map(guide_kernel.image.with_name("System.map"))
    without = [name for address, name in names.items() if not known.source_at(address)]
    assert [name for name in without if not name.endswith(("_end", "_etext", "_einittext"))] == []
    files = {name: known.source_at(address) for address, name in names.items()}
    assert files["start_kernel"] == "init/main.c"
    assert files["get_page_from_freelist"] == "mm/page_alloc.c"
    assert files["asm_exc_page_fault"] == "arch/x86/entry/entry_64.S"
    assert files["memset_orig"] == "arch/x86/lib/memset_64.S"


def test_options_of_every_linked_object_are_on(guide_kernel: kernel.KernelImage, known: objects.ObjectMap) -> None:
    """The kernel that was built is the oracle of what its Makefiles say."""
    config = dotconfig.parse(guide_kernel.config.read_text())
    needed = kbuild.read(kernel.fetch("debian:6.12").path, {piece.object for piece in known.pieces}).needed
    missing = {
        name: alternatives
        for name, alternatives in needed.items()
        if not any(all(config.get(option, "n") != "n" for option in options) for options in alternatives)
    }
    assert missing == {}
    assert sum(any(options) for options in needed.values()) > len(needed) // 2


@pytest.fixture(scope="module")
def patched(store: Cache) -> dict[str, kernel.KernelImage]:
    return {
        name: kernel.build(
            kernel.BuildSpec(profiles=("guide",), patches=patches), cache=store, on_progress=TextProgress(every_s=30)
        )
        for name, patches in {"comment": (COMMENT,), "loop": (COMMENT, LOOP)}.items()
    }


def profile_of(image: Path, boot_initrd: Path) -> Profile:
    cell = BootCell(name="diff", kernel=image, initrd=boot_initrd, clock=Clock.INSTRUCTIONS)
    return profiling.profile(cell, until="init")


@pytest.mark.weekly
def test_each_static_function_is_of_the_file_that_the_linker_names(
    patched: dict[str, kernel.KernelImage], store: Cache
) -> None:
    """vmlinux names the source file before each object's static functions; objtool's additions come without one."""
    image = patched["loop"].image
    folders = (store.root / "kernel-build").glob("*/arch/x86/boot/bzImage")
    build = next((path.parents[3] for path in folders if path.read_bytes() == image.read_bytes()), None)
    if build is None:
        pytest.skip("another build has used the folder since")
    known = objects.load(image.with_name(objects.FILE))
    output = subprocess.run(["readelf", "-sW", build / "vmlinux"], capture_output=True, text=True, check=True).stdout
    file, right, wrong = "", 0, []
    for fields in map(str.split, output.splitlines()):
        if len(fields) == 8 and fields[3] == "FILE":
            file = fields[7]
        elif len(fields) == 8 and fields[3:5] == ["FUNC", "LOCAL"] and not fields[7].startswith("__pfx_"):
            source = known.source_at(int(fields[1], 16))
            if source.endswith(".S"):
                continue  # an assembler names no file
            right += Path(source).name == file
            wrong += [(fields[7], file, source)] if Path(source).name != file else []
    assert wrong == []
    assert right > 5_000


@pytest.mark.weekly
def test_a_comment_changes_nothing_but_layout(
    guide_kernel: kernel.KernelImage, patched: dict[str, kernel.KernelImage], boot_initrd: Path
) -> None:
    before, after = (profile_of(image.image, boot_initrd) for image in (guide_kernel, patched["comment"]))
    compared = diff.difference(before, after)
    assert compared.changes == ()
    assert compared.verdict is not DifferenceVerdict.DIFFERENT
    assert diff_text.sentence(compared).startswith("equal")


@pytest.mark.weekly
def test_a_planted_loop_is_found_at_exactly_its_cost(patched: dict[str, kernel.KernelImage], boot_initrd: Path) -> None:
    before, after = (profile_of(patched[name].image, boot_initrd) for name in ("comment", "loop"))
    compared = diff.difference(before, after)
    planted, *others = compared.changes
    assert (planted.name, planted.phase, planted.file) == ("setup_initial_init_mm", "kernel", "mm/init-mm.c")
    assert planted.change == 1 + 2 * ROUNDS
    assert sum(abs(row.change) for row in others) < ROUNDS // 100  # code that lies elsewhere
    assert compared.change == sum(row.change for row in compared.changes) + compared.layout_change
