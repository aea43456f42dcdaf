"""What the report costs that is put in front of any initrd: before /init, in memory, and after it is taken out.

    python benchmarks/report_cost.py

Two boots of the guide's kernel with the same initrd on the instruction clock, so each number is exact: as it is, and
with the report in front, which becomes its /init; both report at the end of /init.
"""

from __future__ import annotations

from dataclasses import replace

from acon_nb import boot, kernel
from acon_nb.boot import report
from acon_nb.vm import Clock, Machine


def main() -> None:
    """Boot, and print."""
    image = kernel.build(kernel.BuildSpec(profiles=("guide",))).image
    initrd = boot.default_initrd()
    cell = boot.BootCell(name="alone", kernel=image, initrd=initrd, clock=Clock.INSTRUCTIONS, timeout_s=300)
    cell = replace(cell, append=f"{cell.append} rdinit=/init")  # without the program that marks /init
    alone = boot.run(cell)
    spec = cell.spec()
    joined = report.joined(report.archive(), initrd)
    both = replace(spec, initrd=joined, append=spec.append.replace("rdinit=/init", f"rdinit={report.WRAPPER}"))
    with Machine(both) as machine:
        messages = machine.wait().check().messages
    first = report.read(messages, Clock.INSTRUCTIONS)
    assert first is not None
    assert None not in (first.taken_ns, first.mark_us, first.init_us)
    start = alone.guest_ns["reset_to_log"] + alone.guest_ns["init"]
    before = first.tsc - 1000 * ((first.mark_us or 0) - (first.init_us or 0)) - start
    end_tsc = next(int(m.data["tsc"]) for m in messages if m.data.get("at") == "end")
    left = end_tsc - (first.taken_ns or 0) - alone.guest_ns["reset_to_ready"] - before
    print(f"the archive: {report.archive().stat().st_size} bytes")
    print(f"until the kernel starts the first program: {before} instructions more than {start}")
    print(f"the report itself, taken out of what follows: {first.taken_ns} ns")
    print(f"left of it at the end of /init: {left} ns of {alone.guest_ns['ready'] - alone.guest_ns['init']}")


if __name__ == "__main__":
    main()
