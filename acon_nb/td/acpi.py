"""Capture the ACPI tables that QEMU gives a guest, over QEMU's qtest channel."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.td.qtest import QMP_S, QtestChannel
from acon_nb.td.vtpm import POLL_S, check_alive
from acon_nb.units import format_bytes
from acon_nb.vm import Machine, VmSpec, capabilities


def capture_acpi(
    spec: VmSpec,
    folder: Path,
    *,
    timeout_s: float = 300.0,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Path:
    """Write the ACPI tables that QEMU gives the guest of `spec` to `folder`: table-loader, rsdp, tables.

    QEMU creates them when the firmware requests them, after the firmware has set up the PCI devices. So the firmware is
    booted with the same devices (without TD and KVM; with SMM and the PIC, which a TD lacks, switched off) until the
    kernel runs; then the guest is stopped and the tables are read over qtest. Errors: `GuestFailed`, `InvalidInput` for
    a spec without firmware, `Cancelled`.
    """
    if spec.firmware is None:
        hint = "BIOS=/usr/share/ovmf/OVMF.fd"
        raise InvalidInput("firmware", None, "QEMU creates the tables while a firmware runs", hint=hint)
    plain = {"td": None, "td_flavour": None, "quote_socket": None, "mrconfigid": None, "mrowner": None}
    with contextlib.ExitStack() as stack:
        run_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acon-acpi-")))
        qtest = QtestChannel(run_folder, stack)
        extra = (*qtest.options, "-machine", "smm=off,pic=off", "-no-shutdown")
        emulated = replace(
            spec,
            **plain,  # type: ignore[arg-type]
            mrownerconfig=None,
            accelerator="tcg",
            timeout_s=timeout_s,
            extra=(*spec.extra, *extra),
        )
        machine = stack.enter_context(Machine(emulated, folder=run_folder / "run", host=capabilities()))
        started = time.monotonic()
        machine.start()
        on_progress(Progress("capture ACPI tables", None, "the firmware runs"))
        while not _in_kernel(machine):
            check_alive(machine, None, started, timeout_s, cancel)
            time.sleep(POLL_S)
        files = qtest.read_acpi(machine)
    for name, data in files.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(data)
    on_progress(Progress("capture ACPI tables", 1.0, format_bytes(sum(map(len, files.values())))))
    return folder


def _in_kernel(machine: Machine) -> bool:
    """Whether the guest's first CPU runs the kernel proper: only its addresses are in the highest 2 GiB."""
    text = machine.qmp("human-monitor-command", {"command-line": "info registers"}, timeout_s=QMP_S)
    return re.search(r"RIP=ffffffff[89a-f]", str(text)) is not None
