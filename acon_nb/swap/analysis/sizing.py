"""How large zram, or zswap's pool, should be: a balance of memory that is fitted to a study's guests, with its error.

With a working set W, A of memory available and data that the pool makes e times smaller, what lies in the swap is

    S = (W - (1 - a) A) / (1 - 1 / e)        RAM: the rest of W and S / e must fit into (1 - a) A
    e = k r                                  r: the codec's ratio, page by page; k: what the allocator leaves of it

as long as S <= W: from W / ((1 - a) A) = e on zram is full of all of W, and nothing is left that could give way.
zswap's pool is at most f of its limit; what it does not hold is on the disk, and S = W - (1 - a) A + pool. a, k and f
are fitted to the cells of a study (medians of their seeds); the error is that of each cell by a fit without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.errors import InvalidInput
from acon_nb.swap.analysis.outcomes import GuestResult
from acon_nb.swap.analysis.rows import Counted
from acon_nb.swap.data import parse_mix

if TYPE_CHECKING:
    import pandas as pd

MOST_ERROR = 0.15  # a model that is farther off for any cell gives no number
LEAST_CELLS = 4
_LIBRARY = {"lzo": "lzo", "lzo-rle": "lzo", "lz4": "lz4", "zstd": "zstd"}
_UNIFORM = ("zero", "same")  # parts of a mix that take no memory in a pool
_START, _LOWEST, _HIGHEST = (0.9, 0.05, 0.85), (0.4, -0.4, 0.3), (1.5, 0.6, 1.3)
_WORKLOADS = ("tmpfs", "anon", "redis")


@dataclass(frozen=True, kw_only=True)
class SizedCell:
    """A cell's guests, medians over its seeds, in bytes.

    `ratio` is the codec's on the data, `limit` that of zswap's pool (0: zram).
    """

    name: str
    ratio: float
    working_set: float
    available: float
    limit: float
    used: float
    pool: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a model says of a guest: the bytes in the swap, and of RAM in the pool."""

    used: float
    pool: float


@dataclass(frozen=True, kw_only=True)
class SizeModel:
    """The balance of the module's docstring, with its fitted parameters."""

    allocator: float  # k
    reserve: float  # a
    filled: float  # f

    def full_at(self, ratio: float) -> float:
        """The working set over the available memory from which on all of it lies in zram."""
        return max(1.0, self.allocator * ratio) * (1 - self.reserve)

    def size(self, ratio: float, working_set: float, available: float, limit: float = 0.0) -> Size:
        """The size of zram (`limit` 0), or of zswap's pool with that limit."""
        held = self.allocator * ratio
        usable = available * (1 - self.reserve)
        missing = working_set - usable
        if missing <= 0:
            return Size(used=0.0, pool=0.0)
        used = min(working_set, missing / (1 - 1 / held)) if held > 1 else working_set
        pool = used / held
        if limit and pool > self.filled * limit:
            pool = self.filled * limit
            used = min(working_set, missing + pool)
        return Size(used=used, pool=pool)


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """A fitted model and its errors: by cell, the larger of those of swap and pool by a fit to the other cells.

    `left_out` says which cells have no part in it, and why.
    """

    model: SizeModel
    errors: Mapping[str, float]
    cells: tuple[SizedCell, ...]
    memory_per_available: float
    left_out: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """The largest error of any cell."""
        return max(self.errors.values())

    @property
    def holds(self) -> bool:
        """Whether the model may give a number."""
        return self.error <= MOST_ERROR

    def table(self, ratios: Sequence[float], pressures: Sequence[float]) -> pd.DataFrame:
        """Sizes by compressibility and pressure, as shares; no rows where the model does not hold.

        Columns: ratio, pressure, zram_size (of the available memory: what lies in it), zram_ram (of the available
        memory: what it takes), full (all of the working set lies in it: nothing could give way), zswap_pool_percent (of
        the guest's memory: the least max_pool_percent with which nothing goes to the disk; nan: none).
        """
        import pandas as pd

        columns = ("ratio", "pressure", "zram_size", "zram_ram", "full", "zswap_pool_percent")
        records = [self._record(ratio, pressure) for ratio in ratios for pressure in pressures] if self.holds else []
        return pd.DataFrame(records, columns=columns)

    def _record(self, ratio: float, pressure: float) -> dict[str, Any]:
        size = self.model.size(ratio, pressure, 1.0)
        is_full = pressure > self.model.full_at(ratio)
        percent = 100 * size.pool / self.model.filled / self.memory_per_available
        return {
            "ratio": ratio,
            "pressure": pressure,
            "zram_size": size.used,
            "zram_ram": size.pool,
            "full": is_full,
            "zswap_pool_percent": math.nan if is_full or percent > 100 else percent,
        }

    def sentences(self) -> list[str]:
        """The model, its error, and what had no part in it."""
        worst = max(self.errors, key=lambda name: self.errors[name])
        model = self.model
        lines = [
            f"Fitted to {len(self.cells)} cells: k = {model.allocator:.2f} (the pool's ratio over the codec's), "
            f"a = {model.reserve:.2f} (of the available memory, not usable), f = {model.filled:.2f} (of zswap's limit, "
            "filled).",
            f"Each cell by a fit to the others: at most {100 * self.error:.0f} % off ({worst}), "
            f"in the median {100 * _median(list(self.errors.values())):.0f} %.",
        ]
        if not self.holds:
            lines.append(
                f"More than {100 * MOST_ERROR:.0f} %: no size is given. The balance of memory that was tried is in "
                "docs/swap-sizing.md; measure cells of your own data and pressure in place of it."
            )
        return [*lines, *self.left_out]


def sizing(rows: Counted) -> Sizing:
    """Fit the model to the cells of a study with zram or zswap whose guests ended well.

    Errors: `InvalidInput` for fewer than four such cells.
    """
    cells, left_out = _cells(rows)
    if len(cells) < LEAST_CELLS:
        hint = f"a study with {LEAST_CELLS} or more cells of zram and zswap that end well, such as the plan sizing"
        raise InvalidInput("study", len(cells), "is too few cells for a model with three parameters", hint=hint)
    errors = {cell.name: _error(_fit([other for other in cells if other is not cell]), cell) for cell in cells}
    memory = rows.frame["memory_bytes"].astype(float) / rows.frame["memavailable_start_bytes"].astype(float)
    return Sizing(
        model=_fit(cells),
        errors=errors,
        cells=tuple(cells),
        memory_per_available=float(memory.median()),
        left_out=tuple(left_out),
    )


def _fit(cells: Sequence[SizedCell]) -> SizeModel:
    """The parameters with the least squares of the logarithms of swap and pool."""
    from scipy.optimize import least_squares

    def residuals(values: Any, /) -> list[float]:
        model = _model(values)
        return [one for cell in cells for one in _logs(model, cell)]

    return _model(least_squares(residuals, _START, bounds=(_LOWEST, _HIGHEST), diff_step=(1e-4,) * 3).x)


def _model(values: Any) -> SizeModel:
    allocator, reserve, filled = map(float, values)
    return SizeModel(allocator=allocator, reserve=reserve, filled=filled)


def _logs(model: SizeModel, cell: SizedCell) -> tuple[float, float]:
    size = model.size(cell.ratio, cell.working_set, cell.available, cell.limit)
    least = 1e-3 * cell.available
    return math.log(max(size.used, least) / cell.used), math.log(max(size.pool, least) / cell.pool)


def _error(model: SizeModel, cell: SizedCell) -> float:
    """The larger error of swap and pool, as a share of what was measured."""
    return max(abs(math.expm1(one)) for one in _logs(model, cell))


def _cells(rows: Counted) -> tuple[list[SizedCell], list[str]]:
    cells, left_out = [], []
    for name, part in rows.frame.groupby(["choice", "situation"], sort=False):
        choice, situation = map(str, name)
        label = ", ".join(filter(None, (choice, situation)))
        row = part.iloc[0].to_dict()
        if row["factor_swap"] not in ("zram", "zswap"):
            continue
        why = _unfit(part)
        if why:
            left_out.append(f"Left out: {label}: {why}.")
            continue
        is_zswap = row["factor_swap"] == "zswap"
        limit = float(row["memory_bytes"]) * float(row["factor_pool_percent"]) / 100 if is_zswap else 0.0
        cells.append(
            SizedCell(
                name=label,
                ratio=_ratio(row),
                working_set=_held(part),
                available=float(part["memavailable_start_bytes"].median()),
                limit=limit,
                used=float(part["swap_used_bytes"].median()),
                pool=float(part["pool_bytes"].median()),
            )
        )
    return cells, left_out


def _unfit(part: pd.DataFrame) -> str:
    """Why a cell has no part in the model, or ""."""
    row = part.iloc[0].to_dict()
    needed = ("memory_bytes", "memavailable_start_bytes", "swap_used_bytes", "pool_bytes")
    if not (part["result"] == GuestResult.WELL).all():
        return "a guest ended badly, so its sizes are those of the moment"
    if row["factor_workload"] not in _WORKLOADS:
        return f"the working set of workload={row['factor_workload']} is not all memory that can be swapped"
    if any(name not in part or part[name].isna().any() or (part[name] <= 0).any() for name in needed):
        return "nothing lies in its pool"
    if "limit_bytes" in part and part["limit_bytes"].notna().any():
        return "its workload has a limit of its own"
    if row.get("factor_zram_writeback") or row.get("factor_zram_limit") or row.get("factor_zram_recompressor"):
        return "its zram is written back, limited or recompressed"
    if not math.isfinite(_ratio(row)):
        return "the ratio of its compressor is not measured before the boot"
    return ""


def _ratio(row: Mapping[Any, Any]) -> float:
    """The codec's ratio on all pages of the data: those of one repeated word take nothing."""
    name = _LIBRARY.get(str(row.get("factor_compressor")))
    ratio = row.get(f"data_ratio_{name}") if name else None
    if ratio is None or not float(ratio) > 0:
        return math.nan
    counts = parse_mix(str(row["factor_data"])).counts()
    share = sum(count for part, count in counts.items() if part not in _UNIFORM) / sum(counts.values())
    return float(ratio) / share if share else math.nan


def _held(part: pd.DataFrame) -> float:
    """What the workload really holds: redis' own count, else the pages that it fills."""
    held = part["held_bytes"].median() if "held_bytes" in part else math.nan
    return float(held) if held > 0 else float(part["working_set_bytes"].median())


def _median(numbers: Sequence[float]) -> float:
    from statistics import median

    return median(numbers)
