"""Connect a guest's console to a terminal, or to two pipes: keys go in, output comes out."""

from __future__ import annotations

import contextlib
import os
import selectors
import termios
import threading
import time
import tty
from collections.abc import Iterator

from acon_nb.errors import AconError
from acon_nb.vm.machine import Machine
from acon_nb.vm.outcome import Outcome

_CHUNK_BYTES = 4096
_BUSY_S = 0.02


def attach(machine: Machine, keys_fd: int, output_fd: int) -> Outcome:
    """Run a machine (made with `mux` or `interactive`) with these descriptors as its console; return its outcome.

    A terminal at `keys_fd` is in raw mode meanwhile, so that ^C and ^Z go to the guest, and is restored afterwards.
    At the end of a pipe's input the guest keeps running; it just gets no more keys.
    """

    def show(data: bytes) -> None:
        try:
            while data:
                data = data[os.write(output_fd, data) :]
        except OSError:  # the reader closed the pipe: that ends the guest, as it would end a program
            machine.kill()

    unsubscribe = machine.console.subscribe(show)
    stop_r, stop_w = os.pipe()
    keys = threading.Thread(target=_pump, args=(machine, keys_fd, stop_r), name="acon-keys", daemon=True)
    try:
        with _raw(keys_fd):
            machine.start()
            keys.start()
            try:
                return machine.wait()
            finally:
                machine.close()
                os.write(stop_w, b".")
                keys.join()
    finally:
        unsubscribe()
        os.close(stop_r)
        os.close(stop_w)


def _pump(machine: Machine, keys_fd: int, stop_fd: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(stop_fd, selectors.EVENT_READ)
        try:
            selector.register(keys_fd, selectors.EVENT_READ)
            pollable = True
        except PermissionError:  # a plain file is always readable, and epoll does not accept one
            pollable = False
        while True:
            ready = {key.fd for key, _ in selector.select(None if pollable else 0)}
            if stop_fd in ready:
                return
            try:
                data = os.read(keys_fd, _CHUNK_BYTES)
            except OSError:  # the terminal hung up
                return
            if not data:
                return
            while machine.running:
                with contextlib.suppress(AconError):  # the guest is slow to read: make the pipe wait
                    machine.console.write(data)
                    break
                time.sleep(_BUSY_S)


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
