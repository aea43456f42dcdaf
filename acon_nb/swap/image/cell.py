"""The part of a swap cell's guest that is an image: its tree, and how its program is run."""

from __future__ import annotations

from pathlib import Path

from acon_nb.archive.tree import FileTree
from acon_nb.cache import Cache, sha256_file
from acon_nb.initrd import join
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.image import archive as images
from acon_nb.swap.image.running import running_of
from acon_nb.swap.program import Program, archive, program_of, words_of

_RUNNER = ("/acon/image_run", "run")


class CellPrograms:
    """The archives of the programs of a study's cells; an image is read once."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._images: dict[str, tuple[FileTree, images.ImageArchive]] = {}

    def of(
        self, factors: SwapFactors, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
    ) -> Path | None:
        """The archive of a cell's program, with its image if it has one; None for another workload.

        Errors: those of `initrd.tree_of`; `InvalidInput` for a user whom the image does not have.
        """
        if factors.workload != "program":
            return None
        program = program_of(factors)
        if not factors.image:
            return archive(program, cache=self._cache)
        if factors.image not in self._images:
            tree = images.tree(factors.image, cache=self._cache, on_progress=on_progress, cancel=cancel)
            self._images[factors.image] = (tree, images.pack(tree, cache=self._cache))
        tree, packed = self._images[factors.image]
        running = running_of(
            tree, argv=program.argv, environment=program.environment, driver=words_of("driver", factors.driver),
            ready=factors.ready, for_ns=program.limit_ns,
        )  # fmt: skip
        run = archive(Program(argv=_RUNNER), more={"run": running.description()}, cache=self._cache)
        inputs = {"parts": [sha256_file(run), sha256_file(packed.path)]}
        joined = self._cache.get("swap-cell", inputs, lambda folder: _join(run, packed.path, folder))
        return joined.path / "cell.cpio"


def _join(run: Path, image: Path, folder: Path) -> None:
    join((run, image), folder / "cell.cpio")
