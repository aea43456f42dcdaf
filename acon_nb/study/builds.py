"""Builds the kernels that the cells of a study need, each once; a failed build affects only the cells that use it."""

from __future__ import annotations

from pathlib import Path

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.errors import AconError, BuildFailed, KernelConfigError
from acon_nb.progress import CancelToken, OnProgress


class Builds:
    """`unbuilt` holds, by label, the cells whose kernel could not be built, with the reason."""

    def __init__(self, store: Cache) -> None:
        self._store = store
        self._images: dict[kernel.BuildSpec, Path] = {}
        self._failed: dict[kernel.BuildSpec, BuildFailed | KernelConfigError] = {}
        self.unbuilt: dict[str, AconError] = {}

    def image(
        self,
        label: str,
        spec: kernel.BuildSpec,
        *,
        jobs: int | None,
        on_progress: OnProgress,
        cancel: CancelToken | None,
    ) -> Path | None:
        """Return the bzImage of the cell `label`; None if it cannot be built: the cell is then in `unbuilt`.

        Errors: those of `kernel.build` that are not the fault of this kernel (invalid input, a missing compiler, a
        cancel).
        """
        if spec not in self._images and spec not in self._failed:
            try:
                built = kernel.build(spec, cache=self._store, jobs=jobs, on_progress=on_progress, cancel=cancel)
                self._images[spec] = built.image
            except (BuildFailed, KernelConfigError) as error:
                self._failed[spec] = error
        if spec in self._failed:
            self.unbuilt[label] = self._failed[spec]
        return self._images.get(spec)

    def check(self, cells: int) -> None:
        """Raise the first failure if none of the `cells` cells can run."""
        if self.unbuilt and len(self.unbuilt) == cells:
            raise next(iter(self.unbuilt.values()))
