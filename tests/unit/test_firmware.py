from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.tdx import Firmware, find_firmware, read_firmware

FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
TDX_METADATA = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
OTHER = uuid.uuid4().bytes_le
SIZE = 64 << 10


def entry(guid: bytes, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + guid


def image(*, boot_at: int = SIZE // 2, boot_size: int = SIZE // 2, guid: bytes = TDX_METADATA) -> bytearray:
    """A TDVF of 64 KiB: two sections, a boot firmware volume (type 0) and a configuration volume (type 1)."""
    sections = struct.pack("<IIQQII", boot_at, boot_size, 1 << 32, boot_size, 0, 1)
    sections += struct.pack("<IIQQII", 0, SIZE // 2, 0, SIZE // 2, 1, 0)
    descriptor = b"TDVF" + struct.pack("<III", 16 + len(sections), 1, 2) + sections
    start = SIZE - 2048
    entries = entry(OTHER, b"sev") + entry(guid, struct.pack("<I", SIZE - start)) + entry(OTHER, b"reset block")
    table = entries + struct.pack("<H", len(entries) + 18) + FOOTER
    raw = bytearray(SIZE)
    raw[start : start + len(descriptor)] = descriptor
    raw[SIZE - 32 - len(table) : SIZE - 32] = table
    return raw


def read(folder: Path, raw: bytes) -> Firmware:
    path = folder / "OVMF.fd"
    path.write_bytes(raw)
    return read_firmware(path)


def test_a_whole_tdvf(tmp_path: Path) -> None:
    found = read(tmp_path, image())
    assert (found.tdx_metadata, found.whole, found.why, found.bytes) == (True, True, "", SIZE)


def test_a_split_image_is_recognised(tmp_path: Path) -> None:
    found = read(tmp_path, image(boot_at=SIZE))
    assert (found.tdx_metadata, found.whole) == (True, False)
    assert "split" in found.why


def test_a_firmware_without_tdx_is_recognised(tmp_path: Path) -> None:
    for raw in (image(guid=OTHER), bytearray(SIZE), b"", b"x" * 40):
        found = read(tmp_path, raw)
        assert (found.tdx_metadata, found.whole, found.why) == (False, False, "no TDX metadata")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (SIZE - 2048, b"XXXX"),
        (SIZE - 2048 + 12, struct.pack("<I", 0)),
        (SIZE - 2048 + 12, struct.pack("<I", 0xFFFFFFFF)),
        (SIZE - 32 - 18 - 18 - 11 - 18 - 4, struct.pack("<I", 0xFFFFFFFF)),
        (SIZE - 32 - 18 - 18 - 11 - 18 - 4, struct.pack("<I", 3)),
    ],
)
def test_a_damaged_descriptor_is_reported(tmp_path: Path, place: int, value: bytes) -> None:
    raw = image()
    raw[place : place + 4] = value
    found = read(tmp_path, raw)
    assert not found.tdx_metadata
    assert "damaged" in found.why


@pytest.mark.parametrize("length", [0, 17, 0xFFFF])
def test_a_damaged_table_is_not_followed(tmp_path: Path, length: int) -> None:
    for place in (SIZE - 32 - 18, SIZE - 32 - 18 - 18):
        raw = image()
        raw[place : place + 2] = struct.pack("<H", length)
        assert not read(tmp_path, raw).tdx_metadata


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    assert "too large" in read_firmware(tmp_path / "huge").why


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2100), st.binary(min_size=1, max_size=4)), max_size=6),
    st.one_of(st.just(0), st.integers(0, SIZE)),
)
def test_no_damage_makes_it_fail(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], cut: int
) -> None:
    raw = image()
    for place, value in changes:
        raw[SIZE - 2100 + place : SIZE - 2100 + place + len(value)] = value
    found = read(tmp_path_factory.mktemp("firmware"), raw[cut:])
    assert found.tdx_metadata or not found.whole


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_looked_at_safely(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    ended = raw + struct.pack("<H", len(raw) + 18) + FOOTER + bytes(32)
    for data in (raw, ended):
        assert not read(tmp_path_factory.mktemp("firmware"), data).whole


def test_the_images_of_this_host_are_named_once() -> None:
    found = find_firmware()
    assert len({item.path.resolve() for item in found}) == len(found)
