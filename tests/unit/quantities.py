"""The quantities whose values `expected.json` holds, each a function of the stored rows that returns plain values.

Words (verdicts, sentences, labels of phases) are no part of them: codes, numbers, and which choice or cell they are
about. What the package calls things today is in `numbers_api.py`.
"""

from __future__ import annotations

import functools
import gzip
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tests.unit import canonical
from tests.unit import numbers_api as api
from tests.unit.canonical import numbers_in, plain, records, sentence, shown

DATA = Path(__file__).with_name("data") / "rows_v2"
Quantity = Callable[["Rows"], Any]
QUANTITIES: dict[str, Quantity] = {}
_COMPARISON = (
    "metric", "clock", "stratum", "baseline", "cell", "n_baseline", "n", "minimum_effect", "baseline_median", "median",
    "difference", "ratio", "ratio_low", "ratio_high", "cliffs_delta", "p", "p_holm", "smallest_p", "needed", "alarm",
)  # fmt: skip
SWAP_STUDIES = ("net-swap", "made-swap")
BOOT_STUDIES = ("net-boot", "net-wall")


class Rows:
    """The rows of the folder, study by study, as the package reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study = functools.cache(self._study)
        self.counted = functools.cache(self._counted)
        self.analysis = functools.cache(self._analysis)

    @classmethod
    def copied_to(cls, folder: Path) -> Rows:
        """The stored rows and their kernel logs, in a folder of results of its own."""
        shutil.copytree(DATA, folder, dirs_exist_ok=True)
        for path in folder.rglob("*.kmsg.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        return cls(folder)

    def _study(self, kind: str, study: str) -> pd.DataFrame:
        return api.load(self.folder, kind, study)

    def _counted(self, study: str, clock: str = "") -> Any:
        return api.counted(self.study("swap", study), clock)

    def _analysis(self, study: str, metric: str = "access_ops_per_s") -> Any:
        return api.analysis(self.study("swap", study), api.Question(metric=metric))


def quantity(name: str, *cases: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a quantity, or as one for each of some studies (its second argument)."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if not cases:
            QUANTITIES[name] = function
        for case in cases:
            QUANTITIES[f"{name} of {case}"] = lambda source, case=case: function(source, case)
        return function

    return register


def choices_of(source: Rows, study: str) -> list[str]:
    """The labels of a study's choices."""
    return api.choices(source.counted(study))


def cells_of(frame: pd.DataFrame) -> list[str]:
    return sorted(set(frame["cell"]))


# Boots


@quantity("phases", *BOOT_STUDIES)
def _(source: Rows, study: str) -> Any:
    table = api.phase_rows(source.study("boot", study))
    return records(table, ("clock", "cell", "took_ns", "low_ns", "high_ns", "runs"))


@quantity("phases, for people", *BOOT_STUDIES)
def _(source: Rows, study: str) -> Any:
    return shown(api.phase_table(source.study("boot", study))[["cell", "took", "share", "runs"]])


@quantity("cells of a study, for people", *BOOT_STUDIES)
def _(source: Rows, study: str) -> Any:
    return shown(api.study_table(source.study("boot", study)))


@quantity("runs that failed", *BOOT_STUDIES, "net-swap")
def _(source: Rows, study: str) -> Any:
    frame = source.study("swap" if study == "net-swap" else "boot", study)
    return [sentence(text.splitlines()[0], cells_of(frame)) for text in api.failures(frame, source.folder)]


@quantity("rows that count", *BOOT_STUDIES, "quick")
def _(source: Rows, study: str) -> Any:
    frame = source.study("boot", study)
    kept, left = api.usable(frame)
    newest, older = api.newest(frame)
    return {
        "kept": len(kept), "warmups": left.warmups, "host_faults": left.host_faults, "failed": left.failed,
        "ends": [[api.code(end).split(":")[0], count] for end, count in left.ends],
        "newest": len(newest), "older": older,
    }  # fmt: skip


@quantity("memory", *BOOT_STUDIES)
def _(source: Rows, study: str) -> Any:
    frame = source.study("boot", study)
    kept = api.usable(frame)[0]
    found = {}
    for cell in cells_of(kept):
        row = api.whole_row(frame, cell)
        table = api.memory_table(row)
        found[cell] = {
            "bytes": [plain(size) for size in table["bytes"]],
            "sentences": [numbers_in(text) for text in api.memory_sentences(row)],
        }
    return found


@quantity("initcalls")
def _(source: Rows) -> Any:
    found = {}
    for cell, boot in _boots(source).items():
        table = api.call_table(boot, most=25)
        found[cell] = {
            "calls": records(table, ("name", "began_us", "took_us", "share", "returned")),
            "for people": shown(api.shown_initcalls(boot, most=10).iloc[:, 2:5]),
            "sentences": [numbers_in(text) for text in api.initcall_sentences(boot)],
            "counts": [len(boot.calls), len(boot.probes), len(boot.gaps), boot.lost],
            "moments_us": [boot.init_us, boot.end_us, boot.line_us],
            "all took_us": sum(boot.took_us(call) for call in boot.calls),
        }
    return found


@quantity("difference of two boots by initcall")
def _(source: Rows) -> Any:
    table = api.initcall_difference(*_boots(source).values(), names=("a", "b"))
    return {"rows": len(table), "largest": records(table.head(40), ("name", "a_us", "b_us", "difference_us"))}


@quantity("comparisons of cells", *BOOT_STUDIES)
def _(source: Rows, study: str) -> Any:
    frame = source.study("boot", study)
    metrics = {
        "net-boot": ("guest_ns_reset_to_init", "guest_ns_ready", "memavailable_bytes", "initrd_bytes"),
        "net-wall": ("host_ns_init", "host_ns_ready", "qemu_pss_bytes"),
    }[study]
    return [_compared(api.compare(frame, metric)) for metric in metrics]


@quantity("comparisons of a factor's levels")
def _(source: Rows) -> Any:
    boots, walls = (source.study("boot", study) for study in BOOT_STUDIES)
    bytes_left = "memavailable_bytes"
    return [
        _compared(api.compare(boots, "guest_ns_reset_to_init", factor="kernel")),
        _compared(api.compare(boots, bytes_left, factor="memory", baseline="192M", minimum_effect=0.5)),
        _compared(api.compare(walls, "host_ns_init", factor="memory", minimum_effect=0.2)),
        _compared(api.compare(walls, "host_ns_ready", factor="initrd_compression", alpha=0.5)),
    ]


@quantity("explorer")
def _(source: Rows) -> Any:
    found = []
    for study, view in _views():
        frame = source.study("boot", study)
        seen = api.explore(frame, view)
        found.append(
            {
                "clock": seen.clock, "runs": len(seen.rows), "summary": shown(seen.summary),
                "comparisons": _compared(api.with_codes_of_then(seen.comparisons)),
                "factors": api.explorer_factors(frame),
                "sentences": len(seen.sentences), "levels": api.explorer_levels(frame, view.x),
                "metrics": sorted(api.explorer_metrics(frame, seen.clock)),
            }
        )  # fmt: skip
    return found


@quantity("findings of a boot study", *BOOT_STUDIES)
def _(source: Rows, study: str) -> Any:
    frame = source.study("boot", study)
    return [sentence(text, cells_of(frame)) for text in api.boot_findings(frame, source.folder)]


@quantity("sentences of the boot notebook")
def _(source: Rows) -> Any:
    frame = source.study("boot", "net-wall")
    asked = api.boot_plan(name="net-wall", factors={"memory": ["128M", "256M"], "initrd_compression": ["", "gz"]})
    return [sentence(text, cells_of(frame)) for text in api.comparison_sentences(frame, asked)]


# Kernels, initrds, the tour


@quantity("cost of groups of options")
def _(source: Rows) -> Any:
    table = api.costs(source.folder)
    names = ("options_on", "bzimage_bytes", "linked_bytes", "gone_bytes", "init_ns")
    return {
        "steps": records(table, ("name", *names, *(f"added_{name}" for name in names))),
        "for people": shown(api.cost_table(table)),
        "figure": canonical.figure(api.plot_cost(table)),
    }


@quantity("cost of an initrd's compression")
def _(source: Rows) -> Any:
    table = api.unpacked(source.folder)
    columns = ("compression", "image_bytes", "archive_bytes", "init_ns", "added_init_ns")
    return {
        "rows": records(table, columns),
        "for people": shown(api.unpack_table(table)),
        "figure": canonical.figure(api.plot_unpack(table)),
    }


@quantity("boots of the tour")
def _(source: Rows) -> Any:
    runs = _tour(source)
    return {
        "times": shown(api.tour_boots(runs)),
        "memory": shown(api.tour_memory(runs)),
        "figures": [canonical.figure(api.plot_boot(runs)), canonical.figure(api.plot_memory(runs))],
    }


# Nights, and the check of the tool itself


@quantity("nights")
def _(source: Rows) -> Any:
    return [_series_numbers(source, accepted) for accepted in ("", "2026-01-15")]


@quantity("the last night, judged")
def _(source: Rows) -> Any:
    result = api.judged_night(api.NightlySpec(history=source.folder, plan="quick", night="2026-01-30"))
    told = result.as_dict()
    return {
        "verdict": api.night_code(told["verdict"]), "passed": told["passed"], "nights": told["nights"],
        "series": [[api.night_code(one["verdict"]), one["ratio"]] for one in told["series"]],
        "sentences": [sentence(text, ["clock=instructions", "clock=wall"]) for text in told["sentences"][1:]],
    }  # fmt: skip


@quantity("check of the tool itself")
def _(source: Rows) -> Any:
    frame = source.study("boot", "made-copies")
    return {
        "made up": _checked(api.checked_made_up(30, 6, seed=3)),
        "of runs, together": _checked(api.checked_runs(frame, ["host_ns_init", "host_ns_ready"])),
        "of runs, five blocks each": _checked(api.checked_runs(frame, ["host_ns_init"], blocks_each=5)),
    }


# Swap


@quantity("choices and situations", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    found = source.counted(study)
    groups = api.swap_frame(found).groupby(["situation", "choice"], sort=False)
    return {
        "situations": list(found.situations), "clock": found.clock, "calibrations": len(found.calibration),
        "left_out": numbers_in(found.left_out), "notes": len(found.notes), "levels": sorted(map(str, found.levels)),
        "cells": [
            [*key, len(part), sorted(map(int, part["pair"])), int((~part["is_well"]).sum())]
            for key, part in groups
        ],
    }  # fmt: skip


@quantity("swap: choices compared with the baseline", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    found = {}
    for metric in ("access_ops_per_s", "access_p99_ns"):
        table = api.df_choices(source.analysis(study, metric))
        found[metric] = _coded(
            table, "situation", "choice", "n", "runs", "median", "low", "high", "ratio", "ratio_low", "ratio_high",
            "pairs", "cliffs_delta", "p_holm", "baseline", sure="sure",
        )  # fmt: skip
    return found


@quantity("swap: Pareto front", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    table = api.df_pareto(source.analysis(study))
    return _coded(
        table, "situation", "choice", "n", "saved", "saved_low", "saved_high", "speed", "speed_low", "speed_high",
        "on_front", "support", lists=("beaten_by",), numbers={"failures": "failures"},
    )  # fmt: skip


@quantity("swap: along an axis", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    return {
        axis: _coded(
            api.df_pressure(source.analysis(study), axis), "situation", "level", "choice", "baseline",
            "n", "runs", "median", "low", "high", "ratio", "ratio_low", "ratio_high", numbers={"failures": "failures"},
        )
        for axis in ("pressure", "disk_latency")
    }  # fmt: skip


@quantity("swap: break-evens", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    names = choices_of(source, study)
    found = {}
    for axis in ("pressure", "disk_latency"):
        table = api.df_breakeven(source.analysis(study), axis)
        columns = (
            "situation", "first", "second", "kind", "below", "above", "n", "at", "low", "high", "support",
            "ahead_below", "failing",
        )  # fmt: skip
        lines = [sentence(text, names) for text in table["sentence"]]
        found[axis] = {"points": records(table, columns), "sentences": lines}
    return found


@quantity("swap: best choices", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    return _coded(
        api.df_best(source.analysis(study)), "situation", "down", "across", "down_level", "across_level", "tied",
        "value", "seeds", "behind", "gap", "choices", sure="sure", lists=("best",),
        numbers={"died": "died"},
    )  # fmt: skip


@quantity("swap: effects of factors", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    table = api.df_effects(source.analysis(study))
    return _coded(
        table, "factor", "level", "ratio", "low", "high", "seeds", "cliffs_delta", "p_holm", "settings", "used", "up",
        "down", "baseline", sure="sure", numbers={"sentence": "sentence", "turns": "turns"},
    )  # fmt: skip


@quantity("swap: guests that ended badly", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    table = api.df_outcomes(source.analysis(study))
    return _coded(table, "situation", "choice", "runs", numbers={"ends": "ends"})


@quantity("swap: latencies", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    found = {}
    for kind in ("access", "fault"):
        table = api.latencies(source.counted(study), kind)
        found[kind] = [
            [*key, *(canonical.series(part[name]) for name in ("latency_ns", "share", "low", "high", "n", "accesses"))]
            for key, part in table.groupby(["situation", "choice"], sort=False)
        ]
    return found


@quantity("swap: one guest over time", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    table = _guest(source, study)
    columns = ("t_ns", "memavailable_bytes", "pool_bytes", "swap_used_bytes", "major_faults", "faults_per_s", "phase")
    return records(table, columns)


@quantity("swap: answers", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    names = choices_of(source, study)
    return [
        {
            "situation": one.situation, **api.best_of(one), "table": shown(one.table),
            "sentences": [sentence(text, names) for text in one.words],
        }
        for asked in _questions(study)
        for one in api.analysis(source.study("swap", study), asked).answers
    ]  # fmt: skip


@quantity("swap: answers of an even number of seeds")
def _(source: Rows) -> Any:
    frame = source.study("swap", "made-swap")
    names = choices_of(source, "made-swap")
    asked = api.Question(pressure=1.5, data="redis", disk_latency="80us")
    (one,) = api.analysis(frame[frame["seed"] < 5], asked).answers
    return {"table": shown(one.table), "sentences": [sentence(text, names) for text in one.words]}


@quantity("swap: the study in sentences", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    names = choices_of(source, study)
    found = []
    for asked in (None, *_questions(study)):
        for told in api.explain(source.study("swap", study), asked):
            parts = {name: getattr(told, name) for name in ("answer", "turns", "effects", "evidence")}
            lines = {name: [sentence(text, names) for text in lines] for name, lines in parts.items()}
            found.append({"clock": told.clock, "scope": numbers_in(told.scope), "limits": len(told.limits), **lines})
    return found


@quantity("swap: order of two clocks")
def _(source: Rows) -> Any:
    frame = source.study("swap", "made-both")
    return [sentence(text, ["disk", "zram zstd", "zswap lz4"]) for text in api.clock_flips(frame)]


@quantity("swap: the study, for people")
def _(source: Rows) -> Any:
    frame = source.study("swap", "net-swap")
    return {"cells": shown(api.swap_cells(frame)), "checks": [numbers_in(t) for t in api.swap_checks(frame)]}


# Figures


@quantity("figures of a boot study", *BOOT_STUDIES)
def _(source: Rows, study: str) -> Any:
    frame = source.study("boot", study)
    kept = api.usable(frame)[0]
    found = {
        "phases": api.plot_phases(frame),
        "memory": api.plot_memory_parts(api.whole_row(frame)),
        "QEMU's memory": api.plot_qemu_memory(kept),
    }
    return {name: canonical.figure(drawn) for name, drawn in found.items()}


@quantity("figures of initcalls")
def _(source: Rows) -> Any:
    boots = _boots(source)
    both = api.initcall_difference(*boots.values(), names=("a", "b"))
    found = [canonical.figure(api.plot_initcalls(boot)) for boot in boots.values()]
    return [*found, canonical.figure(api.plot_initcall_difference(both, names=("a", "b")))]


@quantity("figures of the explorer")
def _(source: Rows) -> Any:
    return [
        canonical.figure(api.plot_study(api.explore(source.study("boot", study), view))) for study, view in _views()
    ]


@quantity("figures of nights")
def _(source: Rows) -> Any:
    series = _series(source)
    nights, changes = api.nights_table(series), api.changes_table(series)
    return [canonical.figure(api.plot_trend(nights, changes, clock=clock)) for clock in ("instructions", "wall")]


@quantity("figures of a swap study", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    names = choices_of(source, study)
    drawn = api.figures_of(source.analysis(study)) | {"guest": api.plot_guest(_guest(source, study))}
    return {name: canonical.figure(one, names) for name, one in sorted(drawn.items())}


@quantity("tables that are written", *SWAP_STUDIES)
def _(source: Rows, study: str) -> Any:
    return {name: len(table) for name, table in api.tables_of(source.analysis(study)).items()}


# Statistics of plain numbers

_A = (10.3, 9.8, 10.9, 11.4, 10.1, 9.9, 12.7, 10.6)
_B = (11.2, 10.7, 12.9, 11.8, 11.1, 10.4, 13.9, 12.3)
_RATIOS = [b / a for a, b in zip(_A, _B, strict=True)]
_NIGHTS = (*(100.0 + number % 3 for number in range(12)), *(130.0 + number % 4 for number in range(12)))


@quantity("statistics")
def _(source: Rows) -> Any:
    seeds = {name: dict(enumerate(side)) for name, side in (("a", _A), ("b", _B))}
    curve = {1.0: seeds["a"], 2.0: seeds["b"], 3.0: seeds["b"]}
    flat = {1.0: seeds["b"], 2.0: seeds["a"], 3.0: {**seeds["a"], 2: None}}
    steps = [api.exact_steps(_NIGHTS, jitter=0.05), api.noisy_steps(_NIGHTS)]
    standing = api.front({"a": {n: (v, 2.0 * v) for n, v in seeds["a"].items()},
                      "b": {n: (1.2 * v, v) for n, v in seeds["b"].items()},
                      "c": {n: (v, v) for n, v in seeds["a"].items()}})  # fmt: skip
    return {
        "summaries": [plain(list(vars(api.summarise(side)).values())) for side in (_A, _B[:2], [5, 5, 5], _A[:7])],
        "medians": [api.median(side) for side in (_A, _A[:7], (1, 2, 90, 100))],
        "tests": [
            [test.p, test.smallest_p]
            for test in (
                api.permutation_test(_A, _B), api.permutation_test(_A[:4], _B[:5]),
                api.permutation_test(_A * 2, _B * 2),
                api.paired_test([b - a for a, b in zip(_A, _B, strict=True)]),
                api.paired_test([b - a for a, b in zip(_A, _A[::-1], strict=True)]),
            )
        ],
        "ratios": [
            plain(list(vars(ratio).values()))
            for ratio in (api.ratio_of_medians(_A, _B), api.ratio_of_pairs(_RATIOS))
        ],
        "cliffs_delta": api.cliffs_delta(_A, _B), "holm": api.holm([0.04, 0.01, 0.03, 0.2]),
        "spread": api.spread(_A), "needed": [api.required_runs(0.04, 0.02, paired=paired) for paired in (0, 1)],
        "smallest": [api.smallest_p(5, 5), api.smallest_paired_p(7)],
        "steps": [[plain(list(vars(step).values())) for step in found] for found in steps],
        "break_evens": [
            [str(point.kind), *map(plain, (point.below, point.above, point.n, point.at, point.low, point.high))]
            for logarithmic in (False, True)
            for point in api.break_evens(curve, flat, logarithmic=logarithmic)
        ],
        "front": {name: [one.on_front, one.support, list(one.beaten_by)] for name, one in standing.items()},
    }  # fmt: skip


def _boots(source: Rows) -> Mapping[str, Any]:
    return api.logged_boots(source.study("boot", "net-boot"), source.folder)


def _compared(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Comparisons with their verdicts as codes and their sentences."""
    found = records(table, _COMPARISON)
    names = {str(name) for column in ("baseline", "cell") for name in table[column]}
    for one, row in zip(found, table.to_dict("records"), strict=True):
        one["verdict"] = row["then"]
        one["sentence"] = sentence(api.comparison_sentence({str(key): value for key, value in row.items()}), names)
    return found


def _coded(
    table: pd.DataFrame,
    *columns: str,
    sure: str = "",
    lists: Sequence[str] = (),
    numbers: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Rows of a swap table: columns as they are, names as lists, texts as their numbers."""
    found = records(table, columns)
    for one, row in zip(found, table.to_dict("records"), strict=True):
        if sure:
            one["sure"] = row[sure]
        for name in lists:
            one[name] = api.names_in(row[name])
        for name, column in (numbers or {}).items():
            one[name] = numbers_in(row[column])
    return found


def _views() -> Sequence[tuple[str, api.View]]:
    counted, timed = "guest_ns_reset_to_init", "host_ns_init"
    return (
        ("net-boot", api.View(metric=counted)),
        ("net-boot", api.View(metric="memavailable_bytes", x="memory", colour="kernel", baseline="192M")),
        ("net-wall", api.View(metric=timed, x="memory", colour="initrd_compression")),
        ("net-wall", api.View(metric=timed, x="initrd_compression", facet="memory", minimum_effect=0.3)),
    )


def _series(source: Rows, accepted: str = "") -> Sequence[Any]:
    return api.series_of(source.study("boot", "quick"), accepted=accepted)


def _series_numbers(source: Rows, accepted: str) -> dict[str, Any]:
    series = _series(source, accepted)
    nights = api.nights_table(series)
    changes = api.changes_table(series)
    return {
        "series": [
            [
                one.cell,
                one.metric,
                api.night_code(one.verdict),
                one.exact,
                one.limit,
                one.reference,
                one.current,
                one.ratio,
            ]
            for one in series
        ],
        "nights": [
            [*key, *(canonical.series(part[name]) for name in ("value", "low", "high", "level", "runs"))]
            for key, part in nights.groupby(["cell", "metric"], sort=False)
        ],
        "changes": records(changes, ("cell", "metric", "night", "first", "last", "ratio", "low", "high", "p")),
        "changes, for people": shown(api.shown_changes(series)),
        "verdicts, for people": shown(api.verdict_table(series)),
        "sentences": [sentence(one.text(), [one.cell]) for one in series],
    }


def _checked(check: Any) -> dict[str, Any]:
    return {name: plain(getattr(check, name)) for name in ("comparisons", "alarms", "planted", "found", "passed")}


def _tour(source: Rows) -> pd.DataFrame:
    table = pd.concat([source.study("boot", f"tour-{clock}") for clock in ("wall", "instructions")], ignore_index=True)
    table = table.sort_values(["clock", "factor_kernel", "replicate"], ascending=[False, True, True], ignore_index=True)
    return table.assign(name=table["factor_kernel"].map({"build": "minimal"}).fillna("distribution"))


def _questions(study: str) -> Sequence[api.Question]:
    data = "redis" if study == "made-swap" else "like-redis"
    return (
        api.Question(pressure=1.5, data=data, disk_latency="80us"),
        api.Question(pressure=1.0, metric="access_p99_ns"),
        api.Question(disk_latency="12us"),
    )


def _guest(source: Rows, study: str) -> pd.DataFrame:
    frame = api.swap_frame(source.counted(study))
    return api.df_guest(frame[frame["choice"] == "zram zstd"].to_dict("records")[0])
