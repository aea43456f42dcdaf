"""`acon-nb run`: launch a guest as the guide's script does. `acon-nb disk`: create images for it."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from acon_nb.cli.base import as_json_option, main, print_json, warn
from acon_nb.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from acon_nb.agent import Transfers
    from acon_nb.vm import VmSpec

_TIMED_OUT, _NOT_RUN = 124, 125  # as of timeout(1) and env(1)
_PATIENCE_S = 0.3  # for the check of the initrd before the launch; what takes longer is told after a bad end
_SIZE_HELP = "For example 256M; default: the size in the name (256m.raw)."


class _Run(click.Command):
    """As the guide's script, it takes options of QEMU behind VMLINUZ without a word: `run vmlinuz -m 1g`.

    They have one dash, ours have two, so that a mistyped one of ours is still refused.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours = {name for option in self.params for name in option.opts}
        for number, word in enumerate(args):
            if word == "--":
                break
            if len(word) > 1 and word[0] == "-" and word[1] != "-" and word not in ours:
                late = next((one for one in args[number:] if one.partition("=")[0] in ours), "")
                if late:
                    raise click.UsageError(f"{late} comes before the options of QEMU, which begin with {word}", ctx)
                args = [*args[:number], "--", *args[number:]]
                break
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
            text = f"no such option: {error.option_name}{hint} (QEMU's own with two dashes follow --)"
            raise click.UsageError(text, ctx) from error


@main.command("run", cls=_Run)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[VMLINUZ] [QEMU_OPTIONS]...")
@click.option("--print", "show", is_flag=True, help="Print the command and start nothing.")
@click.option("--explain", is_flag=True, help="Explain each option: why, what the guide says, what differs today.")
@click.option("--dry-run", is_flag=True, help="Print the command, even of a TD, and what this host lacks for it.")
@click.option("--machine", type=click.Choice(["q35", "microvm"]), default="q35", show_default=True)
@click.option("--accelerator", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True)
@click.option("--td-flavour", type=click.Choice(["upstream", "fork"]), help="QEMU >= 10.1, or Intel's former fork.")
@click.option("--quote-socket", help="The TD's quote service: vsock:2:4050 or unix:/PATH.")
@click.option("--mrconfigid", help="48 bytes as hex or base64, like --mrowner and --mrownerconfig.")
@click.option("--mrowner")
@click.option("--mrownerconfig")
@click.option("--attributes", help="The TD's 64 bits, such as 0x10000000 (upstream).")
@click.option(
    "--sept-ve-disable/--no-sept-ve-disable", default=None, help="Bit 28 of a TD's attributes; default: QEMU's."
)
@click.option("--debug", is_flag=True, default=None, help="A debug TD, which only Intel's former fork offers.")
@click.option("--memory-backend", type=click.Choice(["ram", "memfd"]), help="QEMU's object for the memory.")
@click.option("--hugepages", type=click.Choice(["2M", "1G"]), help="The guest's memory in reserved pages of this size.")
@click.option("--numa", type=int, help="NUMA nodes of the guest, which share vCPUs and memory equally.")
@click.option("--host-nodes", help="The host's NUMA nodes that the memory comes from, such as 0-1.")
@click.option("--exec", "command", help="Run a command in the guest's shell and end with its exit status.")
@click.option("--share", "shares", multiple=True, help="HOST:GUEST, a folder by 9p; read-only unless :rw follows.")
@click.option("--put", "puts", multiple=True, help="HOST:GUEST, a file that goes into the guest before --exec.")
@click.option("--get", "gets", multiple=True, help="PATH of the guest's file that comes here after --exec.")
@click.option("--name", default="", help="For ps, logs, attach and kill.  [default: vm and the process id]")
@click.option("--detach", is_flag=True, help="Return as soon as the guest runs; acon-nb attach, logs, kill.")
@click.option("--timeout", "timeout_s", type=float, default=math.inf, help="End the guest after this many seconds.")
@as_json_option
def run_command(
    arguments: tuple[str, ...],
    show: bool,
    explain: bool,
    dry_run: bool,
    command: str | None,
    shares: tuple[str, ...],
    puts: tuple[str, ...],
    gets: tuple[str, ...],
    name: str,
    detach: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Launch a guest. Keys go to it, even ^C; ^A c switches to QEMU's monitor, ^A x ends QEMU.

    \b
    Environment (the guide's):
      TD      a name: launch a TD              RD      initrd (default: initrd; -: none)
      VP      number of vCPUs                  KA      more kernel parameters
      M       memory (default: 2g)             TCPFWD  HOST:GUEST or PORT, comma-separated
      CID     vsock address (<= 2: the PID)    DRV     .raw and .qcow2 images, comma-separated
      BIOS    firmware (default: OVMF; -: none)
    VMLINUZ defaults to vmlinuz. Exit status: 0 powered off or stopped by ^A x, 1 any other end, 2 refused.
    With --exec: that of the command (128 and the number of the signal that ended it), 124 --timeout, 125 the guest
    ended before the command did, or refused a file or a share, 126 it cannot be run, 127 it is not there. Its input,
    output and errors are ours. --put and --get work without --exec too.
    """
    from acon_nb import agent, vm
    from acon_nb.bootcheck import initrd as bootcheck
    from acon_nb.td import preflight
    from acon_nb.vm import runs

    runs.check_name(name or "vm")
    fields["shares"] = tuple(map(vm.parse_share, shares))
    files = agent.Transfers.of(puts, gets)
    spec = vm.VmSpec.from_environment(os.environ, arguments, **fields)
    if show or explain or dry_run:
        _print_command(spec, explain=explain, dry_run=dry_run, as_json=as_json)
        return
    if command is not None or puts or gets:
        if detach:
            raise click.UsageError("--detach runs no command: --exec, --put and --get end with their guest")
        _execute(spec, command, files, name, as_json=as_json)
        return
    launched = agent.with_shares(spec)
    if detach:
        machine = preflight.machine(launched, interactive=True, agent=bool(shares))
        runs.detach(machine, name, lambda: agent.share_when_ready(machine, lambda _: None) if shares else None)
        return
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # unwinds the stack, which restores the terminal
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    notices: list[str] = []

    def notice(text: str) -> None:
        notices.append(text)
        click.echo(f"\r\nacon-nb: {text}\r" if at_terminal else f"acon-nb: {text}", err=True)

    machine = preflight.machine(
        launched, mux=at_terminal, interactive=True, attended=at_terminal, on_notice=notice, agent=bool(shares)
    )
    checking = bootcheck.Background(spec)
    known = checking.warnings(_PATIENCE_S)
    warn(known or [])
    output = sys.stderr if as_json else sys.stdout
    on_start = (lambda: agent.share_when_ready(machine, notice)) if shares else None
    with runs.registered(machine, name):
        outcome = vm.attach(machine, sys.stdin.fileno(), output.fileno(), on_notice=notice, on_start=on_start)
        runs.keep_outcome(machine, outcome)
    if known is None and outcome.end not in vm.GOOD_ENDS:
        warn(checking.warnings(_PATIENCE_S) or [])
    if as_json:
        print_json({**asdict(outcome), "end": outcome.end.value})
    warn(note for note in outcome.notes if note not in notices)
    if outcome.end is not vm.End.STOPPED:
        outcome.check()


def _execute(spec: VmSpec, command: str | None, files: Transfers, name: str, *, as_json: bool) -> None:
    """Run a command in a guest, its files around it; ends with its exit status."""
    from acon_nb import agent, vm
    from acon_nb.errors import GuestFailed
    from acon_nb.td import preflight
    from acon_nb.vm import runs

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    machine = preflight.machine(agent.prepare(spec), interactive=True, agent=True, on_notice=lambda text: warn([text]))
    given = None if sys.stdin.isatty() else sys.stdin.buffer
    outputs = {} if as_json else {"on_stdout": _writer(sys.stdout.buffer), "on_stderr": _writer(sys.stderr.buffer)}
    try:
        argv = ["acon:nothing"] if command is None else ["sh", "-c", command]
        with runs.registered(machine, name):
            done, outcome = agent.run_command(machine, argv, files=files, stdin=given, **outputs)
            runs.keep_outcome(machine, outcome)
    except GuestFailed as error:
        click.echo(f"acon-nb: {error}", err=True)
        sys.exit(_TIMED_OUT if error.end == vm.End.HANG else _NOT_RUN)
    if as_json:
        texts = {"stdout": done.stdout.decode(errors="replace"), "stderr": done.stderr.decode(errors="replace")}
        print_json({**asdict(done), **texts, "end": outcome.end.value})
    sys.exit(done.status)


def _writer(file: BinaryIO) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        file.write(data)
        file.flush()

    return write


def _print_command(spec: Any, *, explain: bool, dry_run: bool, as_json: bool) -> None:
    from acon_nb import vm
    from acon_nb.td import preflight

    host = vm.capabilities()
    refusals = [str(error) for error in preflight.refusals(spec)] if dry_run else []
    rows = vm.explain(spec, host) if explain else ()
    if as_json:
        answer: dict[str, Any] = {"argv": vm.argument_list(spec, host), "command": vm.paste(spec, host)}
        answer |= {"options": [asdict(row) for row in rows]} if explain else {}
        answer |= {"refusals": refusals} if dry_run else {}
        print_json(answer)
        return
    click.echo(vm.explained_text(rows) if explain else vm.paste(spec, host))
    for text in refusals:
        click.echo(f"would be refused: {text}", err=True)


@main.group("disk")
def disk_group() -> None:
    """Create disk images."""


@disk_group.command("create")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--size", help=_SIZE_HELP)
@click.option("--swap", is_flag=True, help="Format it as a swap area (as mkswap does).")
@click.option("--label", default="", help="The label of the swap area.")
@click.option("--replace", is_flag=True, help="Replace an image that acon-nb created.")
@as_json_option
def disk_create(path: Path, size: str | None, swap: bool, label: str, replace: bool, as_json: bool) -> None:
    """Create the sparse image PATH (.raw or .qcow2), without root, qemu-img or mkswap."""
    from acon_nb.vm import disk

    size_bytes = parse_bytes(size) if size else disk.size_of_name(path)
    image = disk.create(path, size_bytes, swap=swap, label=label, replace=replace)
    if as_json:
        print_json(asdict(image))
        return
    kind = f"{image.format}, swap" if swap else image.format
    click.echo(f"{image.path}: {format_bytes(image.size_bytes)} ({kind}), {format_bytes(image.used_bytes)} on disk")
