"""A cache that cannot be written, devices that do not open: each is named, and the advice can be followed."""

from __future__ import annotations

import errno
import grp
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb import doctor, host
from acon_nb.archive import spool
from acon_nb.cache import Cache, atomic_file, default_root
from acon_nb.cli import main
from acon_nb.errors import InvalidInput, MissingRequirement, NotWritable
from acon_nb.host import access_hint, kvm
from acon_nb.tdx import firmware
from acon_nb.vm import VmSpec, preflight
from acon_nb.vm.plumbing import run_folder


@pytest.fixture(params=["below a file", "below /proc"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache below what takes no folder, not even of root."""
    parent = Path("/proc")
    if request.param == "below a file":
        parent = tmp_path / "file"
        parent.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(parent / "cache"))
    return default_root()


def write_atomically() -> None:
    with atomic_file(default_root() / "x") as path:
        path.write_text("")


def take_a_lock() -> None:
    with Cache().lock("x"):
        pass


@pytest.mark.parametrize(
    "write",
    [
        run_folder,
        lambda: Cache().get("k", {}, lambda folder: None),
        lambda: Cache().workdir("k", {}),
        take_a_lock,
        write_atomically,
    ],
    ids=["run", "artifact", "workdir", "lock", "file"],
)
def test_whatever_writes_to_the_cache_names_it(unwritable: Path, write: Callable[[], object]) -> None:
    with pytest.raises(NotWritable, match=str(unwritable)) as caught:
        write()
    assert "XDG_CACHE_HOME" in caught.value.hint
    assert isinstance(caught.value, OSError)
    assert caught.value.errno in (errno.ENOTDIR, errno.ENOENT)


def test_the_probe_of_kvm_answers_without_a_cache(unwritable: Path) -> None:
    assert host.probe_kvm().why
    assert spool._folder().is_dir()


def test_doctor_names_a_cache_that_cannot_be_written(unwritable: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 1, result.output
    row = next(row for row in json.loads(result.stdout)["findings"] if row["what"] == "cache")
    assert row["state"] == "missing"
    assert str(unwritable) in row["detail"]
    assert "XDG_CACHE_HOME" in row["fix"]


@pytest.mark.parametrize("argv", [["run", "k"], ["run", "k", "--exec", "true"]])
def test_a_launch_ends_as_named(unwritable: Path, tmp_path: Path, argv: list[str]) -> None:
    kernel = tmp_path / "k"
    head = bytearray(0x1000)
    head[0x1FE:0x200], head[0x202:0x206] = b"\x55\xaa", b"HdrS"
    head[0x206:0x208] = b"\x0f\x02"
    kernel.write_bytes(head)
    (tmp_path / "initrd").write_bytes(b"")
    env = os.environ | {"RD": "initrd", "BIOS": "-", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-m", "acon_nb.cli", *argv], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"cannot write {unwritable}" in done.stderr


def no_home(name: str) -> Path:
    raise RuntimeError(f"could not determine the home directory for '~/.cache/{name}'")


@pytest.mark.parametrize("answer", [lambda name: Path("~/.cache") / name, no_home])
def test_a_user_without_a_home_is_told_what_to_set(
    answer: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", answer)
    with pytest.raises(InvalidInput, match="no home folder") as caught:
        default_root()
    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o640])
@pytest.mark.parametrize("gid", [0, os.getgid(), 54321])
def test_advice_names_no_group_that_does_not_exist(tmp_path: Path, mode: int, gid: int) -> None:
    device = tmp_path / "device"
    device.write_text("")
    os.chown(device, -1, gid)
    device.chmod(mode)
    hint = access_hint(device)
    words = hint.replace(":", " ").replace(",", " ").split()
    if "group" in words and "join" in words:
        grp.getgrnam(words[words.index("group") + 1])
    assert "group kvm" not in hint or any(group.gr_name == "kvm" for group in grp.getgrall())
    if gid == 54321:
        assert str(device) in hint
        assert "setfacl" in hint


def test_a_vsock_address_without_its_device_names_the_module_alone(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement) as caught:
        preflight.check_cid(5, tmp_path / "vhost-vsock")
    assert caught.value.hint == "sudo modprobe vhost_vsock"


def test_doctor_looks_at_vsock_and_says_how_kvm_is_probed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "VHOST_VSOCK", tmp_path / "none")
    row = doctor._vsock()
    assert (row.state, row.fix) == ("warn", "sudo modprobe vhost_vsock")
    device = tmp_path / "device"
    device.write_text("")
    monkeypatch.setattr(doctor, "VHOST_VSOCK", device)
    assert doctor._vsock().state == "ok"
    finding = kvm.KvmFinding(usable=False, opens=False, why="no", hint="do this")
    monkeypatch.setattr(host, "probe_kvm", lambda **_: finding)
    assert doctor._kvm(fresh=False).fix == "do this; after a change: acon-nb doctor --fresh"
    assert {"vhost-vsock", "cache", "KVM"} <= {row.what for row in doctor.examine()}


def test_images_for_tds_of_newer_packages_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for pattern in firmware._PATTERNS:
        (tmp_path / pattern[1:]).parent.mkdir(parents=True, exist_ok=True)
    names = {"usr/share/ovmf/OVMF.inteltdx.ms.fd", "usr/share/qemu/OVMF.inteltdx.fd"}
    names |= {"usr/share/edk2/ovmf/OVMF.inteltdx.secboot.fd", "usr/share/ovmf/OVMF.fd"}
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.setattr(firmware, "_PATTERNS", tuple(f"{tmp_path}{pattern}" for pattern in firmware._PATTERNS))
    found = [str(image.path.relative_to(tmp_path)) for image in firmware.find_firmware()]
    assert set(found) == names
    assert found[0] == "usr/share/ovmf/OVMF.fd", "what was found before comes first"


def test_a_spec_does_not_need_the_cache(unwritable: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a file"):
        VmSpec(kernel=tmp_path / "none")
