"""The size and type of a terminal in a real guest."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from acon_nb import initrd, kernel, vm
from acon_nb.cache import Cache
from acon_nb.vm import runs

pytestmark = pytest.mark.system


@pytest.fixture
def spec(guide_kernel: kernel.KernelImage, store: Cache, tmp_path: Path) -> vm.VmSpec:
    """A guest whose console is a shell."""
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    image = initrd.create(tree, tmp_path / "initrd.cpio")
    append = "console=hvc0 panic=-1 quiet"
    return vm.VmSpec(kernel=guide_kernel.image, initrd=image.path, append=append, memory_bytes=256 << 20, timeout_s=300)


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def wait_for_size(machine: vm.Machine, size: str) -> None:
    machine.console.send_line(f'until [ "$(stty size)" = "{size}" ]; do sleep 0.1; done; echo "now $(stty size)"')
    assert machine.console.expect(r"now (\d+ \d+)\r", 60).groups == (size,)


def test_the_size_of_a_terminal_that_attaches_later_reaches_the_shell(
    spec: vm.VmSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours, theirs = pty.openpty()
    resize(ours, 31, 101)
    with vm.Machine(spec, interactive=True) as machine, runs.registered(machine, "later"):
        machine.start()
        machine.console.expect("# ", 150)
        machine.console.send_line('stty size; echo "type $TERM"')
        assert machine.console.expect(r"\ntype (\S+)\r", 30).groups == ("linux",), "the kernel's, as without a terminal"
        words = [sys.executable, "-m", "acon_nb.cli", "attach", "later"]
        env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        client = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
        reader = threading.Thread(target=read_all, args=(ours,), daemon=True)
        reader.start()
        wait_for_size(machine, "31 101")
        resize(ours, 20, 70)
        client.send_signal(signal.SIGWINCH)  # what the kernel sends to the foreground of a session's terminal
        wait_for_size(machine, "20 70")
        os.write(ours, b"\x01d")
        assert client.wait(30) == 0
        assert machine.running
    for fd in (ours, theirs):
        os.close(fd)


def read_all(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except OSError:
        return


def test_size_and_type_reach_the_shell_and_follow_the_terminal(spec: vm.VmSpec) -> None:
    with vm.Machine(spec, interactive=True) as machine:
        machine.window.set(33, 99, "vt100")
        machine.start()
        machine.console.expect("# ", 150)
        machine.console.send_line('stty size; echo "type $TERM"')
        assert machine.console.expect(r"(\d+ \d+)\s+type (\S+)\r", 30).groups == ("33 99", "vt100")
        machine.window.set(44, 120)
        wait_for_size(machine, "44 120")
