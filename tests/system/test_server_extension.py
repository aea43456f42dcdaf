"""The server's extension in a real Jupyter Server: who gets a direct channel, and what is left when it ends."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acon_nb.jupyter import channel

pytestmark = pytest.mark.system
TOKEN = "a-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address without scheme, process) of a server with the extension and a token."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", f"--ServerApp.port={port}"]
    argv += [
        f"--IdentityProvider.token={TOKEN}",
        "--ServerApp.jpserver_extensions=acon_nb.jupyter.server_extension=True",
    ]
    argv += [f"--ServerApp.root_dir={folder}", "--ServerApp.base_url=/some/where/"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield f"127.0.0.1:{port}/some/where/acon-nb/channels", process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


@pytest.fixture
def here():
    return channel.PageChannels()


def talk(address, *, message):
    """Open a websocket, send `message`, return the answer. Errors: those of tornado."""
    from tornado.websocket import websocket_connect

    async def all_of_it():
        connection = await websocket_connect(f"ws://{address}")
        await connection.write_message(message, binary=True)
        answer = await connection.read_message()
        connection.close()
        return answer

    return asyncio.run(asyncio.wait_for(all_of_it(), 20))


def test_with_the_token_a_page_and_a_process_talk_and_nothing_stays_open(server, here) -> None:
    address, process = server
    key = here.open(lambda head, data: here.send(key, head["view"], {"kind": "echo"}, data[0]))
    hello = channel.pack({"channel": key, "view": "a"}, b"hello")
    talk(f"{address}/{here.name}?token={TOKEN}", message=hello)  # what the first one loads stays

    def open_files() -> tuple[int, int]:
        return len(list(Path(f"/proc/{process.pid}/fd").iterdir())), len(os.listdir("/proc/self/fd"))

    before = open_files()
    talks = 5
    for _ in range(talks):
        answer = talk(f"{address}/{here.name}?token={TOKEN}", message=hello)
        assert channel.unpack(answer) == ({"kind": "echo"}, b"hello")
    deadline = time.monotonic() + 300
    # an older one may still be closing, and a server may open files of its own meanwhile: but none for each connection
    while any(now >= then + talks for now, then in zip(open_files(), before, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_hangs_up_ends_the_websocket(server, here) -> None:
    found = queue.Queue()
    key = here.open(lambda head, data: found.put(head))
    assert talk(f"{server[0]}/{here.name}?token={TOKEN}", message=b"no message") is None
    assert found.empty(), key


@pytest.mark.parametrize(
    ("name", "query", "status"),
    [
        ("{name}", "", 403),
        ("{name}", "?token=another", 403),
        ("0" * 32, f"?token={TOKEN}", 404),
        ("../../tmp", f"?token={TOKEN}", 404),
        ("{name}x", f"?token={TOKEN}", 404),
    ],
)
def test_nobody_else_gets_a_line(server, here, name, query, status) -> None:
    from tornado.httpclient import HTTPClientError

    with pytest.raises(HTTPClientError) as refused:
        talk(f"{server[0]}/{name.format(name=here.name)}{query}", message=b"")
    assert refused.value.code == status
