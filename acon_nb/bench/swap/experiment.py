"""Swap studies: how a plan's cells are built and run, and the checks that every study has.

Seeds are the replicates: block N of a plan runs with seed N + 1 (QEMU's and the workload's). Each study has a codec
cell (the dilation, measured anew) and, on the instruction clock, a copy of a cell that must give the same counters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.bench.boot_study import host_fault
from acon_nb.bench.builds import Builds
from acon_nb.bench.plan import Level, Plan, Setting, Turn
from acon_nb.bench.runner import Measured
from acon_nb.bench.swap import calibration, data, rows
from acon_nb.bench.swap.cell import SwapCell, cell_initrd, image_of
from acon_nb.bench.swap.factors import PAGE_BYTES, PROGRAM_ONLY, SWAP_ONLY, SwapFactors
from acon_nb.bench.swap.programs import codec_program
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import AconError
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.vm import Capabilities, Clock, Machine, Message, VmSpec, capabilities, disk

if TYPE_CHECKING:
    import pandas as pd

COPY = "again"
_LATENCY = "cell's disk_latency_ns"  # of every cell; the column of that name is of those that have such a disk
_GUEST = ("clock", "kernel", "profile", "source", "settings", "machine", "memory", "dilation", "timeout_s")
_TSC_RATE = re.compile(r"tsc_early_khz=\d+")


class SwapExperiment:
    """The swap cells of a plan. `plan` is the plan with its checks.

    Errors: `InvalidInput` at construction for a factor or a level that is none, or cannot be.
    """

    kind = "swap"

    def __init__(self, plan: Plan, *, cache: Cache | None = None) -> None:
        self.plan = with_checks(plan)
        self._store = cache or Cache()
        self._factors = {row.label: SwapFactors.of(row.levels) for row in self.plan.settings}
        self._cells: dict[str, SwapCell] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._ratios: dict[str, data.Ratios] = {}
        self._builds = Builds(self._store)
        self._host: Capabilities | None = None
        self._running: dict[str, list[dict[str, Any]]] = {}
        self._codec: tuple[Path, Path] | None = None

    @property
    def unbuilt(self) -> Mapping[str, AconError]:
        """The cells whose kernel could not be built, by label, with the reason; after `prepare`."""
        return self._builds.unbuilt

    def clock(self, setting: Setting) -> Clock:
        """The clock of a cell."""
        return Clock(self._factors[setting.label].clock)

    def prepare(
        self, *, jobs: int | None = None, on_progress: OnProgress = silent, cancel: CancelToken | None = None
    ) -> None:
        """Build the kernels, the data and the initrds, say the data's ratios, and calibrate each clock.

        Errors: those of `kernel.build` (its failures only if no cell is left), of a corpus and of an initrd;
        `InvalidInput` for a guest that cannot be; `GuestFailed` when the calibration's guest gives no times.
        """
        self._host = capabilities()
        for number, (label, factors) in enumerate(self._factors.items()):
            on_progress(Progress("prepare the cells", number / len(self._factors), label))
            if cancel is not None:
                cancel.check()
            image = self._kernel(label, factors, jobs, on_progress, cancel)
            if image is None:
                continue
            pages = self._pages(factors, on_progress)
            initrd = cell_initrd(image_of(factors), pages, cache=self._store, on_progress=on_progress)
            found = self._calibration(factors, image, on_progress, cancel)
            self._make(label, factors, image, initrd, found)
        self._builds.check(len(self._factors))
        on_progress(Progress("prepare the cells", 1.0))

    def parts(self, setting: Setting) -> dict[str, Path]:
        """The files that a cell needs on another host, by name; after `prepare`."""
        cell = self._cells[setting.label]
        found = {"kernel": cell.kernel, "initrd": cell.initrd}
        if cell.factors.workload == "codec":
            found |= {"codec": codec_program(self._store), "pages": calibration.pages_file(self._store)}
        return found

    def findings(self, setting: Setting) -> dict[str, Any]:
        """What `prepare` found out for a cell: the columns that all its rows have, the latency of its disk."""
        return {**self._facts[setting.label], _LATENCY: self._cells[setting.label].disk_latency_ns}

    def adopt(self, setting: Setting, parts: Mapping[str, Path], findings: Mapping[str, Any]) -> None:
        """Take a cell's files as they came from another host, with what was found out there, in place of `prepare`."""
        self._host = capabilities()
        facts = dict(findings)
        self._cells[setting.label] = SwapCell(
            factors=self._factors[setting.label],
            kernel=parts["kernel"],
            initrd=parts["initrd"],
            disk_latency_ns=int(facts.pop(_LATENCY)),
        )
        self._facts[setting.label] = facts
        self._codec = (parts["codec"], parts["pages"]) if "codec" in parts else None

    def identity(self, setting: Setting) -> str:
        """The hash of what the cell boots: the spec with the files' bytes, QEMU's version, the cell's copy."""
        factors = self._factors[setting.label]
        assert self._host is not None
        values = {name: _plain(value) for name, value in vars(self._cells[setting.label].spec(factors.seed)).items()}
        text = json.dumps({**values, "disk": factors.disk, "copy": factors.copy}, sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()} {self._host.version}"

    def run(self, setting: Setting, turn: Turn, cancel: CancelToken) -> Measured:
        """Run the cell once. A guest that runs out of memory, hangs or panics is a result."""
        cell, factors = self._cells[setting.label], self._factors[setting.label]
        seed = factors.seed or turn.block + 1
        with tempfile.TemporaryDirectory(prefix="acon-nb-") as folder:
            image = None
            if factors.disk == "virtio" and factors.uses_disk:
                image = disk.create(Path(folder, "swap.raw"), factors.swap_bytes).path
            spec = cell.spec(seed, image)
            with (
                self._live(f"{setting.label}, seed {seed}", factors) as hear,
                Machine(spec, host=self._host, on_message=hear) as machine,
            ):
                outcome = machine.wait(cancel)
        row = {f"factor_{name}": level for name, level in factors.levels().items()}
        row |= {**self._facts[setting.label], "seed": seed, "accelerator": outcome.accelerator}
        try:
            row |= rows.row_of(factors, outcome)
            end, error = rows.end_of([message.data for message in outcome.messages], outcome)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
            end, error = outcome.end, f"the guest said what no cell says: {problem!r}"
        if factors.workload == "codec" and "codec_guest_lz4_ns" in row:
            row |= self._codec_row(row)
        return Measured(row=row, end=end, console=outcome.console, host_fault=host_fault(outcome), error=error)

    def samples(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        """The samples so far of each guest that runs now, by cell and seed; any thread may ask."""
        return {guest: tuple(found) for guest, found in dict(self._running).items()}

    @contextlib.contextmanager
    def _live(self, guest: str, factors: SwapFactors) -> Iterator[Callable[[Message], None]]:
        """Keep the samples of a guest while it runs; what is no sample is judged when it has ended."""
        found = self._running[guest] = []

        def hear(message: Message) -> None:
            with contextlib.suppress(KeyError, TypeError, ValueError, IndexError, AttributeError):
                found.extend(rows.samples(factors, [message.data]))

        try:
            yield hear
        finally:
            self._running.pop(guest, None)

    def ratios(self) -> dict[str, data.Ratios]:
        """The ratios of each mix, after `prepare`."""
        return dict(self._ratios)

    def _kernel(
        self, label: str, factors: SwapFactors, jobs: int | None, on_progress: OnProgress, cancel: CancelToken | None
    ) -> Path | None:
        if factors.kernel != "build":
            return Path(factors.kernel)
        return self._builds.image(label, factors.build_spec(), jobs=jobs, on_progress=on_progress, cancel=cancel)

    def _pages(self, factors: SwapFactors, on_progress: OnProgress) -> Path:
        """The cell's pages; what they compress to is said as soon as it is known."""
        if factors.workload == "codec":
            return calibration.pages_file(self._store)
        pages = data.page_file(factors.mix, cache=self._store, on_progress=on_progress)
        if factors.data not in self._ratios:
            found = data.ratios(pages, cache=self._store)
            self._ratios[factors.data] = found
            text = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.ratio.items())
            on_progress(Progress("measure the data", 1.0, f"{factors.data}: {text or 'nothing to compress'}"))
        return pages

    def _calibration(
        self, factors: SwapFactors, image: Path, on_progress: OnProgress, cancel: CancelToken | None
    ) -> calibration.Calibration | None:
        """The dilation of the cell's clock and machine; none where the plan gives it."""
        if factors.dilation:
            return None
        return calibration.calibrate(
            self._codec_spec(factors, image, on_progress),
            host=self._host,
            cache=self._store,
            on_progress=on_progress,
            cancel=cancel,
        )

    def _codec_spec(self, factors: SwapFactors, image: Path, on_progress: OnProgress) -> VmSpec:
        """The guest that runs the codecs."""
        codec = dataclasses.replace(
            SwapFactors(), workload="codec", swap="none", clock=factors.clock, machine=factors.machine
        )
        initrd = cell_initrd(
            image_of(codec), calibration.pages_file(self._store), cache=self._store, on_progress=on_progress
        )
        return SwapCell(factors=codec, kernel=image, initrd=initrd, disk_latency_ns=0).spec(1)

    def _make(
        self, label: str, factors: SwapFactors, image: Path, initrd: Path, found: calibration.Calibration | None
    ) -> None:
        dilation = factors.dilation or (found.dilation if found else 1.0)
        latency_ns = round(factors.disk_latency_hardware_ns * dilation)
        cell = SwapCell(factors=factors, kernel=image, initrd=initrd, disk_latency_ns=latency_ns)
        spec = cell.spec(1)
        self._cells[label] = cell
        facts: dict[str, Any] = {
            "configuration": factors.configuration,
            "memory_bytes": factors.memory_bytes,
            "guest_memory_bytes": spec.memory_bytes,
            "dilation": dilation,
            "kernel_sha256": sha256_file(image),
            "initrd_sha256": sha256_file(initrd),
            "cmdline": spec.append,
        }
        if factors.workload != "codec":
            facts |= {"working_set_bytes": factors.pages * PAGE_BYTES, "pages": factors.pages}
            facts["swap_size_bytes"] = factors.swap_bytes
        if factors.disk == "delay" and factors.workload != "codec":
            facts |= {"disk_latency_ns": latency_ns, "disk_latency_hardware_ns": factors.disk_latency_hardware_ns}
        if found is not None:
            facts |= {f"dilation_{name}": value for name, value in found.of_codec.items()}
        ratios = self._ratios.get(factors.data)
        if factors.workload != "codec" and ratios is not None:
            facts |= {f"data_ratio_{name}": value for name, value in ratios.ratio.items()}
            facts |= {f"data_deviation_{name}": value for name, value in ratios.deviation.items()}
            facts |= {"data_poor_lz4_share": ratios.whole_share.get("lz4"), "data_sha256": ratios.sha256}
        self._facts[label] = facts

    def _codec_row(self, row: Mapping[str, Any]) -> dict[str, float]:
        """What a codec cell adds: the host's times now, and the dilation that follows."""
        guest = {name: float(row[f"codec_guest_{name}_ns"]) for name in calibration.CODECS}
        measured = calibration.Calibration(host_ns=self._on_host(), guest_ns=guest)
        return {**measured.row(), "dilation": measured.dilation}

    def _on_host(self) -> dict[str, float]:
        """The codecs' times here: by a program that came with the cell, or one of this host's cache."""
        return calibration.on_host(self._store) if self._codec is None else calibration.time_codecs(*self._codec)


def with_checks(plan: Plan) -> Plan:
    """The plan with a codec cell, and a copy of its first cell on the instruction clock, if it has none."""
    factors = [(row, SwapFactors.of(row.levels)) for row in plan.settings]
    cells: list[Mapping[str, Level]] = list(plan.cells)
    if not plan.factors and not plan.cells:
        cells = [{}]
    if not any(found.workload == "codec" for _, found in factors):
        cells.append(_codec_cell(plan, factors[0][1]))
    counted = [
        (row, found) for row, found in factors if found.clock == Clock.INSTRUCTIONS and found.workload != "codec"
    ]
    if counted and not any(found.copy for _, found in factors):
        first = counted[0][0].levels
        cells.append({**{name: level for name, level in first.items() if name not in plan.fixed}, "copy": COPY})
    return dataclasses.replace(plan, cells=tuple(cells))


def _codec_cell(plan: Plan, factors: SwapFactors) -> dict[str, Level]:
    """A cell that runs the codecs: the guest's factors as they are, those of its swap or program as by default."""
    defaults = SwapFactors()
    cell: dict[str, Level] = {"workload": "codec", "swap": "none"}
    others = (*SWAP_ONLY, *PROGRAM_ONLY)
    fixed = [name for name in others if name in plan.fixed and plan.fixed[name] != getattr(defaults, name)]
    cell |= {name: getattr(defaults, name) for name in fixed}
    return cell | {name: getattr(factors, name) for name in _GUEST if name in plan.varying}


def determinism(table: pd.DataFrame) -> pd.DataFrame:
    """Each copy of a cell beside the run that it repeats: the same seed must give the same counters and latencies.

    Columns: cell, seed, same. Empty when nothing was run twice on the instruction clock.
    """
    import pandas as pd

    columns = ["cell", "seed", "same"]
    if table.empty or "counters_sha256" not in table:
        return pd.DataFrame(columns=columns)
    counted = table[table["counters_sha256"].notna() & (table["factor_workload"] != "codec")]
    names = [name for name in counted if str(name).startswith("factor_") and name not in ("factor_copy", "factor_seed")]
    found = []
    for _, part in counted.groupby([*names, "seed"], dropna=False, sort=False):
        if part["factor_copy"].nunique() > 1:
            first = part[part["factor_copy"] != ""].iloc[0]
            same = part["counters_sha256"].nunique() == 1
            found.append({"cell": first["configuration"], "seed": int(first["seed"]), "same": bool(same)})
    return pd.DataFrame(found, columns=columns)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return sha256_file(value)
    return _TSC_RATE.sub("", str(value)) if value is not None else None
