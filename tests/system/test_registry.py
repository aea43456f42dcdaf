"""Images pulled from a real registry by a real engine: platforms, digests, progress, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acon_nb import initrd
from acon_nb.cache import Cache
from acon_nb.errors import AconError, Cancelled, InvalidInput
from acon_nb.host import apt
from acon_nb.initrd.sources.oci.platforms import of_this_machine
from acon_nb.progress import CancelToken, Progress
from tests.system import engines
from tests.unit.image_archives import OCI_LAYER, Descriptor, Layout, files_of

pytestmark = pytest.mark.system

ARM64 = {"os": "linux", "architecture": "arm64"}


def variant(name: str) -> dict[str, str]:
    return {"os": "linux", "architecture": "amd64", "variant": name}


class Served:
    """A registry with `one:1`, an image for this machine, and `many:1`, an image for several platforms."""

    def __init__(self, registry: engines.Registry) -> None:
        self.registry = registry
        layout = Layout()
        self.one = layout.image("one", layer_type=f"{OCI_LAYER}+gzip", pack=compressed)
        self.one_name = registry.push("acme/one", "1", layout, self.one)
        layout = Layout()
        platforms = {name: variant(name) for name in ("v1", "v2", "v3", "v4")} | {"arm64": ARM64}
        self.many: dict[str, Descriptor] = {
            name: layout.image(name, config=fields, layer_type=f"{OCI_LAYER}+gzip", pack=compressed, platform=fields)
            for name, fields in platforms.items()
        }
        index = layout.index(*self.many.values())
        self.many_name = registry.push("acme/many", "1", layout, *self.many.values(), index)


def compressed(data: bytes) -> bytes:
    """A layer that is not tiny, so that its pull reports bytes."""
    import gzip

    return gzip.compress(data)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with engines.registry(tmp_path_factory.mktemp("registry")) as registry:
        yield Served(registry)


@pytest.fixture(scope="module")
def engine_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engines.dockerd(tmp_path_factory.mktemp("engine")) as url:
        yield url


@pytest.fixture
def docker(engine_host: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DOCKER_HOST", engine_host)
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    return engine_host


def who(name: str, **options) -> bytes:
    return files_of(initrd.tree_of(name, **options))["who"]


def test_a_pull_reports_layers_and_ends_in_the_image(docker: str, served: Served) -> None:
    seen: list[Progress] = []
    assert who(served.one_name, on_progress=seen.append) == b"one"
    pulls = [event for event in seen if event.task == f"pull {served.one_name}"]
    assert any("0 of 1 layers" in event.text for event in pulls)
    assert pulls[-1].done == 1
    assert [event.done for event in pulls if event.done] == sorted(event.done for event in pulls if event.done)
    repository = served.one_name.rpartition(":")[0]
    engines.docker(docker, "rmi", "--force", served.one_name)
    for name in (repository, served.one_name):  # NAME@DIGEST and NAME:TAG@DIGEST
        assert who(f"docker:{name}@{served.one['digest']}", pull="always") == b"one"
    assert who(served.one_name) == b"one"
    seen.clear()
    assert who(served.one_name, on_progress=seen.append) == b"one"
    assert not any(event.task.startswith("pull") for event in seen)


def test_the_platform_of_a_pull_is_checked(docker: str, served: Served) -> None:
    mine = of_this_machine()
    if mine.architecture != "amd64":
        pytest.skip("the images are for amd64")
    assert who(served.many_name) in (b"v1", mine.variant.encode())  # the engine decides
    assert who(served.many_name, platform="linux/amd64/v2") == b"v2"
    assert who(f"{served.many_name}@linux/amd64/v1", pull="always") == b"v1"
    tree = initrd.tree_of(served.many_name, platform="linux/arm64")
    assert files_of(tree)["who"] == b"arm64"
    assert "linux/arm64, whose programs this machine" in tree.warnings()[0]
    with pytest.raises(InvalidInput, match=r"contains no image for linux/amd64") as caught:
        initrd.tree_of(served.many_name)  # the engine now has the other one under this name
    assert "--platform linux/arm64" in caught.value.hint
    with pytest.raises(InvalidInput, match="is for linux/arm64, not linux/amd64") as caught:
        initrd.tree_of(served.many_name, platform="linux/amd64", pull="never")
    assert f"docker pull --platform linux/amd64 {served.many_name}" in caught.value.hint
    with pytest.raises(AconError, match=r"no image .* for that platform|is for linux/amd64, not linux/s390x"):
        initrd.tree_of(served.many_name, platform="linux/s390x")


def test_a_missing_image_and_a_missing_registry_are_told_apart(docker: str, served: Served) -> None:
    missing = f"{served.registry.host}/acme/nothing:1"
    with pytest.raises(AconError, match=f"the registry has no image {missing}"):
        initrd.tree_of(missing)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(AconError, match=f"the registry of {nowhere} cannot be reached") as caught:
            initrd.tree_of(nowhere)
        for way in ("proxy", f"docker save {nowhere}", "docker-archive:FILE", "docker load"):
            assert way in caught.value.hint
        with initrd.Engine() as engine, pytest.raises(AconError, match="cannot be reached") as caught:
            engine.build(initrd.ContainerBuild(dockerfile=f"FROM {nowhere}\nRUN true\n"))
        assert f"docker save {nowhere}" in caught.value.hint


def test_a_pull_from_a_silent_registry_can_be_cancelled(docker: str) -> None:
    token, started = CancelToken(), threading.Event()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def cancel() -> None:
            connection, _ = server.accept()  # the engine has asked, and waits for the answer
            started.set()
            token.cancel()
            while connection.recv(1000):
                pass

        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        with pytest.raises(Cancelled):
            initrd.tree_of(f"127.0.0.1:{server.getsockname()[1]}/x", cancel=token)
        assert started.is_set()


def test_a_cancelled_build_ends_its_container(docker: str, tmp_path: Path) -> None:
    tree = initrd.tree_of("busybox")
    from acon_nb.archive import tar

    with (tmp_path / "rootfs.tar").open("wb") as file:
        tar.write(tree, file)
    engines.docker(docker, "import", str(tmp_path / "rootfs.tar"), "bbox:base")
    token = CancelToken()

    def on_progress(event: Progress) -> None:
        if event.text == "waiting":
            token.cancel()

    spec = initrd.ContainerBuild(dockerfile="FROM bbox:base\nRUN echo waiting; sleep 600\n")
    with initrd.Engine() as engine, pytest.raises(Cancelled):
        engine.build(spec, on_progress=on_progress, cancel=token)
    deadline = time.monotonic() + 300
    while engines.docker(docker, "ps", "-aq").stdout.split():
        assert time.monotonic() < deadline, "the container of the RUN line is still there"
        time.sleep(0.2)


def test_what_docker_saves_is_read_by_both_prefixes(docker: str, served: Served, tmp_path: Path) -> None:
    engines.docker(docker, "pull", served.one_name)
    engines.docker(docker, "tag", served.one_name, "acme/two:2")
    path = tmp_path / "saved.tar"
    engines.docker(docker, "save", "-o", str(path), served.one_name, "acme/two:2")
    identity = json.loads(engines.docker(docker, "inspect", "acme/two:2").stdout)[0]["Id"]
    for prefix in ("docker-archive", "oci"):
        for text in ("", ":acme/two:2", f":{served.one_name}", "@0", f"@{identity}", f"@{identity[7:19]}"):
            assert who(f"{prefix}:{path}{text}") == b"one"


@pytest.mark.weekly
def test_podman_pulls_from_the_registry(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with engines.podman_service(tmp_path, monkeypatch) as podman:
        podman("info")
        seen: list[Progress] = []
        assert who(f"podman:{served.one_name}", on_progress=seen.append) == b"one"
        assert any(event.task.startswith("pull") for event in seen)
        tree = initrd.tree_of(f"podman:{served.many_name}", platform="linux/arm64")
        assert files_of(tree)["who"] == b"arm64"
        assert "whose programs this machine" in tree.warnings()[0]
        with pytest.raises(AconError, match="the registry has no image"):
            initrd.tree_of(f"podman:{served.registry.host}/acme/nothing:1")
        with pytest.raises(AconError, match=r"cannot be reached|which registry"):
            initrd.tree_of("podman:no-such-image")


@pytest.mark.weekly
def test_what_skopeo_and_umoci_write_is_read(served: Served, tmp_path: Path) -> None:
    programs = {name: apt.unpack(name, cache=Cache()).path(f"usr/bin/{name}") for name in ("skopeo", "umoci")}
    if b"not found" in subprocess.run(["ldd", programs["skopeo"]], capture_output=True, check=True).stdout:
        pytest.skip("the libraries of skopeo are missing (podman brings them)")
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def copy(*argv: str) -> None:
        base = [programs["skopeo"], "--policy", "policy.json", "copy", "--quiet", "--src-tls-verify=false"]
        subprocess.run([*base, *argv], check=True, cwd=tmp_path, capture_output=True)

    one, many = (f"docker://{name}" for name in (served.one_name, served.many_name))
    copy(one, "docker-archive:saved.tar:acme/one:1")
    copy(one, "dir:folder")
    copy(one, "--format", "v2s2", "dir:schema2")
    copy(one, "--dest-compress-format", "zstd", "oci:zstd:v1")
    copy("docker-archive:saved.tar", "oci:tagged:v1")
    copy(one, "oci:tagged:v2")
    for name in (
        "docker-archive:saved.tar",
        "docker-archive:folder",
        "docker-archive:schema2",
        "oci:zstd",
        "oci:tagged:v1",
    ):
        prefix, _, path = name.partition(":")
        assert who(f"{prefix}:{tmp_path}/{path}") == b"one"
    assert who(f"oci:{tmp_path}/saved.tar:acme/one:1") == who(f"oci:{tmp_path}/tagged:v2") == b"one"
    copy("--all", many, "oci:all:v1")
    copy("--all", many, "oci-archive:all.tar:v1")
    copy("--all", many, "dir:all-folder")
    for path in ("all", "all.tar", "all-folder"):
        assert who(f"oci:{tmp_path}/{path}", platform="linux/arm64") == b"arm64"
        assert who(f"oci:{tmp_path}/{path}@linux/amd64/v3") == b"v3"
        if of_this_machine().architecture == "amd64":
            assert who(f"oci:{tmp_path}/{path}") == (of_this_machine().variant or "v1").encode()
    (tmp_path / "added").write_text("x")
    for argv in (
        ["config", "--image", "tagged:v1", "--tag", "v3"],
        ["insert", "--image", "tagged:v3", "added", "/added"],
    ):
        subprocess.run([programs["umoci"], *argv], check=True, cwd=tmp_path, capture_output=True)
    assert sorted(files_of(initrd.tree_of(f"oci:{tmp_path}/tagged:v3"))) == ["added", "who"]
    with pytest.raises(InvalidInput, match="contains 3 images"):
        initrd.tree_of(f"oci:{tmp_path}/tagged")


@pytest.mark.weekly
def test_what_containerd_exports_is_read(docker: str, served: Served, tmp_path: Path) -> None:
    """With one platform of several, its index still lists all of them."""
    if shutil.which("ctr") is None:
        pytest.skip("ctr is missing (it comes with containerd)")
    address = docker.removeprefix("unix://").removesuffix("docker.sock") + "exec/containerd/containerd.sock"
    base = ["ctr", "--address", address, "--namespace", "acon-nb-test", "images"]

    def ctr(*argv: str) -> None:
        subprocess.run([*base, *argv], check=True, cwd=tmp_path, capture_output=True)

    ctr("pull", "--plain-http", "--snapshotter", "native", "--all-platforms", served.many_name)
    ctr("export", "--all-platforms", "all.tar", served.many_name)
    ctr("export", "--platform", "linux/arm64", "arm64.tar", served.many_name)
    for prefix in ("docker-archive", "oci"):
        for name in ("", ":acme/many:1", f":{served.many_name}"):
            assert who(f"{prefix}:{tmp_path}/all.tar{name}", platform="linux/amd64/v2") == b"v2"
            assert who(f"{prefix}:{tmp_path}/arm64.tar{name}", platform="linux/arm64") == b"arm64"
        with pytest.raises(InvalidInput, match="lists an image for linux/amd64/v2, but does not contain it"):
            initrd.tree_of(f"{prefix}:{tmp_path}/arm64.tar", platform="linux/amd64/v2")
