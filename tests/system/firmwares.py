"""OVMF and systemd-stub of Debian's suites, for tests that compare versions: fetched by apt, unpacked in the cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from acon_nb.cache import Cache
from acon_nb.host import apt, apt_suites

RELEASES = {"bookworm": "202211", "trixie": "202502", "sid": "202608"}  # the suite's edk2 is of this release or later
STUBS = {"bookworm": 252, "bookworm-backports": 254, "trixie": 257, "sid": 262}  # and its systemd of this version
_PACKAGES = ("ovmf", "ovmf-generic")  # the former has the image, or depends on the latter, which then has it
_IMAGE = "usr/share/ovmf/OVMF.fd"


def unpacked(package: str, suite: str, store: Cache) -> apt.Unpacked:
    """A package of a suite."""
    if shutil.which("apt-get") is None:
        pytest.skip("packages of other suites come by apt")
    return apt.unpack(package, apt_suites.lists_of(suite, store), cache=store)


def firmware_of(suite: str, store: Cache) -> Path:
    """The whole image of a suite's OVMF."""
    paths = (unpacked(name, suite, store).find(_IMAGE) for name in _PACKAGES)
    path = next((path for path in paths if path is not None), None)
    assert path is not None, f"{suite}: no {_IMAGE} in {', '.join(_PACKAGES)}"
    return path


def stub_of(suite: str, store: Cache) -> Path:
    """The stub of a suite's systemd."""
    return unpacked("systemd-boot-efi", suite, store).path("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
