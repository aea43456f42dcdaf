"""The knobs of reclaim, huge pages and DAMON that a cell sets, and what is refused of them by name."""

from __future__ import annotations

from acon_nb.errors import InvalidInput
from acon_nb.swap.levels import Levels
from acon_nb.units import parse_bytes, parse_ns

MTHP_KIB = (16, 32, 64, 128, 256, 512, 1024, 2048)  # sizes of huge pages on x86 that anonymous memory may have
DAMON = ("damon_min_age", "damon_quota", "damon_interval", "damon_watermarks")
_PERMILLE = 1000


def check(levels: Levels) -> None:
    """Check the factors of reclaim against each other. Errors: `InvalidInput` that names the factor."""
    if levels.lru_min_ttl_ms and not levels.lru_gen:
        reason = "is the multi-generational LRU's"
        raise InvalidInput("lru_min_ttl_ms", levels.lru_min_ttl_ms, reason, hint="set lru_gen, too")
    for name in DAMON:
        if getattr(levels, name) and not levels.damon_reclaim:
            hint = f"set damon_reclaim, or omit {name}"
            raise InvalidInput(name, getattr(levels, name), "is for damon_reclaim", hint=hint)
    _ = damon_knobs(levels), mthp_knobs(levels)


def knobs_of(levels: Levels) -> dict[str, object]:
    """The knobs of these factors with their values, under the names of knobs.toml; None for what is left as it is."""
    return {
        "watermark_scale_factor": levels.watermark_scale_factor or None,
        "watermark_boost_factor": None if levels.watermark_boost_factor < 0 else levels.watermark_boost_factor,
        "vfs_cache_pressure": None if levels.vfs_cache_pressure < 0 else levels.vfs_cache_pressure,
        "lru_min_ttl_ms": levels.lru_min_ttl_ms or None,
        "thp": levels.thp or None,
        "thp_defrag": levels.thp_defrag or None,
        "thp_shmem": levels.thp_shmem or None,
        **mthp_knobs(levels),
        **damon_knobs(levels),
    }


def is_watched(levels: Levels) -> bool:
    """Whether a guest counts huge pages by size and what DAMON reclaimed: where a cell sets any of their knobs."""
    return bool(levels.thp or levels.thp_shmem or levels.mthp or levels.mthp_shmem or levels.damon_reclaim)


def mthp_knobs(levels: Levels) -> dict[str, str]:
    """Each size of huge pages: always for those named, never for the others. Errors: `InvalidInput`."""
    knobs: dict[str, str] = {}
    for name in ("mthp", "mthp_shmem"):
        text = getattr(levels, name)
        if not text:
            continue
        sizes = [parse_bytes(part, field=name, bare="K") >> 10 for part in text.split("+")]
        for size in sizes:
            if size not in MTHP_KIB:
                hint = f"of {', '.join(f'{one}K' for one in MTHP_KIB)}, joined by +"
                raise InvalidInput(name, text, "has a size that huge pages do not have", hint=hint)
        knobs |= {f"{name}_{size}": "always" if size in sizes else "never" for size in MTHP_KIB}
    return knobs


def damon_knobs(levels: Levels) -> dict[str, str]:
    """DAMON_RECLAIM's parameters, switched on last. Errors: `InvalidInput`."""
    if not levels.damon_reclaim:
        return {}
    knobs: dict[str, str] = {}
    if levels.damon_min_age:
        knobs["damon_min_age"] = str(parse_ns(levels.damon_min_age, field="damon_min_age") // 1000)
    if levels.damon_quota:
        knobs["damon_quota"] = str(parse_bytes(levels.damon_quota, field="damon_quota", bare="M"))
    if levels.damon_interval:
        knobs["damon_interval"] = str(parse_ns(levels.damon_interval, field="damon_interval") // 1000)
    if levels.damon_watermarks:
        marks = _watermarks(levels.damon_watermarks)
        knobs |= {f"damon_{name}": str(mark) for name, mark in zip(("high", "mid", "low"), marks, strict=True)}
    return {**knobs, "damon_reclaim": "Y"}


def _watermarks(text: str) -> list[int]:
    parts = text.split("+")
    marks = [int(part) for part in parts if part.isdecimal()]
    if len(parts) != 3 or len(marks) != 3 or not _PERMILLE >= marks[0] >= marks[1] >= marks[2]:
        hint = "high+mid+low, thousandths of the memory that are free, from the most to the least: 500+400+200"
        raise InvalidInput("damon_watermarks", text, "is not three watermarks", hint=hint)
    return marks
