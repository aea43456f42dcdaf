"""The loop of a kernel developer: one .c file of a source folder is edited, the kernel built, and a guest booted.

    BENCHMARKS=edit_build_boot make benchmarks     (or: .venv/bin/python benchmarks/edit_build_boot.py [RUNS [PROFILE]])

The folder is a copy of Debian's linux-source-6.12, edited and built once before (minutes). No edit is one of before, or
the cache would have its kernel; each keeps the file's time, which make alone would not notice. Prints the seconds of
each build and of each boot on the instruction clock.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from acon_nb import boot, kernel
from acon_nb.cache import Cache
from acon_nb.progress import TextProgress
from acon_nb.vm import Clock

EDITED = Path("init/main.c")
LINE = 'pr_notice("%s", linux_banner);'


def edit(path: Path, number: int) -> None:
    status = path.stat()
    path.write_text(path.read_text().replace(LINE, f'{LINE} pr_notice("edit {number} {time.time_ns()}\\n");', 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    profile = sys.argv[2] if len(sys.argv) > 2 else "guide"
    cache = Cache()
    initrd = boot.default_initrd()
    with tempfile.TemporaryDirectory(dir=cache.root) as name:
        tree = Path(name) / "linux"
        subprocess.run(["cp", "-a", "--reflink=auto", kernel.fetch("debian:6.12").path, tree], check=True)
        edit(tree / EDITED, -1)
        spec = kernel.BuildSpec(profiles=(profile,), source=str(tree))
        before = kernel.build(spec, cache=cache, on_progress=TextProgress(every_s=30))
        print(f"profile {profile}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
        loops = []
        for number in range(runs):
            edit(tree / EDITED, number)
            begun = time.monotonic()
            image = kernel.build(spec, cache=cache)
            built = time.monotonic()
            cell = boot.BootCell(name="edited", kernel=image.image, initrd=initrd, clock=Clock.INSTRUCTIONS)
            boot.run(cell)
            done = time.monotonic()
            assert image.sha256 != before.sha256, "the edit is not in the kernel"
            before = image
            loops.append(done - begun)
            parts = f"build {built - begun:.1f} s, boot {done - built:.1f} s"
            print(f"  edit {number}: {parts}, together {loops[-1]:.1f} s", flush=True)
        print(f"median {statistics.median(loops):.1f} s of {runs}")


if __name__ == "__main__":
    main()
