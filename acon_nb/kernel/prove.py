"""Proves that a kernel's bytes depend on its inputs alone: it is built again from nothing, elsewhere, and compared.

The second build has a copy of the source and a build folder in other places with names of other lengths, compiles
everything and takes nothing from ccache. Where an image differs, the first section of the kernel in it that differs is
named.
"""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from acon_nb import bzimage, process
from acon_nb.cache import Cache, require_space, sha256_file
from acon_nb.errors import AconError
from acon_nb.kernel import make, pins
from acon_nb.kernel.build import BUILD_BYTES, BuildSpec, KernelImage, build, source_of
from acon_nb.kernel.source import TREE_BYTES, SourceTree
from acon_nb.kernel.toolchain import Toolchain
from acon_nb.kernel.unpack import unpacked
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_SETUP = "the real-mode code and header"
_LOADER = "the code that unpacks the kernel"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The image as the cache has it, and the hash of the one that was built again; `difference` is "" if equal.

    Otherwise it names the first file, and the first section of it, that differs.
    """

    image: KernelImage
    sha256_again: str
    difference: str

    @property
    def text(self) -> str:
        """A sentence on the result."""
        if self.difference:
            return f"not reproducible: {self.difference} differs (built again: {self.sha256_again})"
        return "reproducible: built again from nothing in other folders, each byte is the same"


def prove(
    spec: BuildSpec,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Proof:
    """Build the kernel of `spec`, or take it from the cache, and build it again from nothing in other folders.

    Errors: those of `build`.
    """
    store = cache or Cache()
    with source_of(spec, store, on_progress, cancel) as tree:
        image = build(spec, tree=tree, cache=store, jobs=jobs, on_progress=on_progress, cancel=cancel)
        return _proved(tree, image, spec, store, jobs, on_progress, cancel)


def _proved(
    tree: SourceTree,
    image: KernelImage,
    spec: BuildSpec,
    store: Cache,
    jobs: int | None,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> Proof:
    with tempfile.TemporaryDirectory(prefix="proof-", dir=store.root) as name:
        place = Path(name)
        require_space(place, TREE_BYTES + BUILD_BYTES, "building a kernel again")
        on_progress(Progress("copy the source", None))
        again, work = place / "s", place / "build-folder-of-another-name"
        _copy(tree, again, store, cancel)
        work.mkdir()
        _build_again(replace(tree, path=again), image, spec.toolchain, work, jobs, on_progress, cancel)
        return Proof(
            image=image,
            sha256_again=sha256_file(work / "arch/x86/boot/bzImage"),
            difference=next(_differences(image, work), ""),
        )


def _copy(tree: SourceTree, target: Path, store: Cache, cancel: CancelToken | None) -> None:
    """Copy a tree; links out of it lead where they led, which a relative one would not from another place."""
    linked = ["--link"] if tree.path.is_relative_to(store.root) else ["--reflink=auto"]
    process.run(["cp", "-a", *linked, tree.path, target], cancel=cancel)
    for name in tree.files:
        path = tree.path / name
        if path.is_symlink() and not path.resolve().is_relative_to(tree.path) and (target / name).is_symlink():
            (target / name).unlink()
            (target / name).symlink_to(path.resolve())


def _build_again(
    tree: SourceTree,
    image: KernelImage,
    toolchain: Toolchain,
    work: Path,
    jobs: int | None,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> None:
    shutil.copyfile(image.config, work / ".config")
    pins.prepare(tree, work)
    log = work / "build.log"
    make.compile_image(tree, work, log, on_progress, cancel, jobs, toolchain=toolchain, afresh=True)
    make.install_modules(tree, work, work / "installed", log, cancel, toolchain=toolchain)


def _differences(image: KernelImage, work: Path) -> Iterator[str]:
    before, after = image.image.read_bytes(), (work / "arch/x86/boot/bzImage").read_bytes()
    if before != after:
        yield f"bzImage: {_section(before, after)}"
    if (work / "System.map").read_bytes() != image.image.with_name("System.map").read_bytes():
        yield "System.map"
    if image.modules is not None:
        left, right = _files(image.modules), _files(work / "installed")
        yield from (name for name in sorted({*left, *right}) if left.get(name) != right.get(name))


def _files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def _section(before: bytes, after: bytes) -> str:
    """The first part of two images that differs: a section of the kernel in them, else what surrounds it."""
    try:
        left, right = unpacked(before), unpacked(after)
    except (AconError, struct.error):
        left = right = b""
    if left != right:
        return f"section {_first_section(left, right)}"
    entry = (before[bzimage.SETUP_SECTORS] + 1) * bzimage.SECTOR_BYTES
    return _SETUP if before[:entry] != after[:entry] else _LOADER


def _first_section(left: bytes, right: bytes) -> str:
    from elftools.elf.elffile import ELFFile

    sections = [
        [
            (section.name, section.header["sh_addr"], section.data())
            for section in ELFFile(io.BytesIO(one)).iter_sections()
        ]
        for one in (left, right)
    ]
    pairs = zip(*sections, strict=False)
    return next((one[0] or "header" for one, other in pairs if one != other), "table")
