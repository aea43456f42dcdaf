"""Search the memory of a running guest, from outside over QMP, for what its firmware left there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from acon_nb.errors import AconError
from acon_nb.td.qtest import QMP_S
from acon_nb.tdx import smbios
from acon_nb.tdx.hob import below_4g_bytes
from acon_nb.vm import Machine

WINDOW_BYTES = 64 << 20
_WINDOWS = 8
_TABLE_LIMIT_BYTES = 1 << 20


class GuestMemory:
    """A guest's memory below 4 GiB, `low` bytes; `file` is where QEMU puts what is read."""

    def __init__(self, machine: Machine, file: Path, memory_bytes: int) -> None:
        self._machine = machine
        self._file = file
        self.low = below_4g_bytes(memory_bytes)

    def read(self, start: int, size: int) -> bytes:
        """Read some memory. Errors: `AconError`."""
        arguments = {"val": start, "size": size, "filename": str(self._file)}
        self._machine.qmp("pmemsave", arguments, timeout_s=QMP_S)
        return self._file.read_bytes()

    def windows(self, count: int = _WINDOWS) -> Iterator[tuple[int, bytes]]:
        """Yield address and content of the windows from the top, where firmware allocates, downwards."""
        for number in range(count):
            end = self.low - number * WINDOW_BYTES
            start = max(0, end - WINDOW_BYTES)
            if end <= 0:
                return
            yield start, self.read(start, end - start)

    def smbios(self) -> bytes:
        """Return the SMBIOS structures that the firmware installed. Errors: `AconError` if there are none."""
        for _, window in self.windows():
            for address, size in smbios.entry_points(window):
                if address + min(size, _TABLE_LIMIT_BYTES) > self.low:
                    continue
                try:
                    table = smbios.installed(self.read(address, min(size, _TABLE_LIMIT_BYTES)))
                    smbios.structures(table)
                except ValueError:  # QEMU's own entry point, before the firmware copied it
                    continue
                return table
        raise AconError("no SMBIOS table was found in the guest's memory", hint="the firmware may not install one")
