"""What engines send: the progress of pulls, the lines of builds, and errors in the terms of a user."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.errors import Cancelled, InvalidInput
from acon_nb.initrd import ContainerBuild
from acon_nb.initrd.sources.engine import build_arguments
from acon_nb.initrd.sources.engine_stream import BuildLog, PullProgress, explain, interruptible, printable
from acon_nb.progress import CancelToken

# Recorded from Docker 20.10: a pull of two layers, the second of which it had.
PULL: list[dict[str, Any]] = [
    {"status": "Pulling from acme/bbox", "id": "1"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
    {"status": "Already exists", "progressDetail": {}, "id": "bbb"},
    {"status": "Downloading", "progressDetail": {"current": 100, "total": 1000}, "id": "aaa"},
    {"status": "Verifying Checksum", "progressDetail": {}, "id": "aaa"},
    {"status": "Download complete", "progressDetail": {}, "id": "aaa"},
    {"status": "Extracting", "progressDetail": {"current": 500, "total": 1000}, "id": "aaa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aaa"},
    {"status": "Digest: sha256:0"},
]


def test_a_pull_reports_layers_bytes_and_a_share() -> None:
    progress = PullProgress("x:1")
    events = [progress.take(event) for event in PULL]
    assert [event.done for event in events] == [None, None, None, 0.05, 0.05, 0.5, 0.75, 0.999, 0.999]
    assert events[3].text == "1 of 2 layers, 100 B of 1000 B, Downloading"
    assert events[-1].text == "2 of 2 layers, 1000 B of 1000 B, Digest: sha256:0"
    assert {event.task for event in events} == {"pull x:1"}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(PULL), st.integers(0, 2000), st.integers(0, 2000))))
def test_the_share_of_a_pull_never_falls_and_stays_below_one(changes: list[tuple[str, Any, int, int]]) -> None:
    progress, last = PullProgress("x"), 0.0
    for layer, event, current, total in changes:
        detail = {"current": current, "total": total}
        done = progress.take({**event, "id": layer, "progressDetail": detail}).done
        assert done is None or last <= done < 1
        last = done or last


def test_a_build_keeps_its_step_and_the_last_lines() -> None:
    log, seen = BuildLog("x"), []  # type: tuple[BuildLog, list[Progress]]
    log.take({"stream": "Step 1/2 : FROM x\n"}, seen.append)
    log.take({"stream": " ---> 0123456789ab\n"}, seen.append)
    log.take({"stream": "Step 2/2 : RUN seq 100\n"}, seen.append)
    log.take({"stream": "\x1b[31m0\x1b[0m\r1\n"}, seen.append)
    for number in range(2, 100):
        log.take({"stream": f"{number}\n"}, seen.append)
    assert log.lines == ["Step 2/2 : RUN seq 100", *(f"{number}" for number in range(80, 100))]
    assert [event.text for event in seen[2:5]] == ["Step 2/2 : RUN seq 100", "0", "1"]
    assert all(event.is_log for event in seen)


def test_the_id_of_a_build_is_not_taken_from_what_a_step_prints() -> None:
    log = BuildLog("x")
    for event in (
        {"stream": f"{'e' * 64}\n"},  # sha256sum in a RUN line
        {"aux": {"ID": "sha256:1"}},
        {"stream": f"Successfully built {'d' * 12}\n"},
    ):
        log.take(event, lambda _: None)
    assert log.identity == "sha256:1"
    log = BuildLog("x")  # podman before it sent aux
    for line in (f"{'e' * 64}", "--> 0123", "f" * 64):
        log.take({"stream": f"{line}\n"}, lambda _: None)
    assert log.identity == "f" * 64


# Texts of Docker 20.10 and Podman 4.3
MESSAGES = {
    'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host': "cannot be reached",
    'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused': "cannot be reached",
    "net/http: request canceled (Client.Timeout exceeded while awaiting headers)": "cannot be reached",
    "manifest for x:2 not found: manifest unknown: manifest unknown": "has no image x",
    "pull access denied for x, repository does not exist or may require 'docker login'": "has no image x",
    "no matching manifest for linux/s390x in the manifest list entries": "for that platform",
    "toomanyrequests: You have reached your pull rate limit": "limits the number of pulls",
    "http: server gave HTTP response to HTTPS client": "does not trust",
    'short-name "x" did not resolve to an alias and no unqualified-search registries are defined': "which registry",
    "the --mount option requires BuildKit": "needs BuildKit",
    "write /var/lib/docker/x: no space left on device": "disk is full",
    "The command '/bin/sh -c echo connection refused' returned a non-zero code: 1": "",
    "COPY failed: file not found in build context": "",
    "something else": "",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_of_engines_are_explained(message: str) -> None:
    reason, hint = explain(message, "x")
    assert MESSAGES[message] in reason
    assert bool(reason) == bool(MESSAGES[message])
    assert hint or not reason


def test_lines_of_engines_cannot_control_a_terminal() -> None:
    assert printable("a\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b1mb\tc\x00") == "ared0;title1mb\tc"


def test_a_silent_engine_can_be_cancelled_and_its_errors_are_raised() -> None:
    session, token, asked = requests.Session(), CancelToken(), threading.Event()

    def silent() -> Iterator[int]:
        yield 1
        asked.set()
        time.sleep(5)

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = interruptible(session, silent, token)
    assert next(items) == 1
    threading.Thread(target=lambda: asked.wait(10) and token.cancel()).start()
    with pytest.raises(Cancelled):
        next(items)
    with pytest.raises(ValueError, match="broken"):
        list(interruptible(session, broken, CancelToken()))
    assert list(interruptible(session, lambda: range(100), CancelToken())) == list(range(100))
    assert session.hooks["response"] == []


def test_a_build_is_described_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="has no Dockerfile or Containerfile"):
        ContainerBuild.of_folder(tmp_path)
    (tmp_path / "Containerfile").write_text("# x\nfrom --platform=linux/amd64 alpine:latest AS a\nFROM b\n")
    assert ContainerBuild.of_folder(tmp_path).base == "alpine:latest"
    (tmp_path / "other").write_text("RUN x\n")
    for file, folder, word in (
        (tmp_path / "other", tmp_path, "FROM"),
        (tmp_path / "missing", tmp_path, "is not a file"),
        (None, tmp_path / "missing", "is not a folder"),
    ):
        with pytest.raises(InvalidInput, match=word):
            ContainerBuild.of_folder(folder, file)
    (tmp_path / "other").write_bytes(b"FROM \xff")
    with pytest.raises(InvalidInput, match="is not text in UTF-8"):
        ContainerBuild.of_folder(tmp_path, tmp_path / "other")
    for fields, word in (
        ({"tag": "X Y"}, "tag"),
        ({"arguments": {"a b": "1"}}, "build_arg"),
        ({"platform": "linux/pdp11"}, "platform"),
    ):
        with pytest.raises(InvalidInput, match=word):
            ContainerBuild.of_folder(tmp_path, **fields)
    monkeypatch.setenv("OF_ENV", "1")
    assert build_arguments(["A=b=c", "OF_ENV", "EMPTY="]) == {"A": "b=c", "OF_ENV": "1", "EMPTY": ""}
    with pytest.raises(InvalidInput, match="has no value"):
        build_arguments(["NOT_IN_ENV"])
