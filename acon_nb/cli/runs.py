"""`acon-nb ps`, `logs`, `attach` and `kill`: the guests of `acon-nb run` by name."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, main, print_json

_LOOK_S = 0.2
_CHUNK_BYTES = 1 << 16


@main.command("ps")
@click.option("--all", "show_all", is_flag=True, help="Also those that have ended (the newest hundred runs are kept).")
@as_json_option
def ps_command(show_all: bool, as_json: bool) -> None:
    """List the guests of acon-nb run that run now."""
    from acon_nb.vm import End, end_text, runs

    shown = [run for run in runs.all_runs() if show_all or run.running]
    if as_json:
        print_json({"guests": [{**asdict(run), "transcript": run.transcript} for run in shown]})
        return
    for run in shown:
        state = "running" if run.running else end_text(End(run.end)) if run.end else "its owner was killed"
        click.echo(f"{run.name:<16} {run.pid:>8}  {run.started}  {state:<20} {run.kernel}")


@main.command("logs")
@click.argument("name", shell_complete=completion.guests)
@click.option("--follow", "-f", is_flag=True, help="Go on until the guest ends.")
def logs_command(name: str, follow: bool) -> None:
    """Print what the console of the guest NAME said, also after its end."""
    from acon_nb.vm import runs

    run = runs.find(name)
    with run.transcript.open("rb") as file:
        while True:
            ended = not follow or not runs.find(name).running  # before the reading: nothing is missed
            while data := file.read(_CHUNK_BYTES):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            if ended:
                return
            time.sleep(_LOOK_S)


@main.command("attach")
@click.argument("name", shell_complete=completion.running_guests)
def attach_command(name: str) -> None:
    """Show the console of the running guest NAME and pass keys on; ^A d leaves it, ^A ^A sends a ^A."""
    from acon_nb.vm import remote, runs

    ended = remote.attach_run(runs.find(name), sys.stdin.fileno(), sys.stdout.fileno())
    click.echo(f"acon-nb: {name} {'has ended' if ended else 'is left, and runs on'}", err=True)


@main.command("kill")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.running_guests)
def kill_command(names: tuple[str, ...]) -> None:
    """End running guests at once; their disks are as after a power cut."""
    from acon_nb.vm import runs

    for run in [runs.find(name) for name in names]:
        run.kill()
