"""The speed of a simulated disk: presets, factors that replace their figures, and the guest's time."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.swap import SwapFactors, disk
from acon_nb.swap.cell import SwapCell

ROOT = Path(__file__).parents[2] / "acon_nb"


def test_every_preset_has_its_sources_and_can_be_chosen() -> None:
    rows = tomllib.loads((ROOT / "swap/disks.toml").read_text())["disk"]
    assert {"nvme", "sata-ssd", "cloud-3000", "emmc", "hdd"} < {row["name"] for row in rows}
    for row in rows:
        assert len(row["source"]) > 60
        assert SwapFactors(disk_preset=row["name"]).disk_speed == disk.presets()[row["name"]]


def test_a_factor_replaces_the_presets_figure_for_reads_and_writes() -> None:
    speed = SwapFactors(
        disk_preset="sata-ssd", disk_latency="0.5ms", disk_iops=3000, disk_bandwidth="125M", disk_queue=4
    ).disk_speed
    assert speed.read == speed.write == disk.Rates(latency_ns=500_000, iops=3000, bandwidth_bytes_per_s=125 << 20)
    assert speed.queue == 4
    only = SwapFactors(disk_preset="sata-ssd", disk_queue=1).disk_speed
    assert (only.read, only.queue) == (disk.presets()["sata-ssd"].read, 1)


@given(st.sampled_from(disk.PRESETS), st.floats(0.5, 50), st.sampled_from(["read", "write"]), st.integers(1, 64))
def test_a_guests_disk_is_the_hardwares_slowed_down(preset: str, dilation: float, way: str, blocks: int) -> None:
    speed = disk.presets()[preset]
    rates, parameters = getattr(speed, way), speed.driver_parameters(dilation)
    assert parameters[f"{way}_latency_ns"] == pytest.approx(rates.latency_ns * dilation, rel=1e-3)
    if rates.iops:
        assert 1e9 / parameters[f"{way}_gap_ns"] == pytest.approx(rates.iops / dilation, rel=1e-3)
    if rates.bandwidth_bytes_per_s:
        ns = parameters[f"{way}_block_ns"] * blocks
        assert blocks * 4096e9 / ns == pytest.approx(rates.bandwidth_bytes_per_s / dilation, rel=1e-3)
    assert (parameters["queue"], parameters["seek"]) == (speed.queue, int(preset == "hdd"))


def test_the_driver_knows_each_parameter_that_it_is_given(tmp_path: Path) -> None:
    driver = (ROOT / "kernel/features/delay-disk.patch").read_text()
    cell = SwapCell(factors=SwapFactors(), kernel=tmp_path, initrd=tmp_path, disk_dilation=12.0)
    given = [word.partition("=")[0] for word in cell._disk_words()]
    assert len(given) == len(set(given)) == 9
    for name in given:
        module, _, parameter = name.partition(".")
        assert f"/{module}.c" in driver
        assert f"+module_param({parameter}," in driver or f"+module_param_named({parameter}," in driver
    assert f'"{disk.DEVICE}"' in driver


def test_a_row_has_the_disk_on_hardware_and_in_the_guests_time() -> None:
    row = SwapFactors(disk_preset="cloud-3000").disk_speed.columns(10.0)
    assert (row["disk_latency_hardware_ns"], row["disk_latency_ns"]) == (1_000_000, 10_000_000)
    assert (row["disk_iops_hardware"], row["disk_iops"], row["disk_queue"]) == (3000, 300.0, 256)
    assert row["disk_write_bandwidth_bytes_per_s"] == pytest.approx(12.5 * (1 << 20))
    assert "disk_iops" not in SwapFactors(disk_preset="hdd").disk_speed.columns(10.0)
