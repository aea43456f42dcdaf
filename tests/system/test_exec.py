"""Commands in real guests: status, streams, signals, several at once, and any init."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb import agent, initrd, kernel, vm
from acon_nb.cache import Cache
from acon_nb.errors import CommandTimeout, GuestFailed, InvalidInput

pytestmark = pytest.mark.system
Scripted = Callable[..., vm.VmSpec]


@pytest.fixture(scope="module")
def shell(guide_kernel: kernel.KernelImage, store: Cache, tmp_path_factory: pytest.TempPathFactory) -> vm.VmSpec:
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    tree.add_file("etc/fstab", b"proc /proc proc defaults 0 0\ndevtmpfs /dev devtmpfs defaults 0 0\n")  # no /sys
    image = initrd.create(tree, tmp_path_factory.mktemp("shell") / "initrd.cpio")
    return vm.VmSpec(kernel=guide_kernel.image, initrd=image.path, memory_bytes=256 << 20, timeout_s=300)


@pytest.fixture(scope="module")
def machine(shell: vm.VmSpec) -> Iterator[vm.Machine]:
    with vm.Machine(agent.prepare(shell), host=vm.capabilities(), interactive=True, agent=True) as machine:
        machine.start()
        agent.await_ready(machine)
        yield machine


def test_status_output_and_errors_apart(machine: vm.Machine) -> None:
    done = machine.execute(["sh", "-c", "echo out; echo err >&2; exit 22"])
    assert (done.status, done.stdout, done.stderr) == (22, b"out\n", b"err\n")
    with pytest.raises(GuestFailed, match="status 22"):
        done.check()


@pytest.mark.parametrize(
    ("argv", "status"),
    [(["/no/such"], 127), (["/etc"], 126), (["sh", "-c", "kill -TERM $$"], 143), (["true"], 0), (["false"], 1)],
)
def test_the_status_is_that_of_env(machine: vm.Machine, argv: list[str], status: int) -> None:
    done = machine.execute(argv)
    assert done.status == status
    assert bool(done.stderr) == (status in (126, 127))


def test_words_are_passed_as_they_are(machine: vm.Machine) -> None:
    words = ["a b", "", "'\"\\", "$(id)", "ä\udcff", "x" * 60_000, "*"]
    done = machine.execute(
        ["sh", "-c", 'pwd; printf "%s\\n" "$V"; printf "[%s]" "$@"', "sh", *words],
        folder="/etc",
        environment={"V": "w w"},
    )
    expected = "/etc\nw w\n" + "".join(f"[{word}]" for word in words)
    assert done.stdout == os.fsencode(expected)


def test_input_of_any_size_comes_back(machine: vm.Machine) -> None:
    data = os.urandom(3 << 20)
    done = machine.execute(["sha256sum"], stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_input_that_nobody_reads_holds_nothing_up(machine: vm.Machine) -> None:
    stuck = threading.Thread(target=lambda: machine.execute(["sleep", "5"], stdin=bytes(1 << 20)))
    stuck.start()
    assert machine.execute(["echo", "here"]).stdout == b"here\n"
    assert machine.execute(["true"], stdin=bytes(1 << 20)).status == 0
    stuck.join()


def test_several_commands_at_once(machine: vm.Machine) -> None:
    results: dict[int, bytes] = {}

    def once(number: int) -> None:
        results[number] = machine.execute(["sh", "-c", "cat; sleep 0.2; echo end"], stdin=b"%d\n" % number).stdout

    threads = [threading.Thread(target=once, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: b"%d\nend\n" % number for number in range(12)}


def test_a_command_that_takes_too_long_is_killed_with_its_children(machine: vm.Machine) -> None:
    with pytest.raises(CommandTimeout):
        machine.execute(["sh", "-c", "sleep 777 & sleep 777"], timeout_s=1)
    assert b"777" not in machine.execute(["sh", "-c", "sleep 0.5; ps | grep -v grep | grep 777"]).stdout


def test_a_daemon_that_keeps_the_output_open_does_not_hold_up_the_end(machine: vm.Machine) -> None:
    done = machine.execute(["sh", "-c", "sleep 60 & echo started"], timeout_s=30)
    assert (done.status, done.stdout) == (0, b"started\n")


def test_a_foreign_init_is_ready_at_its_prompt(shell: vm.VmSpec, tmp_path: Path, store: Cache) -> None:
    tree = initrd.tree_of("busybox", cache=store)
    tree.add_file(
        "sbin/start",
        b"#!/bin/sh\nmkdir -p /dev /proc\nmount -t proc proc /proc\nexport PS1='ok> '\nexec sh\n",
        mode=0o755,
    )
    image = initrd.create(tree, tmp_path / "foreign.cpio")
    spec = replace(shell, initrd=image.path, append="console=ttyS0 panic=-1 rdinit=/sbin/start")
    with vm.Machine(agent.prepare(spec), host=vm.capabilities(), interactive=True, agent=True) as machine:
        machine.start()
        agent.await_ready(machine)
        assert machine.execute(["cat", "/proc/1/comm"]).stdout == b"sh\n"
        assert machine.stop().end is vm.End.POWERED_OFF


def test_a_guest_without_an_initrd_is_refused(tiny_kernel: Path) -> None:
    with pytest.raises(InvalidInput, match="initrd"):
        agent.prepare(vm.VmSpec(kernel=tiny_kernel))


def exec_in(shell: vm.VmSpec, command: str, data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    variables = {**os.environ, "BIOS": "-", "RD": str(shell.initrd), "M": "256m"}
    argv = [sys.executable, "-m", "acon_nb.cli", "run", str(shell.kernel), *options, "--exec", command]
    return subprocess.run(argv, input=data, capture_output=True, env=variables, check=False, timeout=500)


def test_from_a_pipe_it_is_one_line(shell: vm.VmSpec) -> None:
    done = exec_in(shell, "wc -l; exit 22", b"".join(b"%d\n" % number for number in range(9)))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (22, b"9", b"")


@pytest.mark.parametrize(
    ("command", "options", "status"), [("sleep 1000", ("--timeout", "15"), 124), ("poweroff -f; sleep 9", (), 125)]
)
def test_a_guest_that_ends_first_is_told_from_the_command(
    shell: vm.VmSpec, command: str, options: tuple[str, ...], status: int
) -> None:
    done = exec_in(shell, command, b"", *options)
    assert done.returncode == status
    assert b"console: " in done.stderr


def launch_environment(spec: vm.VmSpec) -> dict[str, str]:
    words = {"RD": str(spec.initrd), "BIOS": "-", "M": "256m", "KA": "panic=-1", "PYTHONPATH": str(Path.cwd())}
    return {**os.environ, **words}


def test_files_go_in_before_the_command_and_come_out_after_it(shell: vm.VmSpec, tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"b\na\n")
    env = launch_environment(shell)
    argv = [sys.executable, "-m", "acon_nb.cli", "run", str(shell.kernel), "--timeout", "120"]
    argv += ["--put", "words:/tmp/in/", "--exec", "sort /tmp/in/words >/tmp/out; exit 7", "--get", "/tmp/out"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 7, done.stderr
    assert (tmp_path / "out").read_bytes() == b"a\nb\n"
    argv = [*argv[:5], "--timeout", "120", "--get", "/no/such"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 125
    assert b"/no/such was not got from the guest: /no/such: No such file" in done.stderr
    assert not (tmp_path / "such").exists()


@pytest.mark.weekly
def test_a_folder_of_the_host_is_shared(shell: vm.VmSpec, tmp_path: Path, sharing_kernel: kernel.KernelImage) -> None:
    for name in ("ro", "rw", "a folder, with blanks: and more"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"of {name}\n")
    env = launch_environment(shell)
    argv = [sys.executable, "-m", "acon_nb.cli", "run", str(sharing_kernel.image), "--timeout", "120"]
    argv += ["--share", "ro:/mnt/ro", "--share", "rw:/mnt/rw:rw"]
    argv += ["--share", "a folder, with blanks: and more:/mnt/a b,c", "--exec"]
    script = "cat /mnt/ro/file '/mnt/a b,c/file'; echo guest >/mnt/rw/new; rm /mnt/rw/file; echo x >/mnt/ro/new"
    done = subprocess.run([*argv, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "of ro\nof a folder, with blanks: and more\n"), done.stderr
    assert "Read-only file system" in done.stderr
    assert (tmp_path / "rw/new").read_text() == "guest\n"
    assert not (tmp_path / "rw/file").exists()
    assert not (tmp_path / "ro/new").exists()


@pytest.mark.weekly
def test_a_guest_gets_no_more_of_a_share_than_the_host_allows(
    shell: vm.VmSpec, tmp_path: Path, sharing_kernel: kernel.KernelImage
) -> None:
    """What lies outside, behind a link or `..`; names that the host does not take; a folder mounted writable again."""
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "ro").mkdir()
    (tmp_path / "rw").mkdir()
    (tmp_path / "rw/link").symlink_to(tmp_path / "secret")
    shares = (
        vm.Share(host=tmp_path / "ro", guest="/mnt/ro"),
        vm.Share(host=tmp_path / "rw", guest="/mnt/rw", writable=True),
    )
    spec = replace(shell, kernel=sharing_kernel.image, shares=shares)
    with vm.Machine(agent.prepare(spec), host=vm.capabilities(), interactive=True, agent=True) as machine:
        machine.start()
        agent.await_ready(machine)
        agent.mount_shares(machine)

        def sh(script: str) -> tuple[int, bytes]:
            done = machine.execute(["sh", "-c", script])
            return done.status, done.stdout + done.stderr

        status, text = sh("cat /mnt/rw/link")
        assert status == 1
        assert b"secret" not in text, "a link is followed in the guest, not on the host"
        assert sh("ls /mnt/rw/..")[1].split() == [b"ro", b"rw"]
        status, text = sh("mount -o remount,rw /mnt/ro && echo x >/mnt/ro/new")
        assert (status, b"Read-only file system" in text) == (1, True), "QEMU refuses it, whatever the guest mounts"
        assert sh(f"echo x >/mnt/rw/{'n' * 256}")[0] == 1
        assert sh("mkdir /mnt/rw/d && mv /mnt/rw/d /mnt/rw/e && ln -s /x /mnt/rw/l && readlink /mnt/rw/l") == (
            0,
            b"/x\n",
        )
    assert not (tmp_path / "ro/new").exists()
    assert (tmp_path / "rw/e").is_dir()


@pytest.mark.weekly
def test_a_kernel_without_9p_is_refused_by_name_or_the_guest_says_so(shell: vm.VmSpec, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    argv = [sys.executable, "-m", "acon_nb.cli", "run", str(shell.kernel), "--share", "d:/mnt", "--exec", "true"]
    env = launch_environment(shell)
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the kernel has no CONFIG_NET_9P_VIRTIO, CONFIG_9P_FS" in done.stderr
    spec = replace(shell, shares=(vm.Share(host=tmp_path / "d", guest="/mnt"),))
    machine = vm.Machine(agent.prepare(spec), host=vm.capabilities(), interactive=True, agent=True)
    with pytest.raises(GuestFailed, match="is not shared at /mnt: /mnt: No such device") as caught:
        agent.run_command(machine, ["true"])
    assert "CONFIG_9P_FS" in caught.value.hint
