"""The size and type of a terminal in a real guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb import initrd, kernel, vm
from acon_nb.cache import Cache

pytestmark = pytest.mark.system


def test_size_and_type_reach_the_shell_and_follow_the_terminal(
    guide_kernel: kernel.KernelImage, store: Cache, tmp_path: Path
) -> None:
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    image = initrd.create(tree, tmp_path / "initrd.cpio")
    append = "console=hvc0 panic=-1 quiet"
    spec = vm.VmSpec(kernel=guide_kernel.image, initrd=image.path, append=append, memory_bytes=256 << 20, timeout_s=200)
    with vm.Machine(spec, interactive=True) as machine:
        machine.window.set(33, 99, "vt100")
        machine.start()
        machine.console.expect("# ", 150)
        machine.console.send_line('stty size; echo "type $TERM"')
        assert machine.console.expect(r"(\d+ \d+)\s+type (\S+)\r", 30).groups == ("33 99", "vt100")
        machine.window.set(44, 120)
        machine.console.send_line('while [ "$(stty size)" = "33 99" ]; do sleep 0.1; done; echo "now $(stty size)"')
        assert machine.console.expect(r"now (\d+ \d+)\r", 60).groups == ("44 120",)
