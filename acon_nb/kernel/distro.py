"""A distribution's own kernel, taken from its package: the image, its modules, and what they depend on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb import debian
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import AconError, InvalidInput
from acon_nb.progress import OnProgress, silent

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True, kw_only=True)
class DistroKernel:
    """A packaged kernel: bzImage, release, SHA-256, and the folder of its modules."""

    image: Path
    version: str
    sha256: str
    modules: Path


def debian_kernel(
    package: str = "linux-image-cloud-amd64", *, cache: Cache | None = None, on_progress: OnProgress = silent
) -> DistroKernel:
    """The kernel of a Debian package, or of the package that a meta package names. Nothing is installed."""
    found = debian.find(package)
    images = [name for name in found.depends if re.fullmatch(r"linux-image-\d.*", name)]
    name = images[0] if images else package
    _, artifact = debian.unpack(name, cache=cache or Cache(), on_progress=on_progress)
    root = artifact.path / "root"
    image = next(iter(sorted((root / "boot").glob("vmlinuz-*"))), None)
    if image is None:
        raise InvalidInput("package", package, "holds no kernel", hint="such as linux-image-cloud-amd64")
    version = image.name.removeprefix("vmlinuz-")
    return DistroKernel(image=image, version=version, sha256=sha256_file(image), modules=root / "lib/modules" / version)


def module_closure(kernel: DistroKernel, names: Sequence[str]) -> tuple[Path, ...]:
    """The module files for `names` and all that they depend on, each after what it needs.

    Read from the modules' own `depends=` (.modinfo), since the package has no modules.dep before it is installed.
    A name without a file is taken for built in. Errors: `AconError` for a module that is compressed.
    """
    files = {_normal(path.name.split(".ko")[0]): path for path in kernel.modules.rglob("*.ko*")}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        path = files.get(_normal(name))
        if path is None or _normal(name) in ordered:
            return
        if path.suffix != ".ko":
            raise AconError(f"{path.name} is compressed", hint="kernels with compressed modules are not supported here")
        match = _DEPENDS.search(path.read_bytes())
        for needed in match.group(1).decode().split(",") if match else ():
            add(needed)
        ordered[_normal(name)] = path

    for name in names:
        add(name)
    return tuple(ordered.values())


def _normal(name: str) -> str:
    return name.replace("-", "_")
