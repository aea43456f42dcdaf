"""Checks proposals to turn options off: builds the kernel without each, and boots it.

Kernels and what their boots executed are kept in the cache, so a check that was stopped resumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acon_nb import kernel
from acon_nb.boot.cell import BootCell, run, spec_hash
from acon_nb.cache import Cache
from acon_nb.errors import AconError, Cancelled, MissingRequirement, NoSpace
from acon_nb.host import probe_qemu
from acon_nb.profile.unused import UnusedOption
from acon_nb.progress import CancelToken, OnProgress, silent


@dataclass(frozen=True, kw_only=True)
class CheckedOption:
    """A kernel without one option: whether it builds and boots, its bzImage's bytes and its boot's instructions.

    `why` says what failed; numbers of what failed are 0. `before` is the kernel with the option.
    """

    option: str
    builds: bool
    boots: bool
    image_bytes: int = 0
    before_image_bytes: int = 0
    instructions: int = 0
    before_instructions: int = 0
    why: str = ""

    @property
    def text(self) -> str:
        """The outcome for people."""
        if not self.boots:
            return f"{self.option}=n {'does not boot' if self.builds else 'does not build'}: {self.why}"
        return (
            f"{self.option}=n boots: {self.image_bytes - self.before_image_bytes:+,} bytes of bzImage,"
            f" {self.instructions - self.before_instructions:+,} instructions"
        )


def check(
    options: Sequence[UnusedOption],
    cell: BootCell,
    config: Path,
    *,
    source: str = "debian:6.12",
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Iterator[CheckedOption]:
    """Build the kernel of `cell`, whose .config is `config`, without each option alone, and boot it until it is ready.

    The initrd must report itself. A kernel that does not build or boot is an outcome, not an error. Errors: those of
    the boot with all options, `MissingRequirement`, `NoSpace`, `Cancelled`.
    """
    cache = cache or Cache()
    before = _executed(cell, cache, on_progress, cancel)
    size = cell.kernel.stat().st_size
    for row in options:
        spec = kernel.BuildSpec(profiles=(), source=source, config=config, settings=(f"{row.option}=n",))
        try:
            image = kernel.build(spec, cache=cache, on_progress=on_progress, cancel=cancel)
        except (Cancelled, MissingRequirement, NoSpace):
            raise
        except AconError as error:
            yield CheckedOption(option=row.option, builds=False, boots=False, why=error.what)
            continue
        without = replace(cell, name=f"{row.option}=n", kernel=image.image, system_map=None)
        try:
            total = _executed(without, cache, on_progress, cancel)
        except (Cancelled, MissingRequirement, NoSpace):
            raise
        except AconError as error:
            yield CheckedOption(option=row.option, builds=True, boots=False, why=error.what)
            continue
        yield CheckedOption(
            option=row.option,
            builds=True,
            boots=True,
            image_bytes=image.image.stat().st_size,
            before_image_bytes=size,
            instructions=total,
            before_instructions=before,
        )


def _executed(cell: BootCell, cache: Cache, on_progress: OnProgress, cancel: CancelToken | None) -> int:
    """The instructions that a boot executes until it is ready. Errors: those of `run`."""
    qemu = probe_qemu()
    inputs = {"cell": spec_hash(cell), "qemu": [qemu.version_text, qemu.package]}

    def make(folder: Path) -> None:
        row = run(cell, on_progress=on_progress, cancel=cancel)
        if "ready" not in row.idle_ns_reset_to:
            hint = "use a QEMU that loads plugins, as Debian's does, and an initrd of boot.boot_initrd"
            raise AconError(f"what {cell.name} executed until it was ready is not known", hint=hint)
        (folder / "executed").write_text(str(row.guest_ns["reset_to_ready"] - row.idle_ns_reset_to["ready"]))

    return int((cache.get("boot-executed", inputs, make).path / "executed").read_text())
