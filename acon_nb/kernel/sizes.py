"""Computes how much each part of the source contributes to a built kernel, from the objects it is linked from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from acon_nb import process

_OBJECT = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+\d+\s+[0-9a-f]+\s+(\S+) \(ex ", re.MULTILINE)
_FILE = "sizes.json"


@dataclass(frozen=True, kw_only=True)
class PartSize:
    """A folder of the source: its bytes of code and constants, of initialised data, and of zeroed memory (bss)."""

    part: str
    text_bytes: int
    data_bytes: int
    bss_bytes: int

    @property
    def total_bytes(self) -> int:
        """The memory that the part occupies while the kernel starts."""
        return self.text_bytes + self.data_bytes + self.bss_bytes


def measure(build: Path) -> tuple[PartSize, ...]:
    """Measure the parts of a finished build folder, the largest first; drivers and architectures one by one.

    Sums size(1) over the objects that vmlinux is linked from. The archives of subfolders (built-in.a) are ignored,
    since those of an earlier configuration may still exist.
    """
    archives = [name for name in ("vmlinux.a", "lib/lib.a", "arch/x86/lib/lib.a") if (build / name).is_file()]
    text = process.output(["size", *archives], cwd=build) if archives else ""
    sums: dict[str, list[int]] = {}
    for match in _OBJECT.finditer(text):
        row = sums.setdefault(_part(match[4]), [0, 0, 0])
        for number in range(3):
            row[number] += int(match[number + 1])
    parts = [PartSize(part=name, text_bytes=t, data_bytes=d, bss_bytes=b) for name, (t, d, b) in sums.items()]
    return tuple(sorted(parts, key=lambda part: (-part.total_bytes, part.part)))


def _part(name: str) -> str:
    """Return the folder to which an object is attributed: the first of its path, two levels in arch and drivers."""
    folders = name.split("/")[:-1]
    return "/".join(folders[: 2 if folders[0] in ("arch", "drivers") else 1]) if folders else "."


def save(parts: tuple[PartSize, ...], folder: Path) -> None:
    """Store the sizes in the folder of a built image."""
    (folder / _FILE).write_text(json.dumps([asdict(part) for part in parts], indent=1))


def of_image(image: Path) -> tuple[PartSize, ...]:
    """Load the sizes that were stored when `image` (a bzImage of `build`) was built."""
    rows: list[Mapping[str, int]] = json.loads(image.with_name(_FILE).read_text())
    return tuple(PartSize(**row) for row in rows)  # type: ignore[arg-type]
