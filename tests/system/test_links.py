"""A merged-usr image boots with files of a user laid over it: a folder bin/ of theirs must not hide /bin/sh."""

from __future__ import annotations

import io
import random
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from acon_nb import initrd, vm
from acon_nb.archive import tar
from acon_nb.errors import InvalidInput
from tests.unit import stacks

pytestmark = pytest.mark.system

SCRIPT = r"""#!/bin/sh
for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat $name)" = acon.results ] && port=/dev/$(basename $(dirname $name))
done
report() { echo "{\"$1\":\"$2\"}" > $port; }
report bin "$(readlink /bin) $(readlink /lib)"
report mine "$(/sbin/mine) $(cat /lib/modules/mine) $(ls -ld /usr/bin | cut -c1-10)"
report links "$(readlink /nix/a) $(readlink /nix/b) $(readlink /nix/c) $(cat /nix/c)"
report files "$(stat -c %h:%s /one /two | tr '\n' ' ')$(cat /one /old)"
report nodes "$(stat -c %h /f /g /null0 /null1 | tr '\n' ' ')$([ /f -ef /g ] && [ /null0 -ef /null1 ] && echo same)"
report late "$(stat -c '%A %u' /q/y/c) $(readlink /a)"
poweroff -f; sleep 9
"""
LINES = [
    *("bin -> usr/bin", "sbin -> bin", "lib -> usr/lib", "usr/lib/"),
    *("nix/a -> store/lib", "nix/b => nix/a", "nix/c => nix/a", "nix/store/lib = lib"),
    *("one = first", "old => one", "one = second", "two => one"),
    *("null0 : 1,3", "null1 => null0"),
    *("a -> z/y", "a/c/2770", "z -> q", "q/", "q/y/"),
]


def image(folder: Path, busybox: initrd.FileTree) -> Path:
    """A tar of busybox in /usr/bin, and of what the guest reports."""
    out = io.BytesIO()
    tar.write(busybox, out)
    out.seek(0)
    with tarfile.open(folder / "root.tar", "w") as archive:
        with tarfile.open(fileobj=out) as programs:
            for info in programs:
                info.name = info.name.replace("sbin/", "bin/").replace("bin/", "usr/bin/").replace("usr/usr/", "usr/")
                if info.issym():
                    info.linkname = "busybox"
                if info.isreg() or (info.issym() and "/bin/" in info.name):
                    archive.addfile(info, programs.extractfile(info) if info.isreg() else None)
        for line in LINES:
            info, body = stacks.member(line)
            archive.addfile(info, io.BytesIO(body))
        for name, kind in (("f", tarfile.FIFOTYPE), ("g", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "f" if name == "g" else ""
            archive.addfile(info)
    return folder / "root.tar"


def test_a_merged_usr_image_boots_with_files_of_the_user_in_bin(guide_kernel, store, tmp_path):
    edits = stacks.folder(tmp_path / "edits", [f"bin/script = {SCRIPT}", "sbin/mine = #!/bin/sh\necho mine\n"])
    stacks.folder(edits, ["lib/modules/mine = module"])
    for name in ("bin/script", "sbin/mine"):
        (edits / name).chmod(0o755)
    spec = initrd.InitrdSpec(
        image=f"tar:{image(tmp_path, initrd.tree_of('busybox', cache=store))}", edits=(edits,), devices=True
    )
    made = initrd.make(spec, tmp_path / "initrd.cpio")
    guest = vm.VmSpec(
        kernel=guide_kernel.image,
        initrd=made.image.path,
        append="console=ttyS0 panic=-1 quiet INIT=/bin/script",
        memory_bytes=256 << 20,
        timeout_s=600,
    )
    said = {key: text for message in vm.boot(guest).check().messages for key, text in message.data.items()}
    assert said["bin"] == "usr/bin usr/lib"
    assert said["mine"] == "mine module drwxr-xr-x"
    assert said["links"] == "store/lib store/lib store/lib lib"
    assert said["files"] == "2:6 2:6 secondfirst"
    assert said["nodes"] == "2 2 2 2 same"
    assert said["late"] == "drwxrws--- 0 z/y"


def made(folder: Path, dice: random.Random, count: int) -> Path:
    """A folder of folders, files and relative links at random; what does not fit is left out."""
    folder.mkdir()
    for number in range(count):
        name = folder / "/".join(dice.choices("abc", k=dice.randint(1, 3)))
        kind = dice.random()
        try:
            if kind < 0.4:
                name.mkdir(parents=True)
            elif kind < 0.7:
                name.parent.mkdir(parents=True, exist_ok=True)
                name.write_text(str(number))
            else:
                name.symlink_to("../" * dice.randint(0, 2) + "/".join(dice.choices("abc", k=dice.randint(1, 2))))
        except OSError:
            continue
    return folder


def leads_out(folder: Path) -> bool:
    """Whether a link leads out of a folder, or to nothing: tar(1) would write there, or replace the link."""
    links = (path for path in folder.rglob("*") if path.is_symlink())
    return any(not link.exists() or not link.resolve().is_relative_to(folder) for link in links)


def held(tree: initrd.FileTree) -> dict[bytes, tuple[int, bytes]]:
    return {name: (stat.S_IFMT(entry.mode), entry.content.read()) for name, entry in tree.items()}


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar is not here")
def test_files_of_the_user_go_where_gnu_tar_unpacks_them(tmp_path):
    """`tar --keep-directory-symlink` keeps links to folders, for systems with merged /usr."""
    dice = random.Random(17)
    compared = refused = 0
    for number in range(200):
        root = tmp_path / str(number)
        root.mkdir()
        image, edits = made(root / "image", dice, 8), made(root / "edits", dice, 3)
        if leads_out(image):
            continue
        tree = initrd.from_folder(image)
        before = held(tree)
        try:
            initrd.overlay(tree, edits)
        except InvalidInput:
            refused += 1
            continue
        ours = held(tree)
        packed = subprocess.run(["tar", "-C", edits, "-cf", "-", "."], capture_output=True, check=True).stdout
        argv = ["tar", "-C", image, "-xf", "-", "--keep-directory-symlink", "--no-overwrite-dir"]
        done = subprocess.run(argv, input=packed, capture_output=True)
        assert done.returncode == 0, (before, held(initrd.from_folder(edits)), done.stderr)
        theirs = held(initrd.from_folder(image))
        assert ours == theirs, (before, held(initrd.from_folder(edits)))
        compared += ours != before
    assert compared > 25, (compared, refused)
