"""Finds out what this host can do, what is missing for which feature, and the command that fixes it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acon_nb import host, process
from acon_nb.cache import default_root, writable_folder, writing
from acon_nb.errors import AconError
from acon_nb.guest.programs import missing_parts
from acon_nb.host.wall_clock import wall_clock_facts
from acon_nb.initrd import root_disk
from acon_nb.tdx import find_firmware
from acon_nb.units import format_bytes
from acon_nb.vm.preflight import VHOST_VSOCK

_DISK_BYTES = 5 << 30
_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. `state` is ok, warn (one feature is unavailable) or missing (guests cannot be run).

    `fix` is the command or the advice that makes it ok.
    """

    what: str
    state: str
    detail: str
    feature: str
    fix: str = ""


def examine(*, fresh: bool = False) -> list[Finding]:
    """Check this host by trying each feature. `fresh` probes KVM again instead of using the cached result."""
    checks: list[Callable[[], Finding]] = [
        _qemu,
        lambda: _kvm(fresh=fresh),
        _vsock,
        _tdx,
        _kernel_tools,
        _apt,
        _docker,
        _firmware,
        _twin,
        _root_disk,
        _codecs,
        _browser,
        _jupyter,
        _memory,
        _cache,
        _disk,
    ]
    return [*(check() for check in checks), *_wall_clock()]


def report(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as one object for JSON."""
    return {
        "ok": all(finding.state != "missing" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "environment": asdict(host.environment()),
    }


def table(findings: list[Finding]) -> str:
    """Return the findings as one screen of text."""
    marks: Mapping[str, str] = {"ok": "ok     ", "warn": "warn   ", "missing": "MISSING"}
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]} {finding.what:<{width}}  {finding.detail}")
        if finding.state != "ok":
            lines.append(f"{'':{8 + width}}  needed for: {finding.feature}")
            if finding.fix:
                lines.append(f"{'':{8 + width}}  fix: {finding.fix}")
    return "\n".join(lines)


def _qemu() -> Finding:
    feature = "running guests"
    try:
        qemu = host.probe_qemu()
    except AconError as error:
        return Finding(what="QEMU", state="missing", detail=error.what, feature=feature, fix=error.hint)
    types = ", ".join(qemu.confidential_types) or "none"
    detail = f"{qemu.version_text} at {qemu.path}; confidential guest types: {types}"
    return Finding(what="QEMU", state="ok", detail=detail, feature=feature)


def _kvm(*, fresh: bool) -> Finding:
    feature = "guests at hardware speed (TCG emulates otherwise)"
    try:
        kvm = host.probe_kvm(fresh=fresh)
    except AconError as error:
        return Finding(what="KVM", state="warn", detail=error.what, feature=feature, fix=error.hint)
    if kvm.usable:
        return Finding(what="KVM", state="ok", detail=kvm.why, feature=feature)
    again = "probed just now" if fresh else "after a change: acon-nb doctor --fresh"
    return Finding(
        what="KVM", state="warn", detail=kvm.why, feature=feature, fix="; ".join(filter(None, (kvm.hint, again)))
    )


def _vsock() -> Finding:
    feature = "guests with a vsock address (CID)"
    device = VHOST_VSOCK
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        fix = host.access_hint(device) if device.exists() else "sudo modprobe vhost_vsock"
        return Finding(what="vhost-vsock", state="warn", detail=f"{device}: {error.strerror}", feature=feature, fix=fix)
    return Finding(what="vhost-vsock", state="ok", detail=f"{device} opens", feature=feature)


def _tdx() -> Finding:
    feature = "launching TDs"
    try:
        in_qemu = "tdx-guest" in host.probe_qemu().confidential_types
    except AconError:
        in_qemu = False
    parameter = Path("/sys/module/kvm_intel/parameters/tdx")
    in_kvm = parameter.exists() and parameter.read_text().strip() in ("Y", "1")
    if in_qemu and in_kvm:
        return Finding(what="TDX host", state="ok", detail="QEMU has tdx-guest, kvm_intel.tdx is on", feature=feature)
    missing = [name for name, present in (("QEMU with tdx-guest", in_qemu), ("kvm_intel.tdx=1", in_kvm)) if not present]
    fix = "a TDX machine, a host kernel with kvm_intel.tdx=1, and QEMU 10.1 or later"
    return Finding(what="TDX host", state="warn", detail=f"missing: {', '.join(missing)}", feature=feature, fix=fix)


def _kernel_tools() -> Finding:
    from acon_nb.kernel.make import missing_tools

    feature = "building kernels and guest programs"
    missing = missing_tools()
    if not missing:
        return Finding(
            what="build tools", state="ok", detail="gcc, make, flex, bison, bc, zstd, libelf", feature=feature
        )
    packages = " ".join(sorted({package for _, package in missing}))
    names = ", ".join(name for name, _ in missing)
    return Finding(
        what="build tools",
        state="missing",
        detail=f"missing: {names}",
        feature=feature,
        fix=f"apt-get install {packages}",
    )


def _apt() -> Finding:
    feature = "kernel sources, distro kernels and busybox from Debian packages"
    if shutil.which("apt-get") is None:
        return Finding(
            what="apt", state="warn", detail="not found", feature=feature, fix="use Debian 12 or 13, or a container"
        )
    try:
        process.output(["apt-cache", "show", "--no-all-versions", "linux-source-6.12"])
    except AconError:
        detail = "its lists do not name linux-source-6.12"
        fix = "apt-get update; Ubuntu does not have it: build kernels from another --source (docs/kernel.md)"
        return Finding(what="apt", state="missing", detail=detail, feature=feature, fix=fix)
    return Finding(what="apt", state="ok", detail="its lists name linux-source-6.12", feature=feature)


def _docker() -> Finding:
    feature = "initrds from container images by name (folders, tars and busybox work without)"
    fix = "apt-get install docker.io, and start dockerd; pip install 'acon-nb[docker]'"
    if importlib.util.find_spec("docker") is None:
        return Finding(what="Docker Engine", state="warn", detail="docker-py is missing", feature=feature, fix=fix)
    import docker

    try:
        client = docker.from_env(timeout=5)
        version = client.version()["Version"]
        client.close()
    except Exception as error:  # docker-py raises requests' and its own errors, and OSError
        detail = f"does not answer: {str(error).splitlines()[0][:90]}"
        return Finding(what="Docker Engine", state="warn", detail=detail, feature=feature, fix=fix)
    return Finding(what="Docker Engine", state="ok", detail=version, feature=feature)


def _firmware() -> Finding:
    feature = "booting with firmware, TDs and measured boot"
    firmware = find_firmware()
    images = [f"{item.path} ({'TDX metadata' if item.tdx_metadata and item.whole else item.why})" for item in firmware]
    if any(item.tdx_metadata and item.whole for item in firmware):
        return Finding(what="OVMF", state="ok", detail=next(x for x in images if "TDX metadata" in x), feature=feature)
    detail = "; ".join(images[:2]) or "no image found"
    return Finding(what="OVMF", state="warn", detail=detail, feature=feature, fix="apt-get install ovmf")


def _browser() -> Finding:
    return _program("Chromium", ("chromium", "google-chrome"), "tests of the interface", "chromium")


def _twin() -> Finding:
    feature = "the vTPM reference boot (acon-nb measure twin)"
    return _program("swtpm", ("swtpm",), feature, "swtpm swtpm-tools")


def _root_disk() -> Finding:
    feature = "read-only roots on a disk (acon-nb initrd from ... --root erofs|squashfs)"
    missing = {
        name: package for kind in root_disk.FILESYSTEMS for name, package in root_disk.missing_tools(kind).items()
    }
    if not missing:
        return Finding(what="root disks", state="ok", detail="mkfs.erofs, sqfstar, veritysetup", feature=feature)
    detail, fix = f"missing: {', '.join(missing)}", f"apt-get install {' '.join(missing.values())}"
    return Finding(what="root disks", state="warn", detail=detail, feature=feature, fix=fix)


def _program(what: str, names: tuple[str, ...], feature: str, packages: str) -> Finding:
    path = next(filter(None, map(shutil.which, names)), None)
    if path:
        return Finding(what=what, state="ok", detail=path, feature=feature)
    return Finding(what=what, state="warn", detail="not found", feature=feature, fix=f"apt-get install {packages}")


def _codecs() -> Finding:
    feature = "swap studies: codec cost on host and guest, compression ratios of the data"
    missing = missing_parts()
    if not missing:
        return Finding(what="codecs", state="ok", detail="static lz4, zstd and lzo2", feature=feature)
    detail, fix = f"missing: {', '.join(missing)}", f"apt-get install {' '.join(missing.values())}"
    return Finding(what="codecs", state="warn", detail=detail, feature=feature, fix=fix)


def _jupyter() -> Finding:
    feature = "interactive notebooks (make lab); papermill works without it"
    missing = [name for name in ("jupyterlab", "ipywidgets") if importlib.util.find_spec(name) is None]
    if not missing:
        return Finding(what="JupyterLab", state="ok", detail="jupyterlab and ipywidgets", feature=feature)
    detail = f"missing: {', '.join(missing)}"
    return Finding(what="JupyterLab", state="warn", detail=detail, feature=feature, fix="pip install 'acon-nb[lab]'")


def _memory() -> Finding:
    free = host.memory_available_bytes()
    return Finding(
        what="memory",
        state="ok" if free >= _MEMORY_BYTES else "warn",
        detail=f"{format_bytes(free)} available, {len(os.sched_getaffinity(0))} CPUs",
        feature=f"guests and builds, which need {format_bytes(_MEMORY_BYTES)}",
        fix="" if free >= _MEMORY_BYTES else "close other programs",
    )


def _wall_clock() -> list[Finding]:
    """What makes wall times unsteady on this host: a finding a fact."""
    return [
        Finding(
            what=f"wall: {fact.what}",
            state="ok" if fact.is_good else "warn",
            detail=fact.value or "cannot be seen here",
            feature=f"steady wall times: {fact.why}",
            fix="" if fact.is_good else fact.fix,
        )
        for fact in wall_clock_facts()
    ]


def _cache() -> Finding:
    feature = "every run, build and measurement, which keep their files there"
    try:
        root = writable_folder(default_root())
        with writing(root), tempfile.TemporaryFile(dir=root):
            pass
    except AconError as error:
        return Finding(what="cache", state="missing", detail=error.what, feature=feature, fix=error.hint)
    return Finding(what="cache", state="ok", detail=f"{root} can be written", feature=feature)


def _disk() -> Finding:
    try:
        free = host.free_bytes(default_root())
    except (AconError, OSError) as error:
        detail = f"free space is not known: {getattr(error, 'strerror', None) or error}"
        return Finding(what="disk", state="warn", detail=detail, feature="a first build", fix="see cache")
    return Finding(
        what="disk",
        state="ok" if free >= _DISK_BYTES else "warn",
        detail=f"{format_bytes(free)} free for {default_root()}",
        feature=f"a first build, which needs {format_bytes(_DISK_BYTES)}",
        fix="" if free >= _DISK_BYTES else "free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
    )
