"""Which part of the source takes how much of a built kernel, from the archives that the build links."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from acon_nb import process

_TOTAL = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+\d+\s+[0-9a-f]+\s+\(TOTALS\)$", re.MULTILINE)
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
    """The parts of a finished build folder, the largest first; drivers one by one. Sums of size(1) over built-in.a."""
    folders = [path for path in build.iterdir() if path.is_dir() and path.name not in ("arch", "drivers", "include")]
    folders += [*(build / "arch").glob("*"), *(build / "drivers").glob("*")]
    parts = []
    for folder in folders:
        archives = [path for path in (folder / "built-in.a", folder / "lib.a", folder / "lib/lib.a") if path.is_file()]
        numbers = [_size_of(path) for path in archives]
        text, data, bss = (sum(column) for column in zip(*numbers, strict=True)) if numbers else (0, 0, 0)
        if text + data + bss:
            name = str(folder.relative_to(build))
            parts.append(PartSize(part=name, text_bytes=text, data_bytes=data, bss_bytes=bss))
    return tuple(sorted(parts, key=lambda part: (-part.total_bytes, part.part)))


def save(parts: tuple[PartSize, ...], folder: Path) -> None:
    """Keep the sizes beside a built image."""
    (folder / _FILE).write_text(json.dumps([asdict(part) for part in parts], indent=1))


def of_image(image: Path) -> tuple[PartSize, ...]:
    """The sizes that were kept when `image` (a bzImage of `build`) was made."""
    rows: list[Mapping[str, int]] = json.loads(image.with_name(_FILE).read_text())
    return tuple(PartSize(**row) for row in rows)  # type: ignore[arg-type]


def _size_of(archive: Path) -> tuple[int, int, int]:
    match = _TOTAL.search(process.output(["size", "-t", archive], cwd=archive.parent))
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)
