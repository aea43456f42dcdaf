"""Run a guest: start it paused, let it go, watch it over QMP, take its results as JSON lines.

A thread with its own event loop watches each guest; the caller's thread only waits. QMP, the results port and the
interactive console are socket pairs, so nothing is left behind in the file system. Without an interactive console QEMU
writes the transcript itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import QMPClient

from acon_nb.errors import AconError, InvalidInput
from acon_nb.host import QemuMemory, probe_kvm, probe_qemu, qemu_memory
from acon_nb.process import Child
from acon_nb.progress import CancelToken
from acon_nb.vm import monitor, preflight
from acon_nb.vm.command import Capabilities, Channels, accelerator_of, argument_list, paste
from acon_nb.vm.console import Console
from acon_nb.vm.counters import Sample, Sampler
from acon_nb.vm.counting import Counter, counter
from acon_nb.vm.diagnosis import console_device, hint_for, kvm_failed, panic_lines, plain_lines, read_tail
from acon_nb.vm.outcome import TAIL_LINES, Message, Outcome, full_disk_note, kernel_entry_ns, name_end
from acon_nb.vm.plumbing import held, run_folder, socket_pairs, take_messages
from acon_nb.vm.ready import Ready, ReadyWatch, Rule
from acon_nb.vm.spec import VmSpec
from acon_nb.vm.ssh import ssh, ssh_rule

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_TRANSCRIPT_LIMIT_BYTES = 256 << 20
_CANCEL_POLL_S = 0.1
_DRAIN_S = 2.0
_TERMINATE_S = 3.0
_PANIC_S = 2.0
_START_S = 20.0


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
    also puts QEMU's monitor on that console, with QEMU's keys (^A c, ^A x), as the guide's script does. `end_on_panic`
    ends an interactive guest two seconds after its kernel panicked; otherwise, without `panic=`, it would stay there
    forever. `count_by` are addresses at which functions start: the guest's instructions are counted by them
    (`vm.counting`), for the outcome's `snapshots`; with `calls`, functions by address, also by call stack. `until` ends
    the guest as soon as it is ready, which is then its end (`READY`).
    """

    def __init__(
        self,
        spec: VmSpec,
        *,
        folder: Path | None = None,
        host: Capabilities | None = None,
        on_message: Callable[[Message], None] | None = None,
        interactive: bool = False,
        mux: bool = False,
        end_on_panic: bool = True,
        count_by: Sequence[int] | None = None,
        calls: Mapping[int, str] | None = None,
        transcript_limit_bytes: int = _TRANSCRIPT_LIMIT_BYTES,
        until: Ready | None = None,
    ) -> None:
        self.spec = spec
        self.host = host or capabilities()
        self.accelerator = accelerator_of(spec, self.host)
        self.folder = folder or run_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.transcript = self.folder / "console.log"
        self._limit_bytes = transcript_limit_bytes
        self._awaited = None if until is None else ReadyWatch(until, self.transcript, spec.clock)
        self._console: Console | None = None
        if interactive or mux:
            self._console = Console(self.transcript, transcript_limit_bytes=transcript_limit_bytes)
        self._count_by = count_by
        self._calls = calls
        self._counter: Counter | None = None
        self._mux = mux
        self._end_on_panic = end_on_panic
        self._on_message = on_message
        self._cancel = CancelToken()
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._messages: list[Message] = []
        self._shutdown_reason = ""
        self._kvm_failed = False
        self._memory: QemuMemory | None = None
        self._continued_ns: int | None = None
        self._paused = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._child: Child | None = None
        self._client: QMPClient | None = None
        self._sampler: Sampler | None = None
        self._ready = threading.Event()

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
        return self._child.pid if self._child is not None else None

    def start(self, *, paused: bool = False) -> Machine:
        """Start QEMU in the background; with `paused` the guest waits for `resume`.

        Errors: `InvalidInput` (a port, a vsock address or a disk is in use), `MissingRequirement` (no vhost-vsock), and
        those of `counting.counter`.
        """
        if self._thread is not None:
            raise AconError("this machine was started before", hint="create a new Machine from its spec")
        preflight.check(self.spec)
        if self._count_by is not None:
            self._counter = counter(self.host.qemu, self.folder, self._count_by, calls=self._calls)
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
            self.execute("system_powerdown")
            self._thread.join(grace_s)
        if self._child is not None and self._thread.is_alive():
            self._child.terminate()
            self._thread.join(_TERMINATE_S)
        self.kill()
        return self.wait()

    def kill(self) -> None:
        """End the guest at once; its end is then `KILLED`."""
        self._cancel.cancel()

    def pause(self) -> None:
        """Pause the guest's vCPUs."""
        self.execute("stop")

    def resume(self) -> None:
        """Resume the guest's vCPUs."""
        self.execute("cont")
        self._continued_ns = self._continued_ns or time.monotonic_ns()

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float = 5.0) -> Any:
        """Run a QMP command and return its answer. Errors: `AconError` if QEMU refuses it or is not running."""
        self._await_monitor()
        assert self._client is not None
        return self._ask(self._client.execute(command, dict(arguments or {})), timeout_s)

    def statistics(self) -> Sample:
        """Read the guest's counters once. Errors: `AconError` if it is not running."""
        self._await_monitor()
        assert self._sampler is not None
        return self._ask(self._sampler.sample(), 5.0)

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

    def _await_monitor(self) -> None:
        if not self.running or not self._ready.wait(_START_S) or not self.running:
            raise AconError("the guest is not running", hint="start it; wait() returns how it ended")

    def _ask(self, work: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
        assert self._loop is not None
        return monitor.ask(work, self._loop, lambda: self.running, timeout_s)

    def _main(self) -> None:
        try:
            self._outcome = asyncio.run(self._run())
        except BaseException as error:  # handed to the waiting thread
            self._error = error
        finally:
            self._ready.set()

    async def _run(self) -> Outcome:
        self._loop = asyncio.get_running_loop()
        trace = self.folder / "fw_cfg.trace"
        errors_path = self.folder / "qemu.stderr"
        names = ["qmp", "commands", "results"]
        if self._console is not None:
            names += ["mux"] if self._mux else ["serial", "hvc"]
        wall_ns = time.time_ns() - time.monotonic_ns()  # the trace has wall-clock times
        with contextlib.ExitStack() as stack:
            stack.enter_context(held(self.folder))
            ours, theirs = socket_pairs(names, stack)
            argv = argument_list(self.spec, self.host, self._channels(theirs, trace))
            self.transcript.write_bytes(b"")
            errors = stack.enter_context(errors_path.open("wb"))
            started_ns = time.monotonic_ns()
            try:
                fds = [end.fileno() for end in theirs.values()]
                child = stack.enter_context(Child(argv, stdin=subprocess.DEVNULL, stderr=errors, pass_fds=fds))
            finally:
                for end in theirs.values():
                    end.close()
            self._child = child
            self._connect_console(ours)
            ended_by = await self._watch(child, ours)
            ended_ns = time.monotonic_ns()
            returncode = child.poll()
        if self._console is not None:
            self._console.join(_DRAIN_S)
        entry_ns = kernel_entry_ns(trace, wall_ns)
        notes = full_disk_note(self.transcript) if self._console is None else self._console.notes
        trace.unlink(missing_ok=True)
        stderr = tuple(read_tail(errors_path))
        return self._judge(notes, ended_by, returncode, started_ns, entry_ns, ended_ns, stderr)

    def _channels(self, theirs: Mapping[str, socket.socket], trace: Path) -> Channels:
        fds = {f"{name}_fd": end.fileno() for name, end in theirs.items()}
        transcript = self.transcript if self._console is None else None
        plugin = None if self._counter is None else self._counter.option
        return Channels(console=transcript, trace=trace, plugin=plugin, paused=True, **fds)

    def _connect_console(self, ours: Mapping[str, socket.socket]) -> None:
        if self._console is None:
            return
        ends = {name: ours[name] for name in ("mux", "serial", "hvc") if name in ours}
        keys_to = "mux" if self._mux else "hvc" if console_device(self.spec.append) == "hvc0" else "serial"
        self._console.connect({name: end.dup() for name, end in ends.items()}, keys_to)
        for end in ends.values():
            end.close()

    async def _watch(self, child: Child, ours: Mapping[str, socket.socket]) -> str:
        """Let the guest run and follow it; return what ended it (see `name_end`)."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(child.fileno(), lambda: ended.set() if child.poll() is not None else None)
        reader = asyncio.create_task(take_messages(ours["results"], self._take))
        control = asyncio.create_task(monitor.talk(ours["qmp"], self._control))
        commands = asyncio.create_task(monitor.talk(ours["commands"], self._command))
        end = asyncio.create_task(ended.wait())
        knocking = asyncio.create_task(self._knock())
        look_s = _CANCEL_POLL_S if self._awaited is None else self._awaited.look_s
        deadline = time.monotonic() + self.spec.timeout_s
        try:
            while not ended.is_set():
                if (reason := self._reason_to_end(deadline)) is not None:
                    return reason
                await asyncio.wait((end,), timeout=look_s)  # cheaper per call than wait_for
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader, _DRAIN_S)
            await self._drain_control(child)
            return "end"
        finally:
            loop.remove_reader(child.fileno())
            child.kill()
            tasks = (reader, control, commands, end, knocking)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for error in done:
                if isinstance(error, Exception):
                    _log.debug("watching the guest: %r", error)

    def _reason_to_end(self, deadline: float) -> str | None:
        """Why the guest must be ended now; None if it may run."""
        if self._cancel.cancelled:
            return "killed"
        if self._kvm_failed:
            return "kvm"
        if self._awaited is not None:
            self._awaited.look()
            if self._awaited.settled:
                if self._memory is None:  # the guest sent no message
                    self._sample_memory()
                return "ready"
        if time.monotonic() > deadline:
            return "limit"
        if self._console is None:
            return "flood" if self.transcript.stat().st_size > self._limit_bytes else None
        seen_ns = self._console.panicked_ns
        if self._end_on_panic and seen_ns is not None and time.monotonic_ns() - seen_ns > _PANIC_S * 1e9:
            return "panic"
        return None

    async def _knock(self) -> None:
        """Knock at the port at which the guest is to answer, if that is what makes it ready."""
        if self._awaited is None or self._awaited.ready.rule is not Rule.PORT:
            return
        port = self._awaited.ready.port
        rule = next((rule for rule in self.spec.forwards if rule.guest_port == port), None)
        if rule is not None:
            await self._awaited.knock(rule.host_port, self._human)

    async def _human(self, line: str) -> str:
        """A command of QEMU's human monitor, and its answer; "" while there is no monitor."""
        if self._client is None:
            return ""
        return str(await self._client.execute("human-monitor-command", {"command-line": line}))

    async def _drain_control(self, child: Child) -> None:
        """Wait for the reason of QEMU's end: it is sent before QEMU exits but may not have arrived yet."""
        deadline = time.monotonic() + (0.2 if self._mux else _DRAIN_S)  # ^A x ends QEMU without a reason
        while child.poll() == 0 and not self._shutdown_reason and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    async def _control(self, client: QMPClient) -> None:
        """QMP: let the guest run, then record why it shuts down.

        Nothing else is sent on this connection: a client whose command is pending when QEMU exits drops the events
        before its end.
        """
        if not self._paused:
            self._continued_ns = time.monotonic_ns()
            await client.execute("cont")
        async for event in client.events:
            self._shutdown_reason = self._shutdown_reason or monitor.reason_of(event)
            if event["event"] == "STOP" and kvm_failed(read_tail(self.folder / "qemu.stderr")):
                self._kvm_failed = True  # QEMU keeps the guest stopped for ever (RUN_STATE_INTERNAL_ERROR)

    async def _command(self, client: QMPClient) -> None:
        """QMP: the monitor for the commands of the machine's owner."""
        self._client, self._sampler = client, Sampler(client, self.pid or 0)
        self._ready.set()
        await asyncio.Event().wait()  # `_watch` cancels

    def _take(self, data: Mapping[str, Any]) -> None:
        message = Message(time.monotonic_ns(), data)  # first, since reading the memory takes a while
        self._sample_memory()
        self._messages.append(message)
        if self._awaited is not None:
            self._awaited.take(message.host_ns, data)
        if self._on_message is not None:
            self._on_message(message)

    def _sample_memory(self) -> None:
        """Read what QEMU takes of its host; one that ends has given the guest's memory back already."""
        memory = qemu_memory(self.pid or 0, self.spec.memory_bytes)
        if memory is not None and memory.ram:
            self._memory = memory

    def _judge(
        self,
        notes: tuple[str, ...],
        ended_by: str,
        returncode: int | None,
        started_ns: int,
        entry_ns: int | None,
        ended_ns: int,
        stderr: tuple[str, ...],
    ) -> Outcome:
        console = self._console
        lines = read_tail(self.transcript) if console is None else plain_lines(console.scrollback(256 * 1024))
        end = name_end(ended_by, returncode, self._shutdown_reason, lines, at_terminal=self._mux)
        return Outcome(
            end=end,
            messages=tuple(self._messages),
            command=paste(self.spec, self.host),
            accelerator=self.accelerator,
            console=self.transcript,
            started_ns=started_ns,
            continued_ns=self._continued_ns,
            kernel_entry_ns=entry_ns,
            ended_ns=ended_ns,
            ready_ns=None if self._awaited is None else self._awaited.met_ns,
            qemu_memory=self._memory,
            returncode=returncode,
            tail=tuple(lines[-TAIL_LINES:]),
            panic=tuple(panic_lines(lines)),
            stderr=stderr,
            hint=hint_for(end, [*lines, *stderr]),
            notes=notes,
            snapshots=() if self._counter is None else self._counter.take(),
        )


def boot(
    spec: VmSpec, *, folder: Path | None = None, host: Capabilities | None = None, cancel: CancelToken | None = None
) -> Outcome:
    """Boot a guest and wait until it ends."""
    with Machine(spec, folder=folder, host=host) as machine:
        return machine.wait(cancel)
