from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput, MissingRequirement
from acon_nb.initrd import ContainerBuild, Engine, tree_of
from acon_nb.initrd.sources import engine


def test_docker_host_is_the_only_socket_if_set() -> None:
    assert engine.sockets("docker", {"DOCKER_HOST": "tcp://10.0.0.1:2375"}) == ["tcp://10.0.0.1:2375"]
    assert engine.sockets("podman", {"DOCKER_HOST": "unix:///x", "CONTAINER_HOST": "unix:///y"}) == ["unix:///y"]
    assert engine.sockets("podman", {"DOCKER_HOST": "unix:///x"}) == ["unix:///x"]


def test_rootless_sockets_are_tried_too() -> None:
    values = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert engine.sockets("docker", values) == ["unix:///var/run/docker.sock", "unix:///run/user/7/docker.sock"]
    assert "unix:///run/user/7/podman/podman.sock" in engine.sockets("podman", values)


@pytest.mark.parametrize("kind", ["", "docker:", "podman:"])
def test_without_an_engine_the_error_has_a_hint(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    with pytest.raises(MissingRequirement, match=r"no\.sock") as caught:
        tree_of(f"{kind}alpine:latest")
    assert "DOCKER_HOST" in caught.value.hint
    assert "docker-archive:FILE" in caught.value.hint


def test_a_socket_with_invalid_answers_is_not_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/s")
        server.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):  # the test closes the socket
                while True:
                    connection, _ = server.accept()
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 500 no\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                    connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(MissingRequirement):
            Engine("docker")
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("name", ["Alpine", "a b", "-x", "a:b:c", "../x", "", "a@sha256:1", "x" * 10 + ":" + "t" * 200])
def test_an_invalid_image_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="image"):
        engine.check_reference(name)


@pytest.mark.parametrize(
    "name",
    [
        "alpine",
        "busybox:uclibc",
        "a-initrd",
        "library/x",
        "localhost:5000/a/b:v1.2",
        "Host.example/x",
        f"a@sha256:{'0' * 64}",
    ],
)
def test_valid_image_names_are_accepted(name: str) -> None:
    engine.check_reference(name)


def test_a_build_is_checked_before_connecting_to_an_engine(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="dockerfile"):
        ContainerBuild(dockerfile="RUN x", tag="x")
    with pytest.raises(InvalidInput, match="tag"):
        ContainerBuild(dockerfile="FROM x", tag="X Y")
    with pytest.raises(InvalidInput, match="context"):
        ContainerBuild(dockerfile="FROM x", tag="x", context=tmp_path / "missing")
