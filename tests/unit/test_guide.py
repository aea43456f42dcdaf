from __future__ import annotations

import io
import json
import lzma
import os
import pty
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.archive import cpio
from acon_nb.cli import main
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import (
    DEFAULT_MTIME,
    Content,
    Entry,
    FileTree,
    abs2relinks,
    abs2rellinks,
    create,
    diff_trees,
    from_folder,
    guide,
    hard2symlinks,
    init,
    load,
    overlay,
    write_folder,
)
from acon_nb.initrd.sources.folder import SIDECAR, edit_folder
from tests.unit import stacks

NOTHING = {"F": "", "C": "", "T": ""}


def names(tree: FileTree) -> list[str]:
    return [os.fsdecode(name) for name, _ in tree.items()]


def container(path: Path) -> str:
    """A small image's tar, with what the guide's functions treat."""
    members = [
        ("bin/busybox", tarfile.REGTYPE, "", 0o4755),
        ("bin/sh", tarfile.LNKTYPE, "bin/busybox", 0),
        ("sbin/init", tarfile.SYMTYPE, "/bin/busybox", 0),
        ("etc/passwd", tarfile.REGTYPE, "", 0o644),
        ("etc/shadow", tarfile.REGTYPE, "", 0o000),
        ("var/mail", tarfile.DIRTYPE, "", 0o2775),
        ("fifo", tarfile.FIFOTYPE, "", 0o640),
        ("proc/1", tarfile.REGTYPE, "", 0o644),
        ("dev/null", tarfile.CHRTYPE, "", 0o666),
        ("sys", tarfile.DIRTYPE, "", 0o755),
        ("mnt", tarfile.DIRTYPE, "", 0o755),
    ]
    with tarfile.open(path, "w") as archive:
        for name, kind, link, mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode, info.mtime = kind, link, mode, 1000
            info.uid, info.gid = (8, 12) if name == "var/mail" else (0, 42) if name == "etc/shadow" else (0, 0)
            body = name.encode() if kind == tarfile.REGTYPE else b""
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return f"tar:{path}"


@pytest.mark.skipif(shutil.which("touch") is None, reason="touch is not here")
@settings(max_examples=30, deadline=None)
@given(st.datetimes(datetime(1970, 1, 2), datetime(2068, 12, 31)), st.sampled_from(["%Y", "%y", ""]), st.booleans())
def test_times_are_parsed_as_by_touch(
    tmp_path_factory: pytest.TempPathFactory, moment: datetime, year: str, seconds: bool
) -> None:
    text = moment.strftime(f"{year}%m%d%H%M" + (".%S" if seconds else ""))
    file = tmp_path_factory.mktemp("touch") / "file"
    env = {**os.environ, "TZ": "UTC"}
    if subprocess.run(["touch", "-t", text, file], env=env, capture_output=True, check=False).returncode:
        with pytest.raises(InvalidInput):
            guide.parse_time(text)  # such as 29 February of a year without one
    else:
        assert guide.parse_time(text) == int(file.stat().st_mtime)


def test_the_guides_times() -> None:
    assert guide.parse_time(".") == DEFAULT_MTIME == datetime(2000, 1, 1, tzinfo=UTC).timestamp()
    assert guide.parse_time("2012310000") == datetime(2020, 12, 31, tzinfo=UTC).timestamp()
    assert guide.parse_time("0001010000") == DEFAULT_MTIME
    assert guide.parse_time("") is None
    assert guide.parse_time("01010000") == datetime(time.gmtime().tm_year, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text", ["x", "2020", "202013010000", "202002300000", "2001010000.99", "..", "196901010000", "1234567"]
)
def test_an_invalid_time_is_refused_by_the_variables_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=f"T='{text}'"):
        guide.Variables(time=text)


def test_variables_come_from_the_environment() -> None:
    assert guide.Variables.of_environment({"F": "1", "C": "xz", "T": "."}) == guide.Variables(True, "xz", ".")
    assert guide.Variables.of_environment(NOTHING) == guide.Variables()
    with pytest.raises(InvalidInput, match="C='rar'") as caught:
        guide.Variables(compression="rar")
    assert "gz, bz2, xz, zst, lz4" in caught.value.hint


@pytest.mark.parametrize(
    ("tree", "image", "suffix", "expected"),
    [
        ("a/bbox", None, "", "a/initrd-bbox.cpio"),
        ("a/bbox/", None, "xz", "a/initrd-bbox.cpio.xz"),
        ("a/bbox/.", None, "", "a/initrd-bbox.cpio"),
        ("a/bbox", "b/i.cpio", "gz", "b/i.cpio.gz"),
        ("a/bbox", "b/i.cpio.gz", "gz", "b/i.cpio.gz"),
    ],
)
def test_the_image_is_written_where_the_guide_says(
    tmp_path: Path, tree: str, image: str | None, suffix: str, expected: str
) -> None:
    path = guide.image_path(tmp_path / tree, tmp_path / image if image else None, guide.Variables(compression=suffix))
    assert path == tmp_path / expected


def test_the_guides_example_with_an_edit_and_repacking(tmp_path: Path) -> None:
    bbox = tmp_path / "bbox"
    made = guide.gen_initrd(bbox, container(tmp_path / "x.tar"), variables=guide.Variables(compression="gz", time="."))
    assert made.image.path == tmp_path / "initrd-bbox.cpio.gz"
    first = load(made.image.path)
    assert {"init", "etc/fstab", "etc/passwd", "bin/sh", "dev/console"} <= set(names(first))
    assert not {"proc/1", "mnt"} & set(names(first))
    assert first["sbin/init"].content.read() == b"../bin/busybox"
    assert first["bin/busybox"].mode == stat.S_IFREG | 0o4755
    assert first["bin/sh"].inode == first["bin/busybox"].inode is not None
    assert (first["etc/shadow"].mode, first["etc/shadow"].gid) == (stat.S_IFREG, 42)
    assert (first["var/mail"].mode, first["var/mail"].uid) == (stat.S_IFDIR | 0o2775, 8)
    assert stat.S_ISFIFO(first["fifo"].mode)
    assert first["dev/console"].device == (5, 1)
    assert {entry.mtime for _, entry in first.items()} == {DEFAULT_MTIME}

    with (bbox / "etc/fstab").open("a") as file:
        file.write("/dev/vda none swap sw,discard 0 0\n")
    (bbox / "root/.ssh").mkdir(parents=True, exist_ok=True)
    (bbox / "root/.ssh/authorized_keys").write_text("key")
    (bbox / "etc/passwd").chmod(0o600)
    (bbox / "fifo").unlink()
    second = load(guide.create_initrd(bbox, variables=guide.Variables(time=".")).path)
    rows = {(row.name, row.what) for row in diff_trees(first, second)}
    assert rows == {
        ("'etc/fstab'", "size"),
        ("'root/.ssh'", "presence"),
        ("'root/.ssh/authorized_keys'", "presence"),
        ("'etc/passwd'", "mode"),
        ("'fifo'", "presence"),
    }
    assert second["etc/fstab"].content.read().endswith(b"sw,discard 0 0\n")
    assert (second["root/.ssh"].uid, second["etc/passwd"].mode & 0o777) == (0, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_an_unprivileged_user_gets_the_same_bytes_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, user = container(tmp_path / "x.tar"), 65534
    variables = guide.Variables(time=".")
    # The other user may have no right to this checkout, as below /root: our files are copied, our modules imported.
    monkeypatch.setattr(init, "FILES", Path(shutil.copytree(init.FILES, tmp_path / "files")))
    by_root = guide.gen_initrd(tmp_path / "0/bbox", image, variables=variables).image.sha256
    folder = tmp_path / str(user)
    folder.mkdir()
    os.chown(folder, user, user)
    for above in (tmp_path, *(path for path in tmp_path.parents if "pytest-of" in str(path))):
        above.chmod(0o755)
    out, back = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.write(back, guide.gen_initrd(folder / "bbox", image, variables=variables).image.sha256.encode())
        except BaseException:
            os.write(back, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(back)
    with os.fdopen(out) as pipe:
        by_user = pipe.read()
    os.waitpid(child, 0)
    assert by_user == by_root
    assert (tmp_path / "65534/bbox/bin/busybox").stat().st_mode & 0o7777 == 0o755  # no set-id bit on the host


def test_a_second_gen_initrd_keeps_user_files_and_force_regenerates_the_others(tmp_path: Path) -> None:
    bbox, image = tmp_path / "bbox", container(tmp_path / "x.tar")
    guide.gen_initrd(bbox, image)
    (bbox / "mine").write_text("mine")
    made = load(guide.gen_initrd(bbox, image, variables=guide.Variables(force=True)).image.path)
    assert made["mine"].content.read() == b"mine"


def test_gen_initrd_refuses_an_invalid_suffix_and_image_before_writing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        guide.gen_initrd(tmp_path / "bbox", "tar:missing")
    assert os.listdir(tmp_path) == []


def test_writing_a_tree_never_follows_a_link_out(tmp_path: Path) -> None:
    host, bbox = tmp_path / "host", tmp_path / "bbox"
    host.mkdir()
    (host / "file").write_text("untouched")
    bbox.mkdir()
    (bbox / "etc").symlink_to(host)
    (bbox / "file").symlink_to(host / "file")
    tree = FileTree()
    tree.add_file("etc/file", b"new")
    tree.add_file("file", b"new")
    tree.add_symlink("up", "../../../../../etc")
    tree.add_symlink("deep/up", "../../x/../../host/file")
    tree.add_symlink("deep/ok", "../file")
    write_folder(tree, bbox)
    assert (host / "file").read_text() == "untouched"
    assert os.listdir(host) == ["file"]
    assert (bbox / "etc/file").read_text() == "new"
    assert str((bbox / "up").readlink()) == "etc"
    assert str((bbox / "deep/ok").readlink()) == "../file"
    for link in ("up", "deep/up"):
        assert (bbox / link).resolve().is_relative_to(bbox)


def test_a_link_that_climbs_through_other_links_stays_inside(tmp_path: Path) -> None:
    """Seen from the text alone `near/../../x` stays in the folder; `near` leads to its top."""
    tree = FileTree()
    for name in ("x", "a/b/x", "a/x"):
        tree.add_file(name, name.encode())
    tree.add_symlink("near", "a/..")
    tree.add_symlink("far", "a/b")
    tree.add_symlink("a/up", "../near/../../x")
    tree.add_symlink("via", "far/../x")
    tree.add_symlink("root", "/near/../..")
    (tmp_path / "x").write_text("of the host")
    write_folder(tree, tmp_path / "bbox")
    assert (tmp_path / "bbox/a/up").read_text() == "x"
    assert (tmp_path / "bbox/via").read_text() == "a/x"
    assert (tmp_path / "bbox/via").readlink() == Path("far/../x")
    assert (tmp_path / "bbox/root").resolve() == tmp_path / "bbox"
    again = from_folder(tmp_path / "bbox")
    assert all(again.find(name) == tree.find(name) for name, _ in tree.items())


def test_a_folder_of_the_user_is_not_replaced_by_a_link_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(stacks.tar(["bin -> usr/bin", "usr/bin/sh = sh", "init -> bin/sh"]))
    bbox = stacks.folder(tmp_path / "bbox", ["bin/mytool = mine"])
    with pytest.raises(InvalidInput, match="is a folder with contents, but in the image it is a link to 'usr/bin'"):
        guide.gen_initrd(bbox, f"tar:{tmp_path}/x.tar")
    assert os.listdir(bbox) == ["bin"]
    (bbox / "usr").mkdir()
    (bbox / "bin").rename(bbox / "usr/bin")
    made = load(guide.gen_initrd(bbox, f"tar:{tmp_path}/x.tar").image.path)
    assert made["bin/mytool"].content.read() == b"mine"
    assert made["bin"].is_link


def test_a_hard_link_made_on_disk_has_what_the_sidecar_says_of_the_file(tmp_path: Path) -> None:
    tree = FileTree()
    tree.add("bin/su", Entry(mode=stat.S_IFREG | 0o4755, uid=7, content=Content.of(b"su")))
    write_folder(tree, tmp_path)
    os.link(tmp_path / "bin/su", tmp_path / "a")
    os.link(tmp_path / "bin/su", tmp_path / "z")
    again = from_folder(tmp_path, owner=(0, 0))
    assert {(again[name].mode, again[name].uid) for name in ("a", "bin/su", "z")} == {(0o104755, 7)}


def test_what_edits_lose_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "edits").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "edits/socket"))
        tree = FileTree()
        overlay(tree, tmp_path / "edits")
    assert "socket" in "\n".join(tree.warnings())


def test_a_change_of_mode_alone_keeps_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"tool")

    def change(tree: FileTree) -> None:
        tree.add("tool", replace(tree["tool"], mode=stat.S_IFREG | 0o4755))

    edit_folder(tmp_path, change)
    assert (tmp_path / "tool").read_bytes() == b"tool"
    assert from_folder(tmp_path)["tool"].mode == stat.S_IFREG | 0o4755


def test_a_folder_that_needs_no_sidecar_gets_none(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert guide.abs2rellinks(tmp_path) == 1
    assert os.listdir(tmp_path) == ["link"]


def test_a_damaged_sidecar_is_refused_by_its_line(tmp_path: Path) -> None:
    tree = FileTree()
    tree.add_file("init", b"", mode=0o4755)
    write_folder(tree, tmp_path)
    lines = (tmp_path / SIDECAR).read_text().splitlines()
    for bad in ('{"name": "x"}', "[]", "nonsense", lines[1].replace('"uid": 0', '"uid": -1')):
        (tmp_path / SIDECAR).write_text("\n".join([lines[0], bad]))
        with pytest.raises(InvalidInput, match="line 2 is damaged"):
            from_folder(tmp_path)


def test_edits_are_added_to_an_image_and_belong_to_root(tmp_path: Path) -> None:
    tree = FileTree()
    tree.add_dir("etc", mode=0o711)
    tree.add_file("etc/a", b"1")
    edits = tmp_path / "edits"
    (edits / "etc").mkdir(parents=True)
    (edits / "etc/a").write_bytes(b"2")
    os.chown(edits / "etc/a", os.getuid(), os.getgid())
    overlay(tree, edits)
    assert tree["etc"].mode == stat.S_IFDIR | 0o711
    assert (tree["etc/a"].content.read(), tree["etc/a"].uid) == (b"2", 0)


def test_cpio_initrd_does_not_change_the_folders_times(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "init").write_text("#!/bin/sh\n")
    (tree / "init").chmod(0o755)
    os.utime(tree / "init", (5000, 5000))
    out = io.BytesIO()
    assert guide.cpio_initrd(tree, out, guide.Variables(time=".")) == len(out.getvalue())
    entry = cpio.read(io.BytesIO(out.getvalue()))["init"]
    assert (entry.mtime, entry.uid) == (DEFAULT_MTIME, 0)
    assert (tree / "init").stat().st_mtime == 5000
    (tree / "init").chmod(0o644)
    with pytest.raises(TreeError, match="no executable init"):
        guide.cpio_initrd(tree, io.BytesIO())


@pytest.mark.parametrize("command", [["cpio", "TREE"], ["tar", "dir:TREE"]])
def test_writing_an_archive_to_a_terminal_is_refused(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "init").touch(mode=0o755)
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "acon_nb.cli", "initrd", *[w.replace("TREE", str(tmp_path)) for w in command]]
    done = subprocess.run(argv, stdout=slave, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert "stdout='a terminal'" in done.stderr


def test_tar_container_writes_a_tar_that_gnu_tar_reads(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "acon_nb.cli", "initrd", "tar", container(tmp_path / "x.tar"), "etc", "bin/busybox"]
    done = subprocess.run(argv, capture_output=True, timeout=600, check=True)
    listed = subprocess.run(["tar", "-t"], input=done.stdout, capture_output=True, check=True).stdout.split()
    assert listed == [b"bin/", b"bin/busybox", b"etc/", b"etc/passwd", b"etc/shadow"]


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("a", "/b", "b"),
        ("a", "/", "."),
        ("d/a", "/", ".."),
        ("usr/bin/x", "/usr/bin/y", "y"),
        ("usr/bin/x", "/usr/lib/y", "../lib/y"),
        ("usr/bin/x", "//etc/./y z", "../../etc/y z"),
        ("usr/bin/x", "/usr/../etc", "../../usr/../etc"),
        ("x", "rel/ative", "rel/ative"),
    ],
)
def test_absolute_links_become_relative(name: str, target: str, expected: str) -> None:
    tree = FileTree()
    tree.add_symlink(name, target)
    assert abs2rellinks(tree) == int(target.startswith("/"))
    assert os.fsdecode(tree[name].content.read()) == expected
    assert abs2relinks is abs2rellinks


def test_links_of_a_folder_still_lead_to_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "usr/my bin").mkdir(parents=True)
    (tmp_path / "usr/my bin/tool").touch()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/a link").symlink_to("/usr/my bin/tool")
    assert guide.abs2relinks(tmp_path) == 1
    assert (tmp_path / "etc/a link").resolve() == tmp_path / "usr/my bin/tool"


def linked() -> FileTree:
    tree = FileTree()
    for inode, group in ((1, ("bin/[", "bin/busybox", "sbin/init", "bin/sub/x")), (2, ("a", "b"))):
        for name in group:
            tree.add(name, Entry(mode=stat.S_IFREG | 0o755, inode=inode, content=Content.of(b"x")))
    return tree


def test_hard_links_of_a_file_become_symbolic_in_its_folder_only() -> None:
    tree = linked()
    assert hard2symlinks(tree, "bin/busybox") == 2
    links = {name.decode(): entry.content.read() for name, entry in tree.items() if entry.is_link}
    assert links == {"bin/[": b"busybox", "bin/sub/x": b"../busybox"}
    assert tree["sbin/init"].is_file
    assert hard2symlinks(tree, "bin/busybox", ".") == 1
    assert tree["sbin/init"].content.read() == b"../bin/busybox"
    with pytest.raises(InvalidInput, match="nothing"):
        hard2symlinks(tree, "nothing")


def test_all_groups_become_symbolic_at_once_and_busybox_stays_the_file() -> None:
    tree = linked()
    assert hard2symlinks(tree) == 4
    assert [name for name, entry in tree.items() if entry.is_file] == [b"a", b"bin/busybox"]


def test_hard_links_on_disk_become_symbolic(tmp_path: Path) -> None:
    for folder in ("bin", "sbin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin/busybox").write_text("x")
    for name in ("bin/sh", "bin/a b", "sbin/init"):
        os.link(tmp_path / "bin/busybox", tmp_path / name)
    assert guide.hard2symlinks(tmp_path / "bin/busybox") == 2
    assert str((tmp_path / "bin/a b").readlink()) == "busybox"
    assert not (tmp_path / "sbin/init").is_symlink()
    assert guide.hard2symlinks(tmp_path / "bin/busybox", tmp_path) == 1
    assert str((tmp_path / "sbin/init").readlink()) == "../bin/busybox"


@pytest.mark.parametrize("entry", [("d/" + "x" * 300, ""), ("long", "t/" * 3000), ("empty", "")])
def test_a_name_that_no_disk_can_hold_is_refused(tmp_path: Path, entry: tuple[str, str]) -> None:
    name, target = entry
    tree = FileTree()
    if name.startswith("d/"):
        tree.add_file(name, b"")
    else:
        tree.add_symlink(name, target)
    with pytest.raises(TreeError, match=f"{name[:9]}.*cannot be written to"):
        write_folder(tree, tmp_path / "tree")


@pytest.mark.parametrize("mtime", [-(1 << 80), -1, 1 << 80])
def test_a_time_that_no_disk_can_hold_becomes_the_nearest_one(tmp_path: Path, mtime: int) -> None:
    tree = FileTree()
    tree.add_file("file", b"", mtime=mtime)
    write_folder(tree, tmp_path / "tree")
    assert 0 <= (tmp_path / "tree/file").stat().st_mtime < 1 << 32


def test_zstd_is_an_alias_of_zst() -> None:
    assert guide.Variables.of_environment({"C": "zstd"}).compression == "zst"


def plain_image(path: Path) -> bytes:
    tree = FileTree()
    tree.add_file("init", b"#!/bin/sh\n" * 1000, mode=0o755)
    return create(tree, path).path.read_bytes()


def test_xz_initrd_appends_xz_and_writes_the_check_that_kernels_support(tmp_path: Path) -> None:
    image = tmp_path / "initrd-bbox.cpio"
    raw = plain_image(image)
    made = guide.xz_initrd(image)
    assert [path.name for path in tmp_path.iterdir()] == ["initrd-bbox.cpio.xz"]
    assert made.path.read_bytes()[7] == lzma.CHECK_CRC32
    assert lzma.decompress(made.path.read_bytes()) == raw
    assert (made.archive_bytes, made.bytes) == (len(raw), made.path.stat().st_size)
    assert set(names(load(made.path))) == {"init"}


def test_the_command_xz_keeps_the_image_if_asked_to(tmp_path: Path) -> None:
    image = tmp_path / "image"
    plain_image(image)
    result = CliRunner().invoke(main, ["initrd", "xz", "--keep", "--json", str(image)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["path"] == f"{image}.xz"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "image.xz"]


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst", "lz4"])
def test_xz_initrd_refuses_what_is_compressed_already(tmp_path: Path, suffix: str) -> None:
    image = tmp_path / f"image.{suffix}"
    plain_image(image)
    with pytest.raises(InvalidInput, match=f"is compressed already \\({suffix}\\)"):
        guide.xz_initrd(image)
    joined = tmp_path / "joined"
    joined.write_bytes(plain_image(tmp_path / "plain") + image.read_bytes())
    with pytest.raises(InvalidInput, match="is compressed already"):
        guide.xz_initrd(joined)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([image.name, "joined", "plain"])


def test_xz_initrd_refuses_what_is_not_an_uncompressed_image(tmp_path: Path) -> None:
    early = FileTree()
    early.add_file("kernel/x86/microcode/AuthenticAMD.bin", b"x")
    out = io.BytesIO()
    cpio.write(early, out)
    image = tmp_path / "image"
    image.write_bytes(out.getvalue() + plain_image(tmp_path / "plain"))
    with pytest.raises(InvalidInput, match="must stay uncompressed"):
        guide.xz_initrd(image)
    image.write_bytes(b"text")
    with pytest.raises(TreeError, match="neither an archive"):
        guide.xz_initrd(image)
    with pytest.raises(InvalidInput, match="not a file"):
        guide.xz_initrd(tmp_path)
