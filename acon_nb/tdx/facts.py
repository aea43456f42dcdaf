"""What of a boot's inputs a stored prediction keeps, so that drifted inputs can be searched without the files."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.tdx.firmware import SectionType
from acon_nb.tdx.hob import below_4g_bytes
from acon_nb.tdx.inputs import Material
from acon_nb.tdx.kernel_image import authenticode, patched

MIB, GIB = 1 << 20, 1 << 30
# Sizes that guests are given; below 2816 MiB each has its own address of the initrd, above they share one.
MEMORY_SIZES = tuple(
    sorted(
        {*(n * 256 * MIB for n in range(1, 11)), *(n * GIB for n in (3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48))}
    )
) + tuple(n * GIB for n in (64, 80, 96, 100, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 768, 1024, 1536, 2048))
UNCHANGED = "unchanged"
_DIRECTORY = {0x10B: 128, 0x20B: 144}  # offset of the entry of the certificate table in the optional header
_LIMIT = 1_000


@dataclass(frozen=True, kw_only=True)
class BootFacts:
    """The command line, the memory, where the firmware has its TD HOB, and the kernel's hashes.

    `hob` is the place of the TD HOB (address, bytes), `accepted` the ranges that are accepted memory. `kernels` has the
    hash of the unchanged kernel under `UNCHANGED`, and under each size of the memory below 4 GiB that of the kernel as
    QEMU changes it.
    """

    append: str
    memory_bytes: int
    hob: tuple[int, int]
    accepted: tuple[tuple[int, int], ...]
    kernels: Mapping[str, bytes]

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return {
            "append": self.append,
            "memory_bytes": self.memory_bytes,
            "hob": list(self.hob),
            "accepted": [list(each) for each in self.accepted],
            "kernels": {name: value.hex() for name, value in self.kernels.items()},
        }


def facts_of(material: Material) -> BootFacts | None:
    """Return the facts of a boot whose files were read; None if its firmware has no TD HOB."""
    firmware = material.firmware
    section = next(iter(firmware.of(SectionType.TD_HOB)), None)
    if section is None:
        return None
    accepted = firmware.of(SectionType.TD_HOB, SectionType.TEMP_MEM)
    return BootFacts(
        append=material.inputs.append,
        memory_bytes=material.inputs.memory_bytes,
        hob=(section.address, section.memory_bytes),
        accepted=tuple((part.address, part.memory_bytes) for part in accepted),
        kernels={UNCHANGED: material.kernel_digest, **_patched(material)},
    )


def facts_of_json(data: Any) -> BootFacts | None:
    """Read what `BootFacts.as_json` wrote, which is not trusted. Errors: `ValueError`, `TypeError`, `KeyError`."""
    if data is None:
        return None
    kernels = {str(name): bytes.fromhex(value) for name, value in data["kernels"].items()}
    if len(kernels) > _LIMIT or any(len(value) != 48 for value in kernels.values()):
        raise ValueError("the kernel's hashes are invalid")
    if not isinstance(data["append"], str) or len(data["append"]) > 4096:
        raise ValueError("the command line is invalid")
    return BootFacts(
        append=data["append"],
        memory_bytes=_number(data["memory_bytes"]),
        hob=_range(data["hob"]),
        accepted=tuple(map(_range, data["accepted"][:_LIMIT])),
        kernels=kernels,
    )


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 52:
        raise ValueError("a size or an address is invalid")
    return value


def _range(value: Any) -> tuple[int, int]:
    start, size = value
    return _number(start), _number(size)


def _patched(material: Material) -> dict[str, bytes]:
    """The kernel's hash as QEMU changes it, for each memory size that matters. The first is checked against LIEF's."""
    inputs, kernel = material.inputs, material.kernel
    if material.uki is not None:  # a UKI has no header that QEMU would change
        return {}
    sizes = {below_4g_bytes(inputs.memory_bytes)}
    if material.initrd_bytes is not None:
        sizes |= {below_4g_bytes(size) for size in MEMORY_SIZES}
    images = {}
    for low in sorted(sizes):
        try:
            images[str(low)] = patched(kernel, inputs.append, material.initrd_bytes, low)
        except InvalidInput:  # too small for the initrd
            continue
    if _hash(kernel.image) != material.kernel_digest:
        return {low: authenticode(image, kernel.path) for low, image in images.items()}
    with ThreadPoolExecutor(2, thread_name_prefix="acon-hash") as pool:
        return dict(zip(images, pool.map(_hash, images.values()), strict=True))


def _hash(image: bytes) -> bytes:
    """The Authenticode hash of a PE image whose sections follow each other: used only if LIEF agrees on one of them.

    LIEF takes several times as long, and there are a dozen images that differ in eight bytes.
    """
    (header,) = struct.unpack_from("<I", image, 0x3C)
    if header + 0x100 > len(image):
        return b""
    checksum = header + 24 + 64
    directory = header + 24 + _DIRECTORY.get(struct.unpack_from("<H", image, header + 24)[0], 144)
    table, size = struct.unpack_from("<II", image, directory)
    view = memoryview(image)
    state = hashlib.sha384(view[:checksum])
    state.update(view[checksum + 4 : directory])
    state.update(view[directory + 8 : table if size else len(image)])
    if size:
        state.update(view[table + size :])
    elif len(image) % 8:
        state.update(bytes(-len(image) % 8))
    return state.digest()
