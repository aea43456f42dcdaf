"""When a guest is ready: rules are parsed and refused by name; the console, messages and a port are followed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.boot import BootCell
from acon_nb.boot.factors import boot_factors
from acon_nb.errors import InvalidInput
from acon_nb.vm import Clock, Ready, parse_ready
from acon_nb.vm.ready import ReadyWatch, Rule, free_port


@pytest.mark.parametrize("text", ["init", "message", "port:8080", "console:login: $", "console:a:b", r"console:\d+ s"])
def test_a_rule_is_read_and_shown_as_it_was_written(text: str) -> None:
    assert str(parse_ready(text)) == text


@given(st.text(min_size=1, max_size=30))
def test_any_pattern_is_taken_or_refused(pattern: str) -> None:
    try:
        ready = parse_ready(f"console:{pattern}")
    except InvalidInput:
        return
    assert ready == Ready(rule=Rule.CONSOLE, pattern=pattern)
    re.compile(pattern)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("console:(", "not a regular expression"),
        ("console:.*", "matches nothing at all"),
        ("console:", "not complete"),
        ("console", "not a rule"),
        ("port:0", "TCP port"),
        ("port:70000", "TCP port"),
        ("port:http", "TCP port"),
        ("init:now", "not a rule"),
        ("", "not a rule"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_ready(text)


def test_a_port_is_refused_on_the_instruction_clock_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="disturb the count"):
        boot_factors({"ready": "port:80"})
    with pytest.raises(InvalidInput, match="disturb the count"):
        BootCell(name="x", kernel=tmp_path / "k", initrd=tmp_path / "i", ready="port:80", clock=Clock.INSTRUCTIONS)
    assert boot_factors({"ready": "port:80", "clock": "wall"}).ready == "port:80"


def watch(text: str, tmp_path: Path) -> tuple[ReadyWatch, Path]:
    transcript = tmp_path / "console.log"
    transcript.write_bytes(b"")
    return ReadyWatch(parse_ready(text), transcript, Clock.WALL), transcript


def test_a_line_is_found_though_it_comes_in_pieces_and_in_colour(tmp_path: Path) -> None:
    watched, transcript = watch("console:^vm login: $", tmp_path)
    for piece in (b"[ 0.1] boot\r\nnot vm login: \r\n", b"\x1b[1mvm lo", b"gin"):
        with transcript.open("ab") as file:
            file.write(piece)
        watched.look()
        assert watched.met_ns is None
    with transcript.open("ab") as file:
        file.write(b":\x1b[0m ")
    watched.look()
    assert watched.met_ns is not None, "a prompt does not end its line"


def test_messages_and_the_console_of_a_guest_without_a_port_tell_of_init(tmp_path: Path) -> None:
    watched, transcript = watch("init", tmp_path)
    watched.take(5, {"event": "boot"})
    assert watched.met_ns is None
    watched.take(6, {"event": "handover"})
    watched.take(7, {"event": "handover"})
    assert watched.met_ns == 6
    assert watched.settled
    watched.take(8, {"event": "exec-failure", "program": "/init"})
    assert not watched.settled, "the handover was to a program that cannot be executed"
    watched, transcript = watch("init", tmp_path)
    transcript.write_bytes(b"acon: /init is reached; there is no virtio port for the report\r\n")
    watched.look()
    assert watched.met_ns is not None
    watched, _ = watch("message", tmp_path)
    watched.take(6, {"event": "handover"})
    watched.take(8, {"event": "ready"})
    assert watched.met_ns == 8


def test_a_port_is_ready_when_the_guest_took_the_connection_not_qemu(tmp_path: Path) -> None:
    watched, _ = watch("port:8080", tmp_path)
    port = free_port()
    states = [
        "TCP[HOST_FORWARD] 12 127.0.0.1 {p} 10.0.2.15 8080 0 0",
        "TCP[SYN_SENT] 14 127.0.0.1 {p} 10.0.2.15 8080 0 0",
        "TCP[ESTABLISHED] 14 10.0.2.15 40000 192.0.2.1 80 0 0",
        "TCP[ESTABLISHED] 14 127.0.0.1 {p} 10.0.2.15 8080 0 0",
    ]
    asked: list[str] = []

    async def monitor(command: str) -> str:
        assert watched.met_ns is None
        asked.append(command)
        return states[min(len(asked), len(states)) - 1].replace("{p}", str(port))

    async def run() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
        async with server:
            await asyncio.wait_for(watched.knock(port, monitor), 20)

    asyncio.run(run())
    assert watched.met_ns is not None
    assert asked == ["info usernet"] * len(states)
