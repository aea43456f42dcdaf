"""IGVM files: their measurements against an independent program, written from AMD's and Intel's documents."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.tdx.igvm import Platform, measure_igvm

PAGE, LARGE = 4096, 2 << 20
SNP, TDX = 1, 2  # compatibility masks
Header = tuple[int, bytes]


def igvm(headers: list[Header], data: bytes = b"", *, version: int = 1, changed: int = 0) -> bytes:
    """A file with these variable headers; the data follow them."""
    fixed = 24 if version == 1 else 32
    variable = b"".join(struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8) for kind, body in headers)
    total = fixed + len(variable) + len(data)
    head = struct.pack("<4sIIIII", b"IGVM", version, fixed, len(variable), total, 0)
    head += struct.pack("<II", 0, PAGE) if version == 2 else b""
    checksum = zlib.crc32(head + variable) ^ changed
    return head[:20] + struct.pack("<I", checksum) + head[24:] + variable + data


def platform(mask: int, kind: int) -> Header:
    return 1, struct.pack("<IBBHQ", mask, 0, kind, 1, 0)


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def random_file(seed: int) -> tuple[bytes, bytes, bytes]:
    """A file for both platforms, its launch digest and its MRTD."""
    dice = random.Random(seed)
    version = dice.choice((1, 2))
    headers, blobs = [platform(SNP, 2), platform(TDX, 3), platform(4, 1)], b""
    ld, td = bytes(48), hashlib.sha384()

    def info(kind: int, gpa: int, content: bytes) -> None:
        nonlocal ld
        ld = sha384(ld + content + bytes((0x70, 0, kind)) + bytes(5) + gpa.to_bytes(8, "little"))

    def add(gpa: int, page: bytes | None) -> None:
        td.update(b"MEM.PAGE.ADD" + bytes(4) + gpa.to_bytes(8, "little") + bytes(104))
        for start in range(0, PAGE, 256) if page is not None else ():
            td.update(b"MR.EXTEND" + bytes(7) + (gpa + start).to_bytes(8, "little") + bytes(104))
            td.update(page[start : start + 256])  # type: ignore[index]

    areas = [dice.choice((1, 3)) for _ in range(3)]
    headers += [(0x301, struct.pack("<QII", count * PAGE, number, 0)) for number, count in enumerate(areas)]
    pages = dice.randrange(1, 12)
    base = 24 + 8 * (version == 2) + 3 * 24 + 3 * 24 + pages * 32 + len(areas) * 24 + 32
    for _ in range(pages):
        mask, gpa = dice.choice((SNP, TDX, SNP | TDX, 4)), dice.randrange(1 << 30) * PAGE
        kind = 0 if mask & TDX else dice.choice((0, 1, 2, 3))
        unmeasured, zero = kind == 0 and dice.random() < 0.3, dice.random() < 0.3
        page = bytes(PAGE) if zero else dice.randbytes(PAGE)
        place = 0 if zero else base + len(blobs)
        blobs += b"" if zero else page
        headers.append((0x302, struct.pack("<QIIIHH", gpa, mask, place, 2 * unmeasured, kind, 0)))
        if mask & SNP:
            if kind == 0:
                info(4 if unmeasured else 1, gpa, bytes(48) if unmeasured else sha384(page))
            else:
                info(5 if kind == 1 else 6, gpa, bytes(48))
        if mask & TDX:
            add(gpa, None if unmeasured else page)
    for number, count in enumerate(areas):
        gpa = dice.randrange(1 << 30) * PAGE
        headers.append((0x303, struct.pack("<QII", gpa, SNP | TDX, number)))
        for offset in range(count):
            info(4, gpa + offset * PAGE, bytes(48))
            add(gpa + offset * PAGE, None)
    vmsa = dice.randbytes(PAGE)
    headers.append((0x304, struct.pack("<QIIHH", 0xFFFFFFFFF000, SNP, base + len(blobs), 0, 0)))
    info(2, 0xFFFFFFFFF000, sha384(vmsa))
    raw = igvm(headers, blobs + vmsa, version=version)
    assert len(raw) == base + len(blobs) + PAGE
    return raw, ld, td.digest()


def test_random_files_measure_what_an_independent_program_says(tmp_path: Path) -> None:
    path = tmp_path / "guest.igvm"
    for seed in range(200):
        raw, launch_digest, mrtd = random_file(seed)
        path.write_bytes(raw)
        found = {row.platform: row.digest for row in measure_igvm(path)}
        assert found == {Platform.SEV_SNP: launch_digest, Platform.TDX: mrtd}


def test_a_large_page_is_measured_as_its_small_ones(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(LARGE)
    raw = igvm([platform(SNP, 2), (0x302, struct.pack("<QIIIHH", LARGE, SNP, 80, 1, 0, 0))], data)
    (tmp_path / "a").write_bytes(raw)
    headers, parts = [platform(SNP, 2)], LARGE // PAGE
    base = 24 + 24 + parts * 32
    headers += [(0x302, struct.pack("<QIIIHH", LARGE + n * PAGE, SNP, base + n * PAGE, 0, 0, 0)) for n in range(parts)]
    (tmp_path / "b").write_bytes(igvm(headers, data))
    (first,), (second,) = measure_igvm(tmp_path / "a"), measure_igvm(tmp_path / "b")
    assert first.digest == second.digest
    assert first.measured_pages == first.pages == parts


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not an IGVM file"),
        (igvm([platform(1, 1)]), "neither for SEV-SNP nor for TDX"),
        (igvm([platform(SNP, 2)], changed=1), "wrong checksum"),
        (igvm([platform(SNP, 2)], version=9), "version that is not known"),
        (igvm([platform(SNP, 2), (0x302, b"short")]), "too short"),
        (igvm([platform(SNP, 2), (0x302, struct.pack("<QIIIHH", 0, SNP, 80, 0, 0, 0))], b"cut"), "no data of its page"),
        (igvm([platform(SNP, 2), (0x302, struct.pack("<QIIIHH", 0, SNP, 0, 0, 9, 0))]), "unknown type 9"),
        (igvm([platform(TDX, 3), (0x302, struct.pack("<QIIIHH", 0, TDX, 0, 0, 1, 0))]), "a TD does not know"),
        (
            igvm(
                [platform(SNP, 2), (0x301, struct.pack("<QII", 1 << 60, 0, 0)), (0x303, struct.pack("<QII", 0, SNP, 0))]
            ),
            "more pages",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, raw: bytes, words: str) -> None:
    (tmp_path / "guest.igvm").write_bytes(raw)
    with pytest.raises(InvalidInput, match=words):
        measure_igvm(tmp_path / "guest.igvm")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 20), st.integers(24, 400), st.integers(0, 255))
def test_no_damage_is_measured_as_something_else(
    tmp_path_factory: pytest.TempPathFactory, seed: int, place: int, value: int
) -> None:
    raw = bytearray(random_file(seed)[0])
    end = struct.unpack_from("<I", raw, 8)[0] + struct.unpack_from("<I", raw, 12)[0]
    if place >= end or raw[place] == value:
        return
    raw[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.igvm"
    path.write_bytes(raw)
    with pytest.raises(InvalidInput, match="wrong checksum"):
        measure_igvm(path)


def test_the_command_prints_both(tmp_path: Path) -> None:
    raw, launch_digest, mrtd = random_file(3)
    path = tmp_path / "guest.igvm"
    path.write_bytes(raw)
    result = CliRunner().invoke(main, ["measure", "igvm", str(path)])
    assert result.exit_code == 0, result.output
    assert launch_digest.hex() in result.output
    assert mrtd.hex() in result.output
    result = CliRunner().invoke(main, ["measure", "igvm", str(path), "--json"])
    assert [row["platform"] for row in json.loads(result.output)] == ["SEV_SNP", "TDX"]
    assert CliRunner().invoke(main, ["measure", "igvm", str(tmp_path)]).exit_code == 4
