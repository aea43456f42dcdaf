"""Unpacks the kernel that a bzImage holds."""

from __future__ import annotations

import io
import struct

from acon_nb import bzimage
from acon_nb.archive.decompress import compression_of, decompressed

_LENGTH_BYTES = 4  # the size of the unpacked kernel, behind all streams but gzip's


def unpacked(image: bytes) -> bytes:
    """The kernel that a bzImage holds; empty for what is too short to be one, or a compression that is not understood.

    Errors: `TreeError` for damaged data, `struct.error` for a bzImage that is cut.
    """
    if len(image) < bzimage.HEADER_BYTES:
        return b""
    entry = (image[bzimage.SETUP_SECTORS] + 1) * bzimage.SECTOR_BYTES
    start, size = struct.unpack_from("<II", image, bzimage.PAYLOAD)
    payload = image[entry + start : entry + start + size]
    name = compression_of(payload[:8])
    if not name:
        return b""
    payload = payload if name == "gz" else payload[:-_LENGTH_BYTES]
    return b"".join(decompressed(io.BytesIO(payload), name, "the kernel"))
