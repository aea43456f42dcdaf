"""Images of a real Docker Engine: looked up, exported, built; nothing of ours is left in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acon_nb import initrd, vm
from acon_nb.errors import AconError, Cancelled, InvalidInput
from acon_nb.initrd import guide
from acon_nb.progress import CancelToken, Progress
from tests.system import engines
from tests.system.engines import docker
from tests.unit import stacks as by_line
from tests.unit import test_image_layers as cases

pytestmark = pytest.mark.system
ACON_NB = [sys.executable, "-m", "acon_nb.cli", "initrd"]


@pytest.fixture(scope="module")
def engine_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engines.dockerd(tmp_path_factory.mktemp("engine")) as url:
        yield url


@pytest.fixture(scope="module")
def images(engine_host, tmp_path_factory) -> str:
    """`bbox:uclibc` is busybox-static, imported; `bbox:layers` a second layer that removes and adds."""
    folder = tmp_path_factory.mktemp("images")
    tree = initrd.tree_of("busybox")
    tree.add_file("etc/gone", b"x")
    tree.add_file("opt/old/x", b"x")
    with (folder / "rootfs.tar").open("wb") as file:
        from acon_nb.archive import tar

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


def test_an_exported_image_equals_the_imported_tree(engine, images):
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


# Where dockerd's vfs differs: it follows links of the layers below, whiteouts hide what the layer has listed before, a
# folder that no member names has the mode 0600, and it refuses what would need another order, and repeated names
UNLIKE_VFS = {
    *("whiteout through a link", "whiteout through a link of the same layer, listed later", "whiteout listed last"),
    *("a new folder and a whiteout of the old one", "a new file and a whiteout of the old one", "opaque root"),
    *("a file below a link, without the folder", "a file below a file, without the folder", "whiteout of nothing"),
    *("marks of aufs", "whiteout in a folder that the layer removes", "opaque keeps the layer's own subfolder"),
    *("a hard link listed before its file", "a chain listed backwards", "a hard link to itself", "to itself"),
    *("a hard link that is replaced before its file comes", "a hard link that is replaced"),
    *(
        "a repeated file is another file",
        "a hard link to a repeated file",
        "a file replaced by a link to its other name",
    ),
}


def test_layers_are_what_dockerd_unpacks(images, tmp_path):
    stacks = {name: [cases.LOWER, upper] for name, (upper, _) in cases.STACKS.items()}
    stacks |= {name: [lines] for name, (lines, *_) in cases.HARD_LINKS.items()}
    stacks |= {name: layers for name, (layers, *_) in cases.ACROSS.items()}
    layers: list[list[str]] = [[], [], []]
    names = {}
    for number, (name, stack) in enumerate(stacks.items()):
        if name not in UNLIKE_VFS:
            names[f"c{number}"] = name
            layers[0].append(f"c{number}/")
            for depth, lines in enumerate(stack):
                layers[depth] += by_line.below(f"c{number}", lines)
    saved = by_line.saved(tmp_path / "saved.tar", layers, "layers:1")
    docker(images, "load", "-i", str(saved))
    container = docker(images, "create", "layers:1", "x").stdout.decode().strip()
    try:
        (tmp_path / "exported.tar").write_bytes(docker(images, "export", container).stdout)
    finally:
        docker(images, "rm", container)
    expected, ours = (
        initrd.tree_of(source).only(names) for source in (f"tar:{tmp_path}/exported.tar", f"docker-archive:{saved}")
    )
    rows = [row for row in initrd.diff_trees(expected, ours) if row.what != "time"]
    assert [(names[row.name[1:].partition("/")[0].rstrip("'")], str(row)) for row in rows] == []


def test_a_built_image_has_proxy_and_whiteouts(engine, images, tmp_path):
    (tmp_path / "hello").write_text("from the context\n")
    text = (
        "FROM bbox:uclibc\nARG https_proxy\nCOPY hello /etc/hello\n"
        "RUN rm /etc/gone; rm -r /opt/old; mkdir /opt/old; echo $https_proxy > /etc/proxy\n"
    )
    lines: list[str] = []
    spec = initrd.ContainerBuild(
        dockerfile=text, tag="bbox:layers", context=tmp_path, https_proxy="http://proxy.invalid:3128"
    )
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


def test_an_initrd_is_built_from_a_dockerfile_by_one_command(images, tmp_path):
    (tmp_path / "hello").write_text("from the context\n")
    (tmp_path / "Dockerfile").write_text(
        'FROM bbox:uclibc\nARG WHO\nARG FROM_ENV\nCOPY hello /etc/hello\nRUN echo "$WHO $FROM_ENV" > /etc/who\n'
    )
    env = {**os.environ, "DOCKER_HOST": images, "FROM_ENV": "of env"}
    target = tmp_path / "made.cpio"
    argv = [*ACON_NB, "from", "--build", tmp_path, "--build-arg", "WHO=me", "--build-arg", "FROM_ENV"]
    done = subprocess.run([*argv, "--network", "host", "-o", target], env=env, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert b"Step 5/5 : RUN echo" in done.stderr
    tree = initrd.load(target)
    assert tree["etc/who"].content.read() == b"me of env\n"
    assert tree["etc/hello"].content.read() == b"from the context\n"
    other = tmp_path / "other"
    other.write_text("FROM bbox:uclibc\nRUN seq 100; echo last words; exit 7\n")
    done = subprocess.run([*argv, "-f", other, "-o", tmp_path / "x.cpio"], env=env, capture_output=True, timeout=600)
    assert done.returncode == 1
    error = done.stderr.partition(b"acon-nb: building")[2]
    assert b"  | Step 2/2 : RUN seq 100; echo last words; exit 7\n" in error
    assert b"  | last words\n" in error
    assert not (tmp_path / "x.cpio").exists()
    assert left(images) == []


def test_a_failed_build_reports_the_reason_and_leaves_no_container(engine, images):
    with pytest.raises(AconError, match="bbox:broken") as caught:
        engine.build(initrd.ContainerBuild(dockerfile="FROM bbox:uclibc\nRUN echo oh no; exit 7\n", tag="bbox:broken"))
    assert "7" in str(caught.value)
    assert any("oh no" in line for line in caught.value.details)
    assert left(images) == []


def test_a_missing_image_is_named(engine):
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
    child.communicate(timeout=600)
    assert [path for path in target.parent.iterdir() if path.name != target.name] == []
    assert not (tmp_path / "cache/acon_nb/spool").exists() or not any((tmp_path / "cache/acon_nb/spool").iterdir())
    assert left(images) == []


def test_tar_container_of_the_command_line_matches_the_guide(images, tmp_path):
    env = {**os.environ, "DOCKER_HOST": images}
    done = subprocess.run([*ACON_NB, "tar", "bbox:uclibc", "bin", "etc"], env=env, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    subprocess.run(["tar", "-x", "-C", tmp_path], input=done.stdout, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "etc"]
    assert (tmp_path / "bin/busybox").stat().st_mode & 0o777 == 0o755
    done = subprocess.run([*ACON_NB, "tar", "bbox:uclibc", "nowhere"], env=env, capture_output=True, timeout=600)
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
    subprocess.run(["mkswap", disk], check=True, capture_output=True)
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


@pytest.mark.weekly
def test_the_guides_alpine_example_has_swap_ext4_and_ssh(images, guide_kernel, host, tmp_path):
    """Its steps 1 to 6 as it gives them; `alpine:latest` has busybox and Debian's packages: RUN reaches no mirror."""
    from acon_nb.archive import tar

    with (tmp_path / "rootfs.tar").open("wb") as file:
        tar.write(initrd.tree_of("busybox+dmsetup+e2fsprogs+openssh-server"), file)
    docker(images, "import", str(tmp_path / "rootfs.tar"), "alpine:latest")
    env = {**os.environ, "DOCKER_HOST": images}
    run = {"cwd": tmp_path, "check": True, "capture_output": True, "timeout": 120}
    dockerfile = b"FROM alpine:latest\nRUN dmsetup --version; mke2fs -V; mkdir -p /var/empty\n"
    docker(images, "build", "-t", "a-initrd", "-f", "-", ".", input=dockerfile, cwd=tmp_path)
    subprocess.run([*ACON_NB, "gen", "alpine", "a-initrd"], env={**env, "F": "1"}, **run)
    with (tmp_path / "alpine/etc/fstab").open("a") as file:
        file.write("/dev/mapper/vdb@+ae /ext4 ext4 defaults 0 0\n")
    subprocess.run(["ssh-keygen", "-t", "ecdsa", "-b", "521", "-f", "id-test", "-N", ""], **run)
    (tmp_path / "alpine/root/.ssh").mkdir(parents=True)
    (tmp_path / "alpine/root/.ssh/authorized_keys").write_bytes((tmp_path / "id-test.pub").read_bytes())
    subprocess.run([*ACON_NB, "create", "alpine"], env={**env, "C": "xz"}, **run)
    for size in (256, 64):
        with (tmp_path / f"{size}m.raw").open("wb") as file:
            file.truncate(size << 20)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = vm.VmSpec(
        kernel=guide_kernel.image,
        initrd=tmp_path / "initrd-alpine.cpio.xz",
        append="ip=dhcp console=ttyS0 panic=-1 quiet",
        disks=tuple(vm.DiskSpec(path=tmp_path / f"{size}m.raw") for size in (256, 64)),
        network=True,
        forwards=(vm.Forward(host_port=port, guest_port=22),),
        timeout_s=300,
    )
    with vm.Machine(spec, host=host) as machine:
        machine.start()
        answer = machine.ssh("free -h; mount -text4", key=tmp_path / "id-test", timeout_s=200)
    assert "256.0M" in answer.partition("Swap:")[2]
    assert "/dev/mapper/vdb@+ae on /ext4 type ext4" in answer


def test_the_same_image_and_edits_give_the_same_bytes(engine, tmp_path):
    sums = []
    for name in ("one", "two"):
        made = guide.gen_initrd(tmp_path / name, "bbox:uclibc", variables=guide.Variables(time="."))
        sums.append(made.image.sha256)
    assert sums[0] == sums[1]


@pytest.fixture
def podman(tmp_path, monkeypatch) -> Iterator[Callable[..., bytes]]:
    """Podman with `bbox:uclibc`."""
    from acon_nb.archive import tar

    with (tmp_path / "rootfs.tar").open("wb") as file:
        tar.write(initrd.tree_of("busybox"), file)
    with engines.podman_service(tmp_path, monkeypatch) as run:
        run("import", str(tmp_path / "rootfs.tar"), "bbox:uclibc")
        yield run


def test_podman_supports_the_same_api(podman):
    tree = initrd.tree_of("podman:bbox:uclibc", pull="never")
    assert [row for row in initrd.diff_trees(initrd.tree_of("busybox"), tree) if row.what != "time"] == []
    with initrd.Engine("podman") as engine:
        engine.build(initrd.ContainerBuild(dockerfile="FROM localhost/bbox:uclibc\nRUN rm /bin/vi\n", tag="bbox:two"))
    assert "bin/vi" not in initrd.tree_of("podman:bbox:two", pull="never")
    assert podman("ps", "-aq") == b""


@pytest.mark.weekly
def test_builds_of_podman_need_no_tag_and_report_the_step_that_fails(podman):
    spec = initrd.ContainerBuild(dockerfile="FROM localhost/bbox:uclibc\nRUN rm /bin/ls\n")
    broken = initrd.ContainerBuild(dockerfile="FROM localhost/bbox:uclibc\nRUN echo oh no; exit 7\n")
    with initrd.Engine("podman") as engine:
        tree = engine.built_tree(spec)
        assert "bin/ls" not in tree
        assert "bin/vi" in tree
        with pytest.raises(AconError) as caught:
            engine.build(broken)
    assert any("oh no" in line for line in caught.value.details)
    assert "registry" not in str(caught.value)
    assert podman("ps", "-aq") == b""


@pytest.mark.weekly
def test_all_formats_of_podman_save_give_the_tree_of_its_api(podman, tmp_path):
    expected = initrd.tree_of("podman:bbox:uclibc", pull="never")
    for form in ("docker-archive", "oci-archive", "oci-dir", "docker-dir"):
        podman("save", "--format", form, "-o", str(tmp_path / form), "bbox:uclibc")
        prefix = "oci" if form.startswith("oci") else "docker-archive"
        assert initrd.diff_trees(expected, initrd.tree_of(f"{prefix}:{tmp_path / form}")) == []
    for name in ("bbox:uclibc", "localhost/bbox:uclibc"):
        assert initrd.tree_of(f"oci:{tmp_path}/oci-archive:{name}")
