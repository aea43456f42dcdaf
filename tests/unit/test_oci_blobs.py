"""The blobs of an archive: links, digests, sizes, media types; what cannot be read is refused by its name."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import AconError, TreeError
from acon_nb.initrd import tree_of
from acon_nb.initrd.sources.oci import platforms
from tests.unit.image_archives import (
    AMD64,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Layout,
    config_of,
    files_of,
    layer_tar,
    packed,
    saved_image,
)

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NOT_DISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
MINE = {"who": b"mine"}


@pytest.fixture(autouse=True)
def amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "of_this_machine", lambda: platforms.ImagePlatform("amd64"))


def blob_path(folder: Path, descriptor: dict[str, str]) -> Path:
    return folder / "blobs" / descriptor["digest"].replace(":", "/")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A layout with one image."""
    layout = Layout()
    return packed(layout.files(layout.image()), tmp_path / "layout")


def test_blobs_that_are_links_inside_the_layout_are_read(folder: Path) -> None:
    """As in Debian's official image: blobs/sha256/... -> ../../rootfs.tar.gz."""
    for number, blob in enumerate(sorted((folder / "blobs/sha256").iterdir())):
        blob.rename(folder / f"file{number}")
        target = f"../../file{number}" if number else folder / "file0"
        blob.symlink_to(target)
    assert files_of(tree_of(f"oci:{folder}")) == MINE
    packed_again = folder.with_name("x.tar")
    with tarfile.open(packed_again, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() and path.readlink().is_absolute():
                path.unlink()
                path.symlink_to("../../file0")
            archive.add(path, str(path.relative_to(folder)), recursive=False)
    assert files_of(tree_of(f"oci:{packed_again}")) == MINE


def test_links_that_git_stored_as_files_are_read(folder: Path) -> None:
    """A checkout with core.symlinks=false has files with the links' targets."""
    for number, blob in enumerate(sorted((folder / "blobs/sha256").iterdir())):
        blob.rename(folder / f"file{number}")
        blob.write_text(f"../../file{number}")
    assert files_of(tree_of(f"oci:{folder}")) == MINE
    (folder / "file0").write_bytes(b"x")
    with pytest.raises(TreeError, match="bytes, not"):
        tree_of(f"oci:{folder}")


def test_blobs_that_are_links_to_a_cache_outside_are_read_and_verified(folder: Path) -> None:
    """As rules_oci of Bazel writes them; a folder or each file may be the link."""
    cache = folder.with_name("cache")
    (folder / "blobs/sha256").rename(cache)
    (folder / "blobs/sha256").symlink_to("../../cache")
    assert files_of(tree_of(f"oci:{folder}")) == MINE
    (folder / "blobs/sha256").unlink()
    (folder / "blobs/sha256").mkdir()
    for blob in cache.iterdir():
        (folder / "blobs/sha256" / blob.name).symlink_to(blob)
    assert files_of(tree_of(f"oci:{folder}")) == MINE
    for blob in cache.iterdir():
        data = blob.read_bytes()
        blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TreeError, match="does not match its digest"):
        tree_of(f"oci:{folder}")


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "manifest.json"])
def test_a_file_that_no_digest_verifies_is_not_read_from_outside(folder: Path, name: str) -> None:
    outside = folder.with_name("outside")
    outside.write_text('{"secret": 1}')
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(TreeError, match="outside of the folder") as caught:
        tree_of(f"oci:{folder}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zero", "fifo", "folder", "socket", "nowhere", "itself", "proc"])
@pytest.mark.parametrize("which", ["blob", "index.json"])
def test_what_is_not_a_regular_file_is_refused_at_once(folder: Path, kind: str, which: str) -> None:
    blobs = sorted((folder / "blobs/sha256").iterdir())
    target = folder / "index.json" if which == "index.json" else blobs[0]
    target.unlink()
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
            patch.chdir(target.parent)  # a socket's path holds 107 bytes
            server.bind(target.name)
    else:
        links = {"zero": "/dev/zero", "nowhere": "no/such/file", "itself": target.name, "proc": "/proc/self/mem"}
        target.symlink_to(links[kind])
    with pytest.raises(TreeError, match=r"regular file|which does not exist|cannot be read|outside|bytes, not"):
        tree_of(f"oci:{folder}")


def test_a_layout_by_sha512_is_read_and_verified(tmp_path: Path) -> None:
    layout = Layout("sha512")
    image = layout.image()
    path = packed(layout.files(image), tmp_path / "x")
    assert files_of(tree_of(f"oci:{path}")) == MINE
    assert files_of(tree_of(f"oci:{path}@{image['digest'][:20]}")) == MINE
    blob = blob_path(path, layout.document(image)["layers"][0])
    blob.write_bytes(blob.read_bytes().replace(b"mine", b"evil"))
    with pytest.raises(TreeError, match="does not match its digest sha512:"):
        tree_of(f"oci:{path}")


@pytest.mark.parametrize(
    ("digest", "reason"),
    [
        ("blake3:" + "0" * 64, "algorithm blake3 is not supported"),
        ("sha1:" + "0" * 40, "algorithm sha1 is not supported"),
        ("sha256:" + "A" * 64, "is not a sha256"),
        ("sha256:" + "0" * 63, "is not a sha256"),
        ("sha512:" + "0" * 64, "is not a sha512"),
        ("sha256:../../etc/passwd", "is not a digest"),
        ("", "is not a digest"),
    ],
)
def test_a_digest_that_cannot_be_verified_is_refused_by_its_name(tmp_path: Path, digest: str, reason: str) -> None:
    entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}
    with pytest.raises(TreeError, match=reason):
        tree_of(f"oci:{packed(Layout().files(entry), tmp_path / 'x')}")


@pytest.mark.parametrize("size", [-1, 1.5, "9", None, True, 10**40])
def test_a_wrong_size_is_refused(tmp_path: Path, size: object) -> None:
    layout = Layout()
    with pytest.raises(TreeError, match=r"size of blob|bytes, not"):
        tree_of(f"oci:{packed(layout.files({**layout.image(), 'size': size}), tmp_path / 'x')}")


def test_embedded_data_stands_for_a_missing_blob_and_is_verified(tmp_path: Path) -> None:
    import base64

    layout = Layout()
    image = layout.image()
    data = base64.b64encode(layout.remove(image)).decode()
    assert files_of(tree_of(f"oci:{packed(layout.files({**image, 'data': data}), tmp_path / 'x')}")) == MINE
    wrong = base64.b64encode(b"x" * image["size"]).decode()
    with pytest.raises(TreeError, match="does not match its digest"):
        tree_of(f"oci:{packed(layout.files({**image, 'data': wrong}), tmp_path / 'y')}")
    for number, text in enumerate(["%", 5, data[:-1]]):
        with pytest.raises(TreeError, match="not base64"):
            tree_of(f"oci:{packed(layout.files({**image, 'data': text}), tmp_path / f'{number}')}")


@pytest.mark.parametrize("kind", [FOREIGN, NOT_DISTRIBUTABLE])
def test_a_foreign_layer_is_refused_naming_where_it_is_unless_it_is_there(tmp_path: Path, kind: str) -> None:
    layout = Layout()
    image = layout.image(layer_type=kind, pack=gzip.compress, urls=("https://example.invalid/layer",))
    assert files_of(tree_of(f"oci:{packed(layout.files(image), tmp_path / 'x')}")) == MINE
    layout.remove(layout.document(image)["layers"][0])
    with pytest.raises(TreeError, match=r"foreign layer.*https://example\.invalid/layer"):
        tree_of(f"oci:{packed(layout.files(image), tmp_path / 'y')}")
    plain = layout.image()
    layout.remove(layout.document(plain)["layers"][0])
    with pytest.raises(TreeError, match="does not contain layer 1"):
        tree_of(f"oci:{packed(layout.files(plain), tmp_path / 'z')}")


def test_a_foreign_layer_of_docker_save_is_refused_naming_where_it_is(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    entry, config = saved_image(files, "mine")
    (diff_id,) = json.loads(config)["rootfs"]["diff_ids"]
    entry["LayerSources"] = {diff_id: {"mediaType": FOREIGN, "urls": ["https://example.invalid/layer"]}}
    del files[entry["Layers"][0]]
    files["manifest.json"] = json.dumps([entry]).encode()
    with pytest.raises(TreeError, match=r"foreign layer.*https://example\.invalid/layer"):
        tree_of(f"docker-archive:{packed(files, tmp_path / 'x.tar')}")


HELM = "application/vnd.cncf.helm.config.v1+json"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layer_type": f"{OCI_LAYER}+gzip+encrypted"}, ("encrypted",)),
        ({"layer_type": "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted"}, ("encrypted",)),
        ({"manifest": {"artifactType": HELM}, "layer_type": "application/vnd.cncf.helm.chart"}, ("artifact", HELM)),
        ({"config_type": "application/vnd.wasm.config.v0+json"}, ("artifact", "vnd.wasm.config")),
        ({"layer_type": "application/vnd.example.squashfs"}, ("artifact", "vnd.example.squashfs")),
        ({"layer_type": f"{OCI_LAYER}+lzma"}, (f"{OCI_LAYER}+lzma",)),
        ({"manifest": {"schemaVersion": 1}}, ("schema 1",)),
        ({"manifest": {"fsLayers": []}}, ("schema 1",)),
        ({"manifest": {"manifests": []}}, ("both an index and a manifest",)),
        ({"manifest": {"mediaType": "application/vnd.oci.image.index.v1+json"}}, ("is a 'application",)),
        ({"manifest": {"config": None}}, ("config",)),
        ({"manifest": {"layers": None}}, ("layers",)),
    ],
    ids=str,
)
def test_what_is_not_an_image_that_can_be_read_is_refused_by_its_name(
    tmp_path: Path, fields: dict[str, object], words: tuple[str, ...]
) -> None:
    layout = Layout()
    with pytest.raises(AconError) as caught:
        tree_of(f"oci:{packed(layout.files(layout.image(**fields)), tmp_path / 'x')}")  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)
    assert "damaged or hostile" not in str(caught.value)


def test_one_layer_of_an_unknown_kind_among_others_is_named(tmp_path: Path) -> None:
    layout = Layout()
    tars = [layer_tar({"who": b"mine"}), layer_tar({"b": b""})]
    document = {
        "schemaVersion": 2,
        "config": layout.blob(config_of(tars, **AMD64), OCI_CONFIG),
        "layers": [layout.blob(tars[0], OCI_LAYER), layout.blob(tars[1], "application/x-squashfs")],
    }
    with pytest.raises(AconError, match="layer 2 is of the media type 'application/x-squashfs'"):
        tree_of(f"oci:{packed(layout.files(layout.json(document, OCI_MANIFEST)), tmp_path / 'x')}")


@pytest.mark.parametrize("kind", ["v1+json", "v1+prettyjws"])
def test_the_manifest_schema_1_of_docker_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    entry = Layout().blob(b"{}", f"application/vnd.docker.distribution.manifest.{kind}")
    with pytest.raises(AconError, match="schema 1, which is not supported"):
        tree_of(f"oci:{packed(Layout().files(entry), tmp_path / 'x')}")


@pytest.mark.parametrize("version", ["2.0.0", "", None, 1])
def test_a_layout_of_another_version_is_refused(tmp_path: Path, version: object) -> None:
    layout = Layout()
    files = layout.files(layout.image())
    files["oci-layout"] = json.dumps({"imageLayoutVersion": version}).encode()
    with pytest.raises(TreeError, match="imageLayoutVersion"):
        tree_of(f"oci:{packed(files, tmp_path / 'x')}")


def with_config(tmp_path: Path, config: bytes) -> str:
    layout = Layout()
    document = {
        "schemaVersion": 2,
        "config": layout.blob(config, OCI_CONFIG),
        "layers": [layout.blob(layer_tar({"who": b"mine"}), OCI_LAYER)],
    }
    return f"oci:{packed(layout.files(layout.json(document, OCI_MANIFEST)), tmp_path / 'x')}"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"{}", "has no rootfs"),
        (b'{"rootfs": null}', "has no rootfs"),
        (b'{"rootfs": []}', "rootfs of the archive is not"),
        (b'{"rootfs": {}}', "diff_ids"),
        (b'{"rootfs": {"diff_ids": [1]}}', "list of strings"),
        (b'{"rootfs": {"diff_ids": []}}', "has 1 layers, but its configuration lists 0"),
        (b'{"rootfs": {"diff_ids": ["sha256:%s"]}}' % (b"0" * 64), "does not match its digest"),
        (b'{"os": "li\\nnux", "architecture": "x"}', "invalid platform"),
        (b'{"os": 1, "architecture": "x"}', "invalid platform"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, config: bytes, reason: str) -> None:
    with pytest.raises(TreeError, match=reason):
        tree_of(with_config(tmp_path, config))


def gz_members(data: bytes) -> bytes:
    """Gzip members in a row, as eStargz and `bgzip` write them."""
    return b"".join(gzip.compress(data[start : start + 700]) for start in range(0, len(data), 700))


def zstd_chunked(data: bytes) -> bytes:
    """Frames in a row, and a skippable one with the table of contents at the end, as zstd:chunked has it."""
    frames = b"".join(zstandard.compress(data[start : start + 700]) for start in range(0, len(data), 700))
    return frames + struct.pack("<II", 0x184D2A50, 64) + bytes(64)


@pytest.mark.parametrize("pack", [gz_members, zstd_chunked, gzip.compress, zstandard.compress, bytes])
def test_layers_in_every_compression_of_registries_are_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    layout = Layout()
    path = packed(layout.files(layout.image(pack=pack, layer_type=f"{OCI_LAYER}+zstd")), tmp_path / "x")
    assert files_of(tree_of(f"oci:{path}")) == MINE


def test_empty_layers_and_no_layers_are_read(tmp_path: Path) -> None:
    """Empty: a tar of zeros, and no bytes at all."""
    layout = Layout()
    empty = [bytes(1024), b"", layer_tar({"who": b"mine"})]
    for number, layers in enumerate([empty, []]):
        document = {
            "schemaVersion": 2,
            "config": layout.blob(config_of(layers, **AMD64), OCI_CONFIG),
            "layers": [layout.blob(gzip.compress(layer) if layer else b"", OCI_LAYER) for layer in layers],
        }
        path = packed(layout.files(layout.json(document, OCI_MANIFEST)), tmp_path / f"{number}")
        assert files_of(tree_of(f"oci:{path}")) == (MINE if layers else {})


def test_a_tar_of_images_with_links_that_lead_out_is_refused(tmp_path: Path) -> None:
    layout = Layout()
    files: dict[str, bytes | str] = dict(layout.files(layout.image()))
    name = next(name for name in files if name.startswith("blobs/"))
    files[name] = "../../../../../etc/passwd"
    with pytest.raises(TreeError, match=r"is a link to .*which the archive does not contain"):
        tree_of(f"oci:{packed(files, tmp_path / 'x.tar')}")


def test_the_archive_of_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(AconError, match="is not a file"):
        tree_of(f"oci:{tmp_path}/pipe.tar")


VALUES = st.sampled_from(
    [
        "null",
        "true",
        "-1",
        "1.5",
        f"{10**30}",
        '""',
        '"x"',
        f'"sha256:{0:064}"',
        '"linux/amd64"',
        "[]",
        "[{}]",
        "{}",
        '{"a": 1}',
    ]
).map(json.loads)


def nodes(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The paths to all values of a JSON document."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from nodes(child, (*path, key))


def changed(document: Any, data: st.DataObject) -> Any:
    """A JSON document with a value replaced, removed or added, or two."""
    for _ in range(data.draw(st.integers(0, 2))):
        path = data.draw(st.sampled_from(list(nodes(document))))
        if not path:
            return data.draw(VALUES)
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[path[-1]] = data.draw(VALUES)
        else:
            del holder[path[-1]]
        if not isinstance(document, dict | list) or not document:
            break
    return document


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_documents_with_any_values_are_read_or_refused(data: st.DataObject) -> None:
    """Each document is changed at random, and the digests of the others follow, so that only its values are wrong."""
    layout = Layout()
    layer = layer_tar({"who": b"mine"})
    config = changed(json.loads(config_of([layer], **AMD64)), data)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.json(config, OCI_CONFIG),
        "layers": [layout.blob(layer, OCI_LAYER)],
    }
    entry = {**layout.json(changed(manifest, data), OCI_MANIFEST, platform=dict(AMD64)), "annotations": {"kind": "x"}}
    index = layout.json(changed({"schemaVersion": 2, "manifests": [entry]}, data), "")
    saved = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l.tar"], "LayerSources": {}}]
    files = {
        **layout.files(index),
        "index.json": json.dumps(changed({"schemaVersion": 2, "manifests": [index]}, data)).encode(),
        "oci-layout": json.dumps(changed({"imageLayoutVersion": "1.0.0"}, data)).encode(),
        "manifest.json": json.dumps(changed(saved, data)).encode(),
        "c.json": json.dumps(config).encode(),
        "l.tar": layer,
    }
    for name in data.draw(st.sets(st.sampled_from(["index.json", "manifest.json", "oci-layout"]), max_size=2)):
        del files[name]
    with tempfile.TemporaryDirectory() as folder:
        path = packed(files, Path(folder) / data.draw(st.sampled_from(["x", "x.tar"])))
        for prefix in ("oci", "docker-archive", "tar" if path.suffix else "dir"):
            with contextlib.suppress(AconError):
                tree = tree_of(f"{prefix}:{path}", platform="" if prefix in ("tar", "dir") else "linux/amd64")
                assert prefix in ("tar", "dir") or files_of(tree) in (MINE, {})
