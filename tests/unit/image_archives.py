"""Archives of images, made by code in the shapes that tools write."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from acon_nb.initrd import FileTree

Layer = Mapping[str, "bytes | str | None"]
Descriptor = dict[str, Any]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}


def layer_tar(files: Layer) -> bytes:
    """A layer's tar: bytes are a file, text a symbolic link's target (or `=NAME`: a hard link), None a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, what in files.items():
            info = tarfile.TarInfo(name)
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
                if what.startswith("="):
                    info.type, info.linkname = tarfile.LNKTYPE, what[1:]
            else:
                info.size = len(what)
            archive.addfile(info, io.BytesIO(what if isinstance(what, bytes) else b""))
    return out.getvalue()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(files: Mapping[str, bytes | str], path: Path) -> Path:
    """Files (text: symbolic links) as a folder, or as a tar when the path ends so."""
    if path.suffix == ".tar":
        path.write_bytes(layer_tar(files))
        return path
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            (path / name).symlink_to(data)
        else:
            (path / name).write_bytes(data)
    return path


def files_of(tree: FileTree) -> dict[str, bytes]:
    return {name.decode(): entry.content.read() for name, entry in tree.items() if not entry.is_dir}


def config_of(layers: list[bytes], **fields: Any) -> bytes:
    """A configuration, whose platform may be among the fields."""
    diff_ids = [f"sha256:{sha(layer)}" for layer in layers]
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids}, **fields}).encode()


def saved_image(
    files: dict[str, bytes], who: str, tags: list[str] | None = None, **config: Any
) -> tuple[dict[str, Any], bytes]:
    """Add an image with one file, `who`, to the files of an archive; return its entry of manifest.json, its config."""
    layer = layer_tar({"who": who.encode()})
    text = config_of([layer], **(config or AMD64))
    files |= {f"blobs/sha256/{sha(layer)}": layer, f"blobs/sha256/{sha(text)}": text}
    entry = {"Config": f"blobs/sha256/{sha(text)}", "RepoTags": tags, "Layers": [f"blobs/sha256/{sha(layer)}"]}
    return entry, text


class Layout:
    """An OCI layout to be: its blobs so far. `image` adds one with a file `who`, which names it."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self.blobs: dict[str, bytes] = {}
        self.algorithm = algorithm

    def blob(self, data: bytes, kind: str = "", **more: Any) -> Descriptor:
        encoded = hashlib.new(self.algorithm, data).hexdigest()
        self.blobs[f"blobs/{self.algorithm}/{encoded}"] = data
        return {"mediaType": kind, "digest": f"{self.algorithm}:{encoded}", "size": len(data), **more}

    def json(self, document: Any, kind: str, **more: Any) -> Descriptor:
        return self.blob(json.dumps(document).encode(), kind, **more)

    def image(
        self,
        who: str = "mine",
        *,
        config: Mapping[str, str] = AMD64,
        config_type: str = OCI_CONFIG,
        layer_type: str = OCI_LAYER,
        pack: Callable[[bytes], bytes] = bytes,
        urls: tuple[str, ...] = (),
        manifest: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Descriptor:
        layer = layer_tar({"who": who.encode()})
        layers = [self.blob(pack(layer), layer_type, **({"urls": list(urls)} if urls else {}))]
        body = self.blob(config_of([layer], **config), config_type)
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": body, "layers": layers, **(manifest or {})}
        return self.json(document, OCI_MANIFEST, **more)

    def index(self, *entries: Descriptor, **more: Any) -> Descriptor:
        return self.json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, OCI_INDEX, **more)

    def files(self, *entries: Descriptor) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "manifests": entries}
        head = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        return {**head, **self.blobs}

    def remove(self, descriptor: Descriptor) -> bytes:
        """Take a blob away; return it."""
        return self.blobs.pop("blobs/" + descriptor["digest"].replace(":", "/"))

    def document(self, descriptor: Descriptor) -> Any:
        return json.loads(self.blobs["blobs/" + descriptor["digest"].replace(":", "/")])


def named(name: str) -> dict[str, dict[str, str]]:
    """The annotations of a descriptor with a name."""
    return {"annotations": {REF_NAME: name}}
