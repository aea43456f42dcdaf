"""Runs a study whose cells are all needed, such as the steps of a comparison: a cell that failed is an error."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.errors import GuestFailed
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.results.store import Store
from acon_nb.study.plan import Plan
from acon_nb.study.runner import Experiment, Study
from acon_nb.vm import GOOD_ENDS, end_text

if TYPE_CHECKING:
    import pandas as pd

_TAIL_LINES = 12


def run_whole(study: Study, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> pd.DataFrame:
    """Run a study and return its rows, one per run, in the order of the plan's cells.

    Errors: those of `Study.run` and of the builds; `GuestFailed` for the first run that did not end well. The rows of
    the others are in the store.
    """
    rows = study.run(on_progress=on_progress, cancel=cancel)
    for error in study.experiment.unbuilt.values():
        raise error
    last = rows.groupby("run_key", sort=False).tail(1)  # attempts that a fault of the host spoilt come before it
    for row in last.to_dict("records"):
        _check(row, study.store)
    return last.reset_index(drop=True)


def run_plan(
    plan: Plan,
    experiment: Experiment,
    *,
    out: Store | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> pd.DataFrame:
    """`run_whole` of a plan. With `out` the rows are kept there, and runs that it already has are not repeated."""
    if out is not None:
        study = Study(plan=plan, experiment=experiment, store=out)
        return run_whole(study, on_progress=on_progress, cancel=cancel)
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as folder:
        study = Study(plan=plan, experiment=experiment, store=Store(Path(folder)))
        return run_whole(study, on_progress=on_progress, cancel=cancel)


def _check(row: Mapping[Any, Any], store: Store) -> None:
    """Raise `GuestFailed`, with the end of the console, for a run that did not end well."""
    if row["end"] in GOOD_ENDS and not row["error"]:
        return
    log = store.folder / str(row["log"])
    lines = log.read_text(errors="replace").splitlines() if row["log"] else []
    what = f"{row['cell']} ended: {end_text(str(row['end']))}"
    raise GuestFailed(
        f"{what}, {row['error']}" if row["error"] else what,
        end=str(row["end"]),
        details=[*lines[-_TAIL_LINES:], f"study {row['study']} in {store.folder}"],
        hint="the row is kept: give another folder to measure it again" if row["log"] else "",
    )
