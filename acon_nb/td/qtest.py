"""Read the fw_cfg files of a guest from outside, over a qtest channel that its QEMU is started with."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from acon_nb.tdx.capture import ACPI_FILES, BOOT_MENU, MEASURED_ITEMS
from acon_nb.tdx.fw_cfg import FwCfg
from acon_nb.tdx.inputs import TPM_LOG, fw_cfg_file
from acon_nb.vm import Machine
from acon_nb.vm.command import option_value

START_S = 10.0
QMP_S = 60.0


class QtestChannel:
    """A socket in `folder` that QEMU connects to if it is started with `options`; closed with `stack`."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        path = folder / "qtest"
        self._server = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        self._server.bind(str(path))
        self._server.listen(1)
        self._server.settimeout(START_S)
        connect = f"socket,id=qtest,path={option_value(path)}"
        self.options = ("-chardev", connect, "-qtest", "chardev:qtest", "-qtest-log", "none")

    def read_acpi(self, machine: Machine, *, with_tpm: bool = False) -> dict[str, bytes]:
        """Stop a guest, which must not be resumed, and read the ACPI tables that its firmware was given, by name.

        The names are those in `ACPI_FILES`, and `TPM_LOG` if the guest has a TPM. Errors: `InvalidInput`, `AconError`.
        """
        with self._stopped(machine) as fw_cfg:
            return _acpi(fw_cfg, with_tpm=with_tpm)

    def read_all(self, machine: Machine) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Stop a guest, which must not be resumed; read its ACPI tables and the items of fw_cfg that a TD measures.

        Errors: `InvalidInput`, `AconError`.
        """
        with self._stopped(machine) as fw_cfg:
            files = fw_cfg.read_present([name for name in MEASURED_ITEMS if name != BOOT_MENU])
            return _acpi(fw_cfg, with_tpm=False), {**files, BOOT_MENU: fw_cfg.read_boot_menu()}

    @contextlib.contextmanager
    def _stopped(self, machine: Machine) -> Iterator[FwCfg]:
        machine.pause()
        channel, _ = self._server.accept()
        with contextlib.closing(channel):
            yield FwCfg(channel, timeout_s=QMP_S)


def _acpi(fw_cfg: FwCfg, *, with_tpm: bool) -> dict[str, bytes]:
    names = (*ACPI_FILES, TPM_LOG) if with_tpm else ACPI_FILES
    files = fw_cfg.read_files(tuple(map(fw_cfg_file, names)))
    return {name: files[fw_cfg_file(name)] for name in names}
