"""What counting a guest's instructions costs: boots with the plugin and without, in CPU time of QEMU.

python benchmarks/counting_cost.py [PAIRS] [calls]    with "calls": by call stack, and by function only
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
from acon_nb.study.functions import functions_of, starts_of
from acon_nb.vm import Capabilities, Channels, Clock, VmSpec, argument_list, capabilities
from acon_nb.vm.counting import counter


def children_s() -> float:
    """The CPU time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def once(spec: VmSpec, host: Capabilities, folder: Path, *, counted: bool, calls: bool = False) -> float:
    """The CPU time of QEMU for a whole boot."""
    plugin = None
    if counted:
        starts = starts_of(spec.kernel, spec.clock)
        assert starts is not None
        names = functions_of(spec.kernel) if calls else None
        plugin = counter(host.qemu, folder, starts, calls=names).option
    argv = argument_list(spec, host, Channels(console=folder / "console", plugin=plugin))
    before = children_s()
    with Child(argv, stdin=subprocess.DEVNULL) as child:
        child.wait()
    return children_s() - before


def main() -> None:
    """Print both medians and their ratio."""
    words = sys.argv[1:]
    by_stack = "calls" in words
    pairs = int(next((word for word in words if word.isdigit()), 5))
    host = capabilities()
    image = kernel.build(kernel.BuildSpec(profiles=("guide",))).image
    cell = boot.BootCell(name="cost", kernel=image, initrd=boot.default_initrd(), clock=Clock.INSTRUCTIONS)
    with tempfile.TemporaryDirectory() as name:

        def time(first: bool) -> float:
            return once(cell.spec(), host, Path(name), counted=first or by_stack, calls=first and by_stack)

        times = times_of(time, pairs)
    labels = ("by call stack", "by function") if by_stack else ("counted", "not counted")
    print_both(labels, times, "of CPU time for a boot")


if __name__ == "__main__":
    main()
