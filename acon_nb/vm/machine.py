"""Run a guest: start it paused, let it go, watch it over QMP, take its results as JSON lines.

A thread with its own event loop watches each guest; the caller's thread only waits. QMP, the results port and the
interactive console are socket pairs, so nothing is left behind in the file system. Without an interactive console QEMU
writes the transcript itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from acon_nb.cache import writable_folder
from acon_nb.errors import AconError, InvalidInput
from acon_nb.host import probe_kvm, probe_qemu
from acon_nb.process import RawTerminal
from acon_nb.progress import CancelToken
from acon_nb.vm import monitor, preflight
from acon_nb.vm.command import Capabilities, accelerator_of
from acon_nb.vm.commands import Agent, Executed, GuestCommand
from acon_nb.vm.console import Console
from acon_nb.vm.counters import Sample
from acon_nb.vm.counting import Counter, counter
from acon_nb.vm.diagnosis import End, kvm_failed
from acon_nb.vm.outcome import Message, Outcome
from acon_nb.vm.plumbing import run_folder
from acon_nb.vm.qemu_run import START_S, Guest, QemuRun
from acon_nb.vm.ready import Ready
from acon_nb.vm.spec import VmSpec
from acon_nb.vm.ssh import ssh, ssh_rule
from acon_nb.vm.window import TerminalWindow

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_TRANSCRIPT_LIMIT_BYTES = 256 << 20
_CANCEL_POLL_S = 0.1
_TERMINATE_S = 3.0


def capabilities() -> Capabilities:
    """Probe this host's capabilities."""
    qemu = probe_qemu()
    kvm = probe_kvm()
    return Capabilities(
        qemu=qemu.path,
        version=qemu.version,
        kvm=kvm.usable,
        kvm_why=kvm.why,
        string_flags=qemu.string_flags,
    )


class Machine:
    """One guest. `start` runs it, `wait` returns its `Outcome`; leaving the context ends it.

    Parameters: `spec` is what to boot; `folder` is where `console.log` is written and stays (default: a new folder
    under `runs/` in the user cache, which keeps the newest hundred); `host` is probed by default; `on_message` is
    called with each `Message`, in the machine's thread. `interactive` gives the guest a `console` to type at; `mux`
    also puts QEMU's monitor on that console, with QEMU's keys (^A c, ^A x), as the guide's script does. A guest that
    stays where it is (a panic without `panic=`, a disk that failed) is ended, an interactive one unless it is
    `attended`: then somebody is in front of it, and may resume it. `on_notice` is called with each sentence that such
    a person should read (what QEMU reports of the guest; also in the outcome's `notes`), in the machine's thread. A
    guest for which "auto" chose KVM, and whose KVM fails before its console said anything, is started again on TCG.
    `count_by` are addresses at which functions start: the guest's instructions are counted by them
    (`vm.counting`), for the outcome's `snapshots`; with `calls`, functions by address, also by call stack,
    and with `programs` user space also by page of a file. `until` ends
    the guest as soon as it is ready, which is then its end (`READY`). `agent`: the spec is one of `agent.prepare`, and
    `execute` runs commands in the guest. `window` and `terminal`, if it is in raw mode, are those of the terminal in
    front of the console (`attach` sets both); the size of the window reaches a guest with a console whenever it is set.
    """

    def __init__(
        self,
        spec: VmSpec,
        *,
        folder: Path | None = None,
        host: Capabilities | None = None,
        on_message: Callable[[Message], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
        interactive: bool = False,
        mux: bool = False,
        attended: bool = False,
        count_by: Sequence[int] | None = None,
        calls: Mapping[int, str] | None = None,
        programs: bool = False,
        transcript_limit_bytes: int = _TRANSCRIPT_LIMIT_BYTES,
        until: Ready | None = None,
        agent: bool = False,
    ) -> None:
        self.spec = spec
        self.host = host or capabilities()
        self.accelerator = accelerator_of(spec, self.host)
        self.folder = folder or run_folder()
        writable_folder(self.folder)
        self.transcript = self.folder / "console.log"
        self._limit_bytes = transcript_limit_bytes
        self._until = until
        self._agent = Agent() if agent else None
        self._console: Console | None = None
        if interactive or mux:
            self._console = Console(self.transcript, transcript_limit_bytes=transcript_limit_bytes)
        self._count_by = count_by
        self._calls = calls
        self._programs = programs
        self._counter: Counter | None = None
        self._mux = mux
        self._attended = attended
        self._on_message = on_message
        self._on_notice = on_notice
        self.window = TerminalWindow()
        self.terminal: RawTerminal | None = None
        self._cancel = CancelToken()
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._paused = False
        self._qemu: QemuRun | None = None

    @property
    def console(self) -> Console:
        """The console to type at. Errors: `InvalidInput` if the machine has none."""
        if self._console is None:
            hint = "create the machine with interactive=True; the transcript is written in any case"
            raise InvalidInput("interactive", False, "this machine has no console to type at", hint=hint)
        return self._console

    @property
    def running(self) -> bool:
        """Whether the guest has been started and has not ended."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def pid(self) -> int | None:
        """QEMU's process id; None before it runs."""
        return None if self._qemu is None else self._qemu.pid

    def start(self, *, paused: bool = False) -> Machine:
        """Start QEMU in the background; with `paused` the guest waits for `resume`.

        Errors: `InvalidInput` (a port, a vsock address or a disk is in use), `MissingRequirement` (no vhost-vsock), and
        those of `counting.counter`.
        """
        if self._thread is not None:
            raise AconError("this machine was started before", hint="create a new Machine from its spec")
        preflight.check(self.spec)
        if self._count_by is not None:
            self._counter = counter(
                self.host.qemu, self.folder, self._count_by, calls=self._calls, programs=self._programs
            )
        self._paused = paused
        self._thread = threading.Thread(target=self._main, name="acon-vm", daemon=True)
        self._thread.start()
        return self

    def wait(self, cancel: CancelToken | None = None) -> Outcome:
        """Wait until the guest ends, at the latest by its time limit; `cancel` kills it."""
        if self._thread is None:
            self.start()
        assert self._thread is not None
        while self._thread.is_alive():
            self._thread.join(None if cancel is None else _CANCEL_POLL_S)
            if cancel is not None and cancel.cancelled:
                self.kill()
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome

    def stop(self, grace_s: float = 5.0) -> Outcome:
        """Shut the guest down: press the power button, after `grace_s` send QEMU SIGTERM, three seconds later SIGKILL.

        The end is `POWERED_OFF` if the guest reacted to the button, else `STOPPED` or `KILLED`. The guide's kernel
        (without ACPI_BUTTON) and a guest without acpid ignore the button.
        """
        if self._thread is None:
            raise AconError("the guest is not running", hint="start it first")
        with contextlib.suppress(AconError):  # no monitor (yet): continue with the next step
            if self._agent is not None and self._agent.connected:
                self._agent.power_off()
            else:
                self.qmp("system_powerdown")
            self._thread.join(grace_s)
        child = None if self._qemu is None else self._qemu.child
        if child is not None and self._thread.is_alive():
            child.terminate()
            self._thread.join(_TERMINATE_S)
        self.kill()
        return self.wait()

    def kill(self) -> None:
        """End the guest at once; its end is then `KILLED`."""
        self._cancel.cancel()

    def pause(self) -> None:
        """Pause the guest's vCPUs."""
        self.qmp("stop")

    def resume(self) -> None:
        """Resume the guest's vCPUs."""
        qemu = self._monitored()
        self.qmp("cont")
        qemu.continued_ns = qemu.continued_ns or time.monotonic_ns()

    def qmp(self, command: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float = 5.0) -> Any:
        """Run a QMP command and return its answer. Errors: `AconError` if QEMU refuses it or is not running."""
        qemu = self._monitored()
        assert qemu.client is not None
        return self._ask(qemu, qemu.client.execute(command, dict(arguments or {})), timeout_s)

    @property
    def agent(self) -> Agent:
        """The guest's agent. Errors: `InvalidInput` if the machine has none."""
        if self._agent is None:
            hint = "prepare the spec: agent.prepare(spec), then Machine(spec, agent=True)"
            raise InvalidInput("agent", False, "this machine has no agent that runs commands", hint=hint)
        return self._agent

    def execute(self, command: GuestCommand | Sequence[str], **fields: Any) -> Executed:
        """Run a command in the running guest, whose agent must be ready (`agent.await_ready`); several may run at once.

        `command` is a `GuestCommand`, or its words; `fields` are further ones of a `GuestCommand`, such as `stdin`.
        Errors: `CommandTimeout` (killed after `timeout_s`), `Cancelled`, `GuestFailed` (the guest ended).
        """
        return self.agent.run(command, running=lambda: self.running, **fields)

    def statistics(self) -> Sample:
        """Read the guest's counters once. Errors: `AconError` if it is not running."""
        qemu = self._monitored()
        assert qemu.sampler is not None
        return self._ask(qemu, qemu.sampler.sample(), 5.0)

    def samples(self, every_s: float = 1.0) -> Iterator[Sample]:
        """Yield the guest's counters every `every_s` seconds until it ends."""
        due = time.monotonic()
        while self.running:
            try:
                yield self.statistics()
            except AconError as error:
                _log.debug("no more samples: %s", error)
                return
            due = max(due + every_s, time.monotonic())
            assert self._thread is not None
            self._thread.join(max(0.0, due - time.monotonic()))

    def ssh(self, command: str | Sequence[str], *, key: Path, user: str = "root", timeout_s: float = 60.0) -> str:
        """Run a command in the guest over the forwarded SSH port (see `acon_nb.vm.ssh`)."""
        return ssh(ssh_rule(self.spec), key, command, user=user, timeout_s=timeout_s)

    def close(self) -> None:
        """End the guest if it is running."""
        self.kill()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _monitored(self) -> QemuRun:
        """The QEMU process that takes commands, as soon as there is one. Errors: `AconError`."""
        deadline = time.monotonic() + START_S
        while self.running and time.monotonic() < deadline:
            qemu = self._qemu
            if qemu is not None and qemu.ready.wait(_CANCEL_POLL_S) and qemu.client is not None and self.running:
                return qemu
        raise AconError("the guest is not running", hint="start it; wait() returns how it ended")

    def _ask(self, qemu: QemuRun, work: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
        assert qemu.loop is not None
        return monitor.ask(work, qemu.loop, lambda: self.running, timeout_s)

    def _main(self) -> None:
        try:
            self._outcome = asyncio.run(self._run())
        except BaseException as error:  # handed to the waiting thread
            self._error = error

    async def _run(self) -> Outcome:
        may_fall_back = self.accelerator == "kvm" and self.spec.accelerator == "auto" and self.spec.td is None
        guest = self._guest()
        self._qemu = QemuRun(guest, self.host, paused=self._paused, last=not may_fall_back)
        try:
            outcome = await self._qemu.run()
            if may_fall_back and self._kvm_failed_at_once(outcome):
                self.host = replace(self.host, kvm=False, kvm_why="KVM failed before the guest's first output")
                self.accelerator = accelerator_of(self.spec, self.host)
                self._qemu = QemuRun(guest, self.host)
                self._qemu.notice(
                    f"{self.host.kvm_why}: it runs on TCG instead, much more slowly (acon-nb doctor --fresh)"
                )
                outcome = await self._qemu.run()
            return outcome
        finally:
            if self._console is not None:
                self._console.end()

    def _guest(self) -> Guest:
        return Guest(
            spec=self.spec,
            folder=self.folder,
            transcript=self.transcript,
            console=self._console,
            mux=self._mux,
            attended=self._attended,
            on_message=self._on_message,
            on_notice=self._on_notice,
            limit_bytes=self._limit_bytes,
            until=self._until,
            counter=self._counter,
            cancel=self._cancel,
            agent=self._agent,
            window=self.window,
            terminal=self.terminal,
        )

    def _kvm_failed_at_once(self, outcome: Outcome) -> bool:
        """Whether KVM failed before the guest said anything, so that nothing is lost if it starts again on TCG."""
        silent = not outcome.messages and self.transcript.stat().st_size == 0
        return silent and outcome.end is End.QEMU_FAILED and kvm_failed(outcome.stderr)


def boot(
    spec: VmSpec, *, folder: Path | None = None, host: Capabilities | None = None, cancel: CancelToken | None = None
) -> Outcome:
    """Boot a guest and wait until it ends."""
    with Machine(spec, folder=folder, host=host) as machine:
        return machine.wait(cancel)
