from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from acon_nb.errors import AconError, InvalidInput
from acon_nb.initrd import FileTree, InitrdSpec, folder_sizes, largest_files, load, make, plan, tables, text_of
from acon_nb.initrd.modules import add_modules
from tests.unit import stacks
from tests.unit.elf_modules import module

KEY = "ecdsa-sha2-nistp521 AAAAE2VjZHNh someone@somewhere\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system of a shell's name and a big file."""
    folder = tmp_path / "root"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/sh").write_bytes(b"#!")
    (folder / "bin/sh").chmod(0o755)
    (folder / "usr/lib/deep/er").mkdir(parents=True)
    (folder / "usr/lib/deep/er/big").write_bytes(b"x" * 5000)
    (folder / "usr/lib/small").write_bytes(b"y" * 10)
    os.link(folder / "usr/lib/deep/er/big", folder / "usr/lib/again")
    return folder


def test_files_keys_lines_and_edits_are_in_the_image(root: Path, tmp_path: Path) -> None:
    key, motd, edits = tmp_path / "id.pub", tmp_path / "motd", tmp_path / "edits"
    key.write_text(KEY)
    motd.write_text("hello")
    (edits / "etc").mkdir(parents=True)
    (edits / "etc/hostname").write_text("guest")
    spec = InitrdSpec(
        image=f"dir:{root}",
        fstab=("/dev/vdb none swap sw 0 0",),
        files=(f"etc/motd={motd}",),
        keys=(key,),
        edits=(edits,),
        compression="gz",
    )
    made = make(spec, tmp_path / spec.file_name("test"))
    assert made.image.path.name == "initrd-test.cpio.gz"
    tree = load(made.image.path)
    assert tree["etc/motd"].content.read() == b"hello"
    assert tree["etc/hostname"].content.read() == b"guest"
    assert tree["etc/fstab"].content.read().endswith(b"\n/dev/vdb none swap sw 0 0\n")
    assert tree["root/.ssh/authorized_keys"].content.read() == KEY.encode()
    assert tree["root/.ssh/authorized_keys"].mode & 0o777 == 0o600
    assert tree["root/.ssh"].mode & 0o777 == 0o700
    assert any("mount" in text for text in made.warnings), "what the image lacks is said"


def test_everything_that_is_added_follows_the_images_links(tmp_path: Path) -> None:
    lines = [
        "usr/bin/sh = sh",
        "usr/lib/",
        "bin -> usr/bin",
        "lib -> usr/lib",
        "root -> var/home/root",
        "etc -> /usr/etc",
    ]
    (tmp_path / "x.tar").write_bytes(stacks.tar(lines))
    (tmp_path / "id.pub").write_text(KEY)
    spec = InitrdSpec(
        image=f"tar:{tmp_path}/x.tar",
        fstab=("/dev/vdb none swap sw 0 0",),
        files=(f"bin/tool={tmp_path}/id.pub", f"opt/deep/tool={tmp_path}/id.pub", f"lib/x={tmp_path}/id.pub"),
        keys=(tmp_path / "id.pub",),
        edits=(stacks.folder(tmp_path / "edits", ["bin/mine = 1", "lib/modules/6.12/mine.ko = 1", "etc/mine = 1"]),),
    )
    tree, _ = plan(spec)
    add_modules(tree, "6.12", [module(tmp_path, "own.ko")], [])
    names = {name.decode() for name, entry in tree.items() if not entry.is_dir}
    assert names >= {
        *("bin", "lib", "root", "etc", "usr/bin/tool", "usr/bin/mine", "opt/deep/tool", "usr/lib/x", "usr/etc/mine"),
        *("usr/lib/modules/6.12/mine.ko", "usr/lib/modules/6.12/own.ko", "usr/lib/modules/6.12/modules.dep"),
        *("usr/etc/fstab", "usr/etc/profile", "usr/etc/modules", "var/home/root/.ssh/authorized_keys"),
    }
    assert not any(name.startswith(("bin/", "lib/", "root/", "etc/")) for name in names)


def test_a_plan_writes_nothing(root: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    tree, _ = plan(InitrdSpec(image=f"dir:{root}"))
    assert "init" in tree
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"image": ""}, "image"),
        ({"compression": "rar"}, "compression"),
        ({"fstab": ("/dev/mapper/vda@rot13 none swap sw 0 0",)}, "fstab"),
        ({"fstab": ("one two",)}, "fstab"),
        ({"files": ("etc/motd",)}, "files"),
        ({"files": ("etc/motd=/no/such/file",)}, "files"),
        ({"files": ("../up=/etc/hostname",)}, "name"),
        ({"edits": (Path("/no/such/folder"),)}, "edits"),
        ({"keys": (Path("/no/such/key"),)}, "keys"),
    ],
)
def test_an_invalid_spec_is_refused_by_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(AconError, match=rf"{field}|\.\."):
        InitrdSpec(**fields)


@pytest.mark.parametrize("text", ["-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "hello\n", KEY + KEY, ""])
def test_only_public_keys_get_into_an_image(tmp_path: Path, text: str) -> None:
    key = tmp_path / "id"
    key.write_text(text)
    with pytest.raises(InvalidInput, match="keys"):
        InitrdSpec(keys=(key,))


def test_sizes_count_hard_links_once_and_deeper_folders_towards_their_parent(root: Path) -> None:
    tree, _ = plan(InitrdSpec(image=f"dir:{root}"))
    sizes = {row.name: row for row in folder_sizes(tree)}
    assert sizes["/usr/lib"].bytes == 5010
    assert sizes["/usr/lib"].names == 3
    first, *_ = largest_files(tree, most=3)
    assert first[1] > 5000 or first[0] in ("/usr/lib/again", "/usr/lib/deep/er/big")
    assert [row.bytes for row in folder_sizes(tree)] == sorted((row.bytes for row in folder_sizes(tree)), reverse=True)


def test_tables_explain_the_lines() -> None:
    text = "/dev/mapper/vda@ none swap sw 0 0\nbad\n"
    rows = tables.fstab_table(text).to_dict("records")
    assert "Encrypted with AES-256" in rows[0]["what /init does"]
    assert rows[1]["what /init does"].startswith("SKIPPED")
    assert len(tables.cipher_table()) == len(tables.SPECS)
    assert list(tables.folder_table(FileTree()).columns) == ["name", "bytes", "names"]


def test_a_file_does_not_replace_a_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(InvalidInput, match="is a folder in the image, which a file cannot replace"):
        plan(InitrdSpec(image=f"dir:{root}", files=(f"etc={tmp_path / 'x'}",), fstab=("/dev/vda none swap sw 0 0",)))
    with pytest.raises(InvalidInput, match="does not name a file"):
        InitrdSpec(files=(f"/={tmp_path / 'x'}",))


@pytest.mark.parametrize("target", ["/usr/fstab", "../usr/fstab", "/nowhere"])
def test_an_fstab_that_is_a_link_keeps_the_lines_of_its_target(root: Path, target: str) -> None:
    (root / "usr/fstab").write_text("proc /proc proc defaults 0 0\n")
    (root / "etc").mkdir()
    (root / "etc/fstab").symlink_to(target)
    tree, _ = plan(InitrdSpec(image=f"dir:{root}", fstab=("/dev/vda none swap sw 0 0",)))
    lines = text_of(tree, "etc/fstab").split("\n")
    assert [line for line in lines if line] == [
        *([] if target == "/nowhere" else ["proc /proc proc defaults 0 0"]),
        "/dev/vda none swap sw 0 0",
    ]


def test_text_of_follows_links() -> None:
    tree = FileTree()
    tree.add_file("usr/fstab", b"\xff a line\n")
    for name, target in (("etc/fstab", "../usr/fstab"), ("round", "round"), ("dangling", "/no")):
        tree.add_symlink(name, target)
    assert text_of(tree, "etc/fstab") == "\ufffd a line\n"
    assert [text_of(tree, name) for name in ("round", "dangling", "absent", "usr")] == ["", "", "", ""]


def test_a_home_folder_is_expanded_and_a_name_with_nul_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "id.pub").write_text(KEY)
    tree, _ = plan(InitrdSpec(image=f"dir:~/{root.name}", keys=(Path("~/id.pub"),)))
    assert text_of(tree, "root/.ssh/authorized_keys") == KEY
    with pytest.raises(InvalidInput, match="keys="):
        InitrdSpec(keys=(Path("id\0.pub"),))
