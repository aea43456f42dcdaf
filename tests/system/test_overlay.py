"""Random stacks of layers give the trees that overlayfs makes of them."""

from __future__ import annotations

import io
import json
import os
import random
import stat
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from acon_nb.archive import layers, tar
from acon_nb.errors import TreeError
from acon_nb.initrd import Content, FileTree, ImageLimits
from tests.unit.stacks import Memory

pytestmark = pytest.mark.system
ORACLE = Path(__file__).with_name("overlay_oracle.py")
ANY_TIME = 7
NAMES = ("a", "b", "c", "d")
TARGETS = ("a", "b", "c", "/a/b", "/b", "../a", "../../c", "a/b", ".", "/", "./d/../a")
_TYPES = {"d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "c": tarfile.CHRTYPE, "p": tarfile.FIFOTYPE}


class Namespace:
    """Runs the oracle where overlayfs can be mounted: as root, or as root of a user namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.privileged = os.geteuid() == 0

    def mounted(self, stacks: list[Any]) -> list[Any]:
        argv = ["unshare", "--mount"] if self.privileged else ["unshare", "--user", "--map-root-user", "--mount"]
        environment = {**os.environ} if self.privileged else {**os.environ, "OVERLAY_USERXATTR": "1"}
        done = subprocess.run(
            [*argv, sys.executable, "-I", ORACLE, self.folder],
            input=json.dumps(stacks).encode(),
            capture_output=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace"))
        results: list[Any] = json.loads(done.stdout)
        return results


@pytest.fixture
def namespace(tmp_path: Path) -> Namespace:
    namespace = Namespace(tmp_path)
    probe = [[member("a", "d", 0), member("b", "-", 0)], [member("a/.wh..wh..opq", "-", 0), member(".wh.b", "-", 0)]]
    try:
        assert list(namespace.mounted([probe])[0]["names"]) == ["a"]
    except (OSError, RuntimeError) as error:
        pytest.skip(f"overlayfs cannot be mounted here: {str(error).strip().splitlines()[-1]}")
    return namespace


def member(name: str, kind: str, number: int, text: str = "", device: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """A member whose owner, mode and time tell it from others, unless the number is 0."""
    return {
        "name": name,
        "kind": kind,
        "mode": (0o700, 0o751, 0o4755, 0o2750, 0o1777)[number % 5] if kind in "d-" else 0o640,
        "uid": number,
        "gid": number * 2,
        "mtime": 1_000_000 + number,
        "text": text,
        "device": list(device),
    }


def stack_of(dice: random.Random, *, privileged: bool) -> list[list[dict[str, Any]]]:
    """Layers over a few names, so that they meet; in most, folders come before what is in them."""
    stack: list[list[dict[str, Any]]] = []
    kinds: dict[str, str] = {}
    number = 0
    for depth in range(dice.randint(1, 4)):
        layer = []
        own: dict[str, str] = {}
        for _ in range(dice.randint(1, 9)):
            number += 1
            name = "/".join(dice.choices(NAMES, k=dice.randint(1, 3)))
            if kinds and dice.random() < 0.4:
                name = dice.choice(list(kinds))
            if depth and dice.random() < 0.25:
                folder, _, last = name.rpartition("/")
                mark = ".wh..wh..opq" if dice.random() < 0.3 else f".wh.{last}"
                layer.append(member(f"{folder}/{mark}".lstrip("/"), "-", 0))
                continue
            kind = dice.choices("d-lhpc", weights=(7, 7, 4, 2, 0.3, 0.7 if privileged else 0))[0]
            targets = [other for other, what in {**kinds, **own}.items() if what not in "dl"]
            if dice.random() < 0.95 and (_collides(name, kind, own) or (kind == "h" and not targets)):
                continue  # mostly, no tar can mean that
            text = (
                dice.choice(TARGETS) if kind == "l" else dice.choice(targets or ["a"]) if kind == "h" else f"{number}"
            )
            layer.append(member(name, kind, number if privileged else 0, text, (1, dice.randint(3, 9))))
            own[name] = kind
        if dice.random() < 0.8:
            layer.sort(key=lambda item: (item["kind"] == "h", item["name"].count("/")))
        stack.append(layer)
        kinds |= own
    return stack


def _collides(name: str, kind: str, names: dict[str, str]) -> bool:
    """Whether a layer would have names below something that is not a folder."""
    above = any(name.startswith(f"{other}/") and what not in "dl" for other, what in names.items())
    return above or (kind != "d" and any(other.startswith(f"{name}/") for other in names))


def tar_of(members: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for item in members:
            info = tarfile.TarInfo(item["name"])
            info.type = _TYPES.get(item["kind"], tarfile.REGTYPE)
            info.mode, info.uid, info.gid, info.mtime = item["mode"], item["uid"], item["gid"], item["mtime"]
            info.devmajor, info.devminor = item["device"] if item["kind"] == "c" else (0, 0)
            body = item["text"].encode() if item["kind"] == "-" else b""
            info.linkname = item["text"] if item["kind"] in "lh" else ""
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


def our_tree(stack: list[list[dict[str, Any]]]) -> FileTree:
    tree, limits = FileTree(), ImageLimits()
    for members in stack:
        data = tar_of(members)
        content = Content(size=len(data), source=Memory(data))
        layers.add_layer(
            tree, tar.members(content, "x.tar", limits=limits, warn=tree.drop), limits=limits, whiteouts=True
        )
    return tree


def listing(tree: FileTree) -> dict[str, Any]:
    """As the oracle's."""
    names = {}
    groups: dict[object, list[str]] = {}
    for raw, entry in tree.items():
        held = "{}:{}".format(*entry.device) if entry.is_device else entry.content.read().decode()
        mode = stat.S_IFLNK if entry.is_link else entry.mode
        names[raw.decode()] = [mode, entry.uid, entry.gid, entry.mtime, held]
        if entry.inode is not None:
            groups.setdefault(entry.inode, []).append(raw.decode())
    return {"names": names, "groups": sorted(sorted(group) for group in groups.values() if len(group) > 1)}


def outcome(stack: list[list[dict[str, Any]]], mounted: dict[str, Any]) -> str:
    """How our tree compares with a mount: "equal", or the reason why it differs; "" if there is none."""
    try:
        ours = listing(our_tree(stack))
    except TreeError as error:
        ours = {"refused": str(error)}
    if "unclear" in mounted:
        return str(mounted["unclear"])
    if "refused" in mounted or "refused" in ours:
        return "both refused" if "refused" in mounted and "refused" in ours else ""
    for name, values in mounted["names"].items():
        if values[3] == ANY_TIME and name in ours["names"]:
            values[3] = ours["names"][name][3]
    if ours["names"] != mounted["names"]:
        return ""
    if mounted["copied"]:  # a copy in a mount, another name of the inode in a tree
        return "equal, but for hard links across layers"
    return "equal" if ours["groups"] == mounted["groups"] else ""


def compared(namespace: Namespace, seed: int, count: int) -> Counter[str]:
    dice = random.Random(seed)
    stacks = [stack_of(dice, privileged=namespace.privileged) for _ in range(count)]
    outcomes = []
    for stack, mounted in zip(stacks, namespace.mounted(stacks), strict=True):
        outcomes.append(outcome(stack, mounted))
        assert outcomes[-1], f"seed {seed}: {json.dumps(stack)}\n{mounted}\n{explained(stack)}"
    return Counter(outcomes)


def explained(stack: list[list[dict[str, Any]]]) -> str:
    lines = [
        f"{item['kind']} {item['name']} {item['text']}" for layer in stack for item in [member("--", "", 0), *layer]
    ]
    try:
        return "\n".join([*lines, *map(str, listing(our_tree(stack)).items())])
    except TreeError as error:
        return "\n".join([*lines, str(error)])


def test_stacks_of_layers_are_what_overlayfs_makes_of_them(namespace: Namespace) -> None:
    outcomes = compared(namespace, 17, 200)
    assert outcomes["equal"] > 100, outcomes


@pytest.mark.weekly
@pytest.mark.parametrize("seed", range(20))
def test_ten_thousand_stacks_of_layers(namespace: Namespace, seed: int) -> None:
    compared(namespace, seed, 500)
