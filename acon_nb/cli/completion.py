"""Completion of what options and arguments take, in bash, zsh and fish: `acon-nb completion SHELL` prints the script.

Each function lists names when a shell asks for them; what costs time is imported then. A list that cannot be read is
empty: a shell that completes shows no errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from acon_nb.cli.base import main
from acon_nb.errors import AconError

_VARIABLE = "_ACON_NB_COMPLETE"
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _listed(names: Callable[[click.Context], Iterable[str]], *, many: bool = False, files: bool = False) -> Complete:
    """Complete from `names`; with `many` each of several with commas; with `files` names of files, too."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        head, comma, last = incomplete.rpartition(",") if many else ("", "", incomplete)
        try:
            known = sorted({name for name in names(context) if name.startswith(last)})
        except (AconError, OSError):
            known = []
        path = [CompletionItem(incomplete, type="file")] if files else []  # first: bash forgets what was before it
        return path + [CompletionItem(f"{head}{comma}{name}") for name in known]

    return complete


def _profiles(_: click.Context) -> Iterable[str]:
    from acon_nb import kernel

    return [*kernel.PROFILES, *kernel.groups()]


def _plans(_: click.Context) -> Iterable[str]:
    from acon_nb.study import plan

    return plan.built_in()


def _metrics(_: click.Context) -> Iterable[str]:
    from acon_nb.results import metrics

    return metrics.names()


def _setups(_: click.Context) -> Iterable[str]:
    from acon_nb.swap import setups

    return setups.NAMES


def _guests(_: click.Context) -> Iterable[str]:
    from acon_nb.vm import runs

    return [run.name for run in runs.all_runs()]


def _running(_: click.Context) -> Iterable[str]:
    from acon_nb.vm import runs

    return [run.name for run in runs.all_runs() if run.running]


def _studies(context: click.Context) -> Iterable[str]:
    from acon_nb import results

    folder = Path(context.params.get("folder") or "results")
    return results.Store(folder).studies("") if folder.is_dir() else ()


profiles = _listed(_profiles, many=True)
profiles_or_files = _listed(_profiles, many=True, files=True)
plans = _listed(_plans, files=True)
metrics = _listed(_metrics)
setups = _listed(_setups, many=True)
guests = _listed(_guests)
running_guests = _listed(_running)
studies = _listed(_studies)


@main.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the script that completes commands, options and their values in SHELL (docs/completion.md)."""
    known: Any = get_completion_class(shell)
    click.echo(known(main, {}, "acon-nb", _VARIABLE).source())
