"""Tars as every tool writes them, built block by block, with GNU tar, bsdtar and Python's tarfile as oracles."""

from __future__ import annotations

import io
import random
import re
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
from acon_nb.errors import TreeError
from acon_nb.initrd import FileTree, diff_trees, from_folder, tree_of
from tests.unit.archives import assert_read_or_refused, mutated

END = bytes(1024)
USTAR, GNU, OLD = b"ustar\x0000", b"ustar  \0", b"\0"
TOOLS = [tool for tool in ("tar", "bsdtar") if shutil.which(tool)]


def header(name: bytes, kind: bytes = b"0", size: int = 0, magic: bytes = USTAR, **fields: bytes) -> bytes:
    """A header block; a field is a position (`at_116=b"..."`) or `link`, `sum` (the checksum itself)."""
    block = bytearray(512)
    for at, value in [
        (0, name),
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, b"%011o\0" % size),
        (136, b"%011o\0" % 1_000_000),
        (156, kind),
        (157, fields.pop("link", b"")),
        (257, magic),
        *((int(key.removeprefix("at_")), value) for key, value in fields.items() if key != "sum"),
    ]:
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = fields.get("sum", b"%06o\0 " % sum(block))
    return bytes(block)


def data(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 512)


def file(name: bytes, body: bytes = b"", kind: bytes = b"0", **fields: bytes) -> bytes:
    return header(name, kind, len(body), **fields) + data(body)


def record(keyword: bytes, value: bytes) -> bytes:
    length = len(keyword) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, keyword, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x", tail: bytes = b"") -> bytes:
    return file(b"PaxHeaders/x", b"".join(record(*each) for each in records) + tail, kind)


def long(kind: bytes, value: bytes) -> bytes:
    return file(b"././@LongLink", value + b"\0", kind, magic=GNU)


def read(raw: bytes, tmp_path: Path, **options: object) -> FileTree:
    path = tmp_path / "x.tar"
    path.write_bytes(raw)
    return tree_of(f"tar:{path}", devices=True, **options)  # type: ignore[arg-type]


def listed(tool: str, raw: bytes) -> list[bytes]:
    out = subprocess.run([tool, "-tf", "-"], input=raw, capture_output=True, check=False).stdout
    return sorted(line.rstrip(b"/").removeprefix(b"./") for line in out.splitlines())


def names(tree: FileTree) -> list[bytes]:
    return [name for name, _ in tree.items()]


# Odd archives that are valid: what they hold, which GNU tar and bsdtar list too
VALID = {
    "a folder and a link with sizes": (
        header(b"etc/", b"5", 4096) + header(b"ln", b"2", 5, link=b"etc/a") + file(b"etc/a", b"x"),
        [b"etc", b"etc/a", b"ln"],
    ),
    "a FIFO and a device with sizes": (
        header(b"fifo", b"6", 700) + header(b"null", b"3", 700, at_329=b"0000001\0", at_337=b"0000003\0") + file(b"a"),
        [b"a", b"fifo", b"null"],
    ),
    "V7": (header(b"d/", b"\0", magic=OLD) + file(b"d/a", b"x", b"\0", magic=OLD), [b"d", b"d/a"]),
    "V7 with a link": (
        file(b"a", b"x", b"\0", magic=OLD) + header(b"b", b"1", 0, OLD, link=b"a"),
        [b"a", b"b"],
    ),
    "a signed checksum": (
        header("ä".encode() * 3, sum=b"%06o\0 " % (sum(header("ä".encode() * 3, sum=b" " * 8)) - 256 * 6)),
        ["ä".encode() * 3],
    ),
    "a size in base 256": (
        header(b"a", at_124=b"\x80" + bytes(10) + b"\x05") + data(b"hello") + file(b"b"),
        [b"a", b"b"],
    ),
    "numbers with spaces": (header(b"a", at_100=b"   644 \0", at_124=b"          5 ") + data(b"hello"), [b"a"]),
    "a number after a NUL": (header(b"a", at_108=b"\0" + b"00001\0\0"), [b"a"]),
    "a prefix": (header(b"n", at_345=b"p/q"), [b"p/q/n"]),
    "a full name and a full prefix": (header(b"n" * 100, at_345=b"p" * 155), [b"p" * 155 + b"/" + b"n" * 100]),
    "a GNU header with times where ustar has its prefix": (
        header(b"n", magic=GNU, at_345=b"%011o\0%011o\0" % (1, 2)),
        [b"n"],
    ),
    "contiguous": (file(b"a", b"hello", b"7") + file(b"b"), [b"a", b"b"]),
    "a long name and a long target": (
        long(b"L", b"l" * 150) + long(b"K", b"t" * 150) + header(b"cut", b"2", link=b"cut"),
        [b"l" * 150],
    ),
    "a long name over a prefix": (long(b"L", b"l" * 150) + header(b"cut", at_345=b"p"), [b"l" * 150]),
    "a long name and pax records without one": (
        long(b"L", b"l" * 150) + pax((b"mtime", b"5")) + header(b"cut"),
        [b"l" * 150],
    ),
    "a pax path over a prefix": (pax((b"path", b"p")) + header(b"cut", at_345=b"x"), [b"p"]),
    "Solaris": (pax((b"path", b"p"), kind=b"X") + header(b"cut"), [b"p"]),
    "a name in binary": (
        pax((b"hdrcharset", b"BINARY"), (b"path", b"p\xff")) + header(b"cut"),
        [b"p\xff"],
    ),
    "a dumpdir": (file(b"d/", b"Ya\0Nb\0\0", b"D", magic=GNU) + file(b"d/a"), [b"d", b"d/a"]),
    "a comment for all": (pax((b"comment", b"commit 1234"), kind=b"g") + file(b"a"), [b"a"]),
    "a slash at the start": (file(b"/etc/a") + file(b"//b") + file(b"./c"), [b"b", b"c", b"etc/a"]),
    "a hard link with a size and no data": (
        file(b"a", b"hello") + header(b"b", b"1", 5, link=b"a") + file(b"c", b"x"),
        [b"a", b"b", b"c"],
    ),
    "a hard link with data": (
        file(b"a", b"hello") + pax((b"mtime", b"1")) + file(b"b", b"hello", b"1", link=b"a") + file(b"c", b"x"),
        [b"a", b"b", b"c"],
    ),
    "a hard link with data that begins with zeros": (
        file(b"a", bytes(600)) + pax((b"mtime", b"1")) + file(b"b", bytes(600), b"1", link=b"a") + file(b"c", b"x"),
        [b"a", b"b", b"c"],
    ),
}
UNLIKE_BSDTAR = {"a slash at the start", "a name in binary", "a signed checksum"}  # in its list the names are quoted
UNLIKE_TAR = {
    "a name in binary",
    "a signed checksum",
    "a folder and a link with sizes",  # it alone looks for data of links, FIFOs and devices, which it never writes
    "a FIFO and a device with sizes",
    "a hard link with data",  # skipped to the next header
    "a hard link with data that begins with zeros",  # taken for the end
    "a slash at the start",
}


@pytest.mark.parametrize("case", VALID)
def test_an_odd_but_valid_archive_is_read_as_tools_read_it(tmp_path: Path, case: str) -> None:
    raw, expected = VALID[case]
    tree = read(raw + END, tmp_path)
    parents = {name.rpartition(b"/")[0] for name in names(tree)}
    assert [name for name in names(tree) if name in expected or name not in parents] == expected
    assert tree.warnings() == []
    unlike = {"tar": UNLIKE_TAR, "bsdtar": UNLIKE_BSDTAR}
    for tool in TOOLS:
        if case not in unlike[tool]:
            assert listed(tool, raw + END) == expected, tool


def test_contents_after_what_tools_skip_are_right(tmp_path: Path) -> None:
    tree = read(VALID["a folder and a link with sizes"][0] + END, tmp_path)
    assert tree["ln"].content.read() == b"etc/a"
    assert tree["etc/a"].content.read() == b"x"
    tree = read(VALID["a hard link with data"][0] + END, tmp_path)
    assert tree["b"].content.read() == b"hello"
    assert tree["a"].inode == tree["b"].inode is not None
    assert tree["c"].content.read() == b"x"
    tree = read(VALID["a size in base 256"][0] + END, tmp_path)
    assert tree["a"].content.read() == b"hello"


def test_a_prefix_that_go_before_1_8_wrote_into_a_gnu_header_belongs_to_the_name(tmp_path: Path) -> None:
    raw = header(b"name", magic=GNU, at_345=b"some/folder/with/a/long/name") + END
    assert names(read(raw, tmp_path))[-1] == b"some/folder/with/a/long/name/name"
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        assert archive.getnames() == ["some/folder/with/a/long/name/name"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b".5", 0),
        (b"-1.25", -2),
        (b"-.5", -1),
        (b"-1", -1),
        (b"1700000000.", 1700000000),
        (b"1700000000.999999999", 1700000000),
        (b"12." + b"9" * 300, 12),
        (b"99999999999", 99999999999),
    ],
)
def test_a_pax_time_is_rounded_down_as_by_gnu_tar(tmp_path: Path, text: bytes, seconds: int) -> None:
    raw = pax((b"mtime", text)) + header(b"a") + END
    tree = read(raw, tmp_path)
    assert tree["a"].mtime == seconds
    out = io.BytesIO()
    cpio.write(tree, out)
    assert int(out.getvalue()[46:54], 16) == min(max(seconds, 0), 0xFFFFFFFF)
    if "tar" in TOOLS and text.lstrip(b"-")[:1] != b"." and seconds < 1 << 32:
        subprocess.run(["tar", "-xf", "-", "-C", tmp_path], input=raw, stderr=subprocess.DEVNULL, check=True)
        assert (tmp_path / "a").stat().st_mtime_ns // 10**9 == seconds


@pytest.mark.parametrize("text", [b"x", b"-", b".", b"-.", b"1e9", b"1 ", b"nan", b"9" * 30])
def test_an_invalid_time_is_refused_with_the_members_name(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(TreeError, match=r"'a': mtime in its extended header is .*, not a time in seconds"):
        read(pax((b"mtime", text)) + header(b"a") + END, tmp_path)


def test_global_headers_give_defaults_which_an_empty_value_takes_away(tmp_path: Path) -> None:
    raw = (
        pax((b"uid", b"1000"), (b"mtime", b"7"), kind=b"g")
        + header(b"a")
        + pax((b"uid", b""))
        + header(b"b")
        + pax((b"uid", b"5"))
        + header(b"c")
        + pax((b"uid", b""), kind=b"g")
        + header(b"d", at_108=b"0000003\0")
    )
    tree = read(raw + END, tmp_path)
    assert [entry.uid for _, entry in tree.items()] == [1000, 0, 5, 3]
    assert {entry.mtime for _, entry in tree.items()} == {7}


@pytest.mark.parametrize(
    "where",
    [
        {"at_108": (-2).to_bytes(8, "big", signed=True)},
        {"pax": b"-2"},
        {"pax": b"4294967295"},
        {"at_108": (0xFFFFFFFF).to_bytes(8, "big", signed=False).replace(b"\0", b"\x80", 1)},
    ],
    ids=["-2 in base 256", "-2 in pax", "2^32-1 in pax", "2^32-1 in base 256"],
)
def test_an_owner_that_linux_does_not_have_becomes_nobody_with_a_warning(
    tmp_path: Path, where: dict[str, bytes]
) -> None:
    extended = pax((b"uid", where.pop("pax"))) if "pax" in where else b""
    tree = read(extended + header(b"etc/f", **where) + END, tmp_path)
    assert tree["etc/f"].uid == 65534
    (warning,) = tree.warnings()
    assert re.fullmatch(r"the uid (-2|4294967295) cannot exist on Linux: 65534 \(nobody\) .*: 'etc/f'", warning)


def test_device_numbers_of_pax_records_take_precedence(tmp_path: Path) -> None:
    raw = b"".join(
        pax((vendor + b".devmajor", b"259"), (vendor + b".devminor", b"70000")) + header(name, b"4")
        for vendor, name in ((b"SCHILY", b"a"), (b"SUN", b"b"))
    )
    tree = read(raw + END, tmp_path)
    assert tree["a"].device == tree["b"].device == (259, 70000)


def test_what_newc_does_not_store_is_named(tmp_path: Path) -> None:
    raw = (
        pax(
            (b"SCHILY.xattr.user.note", b"one\ntwo\0three\n"),
            (b"LIBARCHIVE.xattr.user.note", b"b25l"),
            (b"LIBARCHIVE.xattr.user.%C3%A4", b"b25l"),
            (b"RHT.security.selinux", b"system_u:object_r:etc_t:s0"),
            (b"SCHILY.acl.access", b"user::rw-"),
            (b"SCHILY.fflags", b"immutable"),
        )
        + file(b"./etc/sig", b"x")
        + file(b"etc/acl", b"acl", b"A")
        + file(b"etc/acl", b"content")
        + END
    )
    tree = read(raw, tmp_path)
    assert names(tree) == [b"etc", b"etc/acl", b"etc/sig"]
    assert tree["etc/acl"].content.read() == b"content"
    text = "\n".join(tree.warnings())
    for attribute in ("user.note", "user.ä", "security.selinux", "system.posix_acl_access"):
        assert text.count(f"extended attributes: {attribute} is dropped from: 'etc/sig'") == 1
    assert "file flags: immutable is dropped from: 'etc/sig'" in text
    assert "access control lists of Solaris are not supported: dropped from: 'etc/acl'" in text


def test_nuls_behind_the_records_of_an_extended_header_are_padding(tmp_path: Path) -> None:
    assert names(read(pax((b"path", b"p"), tail=bytes(30)) + header(b"a") + END, tmp_path)) == [b"p"]


# Archives that are read with a warning: the names, and the warning
WARNED = {
    "no end": (file(b"a", b"x") + file(b"b", b"x"), [b"a", b"b"], "no end mark.*: 'b'"),
    "one block of zeros, then a tar": (file(b"a") + bytes(512) + file(b"b"), [b"a"], "data after the end .*'a'"),
    "a second tar": (file(b"a") + bytes(10240) + file(b"b") + END, [b"a"], "data after the end .*'a'"),
    "a vendor's type": (file(b"z", b"hello", b"Z") + file(b"b") + END, [b"b", b"z"], "type 'Z' is not known.*: 'z'"),
    "data of a folder": (file(b"d/", b"hello") + file(b"b") + END, [b"b", b"d"], "data is dropped of: 'd'"),
    "an inode": (file(b"i", b"hello", b"I") + file(b"b") + END, [b"b"], r"\(star's type I\) are omitted: 'i'"),
    "no name": (file(b"", b"hello") + file(b"b") + END, [b"b"], "without a name are omitted"),
    "no target": (header(b"l", b"2") + file(b"b") + END, [b"b"], "without a target .* omitted: 'l'"),
    "a volume's label": (header(b"../label", b"V", magic=GNU) + file(b"b") + END, [b"b"], None),
}


@pytest.mark.parametrize("case", WARNED)
def test_an_archive_with_one_odd_member_is_read_with_a_warning(tmp_path: Path, case: str) -> None:
    raw, expected, warning = WARNED[case]
    tree = read(raw, tmp_path)
    assert names(tree) == expected
    if warning is None:
        assert tree.warnings() == []
    else:
        (text,) = tree.warnings()
        assert re.search(warning, text), text


# Archives that are refused: the words
REFUSED = {
    "nothing": (b"", "x.tar: the tar is empty"),
    "zeros and something else": (bytes(1024) + b"x" * 512, "not a tar: it starts with zeros"),
    "a cut header": (file(b"a", b"x")[:-412], "truncated"),
    "cut data": (file(b"a", b"x" * 600)[:-512], "'a' has 600 bytes according to its header, but only 512 follow"),
    "cut padding": (file(b"a", b"x")[:-500], "the last 500 bytes, which fill the last block, are missing"),
    "an extended header at the end": (file(b"a") + pax((b"path", b"p")), "no member follows its extended header"),
    "a long name at the end": (file(b"a") + long(b"L", b"l") + END, "no member follows its extended header"),
    "a wrong checksum": (file(b"a") + header(b"b", sum=b"0000001\0") + END, "damaged at byte 512"),
    "another volume": (file(b"a", b"hello", b"M", magic=GNU) + END, "'a' is continued from another volume"),
    "old long names": (file(b"a", b"Rename x to y\n", b"N", magic=GNU) + END, "GNU tar did before 1.12"),
    "two names": (
        long(b"L", b"one") + pax((b"path", b"two")) + header(b"a") + END,
        "'a' has two values of path: 'two' in a pax header, 'one' in a GNU header",
    ),
    "two targets": (
        pax((b"linkpath", b"two")) + long(b"K", b"one") + header(b"a", b"2", link=b"x") + END,
        "'a' has two values of linkpath",
    ),
    "two extended headers": (pax((b"uid", b"1")) + pax((b"path", b"p")) + header(b"a") + END, "second extended header"),
    "a prefix and an unknown magic": (header(b"a", magic=b"ustar 00", at_345=b"p") + END, "unknown magic number"),
    "a name for all": (pax((b"path", b"p"), kind=b"g") + header(b"a") + END, "sets path for all members"),
    "a sparse map for all": (
        pax((b"GNU.sparse.map", b"0,1"), kind=b"g") + header(b"a") + END,
        "GNU.sparse.map for all",
    ),
    "an owner in words": (header(b"a", at_108=b"root\0") + END, "'a': the field uid of its header is b'root"),
    "an owner in words in pax": (
        pax((b"gid", b"root")) + header(b"a") + END,
        "'a': gid in its extended header is b'root",
    ),
    "an owner beyond 32 bits": (pax((b"uid", b"4294967296")) + header(b"a") + END, "'a' has the uid 4294967296"),
    "a device beyond 32 bits": (
        pax((b"SCHILY.devmajor", b"4294967296")) + header(b"a", b"3") + END,
        "'a' has the device number devmajor=4294967296",
    ),
    "a negative size": (header(b"a", at_124=b"\xff" * 12) + END, "'a' has the negative size -1"),
    "a negative size in pax": (pax((b"size", b"-1")) + header(b"a") + END, "'a' has -1 bytes according to its header"),
    "a size of the universe": (pax((b"size", b"9" * 20)) + header(b"a") + END, "'a' has 9{20} bytes"),
    "a damaged record": (file(b"PaxHeaders/x", b"12 path=a", b"x") + header(b"a") + END, "record at byte 0"),
    "a record without a value": (file(b"x", b"7 path\n", b"x") + header(b"a") + END, "not LENGTH KEYWORD=VALUE"),
    "a NUL in a name": (pax((b"path", b"a\0b")) + header(b"a") + END, "contains a NUL byte"),
    "a NUL in a target": (pax((b"linkpath", b"a\0b")) + header(b"a", b"2") + END, "'a' is a link to .* a NUL byte"),
    "a hard link to nothing": (header(b"a", b"1") + END, "'a' is a hard link without a target"),
    "a file named like the root": (file(b"./", b"", b"6") + END, "the root of the archive is not a folder"),
    "a name that leads out": (file(b"a/../../b") + END, "'a/../../b' leads out of the tree"),
    "a sparse file in a ustar header": (header(b"a", b"S") + END, r"'a' is a sparse file \(type S\)"),
    "a sparse file of Solaris": (pax((b"SUN.holesdata", b" 0 1")) + header(b"a") + END, "format of Solaris"),
    "a sparse format of the future": (
        pax((b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")) + header(b"a") + END,
        "'a' is a sparse file of the unknown format 2.0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_archive_that_cannot_be_right_is_refused_with_the_member_and_the_reason(tmp_path: Path, case: str) -> None:
    raw, words = REFUSED[case]
    with pytest.raises(TreeError, match=words) as caught:
        read(raw, tmp_path)
    assert caught.value.hint


SPARSE = ["old", "0.0", "0.1", "1.0"]


def holes(path: Path, size: int, parts: list[tuple[int, bytes]]) -> None:
    with path.open("wb") as out:
        for position, body in parts:
            out.seek(position)
            out.write(body)
        out.truncate(size)


@pytest.mark.skipif("tar" not in TOOLS, reason="GNU tar is not here")
@pytest.mark.parametrize("version", [*SPARSE, "bsdtar"])
def test_sparse_files_of_any_shape_are_read(tmp_path: Path, version: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    dice = random.Random(version)
    for number in range(12):
        parts = [
            (dice.randrange(400) << 12, dice.randbytes(dice.choice([1, 511, 4096, 5000]))) for _ in range(number * 3)
        ]
        holes(root / f"f{number}", (2 << 20) + dice.choice([0, 1, 511, 3000]), parts)
    if version == "bsdtar":
        if "bsdtar" not in TOOLS:
            pytest.skip("bsdtar is not here")
        argv = ["bsdtar", "--read-sparse", "-cf", tmp_path / "x.tar"]
    else:
        form = ["--format=gnu"] if version == "old" else ["--format=posix", f"--sparse-version={version}"]
        argv = ["tar", *form, "-S", "-cf", tmp_path / "x.tar"]
    subprocess.run([*argv, "-C", root, "."], check=True)
    assert (tmp_path / "x.tar").stat().st_size < 2 << 20
    assert [str(row) for row in diff_trees(from_folder(root), tree_of(f"tar:{tmp_path}/x.tar"))] == []


def star_sparse(name: bytes, size: int, pairs: list[tuple[int, bytes]]) -> bytes:
    """A sparse file as star writes it: four pairs at 356, the size at 452, "tar" at 508; the map counts as data."""
    pairs = [*pairs, (size, b"")]
    entries = b"".join(b"%011o %011o " % (at, len(body)) for at, body in pairs)
    times = b"%011o %011o " % (1, 1)
    stored = b"".join(body for _, body in pairs)
    fields = {"at_355": b"\x01" if len(pairs) > 4 else b"\0", "at_356": entries[:96], "at_452": b"%011o " % size}
    blocks = [entries[at : at + 504] for at in range(96, len(entries), 504)]
    block = header(name, b"S", len(stored) + 512 * len(blocks), at_476=times, at_508=b"tar\0", **fields)
    marks = [b"\x01"] * (len(blocks) - 1) + [b"\0"]
    extension = b"".join(part.ljust(504, b"\0") + mark + bytes(7) for part, mark in zip(blocks, marks, strict=False))
    return block + extension + data(stored)


@pytest.mark.parametrize("count", [1, 3, 4, 30])
def test_sparse_files_of_star_are_read_as_gnu_tar_reads_them(tmp_path: Path, count: int) -> None:
    raw = (
        star_sparse(b"s", 100_000, [(number * 2048, b"%04d" % number * 128) for number in range(count)])
        + file(b"b", b"x")
        + END
    )
    tree = read(raw, tmp_path)
    assert names(tree) == [b"b", b"s"]
    if "tar" in TOOLS:
        (tmp_path / "out").mkdir()
        subprocess.run(["tar", "-xf", "-", "-C", tmp_path / "out"], input=raw, check=True)
        assert tree["s"].content.read() == (tmp_path / "out/s").read_bytes()


def sparse_1_0(size: bytes, stored: int, body: bytes, lines: bytes = b"1\n0\n5\n") -> bytes:
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1048576")]
    extended = pax(*records, (b"GNU.sparse.name", b"big"), *([(b"size", size)] if size else []))
    return extended + header(b"GNUSparseFile.0/big", b"0", stored) + data(lines) + data(body) + file(b"b", b"x") + END


@pytest.mark.parametrize(("size", "stored"), [(b"", 517), (b"517", 0), (b"1048576", 1024), (b"1048576", 517)])
def test_a_sparse_file_whose_pax_size_is_its_own_is_read_if_its_map_says_so(
    tmp_path: Path, size: bytes, stored: int
) -> None:
    tree = read(sparse_1_0(size, stored, b"hello"), tmp_path)
    assert tree["big"].content.read() == b"hello" + bytes((1 << 20) - 5)
    assert tree["b"].content.read() == b"x"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (sparse_1_0(b"", 5000, b"hello"), "describes 517 bytes of the archive, but its header says 5000"),
        (sparse_1_0(b"", 517, b"hello", b"2\n0\n2\n1\n3\n"), "overlaps the one before it"),
        (sparse_1_0(b"", 517, b"hello", b"1\n1048575\n5\n"), "describes 1048580 bytes of a file of 1048576"),
        (sparse_1_0(b"", 517, b"hello", b"1\n-1\n5\n"), "overlaps"),
        (sparse_1_0(b"", 517, b"hello", b"99999999\n"), "has 99999999 parts; the limit is"),
        (sparse_1_0(b"", 517, b"hello", b"1\nx\n5\n"), "its sparse map is b'x', not a decimal number"),
        (sparse_1_0(b"", 517, b"hello", b"1" * 500), "not a decimal number"),
    ],
)
def test_a_sparse_map_that_contradicts_itself_is_refused(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(TreeError, match=f"'big': its sparse map .*{re.escape(words.removeprefix('its sparse map '))}"):
        read(raw, tmp_path)


@pytest.mark.parametrize(
    "records",
    [
        [(b"GNU.sparse.offset", b"0"), (b"GNU.sparse.offset", b"1"), (b"GNU.sparse.numbytes", b"1")],
        [(b"GNU.sparse.numbytes", b"1")],
        [(b"GNU.sparse.offset", b"0")],
        [(b"GNU.sparse.map", b"0,1,2"), (b"GNU.sparse.size", b"9")],
        [(b"GNU.sparse.size", b"9")],
    ],
)
def test_half_a_sparse_map_is_refused(tmp_path: Path, records: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(TreeError, match="sparse"):
        read(pax(*records) + file(b"a", b"x") + END, tmp_path)


def hostile() -> dict[str, bytes]:
    pairs = b"\x80" + bytes(10) + b"\x01" + bytes(12)
    block = pairs * 21 + b"\x01" + bytes(7)
    attributes = b"".join(record(b"SCHILY.xattr.%d" % number, b"") for number in range(5000))
    return {
        "its sparse map has 262": header(b"a", b"S", magic=GNU, at_482=b"\x01") + block * 13_000,
        "not a decimal number": sparse_1_0(b"", 1, b"", b"262144\n" + b"0\n" * 200_000 + b"1" * 5_000_000),
        "its sparse map has 9": sparse_1_0(b"", 1, b"", b"99999999\n" + b"0\n" * 200_000),
        "name_bytes": b"".join(long(b"L", b"%d/" % number + b"n" * 4000) + header(b"a") for number in range(600)),
        "name_bytes=": b"".join(file(b"p", attributes, b"x") + header(b"a") for _ in range(8)),
    }


def test_hostile_headers_end_at_a_limit_in_bounded_memory(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from acon_nb.errors import TreeError\n"
        "from acon_nb.initrd import ImageLimits, tree_of\n"
        "for path in sys.argv[1:]:\n"
        "    try: tree_of('tar:' + path, limits=ImageLimits(name_bytes=2 << 20)); print('read')\n"
        "    except TreeError as error: print(error.what)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    cases = hostile()
    paths = []
    for number, raw in enumerate(cases.values()):
        paths.append(tmp_path / f"{number}.tar")
        paths[-1].write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=300, check=True
    )
    *messages, peak_kib = done.stdout.splitlines()
    for words, message in zip(cases, messages, strict=True):
        assert words in message
    assert int(peak_kib) < 200 << 10


def everything() -> bytes:
    """One of each kind of header."""
    return b"".join(raw for raw, _ in VALID.values()) + star_sparse(b"s", 5000, [(0, b"x" * 100)] * 1)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 20), st.sampled_from(b"\0 0179-.\x80\xff\nSLKxgX1257=")), min_size=1, max_size=4
    )
)
def test_mutated_headers_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    path.write_bytes(mutated(everything() + END, changes))
    assert_read_or_refused(path)


NAME = st.text("ab é.-", min_size=1, max_size=8).map(lambda text: text.strip(". ") or "x")
FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.lists(NAME, min_size=1, max_size=12).map("/".join),
        st.tuples(st.sampled_from("fls6"), st.binary(max_size=1200), st.integers(0, 0o7777), st.integers(0, 1 << 20)),
        max_size=6,
    ),
    st.sampled_from(sorted(FORMATS)),
    st.integers(0, 0xFFFFFFFF),
)
def test_what_python_writes_is_read_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: dict[str, tuple[str, bytes, int, int]],
    form: str,
    mtime: int,
) -> None:
    members = {
        name: value
        for name, value in drawn.items()
        if not any(other != name and other.startswith(name + "/") for other in drawn)
    }
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    with tarfile.open(path, "w", format=FORMATS[form], encoding="utf-8") as archive:
        for name, (kind, body, mode, uid) in members.items():
            info = tarfile.TarInfo(name)
            info.type = {"f": tarfile.REGTYPE, "l": tarfile.SYMTYPE, "s": tarfile.DIRTYPE, "6": tarfile.FIFOTYPE}[kind]
            info.mode, info.uid, info.mtime = mode, uid, mtime
            info.linkname = "target/of" if kind == "l" else ""
            info.size = len(body) if kind == "f" else 0
            archive.addfile(info, io.BytesIO(body))
    tree = tree_of(f"tar:{path}")
    for name, (kind, body, mode, uid) in members.items():
        entry = tree[name]
        assert (entry.uid, entry.mtime) == (uid, mtime)
        if kind == "l":
            assert entry.content.read() == b"target/of"
            continue
        assert stat.S_IMODE(entry.mode) == mode
        assert entry.content.read() == (body if kind == "f" else b"")
