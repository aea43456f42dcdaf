"""The same launches on QEMU of this host, 10 and 11: the same ends, no warning, and TDs up to the check of KVM."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb import agent, initrd, kernel, vm
from acon_nb.boot import BootCell
from acon_nb.cache import Cache
from acon_nb.errors import CommandTimeout
from acon_nb.study.functions import starts_of
from tests.system.debian_packages import SUITES, host_of
from tests.system.test_counting import initrd_of

pytestmark = [pytest.mark.system, pytest.mark.weekly]
LETTERS = {"p": vm.End.POWERED_OFF, "r": vm.End.RESET, "h": vm.End.HANG}
# What QEMU says of a TD where KVM is missing, or is not a TDX machine's: all options before were accepted
KVM_CHECKS = ("Could not access KVM kernel module", "TDX", "tdx", "KVM is not supported", "failed to initialize kvm")


@pytest.fixture(scope="module", params=["host", *SUITES])
def capabilities(request: pytest.FixtureRequest) -> vm.Capabilities:
    if request.param == "host":
        return replace(vm.capabilities(), kvm=False)
    return host_of(request.param)


@pytest.mark.parametrize("interactive", [False, True])
@pytest.mark.parametrize("letter", LETTERS)
def test_ends_are_the_same_without_a_warning(
    capabilities: vm.Capabilities, tiny_kernel: Path, letter: str, interactive: bool
) -> None:
    spec = vm.VmSpec(
        kernel=tiny_kernel, append=letter, memory_bytes=64 << 20, network=True, balloon=True, memory_backend="memfd",
        timeout_s=4 if letter == "h" else 60,
    )  # fmt: skip
    with vm.Machine(spec, host=capabilities, interactive=interactive) as machine:
        machine.window.set(24, 80)
        outcome = machine.wait()
    assert outcome.end is LETTERS[letter]
    assert outcome.stderr == ()


@pytest.fixture(scope="module")
def shell(store: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initrd of busybox with our /init."""
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    return initrd.create(tree, tmp_path_factory.mktemp("shell") / "initrd.cpio").path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two to share, one of whose names needs quoting."""
    place = tmp_path_factory.mktemp("shared")
    (place / "to read, only").mkdir()
    (place / "to write").mkdir()
    (place / "to read, only/file").write_text("of the host\n")
    return place


@pytest.fixture(scope="module")
def guest(
    capabilities: vm.Capabilities, sharing_kernel: kernel.KernelImage, shell: Path, folders: Path
) -> Iterator[vm.Machine]:
    """A guest with an agent and two shares; at its end QEMU must have said nothing."""
    shares = (
        vm.Share(host=folders / "to read, only", guest="/mnt/read"),
        vm.Share(host=folders / "to write", guest="/mnt/write", writable=True),
    )
    spec = vm.VmSpec(
        kernel=sharing_kernel.image, initrd=shell, memory_bytes=256 << 20, timeout_s=600, shares=shares, network=True
    )
    with vm.Machine(agent.prepare(spec), host=capabilities, interactive=True, agent=True) as machine:
        machine.start()
        agent.await_ready(machine)
        agent.mount_shares(machine)
        yield machine
        outcome = machine.stop()
    assert (outcome.end, outcome.stderr) == (vm.End.POWERED_OFF, ())


def test_commands_run_with_their_streams_and_status(guest: vm.Machine) -> None:
    done = guest.execute(["sh", "-c", "cat; echo err >&2; exit 22"], stdin=b"here\n")
    assert (done.status, done.stdout, done.stderr) == (22, b"here\n", b"err\n")
    assert guest.execute(["/no/such"]).status == 127
    data = os.urandom(1 << 20)
    assert guest.execute(["sha256sum"], stdin=data).stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_signals_and_a_time_limit_end_commands(guest: vm.Machine) -> None:
    done = guest.execute(["sh", "-c", "kill -TERM $$"])
    assert (done.status, done.signal) == (143, signal.SIGTERM)
    with pytest.raises(CommandTimeout):
        guest.execute(["sleep", "777"], timeout_s=1)
    assert b"777" not in guest.execute(["sh", "-c", "sleep 0.5; ps | grep -v grep | grep 777"]).stdout


def test_shares_are_read_and_written_as_asked(guest: vm.Machine, folders: Path) -> None:
    done = guest.execute(["sh", "-c", "cat /mnt/read/file; echo guest >/mnt/write/new; echo x >/mnt/read/new"])
    assert (done.status, done.stdout) == (1, b"of the host\n")
    assert b"Read-only file system" in done.stderr
    assert (folders / "to write/new").read_text() == "guest\n"
    assert not (folders / "to read, only/new").exists()


def test_no_qemu_passes_a_size_of_the_console_on(guest: vm.Machine) -> None:
    """As vm/window.py says; one that does gets it there, and this list of versions ends."""
    names = {one["name"] for one in guest.qmp("query-commands")}
    assert ("chardev-window-size-changed" in names) is (guest.host.version >= (11, 2, 0))


def test_a_guest_is_listed_attached_and_killed_by_name(
    capabilities: vm.Capabilities, tiny_kernel: Path, tmp_path: Path
) -> None:
    (tmp_path / "vmlinuz").symlink_to(tiny_kernel)
    env = {
        **os.environ, "ACON_NB_QEMU": str(capabilities.qemu), "XDG_CACHE_HOME": str(tmp_path / "cache"), "RD": "-",
        "BIOS": "-", "M": "64m", "KA": "console=ttyS0", "PYTHONPATH": str(Path.cwd()),
    }  # fmt: skip

    def call(*words: str, given: str = "") -> str:
        argv = [sys.executable, "-m", "acon_nb.cli", *words]
        done = subprocess.run(
            argv, cwd=tmp_path, env=env, input=given, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr.lower()
        return done.stdout

    for name in ("typed", "killed"):
        call("run", "--accelerator", "tcg", "--name", name, "--detach", "vmlinuz", "-append", "e")
    try:
        assert {row["name"] for row in json.loads(call("ps", "--json"))["guests"]} == {"typed", "killed"}
        deadline = time.monotonic() + 60
        while "READY" not in call("logs", "typed"):
            assert time.monotonic() < deadline
        text = call("attach", "typed", given="abcq")
        assert "READY" in text
        assert "abc" in text
    finally:
        for name in {row["name"] for row in json.loads(call("ps", "--json"))["guests"]}:
            call("kill", name)
    ends = {row["name"]: row["end"] for row in json.loads(call("ps", "--all", "--json"))["guests"]}
    assert ends == {"typed": "powered_off", "killed": "killed"}


@pytest.fixture(scope="module")
def loops(guide_kernel: kernel.KernelImage, tmp_path_factory: pytest.TempPathFactory) -> vm.VmSpec:
    """A guest on the instruction clock that runs two loops, and powers off."""
    cell = BootCell(
        name="loops", kernel=guide_kernel.image, initrd=initrd_of("loops", tmp_path_factory.mktemp("loops")),
        clock=vm.Clock.INSTRUCTIONS,
    )  # fmt: skip
    append = cell.spec().append.replace("rdinit=/acon/init ", "")
    return replace(cell.spec(), initrd=cell.initrd, append=append)


@pytest.fixture(scope="module")
def counts() -> dict[str, list[vm.Snapshot]]:
    """What each version counted."""
    return {}


def test_the_instruction_clock_repeats(
    capabilities: vm.Capabilities, loops: vm.VmSpec, counts: dict[str, list[vm.Snapshot]]
) -> None:
    runs = []
    for _ in range(2):
        with vm.Machine(loops, host=capabilities, count_by=starts_of(loops.kernel, loops.clock)) as machine:
            outcome = machine.wait().check()
        assert outcome.stderr == ()
        runs.append(outcome.snapshots)
    assert runs[0] == runs[1]
    begins, ends = ([one for one in runs[0] if one.moment == moment] for moment in (vm.Moment.BEGIN, vm.Moment.END))
    user = [end.counts[0] - begin.counts[0] for begin, end in zip(begins, ends, strict=True)]
    assert user[1] - user[0] == 2 * 600_000, "a program's instructions are the same on all versions"
    counts[".".join(map(str, capabilities.version))] = list(runs[0])


def test_the_clocks_of_versions_differ_by_less_than_a_percent(
    counts: dict[str, list[vm.Snapshot]], record_testsuite_property: Callable[[str, object], None]
) -> None:
    """docs/clocks.md, which says what differs and why."""
    if len(counts) < 2:
        pytest.skip("one version only")
    begins = {version: next(one for one in all_ if one.moment == vm.Moment.BEGIN) for version, all_ in counts.items()}
    for version, one in begins.items():
        record_testsuite_property(version, {"clock_ns": one.tsc_ns, "idle_ns": one.idle_ns, "counted": one.counted})
    clocks = [one.tsc_ns for one in begins.values()]
    assert max(clocks) < 1.01 * min(clocks), clocks


def test_a_td_is_accepted_up_to_the_check_of_kvm(capabilities: vm.Capabilities, tiny_kernel: Path) -> None:
    if capabilities.version < (10, 1, 0):
        pytest.skip("tdx-guest came with QEMU 10.1")
    firmware = Path("/usr/share/ovmf/OVMF.fd")
    if not firmware.is_file():
        pytest.skip("ovmf is missing")
    spec = vm.VmSpec(
        kernel=tiny_kernel, memory_bytes=256 << 20, td="matrix", firmware=firmware, quote_socket="vsock:2:4050",
        mrconfigid="00" * 48, attributes="0x10000000", sept_ve_disable=True, vcpus=2, numa=2,
    )  # fmt: skip
    argv = vm.argument_list(spec, capabilities, vm.Channels(console=Path("/dev/null")))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert any(text in line for text in KVM_CHECKS), done.stderr
    assert "deprecated" not in done.stderr
    assert "not found" not in done.stderr
