"""What our layer costs a kernel build: `kernel.build` beside plain `make`, in turns, in one run.

    python benchmarks/kernel_build.py [PROFILE] [--ours]

Cold: an empty build folder each, without ccache (it would make the second one fast); ours fetches nothing, the source
is there, and includes reading the tree's Kconfig and the part sizes. Cached: a build of ours that is already there, of
which plain `make` would take the seconds of an up-to-date tree. Prints seconds and ratios. Two builds differ by more
than our layer costs, so it is timed on its own too: all but the time in `make`. `--ours` ends with that.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acon_nb import kernel, process
from acon_nb.cache import Cache
from acon_nb.kernel import make
from acon_nb.progress import TextProgress

CACHED_RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("profile", nargs="?", default="minimal")
    parser.add_argument("--ours", action="store_true", help="without plain make")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acon-nb-benchmark-"))
    try:
        without_ccache(folder)
        compare(folder, asked)
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


def compare(folder: Path, asked: argparse.Namespace) -> None:
    tree = kernel.fetch("debian:6.12", on_progress=TextProgress())  # in the user cache
    spec = kernel.BuildSpec(profiles=(asked.profile,), source=str(tree.path))
    store = Cache(folder / "cache")
    started, cpu = time.monotonic(), cpu_s()
    with timed_make() as in_make:
        built = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=60))
    ours, ours_cpu = time.monotonic() - started, cpu_s() - cpu
    print(f"of {ours:.1f} s, {ours - sum(in_make):.1f} s are not in a make that plain make needs too")
    if asked.ours:
        return
    cpu = cpu_s()
    plain = plain_make(tree, built.config, folder / "plain")
    plain_cpu = cpu_s() - cpu
    same = (folder / "plain/arch/x86/boot/bzImage").read_bytes() == built.image.read_bytes()
    print(
        f"cold build of {asked.profile}: {ours:.1f} s with acon_nb, {plain:.1f} s plain make, ratio {ours / plain:.3f}"
    )
    print(f"CPU time: {ours_cpu:.1f} s with acon_nb, {plain_cpu:.1f} s plain make, ratio {ours_cpu / plain_cpu:.3f}")
    print(f"the same bytes: {same}")
    times = []
    for _ in range(CACHED_RUNS):
        started = time.monotonic()
        kernel.build(spec, cache=store)
        times.append(time.monotonic() - started)
    again = plain_make(tree, built.config, folder / "plain", fresh=False)
    print(f"build that is cached: {statistics.median(times):.2f} s with acon_nb, {again:.1f} s plain make")


@contextmanager
def timed_make() -> Iterator[list[float]]:
    """Collects the seconds in make, but for the dry run that counts the steps: plain make has none."""
    times: list[float] = []
    real = process.run

    def run_timed(argv: Sequence[str | Path], **options: Any) -> process.Completed:
        started = time.monotonic()
        done = real(argv, **options)
        if argv[0] == "make" and "-n" not in argv:
            times.append(time.monotonic() - started)
        return done

    process.run = run_timed
    try:
        yield times
    finally:
        process.run = real


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
