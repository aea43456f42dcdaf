"""Checks whether an initrd boots with a kernel and an amount of memory; verdicts are cached by content."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from acon_nb.archive import segments
from acon_nb.archive.rootfs import CpioMember, Rootfs
from acon_nb.archive.segments import UnpackedInitrd
from acon_nb.archive.tree import Content, FileTree, ImageLimits
from acon_nb.bootcheck import kernel as kernels
from acon_nb.cache import Cache, json_sha256, sha256_file
from acon_nb.errors import AconError, InvalidInput, TreeError
from acon_nb.initrd import gen_init, tree_of
from acon_nb.initrd.check import (
    NO_KERNEL,
    BootFinding,
    BootVerdict,
    Image,
    Kernel,
    Memory,
    Severity,
    Start,
    judge,
    verdict,
)
from acon_nb.units import format_bytes
from acon_nb.validation import Meta, check_fields
from acon_nb.vm.spec import GUIDE_APPEND, VmSpec, least_memory_bytes

_JUDGE = 2  # of cached verdicts: a change of the check changes it
_KIND = "initrd-check"
_KEPT = 100
_HEADER_BYTES = 114  # of newc, with the name's end and padding
_MOST_WARNINGS = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckSpec:
    """An initrd to check: `image` is a file, or an image source from which `initrd from` would make one.

    `kernel` is a bzImage (None: what every usual kernel has is assumed, and the rest is unknown), `append` the kernel
    command line. `firmware` and `td` are as in `VmSpec`; `force` is as in `gen_init`, for an image source.
    Errors: `InvalidInput` at construction.
    """

    image: str
    kernel: Path | None = None
    memory_bytes: Annotated[int, Meta(gt=0)] = 2 << 30
    append: str = GUIDE_APPEND
    firmware: bool = True
    td: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.image:
            raise InvalidInput("image", "", "is empty", hint="give an initrd, or an image as for initrd from")

    @property
    def path(self) -> Path | None:
        """The file of the initrd; None for an image source. Errors: `InvalidInput` for a file that does not exist."""
        path = Path(self.image).expanduser()
        if path.is_file():
            return path
        if self.image.startswith(("/", "./", "../", "~")) or path.suffix in _SUFFIXES:
            raise InvalidInput(
                "image", self.image, "is not a file", hint="give an initrd, or an image as for initrd from"
            )
        return None

    @classmethod
    def of_guest(cls, spec: VmSpec) -> CheckSpec | None:
        """Return what there is to check before a guest is launched; None without an initrd."""
        if spec.initrd is None:
            return None
        return cls(
            image=str(spec.initrd.absolute()),
            kernel=spec.kernel,
            memory_bytes=spec.memory_bytes,
            append=spec.append,
            firmware=spec.firmware is not None,
            td=spec.td is not None,
        )


_SUFFIXES = (".cpio", ".img", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzma")


def check(spec: CheckSpec, *, cache: Cache | None = None, **options: Any) -> BootVerdict:
    """Return whether a guest boots, and the findings. `options` are those of `tree_of`, for an image source.

    The verdict on a file is kept in the cache, by the contents of initrd and kernel.
    Errors: `InvalidInput` (no such file, kernel or image), those of `tree_of`.
    """
    store = cache or Cache()
    path = spec.path
    limits = options.get("limits") or ImageLimits()
    kernel = NO_KERNEL if spec.kernel is None else kernels.read(spec.kernel, cache=store)
    if path is None:
        tree = tree_of(spec.image, cache=store, **options)
        gen_init(tree, force=spec.force)
        return _judged(spec, kernel, lambda: _image_of_tree(tree, limits))
    inputs = {
        "judge": _JUDGE,
        "initrd": sha256_file(path),
        "kernel": None if spec.kernel is None else sha256_file(spec.kernel),
        "options": json_sha256(kernel.options),
        "limits": asdict(limits),
        **{name: value for name, value in asdict(spec).items() if name not in ("image", "kernel")},
    }

    def make(folder: Path) -> None:
        answer = _judged(spec, kernel, lambda: _image_of_file(path, limits))
        (folder / "verdict.json").write_text(json.dumps(as_json(answer)))

    artifact = store.get(_KIND, inputs, make)
    if not artifact.cached:
        store.keep_recent(_KIND, _KEPT)
    return _of_json(json.loads((artifact.path / "verdict.json").read_text()))


def as_json(answer: BootVerdict) -> dict[str, Any]:
    """Return a verdict as `acon-nb initrd check --json` prints it."""
    return {"boots": answer.boots, "findings": [asdict(finding) for finding in answer.findings]}


def summary(answer: BootVerdict) -> str:
    """Return a verdict in words."""
    words = {True: "it boots", False: "it does not boot", None: "whether it boots cannot be known"}
    return words[answer.boots]


def _of_json(data: Mapping[str, Any]) -> BootVerdict:
    findings = (BootFinding(**{**row, "severity": Severity(row["severity"])}) for row in data["findings"])
    return verdict(findings)


def _judged(spec: CheckSpec, kernel: Kernel, read: Callable[[], Image]) -> BootVerdict:
    try:
        image = read()
    except TreeError as error:
        what = f"the image cannot be read: {error.what}"
        why = "it is damaged, hostile, or over a limit"
        return verdict([BootFinding(severity=Severity.UNKNOWN, what=what, why=why, fix=error.hint)])
    memory = Memory(bytes=spec.memory_bytes, firmware=spec.firmware, td=spec.td)
    answer = judge(image, Start.of(spec.append), kernel, memory)
    least = 0 if spec.kernel is None else least_memory_bytes(spec.kernel, image.packed_bytes, firmware=spec.firmware)
    if spec.memory_bytes >= least:
        return answer
    why = f"{format_bytes(spec.memory_bytes)} of memory cannot hold them even before the initrd is unpacked"
    what = "the kernel and its initrd do not fit"
    fix = f"give at least {-(-least // (1 << 20))}M"
    return verdict([BootFinding(severity=Severity.ERROR, what=what, why=why, fix=fix), *answer.findings])


def _image_of_file(path: Path, limits: ImageLimits) -> Image:
    size = path.stat().st_size

    def read(count: int) -> UnpackedInitrd:
        return segments.read(Content(size=count, path=path), path.name, limits)

    return Image(packed_bytes=size, unpacked=read(size), read=read)


def _image_of_tree(tree: FileTree, limits: ImageLimits) -> Image:
    """The image that `initrd from` would make of a tree, not compressed, as the kernel unpacks it."""
    root = Rootfs(limits)
    numbers: dict[object, int] = {}
    packed_bytes = 0
    for name, entry in tree.items():
        key = name if entry.inode is None else entry.inode
        content = Content.of(b"") if key in numbers else entry.content  # hard links are stored once
        number = numbers.setdefault(key, len(numbers) + 1)
        root.count(name, content.size)
        root.add(
            CpioMember(
                name=name,
                mode=entry.mode,
                uid=entry.uid,
                gid=entry.gid,
                links=1 if entry.inode is None else 2,
                mtime=entry.mtime,
                identity=(number, 0, 0),
                device=entry.device,
                content=content,
            )
        )
        packed_bytes += _HEADER_BYTES + len(name) + content.size
    members = tuple(name for name, _ in tree.items())
    unpacked = UnpackedInitrd(segments=(), tree=root.tree(), problem=None, members=members)
    return Image(packed_bytes=packed_bytes, unpacked=unpacked, read=lambda _: unpacked)


class Background:
    """A check that runs while a guest is launched, so as never to delay it."""

    def __init__(self, spec: VmSpec, *, cache: Cache | None = None) -> None:
        self._verdict: BootVerdict | None = None
        wanted = CheckSpec.of_guest(spec)
        self._thread = threading.Thread(target=self._run, args=(wanted, cache), name="initrd-check", daemon=True)
        self._thread.start()

    def warnings(self, timeout_s: float | None = None) -> list[str] | None:
        """Wait for the check and return what a user should know, one per line; None if it takes longer."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return None
        return [] if self._verdict is None else warnings_of(self._verdict)

    def _run(self, spec: CheckSpec | None, cache: Cache | None) -> None:
        if spec is None:
            return
        try:
            self._verdict = check(spec, cache=cache)
        except (AconError, OSError):  # the launch itself will say what is wrong
            _log.debug("the initrd cannot be checked", exc_info=True)


def warnings_of(answer: BootVerdict) -> list[str]:
    """Return the errors and warnings of a verdict, one per line; of many warnings the first few."""
    lines = [one.line for one in answer.findings if one.severity is Severity.ERROR]
    if answer.boots is False:
        lines.insert(0, "the guest will not boot, or not as meant:")
    rest = [one.line for one in answer.findings if one.severity is Severity.WARNING]
    lines += rest[:_MOST_WARNINGS]
    if len(rest) > _MOST_WARNINGS:
        lines.append(f"{len(rest) - _MOST_WARNINGS} more: acon-nb initrd check")
    return lines
