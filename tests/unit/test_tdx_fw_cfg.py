"""fw_cfg over qtest: a device of our own answers, rightly and wrongly."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from acon_nb.errors import AconError, InvalidInput
from acon_nb.tdx.fw_cfg import FwCfg

FILES = {"etc/acpi/rsdp": b"RSD PTR ", "etc/acpi/tables": bytes(range(256)) * 300, "empty": b""}


class Device:
    """QEMU's qtest and fw_cfg, as far as they are asked: memory, port 0x514 and the directory of `FILES`."""

    def __init__(self) -> None:
        self.memory = bytearray(2 << 20)
        self.items = {0x0: b"QEMU", 0x19: struct.pack(">I", len(FILES))}
        for number, (name, data) in enumerate(FILES.items()):
            self.items[0x19] += struct.pack(">IHH56s", len(data), 0x20 + number, 0, name.encode())
            self.items[0x20 + number] = data

    def answer(self, line: str) -> str:
        word, *rest = line.split()
        if word == "write":
            place, size = int(rest[0], 0), int(rest[1], 0)
            self.memory[place : place + size] = bytes.fromhex(rest[2][2:])
        elif word == "read":
            place, size = int(rest[0], 0), int(rest[1], 0)
            return f"OK 0x{self.memory[place : place + size].hex()}"
        elif word == "outl" and int(rest[0], 0) == 0x518:
            place = int.from_bytes(int(rest[1], 0).to_bytes(4, "little"), "big")
            control, size, target = struct.unpack_from(">IIQ", self.memory, place)
            assert control & 0xFFFF == 0x0A
            self.memory[target : target + size] = self.items[control >> 16][:size]
            self.memory[place : place + 4] = bytes(4)
        return "OK"


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str], str]], FwCfg]]:
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def make(answer: Callable[[str], str]) -> FwCfg:
        ours, theirs = socket.socketpair()
        ends.extend((ours, theirs))

        def run() -> None:
            with contextlib.suppress(OSError), theirs.makefile("rw") as stream:
                for line in stream:
                    stream.write(answer(line.strip()) + "\n")
                    stream.flush()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return FwCfg(ours, timeout_s=5.0)

    yield make
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
    for thread in threads:
        thread.join()


def test_files_are_read_whole(serve: Callable[[Callable[[str], str]], FwCfg]) -> None:
    assert serve(Device().answer).read_files(list(FILES)) == FILES


def test_interrupts_between_answers_are_passed_over(serve: Callable[[Callable[[str], str]], FwCfg]) -> None:
    device = Device()
    fw_cfg = serve(lambda line: f"IRQ raise 4\n{device.answer(line)}")
    assert fw_cfg.read_files(["etc/acpi/rsdp"]) == {"etc/acpi/rsdp": b"RSD PTR "}


def test_a_file_that_is_not_there_is_named(serve: Callable[[Callable[[str], str]], FwCfg]) -> None:
    with pytest.raises(InvalidInput, match="etc/none") as caught:
        serve(Device().answer).read_files(["etc/none"])
    assert "etc/acpi/tables" in caught.value.hint


@pytest.mark.parametrize(
    "item", [b"\xff\xff\xff\xff", struct.pack(">I", 1) + struct.pack(">IHH56s", 1 << 31, 0x20, 0, b"x")]
)
def test_a_directory_that_lies_is_refused(serve: Callable[[Callable[[str], str]], FwCfg], item: bytes) -> None:
    device = Device()
    device.items[0x19] = item
    with pytest.raises(AconError, match=r"claims 4294967295 files|item of 2147483648 bytes"):
        serve(device.answer).read_files(["x"])


@pytest.mark.parametrize("wrong", ["FAIL unknown", "nonsense", "OK 0xzz", "OK 0x00"])
def test_a_wrong_answer_is_reported(serve: Callable[[Callable[[str], str]], FwCfg], wrong: str) -> None:
    with pytest.raises(AconError, match=wrong if not wrong.startswith("OK") else "did not send 4 bytes"):
        serve(lambda _: wrong).read_files(["x"])


def test_an_end_without_an_answer_is_reported() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(AconError, match="qtest closed the connection"):
            FwCfg(ours, timeout_s=5.0).read_files(["x"])
    theirs.close()
