"""Run notebooks unattended, and render them as one HTML file that loads nothing from the network."""

from __future__ import annotations

import ast
import contextlib
import html as html_module
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from acon_nb.cache import atomic_file, default_root, writable_folder
from acon_nb.errors import AconError, InvalidInput
from acon_nb.jupyter import page, provenance
from acon_nb.jupyter.provenance import Provenance

_TEMPLATES = Path(__file__).with_name("templates")
# What the page would load on its own; links that a reader clicks are allowed.
_LOADS = re.compile(
    r"""<(?!a\b)[^>]*\s(?:src|srcset|poster|data|background)\s*=\s*["']?\s*(?:https?:)?//"""
    r"""|<link[^>]*\shref\s*=\s*["']?(?:https?:)?//|@import\s+(?:url\()?["']?(?:https?:)?//"""
    r"""|url\(\s*["']?(?:https?:)?//|\bfrom\s+["']https?://|\bimport\(\s*["']https?://""",
    re.IGNORECASE,
)
_FINDINGS_TAG = "findings"


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any], *, live: bool = True) -> Path:
    """Run a notebook with papermill; `output` is written cell by cell, and kept if one fails.

    `live` copies the cells' text to standard error. Errors: `InvalidInput` (no such notebook or parameter), `AconError`
    that names the cell that failed, with its error.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    if not notebook.is_file():
        raise InvalidInput("notebook", notebook, "is not a file", hint="acon-nb notebooks DIR copies the notebooks")
    known = parameter_names(notebook)
    for name in parameters:
        if name not in known:
            raise InvalidInput("parameter", name, f"is not a parameter of {notebook.name}", hint=", ".join(known))
    output.parent.mkdir(parents=True, exist_ok=True)
    if live:
        _pass_on_output()
    try:
        with _own_folders():
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=dict(parameters),
                progress_bar=False,
                log_output=live,
                kernel_name="python3",
                cwd=str(Path.cwd()),
            )
    except PapermillExecutionError as error:
        lines = str(error.evalue).splitlines() or [str(error.ename)]
        raise AconError(
            f"{notebook.name} failed in cell {error.exec_count}: {error.ename}",
            details=[*lines[:30], f"executed notebook: {output}"],
        ) from error
    return output


def parameter_names(notebook: Path) -> list[str]:
    """Return the names that the cell tagged `parameters` sets. Errors: `InvalidInput` if it is not a notebook."""
    import nbformat

    try:
        document = nbformat.read(notebook, as_version=4)
        source = "\n".join(cell.source for cell in document.cells if "parameters" in cell.metadata.get("tags", []))
        statements = ast.parse(source).body
    except (ValueError, SyntaxError, nbformat.reader.NotJSONError) as error:
        raise InvalidInput(
            "notebook", notebook, f"is not a Python notebook: {error}", hint="open it in JupyterLab"
        ) from error
    targets = [
        target
        for statement in statements
        for target in (statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)])
    ]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def parameter_values(notebook: Path) -> dict[str, Any]:
    """Return the values of the cell tagged `parameters`, as far as they are plain. Errors: as of `parameter_names`."""
    import nbformat

    names = parameter_names(notebook)
    document = nbformat.read(notebook, as_version=4)
    source = "\n".join(cell.source for cell in document.cells if "parameters" in cell.metadata.get("tags", []))
    values: dict[str, Any] = dict.fromkeys(names)
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            with contextlib.suppress(ValueError):
                values[ast.unparse(target)] = ast.literal_eval(statement.value)
    return values


def render(notebook: Path, html: Path, made: Provenance | None = None) -> Path:
    """Render an executed notebook as one HTML file: results and text, without code, progress or network access.

    `made` is what it was made from, which comes below the title and the findings.
    """
    import nbformat
    from nbconvert import HTMLExporter

    document = nbformat.read(notebook, as_version=4)
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    _findings_first(document, made)
    exporter = HTMLExporter(
        extra_template_basedirs=[str(_TEMPLATES)],
        template_name="acon",
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_input_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    text, _ = exporter.from_notebook_node(document, resources={"metadata": {"name": _title(document, html)}})
    text = page.finish(text)
    loads = _LOADS.search(text)
    if loads:
        raise AconError(f"the report would load something from the network: {loads.group(0)[:80]}")
    with atomic_file(html) as temporary:
        temporary.write_text(provenance.embedded(text, made) if made is not None else text)
    return html


def findings(notebook: Path) -> list[str]:
    """Return the lines that the cell tagged `findings` of an executed notebook printed."""
    import nbformat

    document = nbformat.read(notebook, as_version=4)
    return _lines_of(cell for cell in document.cells if _FINDINGS_TAG in cell.metadata.get("tags", []))


def _lines_of(cells: Iterable[Any]) -> list[str]:
    lines: list[str] = []
    for cell in cells:
        outputs = cell.get("outputs", [])
        # What a cell prints may come in several outputs, each of which ends anywhere in a line.
        lines += "".join(output["text"] for output in outputs if output.get("name") == "stdout").splitlines()
    return lines


def _findings_first(document: Any, made: Provenance | None) -> None:
    """Move the findings below the title: readers want them first, but the notebook has them last.

    What the report was made from follows them; why it has no end comes before.
    """
    from nbformat import v4

    tagged = [cell for cell in document.cells if _FINDINGS_TAG in cell.metadata.get("tags", [])]
    rest = [cell for cell in document.cells if cell not in tagged]
    lines = _lines_of(tagged)
    for cell in tagged:
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stdout"]
    if lines:
        items = "".join(f"<li>{html_module.escape(line)}</li>" for line in lines)
        tagged.insert(0, v4.new_markdown_cell(f'<ul class="findings">{items}</ul>'))
    top = [v4.new_markdown_cell(provenance.html_of(made))] if made is not None else []
    head = [*top, *tagged] if made is not None and made.error else [*tagged, *top]
    document.cells = rest[:1] + head + rest[1:]


@contextlib.contextmanager
def _own_folders() -> Iterator[None]:
    """Make an unattended kernel keep its history and connection files in the user cache, not in the home folder."""
    folders = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "jupyter-runtime"}
    added = [name for name in folders if name not in os.environ]
    for name in added:
        folder = default_root() / folders[name]
        writable_folder(folder)
        os.environ[name] = str(folder)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _title(document: Any, html: Path) -> str:
    for cell in document.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return str(cell.source.splitlines()[0][2:])
    return html.stem


def _pass_on_output() -> None:
    """Show the lines of papermill's log that readers need: the cells' progress."""
    logger = logging.getLogger("papermill")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Lines("%(message)s"))
        handler.addFilter(lambda record: _is_progress(record))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _is_progress(record: logging.LogRecord) -> bool:
    """Whether a record is a cell's progress: papermill logs standard error as warnings, all else at lower levels."""
    text = record.getMessage().strip()
    return bool(text) and record.levelno >= logging.WARNING and not text.startswith("[IPKernelApp]")


class _Lines(logging.Formatter):
    """Formats the message without its final line break, since the handler adds one."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).rstrip("\n")
