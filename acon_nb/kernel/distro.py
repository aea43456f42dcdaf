"""Takes a distribution's kernel from its packages: the image, its modules, and their dependencies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import AconError, InvalidInput
from acon_nb.host import apt, apt_suites
from acon_nb.kernel.build import KernelImage
from acon_nb.progress import OnProgress, silent
from acon_nb.validation import did_you_mean

_DECOMPRESSORS = {".xz": ("xz", "-dc"), ".zst": ("zstd", "-dcq"), ".gz": ("gzip", "-dc")}
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_MODULE = re.compile(r"(.+)\.ko(\.\w+)?")
# Packages that a kernel's own package depends on and that have a part of it. Debian 12 and 13 have all in one; Debian
# 14 has the image in linux-binary-*, modules in linux-modules-*, their lists in linux-base-*; Ubuntu modules apart.
_PART = re.compile(r"linux-(image|binary|base|modules|modules-extra)-(unsigned-)?\d.*(?<!-dbg)")
_PARTS_LIMIT = 16
_BUILT_IN = "modules.builtin"
_AGAIN = "give another package, such as linux-image-cloud-amd64; or empty the cache's folder debian and try again"


@dataclass(frozen=True, kw_only=True)
class DistroKernel:
    """A packaged kernel: bzImage, release, SHA-256, and the folders of its modules, one for each package that has any.

    Errors: `AconError` at construction if a folder is missing or none has a list of what is built in.
    """

    image: Path
    version: str
    sha256: str
    modules: tuple[Path, ...]

    def __post_init__(self) -> None:
        for folder in self.modules:
            if not folder.is_dir():
                raise AconError(
                    f"the modules of kernel {self.version} are missing: {folder} is not a folder", hint=_AGAIN
                )
        if not any((folder / _BUILT_IN).is_file() for folder in self.modules):
            folders = ", ".join(map(str, self.modules)) or "no folder"
            raise AconError(f"the packages of kernel {self.version} have no {_BUILT_IN} ({folders})", hint=_AGAIN)

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """The file of each module, compressed or not, by the module's name (with "_" for "-")."""
        paths = sorted(path for folder in self.modules for path in folder.rglob("*.ko*"))
        matches = [(path, _MODULE.fullmatch(path.name)) for path in paths]
        return {_normal(match[1]): path for path, match in matches if match}

    @cached_property
    def built_in(self) -> frozenset[str]:
        """The names of the modules that are part of the image."""
        lists = [folder / _BUILT_IN for folder in self.modules if (folder / _BUILT_IN).is_file()]
        lines = [line for path in lists for line in path.read_text().split()]
        return frozenset(_normal(line.rpartition("/")[2].removesuffix(".ko")) for line in lines)


def debian_kernel(
    package: str = "linux-image-cloud-amd64", *, cache: Cache | None = None, on_progress: OnProgress = silent
) -> DistroKernel:
    """Get the kernel of a Debian package, or of the packages that it depends on. Nothing is installed.

    NAME@SUITE is a package of a suite that this host does not use (`apt_suites`).
    Errors: `InvalidInput` for a package without a kernel, `AconError` if its modules are not found.
    """
    store = cache or Cache()
    name, _, suite = package.partition("@")
    lists = apt_suites.lists_of(suite, store, on_progress) if suite else apt.HOST
    parts = [apt.unpack(one, lists, cache=store, on_progress=on_progress) for one in _parts(name, lists)]
    images = {version: path for part in parts for version, path in _images(part)}
    if len(images) != 1:
        count = f"contains {len(images)} kernels" if images else "contains no kernel"
        raise InvalidInput("package", package, count, hint="such as linux-image-cloud-amd64")
    version, image = images.popitem()
    folders = [folder for part in parts if (folder := part.find(f"lib/modules/{version}")) is not None]
    return DistroKernel(image=image, version=version, sha256=sha256_file(image), modules=tuple(folders))


def built_kernel(image: KernelImage) -> DistroKernel:
    """Return a kernel that was built here as `module_closure` takes it. Errors: `InvalidInput` if it has no modules."""
    if image.modules is None:
        hint = "build it with --modules and an option that is m"
        raise InvalidInput("kernel", image.image, "was built without modules", hint=hint)
    folders = (image.modules / "lib/modules" / image.version,)
    return DistroKernel(image=image.image, version=image.version, sha256=image.sha256, modules=folders)


def _images(part: apt.Unpacked) -> Iterator[tuple[str, Path]]:
    """The kernels of a package by release: next to their modules since Debian 14, in boot before."""
    if (folder := part.find("lib/modules")) is not None:
        yield from ((path.parent.name, path) for path in folder.glob("*/vmlinuz"))
    yield from ((path.name.removeprefix("vmlinuz-"), path) for path in (part.root / "boot").glob("vmlinuz-*"))


def _parts(package: str, lists: apt.Lists) -> Iterator[str]:
    """The packages that a kernel consists of: the given one, and those that it depends on."""
    names = [package]
    for name in names:
        yield name
        names += [needed for needed in apt.find(name, lists).depends if _PART.fullmatch(needed) and needed not in names]
        if len(names) > _PARTS_LIMIT:
            raise InvalidInput("package", package, f"depends on more than {_PARTS_LIMIT} packages of kernels")


def module_closure(kernel: DistroKernel, names: Sequence[str], *, cache: Cache | None = None) -> tuple[Path, ...]:
    """Return the module files for `names` and all their dependencies, each after those it depends on.

    Dependencies come from the modules' own `depends=` (.modinfo), since a package has no modules.dep before it is
    installed. Compressed modules (Debian 13 and later, Ubuntu) are decompressed into the cache, so a guest can load
    them whatever its kernel can decompress. What is built in has no file.
    Errors: `InvalidInput` for a name that is neither a module of this kernel nor built in, `AconError` for an unknown
    compression and for a file that is not a module.
    """
    store = cache or Cache()
    ordered: dict[str, Path] = {}
    begun: set[str] = set()

    def add(name: str, needed_by: str) -> None:
        packed = kernel.files.get(name)
        if name in begun or (packed is None and name in kernel.built_in):
            return
        if packed is None:
            raise _unknown(kernel, name, needed_by)
        begun.add(name)
        path = _decompressed(packed, store)
        for needed in _dependencies(path):
            add(needed, name)
        ordered[name] = path

    for name in names:
        add(_normal(name), "")
    return tuple(ordered.values())


def _unknown(kernel: DistroKernel, name: str, needed_by: str) -> AconError:
    if needed_by:
        what = f"module {needed_by} of kernel {kernel.version} depends on {name}, which its packages do not have"
        return AconError(what, hint=_AGAIN)
    has = f"it has {len(kernel.files)} modules and {len(kernel.built_in)} built in"
    near = did_you_mean(name, {*kernel.files, *kernel.built_in}, most=3)
    return InvalidInput(
        "modules", name, f"is neither a module of kernel {kernel.version} nor built in: {has}", hint=near
    )


def _dependencies(module: Path) -> list[str]:
    match = _DEPENDS.search(module.read_bytes())
    if match is None:
        raise AconError(f"{module.name} is not a kernel module: it does not say what it depends on", hint=_AGAIN)
    return [_normal(name) for name in match[1].decode("ascii", "replace").split(",") if name]


def _decompressed(path: Path, store: Cache) -> Path:
    if path.suffix == ".ko":
        return path
    if path.suffix not in _DECOMPRESSORS:
        raise AconError(f"{path.name} has an unknown compression", hint="supported are .xz, .zst and .gz")

    def make(folder: Path) -> None:
        (folder / path.stem).write_bytes(process.run_bytes([*_DECOMPRESSORS[path.suffix], path], timeout_s=60))

    return store.get("module", {"name": path.name, "sha256": sha256_file(path)}, make).path / path.stem


def _normal(name: str) -> str:
    """A module's name as the kernel knows it: file names and users write "-" for "_"."""
    return name.replace("-", "_")
