"""What counting takes of the host's memory: QEMU without its guest's RAM, through a swap guest of many minutes.

    python benchmarks/plugin_memory.py [--accesses N] [--every SECONDS]

Runs the same guest (anonymous memory of 1.3 times its 80 MiB, on zram) without the plugin, counted by function, and by
call stack, and reads QEMU's proportional set size as it runs: some 21 x 10^9 instructions a guest.
"""

from __future__ import annotations

import argparse
import time

from acon_nb.host.smaps import qemu_memory
from acon_nb.profile import sources
from acon_nb.progress import TextProgress
from acon_nb.study.plan import Level, Plan
from acon_nb.swap.cell import SwapCell
from acon_nb.swap.experiment import SwapExperiment
from acon_nb.swap.factors import SwapFactors
from acon_nb.vm import Machine, VmSpec, capabilities

FIXED: dict[str, Level] = {
    "swap": "zram:lz4", "memory": "80M", "pressure": 1.3, "workload": "anon", "data": "like-redis", "dilation": 12.0,
    "timeout_s": 7200,
}  # fmt: skip
GUESTS = ("not counted", "by function", "by call stack")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accesses", type=int, default=300_000)
    parser.add_argument("--every", type=float, default=2.0)
    asked = parser.parse_args()
    spec = spec_of(asked.accesses)
    plain = None
    for how in GUESTS:
        sizes, line = run(spec, how, asked.every)
        plain = plain or max(sizes)
        print(
            f"{how}: {line}; QEMU's MiB without the guest's RAM: {sizes[0]:.1f} at first, {max(sizes):.1f} at most,"
            f" {sizes[-1]:.1f} at last; {max(sizes) - plain:+.1f} for counting",
            flush=True,
        )


def spec_of(accesses: int) -> VmSpec:
    """The guest of a study's cell."""
    fixed = {**FIXED, "accesses": accesses}
    experiment = SwapExperiment(Plan(name="plugin-memory", study="swap", fixed=fixed, runs=1, warmups=0))
    experiment.prepare(on_progress=TextProgress())
    files = experiment.parts(experiment.plan.all_cells[0])
    factors = SwapFactors.of(fixed)
    return SwapCell(factors=factors, kernel=files["kernel"], initrd=files["initrd"], disk_dilation=1.0).spec(1)


def run(spec: VmSpec, how: str, every_s: float) -> tuple[list[float], str]:
    """The sizes of a guest's QEMU in MiB, without the guest's RAM, and what the guest did."""
    functions = sources.functions(spec.kernel)
    counted = how != GUESTS[0]
    started, sizes = time.monotonic(), []
    with Machine(
        spec,
        host=capabilities(),
        count_by=functions.starts() if counted else None,
        calls=functions.names if how == GUESTS[2] else None,
        programs=counted,
    ) as machine:
        machine.start()
        while machine.running:
            memory = None if machine.pid is None else qemu_memory(machine.pid, spec.memory_bytes)
            if memory is not None:
                sizes.append((memory.total_bytes - memory.ram) / (1 << 20))
            time.sleep(every_s)
        outcome = machine.wait().check()
    executed = f"{outcome.snapshots[-1].counted:,} instructions, " if counted else ""
    return sizes, f"{executed}{(time.monotonic() - started) / 60:.0f} minutes of this host"


if __name__ == "__main__":
    main()
