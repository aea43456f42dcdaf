from __future__ import annotations

import gzip
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import tree_of
from tests.unit.image_archives import Layer, files_of, layer_tar, packed, sha

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def saved(layers: list[Layer], tags: list[str] | None = None) -> dict[str, bytes]:
    """What `docker save` (before its version 25) writes."""
    tars = [layer_tar(layer) for layer in layers]
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(tar)}" for tar in tars]}}).encode()
    files = {f"{number}/layer.tar": tar for number, tar in enumerate(tars)}
    manifest = [{"Config": f"{sha(config)}.json", "RepoTags": tags or ["x:latest"], "Layers": list(files)}]
    return {f"{sha(config)}.json": config, **files, "manifest.json": json.dumps(manifest).encode()}


def oci(
    layers: list[Layer], pack: Callable[[bytes], bytes] = bytes, names: list[str] | None = None, **platform_: str
) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, kind: str = "", **more: Any) -> dict[str, Any]:
        blobs[f"blobs/sha256/{sha(data)}"] = data
        return {"mediaType": kind, "digest": f"sha256:{sha(data)}", "size": len(data), **more}

    tars = [layer_tar(layer) for layer in layers]
    config = blob(json.dumps({"rootfs": {"diff_ids": [f"sha256:{sha(tar)}" for tar in tars]}}).encode())
    manifest = {"schemaVersion": 2, "config": config, "layers": [blob(pack(tar)) for tar in tars]}
    entry = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    if platform_:
        entry["platform"] = platform_
    entries = [{**entry, "annotations": {"org.opencontainers.image.ref.name": name}} for name in names or []]
    index = {"schemaVersion": 2, "manifests": entries or [entry]}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}


LAYERS: list[Layer] = [
    {
        "etc": None,
        "etc/a": b"1",
        "etc/b": b"1",
        "gone": b"1",
        "opaque": None,
        "opaque/old": b"1",
        "opaque/sub/old": b"1",
    },
    {"etc/a": b"2", ".wh.gone": b"", "opaque/new": b"2", "opaque/.wh..wh..opq": b"", "etc/.wh.never": b""},
    {"etc/.wh.b": b"", "hard": "=etc/a", ".wh..wh.plnk": b""},
]
EXPECTED = {"etc/a": b"2", "hard": b"2", "opaque/new": b"2"}


@pytest.mark.parametrize("form", ["x.tar", "x"])
def test_layers_of_docker_save_are_applied_in_order_with_whiteouts(tmp_path: Path, form: str) -> None:
    tree = tree_of(f"docker-archive:{packed(saved(LAYERS), tmp_path / form)}")
    assert files_of(tree) == EXPECTED
    assert tree["hard"].inode == tree["etc/a"].inode is not None


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gz", "zst"])
@pytest.mark.parametrize("form", ["x.tar", "x"])
def test_an_oci_layout_gives_the_same_tree_for_every_compression(
    tmp_path: Path, form: str, pack: Callable[[bytes], bytes]
) -> None:
    assert files_of(tree_of(f"oci:{packed(oci(LAYERS, pack), tmp_path / form)}")) == EXPECTED


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    path = packed(saved(LAYERS), tmp_path / "x.tar")
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert files_of(tree_of(f"docker-archive:{tmp_path}/x.tar.gz")) == EXPECTED


def test_folders_links_and_files_replace_each_other_between_layers(tmp_path: Path) -> None:
    layers: list[Layer] = [
        {"a": None, "a/x": b"1", "b": b"1", "c": "a", "lib": None, "lib/x": b"1"},
        {"a": b"2", "b": None, "b/l": "x", "b/y": b"2", "c": None, "c/z": b"2", "lib": "usr/lib", "usr/lib/x": b"2"},
    ]
    tree = tree_of(f"docker-archive:{packed(saved(layers), tmp_path / 'x.tar')}")
    found = files_of(tree)
    assert found == {"a": b"2", "b/l": b"x", "b/y": b"2", "c/z": b"2", "lib": b"usr/lib", "usr/lib/x": b"2"}


def test_a_copy_of_a_linked_file_in_an_upper_layer_breaks_the_link(tmp_path: Path) -> None:
    layers: list[Layer] = [{"a": b"1", "b": "=a"}, {"a": b"2"}]
    assert files_of(tree_of(f"docker-archive:{packed(saved(layers), tmp_path / 'x.tar')}")) == {"a": b"2", "b": b"1"}


@pytest.mark.parametrize("kind", ["layer", "config", "oci layer", "oci manifest"])
def test_a_changed_byte_is_detected_by_its_digest(tmp_path: Path, kind: str) -> None:
    files = oci([{"a": b"hello"}]) if "oci" in kind else saved([{"a": b"hello"}])
    marks = {"layer": b"hello", "config": b'"type"', "oci layer": b"hello", "oci manifest": b"schemaVersion"}
    for name, data in files.items():
        if marks[kind] in data and name not in ("index.json", "manifest.json"):
            files[name] = data.replace(marks[kind], marks[kind][::-1])
    with pytest.raises(TreeError, match="digest"):
        tree_of(f"oci:{packed(files, tmp_path / 'x.tar')}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.json", b"{"),
        ("index.json", b"[]"),
        ("index.json", b'{"manifests": 1}'),
        ("index.json", b'{"manifests": [1]}'),
        ("index.json", b'{"manifests": [{"digest": "sha256:../../../../etc/passwd", "size": 1}]}'),
        ("index.json", b'{"manifests": [{"digest": "md5:0", "size": 1}]}'),
        ("index.json", b"[" * 200_000),
        ("manifest.json", b'[{"Config": "../../etc/passwd", "Layers": []}]'),
        ("manifest.json", b'[{"Config": "/etc/passwd", "Layers": ["/etc/shadow"]}]'),
        ("manifest.json", b"[]"),
        ("manifest.json", b"[1]"),
        ("manifest.json", b'[{"Config": "\\ud800", "Layers": []}]'),
        ("index.json", b'{"manifests": [{"platform": "linux"}]}'),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["x.tar", "x"])
def test_a_hostile_archive_is_refused(tmp_path: Path, name: str, text: bytes, form: str) -> None:
    with pytest.raises(TreeError):
        tree_of(f"oci:{packed({**oci([{'a': b'1'}]), name: text}, tmp_path / form)}")


def test_a_link_of_the_archive_never_leads_to_the_host(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(layer_tar({"stolen": b"x"}))
    folder = packed(saved([{"stolen": b"x"}]), tmp_path / "x")
    (folder / "0/layer.tar").unlink()
    (folder / "0/layer.tar").symlink_to(secret)
    with pytest.raises(TreeError, match="outside of the folder"):
        tree_of(f"docker-archive:{folder}")


def test_one_of_several_images_is_selected_by_name(tmp_path: Path) -> None:
    one, two = saved([{"one": b""}], ["acme/one:v1"]), saved([{"two": b""}], ["two:latest"])
    two = {name.replace("0/", "1/"): data for name, data in two.items()}
    two["manifest.json"] = two["manifest.json"].replace(b"0/", b"1/")
    images = json.loads(one["manifest.json"]) + json.loads(two["manifest.json"])
    path = packed({**one, **two, "manifest.json": json.dumps(images).encode()}, tmp_path / "x.tar")
    assert files_of(tree_of(f"docker-archive:{path}:v1")) == {"one": b""}
    assert files_of(tree_of(f"docker-archive:{path}:two")) == {"two": b""}
    assert files_of(tree_of(f"docker-archive:{path}:two:latest")) == {"two": b""}
    assert files_of(tree_of(f"docker-archive:{path}:acme/one:v1")) == {"one": b""}
    for name in ("", ":three"):
        with pytest.raises(InvalidInput) as caught:
            tree_of(f"docker-archive:{path}{name}")
        assert ":acme/one:v1 " in caught.value.details[1]
        assert ":two:latest " in caught.value.details[2]
        assert caught.value.hint == f"choose one of them, such as docker-archive:{path}:acme/one:v1"


def test_texts_of_an_archive_cannot_control_a_terminal(tmp_path: Path) -> None:
    path = packed(saved([{"a": b""}], ["x:\x1b[31m"]), tmp_path / "x.tar")
    with pytest.raises(InvalidInput) as caught:
        tree_of(f"docker-archive:{path}:other")
    assert "\x1b" not in str(caught.value)


def test_the_image_for_this_platform_is_selected(tmp_path: Path) -> None:
    mine = oci([{"mine": b""}], os="linux", architecture=MACHINE)
    other = oci([{"other": b""}], os="linux", architecture="s390x")
    odd = oci([{"attestation": b""}], os="unknown", architecture="unknown")
    entries = [json.loads(each["index.json"])["manifests"][0] for each in (other, odd, mine)]
    index = json.dumps({"manifests": entries}).encode()
    path = packed({**other, **odd, **mine, "index.json": index}, tmp_path / "x")
    assert files_of(tree_of(f"oci:{path}")) == {"mine": b""}
    index = json.dumps({"manifests": entries[:2]}).encode()
    with pytest.raises(InvalidInput, match=f"no image for linux/{MACHINE}"):
        tree_of(f"oci:{packed({**other, **odd, 'index.json': index}, tmp_path / 'y')}")


def test_other_archives_are_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(layer_tar({"etc/passwd": b""}))
    with pytest.raises(InvalidInput) as caught:
        tree_of(f"docker-archive:{tmp_path}/x.tar")
    assert f"tar:{tmp_path}/x.tar" in caught.value.hint
    with pytest.raises(InvalidInput, match="missing"):
        tree_of(f"oci:{tmp_path}/missing")
