"""What our layer costs a kernel build: `kernel.build` beside plain `make`, in turns, in one run.

    python benchmarks/kernel_build.py [PROFILE]

Cold: an empty build folder each, without ccache (it would make the second one fast); ours fetches nothing, the source
is there, and includes reading the tree's Kconfig and the part sizes. Cached: a build of ours that is already there, of
which plain `make` would take the seconds of an up-to-date tree. Prints seconds and ratios.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.kernel import make
from acon_nb.progress import TextProgress

PROFILE = sys.argv[1] if len(sys.argv) > 1 else "minimal"
CACHED_RUNS = 5


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="acon-nb-benchmark-"))
    try:
        without_ccache(folder)
        compare(folder)
    finally:
        shutil.rmtree(folder)


def without_ccache(folder: Path) -> None:
    """A PATH of links to every program but ccache."""
    tools = folder / "tools"
    tools.mkdir()
    for name in dict.fromkeys(os.environ["PATH"].split(":")):
        for path in Path(name).glob("*"):
            link = tools / path.name
            if path.name != "ccache" and not link.is_symlink():
                link.symlink_to(path)
    os.environ["PATH"] = str(tools)


def compare(folder: Path) -> None:
    tree = kernel.fetch("debian:6.12", on_progress=TextProgress())  # in the user cache
    spec = kernel.BuildSpec(profiles=(PROFILE,), source=str(tree.path))
    store = Cache(folder / "cache")
    started, cpu = time.monotonic(), cpu_s()
    built = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=60))
    ours, ours_cpu = time.monotonic() - started, cpu_s() - cpu
    cpu = cpu_s()
    plain = plain_make(tree, built.config, folder / "plain")
    plain_cpu = cpu_s() - cpu
    same = (folder / "plain/arch/x86/boot/bzImage").read_bytes() == built.image.read_bytes()
    print(f"cold build of {PROFILE}: {ours:.1f} s with acon_nb, {plain:.1f} s plain make, ratio {ours / plain:.3f}")
    print(f"CPU time: {ours_cpu:.1f} s with acon_nb, {plain_cpu:.1f} s plain make, ratio {ours_cpu / plain_cpu:.3f}")
    print(f"the same bytes: {same}")
    times = []
    for _ in range(CACHED_RUNS):
        started = time.monotonic()
        kernel.build(spec, cache=store)
        times.append(time.monotonic() - started)
    again = plain_make(tree, built.config, folder / "plain", fresh=False)
    print(f"build that is cached: {sorted(times)[CACHED_RUNS // 2]:.2f} s with acon_nb, {again:.1f} s plain make")


def cpu_s() -> float:
    """CPU time of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(row.ru_utime + row.ru_stime for row in used)


def plain_make(tree: kernel.SourceTree, config: Path, work: Path, *, fresh: bool = True) -> float:
    """Seconds of `make olddefconfig bzImage`; the tinyconfig that ours needs to configure is timed too."""
    work.mkdir(exist_ok=True)
    argv = make.argument_list(tree, work)
    started = time.monotonic()
    targets = [["tinyconfig"]] if fresh else []
    for target in targets:
        run([*argv, *target])
    shutil.copyfile(config, work / ".config")
    run([*argv, "olddefconfig"])
    run([*argv, f"-j{len(os.sched_getaffinity(0))}", "bzImage"])
    return time.monotonic() - started


def run(argv: list[str]) -> None:
    subprocess.run(argv, env=make.environment(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
