"""`initrd diff --by`: what an image grew by, attributed to packages, layers and folders."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import stat
import struct
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.initrd import Content, Entry, FileTree, create, tree_of
from acon_nb.initrd.growth import NO_PACKAGE, Attribution, growth
from acon_nb.initrd.package_databases import installed
from acon_nb.plots import plot_growth
from acon_nb.plots.treemap import Rectangle, squarified
from tests.unit.archives import tar_of

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Source: glibc
Version: {libc}
Description: shared libraries
 Package: not-a-field
 .

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: dash
Status: install ok installed
Architecture: amd64
Version: 0.5.12-2
"""


def debian(libc: str = "2.36-9", size: int = 5000) -> FileTree:
    """A merged-usr tree, whose database lists names below /bin and /lib."""
    tree = FileTree()
    tree.add_dir("usr/bin")
    tree.add_dir("usr/lib")
    tree.add_symlink("bin", "usr/bin")
    tree.add_symlink("lib", "usr/lib")
    tree.add_file("usr/lib/libc.so.6", b"c" * size)
    tree.add_file("usr/bin/dash", b"d" * 700, mode=0o755)
    tree.add_symlink("usr/bin/sh", "dash")
    tree.add_file("init", b"#!/bin/sh\n", mode=0o755)
    tree.add_file("var/lib/dpkg/status", STATUS.format(libc=libc).encode())
    tree.add_file("var/lib/dpkg/info/libc6:amd64.list", b"/.\n/lib\n/lib/libc.so.6\n")
    tree.add_file("var/lib/dpkg/info/dash.list", b"/.\n/bin\n/bin/dash\n/bin/sh\n/usr/share/doc/dash\n")
    tree.add_file("etc/os-release", b'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\n')
    return tree


def test_files_belong_to_packages_through_the_links_of_a_merged_usr() -> None:
    packages = installed(debian())
    assert [(it.kind, it.name, it.version, it.source) for it in packages.packages] == [
        ("deb", "dash", "0.5.12-2", ""),
        ("deb", "libc6", "2.36-9", "glibc"),
    ]
    assert packages.distribution == ("debian", "12")
    assert {name: it.name for name, it in packages.owners().items() if it.name == "libc6" and b"." in name} == {
        b"usr/lib/libc.so.6": "libc6"
    }
    assert packages.owners()[b"usr/bin/sh"].name == "dash"


def test_growth_is_attributed_to_packages_with_their_versions() -> None:
    rows = growth(debian(), debian("2.41-1", 6000), Attribution.PACKAGE)
    assert rows.differs
    first = rows.rows[0]
    assert (first.name, first.growth_bytes, first.left, first.right) == ("libc6", 1000, "2.36-9", "2.41-1")
    assert {row.name: row.growth_bytes for row in rows.rows} == {"libc6": 1000, "dash": 0, NO_PACKAGE: 0}
    assert not growth(debian(), debian(), Attribution.PACKAGE).differs
    one, other = debian(), debian()
    one.add_file("etc/x", b"a")
    other.add_file("etc/x", b"b")
    assert growth(one, other, Attribution.FOLDER).differs


def test_distroless_images_have_a_file_for_each_package() -> None:
    tree = FileTree()
    tree.add_file("usr/lib/libssl.so", b"x" * 9)
    tree.add_file("var/lib/dpkg/status.d/libssl3", b"Package: libssl3\nVersion: 3.0\nArchitecture: arm64\n")
    tree.add_file("var/lib/dpkg/status.d/libssl3.md5sums", b"d41d8cd98f00b204e9800998ecf8427e  usr/lib/libssl.so\n")
    (package,) = installed(tree).packages
    assert (package.name, package.version) == ("libssl3", "3.0")
    assert package.files == {b"usr/lib/libssl.so"}


@pytest.mark.parametrize("name", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_the_database_of_apk_is_read(name: str) -> None:
    tree = FileTree()
    tree.add_file(
        name,
        b"C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld-musl-x86_64.so.1\na:0:0:755\nZ:Q1y=\n"
        b"R:libc.musl-x86_64.so.1\n\nP:baselayout\nV:3\nA:x86_64\nF:\nR:init\nF:etc\n\n",
    )
    musl = next(it for it in installed(tree).packages if it.name == "musl")
    assert (musl.kind, musl.version, musl.architecture, musl.license) == ("apk", "1.2.5-r0", "x86_64", "MIT")
    assert musl.files == {b"lib/ld-musl-x86_64.so.1", b"lib/libc.musl-x86_64.so.1"}
    assert installed(tree).owners()[b"init"].name == "baselayout"


def rpm_header(name: str, version: str, release: str, epoch: int, files: list[str]) -> bytes:
    above = [path.rpartition("/")[0] + "/" for path in files]
    folders = sorted({*above})
    entries: list[tuple[int, int, int, bytes]] = [
        (1000, 6, 1, name.encode() + b"\0"),
        (1001, 6, 1, version.encode() + b"\0"),
        (1002, 6, 1, release.encode() + b"\0"),
        (1003, 4, 1, struct.pack(">I", epoch)),
        (1004, 9, 2, b"summary\0r\xc3\xa9sum\xc3\xa9\0"),
        (1014, 6, 1, b"MIT\0"),
        (1022, 6, 1, b"x86_64\0"),
        (
            1116,
            4,
            len(files),
            b"".join(struct.pack(">I", folders.index(name)) for name in above),
        ),
        (1117, 8, len(files), b"".join(path.rpartition("/")[2].encode() + b"\0" for path in files)),
        (1118, 8, len(folders), b"".join(folder.encode() + b"\0" for folder in folders)),
    ]
    index, data = b"", b""
    for tag, kind, count, value in entries:
        data += bytes(-len(data) % 4)
        index += struct.pack(">4I", tag, kind, len(data), count)
        data += value
    return struct.pack(">2I", len(entries), len(data)) + index + data


def rpm_database(path: Path, *, wal: bool) -> bytes:
    connection = sqlite3.connect(path)
    if wal:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
    for header in (
        rpm_header("bash", "5.2.26", "3.fc40", 0, ["/usr/bin/bash", "/usr/bin/sh", "/etc/bashrc"]),
        rpm_header("shadow", "4.15", "1", 2, ["/usr/bin/passwd"]),
    ):
        connection.execute("INSERT INTO Packages (blob) VALUES (?)", (header,))
    connection.commit()
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize("wal", [False, True])
def test_the_sqlite_database_of_rpm_is_read(tmp_path: Path, wal: bool) -> None:
    tree = FileTree()
    tree.add_file("usr/lib/sysimage/rpm/rpmdb.sqlite", rpm_database(tmp_path / "db", wal=wal))
    bash, shadow = installed(tree).packages
    assert (bash.name, bash.version, bash.architecture, bash.license) == ("bash", "5.2.26-3.fc40", "x86_64", "MIT")
    assert bash.files == {b"usr/bin/bash", b"usr/bin/sh", b"etc/bashrc"}
    assert shadow.version == "2:4.15-1"


def test_databases_that_are_not_read_are_named() -> None:
    tree = FileTree()
    tree.add_file("var/lib/rpm/Packages", b"\0" * 99)
    tree.add_file("usr/lib/sysimage/rpm/rpmdb.sqlite", b"SQLite format 3\0 damaged" * 9)
    notes = growth(tree, FileTree(), Attribution.PACKAGE).notes
    assert any("var/lib/rpm/Packages was not read" in note for note in notes)
    assert any("rpmdb.sqlite was not read" in note for note in notes)
    assert any("no package database" in note for note in notes)


def trees() -> st.SearchStrategy[FileTree]:
    def made(files: list[tuple[str, int]]) -> FileTree:
        tree = debian()
        for name, size in files:
            tree.add_file(f"usr/{name}", b"x" * size)
        tree.add("usr/one", Entry(mode=stat.S_IFREG | 0o644, inode=1, content=Content.of(b"linked")))
        tree.add("var/two", Entry(mode=stat.S_IFREG | 0o644, inode=1, content=Content.of(b"linked")))
        return tree

    name = st.sampled_from(["a", "b/c", "b/d/e", "bin/dash", "lib/libc.so.6"])
    return st.lists(st.tuples(name, st.integers(0, 9000)), max_size=4).map(made)


@settings(max_examples=60, deadline=None)
@given(trees(), trees(), st.sampled_from([Attribution.PACKAGE, Attribution.FOLDER]), st.integers(1, 4))
def test_rows_add_up_to_the_sizes_of_the_trees(left: FileTree, right: FileTree, by: Attribution, depth: int) -> None:
    rows = growth(left, right, by, depth=depth)
    for tree, total in ((left, rows.left_bytes), (right, rows.right_bytes)):
        files = [entry.content.size for _, entry in tree.items() if not entry.is_dir]
        assert total == sum(files) - len(b"linked")  # the second name of the hard link
    assert sum(row.growth_bytes for row in rows.rows) == rows.right_bytes - rows.left_bytes


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60), st.floats(0.2, 5))
def test_a_treemap_fills_its_frame_without_overlap(values: list[int], ratio: float) -> None:
    values.sort(reverse=True)
    frame = Rectangle(0.0, 0.0, ratio, 1.0)
    boxes = squarified(values, frame)
    for value, box in zip(values, boxes, strict=True):
        assert box.area == pytest.approx(frame.area * value / sum(values), rel=1e-6)
        assert box.x >= -1e-9
        assert box.y >= -1e-9
        assert box.x + box.width <= frame.width + 1e-6
        assert box.y + box.height <= frame.height + 1e-6
    assert sum(box.area for box in boxes) == pytest.approx(frame.area)


def test_the_blocks_of_the_figure_add_up_to_the_right_side() -> None:
    left, right = FileTree(), FileTree()
    for number in range(300):
        right.add_file(f"f{number}/x", b"x" * (number + 1))
    left.add_file("old/x", b"x" * 77)
    rows = growth(left, right, Attribution.FOLDER)
    figure = plot_growth(rows)
    patches = figure.axes[0].patches
    areas = [patch.get_width() * patch.get_height() for patch in patches]  # type: ignore[attr-defined]
    assert sum(areas) == pytest.approx(1.6)
    assert len(areas) == 41
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "gone: /old (−77 B)" in texts


def docker_archive(path: Path, layers: list[dict[str, bytes]], commands: list[str]) -> Path:
    blobs = [tar_of(files) for files in layers]
    digests = [f"sha256:{hashlib.sha256(blob).hexdigest()}" for blob in blobs]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [{"created_by": "ENV A=1", "empty_layer": True}, *({"created_by": text} for text in commands)],
    }
    names = [f"{number}/layer.tar" for number in range(len(blobs))]
    manifest = [{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]
    members = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as archive:
        for name, data in {**members, **dict(zip(names, blobs, strict=True))}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_growth_is_attributed_to_layers_and_their_commands(tmp_path: Path) -> None:
    base = {"etc/a": b"a" * 10, "etc/gone": b"g" * 99}
    one = docker_archive(tmp_path / "one.tar", [base], ["ADD rootfs"])
    top = {"etc/a": b"A" * 30, "etc/.wh.gone": b"", "usr/b": b"b" * 5}
    two = docker_archive(tmp_path / "two.tar", [base, top], ["ADD rootfs", "RUN apk add\tb"])
    left, right = (tree_of(f"docker-archive:{path}") for path in (one, two))
    rows = growth(left, right, Attribution.LAYER)
    assert {row.name: (row.left_bytes, row.right_bytes) for row in rows.rows} == {
        "layer 1: ADD rootfs": (109, 0),
        "layer 2: RUN apk add b": (0, 35),
    }
    right.add_file("init", b"mine")
    assert {row.name for row in growth(left, right, Attribution.LAYER).rows} >= {"(no layer)"}
    result = CliRunner().invoke(
        main, ["initrd", "diff", f"docker-archive:{one}", f"docker-archive:{two}", "--by", "layer", "--json"]
    )
    assert result.exit_code == 1, result.output
    printed = json.loads(result.stdout)
    assert (printed["growth_bytes"], printed["left_bytes"], printed["right_bytes"]) == (-74, 109, 35)


def test_files_have_no_layers(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="needs two images with layers"):
        growth(debian(), debian(), Attribution.LAYER)
    with pytest.raises(InvalidInput, match="below 1"):
        growth(debian(), debian(), Attribution.FOLDER, depth=0)


def test_the_command_prints_a_table_and_draws_a_figure(tmp_path: Path) -> None:
    paths = [
        create(tree, tmp_path / name).path for tree, name in ((debian(), "a.gz"), (debian("2.41-1", 6000), "b.xz"))
    ]
    argv = ["initrd", "diff", *map(str, paths)]
    picture = tmp_path / "growth.svg"
    result = CliRunner().invoke(main, [*argv, "--by", "package", "--plot", str(picture)])
    assert result.exit_code == 1, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["growth", "left", "right", "package"]
    assert lines[1].split() == ["+1,000", "5,007", "6,007", "libc6", "2.36-9", "->", "2.41-1"]
    assert lines[-1].split()[0] == "+1,000"
    assert picture.read_text().startswith("<?xml")
    same = CliRunner().invoke(main, ["initrd", "diff", str(paths[0]), str(paths[0]), "--by", "folder"])
    assert same.exit_code == 0
    assert CliRunner().invoke(main, [*argv, "--plot", str(picture)]).exit_code == 2
