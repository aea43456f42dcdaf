"""Build folders: whose objects a new one starts from, who waits for whom, and how many are kept."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb.cache import Cache
from acon_nb.kernel import folders
from acon_nb.kernel.source import SourceTree

TREE = SourceTree(path=Path("/nowhere"), identity="linux", version=(6, 12), release="6.12.0")
OTHER_TREE = SourceTree(path=Path("/nowhere"), identity="linux with a patch", version=(6, 12), release="6.12.0")


def purpose(*profiles: str, compiler: str = "gcc 12") -> dict[str, object]:
    return {"compiler": [compiler], "profiles": profiles, "start": "tinyconfig"}


def build(cache: Cache, profile: str, dot_config: str, *, tree: SourceTree = TREE, compiler: str = "gcc 12") -> Path:
    """A build that leaves an object named after its profile, and a host tool that knows where it was built."""
    with folders.building(cache, tree, purpose(profile, compiler=compiler), dot_config) as work:
        (work / f"{profile}.o").write_text(profile)
        os.utime(work / f"{profile}.o", ns=(10, 10))
        (work / "tools").mkdir(exist_ok=True)
        (work / "tools/.check.o.cmd").write_text(f"cmd_{work}/tools/check.o := gcc -o {work}/tools/check.o\n")
    return work


def test_a_folder_starts_from_the_one_whose_configuration_is_nearest(cache: Cache) -> None:
    far = build(cache, "study", "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=y\n")
    near = build(cache, "guide", "CONFIG_A=y\n")
    with folders.building(cache, TREE, purpose("guide", "microvm"), "CONFIG_A=y\nCONFIG_D=y\n") as work:
        assert work not in (far, near)
        assert (work / "guide.o").stat().st_mtime_ns == 10, "kbuild compares times"
        assert (work / ".config").read_text() == "CONFIG_A=y\nCONFIG_D=y\n"
        assert (work / "tools/.check.o.cmd").read_text() == (
            f"cmd_{work}/tools/check.o := gcc -o {work}/tools/check.o\n"
        ), "objtool is not built again"
        (work / "guide.o").write_text("written in place")
    assert (near / "guide.o").read_text() == "guide"


def test_the_same_profiles_go_on_in_their_folder(cache: Cache) -> None:
    first = build(cache, "guide", "CONFIG_A=y\n")
    with folders.building(cache, TREE, purpose("guide"), "CONFIG_A=y\nCONFIG_B=y\n") as work:
        assert work == first
        assert (work / "guide.o").exists()


@pytest.mark.parametrize("change", [{"tree": OTHER_TREE}, {"compiler": "gcc 14"}], ids=["tree", "compiler"])
def test_nothing_is_shared_between_trees_or_compilers(cache: Cache, change: dict[str, object]) -> None:
    build(cache, "guide", "CONFIG_A=y\n")
    other = build(cache, "study", "CONFIG_A=y\n", **change)  # type: ignore[arg-type]
    assert not (other / "guide.o").exists()


def test_a_patched_tree_starts_from_the_objects_of_the_tree_below_it(cache: Cache) -> None:
    below = replace(TREE, path=Path("/trees/linux"))
    first = build(cache, "guide", "CONFIG_A=y\n", tree=below)
    command = "gcc -I/trees/linux/include -c /trees/linux/init/main.c"
    (first / ".main.o.cmd").write_text(command)
    patched = replace(OTHER_TREE, path=Path("/trees/linux-patched"), base=below)
    other = build(cache, "study", "CONFIG_A=y\n", tree=patched)
    assert (other / "guide.o").stat().st_mtime_ns == 10
    assert (other / ".main.o.cmd").read_text() == command.replace("linux", "linux-patched"), "or all is built again"
    assert (first / ".main.o.cmd").read_text() == command


def test_a_second_profile_waits_for_the_first_build_of_the_tree(cache: Cache) -> None:
    seen: list[bool] = []

    def second() -> None:
        with folders.building(cache, TREE, purpose("study"), "CONFIG_B=y\n") as work:
            seen.append((work / "guide.o").exists())

    with folders.building(cache, TREE, purpose("guide"), "CONFIG_A=y\n") as work:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert not seen
        (work / "guide.o").write_text("compiled")
    thread.join(30)
    assert seen == [True]


def test_later_builds_of_other_profiles_do_not_wait(cache: Cache) -> None:
    build(cache, "guide", "CONFIG_A=y\n")
    build(cache, "study", "CONFIG_B=y\n")
    with folders.building(cache, TREE, purpose("guide"), "CONFIG_A=y\n"):
        build(cache, "study", "CONFIG_B=y\n")
        build(cache, "microvm", "CONFIG_B=y\n")


def test_a_copy_that_was_cut_short_is_made_again(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    build(cache, "guide", "CONFIG_A=y\n")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_rename_in_commands", stop)
        with pytest.raises(KeyboardInterrupt):
            build(cache, "study", "CONFIG_B=y\n")
    assert (build(cache, "study", "CONFIG_B=y\n") / "guide.o").exists()
    assert len(list((cache.root / "kernel-build").iterdir())) == 2


def test_only_the_folders_that_were_used_last_are_kept(cache: Cache) -> None:
    first, *rest = [build(cache, f"p{number}", "CONFIG_A=y\n") for number in range(folders.KEPT)]
    for age, path in enumerate((first, *reversed(rest))):
        os.utime(path, ns=(10**9 - age, 10**9 - age))
    latest = build(cache, "latest", "CONFIG_A=y\n")
    assert not rest[0].exists()
    assert set((cache.root / "kernel-build").iterdir()) == {first, *rest[1:], latest}


def test_a_checkout_is_built_in_the_same_folder_from_commit_to_commit(cache: Cache) -> None:
    commits = [replace(TREE, identity=f"commit {number}", place="checkout") for number in range(2)]
    first = build(cache, "guide", "CONFIG_A=y\n", tree=commits[0])
    with folders.building(cache, commits[1], purpose("guide"), "CONFIG_A=y\n") as work:
        assert work == first
    with folders.configuring(cache, commits[0], ["gcc 12"]) as one, folders.configuring(cache, TREE, ["gcc 12"]) as two:
        assert one != two
