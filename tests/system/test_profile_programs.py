"""Programs in profiles of real guests: by symbol where their files have symbols, else by file; all sums stay exact."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from acon_nb import kernel
from acon_nb.boot import BootCell, profiling
from acon_nb.initrd import FileTree, create
from acon_nb.profile import Profile, Region, frames
from acon_nb.vm import Capabilities, Clock
from tests.system.debian_packages import SUITES, host_of
from tests.system.test_counting import initrd_of

pytestmark = pytest.mark.system
ROUNDS = 300_000


def profile_of(kernel_path: Path, initrd: Path, *, calls: bool = False, host: Capabilities | None = None) -> Profile:
    cell = BootCell(name="programs", kernel=kernel_path, initrd=initrd, clock=Clock.INSTRUCTIONS)
    made = profiling.profile(cell, until="end", calls=calls, host=host)
    assert sum(one.self_count for one in made.functions) + made.unattributed == made.total
    assert made.unattributed == 0
    return made


def of_programs(profile: Profile) -> dict[tuple[str, str], int]:
    """Instructions of user space by name and file."""
    sums: dict[tuple[str, str], int] = {}
    for one in profile.functions:
        if one.region is Region.USER:
            sums[one.name, one.file] = sums.get((one.name, one.file), 0) + one.self_count
    return sums


@pytest.fixture(scope="module")
def named(guide_kernel: kernel.KernelImage, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Profile]:
    folder = tmp_path_factory.mktemp("programs")
    initrd = initrd_of("programs", folder)
    return folder, profile_of(guide_kernel.image, initrd, calls=True)


def test_a_function_of_a_program_has_its_loop(named: tuple[Path, Profile]) -> None:
    counts = of_programs(named[1])
    assert 2 * ROUNDS <= counts["planted", "/init"] <= 2 * ROUNDS + 4
    assert {"main", "__libc_start_main"} & {name for name, file in counts if file == "/init"}
    assert counts.get(("(user space)", ""), 0) < 100


def test_a_programs_functions_are_below_user_space_in_call_stacks(named: tuple[Path, Profile]) -> None:
    made = named[1]
    (planted,) = (count for stack, count in made.stacks.items() if stack[-2:] == ("(user space)", "planted"))
    assert planted == of_programs(made)["planted", "/init"]
    repeated = -sum(one.self_count for one in made.functions if one.self_count < 0)
    assert sum(frames.stacks_of(made).values()) == made.total + repeated


def test_a_program_without_symbols_is_one_entry(
    guide_kernel: kernel.KernelImage, named: tuple[Path, Profile], tmp_path: Path
) -> None:
    folder, before = named
    subprocess.run(["strip", "-o", tmp_path / "init", folder / "programs"], check=True)
    tree = FileTree()
    tree.add_file("init", tmp_path / "init", mode=0o755)
    made = profile_of(guide_kernel.image, create(tree, tmp_path / "stripped.cpio").path)
    inits = {name: count for (name, file), count in of_programs(made).items() if file == "/init"}
    assert set(inits) == {"/init"}
    with_symbols = sum(count for (_, file), count in of_programs(before).items() if file == "/init")
    assert abs(inits["/init"] - with_symbols) < 20  # what a page fault more repeats


def test_an_initrds_busybox_is_named(guide_kernel: kernel.KernelImage, boot_initrd: Path) -> None:
    counts = of_programs(profile_of(guide_kernel.image, boot_initrd))
    by_file: dict[str, int] = {}
    for (_, file), count in counts.items():
        by_file[file] = by_file.get(file, 0) + count
    assert by_file["/bin/busybox"] > 0.8 * sum(by_file.values())
    assert by_file.get("", 0) < 100


@pytest.mark.weekly
@pytest.mark.parametrize("suite", SUITES)
def test_a_later_qemu_names_the_same_functions(
    suite: str, guide_kernel: kernel.KernelImage, named: tuple[Path, Profile], boot_initrd: Path
) -> None:
    folder, before = named
    host = host_of(suite)
    counts = of_programs(profile_of(guide_kernel.image, folder / "programs.cpio", calls=True, host=host))
    assert counts["planted", "/init"] == of_programs(before)["planted", "/init"]
    assert counts.get(("(user space)", ""), 0) < 100
    of_busybox = of_programs(profile_of(guide_kernel.image, boot_initrd, host=host))
    known = sum(count for (_, file), count in of_busybox.items() if file == "/bin/busybox")
    assert known > 0.8 * sum(of_busybox.values())
