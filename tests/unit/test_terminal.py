"""The terminal in front of a guest: its size on the way to the guest, and its mode after the owner was killed."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from qemu.qmp import ExecuteError, Message
from qemu.qmp.models import ErrorResponse

from acon_nb.vm import Capabilities, Channels, VmSpec, argument_list
from acon_nb.vm.window import TerminalWindow, pass_sizes, takes_sizes
from tests.unit import bzimages

OWNER = """
import os, sys, time
from acon_nb.process import Child
from acon_nb.vm.attach import raw_terminal
with raw_terminal(0) as terminal, Child(["sleep", "60"], terminal=terminal):
    if sys.argv[1:] == ["changed"]:
        os.system("stty -raw -echo")
    os.write(int(os.environ["READY"]), b".")
    time.sleep(60)
"""


@pytest.fixture
def terminal() -> Iterator[int]:
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def killed_owner(fd: int, *argv: str) -> None:
    """An owner of a guest at this terminal, killed with SIGKILL while the terminal is raw."""
    ready_r, ready_w = os.pipe()
    env = {**os.environ, "READY": str(ready_w), "PYTHONPATH": str(Path.cwd())}
    owner = subprocess.Popen([sys.executable, "-c", OWNER, *argv], stdin=fd, pass_fds=[ready_w], env=env)
    os.close(ready_w)
    assert os.read(ready_r, 1) == b"."
    os.close(ready_r)
    assert not termios.tcgetattr(fd)[3] & termios.ECHO
    owner.send_signal(signal.SIGKILL)
    owner.wait()


def test_a_terminal_is_restored_after_kill_9(terminal: int) -> None:
    before = termios.tcgetattr(terminal)
    killed_owner(terminal)
    deadline = time.monotonic() + 20
    while termios.tcgetattr(terminal) != before:
        assert time.monotonic() < deadline, "still raw"
        time.sleep(0.05)


def test_a_mode_that_another_has_set_since_is_kept(terminal: int) -> None:
    killed_owner(terminal, "changed")
    set_by_other = termios.tcgetattr(terminal)
    time.sleep(1)
    assert termios.tcgetattr(terminal) == set_by_other


def test_a_guest_gets_the_size_first_and_each_new_one() -> None:
    window = TerminalWindow()
    assert not window.is_set
    window.set(50, 132, "xterm-256color")
    ours, theirs = socket.socketpair()
    window.connect(theirs)
    window.set(24, 80, "a b; rm -rf /")
    window.set(0, 0)
    window.set(-1, 99999)
    window.close()
    with ours.makefile("rb") as file:
        assert file.read() == b"50 132 xterm-256color\n24 80 linux\n"
    window.set(10, 10)
    ours.close()


def test_a_guest_without_a_window_is_told_so_and_gets_the_size_of_one_that_comes() -> None:
    window = TerminalWindow()
    ours, theirs = socket.socketpair()
    window.connect(theirs)
    window.set(40, 100)
    window.close()
    with ours.makefile("rb") as file:
        assert file.read() == b"0 0 linux\n40 100 linux\n"
    ours.close()


class Monitor:
    """A QEMU that knows a command, or does not."""

    def __init__(self, *, known: bool) -> None:
        self.known = known
        self.asked: list[tuple[str, dict[str, object]]] = []

    async def execute(self, command: str, arguments: dict[str, object]) -> None:
        self.asked.append((command, arguments))
        if not self.known:
            error = {"error": {"class": "CommandNotFound", "desc": f"The command {command} has not been found"}}
            raise ExecuteError(ErrorResponse(error), Message({"execute": command}), Message(error))


@pytest.mark.parametrize("known", [True, False])
def test_qemu_gets_each_size_if_it_takes_one(known: bool) -> None:
    window = TerminalWindow()
    monitor = Monitor(known=known)

    async def run() -> None:
        window.set(30, 90)
        passing = asyncio.create_task(pass_sizes(window, monitor, "hvc"))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        window.set(31, 91)
        if known:
            while len(monitor.asked) < 2:
                await asyncio.sleep(0.01)
            passing.cancel()
        else:
            await passing

    asyncio.run(run())
    window.set(32, 92)  # after the guest's end
    sizes = [{"id": "hvc", "rows": 30, "cols": 90}, {"id": "hvc", "rows": 31, "cols": 91}]
    assert monitor.asked == [("chardev-window-size-changed", size) for size in (sizes if known else sizes[:1])]


def test_only_kernels_that_read_rows_as_rows_get_sizes_from_qemu() -> None:
    assert [takes_sizes(release) for release in ("6.15.0", "7.3.4-cloud", "6.14.11", "6.1.0-37-amd64", "")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_a_guest_that_never_reads_holds_nothing_up() -> None:
    window = TerminalWindow()
    ours, theirs = socket.socketpair()
    window.connect(theirs)
    for rows in range(1, 9999):
        window.set(rows, 80)
    window.close()
    ours.close()


def test_only_a_terminal_gives_the_guest_a_port_for_it(tmp_path: Path) -> None:
    spec = VmSpec(kernel=bzimages.write(tmp_path / "k"), results_port=False)
    host = Capabilities(qemu=Path("/q"))
    with_port = argument_list(spec, host, Channels(mux_fd=5, terminal_fd=7))
    assert "virtserialport,chardev=terminal,name=acon.terminal" in with_port
    assert "max_ports=4" in " ".join(with_port)
    assert "acon.terminal" not in " ".join(argument_list(spec, host, Channels(mux_fd=5)))
