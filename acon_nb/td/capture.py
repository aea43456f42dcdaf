"""Capture what QEMU gives a guest (ACPI, SMBIOS, fw_cfg) from the emulated machine, with a manifest of that machine."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.td.memory import GuestMemory
from acon_nb.td.qtest import QMP_S, QtestChannel
from acon_nb.td.vtpm import POLL_S, check_alive
from acon_nb.tdx.capture import ALSO, Capture, Hardware, sha256, write_capture
from acon_nb.units import parse_bytes
from acon_nb.vm import Machine, VmSpec, capabilities
from acon_nb.vm.command import device_words

_MOST_VCPUS = 4096


def capture(
    spec: VmSpec,
    folder: Path,
    *,
    timeout_s: float = 300.0,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Capture:
    """Write what QEMU gives the guest of `spec` to `folder`: its ACPI files, SMBIOS structures, fw_cfg, a manifest.

    QEMU creates ACPI tables when the firmware requests them, after the firmware has set up the PCI devices. So the
    firmware is booted with the same devices (without TD and KVM; with SMM and the PIC, which a TD lacks, switched off)
    until the kernel runs; then the guest is stopped, fw_cfg is read over qtest and SMBIOS from memory. Errors:
    `GuestFailed`, `InvalidInput` for a spec without firmware, `Cancelled`.
    """
    if spec.firmware is None:
        hint = "BIOS=/usr/share/ovmf/OVMF.fd"
        raise InvalidInput("firmware", None, "QEMU creates the tables while a firmware runs", hint=hint)
    plain = {"td": None, "td_flavour": None, "quote_socket": None, "mrconfigid": None, "mrowner": None}
    with contextlib.ExitStack() as stack:
        run_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acon-capture-")))
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
        host = capabilities()
        firmware = spec.firmware.read_bytes()
        machine = stack.enter_context(Machine(emulated, folder=run_folder / "run", host=host))
        started = time.monotonic()
        machine.start()
        on_progress(Progress("capture", None, "the firmware runs"))
        while not _in_kernel(machine):
            check_alive(machine, None, started, timeout_s, cancel)
            time.sleep(POLL_S)
        machine.pause()
        structures = GuestMemory(machine, run_folder / "memory", spec.memory_bytes).smbios()
        tables, fw_cfg = qtest.read_all(machine)
        hardware = Hardware(
            qemu=".".join(map(str, host.version)),
            machine=machine.qmp("qom-get", {"path": "/machine", "property": "type"}),
            firmware_sha256=sha256(firmware),
            memory_bytes=spec.memory_bytes,
            vcpus=spec.vcpus,
            topology=spec.topology or "",
            devices=device_words(spec),
        )
    captured = write_capture(folder, hardware, tables=tables, structures=structures, fw_cfg=fw_cfg)
    on_progress(Progress("capture", 1.0, str(folder)))
    return captured


def parse_changes(text: str) -> dict[str, int]:
    """Parse how another machine differs: "vcpus=2", "memory=4G", or both with a comma. Errors: `InvalidInput`."""
    fields: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name == "vcpus" and value.isascii() and value.isdigit() and 1 <= int(value) <= _MOST_VCPUS:
            fields["vcpus"] = int(value)
        elif name == "memory":
            fields["memory_bytes"] = parse_bytes(value, field="also", bare="M")
        else:
            raise InvalidInput("also", text, "is not vcpus=NUMBER or memory=SIZE", hint="such as vcpus=2,memory=4G")
    return fields


def capture_others(
    spec: VmSpec,
    folder: Path,
    changes: Sequence[Mapping[str, int]],
    *,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> None:
    """Capture machines that differ from that of `spec`, for the search of drift, into the folder of its capture.

    `changes` has the fields of `VmSpec` of each. Captures of others that are there already are removed. Errors: as for
    `capture`.
    """
    shutil.rmtree(folder / ALSO, ignore_errors=True)
    for fields in changes:
        other = replace(spec, **fields)  # type: ignore[arg-type]
        name = f"{other.vcpus}-{other.memory_bytes >> 20}M"
        capture(other, folder / ALSO / name, on_progress=on_progress, cancel=cancel)


def _in_kernel(machine: Machine) -> bool:
    """Whether the guest's first CPU runs the kernel proper: only its addresses are in the highest 2 GiB."""
    text = machine.qmp("human-monitor-command", {"command-line": "info registers"}, timeout_s=QMP_S)
    return re.search(r"RIP=ffffffff[89a-f]", str(text)) is not None
