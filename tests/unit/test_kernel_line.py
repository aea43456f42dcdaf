"""A kernel command line is split as the kernel splits it; the oracle is next_arg() of lib/cmdline.c, word for word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb import kernel_line
from acon_nb.agent import guest
from acon_nb.errors import InvalidInput
from acon_nb.initrd.check.command_line import Start
from acon_nb.vm import first_program
from acon_nb.vm.diagnosis import console_device

SPACES = frozenset(b"\t\n\v\f\r \xa0")
WORDS = ["quiet", "--", '"--"', "rdinit=/a", 'x="p -- q"', '"y=1 2"', 'z="', "\t", " ", "INIT=/i", "=", "à"]
LETTERS = st.text(alphabet='ab =-"/\t\u00a0\u00e0', max_size=24)
LINES = LETTERS | st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


def next_arg(args: bytearray, start: int) -> tuple[bytes, bytes | None, int]:
    """The kernel's own: what it makes of the word at `start`, and where the next one is."""
    place = start
    in_quote = quoted = False
    if args[place : place + 1] == b'"':
        place += 1
        in_quote = quoted = True
    first, equals, i = place, 0, 0
    while first + i < len(args):
        char = args[first + i]
        if char in SPACES and not in_quote:
            break
        if equals == 0 and char == ord("="):
            equals = i
        if char == ord('"'):
            in_quote = not in_quote
        i += 1
    word = bytearray(args[first : first + i])
    param, value = bytes(word), None
    if equals:
        value_start, end = equals + 1, i
        if word[value_start : value_start + 1] == b'"':
            value_start += 1
            if word[i - 1] == ord('"'):
                end, word[i - 1] = i - 1, 0
        if quoted and i > 0 and word[i - 1] == ord('"'):
            end = i - 1
        param, value = bytes(word[:equals]), bytes(word[value_start:end])
    elif quoted and i > 0 and word[i - 1] == ord('"'):
        param = bytes(word[: i - 1])
    place = first + i
    while place < len(args) and args[place] in SPACES:
        place += 1
    return param, value, place


def parse_args(line: str) -> tuple[list[tuple[bytes, bytes | None]], bytes]:
    """The words for the kernel, and what init gets."""
    args = bytearray(line.encode(errors="surrogateescape"))
    place = 0
    while place < len(args) and args[place] in SPACES:
        place += 1
    words = []
    while place < len(args):
        param, value, place = next_arg(args, place)
        if value is None and param == b"--":
            return words, bytes(args[place:])
        words.append((param, value))
    return words, b""


def raw(text: str | None) -> bytes | None:
    return None if text is None else text.encode(errors="surrogateescape")


@given(LINES)
def test_words_are_those_of_the_kernel(append: str) -> None:
    line = kernel_line.parse(append)
    assert [(raw(word.name), raw(word.value)) for word in line.words] == parse_args(append)[0]
    assert line.text == append


@given(LINES, st.sampled_from(["INIT=/x", "a b"]))
def test_added_words_are_read_and_nothing_else_changes(append: str, added: str) -> None:
    words, rest = parse_args(append)
    changed, changed_rest = parse_args(kernel_line.with_words(append, *added.split()))
    expected = [(name.encode(), value.encode() if sep else None) for name, sep, value in
                (word.partition("=") for word in added.split())]  # fmt: skip
    for word in expected:
        assert word in changed
    assert [word for word in changed if word not in expected] == [word for word in words if word not in expected]
    assert changed_rest == rest


@given(LINES)
def test_the_agent_starts_in_place_of_what_the_kernel_would_start(append: str) -> None:
    words, rest = parse_args(append)
    programs = [value for name, value in words if name == b"rdinit" and value is not None]
    try:
        started, program = guest._command_line(append)
    except InvalidInput:
        assert programs
        return
    assert program.encode() == (programs or [b"/init"])[-1]
    changed, changed_rest = parse_args(started)
    assert changed_rest == rest
    assert [value for name, value in changed if name == b"rdinit" and value] == [b"/acon/exec"] * max(len(programs), 1)
    ours = (b"rdinit", b"INIT")
    assert [word for word in changed if word[0] not in ours] == [word for word in words if word[0] not in ours]
    inits = [value for name, value in words if name == b"INIT" and value is not None]
    assert [value for name, value in changed if name == b"INIT" and value is not None] == (
        inits or [b"/acon/exec-ready"]
    )


@pytest.mark.parametrize(
    ("append", "program", "init"),
    [
        ("quiet --", "/init", ""),
        ("quiet\t-- rdinit=/no", "/init", ""),
        ('x="p -- q" rdinit=/a', "/a", ""),
        ('foo="a rdinit=/q b"', "/init", ""),
        ('"foo=a rdinit=/q b" INIT=/i', "/init", "/i"),
        ('rdinit="/bin/sh" "--" INIT=/no', "/bin/sh", ""),
        ('"rdinit=/bin/sh" "INIT=/i j"', "/bin/sh", "/i j"),
    ],
)
def test_every_reader_of_a_command_line_sees_the_same_words(append: str, program: str, init: str) -> None:
    assert first_program.replaced(append, "/p")[1] == program
    assert (Start.of(append).init, Start.of(append).program) == (program, init)


def test_a_boots_own_words_come_before_the_arguments_of_init() -> None:
    append = kernel_line.with_words('console=ttyS0 x="p -- q" --', "loglevel=7")
    assert append == 'console=ttyS0 x="p -- q" loglevel=7 --'
    assert kernel_line.with_words('a x="open -- b', "quiet") == 'a quiet x="open -- b'
    assert kernel_line.with_words("-- one", "quiet") == "quiet -- one"


def test_a_console_in_quotes_is_the_console() -> None:
    assert console_device('console=ttyS0 "console=hvc0"') == "hvc0"
    assert console_device('x="a console=hvc0 b" console=ttyS0,115200 -- console=hvc0') == "ttyS0"
