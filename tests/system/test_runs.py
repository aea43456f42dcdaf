"""Guests by name: several of one spec at once, listed, read, typed at, ended; only --detach outlives its owner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


@pytest.fixture
def place(tmp_path: Path, tiny_kernel: Path) -> Iterator[Path]:
    """A folder with the tiny kernel and a cache of its own, whose guests are ended."""
    (tmp_path / "vmlinuz").symlink_to(tiny_kernel)
    yield tmp_path
    for row in listed(tmp_path):
        call(tmp_path, "kill", row["name"])


def environment(place: Path) -> dict[str, str]:
    folders = {"XDG_CACHE_HOME": str(place / ("c" * 90)), "PYTHONPATH": str(Path.cwd())}
    return {**os.environ, "RD": "-", "BIOS": "-", "M": "64m", **folders}


def call(place: Path, *argv: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "acon_nb.cli", *argv], cwd=place, env=environment(place), input=given,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def launch(place: Path, name: str, *argv: str) -> subprocess.Popen[bytes]:
    """A guest that waits, owned by a process of this test."""
    words = [sys.executable, "-m", "acon_nb.cli", "run", "--name", name, *argv, "vmlinuz"]
    return subprocess.Popen(
        words, cwd=place, env=environment(place), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def listed(place: Path, *options: str) -> list[dict[str, object]]:
    return list(json.loads(call(place, "ps", "--json", *options).stdout)["guests"])


def wait_for(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_detached_guest_is_listed_read_typed_at_and_ended(place: Path) -> None:
    started = call(place, "run", "--name", "one", "--detach", "vmlinuz")
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    (row,) = listed(place)
    assert (row["name"], row["running"], row["kernel"]) == ("one", True, "vmlinuz")
    again = call(place, "run", "--name", "one", "--detach", "vmlinuz")
    assert again.returncode == 2
    assert "is a guest that runs already" in again.stderr
    assert call(place, "run", "--name", "two", "--detach", "vmlinuz").returncode == 0
    assert {row["name"] for row in listed(place)} == {"one", "two"}
    assert call(place, "logs", "one").returncode == 0
    assert call(place, "kill", "one").returncode == 0
    assert {row["name"] for row in listed(place)} == {"two"}
    ended = next(row for row in listed(place, "--all") if row["name"] == "one")
    assert ended["end"] == "killed"
    assert "one" in call(place, "ps", "--all").stdout
    refused = call(place, "attach", "one")
    assert refused.returncode == 1
    assert "one does not run" in refused.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_guest_and_then_the_command(place: Path, number: signal.Signals, status: int) -> None:
    owner = launch(place, "mine")
    wait_for(lambda: [row["name"] for row in listed(place)] == ["mine"])
    wait_for(lambda: bool(descendants(owner.pid)))
    started = descendants(owner.pid)
    owner.send_signal(number)
    assert owner.wait(30) == status
    wait_for(lambda: not [pid for pid in started if parent_of(pid)], 10)  # what holds a guest ends it as its owner ends
    assert ("interrupted" in owner.stderr.read().decode()) is (number == signal.SIGINT)  # type: ignore[union-attr]
    (row,) = listed(place, "--all")
    assert not row["running"]


def test_an_interrupted_follower_of_logs_leaves_the_guest(place: Path) -> None:
    assert call(place, "run", "--name", "one", "--detach", "vmlinuz").returncode == 0
    words = [sys.executable, "-m", "acon_nb.cli", "logs", "-f", "one"]
    follower = subprocess.Popen(words, cwd=place, env=environment(place), stderr=subprocess.PIPE)
    time.sleep(3)
    follower.send_signal(signal.SIGINT)
    assert follower.wait(30) == 130
    assert [row["name"] for row in listed(place)] == ["one"]


def parent_of(pid: int) -> int | None:
    """The parent of a process; None if that has ended, whether or not it was reaped."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def descendants(pid: int) -> list[int]:
    """The processes below one."""
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    children = [one for one in pids if parent_of(one) == pid]
    return children + [below for one in children for below in descendants(one)]


def test_a_guest_of_a_terminal_is_listed_and_dies_with_its_owner(place: Path) -> None:
    owner = launch(place, "mine")
    wait_for(lambda: [row["name"] for row in listed(place)] == ["mine"])
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_for(lambda: not listed(place))
    assert "its owner was killed" in call(place, "ps", "--all").stdout


def test_what_is_no_name_is_refused(place: Path) -> None:
    for name in ("a b", "../x", "-x", "x" * 64):
        assert call(place, "run", f"--name={name}", "vmlinuz").returncode == 2
    for command in ("logs", "attach", "kill"):
        result = call(place, command, "nobody")
        assert result.returncode == 2
        assert "acon-nb ps --all" in result.stderr
    result = call(place, "run", "--detach", "--exec", "true", "vmlinuz")
    assert result.returncode == 2
    assert "--detach runs no command" in result.stderr


def test_a_guest_that_cannot_start_is_not_detached(place: Path) -> None:
    result = call(place, "run", "--name", "bad", "--detach", "vmlinuz", "-no-such-option")
    assert result.returncode == 1
    assert "no-such-option" in result.stderr
    assert not listed(place)


def test_keys_and_output_pass_between_a_client_and_the_guest(
    tiny_kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acon_nb import vm
    from acon_nb.vm import remote, runs

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = vm.VmSpec(kernel=tiny_kernel, append="e", memory_bytes=64 << 20)
    keys_r, keys_w = os.pipe()
    out_r, out_w = os.pipe()
    with vm.Machine(spec, interactive=True) as machine, runs.registered(machine, "echo"):
        machine.start()
        machine.console.expect("READY", 60)
        os.write(keys_w, b"abcq")
        assert remote.attach_run(runs.find("echo"), keys_r, out_w)
        assert machine.wait().end is vm.End.POWERED_OFF
    os.close(out_w)
    with os.fdopen(out_r, "rb") as file:
        assert b"READY" in (text := file.read())
        assert b"abc" in text
    for fd in (keys_r, keys_w):
        os.close(fd)


def test_the_escape_leaves_and_doubles() -> None:
    from acon_nb.vm.remote import _Escape

    assert _Escape().take(b"a\x01db") == (b"a", True)
    assert _Escape().take(b"a\x01\x01d") == (b"a\x01d", False)
    escape = _Escape()
    assert escape.take(b"\x01") == (b"", False)
    assert escape.take(b"x") == (b"\x01x", False)
