"""Read QEMU's fw_cfg files of a stopped guest from outside, over its qtest channel, by the device's DMA.

Source: QEMU docs/specs/fw_cfg.rst and system/qtest.c. The guest must be stopped because both sides would move the same
selector. Its memory serves as the buffer, so the guest must not be resumed afterwards.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

from acon_nb.errors import AconError, InvalidInput

_DMA_PORT = 0x514
_SIGNATURE, _BOOT_MENU, _DIRECTORY = 0x0000, 0x000E, 0x0019
_SELECT, _READ = 0x08, 0x02
_CONTROL_AT, _DATA_AT = 0x1000, 0x100000  # of the guest's memory, below 2 MiB
_ENTRY_BYTES = 64
_FILES_LIMIT = 1024
_FILE_LIMIT_BYTES = 4 << 20
_LINE_LIMIT_BYTES = 16 << 20
_HINT = "tested with QEMU 7.2 and later"


class FwCfg:
    """The fw_cfg of a stopped guest. `channel` is the connected qtest socket; `timeout_s` limits each answer."""

    def __init__(self, channel: socket.socket, *, timeout_s: float = 30.0) -> None:
        self._channel = channel
        self._timeout_s = timeout_s
        self._rest = b""

    def read_files(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read files by name. Errors: `InvalidInput` for one that this QEMU does not offer, `AconError`."""
        signature = self._item(_SIGNATURE, 4)
        if signature != b"QEMU":
            raise AconError(f"fw_cfg answered {signature!r} over DMA instead of QEMU", hint=_HINT)
        files = self._directory()
        missing = [name for name in names if name not in files]
        if missing:
            hint = f"it has: {', '.join(sorted(files))}"
            raise InvalidInput("fw_cfg", missing[0], "this guest has no such file", hint=hint)
        return {name: self._item(*files[name]) for name in names}

    def read_present(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read those of some files that this QEMU offers, by name. Errors: `AconError`."""
        files = self._directory()
        return {name: self._item(*files[name]) for name in names if name in files}

    def read_boot_menu(self) -> bytes:
        """Read whether QEMU's boot menu is on, an item of two bytes that is not a file. Errors: `AconError`."""
        return self._item(_BOOT_MENU, 2)

    def _directory(self) -> dict[str, tuple[int, int]]:
        count = struct.unpack(">I", self._item(_DIRECTORY, 4))[0]
        if count > _FILES_LIMIT:
            raise AconError(f"fw_cfg claims {count} files", hint=_HINT)
        raw = self._item(_DIRECTORY, 4 + _ENTRY_BYTES * count)
        files = {}
        for offset in range(4, len(raw), _ENTRY_BYTES):
            size, selector, _, name = struct.unpack_from(">IHH56s", raw, offset)
            files[name.split(b"\0")[0].decode("ascii", "replace")] = (selector, size)
        return files

    def _item(self, selector: int, size: int) -> bytes:
        """Read an item: write FWCfgDmaAccess {control, length, address}, then its address to the port, big-endian."""
        if size > _FILE_LIMIT_BYTES:
            raise AconError(f"fw_cfg claims an item of {size} bytes", hint=_HINT)
        control = selector << 16 | _SELECT | _READ
        request = struct.pack(">IIQ", control, size, _DATA_AT)
        self._ask(f"write {_CONTROL_AT:#x} {len(request):#x} 0x{request.hex()}")
        self._ask(f"outl {_DMA_PORT:#x} 0x0")
        self._ask(f"outl {_DMA_PORT + 4:#x} {_swapped(_CONTROL_AT):#x}")
        state = int.from_bytes(self._memory(_CONTROL_AT, 4), "big")
        if state:  # 0 when done; bit 0 signals an error
            raise AconError(f"fw_cfg did not read item {selector:#06x} ({state:#x})", hint=_HINT)
        return self._memory(_DATA_AT, size) if size else b""

    def _memory(self, start: int, size: int) -> bytes:
        answer = self._ask(f"read {start:#x} {size:#x}")
        try:
            raw = bytes.fromhex(answer.removeprefix("0x"))
        except ValueError:
            raw = b""
        if len(raw) != size:
            raise AconError(f"qtest did not send {size} bytes of memory: {answer[:40]!r}", hint=_HINT)
        return raw

    def _ask(self, command: str) -> str:
        """Send a command and return the rest of the answer "OK ...". Interrupt lines ("IRQ ...") are skipped."""
        deadline = time.monotonic() + self._timeout_s
        try:
            self._channel.settimeout(self._timeout_s)
            self._channel.sendall(command.encode() + b"\n")
            while time.monotonic() < deadline:
                line = self._line()
                if line.startswith("OK"):
                    return line[2:].strip()
                if not line.startswith("IRQ"):
                    raise AconError(f"qtest answered {line[:80]!r} to {command[:40]!r}", hint=_HINT)
        except OSError as error:
            raise AconError(f"qtest did not answer {command[:40]!r}: {error}", hint=_HINT) from error
        raise AconError(f"qtest did not answer {command[:40]!r}", hint=_HINT)

    def _line(self) -> str:
        while b"\n" not in self._rest:
            data = self._channel.recv(1 << 16)
            if not data:
                raise AconError("qtest closed the connection", hint=_HINT)
            self._rest += data
            if len(self._rest) > _LINE_LIMIT_BYTES:
                raise AconError("qtest sent a line that is too long", hint=_HINT)
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode("ascii", "replace")


def _swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "little"), "big")
