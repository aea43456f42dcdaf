"""What a cell of a swap study may be, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.study.plan import Plan, built_in, load
from acon_nb.swap import SwapFactors, knobs
from acon_nb.swap.cell import SwapCell, image_of
from acon_nb.swap.experiment import COPY, with_checks
from acon_nb.tour import SWAP_PLAN, TourSpec

MIB = 1 << 20


@pytest.mark.parametrize(
    ("levels", "field"),
    [
        ({"swap": "floppy"}, "swap"),
        ({"swap": "zram:floppy"}, "compressor"),
        ({"swap": "zram:lz4", "compressor": "zstd"}, "compressor"),
        ({"swap": "disk", "compressor": "lz4"}, "compressor"),
        ({"swap": "disk", "shrinker": True}, "shrinker"),
        ({"swap": "zswap", "zram_limit": "10M"}, "zram_limit"),
        ({"swap": "zram", "zram_limit": "1G"}, "zram_limit"),
        ({"swap": "zswap", "pool_percent": 101}, "pool_percent"),
        ({"swap": "zram", "encryption": "@+ae"}, "encryption"),
        ({"encryption": "xts"}, "encryption"),
        ({"encryption": "@+rot13"}, "mac"),
        ({"tags": "disk"}, "tags"),
        ({"disk": "virtio"}, "disk"),
        ({"disk_latency": "fast"}, "disk_latency"),
        ({"clock": "wall", "disk": "virtio", "disk_latency": "1ms"}, "disk_latency"),
        ({"clock": "wall", "disk": "virtio", "disk_preset": "hdd"}, "disk_preset"),
        ({"clock": "wall", "disk": "virtio", "disk_queue": 3}, "disk_queue"),
        ({"disk_preset": "floppy"}, "disk_preset"),
        ({"disk_bandwidth": "fast"}, "disk_bandwidth"),
        ({"disk_bandwidth": "0M"}, "disk_bandwidth"),
        ({"disk_iops": -1}, "disk_iops"),
        ({"disk_size": "0"}, "disk_size"),
        ({"disk_size": "100K"}, "disk_size"),
        ({"workload": "tmpfs", "write_share": 0.1}, "write_share"),
        ({"workload": "redis", "pattern": "sequential"}, "pattern"),
        ({"locality": "clustered"}, "locality"),
        ({"pattern": "zipf", "locality": "lattice"}, "locality"),
        ({"file_share": 0.2}, "file_share"),
        ({"workload": "file", "file_share": 1.1}, "file_share"),
        ({"until_steady": 100}, "until_steady"),
        ({"swap": "zram", "zram_interval": "1s"}, "zram_interval"),
        ({"swap": "zram", "zram_idle_age": "1s"}, "zram_idle_age"),
        ({"swap": "zram", "zram_writeback": "idle", "zram_interval": "often"}, "zram_interval"),
        ({"swap": "zram", "zram_writeback": "idle", "zram_idle_age": "1500ms"}, "zram_idle_age"),
        ({"swap": "zram", "zram_writeback_compressed": True}, "zram_writeback_compressed"),
        ({"swap": "disk", "zram_interval": "1s"}, "zram_interval"),
        ({"swap": "zram", "encryption": "@+", "workload": "file"}, "encryption"),
        ({"data": "redis+redis"}, "data"),
        ({"data": "zero:0"}, "data"),
        ({"data": "secrets"}, "data"),
        ({"pressure": float("nan")}, "pressure"),
        ({"pressure": 9}, "pressure"),
        ({"pressure": "2"}, "pressure"),
        ({"accesses": 1}, "accesses"),
        ({"memory": "12M"}, "memory"),
        ({"memory": "many"}, "memory"),
        ({"lru_gen": 1}, "lru_gen"),
        ({"presure": 2.0}, "presure"),
    ],
)
def test_what_cannot_be_is_refused_by_name(levels: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SwapFactors.of(levels)
    assert caught.value.field == field
    assert caught.value.hint or caught.value.reason


def test_a_short_form_names_swap_and_compressor() -> None:
    cell = SwapFactors(swap="zswap:zstd", encryption="@+ae")
    assert (cell.swap, cell.compressor, cell.configuration) == ("zswap", "zstd", "zswap zstd, @+ae")
    assert SwapFactors(swap="zram").configuration == "zram lz4"
    assert cell.levels()["swap"] == "zswap"


def test_the_simulated_disks_ram_is_there_in_every_cell() -> None:
    sizes = {knobs.guest_bytes(SwapFactors(swap=swap)) for swap in ("none", "disk", "zram", "zswap")}
    assert len(sizes) == 1
    (size,) = sizes
    assert size > 128 * MIB + SwapFactors().swap_bytes
    wall = SwapFactors(clock="wall", disk="virtio")
    assert knobs.guest_bytes(wall) == 128 * MIB + knobs.INSTRUMENT_BYTES + knobs.table_bytes(wall)


def test_the_workloads_tables_come_on_top_of_the_memory() -> None:
    at_zipf, at_random = (
        knobs.table_bytes(SwapFactors(memory="1G", pattern=pattern, pressure=1.0)) for pattern in ("zipf", "random")
    )
    assert (at_zipf, at_random) == (3 * MIB, MIB)  # 262,144 pages of 12 and of 4 bytes
    redis = SwapFactors(memory="1G", pattern="zipf", pressure=1.0, workload="redis")
    assert knobs.table_bytes(redis) == 8 * at_zipf
    assert knobs.table_bytes(SwapFactors(workload="codec", swap="none")) == 0


def test_a_file_lies_on_the_disk_before_the_swap() -> None:
    cell = SwapFactors(workload="file", swap="zram", file_share=0.25, pressure=1.0)
    assert (cell.pages, cell.file_pages) == (32_768, 8192)
    assert cell.file_system_bytes > 32 * MIB
    assert cell.disk_bytes == cell.swap_bytes + cell.file_system_bytes
    assert cell.uses_disk
    assert not cell.swap_on_disk
    assert SwapFactors().disk_bytes == SwapFactors().swap_bytes


def test_idle_pages_of_zram_are_dealt_with_by_age_or_by_interval() -> None:
    cell = {"swap": "zram", "zram_writeback": "idle", "zram_recompressor": "zstd"}

    def steps(**more: object) -> list[str]:
        return [step.rpartition("/")[2] for step in knobs.settle_of(SwapFactors.of({**cell, **more})).split(";")]

    assert steps() == ["idle=all", "recompress=type=idle", "writeback=idle"]
    assert steps(zram_interval="1s") == ["recompress=type=idle", "writeback=idle", "idle=all"]
    assert steps(zram_interval="1s", zram_idle_age="2s") == ["idle=2", "recompress=type=idle", "writeback=idle"]
    assert SwapFactors.of({**cell, "zram_interval": "0.5s"}).zram_interval_ns == 500_000_000


def test_zswaps_pool_is_a_share_of_the_guests_memory_without_the_disk() -> None:
    cell = SwapFactors(swap="zswap", pool_percent=20)
    share = int(knobs.knobs_of(cell)["pool_percent"]) / 100 * knobs.guest_bytes(cell)
    assert share == pytest.approx(0.2 * 128 * MIB, rel=0.1)


def test_knobs_are_those_of_the_swap_in_the_tables_order() -> None:
    names = [row["name"] for row in knobs.table()]
    assert len(set(names)) == len(names)
    assert all(row["source"] for row in knobs.table())
    zram = knobs.knobs_of(SwapFactors(swap="zram", zram_limit="20M", zram_recompressor="zstd", zram_writeback="huge"))
    assert list(zram) == [name for name in names if name in zram]
    assert (zram["zram_backing"], zram["zram_limit"], zram["zswap"]) == (knobs.DEVICE, str(20 * MIB), "N")
    assert not any(name.startswith("zram") for name in knobs.knobs_of(SwapFactors(swap="zswap")))
    assert knobs.settle_of(SwapFactors(swap="zram", zram_writeback="huge")).endswith("writeback=huge")
    assert knobs.settle_of(SwapFactors()) == ""


def test_a_guest_is_told_in_words_that_its_shell_takes(tmp_path) -> None:
    cell = SwapFactors(swap="zswap", encryption="@xts+cmac", workload="anon", write_share=0.25)
    word = SwapCell(factors=cell, kernel=tmp_path, initrd=tmp_path, disk_dilation=1.0).cell_word(7)
    told = dict(pair.split("=", 1) for pair in word.split(","))
    assert (told["encryption"], told["seed"], told["write_per_million"]) == ("@xts+cmac", "7", "250000")
    assert not set(" '") & set(word)
    assert len(word) < 1200


def test_the_smallest_and_the_largest_swap_fit_their_work() -> None:
    assert SwapFactors(disk_size="40M").swap_bytes == 40 * MIB
    assert SwapFactors(pressure=3.0).swap_bytes > 3 * 128 * MIB
    assert SwapFactors(swap="zram", zram_size="64M").swap_bytes == 64 * MIB


@pytest.mark.parametrize("name", ["smoke", "tour", "quickstart", "tutorial", "disks", "answers", "paper"])
def test_presets_are_plans_with_their_checks(name: str) -> None:
    assert name in built_in()
    plan = with_checks(load(name))
    cells = [SwapFactors.of(row.levels) for row in plan.all_cells]
    assert sum(cell.workload == "codec" for cell in cells) == 1
    assert sum(cell.copy == COPY for cell in cells) == 1
    assert with_checks(plan) == plan


def test_a_study_without_encryption_needs_no_dmsetup() -> None:
    assert image_of(SwapFactors()) == "busybox+dmsetup"
    assert image_of(SwapFactors(tools="")) == "busybox"
    with pytest.raises(InvalidInput, match="lacks dmsetup"):
        SwapFactors(tools="", encryption="@")


def test_the_tours_defaults_are_those_of_its_plan(tmp_path: Path) -> None:
    plans = TourSpec(out=tmp_path).swap_plan(), load(SWAP_PLAN)
    first, second = ([SwapFactors.of(row.levels) for row in plan.all_cells] for plan in plans)
    assert first == second


def test_checks_take_over_what_makes_a_guest_and_nothing_of_its_swap() -> None:
    plan = Plan(name="x", study="swap", fixed={"swap": "zram", "zram_limit": "20M", "memory": "96M"}, cells=[{}])
    codec = next(row for row in with_checks(plan).all_cells if row.levels.get("workload") == "codec")
    found = SwapFactors.of(codec.levels)
    assert (found.swap, found.memory, found.zram_limit) == ("none", "96M", "")
    wall = with_checks(Plan(name="x", study="swap", fixed={"clock": "wall"}, factors={"swap": ["disk", "zram"]}))
    assert not any(row.levels.get("copy") for row in wall.all_cells)


def test_a_study_of_a_program_has_its_codec_cell_too() -> None:
    fixed = {"workload": "program", "program": "stress-ng --vm 1", "packages": "stress-ng"}
    plan = with_checks(Plan(name="x", study="swap", fixed=fixed, factors={"swap": ["disk", "zram"]}))
    found = [SwapFactors.of(row.levels) for row in plan.all_cells]
    assert [cell.program for cell in found if cell.workload == "codec"] == [""]
    assert sum(cell.program == fixed["program"] for cell in found) == 3
