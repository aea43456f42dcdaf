"""What real overlayfs mounts make of stacks of layers; run by test_overlay.py in a mount namespace of its own.

Reads a JSON list of stacks from standard input and writes a list of results. A stack is a list of layers, a layer a
list of members as in `Member`. A layer's members are unpacked in order into its lower directory, names resolved within
it alone, as containerd's applier does (pkg/archive/tar.go); what a whiteout hides then is a character device 0:0, or an
opaque directory if the layer has one of that name. No code of acon_nb is used.
"""

# ruff: noqa: PTH101, PTH102, PTH103, PTH108, PTH114, PTH115, PTH211

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TypedDict

LIBC = ctypes.CDLL(None, use_errno=True)
PRIVILEGED = os.environ.get("OVERLAY_USERXATTR") is None
OPAQUE = "trusted.overlay.opaque" if PRIVILEGED else "user.overlay.opaque"
ANY_TIME = 7  # of a directory that no member names


class Member(TypedDict):
    """A member of a tar; `kind` is a letter as in ls(1), or h for a hard link."""

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    text: str  # the content or target
    device: list[int]


class Refused(Exception):
    """No unpacker could apply the layer."""


class Unclear(Exception):
    """Unpackers differ from each other, or lose files."""


def mount(options: str, target: str, kind: str = "overlay") -> None:
    if LIBC.mount(kind.encode(), target.encode(), kind.encode(), 0, options.encode()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"{kind} {options}")


def umount(target: str) -> None:
    if LIBC.umount2(target.encode(), 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def mode_of(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:  # none, or a loop of links
        return 0


def is_literal(root: str, name: str) -> bool:
    """Whether what is above a name are folders, not links."""
    parts = name.split("/")
    return all(stat.S_ISDIR(mode_of("/".join([root, *parts[:depth]]))) for depth in range(1, len(parts)))


def resolve(root: str, name: str) -> str:
    """The path of a name whose links, but the last, are followed below a root; without the root."""
    done: list[str] = []
    todo = name.split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        path = "/".join([root, *done, part])
        if todo and stat.S_ISLNK(mode_of(path)):
            links += 1
            if links > 40:
                raise Refused("loop")
            target = os.readlink(path)
            done = [] if target.startswith("/") else done
            todo.extend(target.split("/")[::-1])
        else:
            done.append(part)
    return "/".join(done)


class Layer:
    """The lower directory of one layer; `below` is a mount of the layers below."""

    def __init__(self, root: str, below: str, members: list[Member]) -> None:
        self.root, self.below, self.members = root, below, members
        self.implied: set[str] = set()
        self.times: dict[str, int] = {}
        self.copied = False  # a file of a layer below got another name
        self.hidden = {self.hides(member["name"]) for member in members} - {""}

    def hides(self, name: str) -> str:
        folder, _, last = name.rpartition("/")
        if last == ".wh..wh..opq":
            return f"{folder}/*" if folder else "*"
        return f"{folder}/{last[4:]}".lstrip("/") if last.startswith(".wh.") else ""

    def is_hidden(self, name: str, hidden: set[str]) -> bool:
        parts = name.split("/")
        above = ["/".join(parts[:depth]) for depth in range(len(parts))]
        return name in hidden or any(part in hidden or f"{part}/*".lstrip("/") in hidden for part in above)

    def ends(self, name: str) -> bool:
        """Whether the layer has something else than a folder above a name."""
        modes = [mode_of("/".join([self.root, *name.split("/")[:depth]])) for depth in range(1, name.count("/") + 1)]
        return any(mode and not stat.S_ISDIR(mode) for mode in modes)

    def mode_below(self, name: str) -> int:
        """The mode of exactly a name in the layers below; 0 if there is none."""
        return mode_of(f"{self.below}/{name}") if is_literal(self.below, name) else 0

    def build(self) -> None:
        for number, member in enumerate(self.members):
            if not self.hides(member["name"]):
                self.apply(number, member)
        for member in self.members:
            if hidden := self.hides(member["name"]):
                self.white_out(hidden)
        for name, mtime in sorted(self.times.items(), reverse=True):
            if stat.S_ISDIR(mode_of(f"{self.root}/{name}")):
                os.utime(f"{self.root}/{name}", (mtime, mtime))

    def apply(self, number: int, member: Member) -> None:
        name = resolve(self.root, member["name"])
        kind = member["kind"]
        if not name:
            if kind != "d":
                raise Refused("root")
            return
        path = f"{self.root}/{name}"
        source = self.source(number, member, name) if kind == "h" else ""
        if source == path:
            return
        self.make_parents(name)
        mode = mode_of(path)
        if stat.S_ISDIR(mode) and kind != "d":
            if name in self.implied:
                raise Unclear("something else is listed after names below it")
            if source.startswith(path + "/"):
                raise Unclear("a hard link replaces the folder of its target")
            shutil.rmtree(path)
        elif mode and not (stat.S_ISDIR(mode) and kind == "d"):
            os.unlink(path)
        self.implied.discard(name)
        self.create(path, member, source)
        if kind == "d":
            self.times[name] = member["mtime"]

    def create(self, path: str, member: Member, source: str) -> None:
        kind = member["kind"]
        if source.startswith(self.root + "/"):
            os.link(source, path, follow_symlinks=False)
            return
        if source:
            self.copy(source, path)
            return
        if kind == "d":
            os.makedirs(path, exist_ok=True)
        elif kind == "l":
            os.symlink(member["text"], path)
        elif kind == "c":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(*member["device"]))
        elif kind == "p":
            os.mkfifo(path)
        else:
            Path(path).write_text(member["text"])
        self.dress(path, member["uid"], member["gid"], member["mode"], member["mtime"])

    def dress(self, path: str, uid: int, gid: int, mode: int, mtime: int) -> None:
        os.chown(path, uid, gid, follow_symlinks=False)
        if not os.path.islink(path):
            os.chmod(path, mode & 0o7777)
        os.utime(path, (mtime, mtime), follow_symlinks=False)

    def copy(self, source: str, path: str) -> None:
        info = os.lstat(source)
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(source), path)
        elif stat.S_ISREG(info.st_mode):
            shutil.copyfile(source, path)
        else:
            os.mknod(path, info.st_mode, info.st_rdev)
        self.dress(path, info.st_uid, info.st_gid, info.st_mode, int(info.st_mtime))

    def source(self, number: int, member: Member, name: str) -> str:
        """The path of a hard link's target at this point: in this layer, else below."""
        target = resolve(self.root, member["text"])
        path = f"{self.root}/{target}"
        if not mode_of(path):
            before = {self.hides(other["name"]) for other in self.members[:number]} - {""}
            visible = self.mode_below(target) and not self.ends(target) and not self.is_hidden(target, before)
            if not visible:
                if any(resolve(self.root, other["name"]) == target for other in self.members[number + 1 :]):
                    raise Unclear("a hard link is listed before its target")
                if resolve(self.below, target) != target:
                    raise Unclear("a hard link leads through a link of the layers below")
                if any(other["name"] == member["name"] for other in self.members[number + 1 :]):
                    raise Unclear("a hard link to nothing is replaced later")
                raise Refused("a hard link to nothing")
            if target == name:
                return path
            self.copied = True
            path = f"{self.below}/{target}"
        if target != name and stat.S_ISDIR(mode_of(path)):
            raise Refused("a hard link to a folder")
        return path

    def make_parents(self, name: str) -> None:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            path = f"{self.root}/{parent}"
            if mode := mode_of(path):
                if not stat.S_ISDIR(mode):
                    raise Refused("inside a file")
                continue
            os.mkdir(path)
            self.dress(path, 0, 0, 0o755, ANY_TIME)
            self.implied.add(parent)
            self.times[parent] = ANY_TIME
            if stat.S_ISDIR(self.mode_below(parent)) and not self.is_hidden(parent, self.hidden):
                info = os.lstat(f"{self.below}/{parent}")
                self.dress(path, info.st_uid, info.st_gid, info.st_mode, ANY_TIME)
                self.times[parent] = int(info.st_mtime)

    def white_out(self, hidden: str) -> None:
        opaque = hidden.endswith("*")
        name = hidden[:-1].rstrip("/") if opaque else hidden
        folder = name.rpartition("/")[0]
        own, below = mode_of(f"{self.root}/{name}"), self.mode_below(name)
        if self.ends(name) or (folder and not mode_of(f"{self.root}/{folder}") and self.is_hidden(folder, self.hidden)):
            return
        if stat.S_ISDIR(own):
            os.setxattr(f"{self.root}/{name}", OPAQUE, b"y")
        elif not own and opaque and stat.S_ISDIR(below) and not self.is_hidden(name, self.hidden):
            self.make_parents(f"{name}/x")
            os.setxattr(f"{self.root}/{name}", OPAQUE, b"y")
        elif not own and not opaque and below:
            self.make_parents(name)
            os.mknod(f"{self.root}/{name}", stat.S_IFCHR, os.makedev(0, 0))


def listing(root: str) -> dict[str, object]:
    """What is below a mount point: kind, mode, owner, time, what it holds; and the names of each file with several."""
    names: dict[str, list[object]] = {}
    groups: dict[int, list[str]] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        for item in os.listdir(f"{root}/{folder}" if folder else root):
            name = f"{folder}/{item}" if folder else item
            path = f"{root}/{name}"
            if not mode_of(path):
                continue  # a whiteout in an opaque directory is listed, but not there
            info = os.lstat(path)
            held = ""
            if stat.S_ISDIR(info.st_mode):
                pending.append(name)
            elif stat.S_ISLNK(info.st_mode):
                held = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                held = Path(path).read_text()
            elif stat.S_ISCHR(info.st_mode):
                held = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
            if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode) and not stat.S_ISLNK(info.st_mode):
                groups.setdefault(info.st_ino, []).append(name)
            mode = stat.S_IFMT(info.st_mode) if stat.S_ISLNK(info.st_mode) else info.st_mode
            names[name] = [mode, info.st_uid, info.st_gid, int(info.st_mtime), held]
    return {"names": names, "groups": sorted(sorted(group) for group in groups.values() if len(group) > 1)}


def stacked(number: int, layers: list[list[Member]]) -> dict[str, object]:
    folder = f"s{number}"
    os.mkdir(folder)
    os.mkdir(f"{folder}/0")
    os.mkdir(f"{folder}/1")
    lowers = [f"{folder}/1", f"{folder}/0"]  # overlayfs wants two
    copied = False
    options = "" if PRIVILEGED else ",userxattr"
    view = os.path.realpath("view")
    mount("lowerdir=" + ":".join(lowers) + options, view)
    try:
        for depth, members in enumerate(layers, 2):
            root = os.path.realpath(f"{folder}/{depth}")
            os.mkdir(root)
            layer = Layer(root, view, members)
            try:
                layer.build()
                copied = copied or layer.copied
            finally:
                umount(view)
                lowers.insert(0, f"{folder}/{depth}")
                if "*" in layer.hidden:  # a mount ignores the mark of a root
                    lowers[1:] = [f"{folder}/0"]
                mount("lowerdir=" + ":".join(lowers) + options, view)
        return {**listing(view), "copied": copied}
    except Refused as error:
        return {"refused": str(error)}
    except Unclear as error:
        return {"unclear": str(error)}
    finally:
        umount(view)
        shutil.rmtree(folder)


def main() -> None:
    stacks = json.load(sys.stdin)
    os.chdir(sys.argv[1])
    mount("", ".", "tmpfs")
    os.chdir(sys.argv[1])  # what is mounted, not what it covers
    os.umask(0)
    os.mkdir("view")
    json.dump([stacked(number, layers) for number, layers in enumerate(stacks)], sys.stdout)


if __name__ == "__main__":
    main()
