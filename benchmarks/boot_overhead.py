"""What our layer costs a boot: `bench.boot` beside a bare QEMU with the same arguments, in turns, in one run.

    make benchmarks

Prints medians and the ratio. Both boot the guide's kernel on the wall clock; the bare loop writes the console to a file
and gets no results.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from acon_nb import boot, kernel, vm
from acon_nb.progress import CancelToken, TextProgress
from acon_nb.study.host_lock import host_lock

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 7


def main() -> None:
    image = kernel.build(kernel.BuildSpec(), on_progress=TextProgress())
    cell = boot.BootCell(name="guide", kernel=image.image, initrd=boot.default_initrd())
    host = vm.capabilities()
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        channels = vm.Channels(console=Path(folder, "console.log"))
        argv = vm.argument_list(cell.spec(), host, channels)
        for _ in range(RUNS):
            with host_lock(shared=False, on_progress=TextProgress()):  # both, beside no other measurement
                started = time.monotonic()
                boot.row_of(cell, boot.boot_once(cell, host, CancelToken()))
                ours.append(time.monotonic() - started)
                started = time.monotonic()
                subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=60)
                bare.append(time.monotonic() - started)
    first, second = statistics.median(ours), statistics.median(bare)
    print(f"a boot with acon_nb: {first:.3f} s, bare QEMU: {second:.3f} s (medians of {RUNS})")
    print(f"ratio {first / second:.3f}, {1000 * (first - second):.0f} ms a boot")


if __name__ == "__main__":
    main()
