"""What an initrd's compression costs: bytes, the time to make it here, and the instructions to unpack it at boot.

The same tree is packed with each compressor and booted once on the instruction clock; what a boot takes more than that
of the plain archive is the unpacking. Both differ from hardware's time (docs/clocks.md), and sizes do not.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.bench import boot, results
from acon_nb.bench.guest_program import guest_program
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.initrd import FileTree, create
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

COMPRESSIONS = ("", "gz", "bz2", "xz", "zst", "lz4")
_APPEND = "console=ttyS0 panic=-1 quiet nolapic_timer no_timer_check"  # as bench.kernel_cost


def measure(
    tree: FileTree,
    kernel: Path,
    *,
    compressions: Sequence[str] = COMPRESSIONS,
    memory_bytes: int = 1 << 30,
    store: Cache | None = None,
    out: results.Store | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> pd.DataFrame:
    """A row a compression: `compression`, `image_bytes`, `archive_bytes`, `make_s` (wall), `init_ns` (instructions).

    `tree` is an initrd's with busybox's /init or ours; the kernel must know the compressors. The plain archive is
    always among them: `added_init_ns` is the difference from it. Errors: `InvalidInput` (no such compression), those of
    `create` and of a boot.
    """
    for suffix in compressions:
        if suffix not in COMPRESSIONS:
            raise InvalidInput("compressions", suffix, "is not known", hint=", ".join(filter(None, COMPRESSIONS)))
    compressions = tuple(dict.fromkeys(("", *compressions)))
    tree = _copy(tree)
    tree.add_file(boot.REPORT, guest_program("boot_report", cache=store), mode=0o755)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as folder:
        for number, suffix in enumerate(compressions):
            on_progress(Progress("compare compressors", number / len(compressions), suffix or "none"))
            path = Path(folder, f"initrd.cpio.{suffix}" if suffix else "initrd.cpio")
            started = time.monotonic()
            made = create(tree, path, on_progress=on_progress, cancel=cancel)
            seconds = time.monotonic() - started
            cell = boot.BootCell(
                name=suffix or "none",
                kernel=kernel,
                initrd=path,
                clock=Clock.INSTRUCTIONS,
                memory_bytes=memory_bytes,
                append=_APPEND,
            )
            run = boot.run(cell, cancel=cancel)
            row = {
                "compression": suffix or "none",
                "image_bytes": made.bytes,
                "archive_bytes": made.archive_bytes,
                "make_s": seconds,
                "init_ns": run.guest_ns["reset_to_init"],
            }
            rows.append(row)
            if out is not None:
                out.add("unpack", {**results.stamp(), **row})
            path.unlink()
    on_progress(Progress("compare compressors", 1.0))
    frame = results.frame(rows)
    frame["added_init_ns"] = frame["init_ns"] - frame.loc[frame["compression"] == "none", "init_ns"].iloc[0]
    return frame.sort_values("image_bytes", ignore_index=True)


def _copy(tree: FileTree) -> FileTree:
    copy = FileTree()
    for name, entry in tree.items():
        copy.add(name, entry)
    return copy


def unpack_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows for people, the smallest image first."""
    return results.frame(
        {
            "compression": row["compression"],
            "image / KiB": f"{row['image_bytes'] / 1024:.0f}",
            "of the archive": f"{100 * row['image_bytes'] / row['archive_bytes']:.0f} %",
            "time to make / s (this host)": f"{row['make_s']:.2f}",
            "10⁶ instructions to unpack": f"{row['added_init_ns'] / 1e6:.1f}",
        }
        for row in frame.to_dict("records")
    )
