"""What a report was made from: at its top for people, and in the page for programs, with a hash that shows changes."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acon_nb import user_file
from acon_nb.errors import InvalidInput

_ID = "acon-provenance"
_EMBEDDED = re.compile(rf'<script type="application/json" id="{_ID}">(.*?)</script>', re.DOTALL)
_UNSIGNED = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a report was made from.

    `notebook` is its path, `parameters` all of its values, `changed` the names of those that were given. `version` is
    the package's, `git` the commit of its checkout and whether files differ from it ("": not a checkout). `host_class`
    and `qemu` describe the host, `made` is the time (UTC, ISO 8601), `command` repeats it. `rows` is the SHA-256 of the
    rows in the folder `out` ("": none), `error` why the notebook did not run to its end. `page` is the SHA-256 of the
    page with zeros in this place.
    """

    notebook: str
    parameters: Mapping[str, Any]
    changed: tuple[str, ...]
    version: str
    git: str
    host_class: str
    qemu: str
    made: str
    command: str
    rows: str = ""
    error: str = ""
    page: str = _UNSIGNED


def html_of(made: Provenance) -> str:
    """Return the lines at the top of a report; parameters that were given are bold."""
    values = [
        f"<b>{_text(name)} = {_text(value)}</b>" if name in made.changed else f"{_text(name)} = {_text(value)}"
        for name, value in made.parameters.items()
    ]
    rows = {
        "made": f"{made.made} by acon_nb {made.version}" + (f", {made.git}" if made.git else ""),
        "host": f"{made.host_class}; QEMU {made.qemu}",
        "parameters": ", ".join(values) or "none",
        "rows": f"SHA-256 {made.rows}" if made.rows else "none",
        "again": made.command,
    }
    escaped = {name: text if name == "parameters" else _text(text) for name, text in rows.items()}
    lines = "".join(f'<tr><th scope="row">{name}</th><td>{text}</td></tr>' for name, text in escaped.items())
    failed = f"<b>This notebook did not run to its end:</b> {_text(made.error)}"
    error = f'<p role="alert">{failed}</p>' if made.error else ""
    return f'{error}<details class="provenance" open><summary>Provenance</summary><table>{lines}</table></details>'


def embedded(page: str, made: Provenance) -> str:
    """Return a page that holds its provenance for programs, with the hash of the page."""
    block = f'<script type="application/json" id="{_ID}">{_json(made)}</script>'
    unsigned = page.replace("</body>", f"{block}</body>", 1) if "</body>" in page else page + block
    digest = hashlib.sha256(unsigned.encode()).hexdigest()
    return unsigned.replace(f'"page": "{_UNSIGNED}"', f'"page": "{digest}"', 1)


def read(path: Path) -> tuple[Provenance, bool]:
    """Return the provenance that a report holds, and whether the page is as it was written.

    Whoever changes a page can also compute its hash: it shows accidents and edits by hand, not forgeries.
    Errors: `InvalidInput` for a file without one.
    """
    hint = "acon-nb report writes them"
    page = user_file.read_text("report", path, hint=hint)
    try:
        values = json.loads(_EMBEDDED.findall(page)[-1])
        made = Provenance(**{**values, "changed": tuple(values["changed"])})
    except (IndexError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidInput("report", path, "is not a report that says what it was made from", hint=hint) from error
    unsigned = page.replace(f'"page": "{made.page}"', f'"page": "{_UNSIGNED}"', 1)
    return made, hashlib.sha256(unsigned.encode()).hexdigest() == made.page


def _json(made: Provenance) -> str:
    return json.dumps(asdict(made), default=str).replace("<", "\\u003c")


def _text(value: object) -> str:
    return html.escape(value if isinstance(value, str) and value else repr(value))
