"""How often a study of equal choices gives a false order, found out with the very code that ranks.

Made-up studies go through `Ranking` and `effects_of`, whose verdicts are what tables, sentences and figures show.
Seeds are shared blocks, as in a study: what a seed has in common moves all choices alike. One false statement, of the
order of two choices or of what a factor does, makes a study a false one. docs/statistics.md has the rates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.stats.inference import most_false
from acon_nb.swap.analysis.best import Ranking
from acon_nb.swap.analysis.choices import Choice
from acon_nb.swap.analysis.effects import Combinations, combinations, effects_of
from acon_nb.swap.analysis.measures import THROUGHPUT, measure
from acon_nb.swap.analysis.rows import counted, situation_parts, values
from acon_nb.validation import Meta, OneOf, check_fields
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]
    Random = np.random.Generator

EFFECT = 0.10  # that the power is for
_CHOICES = (
    ("disk", "", 20), ("zram", "lz4", 20), ("zram", "zstd", 20), ("zswap", "lz4", 20), ("zswap", "zstd", 20),
    ("zswap", "lz4", 50), ("zswap", "zstd", 50), ("zram", "deflate", 20), ("zswap", "lz4", 35), ("zswap", "zstd", 35),
)  # fmt: skip
_SEEDS_ALIKE = 2.0  # times the spread of a guest, what all guests of a seed share


def _normal(rng: Random, shape: tuple[int, ...], cv: float) -> Array:
    import numpy as np

    return np.log(np.maximum(0.05, 1 + rng.normal(0, cv, shape)))


def _lognormal(rng: Random, shape: tuple[int, ...], cv: float) -> Array:
    return rng.normal(0, cv, shape)


def _heavy_tail(rng: Random, shape: tuple[int, ...], cv: float) -> Array:
    return cv * rng.standard_t(3, shape) / 3**0.5


def _bad_seed(rng: Random, shape: tuple[int, ...], cv: float) -> Array:
    logs = rng.normal(0, cv, shape)
    logs[..., 0] *= 6
    return logs


def _unequal(rng: Random, shape: tuple[int, ...], cv: float) -> Array:
    import numpy as np

    return rng.normal(0, 1, shape) * cv * np.geomspace(0.2, 3, shape[-2])[:, None]


def _two_regimes(rng: Random, shape: tuple[int, ...], cv: float) -> Array:
    import numpy as np

    return np.where(rng.random(shape) < 0.5, cv, -cv) + rng.normal(0, cv / 8, shape)


# How the logarithms of equal choices scatter, by name: an array whose last axes are choices and seeds.
NOISES: Mapping[str, Callable[[Any, tuple[int, ...], float], Any]] = {
    "lognormal": _lognormal,
    "normal": _normal,
    "heavy-tail": _heavy_tail,
    "bad-seed": _bad_seed,
    "unequal": _unequal,
    "two-regimes": _two_regimes,
}


@dataclass(frozen=True, kw_only=True)
class NullStudies:
    """What is made up: `studies` of equal choices for each number of seeds and of choices, and as many in which one is
    really 10 % faster, of which `powered` are enough.

    `cv` is the spread of a guest as a share, `noise` how it scatters (`NOISES`): lognormal; normal; heavy-tail
    (Student's t, 3 degrees of freedom); bad-seed (one seed scatters six times as much); unequal (some choices scatter
    15 times as much as others); two-regimes (a guest is fast or slow by chance, and hardly scatters besides).
    `situations` have the same choices each. `seed` is that of the random numbers. Errors: `InvalidInput` at
    construction.
    """

    seeds: Annotated[tuple[Annotated[int, Meta(ge=2, le=50)], ...], Meta(min_length=1)] = (3, 4, 5, 8)
    choices: Annotated[tuple[Annotated[int, Meta(ge=2, le=len(_CHOICES))], ...], Meta(min_length=1)] = (2, 5, 8)
    situations: Annotated[int, Meta(ge=1, le=20)] = 1
    studies: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    powered: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    cv: Annotated[float, Meta(gt=0, le=1)] = 0.05
    noise: Annotated[str, OneOf(tuple(NOISES))] = "lognormal"
    seed: Annotated[int, Meta(ge=0)] = 1

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class FalseRankings:
    """The share of studies of equal choices with any false statement, and the share of true differences of 10 % that
    are found."""

    seeds: int
    choices: int
    studies: int
    false: int
    power_at_10_percent: float

    @property
    def share(self) -> float:
        """The share of studies with a false statement."""
        return self.false / self.studies

    @property
    def passed(self) -> bool:
        """No more false studies than a level of 5 % explains."""
        return self.false <= most_false(self.studies)

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "share": self.share, "passed": self.passed}

    def text(self) -> str:
        """In words."""
        power = f"a true 10 % is found in {100 * self.power_at_10_percent:.0f} % of comparisons"
        verdict = "passed" if self.passed else "FAILED"
        rate = f"{100 * self.share:.1f} % of {self.studies:,} studies are false"
        return f"{verdict}: {self.seeds} seeds, {self.choices} choices: {rate}; {power}"


def false_rankings(
    spec: NullStudies, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> list[FalseRankings]:
    """Simulate, for each number of seeds and of choices. The same spec gives the same numbers."""
    cases = list(itertools.product(spec.seeds, spec.choices))
    rankings = []
    for number, (seeds, choices) in enumerate(cases):
        on_progress(Progress("null studies", number / len(cases), f"{seeds} seeds, {choices} choices"))
        layout = _Layout(choices, spec.situations)
        rng = _random(spec.seed, seeds, choices)
        false = sum(layout.is_false(one) for one in _made(spec, rng, seeds, choices, spec.studies, cancel))
        better = _made(spec, rng, seeds, choices, spec.powered, cancel, effect=EFFECT)
        power = sum(map(layout.power, better)) / spec.powered
        rankings.append(
            FalseRankings(seeds=seeds, choices=choices, studies=spec.studies, false=false, power_at_10_percent=power)
        )
    on_progress(Progress("null studies", 1.0))
    return rankings


class _Layout:
    """The choices and situations of a study, read once from its rows; studies differ in their numbers alone."""

    def __init__(self, choices: int, situations: int) -> None:
        rows = counted(_rows(choices, situations), Clock.INSTRUCTIONS)
        # The template's value of a cell is its number plus one.
        self._cells = {
            situation: {choice: int(seeds[1] or 0) - 1 for choice, seeds in values(part, THROUGHPUT).items()}
            for situation, part in situation_parts(rows)
        }
        self._effects = {
            factor: {
                level: {held: int(seeds[1] or 0) - 1 for held, seeds in table.items()}
                for level, table in combinations(rows, factor, THROUGHPUT).items()
            }
            for factor in map(str, rows.levels)
        }
        self._measure = measure(THROUGHPUT)

    def is_false(self, study: Sequence[Mapping[int, float]]) -> bool:
        """Whether a study of equal choices says anything of an order or of an effect."""
        ranking = self._ranking(study)
        if any(pair.verdict.ranks for pair in ranking.pairs.values()):
            return True
        if any(ranking.best(situation).next is not None for situation in self._cells):
            return True
        tables: dict[str, Combinations] = {
            factor: {level: {held: study[cell] for held, cell in table.items()} for level, table in levels.items()}
            for factor, levels in self._effects.items()
        }
        effects = effects_of(tables, self._measure, Clock.INSTRUCTIONS)
        return any(one.result.verdict.ranks or one.turns for one in effects if not one.why)

    def power(self, study: Sequence[Mapping[int, float]]) -> float:
        """The share of the comparisons with the first choice, which is really better, that find it."""
        ranking = self._ranking(study)
        better = [
            ranking.is_better(situation, first, other)
            for situation, (first, *others) in self._cells.items()
            for other in others
        ]
        return sum(better) / len(better)

    def _ranking(self, study: Sequence[Mapping[int, float]]) -> Ranking:
        numbers: dict[str, dict[Choice, Mapping[int, float]]] = {
            situation: {choice: study[cell] for choice, cell in cells.items()}
            for situation, cells in self._cells.items()
        }
        return Ranking(numbers, more_is_better=True, clock=Clock.INSTRUCTIONS)


def _made(
    spec: NullStudies, rng: Random, seeds: int, choices: int, studies: int, cancel: CancelToken | None,
    effect: float = 0.0,
) -> Iterator[list[dict[int, float]]]:  # fmt: skip
    """Studies as the seeds' values of each cell; `effect` is what the first choice of each situation has more."""
    import numpy as np

    numbers = range(1, seeds + 1)
    for _ in range(studies):
        if cancel is not None:
            cancel.check()
        logs = NOISES[spec.noise](rng, (spec.situations, choices, seeds), spec.cv)
        logs = logs + rng.normal(0, _SEEDS_ALIKE * spec.cv, seeds)
        logs[:, 0] += np.log1p(effect)
        table = 1000 * np.exp(logs).reshape(-1, seeds)
        yield [dict(zip(numbers, row, strict=True)) for row in table.tolist()]


def _rows(choices: int, situations: int) -> Any:
    """Rows of one seed: what each cell is, its value being its number plus one."""
    import pandas as pd

    cells = itertools.product(range(situations), _CHOICES[:choices])
    return pd.DataFrame(
        {
            "clock": Clock.INSTRUCTIONS.value, "seed": 1, THROUGHPUT: float(number + 1), "factor_swap": swap,
            "factor_compressor": compressor, "factor_pool_percent": pool, "factor_pressure": 1.0 + 0.5 * situation,
        }
        for number, (situation, (swap, compressor, pool)) in enumerate(cells)
    )  # fmt: skip


def _random(*numbers: int) -> Random:
    import numpy as np

    return np.random.default_rng(numbers)
