"""The header of a bzImage."""

from __future__ import annotations

import pytest

from acon_nb import bzimage


def header(flag: bytes = b"\x55\xaa", magic: bytes = b"HdrS", length: int = bzimage.HEADER_BYTES) -> bytes:
    raw = bytearray(bzimage.HEADER_BYTES)
    raw[bzimage.BOOT_FLAG : bzimage.JUMP] = flag
    raw[bzimage.MAGIC : bzimage.PROTOCOL] = magic
    return bytes(raw[:length])


def test_a_header_with_boot_flag_and_magic_is_a_bzimage() -> None:
    assert bzimage.is_bzimage(header())
    assert bzimage.is_bzimage(header() + bytes(1000))


@pytest.mark.parametrize("head", [b"", header(flag=b"\0\0"), header(magic=b"HdrT"), header(length=0x267), b"MZ" * 400])
def test_other_files_are_not(head: bytes) -> None:
    assert not bzimage.is_bzimage(head)
