"""The pages: names, paths and links exist, Python resolves, commands parse, plans load; cheap blocks are executed."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click
import pandas as pd
import pytest

import acon_nb
from acon_nb import results, vm, widgets
from acon_nb.cli import main
from acon_nb.study import kinds
from acon_nb.study.plan import Plan, load
from tests.unit import bzimages

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGE = ROOT / "acon_nb"
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
FOREIGN = ("dask_jobqueue", "dask_kubernetes")  # schedulers of others, which the page shows how to use
ELSEWHERE = {"acon_nb.studies", "vm.min_free_kbytes"}  # a group of entry points; a sysctl
# Names that a page may use without defining them: its text says what they are.
GIVEN = {"machine": vm.Machine, "spec": vm.VmSpec, "plan": Plan, "rows": pd.DataFrame}
# What a page calls the views and guests whose attributes it names.
OBJECTS = {
    **GIVEN,
    "board": widgets.board,
    "console": widgets.ConsoleView,
    "designer": widgets.StudyDesigner,
    "form": widgets.MeasureForm,
    "panel": widgets.VmPanel,
}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def indented(page: Path) -> list[str]:
    """The indented blocks of a page."""
    blocks: list[list[str]] = [[]]
    for line in page.read_text().splitlines():
        if line.startswith("    ") or (not line and blocks[-1]):
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [textwrap.dedent("\n".join(block)).strip("\n") for block in blocks if block]


def pieces(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each block: "python", "toml" or "shell"; a mixed block is taken apart at its empty lines."""
    for block in indented(page):
        whole = language_of(block)
        for piece in [block] if whole != "shell" else re.split(r"\n\n+", block):
            yield language_of(piece), piece


def language_of(text: str) -> str:
    for language, parse in (("toml", tomllib.loads), ("python", ast.parse)):
        try:
            parse(text)
        except (tomllib.TOMLDecodeError, SyntaxError):
            continue
        return language
    return "shell"


def blocks_of(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        texts = [text for kind, text in pieces(page) if kind == language]
        found += [pytest.param(page, text, id=f"{name_of(page)}-{number}") for number, text in enumerate(texts)]
    return found


def prose(page: Path) -> str:
    return "\n".join(line for line in page.read_text().splitlines() if not line.startswith("    "))


def inline(page: Path) -> list[str]:
    """The texts between backticks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


# --- names ---


def resolve(dotted: str) -> Any:
    """The object of a dotted name below `acon_nb`. Errors: `AttributeError`."""
    value: Any = acon_nb
    for part in dotted.removeprefix("acon_nb.").split("."):
        value = member(value, part)
    return value


def member(value: Any, name: str) -> Any:
    """An attribute of a module, or of a class and its instances. Errors: `AttributeError`."""
    if isinstance(value, property):
        value = returned(value.fget)
    if inspect.isfunction(value):
        value = returned(value)
    if not isinstance(value, type) or hasattr(value, name):
        return getattr(value, name)
    if dataclasses.is_dataclass(value) and name in {field.name for field in dataclasses.fields(value)}:
        return get_type_hints(value)[name]
    if re.search(rf"\bself\.{name}\b.* = ", inspect.getsource(value)):
        return object
    raise AttributeError(f"{value.__qualname__} has no attribute {name!r}")


def returned(function: Any) -> Any:
    """The class that a function returns; `object` if its annotation cannot be evaluated here."""
    try:
        return get_type_hints(function).get("return", object)
    except NameError:  # imported for mypy only, such as pandas
        return object


def classes() -> dict[str, str]:
    """The dotted name of each public class, by its own name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = f"{module}.{node.name}"
    return found


CLASSES = classes()
FILES = (".py", ".md", ".toml", ".json", ".ipynb", ".html", ".csv", ".sh", ".txt", ".log")


def named(code: str) -> Iterator[str]:
    """The dotted names of the package in an inline code."""
    for match in re.finditer(r"(?<![\w./-])([A-Za-z_]\w*)((?:\.\w+)+)(?![\w/])", code):
        first, rest = match[1], match[2]
        if Path(match[0]).suffix in FILES:
            continue
        if first == "acon_nb":
            yield match[0]
        elif first in PACKAGES:
            yield f"acon_nb.{match[0]}"
        elif first in CLASSES:
            yield CLASSES[first] + rest


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_in_the_text_exists(page: Path) -> None:
    for code in inline(page):
        if code in ELSEWHERE:
            continue
        for dotted in named(code):
            resolve(dotted)
        attribute = re.match(r"(\w+)\.(\w+)", code)
        if attribute and attribute[1] in OBJECTS and f".{attribute[2]}" not in FILES:
            member(OBJECTS[attribute[1]], attribute[2])


def test_a_name_that_does_not_exist_is_found() -> None:
    assert list(named("`launch.machine` or `vm.VmSpec`, `boot/memory.toml`")) == ["acon_nb.vm.VmSpec"]
    assert list(named("td.preflight.machine(spec)")) == ["acon_nb.td.preflight.machine"]
    assert list(named("End.POWERED_OFF, System.map-6.12")) == ["acon_nb.vm.diagnosis.End.POWERED_OFF"]
    assert resolve("acon_nb.vm.diagnosis.End.POWERED_OFF") is vm.End.POWERED_OFF
    for wrong in ("acon_nb.launch.machine", "acon_nb.vm.NoSuch", "acon_nb.vm.spec.VmSpec.no_field"):
        with pytest.raises(AttributeError):
            resolve(wrong)


# --- paths and links ---

FOLDERS = ("acon_nb", "tests", "benchmarks", "docs", "notebooks", "js", "tools", ".github", *PACKAGES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_and_link_exists(page: Path) -> None:
    text = prose(page)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    for code in inline(page):
        path = re.match(r"(?:python )?((?:[\w.-]+/)+[\w.-]+\.\w+)", code)
        if path and path[1].split("/")[0] in FOLDERS:
            assert (ROOT / path[1]).exists() or (PACKAGE / path[1]).exists(), path[1]


# --- Python ---


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_is_recognised_as_such(page: Path) -> None:
    """A block that does not parse would otherwise pass as one for the shell."""
    for language, text in pieces(page):
        if language == "shell":
            assert not re.search(r"^(from \S+ import|import|with|def|class|@|\w+ = \w+\() ?", text, re.MULTILINE), text


class Checker(ast.NodeVisitor):
    """Resolves the imports, names, attributes and keywords in a page's Python, as far as types are declared."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known
        self.faults: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.split(".")[0]
            self.known[alias.asname or top] = None if top in FOREIGN else importlib.import_module(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        foreign = str(node.module).split(".")[0] in FOREIGN
        for alias in node.names:
            value = None if foreign else getattr(importlib.import_module(str(node.module)), alias.name)
            self.known[alias.asname or alias.name] = value

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.value_of(node)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id not in self.known and not hasattr(builtins, node.id):
            self.faults.append(f"{node.id} is not defined")

    def visit_Call(self, node: ast.Call) -> None:
        function = self.value_of(node.func)
        if isinstance(function, type) or inspect.isfunction(function):
            parameters = inspect.signature(function).parameters
            anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
            wrong = [word.arg for word in node.keywords if word.arg and word.arg not in parameters and not anything]
            self.faults += [f"{ast.unparse(node.func)} has no parameter {name}" for name in wrong]
        self.generic_visit(node)

    def value_of(self, node: ast.expr) -> Any:
        """What an expression stands for: a module, a class (also for its instances), a function; None if unknown."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Call):
            function = self.value_of(node.func)
            return (
                returned(function) if inspect.isfunction(function) else function if isinstance(function, type) else None
            )
        if isinstance(node, ast.Attribute):
            owner = self.value_of(node.value)
            if owner in (None, object) or getattr(owner, "__module__", "acon_nb").split(".")[0] != "acon_nb":
                return None
            try:
                return member(owner, node.attr)
            except AttributeError as error:
                self.faults.append(str(error))
        return None


def bound(tree: ast.AST) -> dict[str, Any]:
    """The names that a text binds, other than by imports."""
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] = None
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = None
        elif isinstance(node, ast.arg):
            names[node.arg] = None
    return names


def faults_of(texts: list[str]) -> list[str]:
    """What is wrong in the Python of one page, whose blocks follow each other."""
    checker = Checker(dict(GIVEN))
    for text in texts:
        tree = ast.parse(text)
        checker.known |= {name: None for name in bound(tree) if name not in checker.known}
        for statement in tree.body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    checker.known[node.targets[0].id] = checker.value_of(node.value)
                elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
                    checker.known[node.optional_vars.id] = checker.value_of(node.context_expr)
            checker.visit(statement)
    return checker.faults


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_resolves(page: Path) -> None:
    pytest.importorskip("distributed")
    assert faults_of([text for language, text in pieces(page) if language == "python"]) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("from acon_nb import vm\nvm.no_such", "module 'acon_nb.vm' has no attribute 'no_such'"),
        ("import acon_nb\nacon_nb.launch.machine", "module 'acon_nb' has no attribute 'launch'"),
        ("preflight.machine(spec)", "preflight is not defined"),
        ("machine.no_method()", "Machine has no attribute 'no_method'"),
        ("machine.console.no_method()", "Console has no attribute 'no_method'"),
        ("from acon_nb import vm\nvm.boot(spec, nothing=1)", "vm.boot has no parameter nothing"),
        ("from acon_nb import vm\nwith vm.Machine(spec) as guest:\n    guest.no_method", "Machine has no attribute"),
    ],
)
def test_a_fault_in_python_is_found(text: str, fault: str) -> None:
    assert any(fault in found for found in faults_of([text]))


# --- commands ---


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each `acon-nb` command in a shell text; alternatives (a|b) are commands of their own."""
    for line in text.splitlines():
        for match in re.finditer(r"(?:^|&& |[\s/])acon-nb (.*?)(?= && | {2,}| > |  *# |$)", line):
            command = re.sub(r"\[([^\]]*)\](?:\.\.\.)?", r"\1", match[1])
            names = re.fullmatch(r"(\S+ )?([\w-]+(?:\|[\w-]+)+)( .*)?", command)
            options = re.fullmatch(r"(.* --\S+ )([\w-]+(?:\|[\w-]+)+)( .*)?", command)
            choice = names or options
            for word in choice[2].split("|") if choice else [""]:
                yield shlex.split(f"{choice[1] or ''}{word}{choice[3] or ''}" if choice else command)


def parse(words: list[str], *, whole: bool) -> None:
    """Parse a command against the command tree; `whole` also requires its arguments. Errors: `click.ClickException`."""
    command: click.Command = main
    names: list[str] = []
    words = list(words)
    while isinstance(command, click.Group):
        if not words:
            assert not whole, "a group is not a command"
            return
        names.append(words.pop(0))
        assert names[-1] in command.commands, f"no command {' '.join(names)}"
        command = command.commands[names[-1]]
    context = click.Context(command, info_name=" ".join(names), resilient_parsing=not whole)
    if whole:
        command.parse_args(context, words)
    else:
        command.make_parser(context).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_parses(page: Path) -> None:
    for language, text in pieces(page):
        if language == "shell":
            for words in commands_in(text):
                parse(words, whole=True)
    for code in inline(page):
        for words in commands_in(code):
            parse(words, whole=False)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("acon-nb no-such-command", AssertionError),
        ("acon-nb measure acpi tables --edk2 202411", click.NoSuchOption),
        ("acon-nb bench study --out results", click.MissingParameter),
        ("acon-nb bench swap --preset smoke|huge", click.BadParameter),
        ("RD=x .venv/bin/acon-nb run --acceleration kvm vmlinuz   # no such option", click.UsageError),
    ],
)
def test_a_wrong_command_is_found(text: str, error: type[Exception]) -> None:
    (*_, words) = commands_in(text)
    with pytest.raises(error):
        parse(words, whole=True)


def test_commands_are_found_in_a_text() -> None:
    text = "a=b ./acon-nb bench phases|memory S -o F   # why\nacon-nb x && acon-nb y [--set A=B]... > z\n"
    assert [" ".join(words) for words in commands_in(text)] == [
        "bench phases S -o F",
        "bench memory S -o F",
        "x",
        "y --set A=B",
    ]


@pytest.mark.parametrize("path", [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml")], ids=name_of)
def test_every_command_that_a_message_advises_exists(path: Path) -> None:
    for group, name in re.findall(r"acon-nb ([a-z]+) ([a-z][a-z-]*)", path.read_text()):
        if isinstance(command := main.commands.get(group), click.Group):
            assert name in command.commands, f"acon-nb {group} {name}"


# --- what is executed ---


@pytest.mark.parametrize(("page", "text"), [case for case in blocks_of("toml") if "study =" in case.values[1]])
def test_every_plan_loads(page: Path, text: str, tmp_path: Path) -> None:
    if tomllib.loads(text)["study"] not in kinds.names():
        pytest.skip("a kind of study that tests/unit/test_toy_kind.py installs")
    path = tmp_path / "plan.toml"
    path.write_text(text)
    plan = load(path)
    factors = {
        name: [shlex.join(level) if isinstance(level, list) else level for level in levels]  # a program's arguments
        for name, levels in tomllib.loads(text)["factors"].items()
    }
    assert plan.factors == factors
    kinds.study_of(plan, tmp_path / "results")  # refuses factors and levels that the kind does not have


def python_of(page: str) -> str:
    return "\n".join(text for language, text in pieces(ROOT / page) if language == "python")


def test_rows_are_read_and_exported_as_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results.Store(Path("results")).add("boot", {**results.stamp(), "study": "sizes", "cell": "x", "clock": "wall"})
    exec(python_of("docs/results.md"), {})
    assert "sizes" in Path("sizes.csv").read_text()


def test_a_panel_is_made_as_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bzimages.write(Path("vmlinuz"))
    names: dict[str, Any] = {"spec": vm.VmSpec(kernel=Path("vmlinuz"))}
    exec(python_of("docs/notebooks-and-widgets.md").partition("console =")[0], names)
    assert names["panel"].spec == names["spec"]
    assert (names["panel"].machine, names["panel"].console) == (None, None)


# --- numbers of the README ---


def test_the_readme_has_the_numbers_of_the_pages() -> None:
    """Each number that is a link, or in one, stands in the page that it leads to."""
    links = re.findall(r"\[([^\]]*\d[^\]]*)\]\((docs/[\w-]+\.md)\)", (ROOT / "README.md").read_text())
    assert len(links) >= 5
    for text, page in links:
        for number in re.findall(r"\d+(?:\.\d+)?", text):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", (ROOT / page).read_text()), (number, page)


def test_the_readme_is_one_screen() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 60
    assert re.search(r"!\[[^\]]+\]\(docs/figures/\S+\)", text)
