"""How layers, links, whiteouts and repeated names combine. Each case says where users met it, if they did."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.archive import layers, tar
from acon_nb.errors import TreeError
from acon_nb.initrd import Content, FileTree, ImageLimits, tree_of
from tests.unit import stacks


def tree_of_lines(lines: list[str], *, limits: ImageLimits | None = None, whiteouts: bool = False) -> FileTree:
    data = stacks.tar(lines)
    tree = FileTree()
    content = Content(size=len(data), source=stacks.Memory(data))
    limits = limits or ImageLimits()
    layers.add_layer(
        tree, tar.members(content, "x.tar", limits=limits, warn=tree.drop), limits=limits, whiteouts=whiteouts
    )
    return tree


def from_tar(folder: Path, *lines: str, **options: object) -> FileTree:
    (folder / "root.tar").write_bytes(stacks.tar(lines))
    return tree_of(f"tar:{folder}/root.tar", **options)  # type: ignore[arg-type]


LOWER = ["a/", "a/sub/", "a/sub/y = 1", "a/x = 1", "b/", "b/x = 1", "file = 1", "to-b -> b", "to-file -> file"]
STACKS = {
    # a whiteout or mark of a layer is a name in the layers below, not what links make of it
    "whiteout through a link": (["to-b/.wh.x"], [*LOWER]),
    "whiteout through a folder that replaces a link": (
        ["to-b/", "to-b/.wh.x"],
        [line if line != "to-b -> b" else "to-b/" for line in LOWER],
    ),
    "opaque through a folder that replaces a link": (
        ["to-b/.wh..wh..opq", "to-b/", "to-b/new = 2"],
        [*LOWER[:7], "to-b/", "to-b/new = 2", LOWER[8]],
    ),
    "whiteout through a link of the same layer": (  # GoogleContainerTools/kaniko#2308
        ["a/.wh.x", "./", "a -> b"],
        ["a -> b", *LOWER[4:]],
    ),
    "whiteout through a link of the same layer, listed later": (["a -> b", "a/.wh.x"], ["a -> b", *LOWER[4:]]),
    "whiteout of a link and a folder of its name": ([".wh.to-b", "to-b/", "to-b/y = 2"], None),
    "whiteout listed last": (["to-b/", "to-b/y = 2", ".wh.to-b"], None),
    "whiteout of nothing": (["a/.wh.no", "no/such/.wh.folder", "file/.wh.x", "b/.wh.x.y"], LOWER),
    "whiteout of a folder": ([".wh.a"], LOWER[4:]),
    "whiteout of a folder and a new one": ([".wh.a", "a/", "a/new = 2"], ["a/", "a/new = 2", *LOWER[4:]]),
    "a new folder and a whiteout of the old one": (["a/", "a/new = 2", ".wh.a"], ["a/", "a/new = 2", *LOWER[4:]]),
    "whiteout of a file and a new one": ([".wh.file", "file = 2"], [*LOWER[:6], "file = 2", *LOWER[7:]]),
    "a new file and a whiteout of the old one": (["file = 2", ".wh.file"], [*LOWER[:6], "file = 2", *LOWER[7:]]),
    "whiteout in a folder that the layer removes": ([".wh.a", "a/sub/.wh.y"], LOWER[4:]),
    "whiteouts of a folder and of what is in it": (["a/.wh.sub", "a/sub/.wh.y", ".wh.a"], LOWER[4:]),
    "opaque at the end": (["a/new = 2", "a/", "a/.wh..wh..opq"], ["a/", "a/new = 2", *LOWER[4:]]),
    "opaque without the folder": (["a/.wh..wh..opq"], ["a/", *LOWER[4:]]),
    "opaque keeps the layer's own subfolder": (
        ["a/.wh..wh..opq", "a/sub/new = 2"],
        ["a/", "a/sub/", "a/sub/new = 2", *LOWER[4:]],
    ),
    "opaque root": ([".wh..wh..opq", "new = 2"], ["new = 2"]),
    "marks of aufs": ([".wh..wh.plnk/", ".wh..wh.plnk/1 = 2", ".wh..wh.aufs", "hard => .wh..wh.plnk/1"], None),
    # what a layer adds is at exactly its name
    "a file below a link, without the folder": (["to-b/y = 2"], [*LOWER[:7], "to-b/", "to-b/y = 2", LOWER[8]]),
    "a file below a file, without the folder": (  # opencontainers/image-spec#1221, #970
        ["file/y = 2"],
        [*LOWER[:6], "file/", "file/y = 2", *LOWER[7:]],
    ),
    "a folder over a link": (["to-b/"], [*LOWER[:7], "to-b/", LOWER[8]]),
    "a folder over a folder changes its mode": (["a/700"], ["a/700", *LOWER[1:]]),
    "a name in a folder without a mode keeps its": (
        ["a/sub/z = 2"],
        [*LOWER[:4], "a/sub/z = 2", *LOWER[4:]],
    ),
    "a link over a folder": (["a -> b"], ["a -> b", *LOWER[4:]]),
    "a file over a folder": (["a = 2"], ["a = 2", *LOWER[4:]]),
    "a link over a file": (["file -> b"], [*LOWER[:6], "file -> b", *LOWER[7:]]),
    # names of the same layer follow its own links
    "names below a link of the same layer": (["a -> b", "a/new = 2"], ["a -> b", "b/", "b/new = 2", *LOWER[5:]]),
}


@pytest.mark.parametrize("name", STACKS)
def test_a_layer_combines_with_the_layers_below(tmp_path: Path, name: str) -> None:
    upper, expected = STACKS[name]
    if expected is None:
        expected = {
            "whiteout of a link and a folder of its name": [*LOWER[:7], "to-b/", "to-b/y = 2", LOWER[8]],
            "whiteout listed last": [*LOWER[:7], "to-b/", "to-b/y = 2", LOWER[8]],
            "marks of aufs": [*LOWER[:7], "hard = 2", *LOWER[7:]],
        }[name]
    assert stacks.lines_of(stacks.unpacked(tmp_path, LOWER, upper)) == sorted(expected)


def test_three_layers_remove_and_add_a_folder_again(tmp_path: Path) -> None:
    lower = ["root/", "root/a/711", "root/a/old = 1"]
    whiteouts = ["root/a/b/.wh.c", "./", "root/", "root/a/", "root/a/new = 2"]  # containerd/containerd#4659
    tree = stacks.unpacked(tmp_path, lower, ["root/.wh.a"], whiteouts)
    assert stacks.lines_of(tree) == ["root/", "root/a/", "root/a/new = 2"]


@pytest.mark.parametrize("name", ["etc/.wh.", "etc/.wh..", "etc/.wh...", ".wh.", ".wh...", ".wh.x/y", "etc/.wh.d/"])
def test_a_whiteout_that_names_nothing_is_refused(tmp_path: Path, name: str) -> None:
    layers = [["etc/", "etc/a = 1", "x = 1"], [name, "b = 2"]]
    if name == "etc/.wh.d/":  # a whiteout may be of any kind
        assert "etc/a" in stacks.unpacked(tmp_path, *layers)
        return
    with pytest.raises(TreeError, match=r"'(etc/)?\.wh\..*whiteout") as caught:
        stacks.unpacked(tmp_path, *layers)
    assert caught.value.hint


def test_names_of_whiteouts_are_ordinary_in_the_tar_of_a_root_file_system(tmp_path: Path) -> None:
    lines = [".wh.", "a = 1", "a-folder/", "a-folder/.wh..wh..opq = ", ".wh.a = "]
    tree = from_tar(tmp_path, *lines)
    assert stacks.lines_of(tree) == sorted(line if "/" in line or "=" in line else f"{line} = " for line in lines)
    assert "whiteouts have a meaning in layers only" in "\n".join(tree.warnings())


HARD_LINKS = {
    "a repeated file is another file": (["f = 1", "g => f", "f = 2"], ["f = 2", "g = 1"], []),
    "a hard link to a repeated file": (["f = 1", "f = 2", "g => f"], ["f = 2", "g = 2"], [["f", "g"]]),
    "a hard link listed before its file": (["g => f", "f = 1"], ["f = 1", "g = 1"], [["f", "g"]]),
    "a chain listed backwards": (["i => h", "h => g", "g => f", "f = 1"], None, [["f", "g", "h", "i"]]),
    "a hard link to itself": (["f = 1", "f => f"], ["f = 1"], []),
    "a hard link that is replaced": (["f = 1", "g => f", "g = 2"], ["f = 1", "g = 2"], []),
    "a hard link that is replaced before its file comes": (["g => f", "g = 2", "f = 1"], ["f = 1", "g = 2"], []),
    "a file replaced by a link to its other name": (  # anchore/stereoscope#670
        ["f = 1", "g => f", "f -> g"],
        ["f -> g", "g = 1"],
        [],
    ),
    "a hard link to a symbolic link": (  # NixOS/nix#2738
        ["l -> there", "m => l", "n => m"],
        ["l -> there", "m -> there", "n -> there"],
        [],
    ),
    "a hard link through a link": (["d/", "d/f = 1", "l -> d", "g => l/f"], None, [["d/f", "g"]]),
    "a hard link below a link": (["d/", "f = 1", "l -> d", "l/g => f"], None, [["d/g", "f"]]),
}


@pytest.mark.parametrize("name", HARD_LINKS)
def test_a_hard_link_is_the_file_of_that_moment(tmp_path: Path, name: str) -> None:
    lines, expected, groups = HARD_LINKS[name]
    for tree in (from_tar(tmp_path, *lines), stacks.unpacked(tmp_path, lines)):
        assert expected is None or stacks.lines_of(tree) == expected
        assert stacks.linked(tree) == groups


ACROSS = {
    "to a file that a later layer replaces": ([["f = 1"], ["g => f"], ["f = 2"]], ["f = 2", "g = 1"], []),  # moby#5632
    "to a file that a later layer removes": ([["f = 1"], ["g => f"], [".wh.f"]], ["g = 1"], []),
    "to a file that the layer replaces then": ([["f = 1"], ["g => f", "f = 2"]], ["f = 2", "g = 1"], []),
    "to a file that the layer removes then": ([["f = 1"], ["g => f", ".wh.f"]], ["g = 1"], []),
    "to a file of the layer itself": ([["f = 1"], ["f = 2", "g => f"]], ["f = 2", "g = 2"], [["f", "g"]]),
    "to a file of two names": ([["f = 1", "e => f"], ["g => f"]], ["e = 1", "f = 1", "g = 1"], [["e", "f", "g"]]),
    "to a symbolic link": ([["f -> x"], ["g => f"]], ["f -> x", "g -> x"], []),
    "through a link below": ([["d/", "d/f = 1", "l -> d"], ["g => l/f"]], None, [["d/f", "g"]]),
    "over a folder": ([["f = 1", "d/", "d/x = 1"], ["d => f"]], ["d = 1", "f = 1"], [["d", "f"]]),
    "to itself": ([["f = 1"], ["f => f"]], ["f = 1"], []),
}


@pytest.mark.parametrize("name", ACROSS)
def test_a_hard_link_across_layers(tmp_path: Path, name: str) -> None:
    layers, expected, groups = ACROSS[name]
    tree = stacks.unpacked(tmp_path, *layers)
    assert expected is None or stacks.lines_of(tree) == expected
    assert stacks.linked(tree) == groups


@pytest.mark.parametrize(
    "layers",
    [
        [["g => f"]],
        [["f => f"]],
        [["f => g", "g => f"]],
        [["f = 1"], [".wh.f"], ["g => f"]],
        [["f = 1"], [".wh.f", "g => f"]],
        [["d/", "d/f = 1"], ["d/.wh..wh..opq", "g => d/f"]],
        [["d/", "d/f = 1"], ["d = 2", "g => d/f"]],
        [["d/", "d/f = 1", "l -> d"], ["l/", "g => l/f"]],
        [["g => d", "d/"]],
        [["d/"], ["g => d"]],
        [["d/"], [".wh.d", "d => d"]],
    ],
    ids=str,
)
def test_a_hard_link_to_nothing_or_to_a_folder_is_refused(tmp_path: Path, layers: list[list[str]]) -> None:
    with pytest.raises(TreeError, match="is a hard link to"):
        stacks.unpacked(tmp_path, *layers)


@pytest.mark.parametrize("devices", [False, True])
def test_a_hard_link_to_a_device_is_omitted_with_it(tmp_path: Path, devices: bool) -> None:
    """Such tars are made of SD cards and old root file systems."""
    layers = [["dev/", "dev/null0 : 1,3", "dev/null => dev/null0", "a = 1"], ["zero => dev/null0", "a : 1,5"]]
    for tree, count in (
        (from_tar(tmp_path, *layers[0], devices=devices), 2),
        (stacks.unpacked(tmp_path, *layers, devices=devices), 4),
    ):
        devices_left = [line for line in stacks.lines_of(tree) if " : " in line]
        assert len(devices_left) == (count if devices else 0)
        assert ("'dev/null', 'dev/null0'" in "\n".join(tree.warnings())) is not devices
        assert ("a" in tree) is (count == 2 or devices)  # a device that replaces a file leaves nothing


ORDERS = {
    "a chain of links listed after a folder below it": (
        ["a -> z/y", "a/c/2770", "z -> q", "q/", "q/y/"],
        ["a -> z/y", "q/", "q/y/", "q/y/c/2770", "z -> q"],
    ),
    "links listed last": (["a/x = 1", "z/y/t = 1", "a -> z/y", "z -> q"], None),
    "a folder over a link": (["b/", "a -> b", "a/x = 1", "a/", "a/y = 1"], ["a/", "a/y = 1", "b/", "b/x = 1"]),
    "a link over a folder": (["b/", "a/", "a/x = 1", "a -> b"], ["a -> b", "b/"]),
    "a link over a file": (["b/", "a = 1", "a -> b", "a/x = 1"], ["a -> b", "b/", "b/x = 1"]),
    "a file over a link": (["b = 1", "a -> b", "a = 2"], ["a = 2", "b = 1"]),
    "a folder after what is in it": (["d/x = 1", "d/700"], ["d/700", "d/x = 1"]),
    "a folder twice": (["d/700", "d/x = 1", "d/711"], ["d/711", "d/x = 1"]),
    "a file in a link to the root": (["l -> /", "l/x = 1"], ["l -> /", "x = 1"]),
    "a link that leads above the root": (["d/l -> ../../..", "d/l/x = 1"], ["d/", "d/l -> ../../..", "x = 1"]),
    "a link to a folder that no member names": (["l -> p/q", "l/x = 1"], ["l -> p/q", "p/", "p/q/", "p/q/x = 1"]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_members_of_a_tar_apply_in_order(tmp_path: Path, name: str) -> None:
    lines, expected = ORDERS[name]
    tree = from_tar(tmp_path, *lines)
    assert stacks.lines_of(tree) == (expected or ["a -> z/y", "q/", "q/y/", "q/y/t = 1", "q/y/x = 1", "z -> q"])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["f = 1", "f/x = 1"], "'f/x' would be inside 'f'"),
        (["f/x = 1", "f = 1"], "'f/x' would be inside 'f'"),
        (["f = 1", "l -> f", "l/x = 1"], "'f/x' would be inside 'f'"),
        (["a -> b", "b -> a", "a/x = 1"], "'a/x' leads through a loop"),
        (["a/x = 1", "a -> b", "b -> a"], "a loop of symbolic links|more than 40 links"),
        ([*(f"l{n} -> l{n + 1}" for n in range(50)), "l50/", "l0/x = 1"], "more than 40"),
        ([". -> x"], "root of the archive is not a folder"),
        (["l -> " + "x" * 5000, "l/x = 1"], "target of the link 'l' is longer than 4095"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_no_tar_can_mean_is_refused(tmp_path: Path, lines: list[str], reason: str) -> None:
    with pytest.raises(TreeError, match=reason):
        from_tar(tmp_path, *lines)


NAMES = st.sampled_from(["a", "b", "c", "d", "a/a", "a/b", "b/a", "b/c", "c/a", "c/d/e", "d/b", "a/b/c", "b/d/a"])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, st.sampled_from(["/711", " = ", " -> a", " -> /b", " -> c", " -> ../d"])), st.randoms())
def test_the_order_of_names_that_are_listed_once_makes_no_difference(
    members: dict[str, str], dice: random.Random
) -> None:
    """Unless links give two members one place: then the later one is there."""
    lines = [name + rest + (name if rest == " = " else "") for name, rest in members.items()]
    trees = []
    for _ in range(2):
        dice.shuffle(lines)
        try:
            tree = tree_of_lines(lines)
            places = {tree.resolved(name.encode()) for name in members}
        except TreeError:  # a link that took another member's place may make a loop, too
            return
        if len(places) < len(members):
            return
        trees.append(tree)
    assert stacks.lines_of(trees[0]) == stacks.lines_of(trees[1])


DEEP = "a/" * 1500
HOSTILE = {
    "deep names fill the memory with folders": ([f"{number}/{DEEP}x" for number in range(50)], "name_bytes"),
    "folders that no member names count": ([f"{DEEP}x"], "names"),
    "long links are looked up for every name": (
        [*(f"l{n} -> {'./' * 1000}l{n + 1}" for n in range(30)), "l30/", *(f"l0/{n}/" for n in range(2000))],
        "link_steps",
    ),
    "hard links search a layer that hides what is below": (
        [f"{DEEP}/.wh..wh..opq", *(f"{n} => {DEEP}/x" for n in range(500))],
        "link_steps",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_layer_that_takes_long_or_much_memory_meets_a_limit(name: str) -> None:
    lines, limit = HOSTILE[name]
    low = ImageLimits(name_bytes=1 << 26, names=1000 if limit == "names" else 1 << 20, link_steps=1 << 17)
    with pytest.raises(TreeError, match=rf"limit {limit}="):
        tree_of_lines(lines, limits=low)


def test_whiteouts_of_nothing_and_links_to_each_other_are_no_work() -> None:
    lines = [*(f"no/{DEEP}.wh.{n}" for n in range(200)), *(f"l{n} -> l{n + 1}" for n in range(200)), "x/"]
    assert len(tree_of_lines(lines, whiteouts=True)) == 201
