"""Check before QEMU starts whether this host can launch a spec, and give the remedy if it cannot.

This is above `vm` and `tdx` because a TD's checks need both: QEMU's and the firmware's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb import host
from acon_nb.bootcheck import kernel as bootcheck
from acon_nb.errors import AconError, InvalidInput, MissingRequirement
from acon_nb.tdx import read_firmware, secure_boot
from acon_nb.units import format_bytes
from acon_nb.vm import Machine, VmSpec, capabilities, preflight

_UPSTREAM_TDX = (10, 1, 0)
_TD = "launching a TD"
_9P = ("NET_9P_VIRTIO", "9P_FS")


@dataclass(frozen=True, kw_only=True)
class TdHost:
    """A host's support for TDs: whether KVM runs guests, whether it has TDX, QEMU's version and its tdx-guest."""

    kvm: bool
    kvm_why: str
    kvm_tdx: bool
    qemu_version: tuple[int, int, int]
    qemu_tdx: bool


def td_host() -> TdHost:
    """Probe this host's support for TDs (QMP qom-list-types, KVM_CHECK_EXTENSION, a probe guest)."""
    qemu, kvm = host.probe_qemu(), host.probe_kvm()
    return TdHost(
        kvm=kvm.usable,
        kvm_why=kvm.why,
        kvm_tdx=host.kvm_has_tdx(),
        qemu_version=qemu.version,
        qemu_tdx="tdx-guest" in qemu.confidential_types,
    )


def refusals(spec: VmSpec, td: TdHost | None = None) -> list[AconError]:
    """Return every reason why `spec` cannot start here now, none if it can. `td` defaults to this host, probed."""
    checks: list[Callable[[], None]] = [lambda: preflight.check(spec), lambda: _check_secure_boot(spec)]
    if spec.shares:
        checks.append(lambda: _check_shares(spec))
    if spec.td is not None:
        support = td or td_host()
        checks = [
            lambda: _check_kvm(support),
            lambda: _check_qemu(spec, support),
            lambda: check_tdvf(spec.firmware),
            lambda: _check_free_memory(spec),
            *checks,
        ]
    errors = []
    for check in checks:
        try:
            check()
        except AconError as error:
            errors.append(error)
    return errors


def machine(spec: VmSpec, **options: Any) -> Machine:
    """Create a machine for `spec` if this host can start it; `options` are those of `Machine`.

    Errors: the first of `refusals`, with details of all.
    """
    errors = refusals(spec)
    if len(errors) > 1:
        first = errors[0]
        first.details = (*first.details, *(f"also: {error.what}" for error in errors[1:]))
    if errors:
        raise errors[0]
    return Machine(spec, host=capabilities(), **options)


def check_tdvf(path: Path | None) -> None:
    """Refuse a firmware from which a TD cannot start. Errors: `InvalidInput`."""
    if path is None:
        raise InvalidInput("firmware", None, "a TD needs a TDVF", hint="BIOS=/usr/share/ovmf/OVMF.fd")
    firmware = read_firmware(path)
    if not (firmware.tdx_metadata and firmware.whole):
        hint = "use a whole OVMF.fd with TDX metadata: apt-get install ovmf, BIOS=/usr/share/ovmf/OVMF.fd"
        raise InvalidInput("firmware", path, f"is not a TDVF: {firmware.why}", hint=hint)


def _check_kvm(td: TdHost) -> None:
    if not td.kvm:
        raise MissingRequirement(
            f"KVM ({td.kvm_why})", _TD, hint="use a TDX machine with virtualisation enabled; see acon-nb doctor"
        )
    if not td.kvm_tdx:
        hint = "on a TDX machine: enable TDX in the BIOS, Linux >= 6.16, kvm_intel.tdx=1 on the host's command line"
        raise MissingRequirement("TDX in the host's KVM", _TD, hint=hint)


def _check_qemu(spec: VmSpec, td: TdHost) -> None:
    version = ".".join(map(str, td.qemu_version))
    if not td.qemu_tdx:
        hint = "use QEMU 10.1 or later: ACON_NB_QEMU=/path/to/qemu-system-x86_64"
        raise MissingRequirement(f"tdx-guest in QEMU (this is {version})", _TD, hint=hint)
    if not spec.is_fork and td.qemu_version < _UPSTREAM_TDX:
        hint = "use td_flavour=fork for Intel's former fork, or QEMU 10.1 or later"
        raise InvalidInput("td_flavour", "upstream", f"QEMU {version} implements the fork's TDX", hint=hint)


def _check_secure_boot(spec: VmSpec) -> None:
    """Refuse a kernel that the firmware would refuse, which looks like a hang. A shim decides for itself."""
    if spec.firmware is not None and spec.kernel.is_file() and spec.firmware.is_file() and "-shim" not in spec.extra:
        secure_boot.check_files(spec.firmware, spec.kernel)


def _check_shares(spec: VmSpec) -> None:
    """Refuse shares that this QEMU or the kernel has no 9p for, as far as the kernel's options are known."""
    if not any(name.startswith("virtio-9p") for name in host.probe_qemu().virtio):
        hint = "use a QEMU that is built with --enable-virtfs (Debian's is), or copy files by --put and --get"
        raise MissingRequirement("virtio-9p in this QEMU", "sharing a folder (--share)", hint=hint)
    kernel = bootcheck.read(spec.kernel)
    lacking = [option for option in _9P if kernel.complete and kernel.options.get(option, "n") == "n"]
    if lacking:
        names = ", ".join(f"CONFIG_{option}" for option in lacking)
        sets = " ".join(f"--set {option}=y" for option in ("NETWORK_FILESYSTEMS", "NET_9P", *_9P))
        hint = f"acon-nb kernel build --profile guide {sets}; or copy files by --put and --get"
        raise InvalidInput("share", spec.shares[0].guest, f"the kernel has no {names}", hint=hint)


def _check_free_memory(spec: VmSpec) -> None:
    free = host.memory_available_bytes()
    if free and spec.memory_bytes > free:
        why = f"the host has {format_bytes(free)} available"
        raise InvalidInput("memory_bytes", spec.memory_bytes, why, hint=f"give at most {free >> 20}M")
