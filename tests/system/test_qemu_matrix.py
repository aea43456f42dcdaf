"""The same launches on QEMU of this host, 10 and 11: the same ends, no warning, and TDs up to the check of KVM."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb import agent, initrd, kernel, vm
from acon_nb.cache import Cache
from tests.system.qemus import SUITES, fetch_qemu

pytestmark = [pytest.mark.system, pytest.mark.weekly]
LETTERS = {"p": vm.End.POWERED_OFF, "r": vm.End.RESET, "h": vm.End.HANG}
# What QEMU says of a TD where KVM is missing, or is not a TDX machine's: all options before were accepted
KVM_CHECKS = ("Could not access KVM kernel module", "TDX", "tdx", "KVM is not supported", "failed to initialize kvm")


@pytest.fixture(params=["host", *SUITES])
def capabilities(request: pytest.FixtureRequest) -> vm.Capabilities:
    if request.param == "host":
        return replace(vm.capabilities(), kvm=False)
    if shutil.which("apt-get") is None:
        pytest.skip("QEMUs of other suites come by apt")
    path = fetch_qemu(request.param)
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    assert match is not None
    version = (int(match[1]), int(match[2]), int(match[3]))
    assert version[0] >= SUITES[request.param]
    return vm.Capabilities(qemu=path, version=version)


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


def test_a_command_runs(
    capabilities: vm.Capabilities, guide_kernel: kernel.KernelImage, store: Cache, tmp_path: Path
) -> None:
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    image = initrd.create(tree, tmp_path / "initrd.cpio")
    spec = vm.VmSpec(kernel=guide_kernel.image, initrd=image.path, memory_bytes=256 << 20, timeout_s=200)
    machine = vm.Machine(agent.prepare(spec), host=capabilities, interactive=True, agent=True)
    done, outcome = agent.run_command(machine, ["sh", "-c", "cat; exit 22"], stdin=b"here\n")
    assert (done.status, done.stdout, outcome.end) == (22, b"here\n", vm.End.POWERED_OFF)
    assert outcome.stderr == ()


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
