"""Any file and any process as data: what is refused, what is sampled, what codecs make of it."""

from __future__ import annotations

import mmap
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.cache import Cache
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.swap import SwapFactors, page_sample
from acon_nb.swap.data import page_file, parse_mix

PAGE = page_sample.PAGE_BYTES


def planted(path: Path, *, zero: int, same: int, data: int) -> Path:
    draw = random.Random(3)
    pages = [bytes(PAGE)] * zero + [b"\1\2\3\4\5\6\7\0" * (PAGE // 8)] * same
    pages += [draw.randbytes(PAGE // 2) + bytes(PAGE // 2) for _ in range(data)]
    draw.shuffle(pages)
    path.write_bytes(b"".join(pages) + b"a page that is not whole")
    return path


def test_statistics_of_a_planted_file(tmp_path: Path) -> None:
    one = page_sample.statistics_of_file(planted(tmp_path / "dump", zero=300, same=100, data=600))
    assert (one.pages, one.sampled) == (1000, 1000)
    assert (one.zero_share, one.same_share) == (0.3, 0.1)
    assert one.ratio["lz4"] == pytest.approx(2, rel=0.03)
    assert one.ratio["zstd:15"] >= one.ratio["zstd:1"] * 0.99
    assert one.entropy_bits == pytest.approx(0.1 * 3 + 0.6 * 4.95, rel=0.05)


def test_a_mix_takes_a_files_pages_and_their_kinds(tmp_path: Path) -> None:
    path = planted(tmp_path / "my+dump:7", zero=512, same=256, data=256)
    data = page_file(parse_mix(f"file:{path}"), cache=Cache(tmp_path / "cache")).read_bytes()
    kinds = data[1024 * PAGE :]
    assert sorted(kinds.decode()) == sorted("z" * 512 + "s" * 256 + "d" * 256)
    mixed = parse_mix(f"file:{path}:3+zero:1").counts()
    assert mixed == {f"file:{path}": 768, "zero": 256}
    first = page_file(parse_mix(f"file:{path}:3+zero:1"), cache=Cache(tmp_path / "cache"))
    path.write_bytes(os.urandom(PAGE * 1024))
    assert page_file(parse_mix(f"file:{path}:3+zero:1"), cache=Cache(tmp_path / "cache")) != first


@pytest.mark.parametrize(("kind", "reason"), [
    ("none", "No such file"), ("folder", "is not a regular file"), ("empty", "is empty"), ("small", "is too small"),
    ("huge", "is too large"), ("fifo", "is not a regular file"),
])  # fmt: skip
def test_a_file_that_cannot_be_data_is_refused_before_anything_starts(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "none":
        with path.open("wb") as file:
            file.truncate({"empty": 0, "small": 5 * PAGE, "huge": 1 << 40}[kind])
    with pytest.raises(InvalidInput, match=reason) as error:
        SwapFactors(data=f"zero+file:{path}:5")
    assert error.value.field == "data"


def test_a_process_is_sampled_into_a_file_that_its_owner_alone_reads(tmp_path: Path) -> None:
    code = (
        "import mmap, sys\n"
        "kinds = (mmap.MAP_PRIVATE, mmap.MAP_SHARED)\n"
        "own, shared = (mmap.mmap(-1, 400 * 4096, flags=kind | mmap.MAP_ANONYMOUS) for kind in kinds)\n"
        "untouched = mmap.mmap(-1, 1 << 30)\n"
        "for area, letter in ((own, b'o'), (shared, b's')):\n"
        "    for page in range(400):\n"
        "        area[page * 4096:(page + 1) * 4096] = (b'%c%06d' % (letter, page)) * 585 + b'x'\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        done = CliRunner().invoke(main, ["bench", "corpora", "--pid", str(child.pid), "--out", str(tmp_path)])
        assert child.stdin is not None
        child.stdin.close()
    path = tmp_path / f"pid-{child.pid}.pages"
    assert done.exit_code == 0, done.output
    assert str(path) in done.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    pages = {path.read_bytes()[start : start + 7] for start in range(0, path.stat().st_size, mmap.PAGESIZE)}
    assert len({page for page in pages if page.startswith((b"o0", b"s0"))}) == 800
    assert path.stat().st_size < 64 << 20


def test_a_process_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a running process"):
        page_sample.dump_process(1 << 30, tmp_path)
