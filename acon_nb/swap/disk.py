"""The speed of a simulated disk: presets with their sources (`disks.toml`), what they become in a guest's time.

A request is held on the disk's link, which serves one after another, for the longer of 1/IOPS and its bytes over the
bandwidth; then it takes the rest of the latency, in parallel with the others of the queue. So with n bytes and a depth
of d (never more than the queue), a second has the lesser of d / T and 1 / hold requests, where

    hold(n) = max(1 / IOPS, n / bandwidth)        T(n) = max(latency, hold(4 KiB)) - hold(4 KiB) + hold(n)

A disk that seeks holds its arm for all of T, so that it has 1 / T at any depth; a request that begins where the last
one ended takes n / bandwidth alone. The driver is kernel/features/delay-disk.patch.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.units import parse_bytes, parse_ns
from acon_nb.validation import build

_TABLE = Path(__file__).with_name("disks.toml")
_BLOCK_BYTES = 4096
# What a latency has besides the device, on the instruction clock: system call, block layer, interrupt, wake-up. It is
# fio's mean latency at depth 1 less the driver's (tests/system/test_disk.py): 9.6 to 10.8 µs. A datasheet's has it too.
PATH_NS = 10_000
MODULE = "delay_disk"  # the driver, as its parameters on the command line and in /sys/module begin
DEVICE = "delay"  # no digit at its end: partitions are delay1, delay2


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one direction of a disk can do, on hardware: the latency of 4 KiB, and its limits (0: none)."""

    latency_ns: int
    iops: int
    bandwidth_bytes_per_s: int


@dataclass(frozen=True, kw_only=True)
class DiskSpeed:
    """The speed of a disk on hardware. `queue` requests at a time; `seek`: the latency is that of an arm."""

    read: Rates
    write: Rates
    queue: int
    seek: bool = False

    def driver_parameters(self, dilation: float, path_ns: int = 0) -> dict[str, int]:
        """The parameters of the guest's driver where a guest's time is `dilation` times the hardware's.

        `path_ns` of the latency pass in the guest itself, on a request's way to the driver and back.
        """
        parameters = {"queue": self.queue, "seek": int(self.seek)}
        for name, rates in (("read", self.read), ("write", self.write)):
            bandwidth = rates.bandwidth_bytes_per_s
            parameters |= {
                f"{name}_latency_ns": max(0, round(rates.latency_ns * dilation) - path_ns),
                f"{name}_gap_ns": round(1e9 * dilation / rates.iops) if rates.iops else 0,
                f"{name}_block_ns": round(1e9 * dilation * _BLOCK_BYTES / bandwidth) if bandwidth else 0,
            }
        return parameters

    def columns(self, dilation: float) -> dict[str, float]:
        """The columns of a row: on hardware, and in the guest's time; none for a limit that the disk does not have."""
        row: dict[str, float] = {"disk_queue": self.queue}
        for prefix, rates in (("disk", self.read), ("disk_write", self.write)):
            row[f"{prefix}_latency_hardware_ns"] = rates.latency_ns
            row[f"{prefix}_latency_ns"] = round(rates.latency_ns * dilation)
            if rates.iops:
                row[f"{prefix}_iops_hardware"] = rates.iops
                row[f"{prefix}_iops"] = rates.iops / dilation
            if rates.bandwidth_bytes_per_s:
                row[f"{prefix}_bandwidth_hardware_bytes_per_s"] = rates.bandwidth_bytes_per_s
                row[f"{prefix}_bandwidth_bytes_per_s"] = rates.bandwidth_bytes_per_s / dilation
        return row


@functools.cache
def presets() -> Mapping[str, DiskSpeed]:
    """The disks of `disks.toml` by name."""
    rows = tomllib.loads(_TABLE.read_text())["disk"]
    return {
        row["name"]: DiskSpeed(
            read=build(Rates, row["read"], what="a disk"),
            write=build(Rates, row["write"], what="a disk"),
            queue=row["queue"],
            seek=row["seek"],
        )
        for row in rows
    }


PRESETS = tuple(presets())


def speed_of(preset: str, *, latency: str = "", iops: int = 0, bandwidth: str = "", queue: int = 0) -> DiskSpeed:
    """The speed of a preset, whose figures the others replace for reads and writes where they are given.

    `latency` is a time ("80us"), `bandwidth` bytes a second ("125M": MiB).
    Errors: `InvalidInput` that names the factor.
    """
    speed = presets()[preset]
    change: dict[str, int] = {}
    if latency:
        change["latency_ns"] = parse_ns(latency, field="disk_latency")
    if iops:
        change["iops"] = iops
    if bandwidth:
        change["bandwidth_bytes_per_s"] = parse_bytes(bandwidth, field="disk_bandwidth", bare="M")
        if not change["bandwidth_bytes_per_s"]:
            raise InvalidInput("disk_bandwidth", bandwidth, "is not a bandwidth", hint="bytes a second, such as 125M")
    read, write = (replace(rates, **change) for rates in (speed.read, speed.write))
    return replace(speed, read=read, write=write, queue=queue or speed.queue)
