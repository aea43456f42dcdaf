"""What the host's markers of a boot cost: QEMU's trace of fw_cfg, with and without, in CPU time of QEMU.

The guest is ended where the firmware hands over to the kernel, so that little but the traced part runs.

    python benchmarks/marker_cost.py [RUNS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from side_by_side import print_both, times_of

from acon_nb import boot, kernel
from acon_nb.boot import milestones
from acon_nb.process import Child
from acon_nb.study.host_lock import host_lock
from acon_nb.vm import VmSpec, capabilities
from acon_nb.vm.command import Capabilities, Channels, argument_list


def cpu_s(pid: int) -> float:
    """The time on a CPU of all threads of a process, in s (sched-stats.rst)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def once(spec: VmSpec, host: Capabilities, folder: Path, *, traced: bool) -> tuple[float, int]:
    """CPU time until the guest's mark has come, and the number of traced events."""
    console, trace = folder / "console", folder / "trace"
    for path in (console, trace):
        path.write_bytes(b"")
    argv = argument_list(spec, host, Channels(console=console, trace=trace if traced else None))
    with Child(argv, stdin=subprocess.DEVNULL) as child:
        while b"ACON" not in console.read_bytes():
            if child.poll() is not None:
                raise SystemExit("QEMU ended without the guest's mark")
            time.sleep(0.002)
        spent = cpu_s(child.pid or 0)
        child.kill()
    return spent, trace.read_bytes().count(b"fw_cfg_select")


def main() -> None:
    """Print both medians and the difference."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    host = capabilities()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = kernel.build(kernel.BuildSpec(profiles=("guide",))).image
        marked = milestones.marked_at_setup(built.read_bytes())
        image = folder / "bzImage"
        if marked is None:
            raise SystemExit(f"{built} has no real-mode set-up")
        image.write_bytes(marked)
        cell = boot.BootCell(name="mark", kernel=built, initrd=boot.default_initrd(), accelerator="tcg")
        spec = replace(cell.spec(), kernel=image)
        events = 0

        def once_alone(traced: bool) -> float:
            nonlocal events
            with host_lock(shared=False):
                spent, seen = once(spec, host, folder, traced=traced)
            events = max(events, seen)
            return spent

        times = times_of(once_alone, runs)
    print_both(("with the trace", "without"), times, "of CPU time to the firmware's end", unit="ms")
    print(f"{events} events traced")


if __name__ == "__main__":
    main()
