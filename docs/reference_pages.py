"""Pages of the documentation that are made from the package (commands, factors, columns, API), and the notebooks."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from acon_nb import registry
from acon_nb.cli import main
from acon_nb.results import columns
from acon_nb.study import kinds
from acon_nb.vm import GOOD_ENDS, End, end_text

# The packages that people import, in the order of the walk
PACKAGES = (
    "kernel", "initrd", "bootcheck", "vm", "agent", "boot", "swap", "study", "changes", "profile", "results", "stats",
    "plots", "tdx", "td", "widgets", "jupyter", "archive", "host", "errors", "progress", "units", "cache",
)  # fmt: skip
_EXECUTED = "reports"  # `make tour` keeps the executed notebook there, as `acon-nb report` does next to its report


def write(folder: Path, root: Path) -> None:
    """Write all generated pages below `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, pages in (("cli", _commands()), ("api", _packages())):
        _put(folder / name, pages)
    _put(folder, {"factors": _factors(), "columns": _columns(), "ends": _ends()})
    _put(folder, {"changelog": _of_root(root / "CHANGELOG.md"), "contributing": _of_root(root / "CONTRIBUTING.md")})
    _notebooks(folder / "tutorials", root)


def _put(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text.rstrip() + "\n")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _code(value: object) -> str:
    return f"`{value}`" if str(value) else '`""`'


def _listing(title: str, words: str, names: Iterable[str]) -> str:
    entries = "\n".join(names)
    return f"# {title}\n\n{words}\n\n```{{toctree}}\n:maxdepth: 2\n\n{entries}\n```\n"


def _commands() -> dict[str, str]:
    """Return a page for each group of commands, and one for the commands without a group."""
    pages = {}
    alone = []
    context = click.Context(main, info_name="acon-nb")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        if isinstance(command, click.Group):
            pages[name] = _click(name, f"acon-nb {name}")
        else:
            alone.append(name)
    pages["others"] = "# Commands without a group\n\n" + "\n\n".join(_click(n, f"acon-nb {n}") for n in alone)
    words = "Each command prints its help with `--help`; these pages are that help."
    pages["index"] = _listing("Commands", words, pages)
    return pages


def _click(name: str, program: str) -> str:
    return (
        f"```{{eval-rst}}\n.. click:: reference_pages:{_attribute(name)}\n   :prog: {program}\n   :nested: full\n```\n"
    )


def _attribute(name: str) -> str:
    """Give a command a name in this module, by which the directive imports it."""
    command = main.get_command(click.Context(main), name)
    attribute = f"command_{name.replace('-', '_')}"
    globals()[attribute] = command
    return attribute


def _packages() -> dict[str, str]:
    pages = {}
    for name in PACKAGES:
        imported = hasattr(
            importlib.import_module(f"acon_nb.{name}"), "__all__"
        )  # else all that it imports would count
        directive = f".. automodule:: acon_nb.{name}\n" + "   :imported-members:\n" * imported
        pages[name] = f"# acon_nb.{name}\n\n```{{eval-rst}}\n{directive}```\n"
    words = "What each package exports. `import acon_nb` alone gives them all; each is loaded when it is first used."
    pages["index"] = _listing("Python", words, pages)
    return pages


def _factors() -> str:
    text = "# Factors\n\nWhat a plan of each kind of study may vary or fix ([study.md](../study.md)).\n"
    for registration in registry.registrations():
        kind = kinds.kind(registration.name)
        rows = [
            (_code(field.name), _code(field.default if field.default is not dataclasses.MISSING else "none"))
            for field in dataclasses.fields(kind.factors)
        ]
        words = inspect.getdoc(kind.factors) or ""
        text += f"\n## {kind.name}\n\n{_table(('factor', 'default'), rows)}\n\n{words}\n"
    return text


def _columns() -> str:
    text = "# Columns\n\nThe columns of a row of results, by kind of study ([results.md](../results.md)).\n"
    for file in columns.files():
        rows = [
            (_code(column.name), column.type, column.unit if column.unit is not None else "", column.meaning)
            for column in file.columns
        ]
        title = f"Studies of {file.owner}" if file.owner else "Any study"
        text += f"\n## {title}\n\n{_table(('column', 'type', 'unit', 'meaning'), rows)}\n"
    return text


def _ends() -> str:
    rows = [(_code(end.value), end_text(end), "yes" if end in GOOD_ENDS else "no") for end in End]
    text = "How a guest ended, as a code in rows and JSON, and in words. What each means: [launch.md](../launch.md).\n"
    return f"# Ends of guests\n\n{text}\n{_table(('code', 'in words', 'good'), rows)}\n"


def _of_root(path: Path) -> str:
    """Return a page of the repository's top folder with its links as they are from here."""
    return path.read_text().replace("](docs/", "](../").replace("](CHANGELOG.md", "](changelog.md")


def _notebooks(folder: Path, root: Path) -> None:
    """Copy the notebooks: as they were executed here, if their cells have not changed since, else without outputs."""
    folder.mkdir(parents=True)
    names = sorted((root / "notebooks").glob("*.ipynb"))
    executed = [json.loads(path.read_text()) for path in sorted((root / _EXECUTED).glob("*.ipynb"))]
    for path in names:
        document = json.loads(path.read_text())
        document = next((found for found in executed if _sources(found) == _sources(document)), document)
        document["cells"] = [cell for cell in document["cells"] if "injected-parameters" not in _tags(cell)]
        (folder / path.name).write_text(json.dumps(document))
    words = "The notebooks of the workbench, in the order of the walk. `make lab` opens copies to run."
    (folder / "index.md").write_text(_listing("Tutorials", words, [path.stem for path in names]))


def _tags(cell: dict[str, dict[str, list[str]]]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def _sources(document: dict[str, list[dict[str, str]]]) -> list[str]:
    return ["".join(cell["source"]) for cell in document["cells"] if "injected-parameters" not in _tags(cell)]  # type: ignore[arg-type]
