"""Boots per minute, side by side in one run: a bare QEMU started by a shell, acon_nb, and virtme-ng.

    .venv/bin/python benchmarks/boots_per_minute.py [BLOCKS] [--json FILE] [--without virtme-ng|--plain|--tiny]

All three boot the same kernel (the guide's, with what virtme-ng's root needs) to a program that says it is there and
powers off, with one vCPU and 512 MiB. The shell and acon_nb boot the same initrd with the same QEMU options; the shell
gets no results, no time limit and no name for the guest's end. virtme-ng has no initrd: its root is a snapshot of the
host's files, which is its purpose; `true` is what it runs. It gets its fastest way that works here (virtiofs or 9p, its
own init). A block is one boot of each in turn, the order going round. Besides the wall time, the CPU time of all
processes is told: on a busy host it is the steadier number. A boot's own time varies by more than our layer takes: with
`--tiny` the guest is a few instructions that power off, so what differs is what we add to QEMU's start and end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from acon_nb import boot, kernel, process, vm
from acon_nb.cache import default_root
from acon_nb.errors import AconError
from acon_nb.progress import CancelToken, TextProgress
from acon_nb.stats import inference
from acon_nb.study.host_lock import host_lock

VIRTME = "1.42"
MEMORY = "512M"
TINY = Path(__file__).parents[1] / "tests/system/tiny.S"
# What virtme-ng's root needs beyond the guide's kernel (virtme-configkernel), as far as this boot goes.
SETTINGS = (
    "NET_9P=y", "NET_9P_VIRTIO=y", "9P_FS=y", "OVERLAY_FS=y", "FUSE_FS=y", "VIRTIO_FS=y", "VIRTIO_MMIO=y",
    "DEVTMPFS=y", "UNIX98_PTYS=y", "BINFMT_SCRIPT=y", "SHMEM=y", "TMPFS=y", "UNIX=y", "NETWORK_FILESYSTEMS=y",
)  # fmt: skip
PROOF, PROVEN = "echo ran-$((6 * 7))", b"ran-42"  # the guest's shell computes it, so no command line shows it
WAYS = {"virtiofs": (), "9p": ("--force-9p",)}
Boot = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("blocks", type=int, nargs="?", default=11)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plain", action="store_true", help="the guide's own kernel, without virtme-ng")
    parser.add_argument("--tiny", action="store_true", help="a guest that powers off at once, without virtme-ng")
    parser.add_argument("--without", action="append", default=[], choices=["virtme-ng"], help="omit a comparison")
    asked = parser.parse_args()
    if asked.plain and asked.tiny:
        parser.error("--plain or --tiny")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        boots, said = contenders(asked, folder)
        for work in boots.values():
            work()  # warm: files in the page cache, probes done
        times = measure(boots, asked.blocks)
    print("\n".join([*said, *lines(times)]))
    if asked.json:
        asked.json.write_text(json.dumps({"said": said, "times": times}, indent=1))


def guest(asked: argparse.Namespace, folder: Path) -> boot.BootCell:
    """What the shell and acon_nb boot."""
    initrd = Path(shutil.copy(boot.default_initrd(), folder))
    if asked.tiny:
        process.run(["gcc", "-c", "-m32", "-o", folder / "tiny.o", TINY])
        process.run(["objcopy", "-O", "binary", "-j", ".text", folder / "tiny.o", folder / "vmlinuz"])
        return boot.BootCell(name="tiny", kernel=folder / "vmlinuz", initrd=initrd, append="power off")
    spec = kernel.BuildSpec(settings=() if asked.plain else SETTINGS)
    return boot.BootCell(name="guide", kernel=kernel.build(spec, on_progress=TextProgress()).image, initrd=initrd)


def contenders(asked: argparse.Namespace, folder: Path) -> tuple[dict[str, Boot], list[str]]:
    """Each one's way to boot once, and what is to be known about it."""
    host = vm.capabilities()
    cell = guest(asked, folder)
    script = folder / "boot.sh"
    script.write_text(shlex.join(vm.argument_list(cell.spec(), host, vm.Channels(console=folder / "bare.log"))) + "\n")
    boots: dict[str, Boot] = {
        "shell": lambda: run(["sh", str(script)], folder / "shell.log"),
        "acon_nb": lambda: ours(cell, host, asked),
    }
    said = [
        f"kernel: {cell.kernel}, accelerator: {'kvm' if host.kvm else 'tcg'}, load average {os.getloadavg()[0]:.1f}"
    ]
    if asked.plain or asked.tiny or "virtme-ng" in asked.without:
        return boots, [*said, "virtme-ng is omitted, as asked"]
    try:
        way, command = virtme(cell.kernel, folder)
    except AconError as error:
        raise SystemExit(f"virtme-ng cannot be compared here: {error}\n  hint: --without virtme-ng") from error
    boots["virtme-ng"] = lambda: run(command, folder / "virtme.log")
    return boots, [*said, f"virtme-ng {VIRTME} over {way}: {shlex.join(command)}"]


def ours(cell: boot.BootCell, host: vm.Capabilities, asked: argparse.Namespace) -> None:
    """`boot.run` with the lock held by the caller, so that no wait for it is timed. Errors: `GuestFailed`."""
    outcome = boot.boot_once(cell, host, CancelToken())
    boot.row_of(cell, outcome if asked.tiny else outcome.check())


def virtme(image: Path, folder: Path) -> tuple[str, list[str]]:
    """virtme-ng in an environment of its own, and the fastest of its ways that works here (the better of two boots)."""
    place = default_root() / "benchmarks" / f"virtme-ng-{VIRTME}"
    program = place / "bin" / "vng"
    if not program.exists():
        process.run([sys.executable, "-m", "venv", "--clear", place])
        process.run([place / "bin/pip", "install", "-q", f"virtme-ng=={VIRTME}"], timeout_s=600)
    options = ["--run", str(image), "--user", "root", "--cpus", "1", "--memory", MEMORY]
    if not vm.capabilities().kvm:
        options.append("--disable-kvm")  # it takes the device file for a proof
    found: dict[str, tuple[float, list[str]]] = {}
    why = ""
    for way, more in WAYS.items():
        # vng starts virtme-run of the same folder by its name.
        inner = ["env", f"PATH={program.parent}:{os.environ['PATH']}", str(program), *options, *more]
        command = in_terminal([*inner, "--exec", "true"])
        try:
            check(in_terminal([*inner, "--exec", PROOF, "--verbose"]), folder / f"{way}.log")
            found[way] = (min(timed(command, folder / f"{way}.log") for _ in range(2)), command)
        except AconError as error:
            why = str(error)
    if not found:
        raise AconError(f"none of its ways works here: {why}")
    best = min(found, key=lambda way: found[way][0])
    return best, found[best][1]


def in_terminal(command: list[str]) -> list[str]:
    """The command with a terminal, which virtme-ng wants for its console: script(1) gives it one."""
    return ["script", "-q", "-e", "-c", shlex.join(command), "/dev/null"]


def check(command: list[str], log: Path) -> None:
    """Boot virtme-ng's guest once with its console: it must have run `PROOF`. Errors: `AconError`.

    What virtme-ng's init says itself differs: with udev (on this host, whose files the guest has) the program's status
    goes through a port and no line names it, without udev it is on the console.
    """
    run(command, log)
    if PROVEN not in log.read_bytes():
        raise AconError("virtme-ng's guest did not run the program", details=tail(log))


def run(command: list[str], log: Path) -> None:
    """Run a program to its end as a shell would, its output in a file. Errors: `AconError` with the last lines.

    255 is what virtme-ng says of a guest without udev, which has no names for its ports (`check` looks at the guest).
    """
    with log.open("wb") as out:
        try:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=180, check=False)
        except subprocess.TimeoutExpired as error:
            raise AconError(f"{command[0]} did not end", details=tail(log)) from error
    if ended.returncode not in (0, 255):
        raise AconError(f"{command[0]} ended with {ended.returncode}", details=tail(log))


def tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-8:]


def timed(command: list[str], log: Path) -> float:
    started = time.monotonic()
    run(command, log)
    return time.monotonic() - started


def cpu_s() -> float:
    """CPU seconds of this process and of all that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(boots: dict[str, Boot], blocks: int) -> dict[str, dict[str, list[float]]]:
    names = list(boots)
    times: dict[str, dict[str, list[float]]] = {name: {"wall_s": [], "cpu_s": []} for name in names}
    for block in range(blocks):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            with host_lock(shared=False, on_progress=TextProgress()):
                before, started = cpu_s(), time.monotonic()
                boots[name]()
                times[name]["wall_s"].append(time.monotonic() - started)
                times[name]["cpu_s"].append(cpu_s() - before)
        print(f"block {block + 1} of {blocks}", file=sys.stderr, flush=True)
    return times


def lines(times: dict[str, dict[str, list[float]]]) -> list[str]:
    """The medians, and what each costs over the shell's boot: the median of the blocks' differences, 95 % intervals."""
    said = []
    for name, one in times.items():
        wall, cpu = inference.summarise(one["wall_s"]), inference.summarise(one["cpu_s"])
        rate = f"{60 / wall.median:.1f} boots a minute"
        said.append(f"{name:>10}: {rate}; {wall.text(1, 's')} wall; {cpu.text(1, 's')} CPU")
    for name, one in times.items():
        if name != "shell":
            for kind in ("wall_s", "cpu_s"):
                pairs = zip(one[kind], times["shell"][kind], strict=True)
                found = inference.summarise([1000 * (ours - bare) for ours, bare in pairs])
                least = 1000 * (min(one[kind]) - min(times["shell"][kind]))
                median = 1000 * (statistics.median(one[kind]) - statistics.median(times["shell"][kind]))
                said.append(
                    f"{name} over the shell, {kind[:-2]}: {found.text(1, 'ms', 0)} (pairs), {median:.0f} ms between the"
                    f" medians, {least:.0f} ms between the fastest"
                )
    return said


if __name__ == "__main__":
    main()
