"""Boot a guest, run one command in it, and power it off: what `acon-nb run --exec` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from acon_nb import kernel_line
from acon_nb.agent.guest import READY
from acon_nb.errors import GuestFailed
from acon_nb.vm import Machine, Outcome
from acon_nb.vm.commands import Executed, OnOutput
from acon_nb.vm.typist import Typist

_POWER_OFF_S = 10.0


def await_ready(machine: Machine) -> None:
    """Wait until a guest with the agent is ready for commands.

    Our own /init announces it; with any other init the guest is ready as soon as its console shows a prompt, or it is
    silent and idle. Errors: `GuestFailed` if it ends before.
    """
    agent = machine.agent
    agent.wait(lambda: agent.connected, lambda: machine.running)
    if agent.is_our_script and kernel_line.parse(machine.spec.append).value("INIT") == READY:
        agent.wait(lambda: agent.set_up, lambda: machine.running)
    elif not Typist(machine).wait():
        raise GuestFailed("the guest ended before it was ready for commands", end="not_ready")


def run_command(
    machine: Machine,
    argv: Sequence[str],
    *,
    stdin: bytes | BinaryIO | None = None,
    on_stdout: OnOutput | None = None,
    on_stderr: OnOutput | None = None,
) -> tuple[Executed, Outcome]:
    """Boot a machine made with `agent=True`, run a command when it is ready, and power the guest off.

    Parameters and result as of `Machine.execute`, and how the guest ended. Errors: `GuestFailed`, with the evidence of
    the console, if the guest ends before the command does, its time limit included.
    """
    with machine:
        machine.start()
        try:
            await_ready(machine)
            done = machine.execute(argv, stdin=stdin, on_stdout=on_stdout, on_stderr=on_stderr)
        except GuestFailed as error:
            outcome = machine.wait()
            raise outcome.failure(f"{error.what}: {outcome.end.text}") from error
        return done, machine.stop(_POWER_OFF_S)
