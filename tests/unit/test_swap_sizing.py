"""Sizes of zram and zswap's pool: a balance of memory that meets measured guests, and says where it does not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb import results
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.plots.swap.sizing import plot_sizing
from acon_nb.swap.analysis.rows import counted
from acon_nb.swap.analysis.sizing import MOST_ERROR, SizeModel, sizing

ROWS = Path(__file__).parent / "data/rows_v2"  # measured guests of 64 MiB
MODEL = SizeModel(allocator=1.0, reserve=0.0, filled=1.0)


def test_the_balance_is_that_of_memory() -> None:
    """What stays in RAM and what the pool takes are what there is, as long as something can stay."""
    for ratio in (1.5, 2.0, 4.0):
        for pressure in (1.1, 1.4, 2.0, 3.0):
            size = MODEL.size(ratio, pressure, 1.0)
            if pressure < MODEL.full_at(ratio):
                assert pressure - size.used + size.pool == pytest.approx(1.0)
            else:
                assert size.used == pressure
            assert size.pool == pytest.approx(size.used / ratio)
    assert MODEL.size(2.0, 0.9, 1.0).used == 0


def test_a_full_pool_of_zswap_leaves_the_rest_to_the_disk() -> None:
    size = MODEL.size(2.0, 1.5, 1.0, limit=0.2)
    assert size.pool == pytest.approx(0.2)
    assert size.used == pytest.approx(0.7)
    assert MODEL.size(2.0, 1.1, 1.0, limit=0.5) == MODEL.size(2.0, 1.1, 1.0)


def test_the_model_meets_measured_guests_within_its_error() -> None:
    fitted = sizing(counted(results.load(ROWS, "swap", "net-swap")))
    assert len(fitted.cells) == 11
    assert fitted.holds
    assert 0.02 < fitted.error < 0.12
    assert len(fitted.left_out) == 2, "zram lz4 at the higher pressure ran out of memory"
    assert 0.7 < fitted.model.allocator < 0.95
    table = fitted.table([2.3, 3.5], [1.2, 1.5])
    assert (table["zram_size"] > table["zram_ram"]).all()
    assert table["zram_ram"][1] > table["zram_ram"][0], "more pressure takes more"
    assert table["zram_ram"][3] < table["zram_ram"][1], "better compression takes less"


def test_a_model_that_does_not_hold_gives_no_number() -> None:
    rows = results.load(ROWS, "swap", "net-swap")
    wild = (rows["factor_swap"] == "zram") & (rows["factor_compressor"] == "zstd") & (rows["factor_pressure"] == 1.1)
    rows.loc[wild, "pool_bytes"] *= 3
    fitted = sizing(counted(rows))
    assert fitted.error > MOST_ERROR
    assert not fitted.holds
    assert fitted.table([2.3], [1.5]).empty
    assert "no size is given" in "\n".join(fitted.sentences())
    assert len(plot_sizing(fitted, [2.3]).axes[0].lines) == 6, "points of the cells alone"


def test_the_figure_has_a_line_for_each_ratio() -> None:
    fitted = sizing(counted(results.load(ROWS, "swap", "net-swap")))
    axes = plot_sizing(fitted, [2.3, 3.5]).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ratio 2.3", "ratio 3.5"]


def test_too_few_cells_are_refused_by_name() -> None:
    rows = results.load(ROWS, "swap", "net-swap")
    with pytest.raises(InvalidInput, match="too few cells"):
        sizing(counted(rows[rows["factor_compressor"].isin(["", "zstd"]) & (rows["factor_data"] == "like-redis")]))


def test_the_command_says_sizes_and_error(tmp_path: Path) -> None:
    figure = tmp_path / "sizing.png"
    argv = ["bench", "sizing", "net-swap", "--out", str(ROWS), "--ratio", "2.3", "--pressure", "1.2"]
    said = CliRunner().invoke(main, [*argv, "-o", str(figure)]).stdout
    assert "Each cell by a fit to the others" in said
    assert "ratio 2.3, pressure 1.2: zram of " in said
    assert figure.stat().st_size > 1000
    answer = json.loads(CliRunner().invoke(main, [*argv, "--json"]).stdout)
    assert answer["holds"]
    assert answer["error"] == max(answer["errors"].values())
    assert not math.isnan(answer["sizes"][0]["zram_ram"])
    assert CliRunner().invoke(main, [*argv, "--ratio", "-1"]).exit_code == 2
    assert CliRunner().invoke(main, ["bench", "sizing", "none", "--out", str(ROWS)]).exit_code == 2
