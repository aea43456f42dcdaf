"""A notebook's kernel that dies takes its guests with it, however it dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.system
LAUNCH = """
import sys
from pathlib import Path
from acon_nb import vm, widgets
spec = vm.VmSpec(kernel=Path({kernel!r}), memory_bytes=256 << 20, append="console=ttyS0 panic=0")
machine = vm.Machine(spec, folder=Path({folder!r}), interactive=True, attended=True).start()
console = widgets.console(machine)
console.expect("Linux version", timeout_s=60)
print("pid", machine.pid)
"""


def lives(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_no_guest_outlives_the_kernel(guide_kernel, tmp_path, number):
    manager, client = start_new_kernel()
    try:
        said = []
        code = LAUNCH.format(kernel=str(guide_kernel.image), folder=str(tmp_path / "run"))
        reply = client.execute_interactive(
            code, timeout=600, output_hook=lambda message: said.append(message["content"])
        )
        assert reply["content"]["status"] == "ok", reply["content"]
        text = "".join(content.get("text", "") for content in said)
        pid = int(text.rpartition("pid ")[2])
        assert lives(pid)
        os.kill(manager.provisioner.pid, number)
        deadline = time.monotonic() + 300
        while lives(pid):
            assert time.monotonic() < deadline, "QEMU outlived the kernel"
            time.sleep(0.1)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
