from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import AconError, InvalidInput, TreeError
from acon_nb.initrd import FileTree, tree_of


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **more: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for key, value in more.items():
        setattr(info, key, value)
    return info


def tar(path: Path, *members: tarfile.TarInfo, body: bytes = b"hello") -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for info in members:
            if info.isreg():
                info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return path


def read(path: Path) -> FileTree:
    return tree_of(f"tar:{path}", devices=True)


def names(tree: FileTree) -> list[bytes]:
    return [name for name, _ in tree.items()]


def test_a_tar_keeps_modes_owners_times_links_and_devices(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "x.tar",
        member("./", tarfile.DIRTYPE, mode=0o755),
        member("./bin", tarfile.DIRTYPE, mode=0o711),
        member("./bin/tool", mode=0o4755, uid=3, gid=4, mtime=99),
        member("bin/link", tarfile.SYMTYPE, "/bin/tool"),
        member("bin/hard", tarfile.LNKTYPE, "./bin/tool"),
        member("dev/sda", tarfile.BLKTYPE, mode=0o660, devmajor=8, devminor=1),
        member("dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        member("fifo", tarfile.FIFOTYPE, mode=0o600),
    )
    tree = read(path)
    assert names(tree) == [b"bin", b"bin/hard", b"bin/link", b"bin/tool", b"dev", b"dev/null", b"dev/sda", b"fifo"]
    tool = tree["bin/tool"]
    assert (tool.mode, tool.uid, tool.gid, tool.mtime, tool.content.read()) == (0o104755, 3, 4, 99, b"hello")
    assert tree["bin/hard"] == tool
    assert tool.inode is not None
    assert tree["bin"].mode == stat.S_IFDIR | 0o711
    assert tree["bin/link"].content.read() == b"/bin/tool"
    assert (tree["dev/sda"].mode, tree["dev/sda"].device) == (stat.S_IFBLK | 0o660, (8, 1))
    assert stat.S_ISCHR(tree["dev/null"].mode)
    assert stat.S_ISFIFO(tree["fifo"].mode)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/../evil"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TreeError, match="leads out"):
        read(tar(tmp_path / "x.tar", member(name)))


def test_names_from_the_root_stay_inside(tmp_path: Path) -> None:
    assert names(read(tar(tmp_path / "x.tar", member("/etc/passwd")))) == [b"etc", b"etc/passwd"]


def test_a_link_that_leads_out_is_only_text_and_the_host_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "host"
    target.mkdir()
    read(tar(tmp_path / "x.tar", member("a", tarfile.SYMTYPE, str(target)), member("a/evil")))
    assert os.listdir(target) == []


@pytest.mark.parametrize("target", ["missing", "/etc/passwd", "../../etc/passwd"])
def test_a_hard_link_to_a_missing_file_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(TreeError):
        read(tar(tmp_path / "x.tar", member("etc/hostname"), member("x", tarfile.LNKTYPE, target)))


def test_a_hard_link_to_itself_changes_nothing(tmp_path: Path) -> None:
    tree = read(tar(tmp_path / "x.tar", member("a"), member("a", tarfile.LNKTYPE, "./a")))
    assert tree["a"].content.read() == b"hello"


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar is not here")
def test_tars_of_gnu_tar_are_read_including_sparse_ones(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / ("long" * 60)).write_bytes(b"long name")
    (root / os.fsdecode(b"\xff\n")).write_bytes(b"odd name")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    for form in ("gnu", "posix"):
        path = tmp_path / f"{form}.tar"
        subprocess.run(["tar", f"--format={form}", "-cf", path, "-C", root, "."], check=True)
        tree = read(path)
        assert names(tree) == [b"long" * 60, b"sparse", b"\xff\n"]
        assert tree[b"\xff\n"].content.read() == b"odd name"
        assert tree["sparse"].content.read() == bytes(1 << 20)
        subprocess.run(["tar", f"--format={form}", "-S", "-cf", path, "-C", root, "."], check=True)
        assert read(path)["sparse"].content.read() == bytes(1 << 20)


@pytest.mark.parametrize("cut", [0, 100, 511, 512, 700, 1024 + 100, 1024 + 512 + 2])
def test_a_truncated_tar_is_refused(tmp_path: Path, cut: int) -> None:
    path = tar(tmp_path / "x.tar", member("one"), member("two"))
    os.truncate(path, cut)
    with pytest.raises(TreeError):
        read(path)


def test_a_damaged_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", member("one"), member("two"), member("init"))
    raw = bytearray(path.read_bytes())
    raw[1024] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(TreeError):
        read(path)


def test_a_size_below_zero_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", member("one"), member("two"))
    raw = bytearray(path.read_bytes())
    head = raw[1024:1536]
    head[124:136] = (-512).to_bytes(12, "big", signed=True)
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:]) + 8 * 32)
    raw[1024:1536] = head
    path.write_bytes(raw)
    script = "import sys; from acon_nb.initrd import tree_of; tree_of('tar:' + sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60, check=False)
    assert "TreeError" in done.stderr


@pytest.mark.parametrize("form", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_read_and_a_truncated_one_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"x.tar.{form}"
    with tarfile.open(path, f"w:{form}") as archive:  # type: ignore[call-overload]
        archive.addfile(member("x"))
    assert names(read(path)) == [b"x"]
    os.truncate(path, path.stat().st_size - 12)
    with pytest.raises(TreeError):
        read(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=5))
def test_a_damaged_tar_is_either_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("tar")
    path = tar(folder / "x.tar", member("a/b"), member("l", tarfile.LNKTYPE, "a/b"), member("s", tarfile.SYMTYPE, "l"))
    raw = bytearray(path.read_bytes())
    for place, value in changes:
        raw[place] = value
    path.write_bytes(raw)
    try:
        for _, entry in read(path).items():  # noqa: PERF102 (a tree is no dict)
            entry.content.read()
    except AconError:
        return


def test_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "init").write_text("x")
    assert names(tree_of(f"dir:{tmp_path}")) == [b"init"]


@pytest.mark.parametrize("image", ["", ":", "docker:", "docker:Alpine", "a b", "BUSYBOX", "../x", "tar:"])
def test_an_unknown_kind_of_image_is_refused_with_the_known_ones(image: str) -> None:
    with pytest.raises(InvalidInput, match="image") as caught:
        tree_of(image)
    assert "busybox[+PACKAGE...], dir:FOLDER, tar:FILE, docker-archive:PATH" in caught.value.hint


@pytest.mark.parametrize("kind", ["dir", "tar", "cpio", "docker-archive", "oci"])
def test_a_path_that_is_not_there_is_refused_as_such(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidInput, match=r"^image='.*nothing': does not exist"):
        tree_of(f"{kind}:{tmp_path}/nothing")
