"""The vTPM reference boot: a plain guest with a TPM boots what a TD would, to test a prediction without TDX hardware.

OVMF measures the same kernel, command line and initrd into the PCRs of a TPM, which swtpm emulates. The log is read
from the guest's memory over QMP, so the guest needs neither a TPM driver nor user space. This is above `vm` and `tdx`
because it needs both.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from acon_nb import process, tdx
from acon_nb.errors import Cancelled, CommandFailed, GuestFailed, InvalidInput, MissingRequirement
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.td.memory import GuestMemory
from acon_nb.td.qtest import START_S, QtestChannel
from acon_nb.tdx import BootInputs, EventLog, LogKind, MeasurementComparison
from acon_nb.tdx.events import EXITS
from acon_nb.vm import DiskSpec, End, Machine, VmSpec, capabilities
from acon_nb.vm.command import option_value

# The PCRs that correspond to a TD's RTMRs (PCR 0 is the firmware's own code, which a TD has in MRTD).
REGISTERS = ("PCR[1]", "PCR[2]", "PCR[3]", "PCR[4]", "PCR[5]", "PCR[6]", "PCR[7]", "PCR[9]")
_OF_LOADERS = ("PCR[8]", *(f"PCR[{index}]" for index in range(10, 16)))
_MARK = b"Spec ID Event03\0"
_MARK_OFFSET = 32
_FAR_EVERY = 10
_LOG_BYTES = 256 << 10
POLL_S = 0.3
_HINT = "apt-get install swtpm swtpm-tools"


@dataclass(frozen=True, kw_only=True)
class ReferenceBoot:
    """A finished reference boot: its log (`raw` as it was in memory), its prediction, and the comparison of the two.

    If the firmware measures ACPI or SMBIOS tables, the prediction has those of this guest. `seconds` is the host time
    from QEMU's start to the last event of the log.
    """

    log: EventLog
    raw: bytes
    prediction: tdx.Prediction
    comparison: MeasurementComparison
    seconds: float


def run(
    inputs: BootInputs,
    *,
    expect: BootInputs | None = None,
    timeout_s: float = 300.0,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> ReferenceBoot:
    """Boot `inputs` with a TPM and compare its measurements with the prediction for `expect` (default: `inputs`).

    Errors: `MissingRequirement` without swtpm, `GuestFailed` if the guest ends or hangs before it leaves its firmware,
    `Cancelled`, and those of `tdx.predict`.
    """
    prediction = tdx.predict_reference_boot(_with_version(expect or inputs), on_progress=on_progress, cancel=cancel)
    measures = prediction.material.stack.on
    uki = prediction.material.uki
    by_stub = uki is not None and uki.measures_smbios
    recorded = record(
        inputs,
        with_acpi=measures("acpi"),
        with_smbios=measures("smbios") or by_stub,
        timeout_s=timeout_s,
        on_progress=on_progress,
        cancel=cancel,
    )
    if measures("acpi") or measures("smbios") or by_stub:
        prediction = prediction.with_hardware(recorded.acpi, recorded.smbios)
    log = tdx.parse_log(recorded.raw, LogKind.TPM, source="log of the reference boot")
    comparison = tdx.compare(tdx.expected(prediction), log, only=registers(prediction, log))
    return ReferenceBoot(
        log=log, raw=recorded.raw, prediction=prediction, comparison=comparison, seconds=recorded.seconds
    )


def registers(prediction: tdx.Prediction, log: EventLog) -> tuple[str, ...]:
    """Return the PCRs to compare: those of every boot, and those into which a boot loader measured, or should have."""
    used = {event.register for event in prediction.events} | {event.register for event in log.events}
    return (*REGISTERS, *(name for name in _OF_LOADERS if name in used))


@dataclass(frozen=True, kw_only=True)
class RecordedBoot:
    """What a boot with a TPM left: its log, ACPI and SMBIOS tables (if asked for), and how long it took."""

    raw: bytes
    acpi: Mapping[str, bytes]
    smbios: bytes | None
    seconds: float


def record(
    inputs: BootInputs,
    *,
    with_acpi: bool = False,
    with_smbios: bool = False,
    timeout_s: float = 300.0,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> RecordedBoot:
    """Boot `inputs` with a TPM until the kernel has left the firmware. Errors: as for `run`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acon-vtpm-")))
        tpm = _start_tpm(folder, stack)
        qtest = QtestChannel(folder, stack)
        extra = (*tpm, *(qtest.options if with_acpi else ()), "-no-shutdown")  # memory stays readable after a panic
        spec = _spec(inputs, timeout_s, extra)
        started = time.monotonic()
        machine = stack.enter_context(Machine(spec, folder=folder / "run", host=capabilities()))
        machine.start()
        guest = GuestMemory(machine, folder / "memory", inputs.memory_bytes)
        memory = _Log(guest)
        on_progress(Progress("reference boot", None, machine.accelerator))
        while (raw := memory.log()) is None or not _complete(raw):
            check_alive(machine, raw, started, timeout_s, cancel)
            time.sleep(POLL_S)
        seconds = time.monotonic() - started
        on_progress(Progress("reference boot", 1.0, f"{len(tdx.parse_log(raw).events)} events"))
        return RecordedBoot(
            raw=raw[: tdx.parse_log(raw).size_bytes],
            smbios=guest.smbios() if with_smbios else None,
            acpi=qtest.read_acpi(machine, with_tpm=True) if with_acpi else {},
            seconds=seconds,
        )


def _with_version(inputs: BootInputs) -> BootInputs:
    """Return the inputs with the version of this host's QEMU, unless they have one."""
    return inputs if inputs.qemu else inputs.changed(qemu=".".join(map(str, capabilities().version)))


def _spec(inputs: BootInputs, timeout_s: float, extra: tuple[str, ...]) -> VmSpec:
    disks = () if inputs.disk is None else (DiskSpec(path=inputs.disk),)
    if disks:
        extra = (*extra, "-snapshot")  # firmware and stub may write to the disk
    return VmSpec(
        boot_disk=True if disks else None,
        disks=disks,
        kernel=inputs.kernel,
        initrd=inputs.initrd,
        append=inputs.append,
        memory_bytes=inputs.memory_bytes,
        firmware=inputs.firmware,
        results_port=False,
        timeout_s=timeout_s + START_S,
        extra=extra,
    )


def _start_tpm(folder: Path, stack: contextlib.ExitStack) -> tuple[str, ...]:
    """Create and start a TPM with SHA-256 and SHA-384 banks; return the options that connect QEMU to it."""
    for program in ("swtpm", "swtpm_setup"):
        if shutil.which(program) is None:
            raise MissingRequirement(program, "the vTPM reference boot", hint=_HINT)
    state, control = folder / "tpm", folder / "tpm.sock"
    state.mkdir()
    banks = ["--pcr-banks", "sha256,sha384"]
    process.run(["swtpm_setup", "--tpm2", "--tpmstate", state, *banks], timeout_s=60, hint=_HINT)
    log = folder / "swtpm.log"
    argv = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={control}"]
    child = stack.enter_context(process.Child([*argv, "--log", f"file={log}"]))
    deadline = time.monotonic() + START_S
    while not control.exists():
        code = child.poll()
        if code is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            raise CommandFailed(argv, code or 1, tail=tail, why="created no socket", hint=_HINT)
        time.sleep(0.02)
    chardev = f"socket,id=tpm,path={option_value(control)}"
    return ("-chardev", chardev, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0")


class _Log:
    """The log in a guest's memory, searched for from the top downwards."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._address: int | None = None
        self._searches = 0

    def log(self) -> bytes | None:
        """Return the current log, None without one. Each call searches the usual range, every tenth also the rest."""
        if self._address is None:
            self._searches += 1
            windows = self._memory.windows() if self._searches % _FAR_EVERY == 0 else self._memory.windows(1)
            addresses = (start + offset for start, window in windows for offset in _logs(window))
            self._address = next(addresses, None)
        if self._address is None:
            return None
        return self._memory.read(self._address, min(_LOG_BYTES, self._memory.low - self._address))


def _logs(window: bytes) -> Iterator[int]:
    """Yield where logs start in a window: the firmware's own starts on a page boundary, unlike intermediate copies."""
    offset = window.find(_MARK)
    while offset >= 0:
        if (offset - _MARK_OFFSET) % 4096 == 0 and _events(window[offset - _MARK_OFFSET :][:_LOG_BYTES]) is not None:
            yield offset - _MARK_OFFSET
        offset = window.find(_MARK, offset + 1)


def _events(raw: bytes) -> EventLog | None:
    try:
        return tdx.parse_log(raw, LogKind.TPM)
    except InvalidInput:  # not yet completely written
        return None


def _complete(raw: bytes) -> bool:
    """Whether the guest has left its firmware, so that the log has its last event."""
    log = _events(raw)
    return log is not None and bool(log.events) and log.events[-1].data == EXITS[-1].encode()


def check_alive(
    machine: Machine, raw: bytes | None, started: float, timeout_s: float, cancel: CancelToken | None
) -> None:
    """Raise if the guest ended, took too long, or was cancelled. Errors: `GuestFailed`, `Cancelled`."""
    if cancel is not None and cancel.cancelled:
        raise Cancelled("the boot was cancelled")
    log = _events(raw) if raw else None
    evidence = [f"last event: {log.events[-1].type_name}"] if log is not None and log.events else ["no event log yet"]
    if not machine.running:
        end = machine.wait().check().end
        raise GuestFailed("the guest ended before it left its firmware", end=end, details=evidence, hint=_CONSOLE)
    if time.monotonic() - started > timeout_s:
        what = f"the guest did not leave its firmware within {timeout_s:g} s"
        raise GuestFailed(what, end=End.HANG, details=evidence, hint=_CONSOLE)


_CONSOLE = "boot the same files with acon-nb run to see the console; firmware with secure boot refuses unsigned kernels"
