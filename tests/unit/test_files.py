"""What --put, --get and --share take, the device behind a share, and what the agent does itself, run on this host."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb import agent, host, vm
from acon_nb.bootcheck import kernel as bootcheck
from acon_nb.cli import main
from acon_nb.errors import InvalidInput, MissingRequirement
from acon_nb.initrd.check import Kernel
from acon_nb.td import preflight
from acon_nb.vm.commands import Agent, GuestCommand
from acon_nb.vm.spec import identifying_values
from tests.unit import bzimages

HOST = vm.Capabilities(qemu=Path("/usr/bin/qemu-system-x86_64"))


@pytest.fixture
def spec(tmp_path: Path) -> vm.VmSpec:
    return vm.VmSpec(kernel=bzimages.write(tmp_path / "k"))


@pytest.mark.parametrize(
    ("text", "guest", "writable"),
    [("{}:/mnt", "/mnt", False), ("{}:/mnt:ro", "/mnt", False), ("{}:/a/b:rw", "/a/b", True)],
)
def test_a_share_is_read_only_unless_rw_is_chosen(
    tmp_path: Path, spec: vm.VmSpec, text: str, guest: str, writable: bool
) -> None:
    folder = tmp_path / "a,b:c"
    folder.mkdir()
    share = vm.parse_share(text.format(folder))
    assert (share.host, share.guest, share.writable) == (folder, guest, writable)
    argv = vm.argument_list(vm.VmSpec(**{**vars(spec), "shares": (share,)}), HOST)
    value = argv[argv.index("-fsdev") + 1]
    assert f"path={tmp_path}/a,,b:c," in value
    assert ("readonly=on" in value) is not writable
    assert any(word.startswith("virtio-9p-pci") and "mount_tag=acon.share0" in word for word in argv)


@pytest.mark.parametrize(
    "text", ["", "/tmp", ":/mnt", "/tmp:", "/tmp:mnt", "/tmp:/", "/no/such:/mnt", "/etc/passwd:/m"]
)
def test_what_is_no_share_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^share="):
        vm.parse_share(text)


def test_one_place_has_one_share(spec: vm.VmSpec, tmp_path: Path) -> None:
    shares = (vm.parse_share(f"{tmp_path}:/mnt"), vm.parse_share(f"{tmp_path}:/mnt/:rw"))
    with pytest.raises(InvalidInput, match="is given twice"):
        vm.VmSpec(**{**vars(spec), "shares": shares})


def test_a_spec_without_shares_keeps_its_hash(spec: vm.VmSpec, tmp_path: Path) -> None:
    assert "shares" not in identifying_values(spec)
    shared = vm.VmSpec(**{**vars(spec), "shares": (vm.parse_share(f"{tmp_path}:/mnt"),)})
    assert "shares" in identifying_values(shared)


def test_a_qemu_and_a_kernel_without_9p_are_refused_by_name(
    spec: vm.VmSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = vm.VmSpec(**{**vars(spec), "shares": (vm.parse_share(f"{tmp_path}:/mnt"),)})
    options = {"NET_9P_VIRTIO": "y", "9P_FS": "n"}
    known = Kernel(options=options, complete=True, release="6", image_bytes=None)
    monkeypatch.setattr(bootcheck, "read", lambda path: known)
    info = host.QemuInfo(
        path=Path("/q"),
        version=(7, 2, 0),
        package="",
        accelerators=(),
        confidential_types=(),
        virtio=("virtio-9p-device",),
    )
    monkeypatch.setattr(host, "probe_qemu", lambda: info)
    (error,) = preflight.refusals(shared)
    assert "the kernel has no CONFIG_9P_FS" in str(error)
    assert "NET_9P_VIRTIO," not in str(error)
    monkeypatch.setattr(host, "probe_qemu", lambda: host.QemuInfo(**{**vars(info), "virtio": ("virtio-net-device",)}))
    (error,) = preflight.refusals(shared)
    assert isinstance(error, MissingRequirement)
    assert "virtio-9p in this QEMU" in str(error)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--put", "file"), ("--put", "/no/such:/tmp/"), ("--put", "/etc:/tmp/"), ("--put", "/etc/passwd:tmp"),
        ("--get", "name"), ("--get", "/tmp/"), ("--get", "/"), ("--share", "/tmp"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_copied_is_refused_before_anything_starts(option: str, text: str) -> None:
    result = CliRunner().invoke(main, ["run", option, text, "k"])
    assert result.exit_code == 2, result.output
    assert f"acon-nb: {option[2:]}=" in result.stderr


def test_the_words_of_a_command_and_how_it_runs_are_one_value() -> None:
    command = GuestCommand(argv=["a"], timeout_s=3.0)
    assert GuestCommand.of(command, stdin=b"x").timeout_s == 3.0
    with pytest.raises(InvalidInput):
        GuestCommand(argv=[])
    with pytest.raises(TypeError):
        Agent().run(["x"], no_such=1)


class Here:
    """The agent's own commands run in a process of this host, as in the guest: through its protocol."""

    def __init__(self, program: Path, root: Path) -> None:
        self.program, self.root = program, root
        self.spec = None

    def execute(self, command: GuestCommand | list[str], **fields: object) -> object:
        wanted = GuestCommand.of(command, **fields)
        ours, theirs = socket.socketpair()
        process = subprocess.Popen([self.program, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=self.root)
        theirs.close()
        talk = Agent()
        talk.connect(ours)
        try:
            return talk.run(wanted)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing")
    folder = tmp_path_factory.mktemp("agent")
    source = Path(agent.__file__).parents[1] / "guest/src/exec_agent.c"
    harness = folder / "harness.c"
    harness.write_text(
        f'#define main agent_main\n#include "{source}"\n#undef main\n'
        "int main(int argc, char **argv) { if (argc != 2) return 2;"
        " port = atoi(argv[1]); fcntl(port, F_SETFL, O_NONBLOCK);"
        " signal(SIGPIPE, SIG_IGN); signal(SIGCHLD, on_child); if (pipe2(child_pipe, O_CLOEXEC | O_NONBLOCK)) return 3;"
        " serve(); }\n"
    )
    subprocess.run(["gcc", "-std=c11", "-O1", "-o", folder / "harness", harness], check=True)
    return Here(folder / "harness", folder)


@pytest.mark.parametrize("size", [0, 1, 65536, 1_500_000])
def test_a_file_goes_in_and_comes_out_whole(here: Here, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    source.chmod(0o751)
    agent.put(here, source, f"{tmp_path}/new/folder/copy")
    copy = tmp_path / "new/folder/copy"
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_mode & 0o7777 == 0o751
    agent.put(here, source, f"{tmp_path}/new/")
    assert (tmp_path / "new/source").read_bytes() == source.read_bytes()
    agent.get(here, str(copy), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_what_cannot_be_copied_leaves_nothing_and_says_why(here: Here, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("old")
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(Exception, match=reason):
            agent.get(here, str(path), kept)
    assert kept.read_text() == "old"
    with pytest.raises(Exception, match="Not a directory"):
        agent.put(here, kept, f"{kept}/below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


def test_a_share_without_9p_says_what_the_kernel_needs(here: Here, tmp_path: Path) -> None:
    here.spec = type("Spec", (), {"shares": (vm.Share(host=tmp_path, guest=str(tmp_path / "mnt")),)})()
    with pytest.raises(Exception, match="is not shared at") as caught:
        agent.mount_shares(here)
    assert "No such device" in str(caught.value) or "Operation not permitted" in str(caught.value)
