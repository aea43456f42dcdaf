from __future__ import annotations

import io
import os
import random
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.archive import cpio
from acon_nb.archive import tar as tars
from acon_nb.errors import AconError, TreeError
from acon_nb.initrd import Entry, FileTree, ImageLimits, diff_trees, from_folder, tree_of
from tests.unit.archives import assert_read_or_refused, mutated

needs_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar is not here")
# cpio has no file of the last name: test_newc.py
PART = st.binary(min_size=1, max_size=30).filter(
    lambda raw: not set(raw) & {0, 47} and raw not in (b".", b"..", b"TRAILER!!!") and not raw.startswith(b".wh.")
)


def gnu_tar(root: Path, path: Path, *options: str) -> Path:
    subprocess.run(["tar", *options, "-cf", path, "-C", root, "."], check=True)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with all that a tar may hold."""
    folder = tmp_path / "root"
    (folder / "dir/deep").mkdir(parents=True)
    (folder / "dir/file").write_bytes(b"hello")
    (folder / "dir/file").chmod(0o4750)
    os.link(folder / "dir/file", folder / "a-hard-link")
    (folder / "link").symlink_to("dir/file")
    (folder / "long" / ("l" * 120)).mkdir(parents=True)
    (folder / "long" / ("l" * 120) / ("m" * 200)).symlink_to("t" * 300)
    (folder / os.fsdecode(b"\xff\xfe\nodd")).write_bytes(b"odd")
    (folder / "empty").touch()
    os.mkfifo(folder / "fifo")
    with (folder / "sparse").open("wb") as file:
        for place in (100_000, 5_000_000):
            file.seek(place)
            file.write(b"data" * 5000)
        file.truncate(9_000_000)
    with (folder / "holes").open("wb") as file:
        for number in range(64):
            file.seek(number << 17)
            file.write(bytes([number + 1]) * 4096)
    for parent, _, files, descriptor in os.fwalk(folder, topdown=False):  # rglob of Python 3.11.2 follows links
        for name in files:
            os.utime(name, (1_000_000, 1_000_000), dir_fd=descriptor, follow_symlinks=False)
        os.utime(parent, (1_000_000, 1_000_000))
    return folder


@needs_tar
@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=posix"],
        ["--format=gnu", "-S"],
        ["--format=posix", "-S", "--sparse-version=0.0"],
        ["--format=posix", "-S", "--sparse-version=0.1"],
        ["--format=posix", "-S", "--sparse-version=1.0"],
    ],
    ids=" ".join,
)
def test_a_tar_of_gnu_tar_gives_the_original_folder(root: Path, tmp_path: Path, options: list[str]) -> None:
    tree = tree_of(f"tar:{gnu_tar(root, tmp_path / 'x.tar', *options)}")
    assert [str(row) for row in diff_trees(from_folder(root), tree)] == []


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar is not here")
@pytest.mark.parametrize("form", ["pax", "gnutar"])
def test_a_tar_of_bsdtar_gives_the_original_folder(root: Path, tmp_path: Path, form: str) -> None:
    subprocess.run(["bsdtar", f"--format={form}", "-cf", tmp_path / "x.tar", "-C", root, "."], check=True)
    assert [str(row) for row in diff_trees(from_folder(root), tree_of(f"tar:{tmp_path}/x.tar"))] == []


@needs_tar
def test_gnu_tar_unpacks_what_we_write(root: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    tree = from_folder(root)
    tree.add_device("dev/null", stat.S_IFCHR, 1, 3)
    tars.write(tree, out)
    names = subprocess.run(["tar", "-t", "--null"], input=out.getvalue(), capture_output=True, check=True).stdout
    assert len(names.splitlines()) >= len(tree)
    tree.remove("dev")
    out = io.BytesIO()
    tars.write(tree, out)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xp", "-C", tmp_path / "out"], input=out.getvalue(), check=True)
    assert [str(row) for row in diff_trees(from_folder(root), from_folder(tmp_path / "out"))] == []


def test_a_socket_of_an_initrd_is_omitted_from_a_tar_with_a_warning() -> None:
    tree = FileTree()
    tree.add("run/log", Entry(mode=stat.S_IFSOCK | 0o666))
    tree.add_file("init", b"x")
    out = io.BytesIO()
    tars.write(tree, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as written:
        assert written.getnames() == ["init", "run"]
    assert tree.warnings() == ["sockets are omitted: a tar cannot hold them: 'run/log'"]


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], **fields: object) -> Path:
    with tarfile.open(path, "w", **fields) as out:  # type: ignore[call-overload]
        for info, body in members:
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in more.items():
        setattr(member, key, value)
    return member


def test_extended_attributes_are_dropped_by_name(tmp_path: Path) -> None:
    headers = {"SCHILY.xattr.security.capability": "x", "LIBARCHIVE.xattr.user.note": "y"}
    members = [(info("bin/ping", pax_headers=headers), b"x"), (info("bin/other"), b"")]
    tree = tree_of(f"tar:{archive(tmp_path / 'x.tar', members, format=tarfile.PAX_FORMAT)}")
    text = "\n".join(tree.warnings())
    assert "security.capability" in text
    assert "user.note" in text
    assert "'bin/ping'" in text
    assert "other" not in text


def test_device_nodes_are_kept_only_on_request(tmp_path: Path) -> None:
    members = [
        (info("dev/sda", tarfile.BLKTYPE, devmajor=8), b""),
        (info("dev/x", tarfile.CHRTYPE), b""),
        (info("f"), b""),
    ]
    path = archive(tmp_path / "x.tar", members)
    tree = tree_of(f"tar:{path}")
    assert "dev/sda" not in tree
    assert "'dev/sda', 'dev/x'" in "\n".join(tree.warnings())
    assert tree_of(f"tar:{path}", devices=True)["dev/sda"].device == (8, 0)


@needs_tar
@pytest.mark.parametrize("version", ["old", "0.0", "0.1", "1.0"])
def test_a_sparse_bomb_is_refused_with_the_name_of_the_limit(tmp_path: Path, version: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with (root / "bomb").open("wb") as file:
        file.truncate(10 << 30)
    form = ["--format=gnu"] if version == "old" else ["--format=posix", f"--sparse-version={version}"]
    path = gnu_tar(root, tmp_path / "x.tar", "-S", *form)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(TreeError, match=r"total_bytes=4294967296 \(at '.*bomb'\)") as caught:
        tree_of(f"tar:{path}")
    assert "--limit" in caught.value.hint


def test_the_limit_applies_to_the_sum_of_all_files(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", [(info(f"f{number}"), b"x" * 1000) for number in range(20)])
    tree_of(f"tar:{path}", limits=ImageLimits(total_bytes=20_000))
    with pytest.raises(TreeError, match="total_bytes=19999"):
        tree_of(f"tar:{path}", limits=ImageLimits(total_bytes=19_999))
    with pytest.raises(TreeError, match="names=10"):
        tree_of(f"tar:{path}", limits=ImageLimits(names=10))


@pytest.mark.parametrize("form", ["gz", "xz"])
def test_a_compressed_bomb_is_not_unpacked_past_the_limit(tmp_path: Path, form: str) -> None:
    fast = {"preset": 0} if form == "xz" else {"compresslevel": 1}
    with tarfile.open(tmp_path / "x.tar", f"w:{form}", **fast) as out:  # type: ignore[call-overload]
        member = info("zeros", size=68 << 20)
        out.addfile(member, open("/dev/zero", "rb"))  # noqa: PTH123, SIM115
    with pytest.raises(TreeError, match="total_bytes"):
        tree_of(f"tar:{tmp_path}/x.tar", limits=ImageLimits(total_bytes=1 << 20))


def test_a_huge_header_is_not_read_into_memory(tmp_path: Path) -> None:
    head = bytearray(info("x", b"x").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"%011o\0" % (7 << 30)
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:]) + 8 * 32)
    (tmp_path / "x.tar").write_bytes(bytes(head[:512]) + bytes(1024))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TreeError, match="extra_bytes"):
        tree_of(f"tar:{tmp_path}/x.tar")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "0,5,3,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,99", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "5,10", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "x", "GNU.sparse.size": "10"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
        {"size": "-5"},
        {"size": "9" * 19},
        {"uid": "root"},
    ],
    ids=str,
)
def test_inconsistent_headers_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    path = archive(tmp_path / "x.tar", [(info("x", pax_headers=headers), b"0123456789")], format=tarfile.PAX_FORMAT)
    with pytest.raises(TreeError):
        tree_of(f"tar:{path}")


def test_names_with_newlines_are_harmless_and_shown_on_one_line(tmp_path: Path) -> None:
    members = [(info("evil\nname"), b""), (info("evil\nname/below"), b"")]
    with pytest.raises(TreeError) as caught:
        tree_of(f"tar:{archive(tmp_path / 'x.tar', members)}")
    assert r"'evil\nname/below' would be inside 'evil\nname'" in str(caught.value)


def test_a_name_below_a_link_is_stored_below_the_target_in_any_order(tmp_path: Path) -> None:
    members = [
        (info("lib/sub/x"), b"x"),
        (info("lib", tarfile.SYMTYPE, linkname="/usr/lib"), b""),
        (info("usr/lib/sub", tarfile.DIRTYPE, mode=0o711), b""),
        (info("up", tarfile.SYMTYPE, linkname="../../.."), b""),
        (info("up/etc/hostname"), b"inside"),
    ]
    for order in (members, members[1:] + members[:1]):
        tree = tree_of(f"tar:{archive(tmp_path / 'x.tar', order)}")
        assert tree["usr/lib/sub/x"].content.read() == b"x"
        assert tree["lib/sub/x"].content.read() == b"x"
        assert tree["usr/lib/sub"].mode == stat.S_IFDIR | 0o711
        assert tree["etc/hostname"].content.read() == b"inside"


def test_loops_of_links_are_refused(tmp_path: Path) -> None:
    members = [
        (info("a", tarfile.SYMTYPE, linkname="b"), b""),
        (info("b", tarfile.SYMTYPE, linkname="a"), b""),
        (info("a/x"), b""),
    ]
    with pytest.raises(TreeError, match="a loop of symbolic links"):
        tree_of(f"tar:{archive(tmp_path / 'x.tar', members)}")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(PART, min_size=1, max_size=3), st.sampled_from("fdlh")), max_size=8), st.randoms())
def test_the_order_of_members_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[list[bytes], str]], dice: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("order")
    members: dict[str, tuple[tarfile.TarInfo, bytes]] = {"target": (info("target"), b"linked")}
    for parts, kind in drawn:
        name = "/".join(part.decode("utf-8", "surrogateescape") for part in parts)
        if any(other.startswith(name + "/") or name.startswith(other + "/") or name == other for other in members):
            continue
        types = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}
        member = info(name, types[kind], linkname="target" if kind in "lh" else "")
        members[name] = (member, name.encode("utf-8", "surrogateescape") if kind == "f" else b"")
    archives = []
    for _ in range(2):
        order = list(members.values())
        dice.shuffle(order)
        out = io.BytesIO()
        path = archive(folder / "x.tar", order, encoding="utf-8")
        cpio.write(tree_of(f"tar:{path}"), out)
        archives.append(out.getvalue())
    assert archives[0] == archives[1]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), max_size=6), st.sampled_from(["gnu", "posix"]))
def test_a_damaged_tar_of_everything_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], form: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    headers = {"SCHILY.xattr.user.x": "1", "mtime": "12.5"} if form == "posix" else {}
    members = [
        (info("d/" + "n" * 150, pax_headers=headers), b"x" * 700),
        (info("l", tarfile.SYMTYPE, linkname="t" * 150), b""),
        (info("h", tarfile.LNKTYPE, linkname="d/" + "n" * 150), b""),
        (info("dev", tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
    ]
    path = archive(folder / "x.tar", members, format=tarfile.PAX_FORMAT if form == "posix" else tarfile.GNU_FORMAT)
    path.write_bytes(mutated(path.read_bytes(), changes))
    assert_read_or_refused(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_garbage_is_refused_as_a_tar(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "x.tar"
    path.write_bytes(raw)
    try:
        tree_of(f"tar:{path}")
    except AconError:
        return
    assert not raw.strip(b"\0")


def test_memory_does_not_grow_with_the_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as out:
        out.addfile(info("init", mode=0o755))
        with open("/dev/zero", "rb") as zeros:  # noqa: PTH123
            for number in range(3):
                out.addfile(info(f"big{number}", size=70 << 20), zeros)
    script = (
        "import sys; from pathlib import Path; from acon_nb.initrd import create, tree_of\n"
        "create(tree_of('tar:' + sys.argv[1]), Path(sys.argv[2]))\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    argv = [sys.executable, "-c", script, tmp_path / "x.tar", tmp_path / "x.cpio"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=True)
    assert int(done.stdout) < 100 << 10


def test_folders_are_selected_with_their_parents(tmp_path: Path) -> None:
    members = [(info("usr/bin/x"), b""), (info("usr/lib/y"), b""), (info("etc/z"), b""), (info("usr2"), b"")]
    path = archive(tmp_path / "x.tar", members)
    tree: FileTree = tree_of(f"tar:{path}", ["usr/bin", "./etc/"])
    assert [name for name, _ in tree.items()] == [b"etc", b"etc/z", b"usr", b"usr/bin", b"usr/bin/x"]
    with pytest.raises(TreeError, match="'no/such' is not in the image"):
        tree_of(f"tar:{path}", ["usr", "no/such"])
    assert len(tree_of(f"tar:{path}", ["."])) == len(tree_of(f"tar:{path}"))


@pytest.mark.parametrize("field", ["uid", "gid"])
def test_an_owner_out_of_range_is_refused_with_the_files_name(tmp_path: Path, field: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("one")
        info.pax_headers = {field: str(1 << 32)}
        archive.addfile(info)
    with pytest.raises(TreeError, match=f"'one' has the {field} 4294967296, which exceeds 32 bits"):
        tree_of(f"tar:{path}")
