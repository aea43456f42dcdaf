"""Lists the images of an archive from its manifest.json (`docker save`) and index.json (OCI layout); it may have both.

Sources: the OCI image specification 1.1 (image-layout.md, image-index.md, manifest.md, descriptor.md), Docker's image
specification 1.2 and its manifest schema 2, BuildKit's attestation storage, cosign's layout of `cosign save`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from acon_nb.archive.tree import Content
from acon_nb.errors import TreeError
from acon_nb.initrd.sources.oci.files import HINT, ImageFiles, StoredFile, as_dict, as_list, parsed, strings
from acon_nb.initrd.sources.oci.platforms import ImagePlatform

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json", "")
_LAYER = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar)"
    r"(?:[.+](?:gzip|zstd))?"
)
_ENCRYPTED = "+encrypted"
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_REFERENCE = "vnd.docker.reference.type"
_COSIGN = "dev.cosignproject.cosign/"
_COSIGN_IMAGES = ("image", "imageIndex")
_DEPTH = 4
# Where manifests and other blobs are: in an OCI layout; in a folder of `podman save --format docker-dir`, skopeo's dir:
_LAYOUT = ("blobs/{algorithm}/{encoded}", "blobs/{algorithm}/{encoded}")
_FOLDER = ("{encoded}.manifest.json", "{encoded}")


@dataclass(frozen=True, kw_only=True)
class ArchivedImage:
    """One image that an archive lists, or something else, in which case `other` names what it is.

    `positions` are its places in the list at the top (for each tag, say), none if that is not the list that positions
    refer to; `digests` are those of its manifest, of the indexes around it and of its configuration. `problem` is why
    it cannot be read.
    """

    names: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    digests: tuple[str, ...] = ()
    config_digest: str = ""
    config: Mapping[str, Any] | None = None
    layers: tuple[StoredFile, ...] = ()
    platform: ImagePlatform | None = None
    other: str = ""
    missing: bool = False
    problem: str = ""

    @property
    def key(self) -> str:
        """What it has in common with the same image under other names, or in another compression."""
        return self.config_digest or self.digests[0]


def images_of(files: ImageFiles, *, docker_first: bool) -> list[ArchivedImage] | None:
    """List what an archive contains, or None if it is not an archive of images.

    Parameters: positions (`@0`) are those of manifest.json with `docker_first`, else of index.json, if it has both.
    Errors: `TreeError` for a damaged archive.
    """
    lists = [("manifest.json", _saved), ("index.json", _indexed)]
    listed = []
    for name, read in lists if docker_first else lists[::-1]:
        content = files.find(name)
        if content is not None:
            listed.append(list(read(files, content)))
    if not listed:
        return None
    first, *others = listed
    images = [*first, *(replace(image, positions=()) for other in others for image in other)]
    names: dict[str, dict[str, None]] = {}
    for image in images:
        names.setdefault(image.key, {}).update(dict.fromkeys(image.names))
    joined = {key: tuple(each) for key, each in names.items()}
    return [replace(image, names=joined[image.key]) for image in images]


def _saved(files: ImageFiles, content: Content) -> Iterator[ArchivedImage]:
    document = parsed(content, "manifest.json")
    if isinstance(document, dict):  # not a list of images, but the manifest of one, or its index
        base = ArchivedImage(positions=(0,), digests=(_sha256(content),))
        yield from _of_document(files, document, str(document.get("mediaType")), base, _DEPTH, _FOLDER)
        return
    if not as_list(document, "manifest.json"):
        raise TreeError(f"manifest.json of {files.what} lists no images", hint=HINT)
    for position, item in enumerate(document):
        image = as_dict(item, "manifest.json")
        name = str(image.get("Config"))
        match = re.search(r"([0-9a-f]{64})(\.json)?$", name)
        stored = StoredFile(name=name, digest=f"sha256:{match[1]}" if match else "")
        body = stored.content(files)
        config = as_dict(parsed(body, "a configuration"), "a configuration")
        digest = stored.digest or _sha256(body)
        yield ArchivedImage(
            names=tuple(strings(image.get("RepoTags") or [], "RepoTags")),
            positions=(position,),
            digests=(digest,),
            config_digest=digest,
            config=config,
            layers=tuple(_saved_layers(image, config)),
            platform=ImagePlatform.of_record(config),
        )


def _saved_layers(image: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[StoredFile]:
    """List the layers of an image of manifest.json; `LayerSources` describes those that are stored elsewhere."""
    sources = as_dict(image.get("LayerSources") or {}, "LayerSources")
    root = config.get("rootfs")
    diff_ids = root.get("diff_ids") if isinstance(root, dict) else None
    for number, name in enumerate(strings(image.get("Layers") or [], "Layers")):
        diff_id = diff_ids[number] if isinstance(diff_ids, list) and number < len(diff_ids) else None
        source = sources.get(diff_id) if isinstance(diff_id, str) else None
        urls = strings(as_dict(source, "LayerSources").get("urls") or [], "urls") if source is not None else []
        yield StoredFile(name=name, urls=tuple(urls))


def _indexed(files: ImageFiles, content: Content) -> Iterator[ArchivedImage]:
    layout = files.find("oci-layout")
    if layout is not None:
        version = as_dict(parsed(layout, "oci-layout"), "oci-layout").get("imageLayoutVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            reason = f"{files.what} has the imageLayoutVersion {version!r:.40}, which is not supported"
            raise TreeError(reason, hint="create it as version 1.0.0")
    index = as_dict(parsed(content, "index.json"), "index.json")
    groups: dict[str, tuple[Any, list[str], list[int]]] = {}  # an image is listed once for each of its tags
    for position, item in enumerate(as_list(index.get("manifests"), "manifests of index.json")):
        entry = as_dict(item, "a descriptor")
        annotations = as_dict(entry.get("annotations") or {}, "annotations")
        names = [str(annotations[key]) for key in _NAMES if annotations.get(key)]
        others = {key: value for key, value in annotations.items() if key not in _NAMES}
        group = groups.setdefault(json.dumps({**entry, "annotations": others}, sort_keys=True), (entry, [], []))
        group[1].extend(names)
        group[2].append(position)
    for entry, names, positions in groups.values():
        base = ArchivedImage(names=tuple(names), positions=tuple(positions))
        yield from _of_descriptor(files, entry, base, _DEPTH, _LAYOUT)


def _of_descriptor(
    files: ImageFiles, value: Any, base: ArchivedImage, depth: int, layout: tuple[str, str]
) -> Iterator[ArchivedImage]:
    """List the images that a descriptor of an index leads to; `base` is what the indexes around it say."""
    entry = as_dict(value, "a descriptor")
    annotations = as_dict(entry.get("annotations") or {}, "annotations")
    stored = StoredFile.of_descriptor(entry, layout[0])
    record = as_dict(entry.get("platform") or {}, "platform")
    image = replace(
        base,
        digests=(stored.digest, *base.digests),
        platform=ImagePlatform.of_record(record),
    )
    other = _not_an_image(annotations, image.platform, stored.media_type)
    if other:
        yield replace(image, other=other)
        return
    content = stored.find(files)
    if content is None:
        yield replace(image, missing=True, problem="the archive does not contain it")
        return
    document = as_dict(parsed(content, "a manifest"), "a manifest")
    kind = document.get("mediaType", stored.media_type)
    if stored.media_type and (kind in INDEX_TYPES) != (stored.media_type in INDEX_TYPES):
        raise TreeError(f"blob {stored.digest} is a {kind!r:.80}, not a {stored.media_type[:80]!r}", hint=HINT)
    yield from _of_document(files, document, kind, image, depth, layout)


def _of_document(
    files: ImageFiles,
    document: Mapping[str, Any],
    kind: str,
    image: ArchivedImage,
    depth: int,
    layout: tuple[str, str],
) -> Iterator[ArchivedImage]:
    """List the image of a manifest, or the images of an index."""
    if "manifests" in document and ("layers" in document or "config" in document):
        # CVE-2021-41190: tools would disagree on what it is
        raise TreeError(f"blob {image.digests[0]} is both an index and a manifest", hint=HINT)
    if kind not in INDEX_TYPES and "manifests" not in document:
        yield _of_manifest(files, document, image, layout[1])
    elif not depth:
        raise TreeError(f"the indexes of {files.what} are nested too deeply", hint=HINT)
    else:
        for each in as_list(document.get("manifests"), "manifests"):
            yield from _of_descriptor(files, each, image, depth - 1, layout)


def _not_an_image(annotations: Mapping[str, Any], platform: ImagePlatform | None, media_type: str) -> str:
    """Return what a descriptor refers to if it is not an image, as far as the descriptor shows it."""
    if annotations.get(_REFERENCE):
        return str(annotations[_REFERENCE]).removesuffix("-manifest")
    kind = str(annotations.get("kind") or "")
    if kind.startswith(_COSIGN) and kind.removeprefix(_COSIGN) not in _COSIGN_IMAGES:
        return f"{kind.removeprefix(_COSIGN)} of cosign"
    if platform is not None and platform.is_unknown:
        return "attestation"
    if media_type in _SCHEMA_1:
        return "image of Docker's manifest schema 1, which is not supported"
    if media_type and media_type not in (*INDEX_TYPES, *_MANIFESTS):
        return f"artifact ({media_type})"
    return ""


def _of_manifest(files: ImageFiles, document: Mapping[str, Any], image: ArchivedImage, blobs: str) -> ArchivedImage:
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        return replace(image, other="image of Docker's manifest schema 1, which is not supported")
    descriptor = as_dict(document.get("config"), "config of a manifest")
    kind = str(descriptor.get("mediaType") or "")
    if kind not in _CONFIGS:
        return replace(image, other=f"artifact ({document.get('artifactType') or kind})")
    layers = tuple(StoredFile.of_descriptor(each, blobs) for each in as_list(document.get("layers"), "layers"))
    types = [layer.media_type for layer in layers]
    if types and not any(not each or _LAYER.fullmatch(each) or each.endswith(_ENCRYPTED) for each in types):
        return replace(image, other=f"artifact ({document.get('artifactType') or types[0]})")
    stored = StoredFile.of_descriptor(descriptor, blobs)
    image = replace(image, layers=layers, config_digest=stored.digest, digests=(*image.digests, stored.digest))
    content = stored.find(files)
    if content is None:
        return replace(image, missing=True, problem="the archive does not contain its configuration")
    config = as_dict(parsed(content, "a configuration"), "a configuration")
    platform = image.platform or ImagePlatform.of_record(config)
    if platform is not None and platform.is_unknown:
        return replace(image, other="attestation")
    return replace(image, config=config, platform=platform, problem=_problem(layers))


def _problem(layers: tuple[StoredFile, ...]) -> str:
    for number, layer in enumerate(layers, 1):
        if layer.media_type.endswith(_ENCRYPTED):
            return f"layer {number} is encrypted ({layer.media_type})"
        if layer.media_type and not _LAYER.fullmatch(layer.media_type):
            return f"layer {number} is of the media type {layer.media_type!r}, which is not supported"
    return ""


def _sha256(content: Content) -> str:
    return f"sha256:{content.digest()}"
