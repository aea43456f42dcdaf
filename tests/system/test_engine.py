"""Images of a real Docker Engine: looked up, exported, built; nothing of ours is left in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acon_nb import initrd, vm
from acon_nb.errors import AconError, Cancelled, InvalidInput
from acon_nb.initrd import guide
from acon_nb.progress import CancelToken, Progress

pytestmark = pytest.mark.system
ACON_NB = [sys.executable, "-m", "acon_nb.cli", "initrd"]


@pytest.fixture(scope="module")
def engine_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dockerd of our own on a private socket: no network, no storage but a folder that goes away."""
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    if shutil.which("dockerd") is None:
        pytest.skip("dockerd is missing (tools/setup.sh test installs docker.io)")
    folder = tmp_path_factory.mktemp("engine")
    short = Path("/run") / f"acon-nb-test-{os.getpid()}"  # a socket's path holds 107 bytes
    short.mkdir(mode=0o700)
    host = f"unix://{short}/docker.sock"
    argv = ["dockerd", "--storage-driver=vfs", "--iptables=false", "--bridge=none", f"--host={host}"]
    argv += [f"--data-root={folder}/data", f"--exec-root={short}/exec", f"--pidfile={short}/pid"]
    from acon_nb import process

    with (folder / "log").open("wb") as log, process.Child(argv, stdout=log, stderr=log) as daemon:
        deadline = time.monotonic() + 60
        while docker(host, "info", check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                last = (folder / "log").read_text(errors="replace").splitlines()[-5:]
                pytest.skip("dockerd does not start here: " + " | ".join(last))
            time.sleep(0.2)
        yield host
    subprocess.run(["umount", "-R", "--lazy", folder / "data"], check=False, capture_output=True)
    shutil.rmtree(short, ignore_errors=True)


def docker(host: str, *argv: str, check: bool = True, **fields) -> subprocess.CompletedProcess[bytes]:
    command = ["docker", "--host", host, *argv]
    return subprocess.run(command, check=check, capture_output=True, timeout=120, **fields)


@pytest.fixture(scope="module")
def images(engine_host, tmp_path_factory) -> str:
    """`bbox:uclibc` is busybox-static, imported; `bbox:layers` a second layer that removes and adds."""
    folder = tmp_path_factory.mktemp("images")
    tree = initrd.tree_of("busybox")
    tree.add_file("etc/gone", b"x")
    tree.add_file("opt/old/x", b"x")
    with (folder / "rootfs.tar").open("wb") as file:
        from acon_nb.initrd import tar

        tar.write(tree, file)
    docker(engine_host, "import", str(folder / "rootfs.tar"), "bbox:uclibc")
    return engine_host


@pytest.fixture
def engine(images, monkeypatch) -> Iterator[initrd.Engine]:
    monkeypatch.setenv("DOCKER_HOST", images)
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    with initrd.Engine() as found:
        yield found


def left(host: str) -> list[bytes]:
    return docker(host, "ps", "-aq").stdout.split()


def test_an_image_of_the_engine_is_the_tree_that_was_imported(engine, images):
    seen: list[Progress] = []
    tree = initrd.tree_of("docker:bbox:uclibc", on_progress=seen.append)
    expected = initrd.tree_of("busybox")
    expected.add_file("etc/gone", b"x")
    expected.add_file("opt/old/x", b"x")
    rows = [row for row in initrd.diff_trees(expected, tree) if row.what != "time"]
    assert rows == []
    assert tree["bin/busybox"].content.read() == expected["bin/busybox"].content.read()
    assert any(event.task.startswith("export") and event.done == 1 for event in seen)
    assert initrd.diff_trees(tree, initrd.tree_of("bbox:uclibc")) == []  # a plain name means the engine
    assert left(images) == []


def test_an_image_that_is_built_has_its_proxy_and_its_whiteouts(engine, images, tmp_path):
    (tmp_path / "hello").write_text("from the context\n")
    text = (
        "FROM bbox:uclibc\nARG https_proxy\nCOPY hello /etc/hello\n"
        "RUN rm /etc/gone; rm -r /opt/old; mkdir /opt/old; echo $https_proxy > /etc/proxy\n"
    )
    lines: list[str] = []
    spec = initrd.Build(dockerfile=text, tag="bbox:layers", context=tmp_path, https_proxy="http://proxy.invalid:3128")
    engine.build(spec, on_progress=lambda event: lines.append(event.text))
    assert any("COPY hello" in line for line in lines)
    tree = initrd.tree_of("bbox:layers")
    assert tree["etc/hello"].content.read() == b"from the context\n"
    assert tree["etc/proxy"].content.read() == b"http://proxy.invalid:3128\n"
    assert "etc/gone" not in tree
    assert "opt/old" in tree
    assert "opt/old/x" not in tree
    assert left(images) == []
    saved = tmp_path / "saved.tar"
    docker(images, "save", "bbox:layers", "-o", str(saved))
    assert initrd.diff_trees(tree, initrd.tree_of(f"docker-archive:{saved}")) == []


def test_a_build_that_fails_says_why_and_leaves_no_container(engine, images):
    with pytest.raises(AconError, match="bbox:broken") as caught:
        engine.build(initrd.Build(dockerfile="FROM bbox:uclibc\nRUN echo oh no; exit 7\n", tag="bbox:broken"))
    assert "7" in str(caught.value)
    assert any("oh no" in line for line in caught.value.details)
    assert left(images) == []


def test_an_image_that_is_not_there_is_named(engine):
    with pytest.raises(InvalidInput, match="no-such-image") as caught:
        initrd.tree_of("docker:no-such-image", pull="never")
    assert "docker pull no-such-image" in caught.value.hint
    with pytest.raises(AconError, match="pulling no-such-image failed"):  # there is no registry to be reached
        initrd.tree_of("no-such-image")


def test_a_cancelled_export_ends(engine):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        initrd.tree_of("bbox:uclibc", cancel=token)


def test_a_killed_export_leaves_nothing(images, tmp_path):
    env = {**os.environ, "DOCKER_HOST": images, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    target = tmp_path / "out/x.cpio.xz"
    target.parent.mkdir()
    child = subprocess.Popen([*ACON_NB, "from", "bbox:uclibc", "-o", target], env=env, stderr=subprocess.PIPE)
    threading.Timer(0.8, lambda: child.send_signal(signal.SIGKILL)).start()
    child.communicate(timeout=60)
    assert [path for path in target.parent.iterdir() if path.name != target.name] == []
    assert not (tmp_path / "cache/acon_nb/spool").exists() or not any((tmp_path / "cache/acon_nb/spool").iterdir())
    assert left(images) == []


def test_tar_container_of_the_command_line_is_what_the_guide_says(images, tmp_path):
    env = {**os.environ, "DOCKER_HOST": images}
    done = subprocess.run([*ACON_NB, "tar", "bbox:uclibc", "bin", "etc"], env=env, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    subprocess.run(["tar", "-x", "-C", tmp_path], input=done.stdout, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "etc"]
    assert (tmp_path / "bin/busybox").stat().st_mode & 0o777 == 0o755
    done = subprocess.run([*ACON_NB, "tar", "bbox:uclibc", "nowhere"], env=env, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"'nowhere' is not in the image" in done.stderr


def test_the_guides_busybox_example_boots_with_its_swap_line(images, guide_kernel, host, tmp_path):
    """gen_initrd bbox busybox:uclibc; echo ... >> bbox/etc/fstab; C=xz create_initrd bbox; free shows the swap."""
    env = {**os.environ, "DOCKER_HOST": images, "C": "xz", "T": "."}
    run = {"cwd": tmp_path, "env": env, "check": True, "capture_output": True, "timeout": 120}
    subprocess.run([*ACON_NB, "gen", "bbox", "bbox:uclibc"], **run)
    with (tmp_path / "bbox/etc/fstab").open("a") as file:
        file.write("/dev/vda none swap sw,discard 0 0\n")
    script = tmp_path / "bbox/test/run"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\nport=/dev/$(basename $(dirname $(grep -l acon.results /sys/class/virtio-ports/*/name)))\n"
        'free | awk \'/Swap/ { print "{\\"swap\\":" $2 "}" }\' > $port\npoweroff -f; sleep 9\n'
    )
    script.chmod(0o755)
    made = json.loads(subprocess.run([*ACON_NB, "create", "bbox", "--json"], **run).stdout)
    assert made["path"] == str(tmp_path / "initrd-bbox.cpio.xz")
    disk = tmp_path / "64m.raw"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run([shutil.which("mkswap") or "/usr/sbin/mkswap", disk], check=True, capture_output=True)
    spec = vm.VmSpec(
        kernel=guide_kernel.image,
        initrd=Path(made["path"]),
        append="console=ttyS0 panic=-1 quiet INIT=/test/run",
        disks=(vm.DiskSpec(path=disk),),
        memory_bytes=256 << 20,
    )
    # The default line, encrypted swap on the same disk, is reported as failed: busybox has no dmsetup
    (message,) = [one for one in vm.boot(spec, host=host).check().messages if "swap" in one.data]
    assert message.data["swap"] >= 65_000


def test_the_same_image_and_edits_give_the_same_bytes(engine, tmp_path):
    sums = []
    for name in ("one", "two"):
        made = guide.gen_initrd(tmp_path / name, "bbox:uclibc", variables=guide.Variables(time="."))
        sums.append(made.image.sha256)
    assert sums[0] == sums[1]


def test_podman_speaks_the_same_api(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("a private Podman service is started as root here")
    if shutil.which("podman") is None:
        pytest.skip("podman is missing (tools/setup.sh test installs it)")
    from acon_nb import process
    from acon_nb.initrd import tar

    expected = initrd.tree_of("busybox")
    with (tmp_path / "rootfs.tar").open("wb") as file:
        tar.write(expected, file)
    short = Path("/run") / f"acon-nb-podman-{os.getpid()}"
    short.mkdir(mode=0o700)
    base = ["podman", "--root", str(tmp_path / "root"), "--runroot", str(short), "--storage-driver", "vfs"]
    local = dict(os.environ)  # with CONTAINER_HOST the command would be a client
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{short}/podman.sock")
    try:
        argv = [*base, "import", str(tmp_path / "rootfs.tar"), "bbox:uclibc"]
        imported = subprocess.run(argv, env=local, capture_output=True, timeout=120)
        if imported.returncode:
            pytest.skip(f"podman does not work here: {imported.stderr.decode(errors='replace')[-300:]}")
        argv = [*base, "system", "service", "--time=0", f"unix://{short}/podman.sock"]
        with process.Child(argv, env=local) as service:
            while not (short / "podman.sock").exists() and service.poll() is None:
                time.sleep(0.1)
            tree = initrd.tree_of("podman:bbox:uclibc", pull="never")
            assert [row for row in initrd.diff_trees(expected, tree) if row.what != "time"] == []
            with initrd.Engine("podman") as podman:
                podman.build(initrd.Build(dockerfile="FROM localhost/bbox:uclibc\nRUN rm /bin/vi\n", tag="bbox:two"))
            assert "bin/vi" not in initrd.tree_of("podman:bbox:two", pull="never")
            listed = subprocess.run([*base, "ps", "-aq"], env=local, capture_output=True, timeout=60, check=True)
            assert listed.stdout == b""
    finally:
        shutil.rmtree(short, ignore_errors=True)
