"""What each group of options costs: a kernel for each step as the groups add up, booted once on the instruction clock.

The first step is the first group with what any guest here needs to report (a virtio console); each further step adds
one group. Its cost is the difference from the step before: bytes of bzImage, of the linked kernel, of memory that is
gone at `/init`, and instructions from reset to `/init`. The builds are cached, and incremental where they are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb import kernel
from acon_nb.bench import boot, results
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.kernel import sizes
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

GROUPS = ("minimal", "container", "performance", "security", "not-needed", "storage", "delay-disk", "study")
# What any step needs to be measured at all; zstd, since the time to unpack tinyconfig's xz would hide the rest.
FLOOR = ("PCI=y", "VIRTIO_MENU=y", "VIRTIO_PCI=y", "VIRTIO_CONSOLE=y", "KERNEL_ZSTD=y")
# Under emulation a kernel without X86_PM_TIMER busy-waits to verify its APIC timer, which no TD does (docs/kernel.md).
_APPEND = "console=ttyS0 panic=-1 quiet nolapic_timer no_timer_check"
_COSTS = ("bzimage_bytes", "linked_bytes", "gone_bytes", "init_ns")


@dataclass(frozen=True, kw_only=True)
class CostSpec:
    """The groups in the order in which they add up, the source, and the guests' memory in bytes."""

    groups: tuple[str, ...] = GROUPS
    source: str = "debian:6.12"
    memory_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        known = kernel.groups()
        for group in self.groups:
            if group not in known:
                raise InvalidInput("groups", group, "is no group", hint=f"some of {', '.join(known)}")
        if not self.groups:
            raise InvalidInput("groups", "", "names no group", hint=f"some of {', '.join(known)}")

    def steps(self) -> tuple[kernel.BuildSpec, ...]:
        """The kernel of each step."""
        return tuple(
            kernel.BuildSpec(profiles=self.groups[: number + 1], source=self.source, settings=FLOOR)
            for number in range(len(self.groups))
        )


def measure(
    spec: CostSpec,
    *,
    cache: Cache | None = None,
    out: results.Store | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> pd.DataFrame:
    """Build and boot each step; a row a step (columns as `cost_row`), each kept in `out` as it ends.

    Errors: those of `kernel.build` and `bench.boot.run`; steps before it are built, and measured again in no time.
    """
    store = cache or Cache()
    initrd = boot.default_initrd(store)
    rows: list[Mapping[str, Any]] = []
    steps = spec.steps()
    for number, step in enumerate(steps):
        task = f"cost of {spec.groups[number]}"
        on_progress(Progress(task, number / len(steps)))
        image = kernel.build(step, cache=store, on_progress=on_progress, cancel=cancel)
        cell = boot.BootCell(
            name=f"+ {spec.groups[number]}" if number else spec.groups[number],
            kernel=image.image,
            initrd=initrd,
            clock=Clock.INSTRUCTIONS,
            memory_bytes=spec.memory_bytes,
            append=_APPEND,
        )
        row = {**results.stamp(), **cost_row(image, boot.run(cell, cancel=cancel), spec.memory_bytes)}
        rows.append(row)
        if out is not None:
            out.add("kernel-cost", row)
        on_progress(Progress(task, (number + 1) / len(steps), f"bzImage of {row['bzimage_bytes'] >> 10} KiB"))
    return added(results.frame(rows))


def cost_row(image: kernel.KernelImage, run: boot.BootRun, memory_bytes: int) -> dict[str, Any]:
    """A step: bytes of the bzImage and of the linked kernel, of memory gone at `/init`, ns to `/init`, options on.

    Gone is what is neither available (MemAvailable) nor free on the lists of each CPU, where from 0 to 15 MiB lie by
    chance.
    """
    available = run.memavailable_bytes
    spare = run.mem.get("pcp_bytes", 0)  # free pages on the lists of each CPU: MemAvailable leaves them out
    return {
        "name": run.name,
        "release": image.version,
        "kernel_sha256": image.sha256,
        "options_on": sum(value == "y" for value in kernel.values_of(str(image.config)).values()),
        "bzimage_bytes": image.image.stat().st_size,
        "linked_bytes": sum(part.total_bytes for part in sizes.of_image(image.image)),
        "memory_bytes": memory_bytes,
        "memavailable_bytes": available,
        "spare_bytes": spare,
        "gone_bytes": None if available is None else memory_bytes - available - spare,
        "init_ns": run.guest_ns.get("reset_to_init"),
        "memory_line": run.memory_line,
    }


def added(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps with what each adds to the one before (`added_bzimage_bytes`, ...; the first step adds itself)."""
    frame = steps.copy()
    for column in _COSTS:
        frame[f"added_{column}"] = frame[column].diff().fillna(frame[column])
    frame["added_options_on"] = frame["options_on"].diff().fillna(frame["options_on"]).astype(int)
    return frame


def cost_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The steps for people: what each has, and in brackets what it adds."""
    units = {
        "options_on": ("options on", 1, "{:.0f}", "{:+.0f}"),
        "bzimage_bytes": ("bzImage / KiB", 1024, "{:.0f}", "{:+.0f}"),
        "linked_bytes": ("linked objects / KiB", 1024, "{:.0f}", "{:+.0f}"),
        "gone_bytes": ("memory gone at /init / KiB", 1024, "{:.0f}", "{:+.0f}"),
        "init_ns": ("10⁶ instructions to /init", 1e6, "{:.1f}", "{:+.1f}"),
    }
    rows = []
    for number, row in enumerate(frame.to_dict("records")):
        cells = {"groups": row["name"]}
        for column, (label, scale, whole, difference) in units.items():
            change = "" if not number else f" ({difference.format(row[f'added_{column}'] / scale)})"
            cells[label] = whole.format(row[column] / scale) + change
        rows.append(cells)
    return results.frame(rows)
