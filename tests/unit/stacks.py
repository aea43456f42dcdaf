"""Stacks of layers written by hand: a line for each member of a tar.

    NAME/             a folder         NAME = TEXT       a file
    NAME -> TARGET    a symbolic link  NAME => TARGET    a hard link
    NAME : MAJOR,MINOR  a character device

A folder may have a mode in octal behind the slash. A whiteout is a file that is called so.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acon_nb.initrd import FileTree, tree_of

Layer = Sequence[str]
_LINE = re.compile(r"(.*?)(/[0-7]*| (->|=>|=|:) (.*)|)", re.DOTALL)


class Memory:
    """Bytes as the source of contents."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]


def member(line: str) -> tuple[tarfile.TarInfo, bytes]:
    """The member of a line; a name alone is an empty file."""
    match = _LINE.fullmatch(line)
    assert match is not None, line
    name, rest, sign, value = match.groups()
    info = tarfile.TarInfo(name)
    if rest.startswith("/"):
        info.type, info.mode = tarfile.DIRTYPE, int(rest[1:] or "755", 8)
    elif sign in ("->", "=>"):
        info.type, info.linkname = tarfile.SYMTYPE if sign == "->" else tarfile.LNKTYPE, value
    elif sign == ":":
        info.type, (info.devmajor, info.devminor) = tarfile.CHRTYPE, map(int, value.split(","))
    body = value.encode() if sign == "=" else b""
    info.size = len(body)
    return info, body


def tar(lines: Layer) -> bytes:
    """A tar with a member for each line."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for line in lines:
            info, body = member(line)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


def folder(path: Path, lines: Layer) -> Path:
    """A folder of the host with these members."""
    for line in lines:
        info, body = member(line)
        name = path / info.name
        name.parent.mkdir(parents=True, exist_ok=True)
        if info.isdir():
            name.mkdir(info.mode)
        elif info.issym():
            name.symlink_to(info.linkname)
        else:
            name.write_bytes(body)
    return path


def write(folder: Path, layers: Sequence[Layer]) -> Path:
    """An OCI layout with these layers."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str = "") -> dict[str, Any]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data)}

    described = [blob(tar(lines), "application/vnd.oci.image.layer.v1.tar") for lines in layers]
    config = blob(json.dumps({"rootfs": {"diff_ids": [layer["digest"] for layer in described]}}).encode())
    manifest = {"schemaVersion": 2, "config": config, "layers": described}
    entry = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def saved(path: Path, layers: Sequence[Layer], name: str) -> Path:
    """What `docker save` writes of an image with these layers."""
    files = {f"{number}/layer.tar": tar(lines) for number, lines in enumerate(layers)}
    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in files.values()]
    platform = {"os": "linux", "architecture": "amd64"}
    files["config.json"] = json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids}, **platform}).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(files)[:-1]}]
    files["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as archive:
        for file, data in files.items():
            info = tarfile.TarInfo(file)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def below(name: str, lines: Layer) -> list[str]:
    """The members of a layer, moved into a folder."""
    moved = []
    for line in lines:
        where, sign, target = line.partition(" => ")
        moved.append(f"{name}/{where}" + (f"{sign}{name}/{target}" if sign else ""))
    return [line.replace(" -> /", f" -> /{name}/") for line in moved]


def unpacked(folder: Path, *layers: Layer, **options: Any) -> FileTree:
    """The tree of an image with these layers."""
    return tree_of(f"oci:{write(folder / 'image', layers)}", **options)


def lines_of(tree: FileTree) -> list[str]:
    """What a tree holds, a line for each name; folders with the mode 755 and files without it."""
    lines = []
    for raw, entry in tree.items():
        name = raw.decode()
        if entry.is_dir:
            lines.append(f"{name}/" + ("" if entry.mode & 0o7777 == 0o755 else f"{entry.mode & 0o7777:o}"))
        elif entry.is_link:
            lines.append(f"{name} -> {entry.content.read().decode()}")
        elif entry.is_device:
            lines.append("{} : {},{}".format(name, *entry.device))
        else:
            lines.append(f"{name} = {entry.content.read().decode()}")
    return lines


def linked(tree: FileTree) -> list[list[str]]:
    """The names of each file that has several."""
    groups: dict[object, list[str]] = {}
    for name, entry in tree.items():
        if entry.inode is not None:
            groups.setdefault(entry.inode, []).append(name.decode())
    return [names for names in groups.values() if len(names) > 1]
