"""What the memory of a swap cell holds: pages of real memory, pages like them, zero, same-filled, random; mixes.

A cell's data are 1,024 pages of 4 KiB in a file of the initrd, each with a letter for its kind (d data, z zero, s
same-filled). The guest writes them over and over, stamped with each page's number and checksum.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.guest.programs import codec_program
from acon_nb.progress import OnProgress, silent
from acon_nb.swap import corpora, page_sample, synthetic

PAGE_BYTES = 4096
_DICTIONARY_BYTES = 64 << 10  # lz4's window
PAGES = 1024
ALGORITHMS = ("lzo", "lz4", "zstd")
_PLAIN = ("zero", "same", "random")
_PART = re.compile(r"([a-z-]+)(?::(\d{1,6}))?")
_SEED = 20240229  # the order of the pages and the random ones: the same in every study


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Data of several parts: (name, weight), by their shares of pages."""

    parts: tuple[tuple[str, int], ...]

    def counts(self) -> dict[str, int]:
        """How many of the 1,024 pages each part gets (largest remainders)."""
        total = sum(weight for _, weight in self.parts)
        exact = {name: PAGES * weight / total for name, weight in self.parts}
        counts = {name: int(value) for name, value in exact.items()}
        rest = sorted(exact, key=lambda name: counts[name] - exact[name])[: PAGES - sum(counts.values())]
        return {name: count + (name in rest) for name, count in counts.items()}


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """What each algorithm makes of the pages, one by one: ratio of sizes, its spread over pages, pages left whole.

    Zero and same-filled pages are not compressed by the kernel, and not counted here.
    """

    ratio: dict[str, float]
    deviation: dict[str, float]
    whole_share: dict[str, float]
    pages: int
    sha256: str = ""


def names() -> tuple[str, ...]:
    """The parts that a mix may have."""
    return (*corpora.NAMES, *(f"like-{name}" for name in synthetic.profiles()), *_PLAIN)


def parse_mix(text: str) -> Mix:
    """The mix of "PART[:WEIGHT]+PART[:WEIGHT]...", such as "redis:80+zero:20". Errors: `InvalidInput`."""
    parts: dict[str, int] = {}
    for word in _split(text):
        if word.startswith(page_sample.PREFIX):
            name, weight = _file_part(word)
            if name in parts:
                raise InvalidInput("data", text, f"names {name} twice", hint="give each part one weight")
            parts[name] = weight
            continue
        match = _PART.fullmatch(word.strip())
        if match is None or match[1] not in names():
            hint = f"PART[:WEIGHT]+..., parts: {', '.join(names())}, file:PATH"
            raise InvalidInput("data", text, f"has an invalid part: {word.strip()!r}", hint=hint)
        if match[1] in parts:
            raise InvalidInput("data", text, f"names {match[1]} twice", hint="give each part one weight")
        parts[match[1]] = int(match[2] or 1)
    if not sum(parts.values()):
        raise InvalidInput("data", text, "has no part with a weight", hint="such as redis:80+zero:20")
    return Mix(parts=tuple(parts.items()))


def _split(text: str) -> list[str]:
    """The parts of a mix: a path may have a + of its own."""
    known = "|".join([*map(re.escape, names()), re.escape(page_sample.PREFIX)])
    return re.split(rf"\+(?=\s*(?:{known}))", text) if page_sample.PREFIX in text else text.split("+")


def _file_part(word: str) -> tuple[str, int]:
    """The name of a part file:PATH[:WEIGHT] and its weight. Errors: `InvalidInput` for a file that cannot be data."""
    path, colon, weight = word.rpartition(":")
    weighted = bool(colon) and path != page_sample.PREFIX[:-1] and re.fullmatch(r"\d{1,6}", weight) is not None
    name = path if weighted and not _path_of(word).exists() else word
    page_sample.check_file(_path_of(name))
    return name, int(weight) if name == path else 1


def _path_of(name: str) -> Path:
    return Path(name.removeprefix(page_sample.PREFIX)).expanduser()


def page_file(mix: Mix, *, cache: Cache | None = None, on_progress: OnProgress = silent) -> Path:
    """The file of a mix: 1,024 pages, then 1,024 letters; cached by content.

    Errors: those of building a corpus (`corpora.build`).
    """
    store = cache or Cache()
    counts = mix.counts()
    used = {name: corpora.build(name, cache=store, on_progress=on_progress) for name in counts if name in corpora.NAMES}
    files = {name: sha256_file(_path_of(name)) for name in counts if name.startswith(page_sample.PREFIX)}
    inputs = {
        "counts": {files.get(name, name): count for name, count in counts.items()},
        "corpora": {name: sha256_file(path) for name, path in used.items()},
        "synthetic": synthetic.version(),
    }

    def make(folder: Path) -> None:
        draw = random.Random(_SEED)
        pages = [page for name, count in counts.items() for page in _pages(name, count, used.get(name), draw, store)]
        draw.shuffle(pages)
        data = b"".join(page for _, page in pages) + "".join(kind for kind, _ in pages).encode()
        (folder / "pages").write_bytes(data)

    return store.get("swap-pages", inputs, make).path / "pages"


def ratios(pages: Path, *, cache: Cache | None = None) -> Ratios:
    """The ratios of a page file, by the codecs' own libraries on this host. Errors: `MissingRequirement`."""
    data = pages.read_bytes()
    kinds = data[PAGES * PAGE_BYTES :].decode()
    lines = process.output([codec_program(cache), pages]).splitlines()
    rows = [[int(word) for word in line.split()] for line, kind in zip(lines, kinds, strict=False) if kind == "d"]
    return dataclasses.replace(ratios_of(rows), sha256=sha256_file(pages))


def corpus_ratios(corpus: Path, *, cache: Cache | None = None) -> Ratios:
    """The ratios of a corpus' file."""
    lines = process.output([codec_program(cache), corpus]).splitlines()
    ratios = ratios_of([[int(word) for word in line.split()] for line in lines])
    return dataclasses.replace(ratios, sha256=sha256_file(corpus))


def ratios_of(rows: Sequence[Sequence[int]]) -> Ratios:
    """The ratios of pages whose compressed sizes (lzo, lz4, zstd) are `rows`."""
    import statistics

    columns = dict(zip(ALGORITHMS, zip(*rows, strict=True), strict=True)) if rows else {}
    return Ratios(
        ratio={name: PAGE_BYTES * len(sizes) / sum(sizes) for name, sizes in columns.items()},
        deviation={name: statistics.pstdev(size / PAGE_BYTES for size in sizes) for name, sizes in columns.items()},
        whole_share={name: sum(size >= PAGE_BYTES for size in sizes) / len(sizes) for name, sizes in columns.items()},
        pages=len(rows),
    )


def _pages(name: str, count: int, corpus: Path | None, draw: random.Random, cache: Cache) -> list[tuple[str, bytes]]:
    """The pages of one part, with their kinds."""
    if name.startswith(page_sample.PREFIX):
        pages = page_sample.sample_file(_path_of(name), count) if count else []
        return [(page_sample.kind_of(page), page) for page in pages]
    if corpus is not None:
        data = corpus.read_bytes()
        have = len(data) // PAGE_BYTES
        places = [number * have // count for number in range(count)] if count else []
        return [("d", data[place * PAGE_BYTES :][:PAGE_BYTES]) for place in places]
    if name.startswith("like-"):
        return [("d", page) for page in synthetic.pages(name.removeprefix("like-"), count, draw, cache=cache)]
    if name == "random":
        return [("d", draw.randbytes(PAGE_BYTES)) for _ in range(count)]
    return [(name[0], bytes(PAGE_BYTES)) for _ in range(count)]


def dictionary(text: str, *, cache: Cache | None = None, on_progress: OnProgress = silent) -> bytes:
    """A compressor's dictionary: the first pages of a mix, as they are; empty for "" (none). Errors: `InvalidInput`."""
    if not text:
        return b""
    return page_file(parse_mix(text), cache=cache, on_progress=on_progress).read_bytes()[:_DICTIONARY_BYTES]
