"""Archives of images: what `docker save` writes, and OCI layouts, as a tar or a folder; layers are laid in order.

Sources: the OCI image specification (image-layout.md, manifest.md, layer.md), Docker's image specification 1.2. Every
blob is checked against the digest that names it, every layer against the `diff_ids` of the image's configuration.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import spool, tar
from acon_nb.initrd.folder import from_folder
from acon_nb.initrd.tree import Content, FileTree, Limits
from acon_nb.progress import OnProgress, Progress, silent

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_JSON_BYTES = 8 << 20
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_HINT = "write the archive again: docker save NAME -o FILE, or skopeo copy ... oci:FOLDER"
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


def from_archive(
    path: Path, tag: str = "", *, limits: Limits, devices: bool = False, on_progress: OnProgress = silent
) -> FileTree:
    """The tree of an image in an archive of `docker save` or an OCI layout (a tar, compressed or not, or a folder).

    Parameters: `tag` chooses among several images (a name of `RepoTags`, or `org.opencontainers.image.ref.name`).
    Errors: `InvalidInput` (no file, no such tag), `TreeError` (a digest that does not fit, hostile names, limits).
    """
    if path.is_dir():
        files = from_folder(path)
    else:
        size = path.stat().st_size if path.is_file() else 0
        files = _files(spool.plain(Content(size=size, path=path), path.name, limits), limits)
    return from_files(files, str(path), tag, limits=limits, devices=devices, on_progress=on_progress)


def from_stream(content: Content, what: str, *, limits: Limits, devices: bool, on_progress: OnProgress) -> FileTree:
    """The tree of the one image in an archive that was received (from an engine)."""
    return from_files(_files(content, limits), what, "", limits=limits, devices=devices, on_progress=on_progress)


def _files(content: Content, limits: Limits) -> FileTree:
    files = FileTree()
    # what layers hold is counted when they are laid; they may be larger together than the image
    wide = replace(limits, total_bytes=spool.stream_limit(limits))
    tar.add_layer(files, tar.members(content, limits=limits), limits=wide)
    return files


def from_files(
    files: FileTree, what: str, tag: str, *, limits: Limits, devices: bool, on_progress: OnProgress
) -> FileTree:
    """The tree of an image whose archive's files are given."""
    if "manifest.json" in files:
        layers, config = _docker(files, what, tag)
    elif "index.json" in files:
        layers, config = _oci(files, what, tag)
    else:
        raise InvalidInput(
            "image", what, "has neither manifest.json nor index.json: it is no archive of an image",
            hint="the tar of a root file system is taken as tar:FILE",
        )  # fmt: skip
    wanted = _strings(_dict(config.get("rootfs"), "rootfs").get("diff_ids"), "diff_ids")
    if len(wanted) != len(layers):
        raise TreeError(f"{what} has {len(layers)} layers, and its configuration names {len(wanted)}", hint=_HINT)
    tree = FileTree()
    for number, (blob, diff_id) in enumerate(zip(layers, wanted, strict=True), 1):
        on_progress(Progress(f"read {what}", (number - 1) / len(layers), f"layer {number} of {len(layers)}"))
        layer = spool.plain(blob, f"layer {number} of {what}", limits)
        _check(layer, diff_id, f"layer {number} of {what}")
        found = tar.members(layer, limits=limits, need_end=False)  # its digest says that it is whole
        tar.add_layer(tree, found, limits=limits, devices=devices, whiteouts=True)
    on_progress(Progress(f"read {what}", 1.0))
    return tree


def _docker(files: FileTree, what: str, tag: str) -> tuple[list[Content], Mapping[str, Any]]:
    images = _json(files, "manifest.json")
    if not isinstance(images, list) or not images:
        raise TreeError(f"manifest.json of {what} names no image", hint=_HINT)
    named = [(image, _strings(image.get("RepoTags") or [], "RepoTags")) for image in map(_image, images)]
    image = _choose([(image, tags) for image, tags in named], what, tag)
    config = str(image.get("Config"))
    match = re.search(r"([0-9a-f]{64})(\.json)?$", config)
    if match:
        _check(_file(files, config), f"sha256:{match[1]}", repr(config[:200]))
    layers = [_file(files, name) for name in _strings(image.get("Layers"), "Layers")]
    return layers, _dict(_parsed(_file(files, config), "the configuration"), "the configuration")


def _image(value: Any) -> Mapping[str, Any]:
    return _dict(value, "manifest.json")


def _oci(files: FileTree, what: str, tag: str) -> tuple[list[Content], Mapping[str, Any]]:
    index = _dict(_json(files, "index.json"), "index.json")
    candidates = []
    for entry in _list(index.get("manifests"), "manifests"):
        annotations = _dict(_dict(entry, "manifests").get("annotations") or {}, "annotations")
        name = annotations.get("org.opencontainers.image.ref.name") or annotations.get("io.containerd.image.name")
        candidates.append((entry, [str(name)] if name else []))
    entry = _of_this_machine(candidates, what) if not tag else _choose(candidates, what, tag)
    for _ in range(4):  # an index may name an index
        blob = _blob(files, entry)
        document = _dict(_parsed(blob, "a manifest"), "a manifest")
        if document.get("mediaType", entry.get("mediaType")) not in _INDEXES and "manifests" not in document:
            layers = [_blob(files, layer) for layer in _list(document.get("layers"), "layers")]
            return layers, _dict(_parsed(_blob(files, document.get("config")), "config"), "config")
        entry = _of_this_machine([(each, []) for each in _list(document.get("manifests"), "manifests")], what)
    raise TreeError(f"the indexes of {what} name each other", hint=_HINT)


def _of_this_machine(candidates: list[tuple[Any, list[str]]], what: str) -> Mapping[str, Any]:
    """The manifest of Linux on this kind of machine, where several are named by their platforms."""
    machine = _MACHINES.get(platform.machine(), platform.machine())
    entries = [(_dict(entry, "manifests"), names) for entry, names in candidates]
    fitting = [(entry, names) for entry, names in entries if _platform(entry) in ((), ("linux", machine))]
    if not fitting and len(entries) > 1:
        raise InvalidInput("image", what, f"holds no image of linux/{machine}", hint="make it with that --platform")
    return _choose(fitting or entries, what, "")


def _platform(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    named = _dict(entry.get("platform") or {}, "platform")
    return (named.get("os"), named.get("architecture")) if named else ()


def _choose(images: list[tuple[Any, list[str]]], what: str, tag: str) -> Mapping[str, Any]:
    known = ", ".join(map(repr, (name for _, names in images for name in names))) or "none"
    fitting = [image for image, names in images if not tag or any(_same(tag, name) for name in names)]
    if len(fitting) != 1:
        raise InvalidInput(
            "image",
            f"{what}:{tag}" if tag else what,
            f"names {len(fitting)} images of the archive",
            hint=f"write PATH:NAME with one of its names: {known}",
        )
    return _dict(fitting[0], "image")


def _same(tag: str, name: str) -> bool:
    return name in (tag, f"{tag}:latest") or name.rpartition("/")[2] == tag or name.rpartition(":")[2] == tag


def _blob(files: FileTree, descriptor: Any) -> Content:
    digest = str(_dict(descriptor, "a descriptor").get("digest"))
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise TreeError(f"the archive names a blob by {digest[:80]!r}, which is no SHA-256", hint=_HINT)
    blob = _file(files, f"blobs/sha256/{match[1]}")
    size = descriptor.get("size")
    if size != blob.size:
        raise TreeError(f"blob {digest} has {blob.size} bytes, not {size!r}", hint=_HINT)
    _check(blob, digest, "blob")
    return blob


def _file(files: FileTree, name: str) -> Content:
    key = files.find(name)
    if key is None or not key or not files[key].is_file:
        raise TreeError(f"the archive names {name[:200]!r}, which is not in it", hint=_HINT)
    return files[key].content


def _check(content: Content, digest: str, what: str) -> None:
    found = hashlib.sha256()
    for chunk in content.chunks():
        found.update(chunk)
    if f"sha256:{found.hexdigest()}" != digest:
        raise TreeError(
            f"{what} is not what its digest {digest[:80]!r} says (it is sha256:{found.hexdigest()})", hint=_HINT
        )


def _json(files: FileTree, name: str) -> Any:
    return _parsed(_file(files, name), name)


def _parsed(content: Content, what: str) -> Any:
    if content.size > _JSON_BYTES:
        raise TreeError(
            f"{what} of the archive has {content.size} bytes, more than the limit {_JSON_BYTES}", hint=_HINT
        )
    try:
        return json.loads(content.read())
    except (ValueError, RecursionError) as error:
        raise TreeError(f"{what} of the archive is no JSON: {error}", hint=_HINT) from error


def _dict(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TreeError(f"{what} of the archive is no object", hint=_HINT)
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise TreeError(f"{what} of the archive is no list", hint=_HINT)
    return value


def _strings(value: Any, what: str) -> list[str]:
    return [str(item) for item in _list(value, what)]
