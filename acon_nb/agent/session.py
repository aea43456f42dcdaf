"""Boot a guest, run one command in it, and power it off: what `acon-nb run --exec` does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from acon_nb import kernel_line
from acon_nb.agent.files import NO_TRANSFERS, REFUSED, Transfers, get, mount_shares, put
from acon_nb.agent.guest import READY, prepare
from acon_nb.errors import AconError, GuestFailed
from acon_nb.vm import Machine, Outcome, VmSpec
from acon_nb.vm.commands import Executed, GuestCommand
from acon_nb.vm.typist import Typist

_log = logging.getLogger(__name__)
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


def with_shares(spec: VmSpec) -> VmSpec:
    """Return the spec of a guest with a shell whose shares an agent mounts; the same spec if it has none.

    Make its machine with `agent=bool(spec.shares)`, and call `share_when_ready` when it runs.
    Errors: those of `prepare`.
    """
    return prepare(spec, has_shell=True) if spec.shares else spec


def share_when_ready(machine: Machine, on_notice: Callable[[str], None]) -> None:
    """Mount a running guest's shares as soon as it is ready; each, or why not, is reported."""
    try:
        await_ready(machine)
        mount_shares(machine)
    except AconError as error:
        if machine.running:
            on_notice(str(error))
        return
    for share in machine.spec.shares:
        on_notice(f"{share.host} is at {share.guest}{'' if share.writable else ', read-only'}")


def run_command(
    machine: Machine, command: GuestCommand | Sequence[str], *, files: Transfers = NO_TRANSFERS, **fields: Any
) -> tuple[Executed, Outcome]:
    """Boot a machine made with `agent=True`, run a command when it is ready, and power the guest off.

    Parameters and result as of `Machine.execute`, and how the guest ended; `files` are put into the guest before the
    command, and got from it afterwards. Errors: `GuestFailed`, with the evidence of the console, if the guest ends
    before the command does, its time limit included, and those of `agent.files`.
    """
    wanted = GuestCommand.of(command, **fields)
    with machine:
        machine.start()
        try:
            await_ready(machine)
            mount_shares(machine)
            for source, target in files.put:
                put(machine, source, target)
            done = machine.execute(wanted)
            _get_all(machine, files, done)
        except GuestFailed as error:
            if error.end == REFUSED:
                raise
            outcome = machine.wait()
            raise outcome.failure(f"{error.what}: {outcome.end.text}") from error
        return done, machine.stop(_POWER_OFF_S)


def _get_all(machine: Machine, files: Transfers, done: Executed) -> None:
    """Get the files; one that is not there is an error, unless the command failed, which says more."""
    for path, place in files.get:
        try:
            get(machine, path, place)
        except GuestFailed as error:
            if error.end != REFUSED or not done.status:
                raise
            _log.warning("%s", error.what)
