"""`cpio:FILE`: an existing initrd as a source, as distributions make it: microcode first, then the compressed rest."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.archive import cpio, segments
from acon_nb.cli import main
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import Content, FileTree, create, diff_trees, guide, load, tree_of

MICROCODE = "kernel/x86/microcode/GenuineIntel.bin"


def archive(**files: bytes) -> bytes:
    tree = FileTree()
    for name, data in files.items():
        tree.add_file(name, data)
    out = io.BytesIO()
    cpio.write(tree, out)
    return out.getvalue()


EARLY = archive(**{MICROCODE: b"microcode" * 99, "early_cpio": b"1\n"}) + bytes(96)


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    tree = FileTree()
    tree.add_file("init", b"#!/bin/systemd\n", mode=0o755)
    tree.add_file("usr/lib/x.ko", b"module")
    tree.add_symlink("lib", "usr/lib")
    tree.add_device("dev/console", stat.S_IFCHR, 5, 1)
    path = tmp_path / "initrd.img"
    path.write_bytes(EARLY + create(tree, tmp_path / "main.zst").path.read_bytes())
    return path


def run(*argv: object) -> tuple[str, str]:
    result = CliRunner().invoke(main, ["initrd", *map(str, argv)])
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_microcode_stays_first_and_uncompressed_byte_by_byte(distribution: Path, tmp_path: Path) -> None:
    edits = tmp_path / "edits"
    (edits / "usr/lib").mkdir(parents=True)
    (edits / "usr/lib/mine.ko").write_bytes(b"mine")
    image = tmp_path / "new.cpio.xz"
    _, stderr = run("from", f"cpio:{distribution}", "-o", image, "--edits", edits)
    assert "stays first" in stderr
    raw = image.read_bytes()
    assert raw.startswith(EARLY)
    assert raw[len(EARLY) :].startswith(b"\xfd7zXZ")
    tree = load(image)
    assert tree[MICROCODE].content.read() == b"microcode" * 99
    assert {name for name, entry in tree.items() if entry.is_file} == {
        b"early_cpio",
        b"init",
        MICROCODE.encode(),
        b"usr/lib/x.ko",
        b"usr/lib/mine.ko",
    }
    assert tree["init"].content.read() == b"#!/bin/systemd\n"


def test_the_early_archive_can_be_omitted(distribution: Path, tmp_path: Path) -> None:
    image = tmp_path / "new.cpio.xz"
    run("from", f"cpio:{distribution}", "usr", "init", "-o", image, "--no-early")
    assert {name for name, entry in load(image).items() if not entry.is_dir} == {b"init", b"usr/lib/x.ko"}


def test_folders_are_selected_and_microcode_stays(distribution: Path) -> None:
    tree = tree_of(f"cpio:{distribution}", ["usr"])
    assert [name for name, _ in tree.items()] == [b"usr", b"usr/lib", b"usr/lib/x.ko"]
    assert tree.early is not None
    assert tree.early.read() == EARLY


def test_an_initrd_with_its_own_init_gets_no_fstab(
    distribution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for force, names in (("", set()), ("1", {b"etc/fstab", b"etc/profile"})):
        monkeypatch.setenv("F", force)
        image = tmp_path / "new.cpio"
        run("from", f"cpio:{distribution}", "-o", image)
        tree = load(image)
        assert {name for name, _ in tree.items()} & {b"etc/fstab", b"etc/profile"} == names
        assert (tree["init"].content.read() == b"#!/bin/systemd\n") is not bool(force)


def test_device_nodes_are_kept_only_on_request(distribution: Path) -> None:
    tree = tree_of(f"cpio:{distribution}")
    assert "dev/console" not in tree
    assert any("--devices" in text and "dev/console" in text for text in tree.warnings())
    assert tree_of(f"cpio:{distribution}", devices=True)["dev/console"].device == (5, 1)


def test_an_early_archive_with_other_files_belongs_to_the_tree(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(archive(**{MICROCODE: b"x", "init": b"#!"}))
    tree = tree_of(f"cpio:{path}")
    assert tree.early is None
    assert any("only in an uncompressed image" in text for text in tree.warnings())
    assert {"init", MICROCODE} <= {name.decode() for name, _ in tree.items()}


def test_several_early_archives_stay_together(distribution: Path, tmp_path: Path) -> None:
    tables = archive(**{"kernel/firmware/acpi/dsdt.aml": b"DSDT"})
    path = tmp_path / "image"
    path.write_bytes(tables + distribution.read_bytes())
    tree = tree_of(f"cpio:{path}")
    assert tree.early is not None
    assert tree.early.read() == tables + EARLY
    assert "kernel" not in tree


def test_a_folder_or_tar_of_it_lacks_the_early_archive_with_a_warning(distribution: Path, tmp_path: Path) -> None:
    made = guide.gen_initrd(tmp_path / "tree", f"cpio:{distribution}")
    assert any("early archive" in text for text in made.warnings)
    assert not made.image.path.read_bytes().startswith(EARLY[:200])
    with (tmp_path / "tar").open("wb") as file:
        assert "early archive" in "".join(guide.tar_container(f"cpio:{distribution}", [], file).warnings())


def test_what_no_kernel_reads_is_no_source(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"070707" + bytes(300))
    with pytest.raises(TreeError, match="odc"):
        tree_of(f"cpio:{path}")
    with pytest.raises(InvalidInput, match="is a folder, not a file"):
        tree_of(f"cpio:{tmp_path}")


def test_a_name_that_the_kernel_loses_is_a_warning(tmp_path: Path) -> None:
    raw = archive(**{"a/b": b"x", "init": b"#!"})
    place = raw.index(b"070701", 110)  # without the entry of its folder
    path = tmp_path / "image"
    path.write_bytes(raw[place:])
    tree = tree_of(f"cpio:{path}")
    assert "a/b" not in tree
    assert any("the folder does not exist yet" in text and "a/b" in text for text in tree.warnings())


def test_an_image_and_its_copy_have_equal_trees(distribution: Path, tmp_path: Path) -> None:
    tree = tree_of(f"cpio:{distribution}", devices=True)
    copy = create(tree, tmp_path / "copy.gz").path
    first, second = (segments.read(Content.of_file(path), "x") for path in (distribution, copy))
    assert [part.early for part in first.segments] == [part.early for part in second.segments] == [True, False]
    assert diff_trees(first.tree, second.tree) == []
