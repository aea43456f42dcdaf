"""How much longer each class of a guest's work takes than the host's: one static program, run on both.

On the instruction clock a guest counts 1 ns an instruction, whatever the instruction does: a load that waits for memory
as well as an addition. So each class of work has a dilation of its own. A simulated disk's latency is scaled by one of
them, that of a fault which stays off the disk (`Calibration.dilation`). All are measured for a host, a guest's machine
and kernel, and a QEMU, and kept in the user cache; every study also has a codec cell that measures them anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import GuestFailed
from acon_nb.guest.programs import classes_program, load_program
from acon_nb.host import environment, probe_qemu
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.study.host_lock import run_locked
from acon_nb.vm import Capabilities, Machine, VmSpec, argument_list, capabilities
from acon_nb.vm.spec import identifying_values

CODECS = ("lzo", "lz4", "zstd")
# Each class that the guest's program times (guest/src/classes.c), with what it is for people.
CLASSES: Mapping[str, str] = {
    **{f"{name}_compress": f"{name}, compress a page" for name in CODECS},
    **{f"{name}_decompress": f"{name}, decompress a page" for name in CODECS},
    "copy": "copy a page",
    "fault": "minor fault",
    "system_call": "system call",
    "pointer_chase": "pointer chase, a load",
    "cipher": "AES-XTS of a page",
}
SCALING = ("lz4", "zstd")  # those that the dilation is of; lzo and lz4 change places on this clock (answers.toml)
COMPARABLE = 2.0  # a class whose dilation is further than this from the disk's cannot be compared with a disk
TOLERANCE = 1.25  # a plan may fix a dilation that is this far from the measured one without a warning
_PAGES = 256
_ROUNDS = 40
_DIGITS = 2


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """ns of each class of `CLASSES` on the host and in a guest; a CPU without AES instructions has no cipher."""

    host_ns: Mapping[str, float]
    guest_ns: Mapping[str, float]

    @property
    def of_class(self) -> dict[str, float]:
        """The dilation of each class that both have."""
        both = [name for name in CLASSES if name in self.host_ns and name in self.guest_ns]
        return {name: self.guest_ns[name] / self.host_ns[name] for name in both}

    @property
    def dilation(self) -> float:
        """The dilation of a simulated disk, to two digits (the host's part is noisy): that of what a fault pays else.

        A page that comes from a pool costs a fault, a decompression and a copy to the program; one that comes from a
        disk costs the latency instead of the decompression. Their sum in the guest over their sum on the host is the
        factor by which the disk's latency keeps its proportion to the pool's time. It is the geometric mean of lz4's
        and zstd's: all choices of a study have the same disk, which favours neither.
        """
        logs = [math.log(_fault_ns(self.guest_ns, name) / _fault_ns(self.host_ns, name)) for name in SCALING]
        return float(f"{math.exp(sum(logs) / len(logs)):.{_DIGITS}g}")

    def row(self) -> dict[str, float]:
        """Columns of a codec cell's row."""
        values = {f"dilation_{name}": value for name, value in self.of_class.items()}
        for side, times in (("host", self.host_ns), ("guest", self.guest_ns)):
            values |= {f"calibration_{side}_{name}_ns": times[name] for name in CLASSES if name in times}
        return values


def _fault_ns(times: Mapping[str, float], codec: str) -> float:
    """The time of a fault whose page a codec holds."""
    return times["fault"] + times[f"{codec}_decompress"] + times["copy"]


def is_comparable(dilation: float, scaling: float) -> bool:
    """Whether a class can be compared with a disk that is scaled by `scaling`."""
    return max(dilation / scaling, scaling / dilation) <= COMPARABLE


def differs(fixed: float, measured: float) -> bool:
    """Whether a dilation that a plan fixes is too far from the measured one."""
    return max(fixed / measured, measured / fixed) > TOLERANCE


def fixed_text(fixed: float, measured: float) -> str:
    """The warning of a fixed dilation that `differs` from what was measured here."""
    way = "slow" if fixed > measured else "fast"
    times = max(fixed / measured, measured / fixed)
    what = f"the plan fixes dilation = {fixed:g}, but {measured:g} was measured here"
    return f"{what}: disks are {times:.1f} times too {way}. Fix dilation = {measured:g}, or 0 for what is measured"


def pages_file(cache: Cache | None = None) -> Path:
    """The pages that are compressed: 1 MiB of the documents that the redis workload keeps, the same everywhere."""
    store = cache or Cache()
    program = load_program(store)

    def make(folder: Path) -> None:
        text = process.run_bytes([program, "documents", "2000", "1"])[: _PAGES * 4096]
        (folder / "pages").write_bytes(text + b"d" * _PAGES)

    return store.get("swap-codec-pages", {"program": sha256_file(program), "pages": _PAGES}, make).path / "pages"


def on_host(cache: Cache | None = None) -> dict[str, float]:
    """The host's ns of each class, the fastest of some rounds."""
    return time_classes(classes_program(cache), pages_file(cache))


def time_classes(program: Path, pages: Path) -> dict[str, float]:
    """What `program` (of `classes_program`) measures on this host, with `pages` to compress."""
    return times_of(json.loads(process.output([program, "time", pages, str(_ROUNDS)])))


def times_of(data: Mapping[str, Any]) -> dict[str, float]:
    """ns by class, of the program's answer. Errors: `KeyError` for one without a class that all CPUs have."""
    ns = data["ns"]
    return {name: float(ns[name]) for name in CLASSES if name != "cipher" or name in ns}


def inputs_of(spec: VmSpec, host: Capabilities, cache: Cache | None = None) -> dict[str, Any]:
    """All that the figures depend on: a calibration of other inputs is never used.

    That is the program with its pages, the guest (kernel, initrd, command line, QEMU's options with the CPU model),
    QEMU's version, and the host: CPU model, CPUs, memory, microcode, and the kernel, whose faults are timed.
    """
    here = environment()
    argv = argument_list(spec, host)
    return {
        "program": sha256_file(classes_program(cache)),
        "pages": sha256_file(pages_file(cache)),
        "guest": identifying_values(spec),
        "options": argv[1 : argv.index("-kernel")],
        "qemu": [probe_qemu(host.qemu).version_text, probe_qemu(host.qemu).package],
        "host": [here.host_class, here.host_kernel, here.microcode],
    }


def calibrate(
    spec: VmSpec,
    *,
    host: Capabilities | None = None,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Calibration:
    """The calibration of this host for `spec`, the guest of a codec cell; kept in the cache.

    Errors: `GuestFailed` when the guest gives no times.
    """
    store, host = cache or Cache(), host or capabilities()

    def make(folder: Path) -> None:
        on_progress(Progress("calibrate", 0.0, "the classes of work on host and guest"))
        # alone on either clock: the host's part is timed
        made, _ = run_locked(
            lambda token: _measure(spec, host, store, token), alone=True, cancel=cancel, on_progress=on_progress
        )
        (folder / "calibration.json").write_text(json.dumps(asdict(made)))
        on_progress(Progress("calibrate", 1.0, f"a disk takes {made.dilation:g} times the hardware's time"))

    path = store.get("swap-calibration", inputs_of(spec, host, store), make).path / "calibration.json"
    return Calibration(**json.loads(path.read_text()))


def _measure(spec: VmSpec, host: Capabilities, store: Cache, cancel: CancelToken) -> Calibration:
    """Run the program in the guest, then on the host."""
    with Machine(spec, host=host) as machine:
        outcome = machine.wait(cancel)
    cancel.check()
    times = next((message.data for message in outcome.messages if message.data.get("event") == "classes"), None)
    if times is None:
        raise GuestFailed("the codec cell gave no times", end=outcome.end, details=outcome.tail, hint=outcome.hint)
    return Calibration(host_ns=on_host(store), guest_ns=times_of(times))
