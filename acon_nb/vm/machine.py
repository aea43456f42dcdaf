"""A running guest: started paused, continued when we say, watched over QMP, its results taken as JSON lines.

One thread with its own event loop watches each guest; the caller's thread only waits. QMP and the results port are
socket pairs, so nothing is left in the file system; QEMU itself writes the console transcript.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient, QMPError

from acon_nb.cache import default_root
from acon_nb.errors import GuestFailed, InvalidInput
from acon_nb.host import probe_kvm, probe_qemu, pss_bytes
from acon_nb.process import Child
from acon_nb.progress import CancelToken
from acon_nb.vm.command import Capabilities, Channels, accelerator_of, argument_list
from acon_nb.vm.console import End, end_of_reset, hint_for, panic_lines, read_tail
from acon_nb.vm.spec import Forward, VmSpec

_log = logging.getLogger(__name__)
_TAIL_LINES = 20
_RUNS_KEPT = 100
_MESSAGE_LIMIT_BYTES = 4 << 20
_CANCEL_POLL_S = 0.05
_DRAIN_S = 2.0
_FW_CFG = re.compile(rb"@(\d+)\.(\d+):fw_cfg_select .*'(kernel_data|setup_data|cmdline_data|initrd_data)'")


@dataclass(frozen=True)
class Message:
    """One JSON line of the guest, and the host's monotonic time of its arrival, in ns."""

    host_ns: int
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a guest went.

    `end` names its end; `started_ns` (before QEMU's exec), `continued_ns` (the vCPU is let go) and `ended_ns` are host
    monotonic times; `kernel_entry_ns` is when the loader read its last piece over fw_cfg, just before it jumps into
    the kernel (None where QEMU cannot trace). `tail` are the transcript's last lines, `panic` the oops.
    `qemu_pss_bytes` was read when the guest's last message came. `command` can be pasted into a shell.
    """

    end: End
    messages: tuple[Message, ...]
    command: str
    accelerator: str
    console: Path
    started_ns: int
    continued_ns: int | None
    kernel_entry_ns: int | None
    ended_ns: int
    qemu_pss_bytes: int | None
    returncode: int | None
    tail: tuple[str, ...]
    panic: tuple[str, ...]
    stderr: tuple[str, ...]
    hint: str

    def check(self) -> Outcome:
        """Return self if the guest powered off; else raise `GuestFailed` with the evidence."""
        if self.end is not End.POWERED_OFF:
            shown = self.panic or self.stderr or self.tail
            raise GuestFailed(
                f"the guest ended: {self.end}",
                end=self.end,
                details=[*shown[-_TAIL_LINES:], f"console: {self.console}", f"command: {self.command}"],
                hint=self.hint,
            )
        return self


def capabilities() -> Capabilities:
    """This host's capabilities, probed."""
    qemu = probe_qemu()
    kvm = probe_kvm()
    return Capabilities(qemu=qemu.path, version=qemu.version, kvm=kvm.usable, kvm_why=kvm.why)


class Machine:
    """One guest. `start` lets it run, `wait` returns its `Outcome`; leaving the context ends it.

    Parameters: `spec` what to boot; `folder` gets `console.log`, which stays there (default: a new folder under
    `runs/` in the user cache, where the newest hundred are kept); `host` default: probed; `on_message` is called with
    each `Message`, in the machine's thread.
    """

    def __init__(
        self,
        spec: VmSpec,
        *,
        folder: Path | None = None,
        host: Capabilities | None = None,
        on_message: Callable[[Message], None] | None = None,
    ) -> None:
        self.spec = spec
        self.host = host or capabilities()
        self.accelerator = accelerator_of(spec, self.host)
        self.folder = folder or _run_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.console = self.folder / "console.log"
        self._on_message = on_message
        self._cancel = CancelToken()
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._messages: list[Message] = []
        self._shutdown_reason = ""
        self._pss: int | None = None
        self._continued_ns: int | None = None

    def start(self) -> Machine:
        """Start QEMU in the background. Errors: `InvalidInput` (a forwarded port is in use)."""
        for rule in self.spec.forwards:
            _require_free(rule)
        self._thread = threading.Thread(target=self._main, name="acon-vm", daemon=True)
        self._thread.start()
        return self

    def wait(self, cancel: CancelToken | None = None) -> Outcome:
        """Wait for the guest's end (its time limit holds); a cancel kills it."""
        if self._thread is None:
            self.start()
        assert self._thread is not None
        while self._thread.is_alive():
            self._thread.join(_CANCEL_POLL_S)
            if cancel is not None and cancel.cancelled:
                self.kill()
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome

    def kill(self) -> None:
        """End the guest at once; its end is then `KILLED`."""
        self._cancel.cancel()

    def close(self) -> None:
        """End the guest if it runs."""
        self.kill()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _main(self) -> None:
        try:
            self._outcome = asyncio.run(self._run())
        except BaseException as error:  # handed to the waiting thread
            self._error = error

    async def _run(self) -> Outcome:
        qmp_ours, qmp_qemu = socket.socketpair()
        results_ours, results_qemu = socket.socketpair()
        trace = self.folder / "fw_cfg.trace"
        channels = Channels(
            console=self.console, qmp_fd=qmp_qemu.fileno(), results_fd=results_qemu.fileno(), trace=trace, paused=True
        )
        argv = argument_list(self.spec, self.host, channels)
        self.console.write_bytes(b"")
        errors_path = self.folder / "qemu.stderr"
        wall_ns = time.time_ns() - time.monotonic_ns()  # the trace has wall-clock times
        with contextlib.ExitStack() as stack:
            for end in (qmp_ours, results_ours):
                stack.callback(end.close)
            errors = stack.enter_context(errors_path.open("wb"))
            started_ns = time.monotonic_ns()
            try:
                fds = (qmp_qemu.fileno(), results_qemu.fileno())
                child = stack.enter_context(Child(argv, stdin=subprocess.DEVNULL, stderr=errors, pass_fds=fds))
            finally:
                qmp_qemu.close()
                results_qemu.close()
            ended_by = await self._watch(child, qmp_ours, results_ours)
            ended_ns = time.monotonic_ns()
            returncode = child.poll()
        entry_ns = _kernel_entry_ns(trace, wall_ns)
        trace.unlink(missing_ok=True)
        stderr = tuple(read_tail(errors_path))
        return self._judge(ended_by, returncode, started_ns, entry_ns, ended_ns, stderr)

    async def _watch(self, child: Child, qmp_socket: socket.socket, results: socket.socket) -> str:
        """Let the guest go and follow it; returns "end" (QEMU ended by itself), "limit" or "killed"."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(child.fileno(), lambda: ended.set() if child.poll() is not None else None)
        reader = asyncio.create_task(self._take_messages(results, child))
        control = asyncio.create_task(self._control(qmp_socket))
        deadline = time.monotonic() + self.spec.timeout_s
        try:
            while not ended.is_set():
                if self._cancel.cancelled:
                    return "killed"
                if time.monotonic() > deadline:
                    return "limit"
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), _CANCEL_POLL_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader, _DRAIN_S)
            await self._drain_control(child)
            return "end"
        finally:
            loop.remove_reader(child.fileno())
            child.kill()
            for task in (reader, control):
                task.cancel()
            done = await asyncio.gather(reader, control, return_exceptions=True)
            for error in done:
                if isinstance(error, Exception):
                    _log.debug("watching the guest: %r", error)

    async def _drain_control(self, child: Child) -> None:
        """QEMU says why it ends before it ends, but that word may still be on its way to us."""
        deadline = time.monotonic() + _DRAIN_S
        while child.poll() == 0 and not self._shutdown_reason and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    async def _control(self, qmp_socket: socket.socket) -> None:
        """QMP: continue the guest, then note why it shuts down."""
        client = QMPClient("acon-vm")
        client.logger.setLevel(logging.CRITICAL)
        try:
            await client.connect(qmp_socket)
            self._continued_ns = time.monotonic_ns()
            await client.execute("cont")
            async for event in client.events:
                if event["event"] in ("SHUTDOWN", "GUEST_PANICKED"):
                    data = event.get("data")
                    reason = data.get("reason", "guest-panic") if isinstance(data, dict) else "guest-panic"
                    self._shutdown_reason = self._shutdown_reason or str(reason)
        except (QMPError, OSError, EOFError) as error:
            _log.debug("QMP ended: %r", error)
        finally:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await client.disconnect()

    async def _take_messages(self, results: socket.socket, child: Child) -> None:
        reader, writer = await asyncio.open_connection(sock=results, limit=_MESSAGE_LIMIT_BYTES)
        try:
            while line := await reader.readline():
                now = time.monotonic_ns()
                try:
                    data = json.loads(line)
                except ValueError:
                    _log.warning("the guest sent a line that is not JSON: %.200r", line)
                    continue
                if not isinstance(data, dict):
                    continue
                self._pss = pss_bytes(child.pid or 0) or self._pss
                message = Message(now, data)
                self._messages.append(message)
                if self._on_message is not None:
                    self._on_message(message)
        except ConnectionError:
            return
        except ValueError as error:  # a line over the limit: a guest gone wild
            _log.warning("the guest's results are read no further: %s", error)
        finally:
            writer.close()

    def _judge(
        self,
        ended_by: str,
        returncode: int | None,
        started_ns: int,
        entry_ns: int | None,
        ended_ns: int,
        stderr: tuple[str, ...],
    ) -> Outcome:
        lines = read_tail(self.console)
        if ended_by == "limit":
            end = End.HANG
        elif ended_by == "killed" or returncode in (-signal.SIGKILL, -signal.SIGTERM):
            end = End.KILLED
        elif returncode != 0 or not self._shutdown_reason:
            end = End.QEMU_FAILED
        elif self._shutdown_reason == "guest-shutdown":
            end = End.POWERED_OFF
        else:
            end = end_of_reset(lines)
        return Outcome(
            end=end,
            messages=tuple(self._messages),
            command=paste(self.spec, self.host),
            accelerator=self.accelerator,
            console=self.console,
            started_ns=started_ns,
            continued_ns=self._continued_ns,
            kernel_entry_ns=entry_ns,
            ended_ns=ended_ns,
            qemu_pss_bytes=self._pss,
            returncode=returncode,
            tail=tuple(lines[-_TAIL_LINES:]),
            panic=tuple(panic_lines(lines)),
            stderr=stderr,
            hint=hint_for(end, [*lines, *stderr]),
        )


def paste(spec: VmSpec, host: Capabilities) -> str:
    """The command that boots `spec` in a terminal, quoted for a shell."""
    return shlex.join(argument_list(spec, host))


def boot(
    spec: VmSpec, *, folder: Path | None = None, host: Capabilities | None = None, cancel: CancelToken | None = None
) -> Outcome:
    """Boot a guest and wait for its end."""
    with Machine(spec, folder=folder, host=host) as machine:
        return machine.wait(cancel)


def _run_folder() -> Path:
    """A new folder for one run; all but the newest of them are removed."""
    runs = default_root() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in sorted(runs.iterdir())[:-_RUNS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%dT%H%M%S-"), dir=runs))


def _require_free(rule: Forward) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((rule.address, rule.host_port))
        except OSError as error:
            raise InvalidInput(
                "forwards",
                f"{rule.address}:{rule.host_port}",
                os.strerror(error.errno or 0),
                hint="choose another host port",
            ) from error


def _kernel_entry_ns(trace: Path, wall_ns: int) -> int | None:
    """Host monotonic time of the loader's last fw_cfg access before it enters the kernel (QEMU's trace log)."""
    try:
        found = _FW_CFG.findall(trace.read_bytes())
    except OSError:
        return None
    if not found:
        return None
    seconds, micros, _ = found[-1]
    return int(seconds) * 10**9 + int(micros) * 1000 - wall_ns
