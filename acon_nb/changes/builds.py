"""Kernels of commits: built in one checkout and one build folder, so that a commit's build compiles what it changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.kernel import BuildSpec, KernelImage
from acon_nb.kernel.features import patches as profile_patches
from acon_nb.kernel.git.checkout import checked_out
from acon_nb.kernel.git.repository import Repository
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.validation import words


def with_options(build: BuildSpec, profile: str, settings: Sequence[str], config: Path | None) -> BuildSpec:
    """The options of a kernel with a user's own: `profile` (names with commas) and `config` take the place of its."""
    if profile or config is not None:
        build = replace(build, profiles=words(profile), config=config)
    return replace(build, settings=(*build.settings, *settings))


@dataclass(frozen=True, kw_only=True)
class CommitBuilds:
    """Builds kernels of a repository's commits with the options of `spec`; its source does not count.

    A kernel is cached by the commit's tree of files, the patches, the options and the compiler.
    """

    repository: Repository
    spec: BuildSpec
    cache: Cache
    jobs: int | None = None

    def image(
        self,
        commit: str,
        *,
        patches: Sequence[Path] = (),
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> KernelImage:
        """The kernel of a commit, with `patches` after those of the profiles.

        Errors: those of `checked_out` and of `kernel.build`.
        """
        every = (*profile_patches(self.spec.profiles), *self.spec.patches, *patches)
        with checked_out(
            self.repository, commit, patches=every, cache=self.cache, on_progress=on_progress, cancel=cancel
        ) as tree:
            return kernel.build(
                self.spec, tree=tree, cache=self.cache, jobs=self.jobs, on_progress=on_progress, cancel=cancel
            )
