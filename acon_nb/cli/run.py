"""`acon-nb run`: launch a guest as the guide's script does. `acon-nb disk`: make images for it."""

from __future__ import annotations

import math
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, main, print_json
from acon_nb.units import format_bytes, parse_bytes

_SIZE_HELP = "Such as 256M; default: what the name tells (256m.raw)."


@main.command("run", context_settings={"ignore_unknown_options": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[VMLINUZ] [-- QEMU_OPTIONS]...")
@click.option("--print", "show", is_flag=True, help="Print the command and start nothing.")
@click.option("--explain", is_flag=True, help="Print each option: why, what the guide says, what differs today.")
@click.option("--dry-run", is_flag=True, help="Print the command, a TD's too, and what this host lacks for it.")
@click.option("--machine", type=click.Choice(["q35", "microvm"]), default="q35", show_default=True)
@click.option("--accelerator", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True)
@click.option("--td-flavour", type=click.Choice(["upstream", "fork"]), help="QEMU >= 10.1, or Intel's former fork.")
@click.option("--quote-socket", help="The TD's quote service: vsock:2:4050 or unix:/PATH.")
@click.option("--mrconfigid", help="48 bytes as hex or base64; so are --mrowner and --mrownerconfig.")
@click.option("--mrowner")
@click.option("--mrownerconfig")
@click.option("--timeout", "timeout_s", type=float, default=math.inf, help="End the guest after so many seconds.")
@as_json_option
def run_command(
    arguments: tuple[str, ...], show: bool, explain: bool, dry_run: bool, as_json: bool, **fields: Any
) -> None:
    """Launch a guest: keys go to it, ^C too; ^A c is QEMU's monitor, ^A x ends QEMU.

    \b
    Environment (the guide's):
      TD      a name: launch a TD              RD      initrd (default: initrd; -: none)
      VP      number of vCPUs                  KA      more kernel parameters
      M       memory (default: 2g)             TCPFWD  HOST:GUEST or PORT, by commas
      CID     vsock address (<= 2: the PID)    DRV     .raw and .qcow2 images, by commas
      BIOS    firmware (default: OVMF; -: none)
    VMLINUZ defaults to vmlinuz. Exit status: 0 powered off or stopped by ^A x, 1 any other end, 2 refused.
    """
    from acon_nb import launch, vm

    spec = vm.VmSpec.from_environment(os.environ, arguments, **fields)
    if show or explain or dry_run:
        _say_command(spec, explain=explain, dry_run=dry_run, as_json=as_json)
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # by way of what puts the terminal back
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    machine = launch.machine(spec, mux=True, end_on_panic=not at_terminal)
    outcome = vm.attach(machine, sys.stdin.fileno(), sys.stderr.fileno() if as_json else sys.stdout.fileno())
    if as_json:
        print_json({**asdict(outcome), "end": outcome.end.value})
    for note in outcome.notes:
        click.echo(f"warning: {note}", err=True)
    if outcome.end is not vm.End.STOPPED:
        outcome.check()


def _say_command(spec: Any, *, explain: bool, dry_run: bool, as_json: bool) -> None:
    from acon_nb import launch, vm

    host = vm.capabilities()
    lacks = [str(error) for error in launch.refusals(spec)] if dry_run else []
    rows = vm.explain(spec, host) if explain else ()
    if as_json:
        told: dict[str, Any] = {"argv": vm.argument_list(spec, host), "command": vm.paste(spec, host)}
        told |= {"options": [asdict(row) for row in rows]} if explain else {}
        told |= {"refusals": lacks} if dry_run else {}
        print_json(told)
        return
    click.echo(vm.explained_text(rows) if explain else vm.paste(spec, host))
    for text in lacks:
        click.echo(f"would be refused: {text}", err=True)


@main.group("disk")
def disk_group() -> None:
    """Make disk images."""


@disk_group.command("create")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--size", help=_SIZE_HELP)
@click.option("--swap", is_flag=True, help="Format it as a swap area (as mkswap does).")
@click.option("--label", default="", help="A label for the swap area.")
@click.option("--replace", is_flag=True, help="Make an image anew that acon-nb made.")
@as_json_option
def disk_create(path: Path, size: str | None, swap: bool, label: str, replace: bool, as_json: bool) -> None:
    """Make the sparse image PATH (.raw or .qcow2); no root, no qemu-img, no mkswap needed."""
    from acon_nb.vm import disk

    size_bytes = parse_bytes(size) if size else disk.size_of_name(path)
    made = disk.create(path, size_bytes, swap=swap, label=label, replace=replace)
    if as_json:
        print_json(asdict(made))
        return
    kind = f"{made.format}, swap" if swap else made.format
    click.echo(f"{made.path}: {format_bytes(made.size_bytes)} ({kind}), {format_bytes(made.used_bytes)} on disk")
