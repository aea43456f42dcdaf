"""Kernel modules in a tree, and the lists by which modprobe finds them."""

from __future__ import annotations

import contextlib
import lzma
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import FileTree, add_modules, module_index
from tests.unit.elf_modules import module

FOLDER = "lib/modules/6.12.1"
KEYS = st.text(st.sampled_from("abc_:-*"), min_size=1, max_size=8).map(str.encode)
VALUES = st.text(st.sampled_from("xyz ./"), max_size=5).map(str.encode)


def lines(tree: FileTree, file: str) -> list[str]:
    text = tree[f"{FOLDER}/{file}"].content.read().decode().splitlines()
    return [line for line in text if not line.startswith("#")]


def index(tree: FileTree, file: str) -> dict[bytes, list[bytes]]:
    return module_index.read(tree[f"{FOLDER}/{file}.bin"].content.read())


def test_modules_are_listed_with_what_they_need_and_nothing_else(tmp_path: Path) -> None:
    files = [
        module(tmp_path, "virtio.ko"),
        module(tmp_path, "virtio_ring.ko"),
        module(tmp_path, "dm-mod.ko"),
        module(tmp_path, "virtio-pci.ko", depends="virtio_ring,virtio"),
    ]
    tree = FileTree()
    add_modules(tree, "6.12.1", files, ["virtio_pci", "built_in"])
    assert tree["etc/modules"].content.read() == b"virtio_pci\n"
    expected = ["virtio.ko:", "virtio_ring.ko:", "dm-mod.ko:", "virtio-pci.ko: virtio.ko virtio_ring.ko"]
    assert lines(tree, "modules.dep") == expected
    assert index(tree, "modules.dep") == {
        name.encode(): [line.encode()]
        for name, line in zip(("virtio", "virtio_ring", "dm_mod", "virtio_pci"), expected, strict=True)
    }
    assert tree[f"{FOLDER}/virtio.ko"].content.read() == files[0].read_bytes()


def test_what_a_module_needs_is_loaded_before_it_at_any_depth(tmp_path: Path) -> None:
    files = [
        module(tmp_path, "a.ko"),
        module(tmp_path, "b.ko", depends="a"),
        module(tmp_path, "c.ko", depends="a,b"),
        module(tmp_path, "d.ko", depends="a,c"),
    ]
    tree = FileTree()
    add_modules(tree, "6.12.1", files, [])
    assert lines(tree, "modules.dep")[-1] == "d.ko: c.ko b.ko a.ko"  # modprobe starts with the last


def test_aliases_symbols_soft_dependencies_and_devices_are_listed(tmp_path: Path) -> None:
    first = module(
        tmp_path,
        "tun-dev.ko",
        info=["alias=devname:net/tun", "alias=char-major-10-200", "alias=a-b[c-d]e-f", "softdep=pre: crc32c"],
        symbols=["tun_get", "", "tun_put"],
    )
    second = module(tmp_path, "other.ko", info=["alias=a-b[c-d]e-f"])
    tree = FileTree()
    add_modules(tree, "6.12.1", [first, second], [])
    assert lines(tree, "modules.devname") == ["tun_dev net/tun c10:200"]
    assert lines(tree, "modules.softdep") == ["softdep tun_dev pre: crc32c"]
    assert lines(tree, "modules.symbols") == ["alias symbol:tun_get tun_dev", "alias symbol:tun_put tun_dev"]
    assert index(tree, "modules.symbols") == {b"symbol:tun_get": [b"tun_dev"], b"symbol:tun_put": [b"tun_dev"]}
    assert "alias a-b[c-d]e-f other" in lines(tree, "modules.alias")
    assert index(tree, "modules.alias") == {
        b"a_b[c-d]e_f": [b"tun_dev", b"other"],
        b"char_major_10_200": [b"tun_dev"],
        b"devname:net/tun": [b"tun_dev"],
    }


@pytest.mark.parametrize("form", ["lists", "indexes"])
def test_modules_that_an_image_has_stay_known(form: str, tmp_path: Path) -> None:
    tree = FileTree()
    known = {
        "modules.dep": [("ext4", "kernel/fs/ext4.ko: kernel/fs/jbd2.ko"), ("virtio", "kernel/virtio.ko: old.ko")],
        "modules.alias": [("fs_ext4", "ext4"), ("virtio:*", "virtio"), ("virtio:*", "other")],
        "modules.symbols": [("symbol:jbd2_one", "jbd2"), ("symbol:virtio_old", "virtio")],
    }
    for file, pairs in known.items():
        if form == "indexes":
            data = module_index.write((key.encode(), value.encode()) for key, value in pairs)
            tree.add_file(f"{FOLDER}/{file}.bin", data)
        else:
            text = [value if file == "modules.dep" else f"alias {key} {value}" for key, value in pairs]
            tree.add_file(f"{FOLDER}/{file}", "\n".join(["# a heading", *text][file == "modules.dep" :]).encode())
            tree.add_file(f"{FOLDER}/{file}.bin", b"of another time")
    tree.add_file(f"{FOLDER}/modules.dep.bb", b"virtio.ko virtio\n")
    tree.add_file("etc/modules", b"ext4\n")
    added = [module(tmp_path, "virtio.ko.xz"), module(tmp_path, "mine.ko", depends="ext4", info=["alias=virtio:d1"])]
    added[0].write_bytes(lzma.compress(added[0].read_bytes()))
    add_modules(tree, "6.12.1", added, ["virtio"])
    expected = [
        "virtio.ko.xz:",
        "mine.ko: kernel/fs/ext4.ko kernel/fs/jbd2.ko",
        "kernel/fs/ext4.ko: kernel/fs/jbd2.ko",
    ]
    assert lines(tree, "modules.dep") == expected
    assert [values for _, values in sorted(index(tree, "modules.dep").items())] == [
        [expected[2].encode()], [expected[1].encode()], [expected[0].encode()],
    ]  # fmt: skip
    assert index(tree, "modules.alias") == {b"fs_ext4": [b"ext4"], b"virtio:*": [b"other"], b"virtio:d1": [b"mine"]}
    assert index(tree, "modules.symbols") == {b"symbol:jbd2_one": [b"jbd2"]}
    assert f"{FOLDER}/modules.dep.bb" not in tree
    assert tree["etc/modules"].content.read() == b"ext4\nvirtio\n"


def test_a_damaged_index_of_an_image_is_a_warning(tmp_path: Path) -> None:
    tree = FileTree()
    tree.add_file(f"{FOLDER}/modules.dep.bin", b"\xb0\x07\xf4\x57")
    add_modules(tree, "6.12.1", [module(tmp_path, "a.ko")], [])
    assert lines(tree, "modules.dep") == ["a.ko:"]
    assert any("is damaged (it is not an index" in line and "modules.dep.bin" in line for line in tree.warnings())


def test_built_in_modules_have_an_index_of_their_own(tmp_path: Path) -> None:
    tree = FileTree()
    tree.add_file(f"{FOLDER}/modules.builtin", b"kernel/drivers/virtio/virtio-mmio.ko\n")
    add_modules(tree, "6.12.1", [module(tmp_path, "a.ko")], [])
    assert index(tree, "modules.builtin") == {b"virtio_mmio": [b""]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"module", "is not a kernel module"),
        (b"\x7fELF\x02\x01\x01", "is not a kernel module"),
        (b"", "is not a kernel module"),
        (lzma.compress(b"text"), "is not a kernel module"),
        (lzma.compress(b"text" * 99)[:-9], "is not a kernel module"),
        (Path("/bin/true").read_bytes(), r"no section \.modinfo"),
    ],
)
def test_what_is_no_module_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.ko"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=why):
        add_modules(FileTree(), "6.12.1", [path], [])


def test_a_module_whose_needs_are_nowhere_is_refused(tmp_path: Path) -> None:
    path = module(tmp_path, "zram.ko", depends="zsmalloc")
    with pytest.raises(InvalidInput, match="depends on zsmalloc, which is neither given nor a module of the tree"):
        add_modules(FileTree(), "6.12.1", [path], [])


@given(st.lists(st.tuples(KEYS, VALUES), max_size=30))
@settings(max_examples=60, deadline=None)
def test_an_index_reads_back_as_it_was_written(pairs: list[tuple[bytes, bytes]]) -> None:
    expected: dict[bytes, list[bytes]] = {}
    for key, value in pairs:
        expected.setdefault(key, []).append(value)
    assert module_index.read(module_index.write(pairs)) == expected


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_index_is_refused_or_read(data: st.DataObject) -> None:
    raw = bytearray(module_index.write([(b"virtio:d%d" % n, b"value %d" % n) for n in range(20)]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TreeError):  # any other exception, or no end, is a fault
        module_index.read(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


def test_an_index_whose_nodes_meet_again_is_refused() -> None:
    """What doubles at every node would never end."""
    raw = bytearray(module_index.write([]))
    node = 0
    for _ in range(64):
        offset = len(raw) | 0x20000000
        raw += b"ab" + struct.pack(">II", node, node)
        node = offset
    raw[8:12] = struct.pack(">I", node)
    with pytest.raises(TreeError, match="not a tree"):
        module_index.read(bytes(raw))


def test_keys_of_any_length_are_written_without_recursion() -> None:
    pairs = [(b"a" * count, b"%d" % count) for count in range(1199, 0, -1)]  # the longest first, which is quick
    assert len(module_index.read(module_index.write(pairs))) == 1199
    assert module_index.read(module_index.write([(b"a" * 5000, b""), ("ä".encode(), b""), (b"a\0b", b"")])) == {}
