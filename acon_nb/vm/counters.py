"""Live counters of a running guest as its host sees them: from QMP and /proc, without the guest's help."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient

_INDEX_MODULUS = 1 << 16  # a virtio queue's used index (virtio 1.2, 2.7.8)


@dataclass(frozen=True, kw_only=True)
class DiskCounters:
    """What a virtio-blk device has read and written since the guest's start."""

    name: str
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One reading of a guest's counters.

    `host_ns` is the host's monotonic time, `vcpu_ns` each vCPU thread's time on a host CPU, `resident_bytes` QEMU's
    resident set, `balloon_bytes` the memory that the balloon leaves to the guest (None without `balloon`).
    `received_packets` and `sent_packets` are the buffers that the virtio-net queues have used (None without a network),
    since QEMU's user network does not count bytes.
    """

    host_ns: int
    vcpu_ns: tuple[int, ...]
    resident_bytes: int
    balloon_bytes: int | None = None
    disks: tuple[DiskCounters, ...] = ()
    received_packets: int | None = None
    sent_packets: int | None = None


class Sampler:
    """Takes samples of one guest over its QMP client; only for use in the machine's event loop."""

    def __init__(self, client: QMPClient, pid: int) -> None:
        self._client = client
        self._proc = Path("/proc") / str(pid)
        self._threads: tuple[int, ...] | None = None
        self._network_path: str | None = None
        self._balloon = True
        self._queues = {0: (0, 0), 1: (0, 0)}  # queue -> (last index, packets so far)

    async def sample(self) -> Sample:
        """Read all counters once. Errors: `QMPError` and `OSError` when QEMU is gone."""
        if self._threads is None:
            await self._find_devices()
        assert self._threads is not None
        balloon = await self._ask("query-balloon") if self._balloon else None
        self._balloon = balloon is not None
        disks = tuple(_disk(row) for row in await self._ask("query-blockstats") or ())
        packets = [await self._packets(queue) for queue in self._queues]
        pages = int((self._proc / "statm").read_text().split()[1])
        return Sample(
            host_ns=time.monotonic_ns(),
            vcpu_ns=tuple(self._cpu_ns(thread) for thread in self._threads),
            resident_bytes=pages * 4096,
            balloon_bytes=int(balloon["actual"]) if balloon else None,
            disks=disks,
            received_packets=packets[0],
            sent_packets=packets[1],
        )

    async def _find_devices(self) -> None:
        """Find the vCPU threads (one for all under single-threaded TCG) and the network device."""
        rows = await self._ask("query-cpus-fast") or ()
        self._threads = tuple(dict.fromkeys(int(row["thread-id"]) for row in rows))
        devices = await self._ask("x-query-virtio") or ()  # QEMU 7.2 and later
        self._network_path = next((row["path"] for row in devices if row["name"] == "virtio-net"), None)

    async def _ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """The answer, or None if QEMU has no such command or device."""
        with contextlib.suppress(ExecuteError):
            return await self._client.execute(command, arguments)
        return None

    async def _packets(self, queue: int) -> int | None:
        if self._network_path is None:
            return None
        status = await self._ask("x-query-virtio-queue-status", {"path": self._network_path, "queue": queue})
        last, count = self._queues[queue]
        if status is not None:
            index = int(status["used-idx"])
            count += (index - last) % _INDEX_MODULUS
            self._queues[queue] = (index, count)
        return count

    def _cpu_ns(self, thread: int) -> int:
        """Time on a CPU: the first number of schedstat (kernel: Documentation/scheduler/sched-stats.rst)."""
        return int((self._proc / "task" / str(thread) / "schedstat").read_text().split()[0])


def _disk(row: dict[str, Any]) -> DiskCounters:
    stats = row["stats"]
    return DiskCounters(
        name=row.get("device") or row.get("node-name", ""),
        read_bytes=stats["rd_bytes"],
        written_bytes=stats["wr_bytes"],
        reads=stats["rd_operations"],
        writes=stats["wr_operations"],
    )
