"""Which part of the source takes how much of a built kernel, from the objects that it is linked from."""

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
    """A folder of the source: bytes of code and constants, of initialised data, and of zeroed memory (bss)."""

    part: str
    text_bytes: int
    data_bytes: int
    bss_bytes: int

    @property
    def total_bytes(self) -> int:
        """What the part takes of the guest's memory while the kernel starts."""
        return self.text_bytes + self.data_bytes + self.bss_bytes


def measure(build: Path) -> tuple[PartSize, ...]:
    """The parts of a finished build folder, the largest first; drivers and architectures one by one.

    Sums of size(1) over the objects that vmlinux is linked from. The archives below (built-in.a) are not asked: those
    of parts that an earlier configuration had lie about still.
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
    """The folder that an object counts to: the first one of its path, below arch and drivers the second."""
    folders = name.split("/")[:-1]
    return "/".join(folders[: 2 if folders[0] in ("arch", "drivers") else 1]) if folders else "."


def save(parts: tuple[PartSize, ...], folder: Path) -> None:
    """Keep the sizes beside a built image."""
    (folder / _FILE).write_text(json.dumps([asdict(part) for part in parts], indent=1))


def of_image(image: Path) -> tuple[PartSize, ...]:
    """The sizes that were kept when `image` (a bzImage of `build`) was made."""
    rows: list[Mapping[str, int]] = json.loads(image.with_name(_FILE).read_text())
    return tuple(PartSize(**row) for row in rows)  # type: ignore[arg-type]
