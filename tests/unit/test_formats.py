"""A file or folder under the wrong prefix is refused with the right one."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest

from acon_nb.archive import cpio
from acon_nb.errors import AconError, InvalidInput
from acon_nb.initrd import FileTree, tree_of
from tests.unit.archives import tar_of


def rootfs() -> FileTree:
    tree = FileTree()
    tree.add_file("init", b"#!/bin/sh\n", mode=0o755)
    return tree


def cpio_of() -> bytes:
    out = io.BytesIO()
    cpio.write(rootfs(), out)
    return out.getvalue()


SAVED = {"manifest.json": json.dumps([{"Config": "c.json", "Layers": ["l.tar"]}]).encode(), "l.tar": b"", "c.json": b""}
LAYOUT = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": b'{"manifests": []}', "blobs/sha256/x": b""}
ROOT = {"etc/hostname": b"x", "init": b"#!/bin/sh\n"}
FILES = {
    "rootfs.tar": tar_of(ROOT),
    "rootfs.tar.gz": gzip.compress(tar_of(ROOT)),
    "saved.tar": tar_of(SAVED),
    "layout.tar": tar_of(LAYOUT),
    "initrd.cpio": cpio_of(),
    "initrd.cpio.gz": gzip.compress(cpio_of()),
    "x.zip": b"PK\x03\x04" + bytes(600),
    "x.deb": b"!<arch>\ndebian-binary   " + bytes(600),
    "x.squashfs": b"hsqs" + bytes(600),
    "x.ext4": bytes(1080) + b"\x53\xef" + bytes(9000),
    "x.iso": bytes(32769) + b"CD001" + bytes(9000),
    "x.lz": b"LZIP\x01" + bytes(600),
}
FOLDERS = {"rootfs": ROOT, "saved": SAVED, "layout": LAYOUT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("formats")
    for name, raw in FILES.items():
        (top / name).write_bytes(raw)
    for name, files in FOLDERS.items():
        for path, body in files.items():
            (top / name / path).parent.mkdir(parents=True, exist_ok=True)
            (top / name / path).write_bytes(body)
    return top


@pytest.mark.parametrize(
    ("prefix", "name", "what", "hint"),
    [
        ("tar", "saved.tar", "is an archive of images", "docker-archive:{}"),
        ("tar", "layout.tar", "is an archive of images", "oci:{}"),
        ("tar", "initrd.cpio", "initrd.cpio: not a tar, but a cpio archive", "cpio:FILE"),
        ("tar", "initrd.cpio.gz", "not a tar, but a cpio archive", "cpio:FILE"),
        ("tar", "rootfs", "is a folder, not a file", "dir:{}"),
        ("tar", "saved", "is a folder, not a file", "docker-archive:{}"),
        ("tar", "layout", "is a folder, not a file", "oci:{}"),
        ("tar", "x.zip", "not a tar, but a zip archive", "dir:FOLDER"),
        ("tar", "x.deb", "not a tar, but a Debian package", "dpkg-deb --fsys-tarfile FILE"),
        ("tar", "x.squashfs", "not a tar, but a squashfs image", "unsquashfs"),
        ("tar", "x.ext4", "not a tar, but an ext2, ext3 or ext4 file system", "dir:FOLDER"),
        ("tar", "x.iso", "not a tar, but an ISO 9660 image", "dir:FOLDER"),
        ("tar", "x.lz", "not a tar, but lzip data", "lzip -d FILE"),
        ("oci", "rootfs.tar", "is not an archive of an image", "tar:{}"),
        ("oci", "rootfs.tar.gz", "is not an archive of an image", "tar:{}"),
        ("oci", "rootfs", "is not an archive of an image", "dir:{}"),
        ("oci", "initrd.cpio", "not a tar, but a cpio archive", "cpio:FILE"),
        ("docker-archive", "rootfs.tar", "is not an archive of an image", "tar:{}"),
        ("docker-archive", "rootfs", "is not an archive of an image", "dir:{}"),
        ("docker-archive", "initrd.cpio.gz", "not a tar, but a cpio archive", "cpio:FILE"),
        ("dir", "rootfs.tar", "is not a folder, but a tar", "tar:FILE"),
        ("dir", "initrd.cpio", "is not a folder, but a cpio archive", "cpio:FILE"),
        ("dir", "initrd.cpio.gz", "is not a folder, but gzip data", "cpio:{}"),
        ("dir", "saved", "is an archive of images", "docker-archive:{}"),
        ("dir", "layout", "is an archive of images", "oci:{}"),
        ("cpio", "rootfs.tar", "a tar, which kernels do not read as an initrd", "tar:FILE"),
        ("cpio", "rootfs.tar.gz", "a tar, which kernels do not read as an initrd", "tar:FILE"),
        ("cpio", "x.squashfs", "a squashfs image, which kernels do not read", "unsquashfs"),
        ("cpio", "rootfs", "is a folder, not a file", "dir:{}"),
    ],
)
def test_the_right_prefix_is_named(folder: Path, prefix: str, name: str, what: str, hint: str) -> None:
    path = folder / name
    with pytest.raises(AconError) as caught:
        tree_of(f"{prefix}:{path}")
    assert what in caught.value.what
    assert hint.format(path) in caught.value.hint


def test_the_right_prefix_reads_the_same_files(folder: Path) -> None:
    assert "init" in tree_of(f"tar:{folder}/rootfs.tar.gz")
    assert "init" in tree_of(f"dir:{folder}/rootfs")
    assert "init" in tree_of(f"cpio:{folder}/initrd.cpio.gz")


def test_a_root_file_system_with_a_manifest_of_its_own_is_no_archive_of_images(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({**ROOT, "manifest.json": b'{"name": "app"}', "index.json": b"[]"}))
    assert "manifest.json" in tree_of(f"tar:{tmp_path}/x.tar")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    for prefix in ("tar", "cpio", "oci", "docker-archive"):
        with pytest.raises(InvalidInput, match="missing"):
            tree_of(f"{prefix}:{tmp_path}/missing")
