"""bash on a pseudo-terminal in a guest's place, so that the console is proven without QEMU."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import termios
import threading
from pathlib import Path


class ShellMachine:
    """What a console needs of a machine."""

    end = "hung up"

    def __init__(self, transcript, argv=("bash", "--norc", "--noprofile")):
        self.console = self.window = self
        self.transcript = Path(transcript)
        self.running = True
        self._lock = threading.RLock()
        self._said = bytearray()
        self._callbacks = []
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(PS1="$ ", TERM="xterm", ENV="")
            os.execvp(argv[0], argv)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self.transcript.open("wb", buffering=0) as log:
            while True:
                try:
                    data = os.read(self._fd, 65536)
                except OSError:
                    data, self.running = b"", False
                log.write(data)
                with self._lock:
                    self._said += data
                    del self._said[: -(1 << 20)]
                    for callback in self._callbacks:
                        callback(data)
                if not data:
                    return

    def write(self, data):
        os.write(self._fd, data)

    def set(self, rows, columns, term):
        """The window's new size, as a guest's /init sets it."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send_line(self, text):
        self.write(text.encode() + b"\r")

    def subscribe(self, callback, *, replay_bytes=0):
        with self._lock:
            if replay_bytes:
                callback(bytes(self._said[-replay_bytes:]))
            self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def wait(self):
        return self

    def close(self):
        os.kill(self.pid, signal.SIGHUP)
        os.waitpid(self.pid, 0)
