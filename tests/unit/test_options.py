"""No option of a command is accepted and then ignored: the code that a command runs reads each of them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from acon_nb.cli import main


def commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}".strip())


COMMANDS = dict(commands(main))


def read_by(function: Callable[..., Any], name: str) -> bool:
    """Whether `function` reads what it is given as the keyword `name`, itself or in what it passes `**kwargs` on to."""
    if dataclasses.is_dataclass(function):
        return name in {field.name for field in dataclasses.fields(function)}
    function = inspect.unwrap(function)
    parameters = inspect.signature(function).parameters
    body = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if name in parameters:
        return any(
            isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load) for node in ast.walk(body)
        )
    rest = next((p.name for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    return rest is not None and read_from(function, body, rest, name)


def read_from(function: Callable[..., Any], body: ast.AST, mapping: str, name: str) -> bool:
    """Whether `function` reads the key `name` of its local `mapping`, or passes the mapping on to what reads it."""
    for node in ast.walk(body):
        if isinstance(node, ast.Subscript) and is_local(node.value, mapping) and isinstance(node.slice, ast.Constant):
            if node.slice.value == name:
                return True
        elif isinstance(node, ast.Dict):  # {**mapping}: a new mapping, whose reader a signature checks when it runs
            if any(key is None and is_local(value, mapping) for key, value in zip(node.keys, node.values, strict=True)):
                return True
        elif isinstance(node, ast.Call):
            if any(word.arg is None and is_local(word.value, mapping) for word in node.keywords) and read_by(
                callee(function, body, node.func), name
            ):
                return True
            for number, word in enumerate(node.args):
                if is_local(word, mapping):
                    called = callee(function, body, node.func)
                    below = ast.parse(textwrap.dedent(inspect.getsource(called))).body[0]
                    if read_from(called, below, list(inspect.signature(called).parameters)[number], name):
                        return True
    return False


def is_local(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def callee(function: Callable[..., Any], body: ast.AST, node: ast.expr) -> Any:
    """What a call in `function` calls: a global, or an attribute of what the function imports."""
    names = dict(function.__globals__)
    imports = [node for node in ast.walk(body) if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(body=list(imports), type_ignores=[]), "imports", "exec"), names)
    return eval(compile(ast.Expression(body=node), "callee", "eval"), names)


def ignored(command: click.Command) -> list[str]:
    """The options and arguments of a command that its callback does not read."""
    assert command.callback is not None
    given = [parameter for parameter in command.params if parameter.expose_value and parameter.name]
    return [parameter.name for parameter in given if not read_by(command.callback, str(parameter.name))]


@pytest.mark.parametrize("path", sorted(path for path, command in COMMANDS.items() if command.params))
def test_each_option_is_read(path: str) -> None:
    assert ignored(COMMANDS[path]) == []


def test_acpi_tables_depend_on_no_version_that_could_be_named() -> None:
    """`measure acpi` asks the QEMU and the firmware that are here, so it does not take --qemu and --edk2."""
    options = {word for parameter in COMMANDS["measure acpi"].params for word in parameter.opts}
    assert {"--firmware", "--memory", "--append", "--initrd"} <= options
    assert not {"--qemu", "--edk2"} & options


def _reads_one(**given: Any) -> str:
    return str(given["read"])


def _takes_mapping(values: dict[str, Any]) -> str:
    return str(values["read"])


@dataclasses.dataclass
class _Spec:
    read: str


def test_an_option_that_is_accepted_and_ignored_is_found() -> None:
    def named(read: str, unread: str) -> None:
        click.echo(read)

    def deleted(read: str, unread: str) -> None:
        del unread
        click.echo(read)

    def passed_on(**given: Any) -> None:
        click.echo(_reads_one(**given))

    def passed_whole(**given: Any) -> None:
        click.echo(_takes_mapping(given))

    def spec(**given: Any) -> None:
        click.echo(_Spec(**given))

    for callback in (named, deleted, passed_on, passed_whole, spec):
        command = click.Command("x", params=[click.Option(["--read"]), click.Option(["--unread"])], callback=callback)
        assert ignored(command) == ["unread"], callback.__name__
