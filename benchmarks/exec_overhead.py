"""What `acon-nb run --exec` costs a launch: beside a bare loop with the same QEMU, guest and command, in pairs.

    python benchmarks/exec_overhead.py [PAIRS]

Both boot the same kernel and initrd with the agent, run `true`, and power off; the bare loop is the fewest lines that
speak the agent's protocol: subprocess and a socket. Which of a pair comes first alternates. Prints the median of the
pairs' differences, and what is left behind: processes, descriptors, threads, temporary files. Exit status 1 above
LIMIT_MS, or if anything leaks.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from acon_nb import agent, initrd, kernel, vm
from acon_nb.progress import TextProgress
from acon_nb.study.host_lock import host_lock

PAIRS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
LIMIT_MS = 60.0
HEAD = struct.Struct("<BxHI")


def frame(kind: str, number: int, payload: bytes = b"") -> bytes:
    """A frame of the agent's protocol."""
    return HEAD.pack(ord(kind), number, len(payload)) + payload


def until(file: object, kinds: str) -> None:
    """Read frames until one of a kind."""
    while head := file.read(HEAD.size):  # type: ignore[attr-defined]
        kind, _, length = HEAD.unpack(head)
        file.read(length)  # type: ignore[attr-defined]
        if chr(kind) in kinds:
            return
    raise SystemExit("the guest ended before its command did")


def bare(spec: vm.VmSpec, host: vm.Capabilities, folder: Path) -> None:
    """The bare loop: start QEMU, wait for the agent, run `true`, power off."""
    ours, theirs = socket.socketpair()
    channels = vm.Channels(console=folder / "bare.log", exec_fd=theirs.fileno())
    with subprocess.Popen(
        vm.argument_list(spec, host, channels), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
    ) as qemu:
        theirs.close()
        with ours, ours.makefile("rb") as file:
            until(file, "R")
            ours.sendall(frame("S", 1, struct.pack("<HH", 1, 0) + b"\0true\0") + frame("E", 1))
            until(file, "Z")
            ours.sendall(frame("P", 0))
            qemu.wait(60)


def ours(spec: vm.VmSpec, host: vm.Capabilities) -> None:
    """The same by what `--exec` calls."""
    machine = vm.Machine(spec, host=host, interactive=True, agent=True)
    done, outcome = agent.run_command(machine, ["true"])
    assert done.status == 0
    assert outcome.end is vm.End.POWERED_OFF


def held() -> dict[str, int]:
    """What this process has open."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": len(children),
        "temporary files": len(os.listdir(tempfile.gettempdir())),
    }


def main() -> int:
    """Measure, print, and judge."""
    image = kernel.build(kernel.BuildSpec(), on_progress=TextProgress())
    host = vm.capabilities()
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as name, host_lock(shared=False, on_progress=TextProgress()):
        Path(name, "temporary").mkdir()
        tempfile.tempdir = f"{name}/temporary"  # others' files are none of ours
        tree = initrd.tree_of("busybox")
        initrd.gen_init(tree)
        small = initrd.create(tree, Path(name, "initrd.cpio"))
        plain = vm.VmSpec(kernel=image.image, initrd=small.path, memory_bytes=256 << 20, timeout_s=120)
        spec = agent.prepare(plain)
        ours(spec, host)
        bare(spec, host, Path(name))
        before = held()
        for number in range(PAIRS):
            for which in ("ours", "bare") if number % 2 else ("bare", "ours"):
                started = time.monotonic()
                ours(spec, host) if which == "ours" else bare(spec, host, Path(name))
                seconds[which].append(time.monotonic() - started)
        after = held()
    differences = [1000 * (one - other) for one, other in zip(seconds["ours"], seconds["bare"], strict=True)]
    cost = statistics.median(differences)
    low, high = sorted(differences)[len(differences) // 4], sorted(differences)[-1 - len(differences) // 4]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"bare loop: {medians['bare']:.3f} s; with --exec: {medians['ours']:.3f} s (medians)")
    print(f"{cost:.0f} ms a launch (median of {PAIRS} pairs; half of them {low:.0f} to {high:.0f} ms)")
    leaks = {name: (before[name], after[name]) for name in before if after[name] > before[name]}
    print(f"leaks: {leaks or 'none'}")
    return int(cost > LIMIT_MS or bool(leaks))


if __name__ == "__main__":
    sys.exit(main())
