from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.archive import cpio
from acon_nb.cli import main
from acon_nb.errors import AconError
from acon_nb.initrd import Content, Entry, FileTree, create, diff, load


def small() -> FileTree:
    tree = FileTree()
    tree.add_file("init", b"#!/bin/sh\n", mode=0o755)
    tree.add_file("etc/a", b"same")
    tree.add_symlink("link", "etc/a")
    tree.add_device("dev/null", stat.S_IFCHR, 1, 3)
    for name in ("one", "two"):
        tree.add(name, Entry(mode=stat.S_IFREG | 0o644, inode=1, content=Content.of(b"linked")))
    return tree


def test_each_kind_of_difference_is_named(tmp_path: Path) -> None:
    left, right = small(), small()
    right.add_file("etc/a", b"Same", mode=0o600, mtime=5)
    right.add_symlink("link", "etc/b")
    right.add_device("dev/null", stat.S_IFCHR, 1, 5)
    right.add_file("two", b"linked")
    right.add_file("more", b"")
    right.add("init", Entry(mode=stat.S_IFREG | 0o755, uid=7, content=Content.of(b"#!/bin/sh\n#")))
    paths = [
        create(tree, tmp_path / name, mtime=None, owner=None).path for tree, name in ((left, "l.gz"), (right, "r.xz"))
    ]
    found = {(row.name, row.what, row.left, row.right) for row in diff(*paths) if row.what != "bytes"}
    assert found == {
        ("'dev/null'", "device", "1:3", "1:5"),
        ("'etc/a'", "mode", "0644", "0600"),
        ("'etc/a'", "time", "0", "5"),
        ("'init'", "owner", "0:0", "7:0"),
        ("'init'", "size", "10", "11"),
        ("'link'", "target", "'etc/a'", "'etc/b'"),
        ("'more'", "presence", "absent", "file"),
        ("'one'", "hard links", "'one', 'two'", "none"),
        ("'two'", "hard links", "'one', 'two'", "none"),
    }
    assert [row.name for row in diff(*paths) if row.what == "bytes"] == ["'etc/a'"]


def test_an_image_equals_itself_and_another_compression_is_reported(tmp_path: Path) -> None:
    one, two, three = (create(small(), tmp_path / name).path for name in ("a.gz", "b.gz", "c.xz"))
    assert diff(one, two) == []
    (row,) = diff(one, three)
    assert str(row).startswith("image: bytes (compression")
    assert "gz, " in row.left
    assert "xz, " in row.right


def test_the_command_ends_with_1_when_anything_differs(tmp_path: Path) -> None:
    one = create(small(), tmp_path / "a.zst").path
    other = small()
    other.add_file("etc/new\nline", b"")
    two = create(other, tmp_path / "b.lz4").path
    result = CliRunner().invoke(main, ["initrd", "diff", str(one), str(two)])
    assert (result.exit_code, result.stdout) == (1, "'etc/new\\nline': presence: absent -> file\n")
    result = CliRunner().invoke(main, ["initrd", "diff", str(one), str(two), "--json"])
    assert json.loads(result.stdout)["differences"][0]["what"] == "presence"
    assert CliRunner().invoke(main, ["initrd", "diff", str(one), str(one)]).exit_code == 0
    assert CliRunner().invoke(main, ["initrd", "diff", str(one), str(tmp_path / "no")]).exit_code == 2


def test_consecutive_archives_are_merged_as_in_the_kernel(tmp_path: Path) -> None:
    early = FileTree()
    early.add_file("kernel/microcode", b"early")
    out = io.BytesIO()
    cpio.write(early, out)
    whole = tmp_path / "x"
    whole.write_bytes(out.getvalue() + bytes(512) + create(small(), tmp_path / "b.zst").path.read_bytes())
    tree = load(whole)
    assert tree["kernel/microcode"].content.read() == b"early"
    assert tree["etc/a"].content.read() == b"same"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=600), st.sampled_from(["", "gz", "xz", "zst", "lz4", "bz2"]), st.integers(0, 400))
def test_a_damaged_image_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, suffix: str, place: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = create(small(), folder / (f"x.{suffix}" if suffix else "x")).path
    raw = path.read_bytes()
    path.write_bytes(raw[:place] + noise + raw[place + len(noise) :])
    try:
        load(path)
    except AconError:
        return


def test_memory_of_a_comparison_does_not_grow_with_the_images(tmp_path: Path) -> None:
    import subprocess

    big = tmp_path / "big"
    big.write_bytes(bytes(150 << 20))
    tree = small()
    tree.add_file("big", big)
    paths = [create(tree, tmp_path / name, level=1).path for name in ("a.gz", "b.lz4")]
    script = (
        "import sys; from pathlib import Path; from acon_nb.initrd import diff\n"
        "assert len(diff(*map(Path, sys.argv[1:]))) == 1\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    argv = [sys.executable, "-c", script, *map(str, paths)]
    assert int(subprocess.run(argv, capture_output=True, text=True, timeout=600, check=True).stdout) < 100 << 10
