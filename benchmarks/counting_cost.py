"""What counting a guest's instructions costs: boots with the plugin and without, in CPU time of QEMU.

python benchmarks/counting_cost.py [PAIRS]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import print_both, times_of

from acon_nb import boot, kernel
from acon_nb.process import Child
from acon_nb.study.functions import starts_of
from acon_nb.vm import Capabilities, Channels, Clock, VmSpec, argument_list, capabilities
from acon_nb.vm.counting import counter


def children_s() -> float:
    """The CPU time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def once(spec: VmSpec, host: Capabilities, folder: Path, *, counted: bool) -> float:
    """The CPU time of QEMU for a whole boot."""
    plugin = None
    if counted:
        starts = starts_of(spec.kernel, spec.clock)
        assert starts is not None
        plugin = counter(host.qemu, folder, starts).option
    argv = argument_list(spec, host, Channels(console=folder / "console", plugin=plugin))
    before = children_s()
    with Child(argv, stdin=subprocess.DEVNULL) as child:
        child.wait()
    return children_s() - before


def main() -> None:
    """Print both medians and their ratio."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    host = capabilities()
    image = kernel.build(kernel.BuildSpec(profiles=("guide",))).image
    cell = boot.BootCell(name="cost", kernel=image, initrd=boot.default_initrd(), clock=Clock.INSTRUCTIONS)
    with tempfile.TemporaryDirectory() as name:
        times = times_of(lambda counted: once(cell.spec(), host, Path(name), counted=counted), pairs)
    print_both(("counted", "not counted"), times, "of CPU time for a boot")


if __name__ == "__main__":
    main()
