"""Launches on a kernel of a few instructions (tiny.S) and on the guide's: every door, every end, and nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb import vm
from acon_nb.errors import AconError, GuestFailed, InvalidInput
from acon_nb.td import preflight
from acon_nb.vm import disk
from acon_nb.vm.ssh import generate_key

pytestmark = pytest.mark.system
Tiny = Callable[..., vm.VmSpec]


@pytest.fixture
def tiny(tiny_kernel: Path) -> Tiny:
    def make(word: str, **fields: object) -> vm.VmSpec:
        values: dict[str, object] = {"kernel": tiny_kernel, "append": word, "memory_bytes": 32 << 20, "timeout_s": 60}
        return vm.VmSpec(**{**values, **fields})  # type: ignore[arg-type]

    return make


def qemus() -> set[int]:
    """The QEMUs below this process, supervised ones too."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            ours = f"ACON_TEST={os.getpid()}".encode() in path.read_bytes().split(b"\0")
            if ours and b"qemu" in (path.parent / "cmdline").read_bytes().split(b"\0")[0]:
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_hundred_launches_leave_nothing(
    tiny: Tiny, host: vm.Capabilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACON_TEST", str(os.getpid()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    spec = tiny("h")

    def once(number: int) -> None:
        with vm.Machine(spec, host=host, folder=tmp_path / "run", interactive=number % 2 == 0) as machine:
            machine.start()
            if number % 4 < 2:
                machine.statistics()  # the guest runs
                ends = {machine.stop(grace_s=0).end}
            else:  # at any moment of its start
                machine.kill()
                ends = {machine.wait().end}
        assert ends <= {vm.End.STOPPED, vm.End.KILLED}

    once(0)
    before = len(os.listdir("/proc/self/fd")), threading.active_count(), sorted(os.listdir(tmp_path / "run"))
    for number in range(100):
        once(number)
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before[:2]
    assert sorted(os.listdir(tmp_path / "run")) == before[2]
    assert not qemus()
    assert not list((tmp_path / "tmp").iterdir())


def test_a_console_answers_and_the_guest_powers_off(tiny: Tiny, host: vm.Capabilities) -> None:
    with vm.Machine(tiny("e"), host=host, interactive=True) as machine:
        machine.start()
        machine.console.expect("READY", 30)
        machine.console.write(b"hello")
        machine.console.expect("hello", 10)
        machine.console.write(b"q")
        outcome = machine.wait()
    assert outcome.end is vm.End.POWERED_OFF
    assert outcome.console.read_bytes() == b"READY\r\nhelloq"
    assert machine.console.ended


def test_a_guest_starts_paused_and_is_let_go(tiny: Tiny, host: vm.Capabilities) -> None:
    with vm.Machine(tiny("p"), host=host) as machine:
        machine.start(paused=True)
        assert machine.qmp("query-status")["status"] == "prelaunch"
        assert machine.running
        machine.resume()
        outcome = machine.wait()
    assert outcome.end is vm.End.POWERED_OFF
    assert outcome.continued_ns is not None
    assert outcome.started_ns < outcome.continued_ns < outcome.ended_ns


def test_counters_of_a_running_guest(tiny: Tiny, host: vm.Capabilities, tmp_path: Path) -> None:
    image = disk.create(tmp_path / "a.raw", 1 << 20)
    spec = tiny("f", disks=(vm.DiskSpec(path=image.path),), network=True, balloon=True)
    with vm.Machine(spec, host=host) as machine:
        machine.start()
        samples = []
        for sample in machine.samples(0.1):
            samples.append(sample)
            if len(samples) == 3:
                machine.kill()
        assert machine.wait().end is vm.End.KILLED
    first, _, last = samples[:3]
    assert last.host_ns > first.host_ns
    assert sum(last.vcpu_ns) > sum(first.vcpu_ns)
    assert last.resident_bytes > 16 << 20
    assert last.balloon_bytes == spec.memory_bytes
    assert [counters.name for counters in last.disks] == ["disk0"]
    assert (last.received_packets, last.sent_packets) == (0, 0)
    with pytest.raises(AconError, match="is not running"):
        machine.statistics()


def test_disk_and_network_are_counted(scripted: Tiny, host: vm.Capabilities, tmp_path: Path) -> None:
    image = disk.create(tmp_path / "swap.qcow2", 64 << 20, swap=True)
    script = "dd if=/dev/zero of=/dev/vda bs=64k seek=16 count=64; sync\nreport '{\"done\":1}'\nsleep 1000"
    written = threading.Event()
    append = "console=ttyS0 panic=-1 quiet ip=dhcp INIT=/test/run"
    spec = scripted(script, disks=(vm.DiskSpec(path=image.path),), network=True, append=append)
    with vm.Machine(spec, host=host, on_message=lambda _: written.set()) as machine:
        machine.start()
        assert written.wait(300)
        sample = machine.statistics()
    assert sample.disks[0].written_bytes >= 4 << 20
    assert sample.disks[0].reads > 0
    assert sample.sent_packets is not None
    assert sample.sent_packets >= 2, "DHCP"
    assert sample.received_packets is not None
    assert sample.received_packets >= 2


@pytest.mark.parametrize(("word", "end"), [("b", vm.End.POWERED_OFF), ("h", vm.End.STOPPED)])
def test_stopping_begins_gently(tiny: Tiny, host: vm.Capabilities, word: str, end: vm.End) -> None:
    """One guest hears the power button, the other does not."""
    with vm.Machine(tiny(word), host=host) as machine:
        machine.start()
        time.sleep(1.5)  # its firmware must be through
        assert machine.stop(grace_s=10 if word == "b" else 0.2).end is end
    assert not machine.running


def test_a_qemu_that_is_killed_or_terminated_is_named(tiny: Tiny, host: vm.Capabilities) -> None:
    for number, end in ((signal.SIGKILL, vm.End.KILLED), (signal.SIGTERM, vm.End.STOPPED)):
        with vm.Machine(tiny("h"), host=host, interactive=True) as machine:
            machine.start()
            machine.statistics()
            assert machine.pid
            os.kill(machine.pid, number)
            assert machine.wait().end is end


def test_a_panic_that_stays_is_ended_and_named(scripted: Tiny, host: vm.Capabilities) -> None:
    spec = scripted("exit 7", append="console=hvc0 INIT=/test/run", timeout_s=60)
    with vm.Machine(spec, host=host, interactive=True) as machine:
        outcome = machine.wait()
    assert outcome.end is vm.End.PANIC
    assert any("Attempted to kill init" in line for line in outcome.panic)


def test_a_shell_on_the_console(scripted: Tiny, host: vm.Capabilities) -> None:
    append = "console=hvc0 earlyprintk=ttyS0 quiet panic=-1"
    with vm.Machine(scripted("", append=append), host=host, interactive=True) as machine:
        machine.start()
        machine.console.expect("# ", 60)
        machine.console.send_line("echo $((6 * 7)) answers")
        assert machine.console.expect(r"(\d+) answers\r", 10).groups == ("42",)
        machine.console.expect("# ", 10)
        machine.console.send_line("echo $((40 + 1)) runs; cat")
        machine.console.expect("41 runs", 10)  # the shell has left its line editing: Enter is a newline
        machine.console.send_line("read")
        machine.console.expect(r"read\r\nread\r\n", 10)  # the terminal's echo, then cat's: Ctrl-C will meet cat
        machine.console.write(b"\x03")
        machine.console.expect("# ", 10)
        machine.console.send_line("poweroff -f")
        assert machine.wait().end is vm.End.POWERED_OFF


def test_a_console_flood_is_bounded_and_reported(tiny: Tiny, host: vm.Capabilities) -> None:
    """A serial port under TCG gives 100 kB a second: 100 MB are in tests/unit/test_terminal.py."""
    with vm.Machine(tiny("f"), host=host, interactive=True, transcript_limit_bytes=100_000) as machine:
        machine.start()
        while machine.console.total_bytes < 300_000 and machine.running:
            time.sleep(0.05)
        assert machine.statistics().resident_bytes < 1 << 30
        outcome = machine.stop(grace_s=0)
    assert outcome.end is vm.End.STOPPED
    assert "console flood" in outcome.notes[0]
    assert outcome.console.stat().st_size < 100_200


def test_a_flood_that_nobody_watches_is_ended_and_named(tiny: Tiny, host: vm.Capabilities) -> None:
    with vm.Machine(tiny("f"), host=host, transcript_limit_bytes=100_000) as machine:
        outcome = machine.wait()
    assert outcome.end is vm.End.FLOOD
    with pytest.raises(GuestFailed, match="console flood"):
        outcome.check()


def test_a_full_disk_under_the_transcript_is_reported(tiny: Tiny, host: vm.Capabilities, small_disk: Path) -> None:
    for interactive in (True, False):
        folder = small_disk / f"run{interactive}"
        with vm.Machine(tiny("f"), host=host, interactive=interactive, folder=folder) as machine:
            machine.start()
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline:
                if machine.console.notes if interactive else not os.statvfs(small_disk).f_bavail:
                    break
                time.sleep(0.05)
            outcome = machine.stop(grace_s=0)
        assert outcome.end is vm.End.STOPPED
        assert "no space left" in outcome.notes[0]
        assert str(folder) in outcome.notes[0]
        (folder / "console.log").unlink()


def test_two_machines_with_one_disk(tiny: Tiny, host: vm.Capabilities, tmp_path: Path) -> None:
    for suffix in ("raw", "qcow2"):
        image = disk.create(tmp_path / f"a.{suffix}", 1 << 20)
        spec = tiny("h", disks=(vm.DiskSpec(path=image.path),))
        with vm.Machine(spec, host=host) as first:
            first.start()
            first.statistics()
            with pytest.raises(InvalidInput, match="in use by another machine") as caught:
                vm.Machine(spec, host=host).start()
            assert caught.value.field == "disks"
        vm.Machine(tiny("p", disks=spec.disks), host=host).wait().check()


def test_qemus_own_word_on_a_disk_in_use_has_a_hint(
    tiny: Tiny, host: vm.Capabilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = disk.create(tmp_path / "a.raw", 1 << 20)
    spec = tiny("h", disks=(vm.DiskSpec(path=image.path),))
    with vm.Machine(spec, host=host) as first:
        first.start()
        first.statistics()
        monkeypatch.setattr("acon_nb.vm.preflight._check_disk", lambda _: None)  # as if both started at once
        outcome = vm.boot(spec, host=host)
    assert outcome.end is vm.End.QEMU_FAILED
    assert "in use by another machine" in outcome.hint


def test_a_port_in_use_is_refused_by_name(tiny: Tiny) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        spec = tiny("h", network=True, forwards=(vm.Forward(host_port=port, guest_port=22),))
        with pytest.raises(InvalidInput, match=f"127.0.0.1:{port}.*in use") as caught:
            preflight.machine(spec)
    assert caught.value.field == "forwards"


def test_ssh_waits_and_then_says_why(tiny: Tiny, host: vm.Capabilities, tmp_path: Path) -> None:
    """The guest has no sshd: the helper tries until its time is over."""
    key = tmp_path / "id"
    generate_key(key)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = tiny("h", network=True, forwards=(vm.Forward(host_port=port, guest_port=22),))
    with vm.Machine(spec, host=host) as machine:
        machine.start()
        machine.statistics()
        with pytest.raises(AconError, match="ssh"):
            machine.ssh("true", key=key, timeout_s=1.5)
        with pytest.raises(InvalidInput, match="port 22"):
            vm.Machine(replace(spec, forwards=()), host=host).ssh("true", key=key)


def acon_nb_run(kernel: Path, word: str, *options: str) -> tuple[list[str], dict[str, str]]:
    """`acon-nb run` of the tiny kernel; its command line begins with the word, as KA cannot make it."""
    code = (
        "import sys; from acon_nb.vm import spec; spec.GUIDE_APPEND = sys.argv.pop(1); "
        "from acon_nb.cli import main; sys.argv[0] = 'acon-nb'; main()"
    )
    environ = {**os.environ, "RD": "-", "BIOS": "-", "M": "32m"}
    return [sys.executable, "-c", code, word, "run", *options, str(kernel)], environ


@pytest.mark.parametrize(("word", "status"), [("p", 0), ("r", 1)])
def test_the_exit_status_tells_the_end(tiny_kernel: Path, word: str, status: int) -> None:
    argv, environ = acon_nb_run(tiny_kernel, word)
    done = subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, done.stderr
    assert ("the guest ended: reset" in done.stderr) == (word == "r")


def test_without_a_terminal_stdin_and_stdout_are_the_console(tiny_kernel: Path) -> None:
    argv, environ = acon_nb_run(tiny_kernel, "e console=ttyS0")
    with subprocess.Popen(argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        output = b""
        while b"READY" not in output:
            output += os.read(child.stdout.fileno(), 4096)
        child.stdin.write(b"\x01c\x01chello q")  # from hvc0 by the monitor to the serial port
        child.stdin.close()
        output += child.stdout.read()
        assert child.wait(300) == 0
    assert b"hello q" in output


def test_json_is_one_object_and_the_console_goes_to_stderr(tiny_kernel: Path) -> None:
    argv, environ = acon_nb_run(tiny_kernel, "p", "--json")
    done = subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert json.loads(done.stdout)["end"] == "powered_off"


def test_a_terminal_feels_like_the_guides_script(tiny_kernel: Path) -> None:
    """Keys, ^C and the mux's escapes on a real terminal; ^A x ends it all, and the terminal is as it was."""
    argv, environ = acon_nb_run(tiny_kernel, "e")
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "sane"], stdin=theirs, check=True)
    before = subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout
    output = b""

    def until(word: bytes) -> None:
        nonlocal output
        deadline = time.monotonic() + 300
        while word not in output:
            assert select.select([ours], [], [], max(0, deadline - time.monotonic()))[0], output
            output += os.read(ours, 4096)
        output = output.split(word, 1)[1]

    child = subprocess.Popen(argv, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    try:
        until(b"READY")
        os.write(ours, b"\x01c")
        until(b"(qemu)")
        os.write(ours, b"info version\r")
        until(b"\r\n")
        os.write(ours, b"\x01c")
        os.write(ours, b"one\x03\x1atwo\x01\x01three")
        until(b"one\x03\x1atwo\x01three")
        assert child.poll() is None, "^C and ^Z went to the guest"
        os.write(ours, b"\x01x")
        until(b"Terminated")
        assert child.wait(300) == 0
        assert subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout == before
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)


def test_a_running_machine_keeps_its_folder_whatever_is_cleared_away(
    tiny: Tiny, host: vm.Capabilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("acon_nb.vm.plumbing._RUNS_KEPT", 1)
    ended = vm.boot(tiny("p"), host=host).console
    with vm.Machine(tiny("h"), host=host, interactive=True) as machine:
        machine.start()
        machine.statistics()
        time.sleep(1)  # folders are named by the second
        vm.boot(tiny("p"), host=host)
        vm.boot(tiny("p"), host=host)
        assert machine.transcript.is_file()
        assert not ended.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_guest_outlives_the_command(tiny_kernel: Path, number: signal.Signals, tmp_path: Path) -> None:
    argv, environ = acon_nb_run(tiny_kernel, "e console=ttyS0")
    environ["ACON_TEST"] = str(os.getpid())
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "sane"], stdin=theirs, check=True)
    before = subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout
    child = subprocess.Popen(argv, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    output = b""
    while b"READY" not in output:
        output += os.read(ours, 4096)
    assert qemus()
    child.send_signal(number)
    assert child.wait(300) != 0
    deadline = time.monotonic() + 300
    while qemus() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not qemus()
    after = subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout
    assert after == before or number == signal.SIGKILL, "the terminal is as it was"
    os.close(ours)
    os.close(theirs)


def test_the_guides_way_with_firmware_and_swap_disks(scripted: Tiny, host: vm.Capabilities, tmp_path: Path) -> None:
    """q35 with OVMF by Direct Linux Boot, a raw and a qcow2 swap disk that the kernel takes."""
    firmware = Path("/usr/share/ovmf/OVMF.fd")
    if not firmware.is_file():
        pytest.skip("ovmf is not installed")
    images = [disk.create(tmp_path / name, 64 << 20, swap=True).path for name in ("a.raw", "b.qcow2")]
    script = (
        'swapon /dev/vda; swapon /dev/vdb\nreport "{\\"swaps\\":$(grep -c ^/dev/vd /proc/swaps)}"\npoweroff -f; sleep 9'
    )
    disks = tuple(vm.DiskSpec(path=path) for path in images)
    spec = scripted(script, firmware=firmware, disks=disks, memory_bytes=512 << 20, timeout_s=120)
    outcome = vm.boot(spec, host=host).check()
    assert [dict(message.data) for message in outcome.messages] == [{"swaps": 2}]


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_the_instruction_clock_takes_a_balloon(tiny: Tiny, machine: str) -> None:
    guest = vm.Machine(tiny("h", machine=machine, clock=vm.Clock.INSTRUCTIONS, balloon=True))
    with guest.start():
        assert guest.qmp("query-balloon")["actual"] == 32 << 20


def test_a_sleeping_guest_wakes_at_the_same_instants_whatever_the_host_does(tiny: Tiny) -> None:
    """QEMU's main thread is kept busy by another's questions: a clock that it moves by its own time would go wrong."""
    spec = tiny("s", clock=vm.Clock.INSTRUCTIONS)
    sums = set()
    for asked in (False, True, True, True):
        with vm.Machine(spec) as guest:
            guest.start()
            while asked and guest.running:
                with contextlib.suppress(AconError):
                    guest.qmp("query-status")
            outcome = guest.wait().check()  # and its end is known, whatever was asked as it came
            sums.add(outcome.console.read_text())
    assert len(sums) == 1
    assert len(sums.pop().strip()) == 8
