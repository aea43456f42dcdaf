"""Swap studies: how a plan's cells are built and run, and the checks that every study has.

Seeds are the replicates: block N of a plan runs with seed N + 1 (QEMU's and the workload's). Each study has a codec
cell (each class of work on host and guest, measured anew) and, on the instruction clock, a copy of a cell that must
give the same counters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.cache import Cache, json_sha256, sha256_file
from acon_nb.errors import AconError
from acon_nb.guest.programs import classes_program
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.study import clock_parts
from acon_nb.study.builds import Builds
from acon_nb.study.faults import host_fault
from acon_nb.study.functions import check_counting, functions_of, starts_of, system_map_of
from acon_nb.study.kernels import spec_of
from acon_nb.study.plan import Level, Plan, PlanCell, PlannedRun
from acon_nb.study.runner import Measured
from acon_nb.swap import calibration, data, guest_report, knobs, limits, needs, profiling, program_report, workloads
from acon_nb.swap.cell import SwapCell, cell_initrd, check_unpacking, image_of
from acon_nb.swap.derived import derived_columns
from acon_nb.swap.factor_checks import PROGRAM_ONLY, SWAP_ONLY
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.image.cell import CellPrograms
from acon_nb.swap.levels import PAGE_BYTES
from acon_nb.vm import Capabilities, Clock, Machine, Message, Outcome, VmSpec, capabilities, disk
from acon_nb.vm.spec import identifying_values

if TYPE_CHECKING:
    import pandas as pd

COPY = "again"
_DILATION = "cell's disk_dilation"  # how much a cell's disk is slowed down, for another host; not a column
_GUEST = (
    "clock",
    "kernel",
    "profile",
    "source",
    "settings",
    "machine",
    "memory",
    "dilation",
    "timeout_s",
    "accelerator",
)


class SwapExperiment:
    """The swap cells of a plan. `plan` is the plan with its checks.

    Errors: `InvalidInput` at construction for an unknown factor or an invalid level.
    """

    kind = "swap"

    def __init__(self, plan: Plan, *, cache: Cache | None = None) -> None:
        self._planned = frozenset(row.label for row in plan.all_cells)
        self.plan = with_checks(plan)
        self._store = cache or Cache()
        self._profile, self._calls = plan.profile, plan.calls
        self._factors = {row.label: SwapFactors.of(row.levels) for row in self.plan.all_cells}
        self._cells: dict[str, SwapCell] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._ratios: dict[str, data.Ratios] = {}
        self._builds = Builds(self._store)
        self._programs = CellPrograms(self._store)
        self._host: Capabilities | None = None
        self._running: dict[str, list[dict[str, Any]]] = {}
        self._codec: tuple[Path, Path] | None = None
        self._calibrations: dict[tuple[str, str, str], calibration.Calibration] = {}

    @property
    def unbuilt(self) -> Mapping[str, AconError]:
        """The cells whose kernel could not be built, by label, with the reason; after `prepare`."""
        return self._builds.unbuilt

    def clock(self, cell: PlanCell) -> Clock:
        """The clock of a cell."""
        return Clock(self._factors[cell.label].clock)

    def role(self, cell: PlanCell) -> str:
        """What a cell is for that `with_checks` added: runs that the plan itself does not have."""
        if cell.label in self._planned:
            return ""
        return "calibration" if self._factors[cell.label].workload == "codec" else "repeated to check determinism"

    def guest_bytes(self, cell: PlanCell) -> int:
        """The RAM of a guest of the cell, the simulated disk's included."""
        return knobs.guest_bytes(self._factors[cell.label])

    def prepare(
        self, *, jobs: int | None = None, on_progress: OnProgress = silent, cancel: CancelToken | None = None
    ) -> None:
        """Build the kernels, the data and the initrds, say the data's ratios, and calibrate each clock.

        Errors: those of `kernel.build` (its failures only if no cell is left), of a corpus and of an initrd;
        `InvalidInput` for a guest that cannot be; `GuestFailed` when the calibration's guest gives no times.
        """
        self._host = capabilities()
        clocks = {Clock(factors.clock) for factors in self._factors.values()}
        check_counting(self._host.qemu, clocks, profile=self._profile, cache=self._store, on_progress=on_progress)
        for factors in self._factors.values():
            limits.check_host(factors, self._host, on_progress)
            workloads.check_packages(factors.workload_name)
        for number, (label, factors) in enumerate(self._factors.items()):
            on_progress(Progress("prepare the cells", number / len(self._factors), label))
            if cancel is not None:
                cancel.check()
            image = self._kernel(label, factors, jobs, on_progress, cancel)
            if image is None:
                continue
            needs.check(factors, image, cache=self._store)
            pages = self._pages(factors, on_progress)
            words = data.dictionary(factors.zram_dictionary, cache=self._store, on_progress=on_progress)
            initrd = cell_initrd(image_of(factors), pages, dictionary=words, cache=self._store, on_progress=on_progress)
            measured = self._calibration(factors, image, on_progress, cancel)
            self._make(label, factors, image, initrd, measured)
        self._builds.check(len(self._factors))
        on_progress(Progress("prepare the cells", 1.0))

    def parts(self, cell: PlanCell) -> dict[str, Path]:
        """The files that a cell needs on another host, by name; after `prepare`."""
        swap_cell = self._cells[cell.label]
        files = {"kernel": swap_cell.kernel, "initrd": swap_cell.initrd}
        if system_map := system_map_of(swap_cell.kernel, self._store):
            files["system_map"] = system_map
        if swap_cell.program is not None:
            files["program"] = swap_cell.program
        if swap_cell.factors.workload == "codec":
            files |= {"classes": classes_program(self._store), "pages": calibration.pages_file(self._store)}
        return files

    def findings(self, cell: PlanCell) -> dict[str, Any]:
        """What `prepare` found out for a cell: the columns that all its rows have, its disk's dilation."""
        return {**self._facts[cell.label], _DILATION: self._cells[cell.label].disk_dilation}

    def adopt(self, cell: PlanCell, parts: Mapping[str, Path], findings: Mapping[str, Any]) -> None:
        """Take a cell's files as they came from another host, with what was found out there, in place of `prepare`."""
        self._host = capabilities()
        facts = dict(findings)
        self._cells[cell.label] = SwapCell(
            factors=self._factors[cell.label],
            kernel=parts["kernel"],
            initrd=parts["initrd"],
            disk_dilation=float(facts.pop(_DILATION)),
            system_map=parts.get("system_map"),
            program=parts.get("program"),
        )
        self._facts[cell.label] = facts
        self._codec = (parts["classes"], parts["pages"]) if "classes" in parts else None

    def identity(self, cell: PlanCell) -> str:
        """The hash of what the cell boots: the spec with the files' bytes, QEMU's version, the cell's copy."""
        factors = self._factors[cell.label]
        assert self._host is not None
        swap_cell = self._cells[cell.label]
        values = identifying_values(swap_cell.spec(factors.seed))
        if swap_cell.program is not None:
            values["program"] = sha256_file(swap_cell.program)
        more = f"{' profile' if self._profile else ''}{' calls' if self._calls else ''}"
        return f"{json_sha256({**values, 'disk': factors.disk, 'copy': factors.copy})} {self._host.version}{more}"

    def run(self, cell: PlanCell, planned: PlannedRun, cancel: CancelToken) -> Measured:
        """Run the cell once. A guest that runs out of memory, hangs or panics is a result."""
        swap_cell, factors = self._cells[cell.label], self._factors[cell.label]
        seed = factors.seed or planned.block + 1
        with tempfile.TemporaryDirectory(prefix="acon-nb-") as folder:
            image = None
            if factors.disk == "virtio" and factors.uses_disk:
                image = disk.create(Path(folder, "swap.raw"), factors.disk_bytes).path
            spec = swap_cell.spec(seed, image, swap_cell.booted_initrd(Path(folder)))
            functions = profiling.functions(swap_cell) if self._profile else None
            starts = self._starts(swap_cell, spec.clock) if functions is None else functions.starts()
            calls = functions.names if functions and self._calls else None
            with (
                self._live(f"{cell.label}, seed {seed}", factors) as hear,
                Machine(
                    spec,
                    host=self._host,
                    on_message=hear,
                    count_by=starts,
                    calls=calls,
                    programs=functions is not None,
                ) as machine,
            ):
                outcome = machine.wait(cancel)
        profile = b"" if functions is None else profiling.encoded(swap_cell, spec, outcome.snapshots, functions)
        if functions is not None:
            outcome = dataclasses.replace(outcome, snapshots=tuple(map(functions.merged, outcome.snapshots)))
        row = {f"factor_{name}": level for name, level in factors.levels().items()}
        row |= {**self._facts[cell.label], "seed": seed, "accelerator": outcome.accelerator}
        row |= _clock_parts(swap_cell, outcome)
        try:
            row |= guest_report.row_of(factors, outcome)
            row |= derived_columns(row)
            end, error = guest_report.end_of([message.data for message in outcome.messages], outcome)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
            end, error = outcome.end, f"the guest said what no cell says: {problem!r}"
        output = program_report.output([message.data for message in outcome.messages])
        if factors.workload == "codec" and "calibration_guest_fault_ns" in row:
            row |= self._codec_row(row)
        return Measured(
            row=row,
            end=end,
            console=outcome.console,
            host_fault=host_fault(outcome),
            error=error,
            profile=profile,
            output=output,
        )

    def _starts(self, cell: SwapCell, clock: Clock) -> tuple[int, ...] | None:
        assert self._host is not None
        return starts_of(cell.kernel, clock, cell.system_map, qemu=self._host.qemu)

    def samples(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        """The samples so far of each guest that runs now, by cell and seed; any thread may ask."""
        return {guest: tuple(heard) for guest, heard in dict(self._running).items()}

    @contextlib.contextmanager
    def _live(self, guest: str, factors: SwapFactors) -> Iterator[Callable[[Message], None]]:
        """Keep the samples of a guest while it runs; anything else is judged when it has ended."""
        heard = self._running[guest] = []

        def hear(message: Message) -> None:
            with contextlib.suppress(KeyError, TypeError, ValueError, IndexError, AttributeError):
                heard.extend(guest_report.samples(factors, [message.data]))

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
        spec = spec_of(factors.kernel, factors.build_spec(), self.plan.kernels)
        if spec is None:
            return Path(factors.kernel)
        return self._builds.image(label, spec, jobs=jobs, on_progress=on_progress, cancel=cancel)

    def _pages(self, factors: SwapFactors, on_progress: OnProgress) -> Path:
        """The cell's pages; their compressed sizes are reported as soon as they are known."""
        if factors.workload == "codec":
            return calibration.pages_file(self._store)
        pages = data.page_file(factors.mix, cache=self._store, on_progress=on_progress)
        if factors.data not in self._ratios:
            ratios = data.ratios(pages, cache=self._store)
            self._ratios[factors.data] = ratios
            text = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.ratio.items())
            on_progress(Progress("measure the data", 1.0, f"{factors.data}: {text or 'nothing to compress'}"))
        return pages

    def _calibration(
        self, factors: SwapFactors, image: Path, on_progress: OnProgress, cancel: CancelToken | None
    ) -> calibration.Calibration:
        """What was measured of the cell's clock and machine, with the kernel of the first such cell.

        One for all: choices of different kernels have the same disk. A plan that fixes another dilation is warned of.
        """
        key = (factors.clock, factors.machine, factors.accelerator)
        if key not in self._calibrations:
            self._calibrations[key] = calibration.calibrate(
                self._codec_spec(factors, image, on_progress),
                host=self._host,
                cache=self._store,
                on_progress=on_progress,
                cancel=cancel,
            )
        measured = self._calibrations[key]
        if factors.dilation and calibration.differs(factors.dilation, measured.dilation):
            text = calibration.fixed_text(factors.dilation, measured.dilation)
            on_progress(Progress(f"warning, {factors.clock} clock", None, text))
        return measured

    def _codec_spec(self, factors: SwapFactors, image: Path, on_progress: OnProgress) -> VmSpec:
        """The guest that runs the codecs."""
        codec = dataclasses.replace(
            SwapFactors(),
            workload="codec",
            swap="none",
            clock=factors.clock,
            machine=factors.machine,
            accelerator=factors.accelerator,
        )
        initrd = cell_initrd(
            image_of(codec), calibration.pages_file(self._store), cache=self._store, on_progress=on_progress
        )
        return SwapCell(factors=codec, kernel=image, initrd=initrd, disk_dilation=1.0).spec(1)

    def _make(
        self, label: str, factors: SwapFactors, image: Path, initrd: Path, measured: calibration.Calibration
    ) -> None:
        dilation = factors.dilation or measured.dilation
        given = self._programs.of(factors)
        cell = SwapCell(factors=factors, kernel=image, initrd=initrd, disk_dilation=dilation, program=given)
        spec = cell.spec(1)
        check_unpacking(factors, initrd, spec.memory_bytes)
        self._cells[label] = cell
        facts: dict[str, Any] = {
            "configuration": factors.configuration,
            "memory_bytes": factors.memory_bytes,
            "guest_memory_bytes": spec.memory_bytes,
            "dilation": dilation,
            "dilation_measured": measured.dilation,
            "kernel_sha256": sha256_file(image),
            "initrd_sha256": sha256_file(initrd),
            "cmdline": spec.append,
        }
        if given is not None:
            facts["program_sha256"] = sha256_file(given)
        if factors.workload != "codec":
            facts |= {"working_set_bytes": factors.pages * PAGE_BYTES, "pages": factors.pages}
            facts["swap_size_bytes"] = factors.swap_bytes
            facts |= limits.columns(factors)
        if factors.disk == "delay" and factors.workload != "codec":
            facts |= factors.disk_speed.columns(dilation)
        ratios = self._ratios.get(factors.data)
        if factors.workload != "codec" and ratios is not None:
            facts |= {f"data_ratio_{name}": value for name, value in ratios.ratio.items()}
            facts |= {f"data_deviation_{name}": value for name, value in ratios.deviation.items()}
            facts |= {"data_poor_lz4_share": ratios.whole_share.get("lz4"), "data_sha256": ratios.sha256}
        self._facts[label] = facts

    def _codec_row(self, row: Mapping[str, Any]) -> dict[str, float]:
        """What a codec cell adds: the host's times now, and the dilation that follows."""
        columns = {name: f"calibration_guest_{name}_ns" for name in calibration.CLASSES}
        guest = {name: float(row[column]) for name, column in columns.items() if column in row}
        measured = calibration.Calibration(host_ns=self._on_host(), guest_ns=guest)
        return {**measured.row(), "dilation": measured.dilation, "dilation_measured": measured.dilation}

    def _on_host(self) -> dict[str, float]:
        """The classes' times here: by a program that came with the cell, or one of this host's cache."""
        return calibration.on_host(self._store) if self._codec is None else calibration.time_classes(*self._codec)


def _clock_parts(cell: SwapCell, outcome: Outcome) -> dict[str, Any]:
    """The columns of what the clock was over the measured accesses; none where they did not end."""
    span = clock_parts.last_span(outcome.snapshots)
    if span is None:
        return {}
    begin, end = span
    functions = functions_of(cell.kernel, cell.system_map)
    parts = clock_parts.parts_of(end, functions, begin=begin)
    if parts is None:
        return {}
    top = clock_parts.top_functions(end, functions, begin=begin)
    return {"span_ns": parts.clock_ns, **parts.columns(), "functions": "\n".join(top)}


def with_checks(plan: Plan) -> Plan:
    """The plan with a codec cell, and a copy of its first cell on the instruction clock, if it has none."""
    factors = [(row, SwapFactors.of(row.levels)) for row in plan.all_cells]
    cells: list[Mapping[str, Level]] = list(plan.cells)
    if not plan.factors and not plan.cells:
        cells = [{}]
    if not any(values.workload == "codec" for _, values in factors):
        cells.append(_codec_cell(plan, factors[0][1]))
    counted = [
        (row, values) for row, values in factors if values.clock == Clock.INSTRUCTIONS and values.workload != "codec"
    ]
    if counted and not any(values.copy for _, values in factors):
        first = counted[0][0].levels
        cells.append({**{name: level for name, level in first.items() if name not in plan.fixed}, "copy": COPY})
    return dataclasses.replace(plan, cells=tuple(cells))


def _codec_cell(plan: Plan, factors: SwapFactors) -> dict[str, Level]:
    """A cell that runs the codecs: the guest's factors as they are, those of its swap or program as by default."""
    defaults = SwapFactors()
    cell: dict[str, Level] = {"workload": "codec", "swap": "none"}
    others = (*SWAP_ONLY, *PROGRAM_ONLY, *limits.WORKLOAD_ONLY)
    fixed = [name for name in others if name in plan.fixed and plan.fixed[name] != getattr(defaults, name)]
    cell |= {name: getattr(defaults, name) for name in fixed}
    return cell | {name: getattr(factors, name) for name in _GUEST if name in plan.varying}


def determinism(table: pd.DataFrame) -> pd.DataFrame:
    """Compare each copy of a cell with the run that it repeats: equal seeds must give equal counters and latencies.

    Columns: cell, seed, same. Empty when nothing was run twice on the instruction clock.
    """
    import pandas as pd

    columns = ["cell", "seed", "same"]
    if table.empty or "counters_sha256" not in table:
        return pd.DataFrame(columns=columns)
    counted = table[table["counters_sha256"].notna() & (table["factor_workload"] != "codec")]
    names = [name for name in counted if str(name).startswith("factor_") and name not in ("factor_copy", "factor_seed")]
    rows = []
    for _, part in counted.groupby([*names, "seed"], dropna=False, sort=False):
        if part["factor_copy"].nunique() > 1:
            first = part[part["factor_copy"] != ""].iloc[0]
            same = part["counters_sha256"].nunique() == 1
            rows.append({"cell": first["configuration"], "seed": int(first["seed"]), "same": bool(same)})
    return pd.DataFrame(rows, columns=columns)
