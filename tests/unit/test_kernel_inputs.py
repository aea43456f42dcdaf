"""What a kernel's bytes depend on: files that options name are inputs; what would be random is pinned or refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.kernel import embedded, pins
from acon_nb.kernel.source import SourceTree


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    folder = tmp_path / "linux"
    (folder / "firmware").mkdir(parents=True)
    (folder / "scripts").mkdir()
    (folder / "firmware/a.bin").write_bytes(b"a")
    return SourceTree(path=folder, identity="content:1", version=(6, 12), release="6.12.9")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def configured(work: Path, *lines: str) -> Path:
    (work / ".config").write_text("".join(f"CONFIG_{line}\n" for line in lines))
    return work


def openssl(*argv: str | Path) -> bytes:
    return subprocess.run(["openssl", *argv], check=True, capture_output=True).stdout


def test_the_key_that_signs_modules_is_made_from_the_source_and_openssl_takes_it(tree: SourceTree, work: Path) -> None:
    configured(work, 'MODULE_SIG_KEY="certs/signing_key.pem"')
    (work / "certs").mkdir()
    (work / "certs/signing_key.pem").write_text("of another build")
    pins.prepare(tree, work)
    assert not (work / "certs/signing_key.pem").exists(), "make copies the new one"
    assert "cmd_gen_key=cp acon-signing-key.pem $@" in pins.variables(tree, work)
    path = work / "acon-signing-key.pem"
    made = path.read_bytes()
    openssl("rsa", "-in", path, "-check", "-noout")
    assert openssl("x509", "-in", path, "-noout", "-modulus") == openssl("rsa", "-in", path, "-noout", "-modulus")
    openssl("verify", "-CAfile", path, "-check_ss_sig", path)
    path.unlink()
    (work / "acon-signing-key.pem.seed").unlink()
    pins.prepare(tree, work)
    assert path.read_bytes() == made
    assert pins.has_public_key(work / ".config")


def test_a_key_of_the_users_is_left_alone(tree: SourceTree, work: Path) -> None:
    configured(work, 'MODULE_SIG_KEY="/home/me/key.pem"')
    pins.prepare(tree, work)
    assert pins.variables(tree, work) == ()
    assert not pins.has_public_key(work / ".config")


def test_the_seed_of_structures_is_made_from_the_source(tree: SourceTree, work: Path, tmp_path: Path) -> None:
    configured(work, "RANDSTRUCT=y")
    pins.prepare(tree, work)
    assert "gen-randstruct-seed=acon-randstruct-seed.sh" in pins.variables(tree, work)
    seed, header = tmp_path / "seed", tmp_path / "hash.h"
    subprocess.run(["sh", work / "acon-randstruct-seed.sh", seed, header], check=True)
    text = seed.read_text()
    assert len(text) == 65
    digest = subprocess.run(["sha256sum"], input=text.strip(), text=True, check=True, capture_output=True).stdout[:64]
    assert header.read_text() == f'#define RANDSTRUCT_HASHED_SEED "{digest}"\n'


def test_paths_in_debug_information_are_mapped_only_where_there_is_some(tree: SourceTree, work: Path) -> None:
    assert pins.variables(tree, configured(work, "MODULES=y")) == ()
    (flags, _) = pins.variables(tree, configured(work, "DEBUG_INFO=y"))
    source = work / "x.c"
    source.write_text("int x;\n")
    for name in ("one", "two"):
        argv = ["gcc", "-g", "-c", *flags.removeprefix("KCFLAGS=").split(), source, "-o", work / f"{name}.o"]
        subprocess.run(argv, cwd=work if name == "one" else tree.path, check=True)
    assert (work / "one.o").read_bytes() == (work / "two.o").read_bytes()
    assert str(work).encode() not in (work / "one.o").read_bytes()


@pytest.mark.parametrize(
    "option", ["GCC_PLUGIN_LATENT_ENTROPY", "GCOV_KERNEL", "MODULE_SIG_KEY_TYPE_ECDSA", "MODULE_SIG_KEY_TYPE_MLDSA_65"]
)
def test_what_cannot_be_pinned_is_refused_by_name(tree: SourceTree, option: str) -> None:
    with pytest.raises(InvalidInput, match=f"{option}=y'?: .*would not give the same bytes"):
        pins.refuse({option: "y", "MODULE_SIG_KEY": "certs/signing_key.pem"}, tree)
    pins.refuse({option: "n", "MODULE_SIG_KEY": "certs/signing_key.pem"}, tree)


def test_type_information_is_refused_where_the_tree_lets_pahole_use_threads(tree: SourceTree) -> None:
    values = {"DEBUG_INFO_BTF": "y"}
    pins.refuse(values, tree)
    rule = tree.path / "scripts/Makefile.btf"
    rule.write_text("pahole-flags += -j\n")
    with pytest.raises(InvalidInput, match=r"DEBUG_INFO_BTF=y.*several threads of pahole.*6\.12\.9"):
        pins.refuse(values, tree)
    rule.write_text("ifeq ($(KBUILD_BUILD_TIMESTAMP),)\npahole-flags += -j\nendif\n")
    pins.refuse(values, tree)


def test_only_options_that_are_pinned_have_a_key_of_their_own() -> None:
    assert pins.concern({"MODULE_SIG": "y"})
    assert pins.concern({"DEBUG_INFO_DWARF5": "y"})
    assert not pins.concern({"DEBUG_INFO_NONE": "n", "ZRAM": "y"})


def test_the_content_of_a_file_that_an_option_names_counts(tree: SourceTree, tmp_path: Path) -> None:
    archive = tmp_path / "init.cpio.gz"
    archive.write_bytes(b"one")
    values = {"INITRAMFS_SOURCE": str(archive), "ZRAM": "y"}
    one = embedded.digests(values, tree)
    assert set(one) == {"INITRAMFS_SOURCE"}
    archive.write_bytes(b"two")
    assert embedded.digests(values, tree) != one


def test_a_folder_and_a_list_count_with_the_files_that_they_hold(tree: SourceTree, tmp_path: Path) -> None:
    folder = tmp_path / "root"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/sh").write_text("one")
    listed = tmp_path / "list"
    listed.write_text(f"dir /bin 755 0 0\nfile /bin/sh {folder}/bin/sh 755 0 0\n")
    values = {"INITRAMFS_SOURCE": f"{folder} {listed}"}
    one = embedded.digests(values, tree)
    (folder / "bin/sh").write_text("two")
    two = embedded.digests(values, tree)
    assert one != two
    assert embedded.digests({"INITRAMFS_SOURCE": str(listed)}, tree) != embedded.digests(values, tree)
    (folder / "bin/sh").chmod(0o600)
    assert embedded.digests(values, tree) != two


def test_firmware_of_the_tree_counts_though_git_ignores_it(tree: SourceTree) -> None:
    values = {"EXTRA_FIRMWARE": "a.bin", "EXTRA_FIRMWARE_DIR": "firmware"}
    one = embedded.digests(values, tree)
    (tree.path / "firmware/a.bin").write_bytes(b"b")
    assert embedded.digests(values, tree) != one


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"INITRAMFS_SOURCE": "/no/such.cpio"}, "not there"),
        ({"SYSTEM_TRUSTED_KEYS": "keys.pem"}, "not there"),
        ({"INITRAMFS_SOURCE": "firmware/a.bin"}, "relative path"),
    ],
)
def test_a_file_that_is_not_there_is_refused_before_the_build(
    tree: SourceTree, values: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        embedded.digests(values, tree)


def test_values_that_name_no_file_are_left_out(tree: SourceTree) -> None:
    values = {
        "INITRAMFS_SOURCE": "",
        "SYSTEM_TRUSTED_KEYS": "n",
        "MODULE_SIG_KEY": "certs/signing_key.pem",
        "EXTRA_FIRMWARE_DIR": "firmware",
    }
    assert embedded.digests(values, tree) == {}


def test_what_was_made_of_other_content_is_removed(work: Path) -> None:
    for name in ("usr/initramfs_data.o", "usr/.initramfs_data.o.cmd", "mm/util.o"):
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text("made")
    embedded.remove_outdated(work, {"INITRAMFS_SOURCE": "one"})
    assert not any((work / "usr").iterdir())
    (work / "usr/initramfs_data.o").write_text("made")
    embedded.remove_outdated(work, {"INITRAMFS_SOURCE": "one"})
    assert (work / "usr/initramfs_data.o").exists()
    embedded.remove_outdated(work, {})
    assert not (work / "usr/initramfs_data.o").exists()
    assert (work / "mm/util.o").exists()
