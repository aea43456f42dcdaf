"""The sample of a program's pages as a corpus: what each compressor makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.guest.programs import codec_program
from acon_nb.swap.data import ALGORITHMS
from acon_nb.swap.image.measure import MeasuredImage
from acon_nb.swap.image.observations import MeasuredProgram
from acon_nb.swap.image.pool import HUGE_BYTES, PAGE_BYTES, pool_bytes
from acon_nb.swap.levels import kernel_min_free

_HIGH_WATERMARK = 1.5  # times vm.min_free_kbytes (mm/page_alloc.c, __setup_per_zone_wmarks)


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """A sample of pages: how many, the shares that are zero or filled with one word, and ratios by compressor.

    `ratio` is that of the pages that are compressed (as mm_stat's without same_pages), a page that stays whole counted
    as one; `ratio_all` that of all pages, of which zero and filled ones take nothing; `ratio_pool` the same with the
    memory that zsmalloc takes for each. `anonymous_share` are the pages of anonymous memory, the others are of shared
    memory and of files that the program wrote. `sha256` and `path` are of the file of the compressed ones. All are of
    the time `t_ns`, when the program held `charged_bytes`.
    """

    pages: int
    compressed_pages: int
    zero_share: float
    same_share: float
    anonymous_share: float
    ratio: dict[str, float]
    ratio_all: dict[str, float]
    ratio_pool: dict[str, float]
    whole_share: dict[str, float]
    t_ns: int
    charged_bytes: int
    path: str
    sha256: str


def summary(measured: MeasuredImage, *, cache: Cache | None = None) -> CorpusSummary | None:
    """The summary of a measured image's sample; None where the program held too little for one.

    Errors: `MissingRequirement` (no compiler, no static libraries of the compressors).
    """
    sample = measured.program.sample
    if sample is None or not (pages := sample.data + sample.same + sample.zero):
        return None
    lines = process.output([codec_program(cache), measured.pages]).splitlines() if sample.data else []
    rows = [[int(word) for word in line.split()] for line in lines]
    columns = dict(zip(ALGORITHMS, zip(*rows, strict=True), strict=True)) if rows else {}
    stored = {name: [PAGE_BYTES if size >= HUGE_BYTES else size for size in sizes] for name, sizes in columns.items()}
    held = sample.anonymous_pages + sample.shared_pages + sample.file_pages
    return CorpusSummary(
        pages=pages, compressed_pages=sample.data, zero_share=sample.zero / pages, same_share=sample.same / pages,
        anonymous_share=sample.anonymous_pages / held if held else 0.0,
        ratio={name: PAGE_BYTES * len(sizes) / sum(sizes) for name, sizes in stored.items()},
        ratio_all={name: PAGE_BYTES * pages / sum(sizes) for name, sizes in stored.items()},
        ratio_pool={name: PAGE_BYTES * pages / sum(map(pool_bytes, sizes)) for name, sizes in stored.items()},
        whole_share={name: sum(size == PAGE_BYTES for size in sizes) / len(sizes) for name, sizes in stored.items()},
        t_ns=sample.t_ns, charged_bytes=sample.charged_bytes, path=str(measured.pages),
        sha256=sha256_file(measured.pages),
    )  # fmt: skip


def least_available(program: MeasuredProgram, corpus: CorpusSummary | None) -> dict[str, int]:
    """The memory in which a program gets through by arithmetic, in bytes: "none" without swap, else by compressor.

    With zram all that it holds lies in the pool at last, but for what the kernel keeps for it. Reclaim fills the pool
    also from what the kernel keeps free, up to the high watermark, and MemAvailable does not count.
    """
    least = {"none": program.peak_bytes}
    if corpus is None:
        return least
    peak = max(program.windows, key=lambda window: window.charged_bytes, default=None)
    kernel = peak.kernel_bytes if peak else 0
    for name, ratio in corpus.ratio_pool.items():
        pool = kernel + (program.peak_bytes - kernel) / ratio
        least[name] = max(0, round(pool - _HIGH_WATERMARK * kernel_min_free(round(program.base_bytes + pool))))
    return least
