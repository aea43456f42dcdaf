"""What an initrd's compression costs: bytes, the time to make it here, and the instructions to unpack it at boot.

The same tree is packed with each compressor and booted once on the instruction clock; what a boot takes more than that
of the plain archive is the unpacking. Both differ from hardware's time (docs/clocks.md), and sizes do not. It is a
study of boots, the plan `initrd-compressors` with the tree and the kernel of the caller.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb import results
from acon_nb.boot.experiment import BootExperiment
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.initrd import FileTree, create
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.study.host_lock import run_locked
from acon_nb.study.plan import Plan, load
from acon_nb.study.whole import run_plan

if TYPE_CHECKING:
    import pandas as pd

PLAN = "initrd-compressors"
COMPRESSIONS = ("", "gz", "bz2", "xz", "zst", "lz4")


class CompressionExperiment(BootExperiment):
    """Boots of one tree, packed into `folder` with the compressor of each cell and timed while it is packed."""

    def __init__(self, plan: Plan, tree: FileTree, folder: Path, *, cache: Cache | None = None) -> None:
        super().__init__(plan, cache=cache)
        self._folder = folder
        self._tree = tree

    def _initrd(
        self,
        label: str,
        modules: tuple[Path, ...],
        release: str,
        on_progress: OnProgress,
        cancel: CancelToken | None,
    ) -> Path:
        """Pack the tree, while nothing else is measured on this host."""
        del modules, release
        suffix = self._factors[label].initrd_compression
        path = self._folder / (f"initrd.cpio.{suffix}" if suffix else "initrd.cpio")
        made, seconds = run_locked(
            lambda token: create(self._tree, path, on_progress=on_progress, cancel=token),
            alone=True,
            cancel=cancel,
            on_progress=on_progress,
        )
        self._facts[label] |= {"initrd_make_s": seconds, "initrd_archive_bytes": made.archive_bytes}
        return path


def check_compressions(compressions: Sequence[str]) -> None:
    """Check names of compressions ("": none). Errors: `InvalidInput`."""
    for suffix in compressions:
        if suffix not in COMPRESSIONS:
            hint = ", ".join(filter(None, COMPRESSIONS))
            raise InvalidInput("compressions", suffix, "is not a known compression", hint=hint)


def measure(
    tree: FileTree,
    kernel: Path,
    *,
    compressions: Sequence[str] = COMPRESSIONS,
    memory: str = "1G",
    store: Cache | None = None,
    out: results.Store | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> pd.DataFrame:
    """Pack and boot with each compressor; a row a compression, as of `compared`.

    `tree` is any initrd's; the kernel must know the compressors. The plain archive is always among them. The rows of
    the boots are kept in `out`; what is in it is not booted again.
    Errors: `InvalidInput` (no such compression), those of `create` and of `run_plan`.
    """
    check_compressions(compressions)
    base = load(PLAN)
    plan = replace(
        base,
        factors={"initrd_compression": tuple(dict.fromkeys(("", *compressions)))},
        fixed={**base.fixed, "kernel": str(kernel), "memory": memory},
    )
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as folder:
        experiment = CompressionExperiment(plan, tree, Path(folder), cache=store)
        return compared(run_plan(plan, experiment, out=out, on_progress=on_progress, cancel=cancel))


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of such a study, the smallest image first, with names of their own for what is compared.

    `compression` ("none": the plain archive), `image_bytes`, `archive_bytes`, `make_s` (wall), `init_ns` (instructions)
    and `added_init_ns`, its difference from the plain archive's.
    """
    frame = rows.assign(
        compression=[level or "none" for level in rows["factor_initrd_compression"]],
        image_bytes=rows["initrd_bytes"],
        archive_bytes=rows["initrd_archive_bytes"],
        make_s=rows["initrd_make_s"],
        init_ns=rows["guest_ns_reset_to_init"],
    )
    frame["added_init_ns"] = frame["init_ns"] - frame.loc[frame["compression"] == "none", "init_ns"].iloc[0]
    return frame.sort_values("image_bytes", ignore_index=True)


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
