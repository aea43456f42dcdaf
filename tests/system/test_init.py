"""What /init does on the guide's kernel: the guide's two examples, every cipher spec, and what it refuses."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from acon_nb import initrd, vm
from acon_nb.cache import Cache
from acon_nb.host import apt
from acon_nb.initrd import fstab
from acon_nb.vm.ssh import generate_key

pytestmark = pytest.mark.system

HEAD = """#!/bin/sh
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat $name)" = acon.results ] && port=/dev/$(basename $(dirname $name))
done
. /init
tell() { printf '{"%s":"%s"}\\n' "$1" "$(escape "$2")" >$port; }
off() { poweroff -f; sleep 60; }
"""
Boot = Callable[..., vm.VmSpec]


@pytest.fixture
def alpine_like(store: Cache) -> Callable[[], initrd.FileTree]:
    """The guide's second image: busybox with dmsetup, e2fsprogs and sshd; here of Debian's packages."""
    return lambda: initrd.tree_of("busybox+dmsetup+e2fsprogs+openssh-server", cache=store)


@pytest.fixture
def guest(guide_kernel, tmp_path) -> Boot:
    """A guest of a tree, with lines added to its fstab, empty disks of so many MiB, and a script to run."""

    def make(
        tree: initrd.FileTree, lines: str, script: str, disks: tuple[int | vm.DiskSpec, ...] = (), **fields: object
    ) -> vm.VmSpec:
        text = tree["etc/fstab"].content.read()
        tree.add_file("etc/fstab", text + lines.encode())
        tree.add_file("test/run", (HEAD + script).encode(), mode=0o755)
        image = initrd.create(tree, tmp_path / "guest.cpio")
        values: dict[str, object] = {
            "kernel": guide_kernel.image,
            "initrd": image.path,
            "append": "console=ttyS0 panic=-1 quiet INIT=/test/run",
            "memory_bytes": 384 << 20,
            "disks": tuple(
                one if isinstance(one, vm.DiskSpec) else disk(tmp_path / f"disk{number}.raw", one)
                for number, one in enumerate(disks)
            ),
            "timeout_s": 120,
            **fields,
        }
        return vm.VmSpec(**values)  # type: ignore[arg-type]

    return make


def disk(path: Path, mebibytes: int) -> vm.DiskSpec:
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(mebibytes << 20)
    return vm.DiskSpec(path=path)


def told(outcome: vm.Outcome) -> dict[str, str]:
    return {key: str(value) for row in outcome.messages for key, value in row.data.items() if "event" not in row.data}


def failures(outcome: vm.Outcome) -> list[str]:
    rows = [row.data for row in outcome.messages if row.data.get("event") == "init-failure"]
    return [f"{row['step']}: {row['what']}" for row in rows]


def said(outcome: vm.Outcome) -> list[str]:
    lines = outcome.console.read_text(errors="replace").splitlines()
    return [line.strip().removeprefix("init: ") for line in lines if line.startswith("init: ")]


def test_the_guides_busybox_with_a_swap_line(guest, store, host, tmp_path):
    tree = initrd.tree_of("busybox", cache=store)
    warnings = initrd.gen_init(tree)
    assert any(warning.startswith("dmsetup is missing") for warning in warnings)
    swap = disk(tmp_path / "256m.raw", 256)
    subprocess.run(["mkswap", swap.path], check=True, capture_output=True)
    script = 'tell free "$(free -m)"\ntell env "$HOME $(readlink /etc/resolv.conf) $(readlink /dev/fd)"\noff'
    spec = guest(tree, "/dev/vda none swap sw,discard 0 0\n", script, disks=(swap,))
    outcome = vm.boot(spec, host=host).check()
    words = told(outcome)["free"].split("Swap:")[1].split()
    assert words[0] in ("255", "256"), "free shows 256 MB of swap, less its header"
    assert told(outcome)["env"] == "/root /proc/net/pnp /proc/self/fd"
    assert failures(outcome) == ["encryption: /dev/mapper/vda@ needs dmsetup, which is missing in the image"]


def test_without_a_disk_the_default_line_is_skipped_with_a_message(guest, store, host):
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    outcome = vm.boot(guest(tree, "", "tell ok 1\noff"), host=host).check()
    assert failures(outcome) == []
    assert said(outcome) == ["/dev/mapper/vda@ is skipped: /dev/vda does not exist"]


def test_the_guides_alpine_with_dm_ext4_and_ssh(guest, alpine_like, host, tmp_path):
    tree = alpine_like()
    assert initrd.gen_init(tree, force=True) == []
    key = tmp_path / "id-test"
    tree.add_file("root/.ssh/authorized_keys", generate_key(key).read_bytes(), mode=0o600)
    port = free_port()
    script = 'tell free "$(free -m)"\ntell ext4 "$(mount -text4)"\nwhile [ ! -e /tmp/bye ]; do sleep 1; done\noff'
    spec = guest(
        tree,
        "/dev/mapper/vdb@+ae /ext4 ext4 defaults 0 0\n",
        script,
        disks=(256, 64),
        append="console=ttyS0 panic=-1 quiet ip=dhcp INIT=/test/run",
        network=True,
        forwards=(vm.Forward(host_port=port, guest_port=22),),
    )
    with vm.Machine(spec, host=host) as machine:
        machine.start()
        command = "mount -text4; cat /etc/resolv.conf; ls /run/ssh; cat /run/log/sshd.log; touch /tmp/bye"
        answer = machine.ssh(command, key=key, timeout_s=100)  # waits for the guest's sshd
        outcome = machine.wait().check()
    assert failures(outcome) == []
    assert told(outcome)["free"].split("Swap:")[1].split()[0] in ("255", "256")
    assert told(outcome)["ext4"].startswith("/dev/mapper/vdb@+ae on /ext4 type ext4")
    assert "/dev/mapper/vdb@+ae on /ext4 type ext4" in answer
    assert "nameserver 10.0.2.3" in answer
    assert "ssh_host_ecdsa_key" in answer
    assert "Accepted publickey for root" in answer


SPECS = (
    "", "cbc", "+", "cbc+", "+cmac", "xts+cmac", "+hmac_sha512", "+crc32c", "+sha256", "+sha3-256",
    "+ae", "cbc+ae", "++ae", "+sha384+ae", "+hmac_sha512+ae",
)  # fmt: skip
# What is written is read back through the device; what lies on the disk is something else
EVERY_SPEC = """
for word in $specs; do
    name=vda@${word#:}
    started=''
    start_encrypted "/dev/mapper/$name" /mnt ext2 "$options"
    dd if=/dev/random of=/mnt/data bs=4096 count=64 2>/dev/null
    cp /mnt/data /tmp/data
    sync
    umount /mnt
    blockdev --flushbufs "/dev/mapper/$name"
    mount -t ext2 "/dev/mapper/$name" /mnt
    cmp /mnt/data /tmp/data && tell "$word" "$(dmsetup table | tr '\\n' ' ')"
    umount /mnt
    remove_encrypted "$name"
done
"""


@pytest.mark.parametrize("meta", ["ram", "zram", "disk"])
def test_every_cipher_spec_is_set_up_written_and_read(guest, alpine_like, host, meta):
    specs = SPECS if meta == "ram" else ("", "+cmac", "+ae")
    tree = alpine_like()
    initrd.gen_init(tree, force=True)
    tree.add_file("etc/fstab", b"".join(line for line in fstab_lines(tree) if b"vda@" not in line))
    words = " ".join(f":{spec}" for spec in specs)
    script = f"specs='{words}'\noptions=defaults,x-acon.meta={meta}\n{EVERY_SPEC}\noff"
    outcome = vm.boot(guest(tree, "", script, disks=(8,)), host=host).check()
    assert failures(outcome) == []
    tables = told(outcome)
    assert set(tables) == {f":{spec}" for spec in specs}
    for spec in specs:
        cipher = fstab.CipherSpec.parse(spec)
        assert cipher.cipher in tables[f":{spec}"]
        assert cipher.internal_hash in tables[f":{spec}"]
        assert ("meta_device" in tables[f":{spec}"]) == (cipher.tag_bytes > 0 and meta != "disk")


WRONG = {
    "/dev/mapper/vda@rot13 none swap sw": "has an unknown mode: use xts or cbc",
    "/dev/mapper/vda@+md5 none swap sw": "has an unknown MAC: use cmac, a hash such as sha384,",
    "/dev/mapper/vda@+crc32c+ae none swap sw": "has crc32c, which has no keyed form",
    "/dev/mapper/vda@+ /x xfs defaults": "has the type xfs, which cannot be formatted at boot: "
    "use swap, ext2, ext3 or ext4",
    "/dev/mapper/vda@ none swap x-acon.meta=tape": "has an unknown x-acon.meta: use ram, zram or disk",
    "/dev/mapper/$(reboot)@ none swap sw": "does not name a block device",
    "/dev/mapper/../vda@ none swap sw": "does not name a block device",
    "/dev/mapper/vdz@ none swap sw": "is skipped: /dev/vdz does not exist",
    "/dev/mapper/vdb@ none swap sw": "needs 1 MiB, but /dev/vdb is smaller",
    "/dev/mapper/vdc@+hmac_sha512 none swap sw": "needs a RAM disk of 9216 KiB for its tags: ramdisk_size=9216",
}


def test_invalid_lines_are_reported_and_the_boot_continues(guest, alpine_like, host, tmp_path):
    tree = alpine_like()
    initrd.gen_init(tree, force=True)
    tree.remove("usr/sbin/sshd")
    tree.add_file("etc/fstab", b"".join(line for line in fstab_lines(tree) if b"vda@" not in line))
    small = disk(tmp_path / "small.raw", 1)
    with small.path.open("wb") as file:
        file.truncate(512 << 10)
    more = "none /x nosuchfs size=99999999999999999999% 0 0\n-t /-y -z -w\n"
    more += "/dev/vda none swap sw 0 0\n$(reboot) $(reboot) `reboot`"
    script = 'tell ok "$(cat /proc/mounts)"\noff'
    spec = guest(
        tree,
        "\n".join(WRONG) + "\n" + more,
        script,
        disks=(8, small, 512),
        append="console=ttyS0 panic=-1 quiet ramdisk_size=8192 INIT=/test/run INIT2=x",
    )
    outcome = vm.boot(spec, host=host).check()
    found = failures(outcome)
    for row, why in WRONG.items():
        assert any(line.startswith(f"encryption: {row.split()[0]} {why}") for line in found), (row, found)
    rest = [line for line in found if not line.startswith("encryption: ")]
    assert rest == [
        "mount: cannot mount none on /x",
        "fstab: -t is not a valid device: it starts with -",
        "swap: cannot use /dev/vda as swap",
    ]
    assert [line.split(" ", 1)[1] for line in said(outcome)] == [line.split(": ", 1)[1] for line in found]
    assert "tmpfs /tmp" in told(outcome)["ok"]


def test_a_missing_init_is_replaced_by_a_shell(guest, store, host):
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    tree.add_file("etc/profile", b". /test/run\n")
    spec = guest(tree, "", "tell shell $$\noff", append="console=ttyS0 panic=-1 quiet INIT=/no/such")
    outcome = vm.boot(spec, host=host).check()
    assert failures(outcome) == ["init: /no/such does not exist: starting a shell instead"]
    assert told(outcome)["shell"] == "1", "the shell is process 1, sources /init, and does not start it again"


def test_under_dash_the_same(guest, alpine_like, store, host):
    tree = alpine_like()
    initrd.gen_init(tree, force=True)
    tree.remove("bin/sh")
    tree.add_file("bin/sh", apt.unpack("dash", cache=store).path("bin/dash"), mode=0o755)
    script = 'tell shell "$(readlink /proc/$$/exe)"\ntell swaps "$(cat /proc/swaps)"\ntell ext4 "$(mount -text4)"\noff'
    lines = "/dev/mapper/vdb@+ae /ext4 ext4 x-acon.meta=disk 0 0\n"
    outcome = vm.boot(guest(tree, lines, script, disks=(32, 16)), host=host).check()
    assert failures(outcome) == []
    assert told(outcome)["shell"] == "/bin/sh"
    assert "/dev/mapper/vda@" in told(outcome)["swaps"]
    assert told(outcome)["ext4"].startswith("/dev/mapper/vdb@+ae on /ext4")


PRESSURE = """
mkdir -p /fill
mount -t tmpfs -o size=500% fill /fill
dd if=/dev/urandom of=/run/seed bs=64k count=64 2>/dev/null
for number in $(seq 30); do
    { cat /run/seed; echo $number; } >/fill/$number
done
tell swap "$(free -k | grep Swap)"
for number in $(seq 30); do
    { cat /run/seed; echo $number; } | cmp - /fill/$number || tell bad "$number"
done
tell read all
off
"""


@pytest.mark.weekly
@pytest.mark.parametrize("spec", ["", "+ae"])
def test_encrypted_swap_holds_a_tmpfs_larger_than_the_memory(guest, alpine_like, host, spec):
    tree = alpine_like()
    for name in ("usr/bin/ssh", "usr/bin/ssh-keygen", "usr/sbin/sshd", "usr/lib/openssh"):
        tree.remove(name)
    initrd.gen_init(tree, force=True)
    tree.add_file("etc/fstab", b"".join(line for line in fstab_lines(tree) if b"vda@" not in line))
    lines = f"/dev/mapper/vda@{spec} none swap sw\n"
    outcome = vm.boot(
        guest(tree, lines, PRESSURE, disks=(256,), memory_bytes=128 << 20, timeout_s=300), host=host
    ).check()
    assert failures(outcome) == []
    assert set(told(outcome)) == {"swap", "read"}, "all is read back, and none of it is bad"
    assert int(told(outcome)["swap"].split()[2]) > 20_000, "KiB that lie in swap"


def fstab_lines(tree: initrd.FileTree) -> list[bytes]:
    return tree["etc/fstab"].content.read().splitlines(keepends=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
