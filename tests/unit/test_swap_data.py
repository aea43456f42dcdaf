"""The data of swap cells: corpora, pages like them, mixes; and their ratios beside those of other programs."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from acon_nb.cache import Cache
from acon_nb.errors import AconError, InvalidInput
from acon_nb.swap import corpora, data, synthetic


def test_a_mix_has_its_shares_of_pages() -> None:
    counts = data.parse_mix("like-redis:80+zero:15+random:5").counts()
    assert sum(counts.values()) == data.PAGES
    assert counts["zero"] == pytest.approx(0.15 * data.PAGES, abs=1)
    assert data.parse_mix("redis").counts() == {"redis": data.PAGES}
    thirds = data.parse_mix("redis+python+compiler").counts()
    assert sum(thirds.values()) == data.PAGES


@pytest.mark.parametrize("text", ["", "x", "redis:", "redis+redis", "redis:-1", "zero:0", "redis ; rm", "REDIS"])
def test_what_is_no_mix_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        data.parse_mix(text)


def test_a_page_file_says_what_each_page_is_and_its_ratios_leave_the_trivial_out() -> None:
    store = Cache()
    path = data.page_file(data.parse_mix("random:50+zero:25+same:25"), cache=store)
    raw = path.read_bytes()
    assert len(raw) == data.PAGES * 4097
    kinds = raw[data.PAGES * 4096 :].decode()
    assert (kinds.count("d"), kinds.count("z"), kinds.count("s")) == (512, 256, 256)
    found = data.ratios(path, cache=store)
    assert found.pages == 512
    assert found.ratio["lz4"] == pytest.approx(1.0, abs=0.01)
    assert found.whole_share["zstd"] == 1.0


@pytest.mark.parametrize("profile", ["redis", "files"])
def test_synthetic_pages_meet_a_corpus_in_mean_and_spread(profile: str, tmp_path: Path) -> None:
    pages = synthetic.pages(profile, 128, random.Random(3))
    (tmp_path / "pages").write_bytes(b"".join(pages))
    made, wanted = data.corpus_ratios(tmp_path / "pages"), data.ratios_of(synthetic.profiles()[profile])
    for name in ("lz4", "zstd"):
        assert made.ratio[name] == pytest.approx(wanted.ratio[name], rel=0.02)
        assert made.deviation[name] == pytest.approx(wanted.deviation[name], rel=0.15)
    assert made.ratio["lzo"] == pytest.approx(wanted.ratio["lzo"], rel=0.08)


def test_ratios_are_those_of_the_libraries_own_bindings(tmp_path: Path) -> None:
    """Within 2 % of zstandard's and lz4's Python bindings, page by page (other builds of the same libraries)."""
    import lz4.block
    import numpy as np
    import zstandard

    library = max(Path(np.__file__).parent.rglob("*.so"), key=lambda path: path.stat().st_size)
    pages = corpora.chosen("here", corpora.pages_of(library.read_bytes()))
    (tmp_path / "pages").write_bytes(pages)
    found = data.corpus_ratios(tmp_path / "pages")
    cut = [pages[start : start + 4096] for start in range(0, len(pages), 4096)]
    zstd = zstandard.ZstdCompressor(level=3, write_content_size=False)
    theirs = {
        "lz4": sum(min(4096, len(lz4.block.compress(page, store_size=False))) for page in cut),
        "zstd": sum(min(4096, len(zstd.compress(page))) for page in cut),
    }
    for name, size in theirs.items():
        assert found.ratio[name] == pytest.approx(len(pages) / size, rel=0.02)


def test_the_memory_of_a_process_is_read_without_what_it_maps_from_files() -> None:
    code = "import sys; data = [str(i).encode() * 400 for i in range(4000)]; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        pages = list(corpora.memory_pages(child.pid))
        child.kill()
    whole = b"".join(pages)
    assert b"3999399939993999" in whole
    assert b"\x7fELF\x02\x01\x01" not in whole[:4096]


def test_a_corpus_that_would_be_too_small_or_is_none_is_refused() -> None:
    with pytest.raises(AconError, match="fewer than 1024"):
        corpora.chosen("x", iter([b"a" * 4096, bytes(range(256)) * 16]))
    with pytest.raises(InvalidInput):
        corpora.build("../x")
    with pytest.raises(InvalidInput):
        corpora.forget("../x")
