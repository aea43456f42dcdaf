"""Type a script at a guest's console: each line when the guest waits for it.

What is typed too early is lost: a serial port that the kernel has not set up yet drops it, a terminal buffers 4095
bytes, and a shell that starts may flush its input. So a line waits until the console shows a prompt, or until the guest
is silent and idle: then a program reads. One that is silent but busy gets its line after a while too.
"""

from __future__ import annotations

import contextlib
import re
import time

from acon_nb.errors import AconError
from acon_nb.host import wanted_cpu_ns
from acon_nb.vm.diagnosis import shown_lines
from acon_nb.vm.machine import Machine

_LOOK_S = 0.02
_PROMPT = re.compile(r"[#$>%:?] ?$")
_PROMPT_QUIET_S = 0.1
_IDLE_QUIET_S = 1.0
_BUSY_QUIET_S = 5.0
_IDLE_SHARE = 0.2  # of one CPU: QEMU's own threads take some
_TAIL_BYTES = 512


class Typist:
    """Types at one machine's console."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._typed = False
        self._typed_at = 0  # how much the console had output when the last line was typed

    def type(self, data: bytes) -> bool:
        """Type as soon as the guest waits for input; False if it ended before."""
        if not self.wait():
            return False
        self._typed, self._typed_at = True, self._machine.console.total_bytes
        while self._machine.running:
            with contextlib.suppress(AconError):  # it reads slowly
                self._machine.console.write(data)
                return True
            time.sleep(_LOOK_S)
        return False

    def wait(self) -> bool:
        """Wait until the guest waits for input; False if it ended before."""
        console = self._machine.console
        total, since = console.total_bytes, time.monotonic()
        used_ns = wanted_cpu_ns(self._machine.pid)
        while self._machine.running:
            now = time.monotonic()
            if console.total_bytes != total:
                total, since, used_ns = console.total_bytes, now, wanted_cpu_ns(self._machine.pid)
            quiet_s = now - since
            answered = total > self._typed_at
            if answered and self._reads(quiet_s, wanted_cpu_ns(self._machine.pid) - used_ns):
                return True
            if self._typed and quiet_s >= _BUSY_QUIET_S:  # it does not even echo
                return True
            time.sleep(_LOOK_S)
        return False

    def _reads(self, quiet_s: float, used_ns: int) -> bool:
        """Whether the guest waits for input, given for how long it was silent and what QEMU used of the CPU then."""
        last = shown_lines(self._machine.console.scrollback(_TAIL_BYTES))[-1]
        if quiet_s >= _PROMPT_QUIET_S and _PROMPT.search(last):
            return True
        idle = used_ns <= quiet_s * _IDLE_SHARE * 1e9
        return quiet_s >= (_IDLE_QUIET_S if idle else _BUSY_QUIET_S)
