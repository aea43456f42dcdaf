from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import FileTree, tree_of

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
Layer = dict[str, "bytes | str | None"]


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


def packed(files: dict[str, bytes], path: Path) -> Path:
    """Files as a folder, or as a tar when the path ends so."""
    if path.suffix != ".tar":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


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


def files_of(tree: FileTree) -> dict[str, bytes]:
    return {name.decode(): entry.content.read() for name, entry in tree.items() if not entry.is_dir}


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
def test_an_archive_of_docker_save_is_laid_in_order_with_its_whiteouts(tmp_path: Path, form: str) -> None:
    tree = tree_of(f"docker-archive:{packed(saved(LAYERS), tmp_path / form)}")
    assert files_of(tree) == EXPECTED
    assert tree["hard"].inode == tree["etc/a"].inode is not None


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gz", "zst"])
@pytest.mark.parametrize("form", ["x.tar", "x"])
def test_an_oci_layout_gives_the_same_tree_however_its_layers_are_packed(
    tmp_path: Path, form: str, pack: Callable[[bytes], bytes]
) -> None:
    assert files_of(tree_of(f"oci:{packed(oci(LAYERS, pack), tmp_path / form)}")) == EXPECTED


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    path = packed(saved(LAYERS), tmp_path / "x.tar")
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert files_of(tree_of(f"docker-archive:{tmp_path}/x.tar.gz")) == EXPECTED


def test_a_folder_a_link_and_a_file_take_each_others_place_between_layers(tmp_path: Path) -> None:
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
def test_a_changed_byte_is_found_by_its_digest(tmp_path: Path, kind: str) -> None:
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
    with pytest.raises(TreeError, match="not in it"):
        tree_of(f"docker-archive:{folder}")


def test_one_of_several_images_is_chosen_by_its_name(tmp_path: Path) -> None:
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
        assert "'acme/one:v1', 'two:latest'" in caught.value.hint


def test_the_words_of_an_archive_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = packed(saved([{"a": b""}], ["x:\x1b[31m"]), tmp_path / "x.tar")
    with pytest.raises(InvalidInput) as caught:
        tree_of(f"docker-archive:{path}:other")
    assert "\x1b" not in str(caught.value)


def test_of_several_platforms_the_one_of_this_machine_is_taken(tmp_path: Path) -> None:
    mine = oci([{"mine": b""}], os="linux", architecture=MACHINE)
    other = oci([{"other": b""}], os="linux", architecture="s390x")
    odd = oci([{"attestation": b""}], os="unknown", architecture="unknown")
    entries = [json.loads(each["index.json"])["manifests"][0] for each in (other, odd, mine)]
    index = json.dumps({"manifests": entries}).encode()
    path = packed({**other, **odd, **mine, "index.json": index}, tmp_path / "x")
    assert files_of(tree_of(f"oci:{path}")) == {"mine": b""}
    index = json.dumps({"manifests": entries[:2]}).encode()
    with pytest.raises(InvalidInput, match=f"no image of linux/{MACHINE}"):
        tree_of(f"oci:{packed({**other, **odd, 'index.json': index}, tmp_path / 'y')}")


def test_what_is_no_archive_of_an_image_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(layer_tar({"etc/passwd": b""}))
    with pytest.raises(InvalidInput) as caught:
        tree_of(f"docker-archive:{tmp_path}/x.tar")
    assert "tar:FILE" in caught.value.hint
    with pytest.raises(InvalidInput, match="missing"):
        tree_of(f"oci:{tmp_path}/missing")
