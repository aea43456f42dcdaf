"""What the cluster's driver costs as a study grows: memory and time for a cell, with a machine that only sleeps.

    .venv/bin/python benchmarks/cluster_scale.py [--hosts 1000] [--cells 1000,10000,100000] [--sleep 0.05] [--dask]

Without --dask the hosts are a heap of timers in this process: all that is measured is the driver with its store. With
--dask they are workers of a real scheduler, all in one second process, each called a host of its own; runs, files and
rows go the real way over TCP, and only the guests are missing. Each size is a plan of that many cells, run once each,
in a process of its own. Prints the driver's CPU time and wall time for a cell, and its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from acon_nb.host import environment
from acon_nb.progress import CancelToken, TextProgress
from acon_nb.results.store import Store
from acon_nb.study import host_lock
from acon_nb.study.cluster import ClusterStudy, DaskPool, artifacts, connect, worker
from acon_nb.study.cluster.worker import HostReport, Reply, Ticket
from acon_nb.study.plan import Plan, PlanCell, PlannedRun
from acon_nb.study.runner import Measured
from acon_nb.vm import Clock, End

_FILE = Path(__file__)


class Sleeper:
    """A machine that only sleeps; its one file is this program."""

    kind = "sleep"
    unbuilt: Mapping[str, Exception] = MappingProxyType({})

    def __init__(self, plan: Plan) -> None:
        self._seconds = float(plan.fixed["seconds"])

    def clock(self, cell: PlanCell) -> Clock:
        return Clock.INSTRUCTIONS

    def prepare(self, **_: object) -> None:
        pass

    def identity(self, cell: PlanCell) -> str:
        return cell.label

    def parts(self, cell: PlanCell) -> dict[str, Path]:
        return {"program": _FILE}

    def findings(self, cell: PlanCell) -> dict[str, Any]:
        return {}

    def adopt(self, cell: PlanCell, parts: Mapping[str, Path], findings: Mapping[str, Any]) -> None:
        pass

    def run(self, cell: PlanCell, planned: PlannedRun, cancel: CancelToken) -> Measured:
        time.sleep(self._seconds)
        return Measured(row=ROW, end=End.POWERED_OFF, console=Path("/nowhere"))


ROW: Mapping[str, Any] = {f"guest_ns_{name}": number for number, name in enumerate(["init", "ready", "reset_to_init"])}


def host_report(number: int) -> HostReport:
    """The report of a host that is none."""
    name = f"host{number:04}"
    return HostReport(
        incarnation=worker.INCARNATION,
        boot_id=name,
        place="here",
        environment=replace(environment(), host=name),
        qemu=worker.qemu_text(),
        kvm=False,
    )


class Timers:
    """A pool without a cluster: a run ends some time after it was sent."""

    def __init__(self, hosts: int, seconds: float) -> None:
        self._addresses = {f"host://{number:04}": number for number in range(hosts)}
        self._seconds = seconds
        self._heap: list[tuple[float, int, Callable[[Any], None]]] = []
        self._numbers = itertools.count()
        self._wake = threading.Condition()
        self._host = environment()
        threading.Thread(target=self._run, daemon=True).start()

    def workers(self) -> dict[str, int]:
        return dict.fromkeys(self._addresses, 1)

    def ask(self, function: Callable[..., Any], *args: Any, workers: Sequence[str], large: bool = False) -> Any:
        if function is worker.report:
            return {name: host_report(self._addresses[name]) for name in workers}
        return dict.fromkeys(workers, [] if function is artifacts.missing else 0)

    def submit(self, address: str, ticket: Ticket, on_done: Callable[[Any], None]) -> int:
        number = next(self._numbers)
        with self._wake:
            heapq.heappush(self._heap, (time.monotonic() + self._seconds, number, on_done))
            self._wake.notify()
        return number

    def result(self, handle: int) -> Reply:
        return Reply(row=ROW, end=End.POWERED_OFF, seconds=self._seconds, host=self._host)

    def cancel(self, handles: Iterable[int]) -> None:
        pass

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    self._wake.wait(max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None)
                _, number, on_done = heapq.heappop(self._heap)
            on_done(number)


class NamedPool(DaskPool):
    """A Dask cluster whose workers say that each is a host of its own."""

    def ask(self, function: Callable[..., Any], *args: Any, workers: Sequence[str], large: bool = False) -> Any:
        if function is worker.report:
            return self._client.run(named_report, workers=list(workers))
        return super().ask(function, *args, workers=workers, large=large)


def named_report(dask_worker: Any) -> HostReport:
    return host_report(int(dask_worker.name))


@contextlib.contextmanager
def no_lock(**_: object) -> Iterator[None]:
    yield


async def serve(hosts: int) -> None:
    """A scheduler and its workers in this process; prints the address and stays."""
    from distributed import Scheduler, Worker

    host_lock.host_lock = no_lock  # these hosts are one host, and would take turns
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        workers = [
            Worker(scheduler.address, name=number, host="127.0.0.1", nthreads=1, resources={"vm": 1}, memory_limit=0)
            for number in range(hosts)
        ]
        for start in range(0, hosts, 20):
            await asyncio.gather(*(one for one in workers[start : start + 20]))
        print(scheduler.address, flush=True)
        await asyncio.Event().wait()


def measure(cells: int, pool: Any, seconds: float) -> dict[str, float]:
    """One study of that many cells, in this process."""
    from cluster_scale import Sleeper as Known  # by a name that the workers can import

    with tempfile.TemporaryDirectory(prefix="acon-nb-") as folder:
        plan = Plan(name="scale", study="sleep", factors={"cell": range(cells)}, fixed={"seconds": seconds}, runs=1)
        store = Store(Path(folder))
        before_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        cpu, wall = time.process_time(), time.monotonic()
        study = ClusterStudy(plan=plan, experiment=Known(plan), store=store, pool=pool)
        made_cpu = time.process_time() - cpu
        study.measure(on_progress=TextProgress(every_s=30))
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        assert study.state.done == cells
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        started = time.monotonic()
        rows = study.rows()
        assert len(rows) == rows["run_key"].nunique() == cells
        return {
            "cells": cells,
            "plan_ms_per_cell": 1e3 * made_cpu / cells,
            "cpu_ms_per_cell": 1e3 * cpu / cells,
            "wall_ms_per_cell": 1e3 * wall / cells,
            "memory_kib_per_cell": (peak_bytes - before_bytes) / 1024 / cells,
            "peak_mib": peak_bytes / (1 << 20),
            "read_ms_per_cell": 1e3 * (time.monotonic() - started) / cells,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--cells", default="1000,10000,100000")
    parser.add_argument("--sleep", type=float, default=0.05)
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--scheduler", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    me = [sys.executable, str(_FILE), "--hosts", str(args.hosts), "--sleep", str(args.sleep)]
    if args.serve:
        asyncio.run(serve(args.hosts))
    elif args.one and args.scheduler:
        with connect(args.scheduler) as client:
            print(json.dumps(measure(args.one, NamedPool(client), args.sleep)))
    elif args.one:
        print(json.dumps(measure(args.one, Timers(args.hosts, args.sleep), args.sleep)))
    else:
        kind = "workers of a real scheduler in one process" if args.dask else "timers"
        print(f"{args.hosts} hosts ({kind}), each run sleeps {args.sleep:g} s")
        server = subprocess.Popen([*me, "--serve"], stdout=subprocess.PIPE, text=True) if args.dask else None
        try:
            more = ["--scheduler", server.stdout.readline().strip()] if server and server.stdout else []
            for cells in args.cells.split(","):
                text = subprocess.run(
                    [*me, *more, "--one", cells], stdout=subprocess.PIPE, text=True, check=True
                ).stdout
                row = json.loads(text.splitlines()[-1])
                print("  ".join(f"{name} {value:.6g}" for name, value in row.items()), flush=True)
        finally:
            if server is not None:
                server.kill()
                server.wait()


if __name__ == "__main__":
    main()
