import shutil
import subprocess
from pathlib import Path

import pytest

import acon_nb.host as host_package

FOLDER = Path(host_package.__file__).parent


def test_the_probe_guest_matches_its_source(tmp_path):
    if shutil.which("gcc") is None or shutil.which("objcopy") is None:
        pytest.skip("gcc and objcopy are missing")
    built, image = tmp_path / "probe.o", tmp_path / "probe.bin"
    subprocess.run(["gcc", "-c", "-m64", "-o", built, FOLDER / "kvm_probe.S"], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", built, image], check=True)
    assert image.read_bytes() == (FOLDER / "kvm_probe.bin").read_bytes()


def test_the_probe_guest_answers_under_tcg():
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is missing")
    from acon_nb.host.kvm import boot_probe

    code, _, _ = boot_probe("tcg", "max", limit_s=60)
    assert code == 33
