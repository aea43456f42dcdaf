"""Reports of notebooks with what they were made from, and the same report again."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import acon_nb
from acon_nb import process
from acon_nb.errors import AconError, CommandFailed, InvalidInput
from acon_nb.host.facts import environment
from acon_nb.host.qemu import probe_qemu
from acon_nb.jupyter import provenance, report
from acon_nb.jupyter.provenance import Provenance
from acon_nb.results.store import Store


def make(notebook: Path, html: Path, parameters: Mapping[str, Any], *, live: bool = True) -> list[str]:
    """Run a notebook and render it with its provenance; return its findings.

    A notebook that fails leaves a report up to the cell that failed, with the error first.
    Errors: those of `report.execute`.
    """
    executed = html.with_suffix(".ipynb")
    begun = dt.datetime.now(dt.UTC)
    try:
        report.execute(notebook, executed, parameters, live=live)
    except InvalidInput:
        raise
    except AconError as error:
        if executed.is_file():
            report.render(executed, html, of(notebook, html, parameters, begun, error=str(error)))
        raise
    report.render(executed, html, of(notebook, html, parameters, begun))
    return report.findings(executed)


def repeat(html: Path, output: Path, *, live: bool = True) -> tuple[list[str], list[str]]:
    """Make a report again, with its notebook and parameters; return its findings, and what differs, in words.

    Errors: `InvalidInput` (a page without provenance, a notebook that is gone), those of `make`.
    """
    before, untouched = provenance.read(html)
    given = {name: before.parameters[name] for name in before.changed}
    lines = make(Path(before.notebook), output, given, live=live)
    now, _ = provenance.read(output)
    differences = [] if untouched else [f"{html} was changed after it was written"]
    for name in ("version", "git", "host_class", "qemu", "rows"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            differences.append(f"{name.replace('_', ' ')}: {old or 'none'} before, {new or 'none'} now")
    return lines, differences


def of(notebook: Path, html: Path, parameters: Mapping[str, Any], made: dt.datetime, *, error: str = "") -> Provenance:
    """Describe the report that a notebook with these parameters is made into now."""
    values = {**report.parameter_values(notebook), **parameters}
    words = ["acon-nb", "report", notebook, "-o", html]
    for name, value in parameters.items():
        words += ["-p", name, value if isinstance(value, str) else json.dumps(value)]
    out = values.get("out") or values.get("history")
    return Provenance(
        notebook=str(notebook),
        parameters=values,
        changed=tuple(parameters),
        version=acon_nb.__version__,
        git=_git_state(Path(acon_nb.__file__).parents[1]),
        host_class=environment().host_class,
        qemu=probe_qemu().version_text,
        made=made.isoformat(timespec="seconds"),
        command=shlex.join(str(word) for word in words),
        rows=rows_sha256(Path(str(out))) if out else "",
        error=error,
    )


def rows_sha256(folder: Path) -> str:
    """Return the SHA-256 of all rows in a folder of results, whatever files they are in; "" if it has none."""
    if not folder.is_dir():
        return ""
    store = Store(folder)
    digest = hashlib.sha256()
    count = 0
    for kind in sorted(store.kinds()):
        rows = store.load(kind).sort_values("run_id")
        count += len(rows)
        digest.update(rows.reindex(sorted(rows.columns), axis=1).to_json(orient="records").encode())
    return digest.hexdigest() if count else ""


def _git_state(folder: Path) -> str:
    if not (folder / ".git").exists():
        return ""
    git = ["git", "-c", "core.fsmonitor=false", "-C", str(folder)]
    try:
        commit = process.output([*git, "rev-parse", "--short=12", "HEAD"], timeout_s=30).strip()
        changed = process.output([*git, "status", "--porcelain", "--untracked-files=no"], timeout_s=60).strip()
    except (CommandFailed, AconError):
        return ""
    return f"commit {commit}" + (", with changes" if changed else "")
