"""Files of Debian packages, which Debian 13 has below usr/ and Debian 12 has at the root."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.errors import AconError, InvalidInput
from acon_nb.host import apt
from acon_nb.host.apt import Package, Unpacked, find, merged_usr_alias
from acon_nb.initrd import FileTree
from acon_nb.initrd.sources.packages import add_unpacked
from acon_nb.kernel import DistroKernel


def unpacked(root: Path, *names: str) -> Unpacked:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return Unpacked(package=Package(name="tool", version="1-2", sha256="", depends=()), root=root)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("bin/busybox", "usr/bin/busybox"),
        ("usr/sbin/tool", "sbin/tool"),
        ("lib/modules/6.12", "usr/lib/modules/6.12"),
        ("lib64/ld.so", "usr/lib64/ld.so"),
        ("usr/src/linux.tar", None),
        ("boot/vmlinuz", None),
        ("library/x", None),
    ],
)
def test_what_a_merged_usr_names_twice(name: str, twin: str | None) -> None:
    assert merged_usr_alias(name) == twin
    if twin:
        assert merged_usr_alias(twin) == name


@pytest.mark.parametrize("there", ["bin/tool", "usr/bin/tool"])
@pytest.mark.parametrize("asked", ["bin/tool", "usr/bin/tool"])
def test_a_file_is_found_below_usr_or_at_the_root(tmp_path: Path, there: str, asked: str) -> None:
    assert unpacked(tmp_path, there).path(asked) == tmp_path / there


def test_a_package_without_the_file_is_named_with_both_names(tmp_path: Path) -> None:
    with pytest.raises(AconError, match=r"tool 1-2 has no bin/other and no usr/bin/other"):
        unpacked(tmp_path, "usr/bin/tool").path("bin/other")


@pytest.mark.parametrize("there", ["sbin/mke2fs", "usr/sbin/mke2fs"])
def test_a_package_s_program_runs_under_each_name_that_the_tree_had(tmp_path: Path, there: str) -> None:
    tree = FileTree()
    tree.add_file("bin/busybox", b"", mode=0o755)
    tree.add_symlink("sbin/mke2fs", "../bin/busybox")
    unpacked(tmp_path, there, "usr/bin/new", "etc/mke2fs.conf")
    add_unpacked(tree, tmp_path)
    assert tree.find("sbin/mke2fs") == there.encode()
    assert "usr/bin/new" in tree
    assert "bin/new" not in tree
    assert "etc/mke2fs.conf" not in tree


def test_the_loader_is_where_programs_name_it(tmp_path: Path) -> None:
    tree = FileTree()
    unpacked(tmp_path, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    (tmp_path / "usr/lib64").mkdir()
    (tmp_path / "usr/lib64/ld-linux-x86-64.so.2").symlink_to("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    add_unpacked(tree, tmp_path)
    assert tree.find("lib64/ld-linux-x86-64.so.2") == b"usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"


def test_a_merged_tree_keeps_its_links(tmp_path: Path) -> None:
    tree = FileTree()
    tree.add_dir("usr/sbin")
    tree.add_symlink("sbin", "usr/sbin")
    unpacked(tmp_path, "sbin/tool")
    add_unpacked(tree, tmp_path)
    assert tree["usr/sbin/tool"].is_file
    assert tree["sbin"].is_link


def module(folder: Path, name: str, depends: str = "") -> Path:
    """A file that says what it depends on, as modules do, compressed as its suffix says."""
    folder.mkdir(parents=True, exist_ok=True)
    data = f"{name}\0license=GPL\0depends={depends}\0".encode()
    (folder / name).write_bytes(lzma.compress(data) if name.endswith(".xz") else data)
    if name.endswith(".zst"):
        subprocess.run(["zstd", "-q", "-f", "-o", folder / name, "-"], input=data, check=True)
    return folder / name


def packaged(*folders: Path) -> DistroKernel:
    (folders[0] / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\nkernel/drivers/pci-stub.ko\n")
    return DistroKernel(image=folders[0], version="6.12", sha256="", modules=folders)


def test_compressed_modules_are_decompressed_with_what_they_need(tmp_path: Path, cache: Cache) -> None:
    module(tmp_path / "kernel/drivers", "ring.ko.xz")
    module(tmp_path / "kernel", "console.ko", "ring")
    distro = packaged(tmp_path)
    modules = kernel.module_closure(distro, ("console", "ring"), cache=cache)
    assert [path.name for path in modules] == ["ring.ko", "console.ko"]
    assert modules[0].read_bytes().startswith(b"ring.ko.xz\0")
    module(tmp_path, "odd.ko.lzo")
    with pytest.raises(AconError, match=r"odd\.ko\.lzo has an unknown compression"):
        kernel.module_closure(packaged(tmp_path), ("odd",), cache=cache)


def test_a_hyphen_in_a_module_s_name_is_an_underscore(tmp_path: Path, cache: Cache) -> None:
    module(tmp_path, "snd-pcm.ko.xz", "snd_timer,snd")
    module(tmp_path, "snd-timer.ko", "snd")
    module(tmp_path, "snd.ko")
    distro = packaged(tmp_path)
    for name in ("snd-pcm", "snd_pcm"):
        found = kernel.module_closure(distro, (name, "pci-stub", "pci_stub", "virtio"), cache=cache)
        assert [path.name for path in found] == ["snd.ko", "snd-timer.ko", "snd-pcm.ko"]


def test_a_module_that_is_nowhere_is_not_taken_for_built_in(tmp_path: Path, cache: Cache) -> None:
    module(tmp_path, "virtio_console.ko.xz", "virtio_ring")
    distro = packaged(tmp_path)
    with pytest.raises(InvalidInput, match=r"is neither a module of kernel 6\.12 nor built in") as caught:
        kernel.module_closure(distro, ("virtio", "virtio_consol"), cache=cache)
    assert "it has 1 modules and 2 built in" in str(caught.value)
    assert str(caught.value).startswith("modules='virtio_consol': ")
    assert "did you mean virtio_console" in str(caught.value)
    with pytest.raises(AconError, match=r"virtio_console of kernel 6\.12 depends on virtio_ring, which its packages"):
        kernel.module_closure(distro, ("virtio_console",), cache=cache)
    (tmp_path / "torn.ko").write_bytes(b"\x7fELF")
    with pytest.raises(AconError, match=r"torn\.ko is not a kernel module"):
        kernel.module_closure(packaged(tmp_path), ("torn",), cache=cache)


def test_a_kernel_without_its_modules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AconError, match=r"the modules of kernel 6\.12 are missing: .*nowhere is not a folder"):
        DistroKernel(image=tmp_path, version="6.12", sha256="", modules=(tmp_path / "nowhere",))
    for folders in ((), (tmp_path,)):
        with pytest.raises(AconError, match=r"kernel 6\.12 have no modules\.builtin"):
            DistroKernel(image=tmp_path, version="6.12", sha256="", modules=folders)


def files_of(folder: str, suffix: str = ".ko.xz") -> tuple[str, str]:
    return f"{folder}/modules.builtin", f"{folder}/kernel/drivers/char/console{suffix}"


# What the packages of a kernel depend on and have, by suite (apt-cache depends, dpkg-deb -c).
SUITES: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "Debian 12": {
        "linux-image-amd64": (("linux-image-6.1.0-41-amd64",), ()),
        "linux-image-6.1.0-41-amd64": (
            ("kmod", "linux-base", "initramfs-tools"),
            ("boot/vmlinuz-6.1.0-41-amd64", *files_of("lib/modules/6.1.0-41-amd64")),
        ),
    },
    "Debian 13": {
        "linux-image-amd64": (("linux-image-6.12.117+deb13-amd64",), ()),
        "linux-image-6.12.117+deb13-amd64": (
            ("linux-base", "kmod", "initramfs-tools"),
            ("boot/vmlinuz-6.12.117+deb13-amd64", *files_of("usr/lib/modules/6.12.117+deb13-amd64")),
        ),
    },
    "Debian 14": {
        "linux-image-amd64": (("linux-base-amd64", "linux-image-7.2.13+deb14-amd64"), ()),
        "linux-image-7.2.13+deb14-amd64": (
            tuple(f"linux-{part}-7.2.13+deb14-amd64" for part in ("base", "binary", "modules")),
            (),
        ),
        "linux-base-7.2.13+deb14-amd64": ((), ("usr/lib/modules/7.2.13+deb14-amd64/modules.builtin",)),
        "linux-binary-7.2.13+deb14-amd64": (
            ("linux-base-7.2.13+deb14-amd64",),
            ("usr/lib/modules/7.2.13+deb14-amd64/vmlinuz",),
        ),
        "linux-modules-7.2.13+deb14-amd64": (
            ("kmod", "linux-base-7.2.13+deb14-amd64"),
            ("usr/lib/modules/7.2.13+deb14-amd64/kernel/drivers/char/console.ko.xz",),
        ),
    },
    "Ubuntu": {
        "linux-image-amd64": (("linux-image-6.8.0-50-generic", "linux-modules-extra-6.8.0-50-generic"), ()),
        "linux-image-6.8.0-50-generic": (
            ("kmod", "linux-base", "linux-modules-6.8.0-50-generic"),
            ("boot/vmlinuz-6.8.0-50-generic",),
        ),
        "linux-modules-6.8.0-50-generic": ((), files_of("lib/modules/6.8.0-50-generic", ".ko.zst")),
        "linux-modules-extra-6.8.0-50-generic": (
            ("linux-image-6.8.0-50-generic", "wireless-regdb"),
            ("lib/modules/6.8.0-50-generic/kernel/extra.ko.zst",),
        ),
    },
}


@pytest.mark.parametrize("suite", SUITES)
def test_a_kernel_is_gathered_from_all_its_packages(
    suite: str, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = SUITES[suite]

    def unpack(name: str, *_: object, **__: object) -> Unpacked:
        (tmp_path / name).mkdir(exist_ok=True)
        for file in packages[name][1]:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("kernel/drivers/virtio/virtio.ko\n")
            if ".ko" in file:
                module(path.parent, path.name)
        return Unpacked(package=apt.find(name), root=tmp_path / name)

    monkeypatch.setattr(
        apt, "find", lambda name, *_: Package(name=name, version="1", sha256="", depends=packages[name][0])
    )
    monkeypatch.setattr(apt, "unpack", unpack)
    found = kernel.debian_kernel("linux-image-amd64", cache=cache)
    assert found.version in str(found.image)
    assert kernel.module_closure(found, ("virtio",), cache=cache) == ()
    assert set(found.files) == ({"console", "extra"} if suite == "Ubuntu" else {"console"})
    modules = kernel.module_closure(found, tuple(found.files), cache=cache)
    assert {path.name for path in modules} == {f"{name}.ko" for name in found.files}


def test_a_package_without_a_kernel_is_refused(cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = Package(
        name="linux-image-cloud-amd64-dbg", version="1", sha256="", depends=("linux-image-6.12-amd64-dbg",)
    )
    monkeypatch.setattr(apt, "find", lambda *_: package)
    fetched: list[str] = []
    monkeypatch.setattr(
        apt, "unpack", lambda name, *_, **__: fetched.append(name) or Unpacked(package=package, root=tmp_path)
    )
    with pytest.raises(InvalidInput, match="contains no kernel"):
        kernel.debian_kernel(package.name, cache=cache)
    assert fetched == [package.name]


def test_a_package_of_another_name_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For apt an unknown name is a regular expression: where 6.1 is not packaged, linux-source-6.1 found 6.12."""
    if shutil.which("apt-cache") is None:
        pytest.skip("this host has no apt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InvalidInput, match="is not in apt's lists"):
        find("busybox-stati.")
