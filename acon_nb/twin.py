"""The twin: a plain guest with a TPM that boots what a TD would, so that a prediction is tested without TDX hardware.

OVMF measures the same kernel, command line and initrd into a TPM's PCRs (swtpm emulates the TPM). The log is read out
of the guest's memory over QMP: the guest need not help, so it may have no TPM driver and no user space. The same way,
QEMU's ACPI tables are read over its qtest channel. Above `vm` and `tdx`, since it needs both.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from acon_nb import process, tdx
from acon_nb.cache import atomic_file
from acon_nb.errors import Cancelled, CommandFailed, GuestFailed, InvalidInput, MissingRequirement
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.tdx import BootInputs, Comparison, EventLog, LogKind
from acon_nb.tdx.events import EXITS
from acon_nb.tdx.fw_cfg import FwCfg
from acon_nb.tdx.hob import below_4g_bytes
from acon_nb.tdx.inputs import ACPI_FILES
from acon_nb.units import format_bytes
from acon_nb.vm import Machine, VmSpec, capabilities

# What a TD's RTMRs stand for (PCR 0 is the firmware's own code, which in a TD is in MRTD).
REGISTERS = ("PCR[1]", "PCR[2]", "PCR[3]", "PCR[4]", "PCR[5]", "PCR[6]", "PCR[7]", "PCR[9]")
_MARK = b"Spec ID Event03\0"
_MARK_OFFSET = 32
_WINDOW_BYTES = 64 << 20
_WINDOWS = 8
_FAR_EVERY = 10
_LOG_BYTES = 256 << 10
_POLL_S = 0.3
_START_S = 10.0
_QMP_S = 60.0
_HINT = "apt-get install swtpm swtpm-tools"


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A twin that ran: its log (`raw` as it lay in memory), what was expected of it, and how the two compare.

    `seconds` is the time on the host's clock from QEMU's start to the log's last event.
    """

    log: EventLog
    raw: bytes
    prediction: tdx.Prediction
    comparison: Comparison
    seconds: float


def run(
    inputs: BootInputs,
    *,
    expect: BootInputs | None = None,
    timeout_s: float = 300.0,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Twin:
    """Boot `inputs` with a TPM and compare what was measured with what was predicted for `expect` (default: the same).

    Errors: `MissingRequirement` without swtpm, `GuestFailed` when the guest ends or hangs before it leaves its
    firmware, `Cancelled`, and those of `tdx.predict`.
    """
    wanted = _with_version(expect or inputs)
    prediction = tdx.predict_twin(wanted, on_progress=on_progress, cancel=cancel)
    raw, seconds = record(inputs, timeout_s=timeout_s, on_progress=on_progress, cancel=cancel)
    log = tdx.parse_log(raw, LogKind.TPM, source="the twin's log")
    both = tdx.compare(tdx.expected(prediction), log, only=REGISTERS)
    return Twin(log=log, raw=raw, prediction=prediction, comparison=both, seconds=seconds)


def record(
    inputs: BootInputs,
    *,
    timeout_s: float = 300.0,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> tuple[bytes, float]:
    """Boot `inputs` with a TPM until its kernel has left the firmware; the log's bytes and the seconds it took."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acon-twin-")))
        tpm = _start_tpm(folder, stack)
        spec = _spec(inputs, timeout_s, (*tpm, "-no-shutdown"))  # a guest that panics keeps its memory
        started = time.monotonic()
        machine = stack.enter_context(Machine(spec, folder=folder / "run", host=capabilities()))
        machine.start()
        memory = _Memory(machine, folder / "memory", inputs.memory_bytes)
        on_progress(Progress("boot the twin", None, machine.accelerator))
        while (raw := memory.log()) is None or not _complete(raw):
            _check_alive(machine, raw, started, timeout_s, cancel)
            time.sleep(_POLL_S)
        on_progress(Progress("boot the twin", 1.0, f"{len(tdx.parse_log(raw).events)} events"))
        return raw[: tdx.parse_log(raw).size_bytes], time.monotonic() - started


def capture_acpi(
    spec: VmSpec,
    folder: Path,
    *,
    timeout_s: float = 300.0,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Path:
    """Write the ACPI tables that QEMU gives the guest of `spec` to `folder`: table-loader, rsdp, tables.

    QEMU makes them when the firmware asks for them, which has set up the PCI devices by then. So the firmware is booted
    with the same devices (without TD and KVM; SMM and the PIC, which a TD lacks, are off) until the kernel runs, then
    the guest is stopped and QEMU asked over qtest. Errors: `GuestFailed`, `InvalidInput` for a spec without a firmware,
    `Cancelled`.
    """
    if spec.firmware is None:
        hint = "BIOS=/usr/share/ovmf/OVMF.fd"
        raise InvalidInput("firmware", None, "the tables are made while a firmware runs", hint=hint)
    plain = {"td": None, "td_flavour": None, "quote_socket": None, "mrconfigid": None, "mrowner": None}
    with contextlib.ExitStack() as stack:
        run_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acon-acpi-")))
        server = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        server.bind(str(run_folder / "qtest"))
        server.listen(1)
        server.settimeout(_START_S)
        qtest = ("-chardev", f"socket,id=qtest,path={_option(run_folder / 'qtest')}", "-qtest", "chardev:qtest")
        extra = (*qtest, "-qtest-log", "none", "-machine", "smm=off,pic=off", "-no-shutdown")
        asked = replace(
            spec,
            **plain,  # type: ignore[arg-type]
            mrownerconfig=None,
            accelerator="tcg",
            timeout_s=timeout_s,
            extra=(*spec.extra, *extra),
        )
        machine = stack.enter_context(Machine(asked, folder=run_folder / "run", host=capabilities()))
        started = time.monotonic()
        machine.start()
        on_progress(Progress("capture ACPI tables", None, "the firmware runs"))
        while not _in_kernel(machine):
            _check_alive(machine, None, started, timeout_s, cancel)
            time.sleep(_POLL_S)
        machine.pause()
        channel, _ = server.accept()
        stack.enter_context(contextlib.closing(channel))
        files = FwCfg(channel, timeout_s=_QMP_S).read_files(_acpi_names())
    for name, file in zip(ACPI_FILES, _acpi_names(), strict=True):
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(files[file])
    on_progress(Progress("capture ACPI tables", 1.0, format_bytes(sum(map(len, files.values())))))
    return folder


def _acpi_names() -> tuple[str, ...]:
    return tuple(f"etc/{name}" if name == "table-loader" else f"etc/acpi/{name}" for name in ACPI_FILES)


def _in_kernel(machine: Machine) -> bool:
    """Whether the guest's first CPU is in the kernel proper: its addresses are the highest 2 GiB, no firmware's are."""
    text = machine.execute("human-monitor-command", {"command-line": "info registers"}, timeout_s=_QMP_S)
    return re.search(r"RIP=ffffffff[89a-f]", str(text)) is not None


def _with_version(inputs: BootInputs) -> BootInputs:
    """The inputs with this host's QEMU, unless another was named."""
    return inputs if inputs.qemu else inputs.changed(qemu=".".join(map(str, capabilities().version)))


def _spec(inputs: BootInputs, timeout_s: float, extra: tuple[str, ...]) -> VmSpec:
    return VmSpec(
        kernel=inputs.kernel,
        initrd=inputs.initrd,
        append=inputs.append,
        memory_bytes=inputs.memory_bytes,
        firmware=inputs.firmware,
        results_port=False,
        timeout_s=timeout_s + _START_S,
        extra=extra,
    )


def _start_tpm(folder: Path, stack: contextlib.ExitStack) -> tuple[str, ...]:
    """Make a TPM with SHA-256 and SHA-384 banks and start it; the options that give it to QEMU."""
    for program in ("swtpm", "swtpm_setup"):
        if shutil.which(program) is None:
            raise MissingRequirement(program, "the twin of a measured boot", hint=_HINT)
    state, place = folder / "tpm", folder / "tpm.sock"
    state.mkdir()
    banks = ["--pcr-banks", "sha256,sha384"]
    process.run(["swtpm_setup", "--tpm2", "--tpmstate", state, *banks], timeout_s=60, hint=_HINT)
    log = folder / "swtpm.log"
    argv = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={place}"]
    child = stack.enter_context(process.Child([*argv, "--log", f"file={log}"]))
    deadline = time.monotonic() + _START_S
    while not place.exists():
        code = child.poll()
        if code is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            raise CommandFailed(argv, code or 1, tail=tail, why="made no socket", hint=_HINT)
        time.sleep(0.02)
    chardev = f"socket,id=tpm,path={_option(place)}"
    return ("-chardev", chardev, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0")


def _option(path: Path) -> str:
    """A path as a value of QEMU's option syntax."""
    return str(path).replace(",", ",,")


class _Memory:
    """The guest's memory, in which the log is looked for: from the top of what lies below 4 GiB downwards."""

    def __init__(self, machine: Machine, file: Path, memory_bytes: int) -> None:
        self._machine = machine
        self._file = file
        self._low = below_4g_bytes(memory_bytes)
        self._place: int | None = None
        self._looks = 0

    def log(self) -> bytes | None:
        """The log as it is now; None while there is none. Its usual place is looked at each time, the rest seldom."""
        if self._place is not None:
            return self._read(self._place, min(_LOG_BYTES, self._low - self._place))
        self._looks += 1
        for number in range(_WINDOWS if self._looks % _FAR_EVERY == 0 else 1):
            end = self._low - number * _WINDOW_BYTES
            start = max(0, end - _WINDOW_BYTES)
            if end <= 0:
                return None
            window = self._read(start, end - start)
            for offset in _logs(window):
                self._place = start + offset
                return self._read(self._place, min(_LOG_BYTES, self._low - self._place))
        return None

    def _read(self, start: int, size: int) -> bytes:
        arguments = {"val": start, "size": size, "filename": str(self._file)}
        self._machine.execute("pmemsave", arguments, timeout_s=_QMP_S)
        return self._file.read_bytes()


def _logs(window: bytes) -> Iterator[int]:
    """Where logs start in a window: the firmware's own lies on a page of its own, unlike copies on their way."""
    place = window.find(_MARK)
    while place >= 0:
        if (place - _MARK_OFFSET) % 4096 == 0 and _events(window[place - _MARK_OFFSET :][:_LOG_BYTES]) is not None:
            yield place - _MARK_OFFSET
        place = window.find(_MARK, place + 1)


def _events(raw: bytes) -> EventLog | None:
    try:
        return tdx.parse_log(raw, LogKind.TPM)
    except InvalidInput:  # not yet written to its end
        return None


def _complete(raw: bytes) -> bool:
    """Whether the firmware has been left: its last event is there."""
    log = _events(raw)
    return log is not None and bool(log.events) and log.events[-1].data == EXITS[-1].encode()


def _check_alive(
    machine: Machine, raw: bytes | None, started: float, timeout_s: float, cancel: CancelToken | None
) -> None:
    if cancel is not None and cancel.cancelled:
        raise Cancelled("the twin was cancelled")
    log = _events(raw) if raw else None
    seen = [f"last event: {log.events[-1].type_name}"] if log is not None and log.events else ["no event log yet"]
    if not machine.running:
        machine.wait().check()
        raise GuestFailed("the twin ended before it left its firmware", end="ended", details=seen, hint=_CONSOLE)
    if time.monotonic() - started > timeout_s:
        what = f"the twin did not leave its firmware within {timeout_s:g} s"
        raise GuestFailed(what, end="hang", details=seen, hint=_CONSOLE)


_CONSOLE = "boot it with acon-nb run and the same files to see its console; a firmware with secure boot refuses kernels"
