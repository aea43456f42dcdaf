"""Pages made to compress like a corpus: for each of its pages the sizes that lzo, lz4 and zstd make of it are met.

A page is literals, drawn from an alphabet, and copies of what came before. lz4 keeps literals as they are, so their
number sets its size; zstd codes them by their entropy, so the alphabet sets its size; copies of three bytes are
literals to lz4, which copies four or more, and not to lzo. All three are found for each page by measuring and
correcting. `corpora.json` holds the sizes of 256 pages of each corpus; how close the pages come is in docs/swap.md.
"""

from __future__ import annotations

import functools
import json
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.guest.programs import codec_program

PAGE_BYTES = 4096
_TABLE = Path(__file__).with_name("corpora.json")
_ROUNDS = 14
_CLOSE = 0.015
_LITERALS_A_COPY = 40
_VERSION = 2

Sizes = Sequence[int]  # lzo, lz4, zstd


@dataclass
class _Page:
    """A page on its way: the sizes to meet, the three parameters, and the best so far."""

    target: Sizes
    seed: int
    literals: float
    bits: float
    short: float = 0.0
    best: bytes = b""
    error: float = math.inf

    def correct(self, data: bytes, sizes: Sizes) -> None:
        """Keep `data` if it is the best, and move the parameters by what it misses."""
        lzo, lz4, zstd = (got / want for got, want in zip(sizes, self.target, strict=True))
        error = abs(lz4 - 1) + abs(zstd - 1) + abs(lzo - 1)
        if error < self.error:
            self.best, self.error = data, error
        self.literals = min(float(PAGE_BYTES), max(16.0, self.literals / lz4))
        self.bits = min(8.0, max(0.5, self.bits * lz4 / zstd))
        self.short = min(1.0, max(0.0, self.short + (lzo - lz4)))


@functools.cache
def profiles() -> Mapping[str, Sequence[Sizes]]:
    """The corpora that can be imitated, each with the sizes of its pages."""
    table: Mapping[str, Sequence[Sizes]] = json.loads(_TABLE.read_text())["corpora"]
    return table


def version() -> str:
    """What the pages of a profile depend on."""
    return f"{_VERSION} {sha256_file(_TABLE)}"


def pages(profile: str, count: int, draw: random.Random, *, cache: Cache | None = None) -> list[bytes]:
    """`count` pages like those of a corpus. Errors: `MissingRequirement` (no static codecs)."""
    sizes = profiles()[profile]
    made = [_start(sizes[number * len(sizes) // count], draw) for number in range(count)]
    for _ in range(_ROUNDS):
        left = [page for page in made if page.error > _CLOSE]
        if not left:
            break
        texts = [_compose(page) for page in left]
        for page, text, got in zip(left, texts, _measure(texts, cache), strict=True):
            page.correct(text, got)
    return [page.best for page in made]


def _start(target: Sizes, draw: random.Random) -> _Page:
    _, lz4, zstd = target
    if lz4 >= PAGE_BYTES <= zstd:
        return _Page(target=target, seed=0, literals=0, bits=0, best=draw.randbytes(PAGE_BYTES), error=0)
    bits = min(8.0, max(1.0, 8 * zstd / lz4))
    return _Page(target=target, seed=draw.getrandbits(32), literals=float(lz4), bits=bits)


def _compose(page: _Page) -> bytes:
    """Runs of literals, each followed by a copy of earlier bytes, until the page is full."""
    draw = random.Random(page.seed)
    literals, pieces = round(page.literals), page.target[1] // _LITERALS_A_COPY + 1
    pool = _literals(literals, page.bits, page.short, draw)
    copied = PAGE_BYTES - literals
    out = bytearray()
    for piece in range(pieces):
        out += pool[piece * literals // pieces : (piece + 1) * literals // pieces]
        length = (piece + 1) * copied // pieces - piece * copied // pieces
        start = draw.randrange(len(out) - length) if len(out) > length else 0
        source = bytes(out[start : start + length]) or b"\0"
        out += (source * (length // len(source) + 1))[:length]
    return bytes(out)


def _literals(count: int, bits: float, short: float, draw: random.Random) -> bytes:
    """Bytes of an alphabet of 2^bits; a share `short` of them in copies of three bytes."""
    size = 2**bits
    letters = [draw.randrange(256) for _ in range(math.ceil(size))]
    weights = [1.0] * (len(letters) - 1) + [size - math.floor(size) or 1.0]
    pool = bytearray(draw.choices(letters, weights, k=count))
    for place in range(48, count - 4, 4):
        if draw.random() < short:
            start = draw.randrange(max(0, place - 1000), place - 3)
            pool[place : place + 3] = pool[start : start + 3]
    return bytes(pool)


def _measure(texts: Sequence[bytes], cache: Cache | None) -> list[list[int]]:
    """The sizes that the codecs make of pages."""
    with tempfile.NamedTemporaryFile(prefix="acon-nb-") as file:
        file.write(b"".join(texts))
        file.flush()
        lines = process.output([codec_program(cache), Path(file.name)]).splitlines()
    return [[int(word) for word in line.split()] for line in lines]
