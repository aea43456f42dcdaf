"""Guests on the guide's kernel: what they find, how they end, and that nothing of them is left."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from acon_nb import initrd, vm
from acon_nb.errors import GuestFailed, InvalidInput

pytestmark = pytest.mark.system


def data(outcome: vm.Outcome) -> list[dict]:
    return [dict(message.data) for message in outcome.messages]


def test_the_guides_kernel_finds_what_the_guide_wants(scripted, host, tmp_path):
    disk = tmp_path / "disk,with comma.raw"
    disk.write_bytes(bytes(8 << 20))
    script = """
    have() { [ -e "$1" ] && report "{\\"have\\":\\"$1\\"}"; }
    for path in /dev/hvc0 /dev/ttyS0 /dev/vda /dev/zram0 /dev/vsock /dev/ram0 /dev/mapper/control \
        /sys/class/net/eth0 /sys/module/zswap /proc/sys/net/ipv4 /dev/ptmx; do have $path; done
    for word in ext4 tmpfs overlay; do grep -qw $word /proc/filesystems && report "{\\"have\\":\\"$word\\"}"; done
    swaps() { cat /sys/block/zram0/comp_algorithm; }
    report "{\\"zram\\":\\"$(swaps)\\"}"
    report "{\\"address\\":\\"$(ifconfig eth0 | grep -o 'addr:[0-9.]*')\\"}"
    poweroff -f; sleep 9
    """
    spec = scripted(
        script,
        append="console=hvc0 earlyprintk=ttyS0 ip=dhcp panic=-1 INIT=/test/run",
        disks=(vm.DiskSpec(path=disk),),
        network=True,
    )
    said = data(vm.boot(spec, host=host).check())
    have = {row["have"] for row in said if "have" in row}
    expected = {"/dev/hvc0", "/dev/ttyS0", "/dev/vda", "/dev/zram0", "/dev/vsock", "/dev/ram0", "/dev/mapper/control"}
    assert have >= expected | {"/sys/class/net/eth0", "/sys/module/zswap", "/proc/sys/net/ipv4", "/dev/ptmx"}
    assert have >= {"ext4", "tmpfs", "overlay"}
    assert {"lz4", "lz4hc", "zstd", "842"} <= set(next(row["zram"] for row in said if "zram" in row).split())
    assert {"address": "addr:10.0.2.15"} in said


def test_the_guides_kernel_has_tdx_dm_crypt_and_dm_integrity(guide_kernel):
    config = guide_kernel.config.read_text()
    for option in ("INTEL_TDX_GUEST", "TDX_GUEST_DRIVER", "DM_CRYPT", "DM_INTEGRITY", "ZSWAP", "VIRTIO_VSOCKETS"):
        assert f"CONFIG_{option}=y\n" in config
    assert all(row.ok or row.optional for row in guide_kernel.results)


@pytest.mark.parametrize("suffix", ["cpio.gz", "cpio.bz2", "cpio.xz", "cpio.zst", "cpio.lz4"])
def test_the_kernel_unpacks_every_compression(scripted, host, suffix):
    assert data(vm.boot(scripted("report '{\"ok\":1}'\npoweroff -f; sleep 9", suffix=suffix), host=host).check()) == [
        {"ok": 1}
    ]


def test_a_tree_reaches_the_guest_as_it_was(guide_kernel, store, host, tmp_path):
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    tree.add_file("test/a", b"same", mode=0o640)
    tree.add("test/b", initrd.Entry(mode=0o100640, inode=7, content=initrd.Content.of(b"linked"), uid=5, gid=6))
    tree.add("test/c", tree["test/b"])
    tree.add_device("test/null", 0o020000, 1, 3, mode=0o620)
    tree.add_file(
        "test/run",
        b"""#!/bin/sh
port=/dev/$(basename $(dirname $(grep -l acon.results /sys/class/virtio-ports/*/name)))
for name in a b null; do echo "{\\"stat\\":\\"$(stat -c '%n %a %u %g %t %T %h' /test/$name)\\"}" > $port; done
echo "{\\"text\\":\\"$(cat /test/c)\\"}" > $port
poweroff -f; sleep 9
""",
        mode=0o755,
    )
    image = initrd.create(tree, tmp_path / "t.cpio")
    spec = vm.VmSpec(
        kernel=guide_kernel.image, initrd=image.path, append="panic=-1 quiet INIT=/test/run", memory_bytes=256 << 20
    )
    said = data(vm.boot(spec, host=host).check())
    assert said == [
        {"stat": "/test/a 640 0 0 0 0 1"},
        {"stat": "/test/b 640 0 0 0 0 2"},
        {"stat": "/test/null 620 0 0 1 3 1"},
        {"text": "linked"},
    ]


def test_ends_have_names(scripted, host):
    panic = vm.boot(scripted("exit 7"), host=host)
    assert panic.end is vm.End.PANIC
    assert any("Attempted to kill init" in line for line in panic.panic)
    hang = vm.boot(scripted("report '{\"up\":1}'\nsleep 1000", timeout_s=25), host=host)
    assert hang.end is vm.End.HANG
    assert hang.messages, "what the guest said before it hung is kept"
    reset = vm.boot(scripted("reboot -f; sleep 9"), host=host)
    assert reset.end is vm.End.RESET
    failed = vm.boot(scripted("true", extra=("-no-such-option",)), host=host)
    assert failed.end is vm.End.QEMU_FAILED
    with pytest.raises(GuestFailed, match="-no-such-option"):
        failed.check()


def test_a_kvm_that_cannot_run_the_guest_is_named_at_once(guide_kernel, host):
    if host.kvm or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("this host has no KVM that fails")
    trusting = vm.Capabilities(qemu=host.qemu, version=host.version, kvm=True)
    spec = vm.VmSpec(kernel=guide_kernel.image, append="console=ttyS0 panic=-1", accelerator="kvm", timeout_s=60)
    outcome = vm.boot(spec, host=trusting)
    if outcome.end is vm.End.HANG:
        pytest.skip("the KVM of this host crawls and reports nothing")
    assert outcome.end is vm.End.QEMU_FAILED
    assert "accelerator=tcg" in outcome.hint
    assert (outcome.ended_ns - outcome.started_ns) / 1e9 < spec.timeout_s


def test_a_guest_without_memory_left_is_out_of_memory(scripted, host):
    script = (
        "mount -t tmpfs -o size=900m none /tmp; i=0; "
        "while :; do i=$((i + 1)); dd if=/dev/zero of=/tmp/part$i bs=16k 2>/dev/null; done"
    )
    outcome = vm.boot(scripted(script, memory_bytes=96 << 20), host=host)
    assert outcome.end is vm.End.OUT_OF_MEMORY
    assert "memory" in outcome.hint


def test_an_initrd_without_init_is_named(guide_kernel, host, tmp_path):
    tree = initrd.FileTree()
    tree.add_file("init", b"#!/no/such/interpreter\n", mode=0o755)
    image = initrd.create(tree, tmp_path / "x.cpio")
    spec = vm.VmSpec(kernel=guide_kernel.image, initrd=image.path, memory_bytes=256 << 20)
    outcome = vm.boot(spec, host=host)
    assert outcome.end is vm.End.PANIC
    assert "init" in outcome.hint


def test_invalid_specs_are_refused_before_qemu_starts(guide_kernel, boot_initrd, host, tmp_path):
    with pytest.raises(InvalidInput, match="memory_bytes=3145728"):
        vm.VmSpec(kernel=guide_kernel.image, initrd=boot_initrd, memory_bytes=3 << 20)
    with pytest.raises(InvalidInput, match="not a bzImage"):
        vm.VmSpec(kernel=boot_initrd)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        rule = vm.Forward(host_port=taken.getsockname()[1], guest_port=22)
        spec = vm.VmSpec(kernel=guide_kernel.image, initrd=boot_initrd, network=True, forwards=(rule,))
        with pytest.raises(InvalidInput, match="Address already in use"):
            vm.boot(spec, host=host)


def test_killing_the_machine_or_qemu_is_named(scripted, host):
    spec = scripted("report '{\"up\":1}'\nsleep 1000")
    with vm.Machine(spec, host=host) as machine:
        machine.start()
        time.sleep(0.5)
        machine.kill()
        assert machine.wait().end is vm.End.KILLED
    with vm.Machine(spec, host=host) as machine:
        machine.start()
        pids = wait_for_guests(spec.initrd)
        os.kill(pids[0], signal.SIGKILL)
        assert machine.wait().end is vm.End.KILLED


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_guest_outlives_its_owner(scripted, number):
    spec = scripted("sleep 1000")
    code = f"""
        from pathlib import Path
        from acon_nb import vm
        vm.boot(vm.VmSpec(kernel=Path({str(spec.kernel)!r}), initrd=Path({str(spec.initrd)!r}), memory_bytes=256 << 20,
                          append={spec.append!r}))
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    assert wait_for_guests(spec.initrd)
    owner.send_signal(number)
    owner.wait()
    deadline = time.monotonic() + 300
    while guests_of(spec.initrd) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not guests_of(spec.initrd)


def test_many_guests_leak_no_descriptor(scripted, host):
    spec = scripted("true", extra=("-no-such-option",))
    vm.boot(spec, host=host)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        vm.boot(spec, host=host)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_command_to_paste_runs_by_itself(scripted, host):
    outcome = vm.boot(scripted("report '{\"ok\":1}'\npoweroff -f; sleep 9"), host=host).check()
    argv = shlex.split(outcome.command)
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=600, check=True)


def test_the_transcript_is_kept(scripted, host):
    outcome = vm.boot(scripted("echo seen on the console > /dev/console; poweroff -f; sleep 9"), host=host)
    assert "seen on the console" in outcome.console.read_text()


def guests_of(image: Path | None) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"qemu-system-x86_64") and str(image).encode() in words:
            found.append(int(path.parent.name))
    return found


def wait_for_guests(image: Path | None) -> list[int]:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = guests_of(image)
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("no guest came up")


def test_results_are_json_lines_and_anything_else_is_passed_over(scripted, host):
    script = "report 'not json'\nreport '[1]'\nreport '{\"good\":1}'\npoweroff -f; sleep 9"
    assert data(vm.boot(scripted(script), host=host).check()) == [{"good": 1}]


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst", "lz4"])
def test_the_kernel_unpacks_what_several_threads_compressed(guide_kernel, host, store, tmp_path, suffix):
    """Of more than one block each: the kernel's decoders take a single stream only."""
    body = b"".join(hashlib.sha256(number.to_bytes(4)).digest() * 16 for number in range(20 << 11))
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    tree.add_file("test/body", body)
    tree.add_file(
        "test/run",
        b"#!/bin/sh\nport=/dev/$(basename $(dirname $(grep -l acon.results /sys/class/virtio-ports/*/name)))\n"
        b'echo "{\\"sum\\":\\"$(sha256sum < /test/body | cut -d\' \' -f1)\\"}" > $port\npoweroff -f; sleep 9\n',
        mode=0o755,
    )
    image = initrd.create(tree, tmp_path / f"x.{suffix}", level=1, workers=2)
    append = "console=ttyS0 panic=-1 quiet INIT=/test/run"
    spec = vm.VmSpec(kernel=guide_kernel.image, initrd=image.path, append=append, memory_bytes=384 << 20)
    assert data(vm.boot(spec, host=host).check()) == [{"sum": hashlib.sha256(body).hexdigest()}]
