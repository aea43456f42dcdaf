"""What this host can do and what is missing for which feature, each with the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acon_nb import host, process
from acon_nb.bench.guest_program import missing_parts
from acon_nb.cache import default_root
from acon_nb.errors import AconError
from acon_nb.tdx import find_firmware
from acon_nb.units import format_bytes

_DISK_BYTES = 5 << 30
_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the examination: `state` is ok, warn (a feature lacks it) or missing (the main job lacks it)."""

    what: str
    state: str
    detail: str
    feature: str
    mend: str = ""


def examine(*, fresh: bool = False) -> list[Finding]:
    """Look at everything, by trying. `fresh` probes KVM anew."""
    checks: list[Callable[[], Finding]] = [
        _qemu,
        lambda: _kvm(fresh=fresh),
        _tdx,
        _kernel_tools,
        _apt,
        _docker,
        _firmware,
        _twin,
        _codecs,
        _browser,
        _jupyter,
        _memory,
        _disk,
    ]
    return [check() for check in checks]


def report(findings: list[Finding]) -> dict[str, Any]:
    """The examination as one object for machines."""
    return {
        "ok": all(finding.state != "missing" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "environment": asdict(host.environment()),
    }


def table(findings: list[Finding]) -> str:
    """The examination as one screen of text."""
    marks: Mapping[str, str] = {"ok": "ok     ", "warn": "warn   ", "missing": "MISSING"}
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]} {finding.what:<{width}}  {finding.detail}")
        if finding.state != "ok":
            lines.append(f"{'':{8 + width}}  needed for: {finding.feature}")
            if finding.mend:
                lines.append(f"{'':{8 + width}}  mend: {finding.mend}")
    return "\n".join(lines)


def _qemu() -> Finding:
    feature = "running guests"
    try:
        found = host.probe_qemu()
    except AconError as error:
        return Finding(what="QEMU", state="missing", detail=error.what, feature=feature, mend=error.hint)
    guards = ", ".join(found.confidential_types) or "none"
    detail = f"{found.version_text} at {found.path}; confidential guest types: {guards}"
    return Finding(what="QEMU", state="ok", detail=detail, feature=feature)


def _kvm(*, fresh: bool) -> Finding:
    feature = "guests at hardware speed (TCG emulates meanwhile)"
    try:
        found = host.probe_kvm(fresh=fresh)
    except AconError as error:
        return Finding(what="KVM", state="warn", detail=error.what, feature=feature, mend=error.hint)
    return Finding(
        what="KVM", state="ok" if found.usable else "warn", detail=found.why, feature=feature, mend=found.hint
    )


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
    lacks = [word for word, there in (("QEMU with tdx-guest", in_qemu), ("kvm_intel.tdx=1", in_kvm)) if not there]
    mend = "a TDX machine, a host kernel with kvm_intel.tdx=1, and QEMU 10.1 or later"
    return Finding(what="TDX host", state="warn", detail=f"lacks {' and '.join(lacks)}", feature=feature, mend=mend)


def _kernel_tools() -> Finding:
    from acon_nb.kernel.make import missing_tools

    feature = "building kernels and guest programs"
    lacks = missing_tools()
    if not lacks:
        return Finding(
            what="build tools", state="ok", detail="gcc, make, flex, bison, bc, zstd, libelf", feature=feature
        )
    packages = " ".join(sorted({package for _, package in lacks}))
    names = ", ".join(name for name, _ in lacks)
    return Finding(
        what="build tools",
        state="missing",
        detail=f"lacks {names}",
        feature=feature,
        mend=f"apt-get install {packages}",
    )


def _apt() -> Finding:
    feature = "kernel sources, distro kernels and busybox from Debian packages"
    if shutil.which("apt-get") is None:
        return Finding(
            what="apt", state="warn", detail="not here", feature=feature, mend="use Debian 12 or a container"
        )
    try:
        process.output(["apt-cache", "show", "--no-all-versions", "linux-source-6.12"])
    except AconError:
        detail = "its lists do not name linux-source-6.12"
        return Finding(what="apt", state="missing", detail=detail, feature=feature, mend="apt-get update")
    return Finding(what="apt", state="ok", detail="its lists name linux-source-6.12", feature=feature)


def _docker() -> Finding:
    feature = "initrds from container images by name (folders, tars and busybox need none)"
    mend = "apt-get install docker.io, and start dockerd; pip install 'acon-nb[docker]'"
    if importlib.util.find_spec("docker") is None:
        return Finding(what="Docker Engine", state="warn", detail="docker-py is missing", feature=feature, mend=mend)
    import docker

    try:
        client = docker.from_env(timeout=5)
        version = client.version()["Version"]
        client.close()
    except Exception as error:  # docker-py raises requests' and its own errors, and OSError
        detail = f"does not answer: {str(error).splitlines()[0][:90]}"
        return Finding(what="Docker Engine", state="warn", detail=detail, feature=feature, mend=mend)
    return Finding(what="Docker Engine", state="ok", detail=version, feature=feature)


def _firmware() -> Finding:
    feature = "booting with firmware, TDs and measured boot"
    found = find_firmware()
    images = [f"{item.path} ({'TDX metadata' if item.tdx_metadata and item.whole else item.why})" for item in found]
    if any(item.tdx_metadata and item.whole for item in found):
        return Finding(what="OVMF", state="ok", detail=next(x for x in images if "TDX metadata" in x), feature=feature)
    detail = "; ".join(images[:2]) or "no image found"
    return Finding(what="OVMF", state="warn", detail=detail, feature=feature, mend="apt-get install ovmf")


def _browser() -> Finding:
    return _program("Chromium", ("chromium", "google-chrome"), "tests of the interface", "chromium")


def _twin() -> Finding:
    feature = "the twin of a measured boot (acon-nb measure twin)"
    return _program("swtpm", ("swtpm",), feature, "swtpm swtpm-tools")


def _program(what: str, names: tuple[str, ...], feature: str, packages: str) -> Finding:
    path = next(filter(None, map(shutil.which, names)), None)
    if path:
        return Finding(what=what, state="ok", detail=path, feature=feature)
    return Finding(what=what, state="warn", detail="not found", feature=feature, mend=f"apt-get install {packages}")


def _codecs() -> Finding:
    feature = "swap studies: what a codec costs on host and guest, ratios of the data"
    lacks = missing_parts()
    if not lacks:
        return Finding(what="codecs", state="ok", detail="static lz4, zstd and lzo2", feature=feature)
    detail, mend = f"lacks {', '.join(lacks)}", f"apt-get install {' '.join(lacks.values())}"
    return Finding(what="codecs", state="warn", detail=detail, feature=feature, mend=mend)


def _jupyter() -> Finding:
    feature = "notebooks by hand (make lab); papermill runs them without"
    lacks = [name for name in ("jupyterlab", "ipywidgets") if importlib.util.find_spec(name) is None]
    if not lacks:
        return Finding(what="JupyterLab", state="ok", detail="jupyterlab and ipywidgets", feature=feature)
    detail = f"lacks {', '.join(lacks)}"
    return Finding(what="JupyterLab", state="warn", detail=detail, feature=feature, mend="pip install 'acon-nb[lab]'")


def _memory() -> Finding:
    free = host.memory_available_bytes()
    return Finding(
        what="memory",
        state="ok" if free >= _MEMORY_BYTES else "warn",
        detail=f"{format_bytes(free)} available, {len(os.sched_getaffinity(0))} CPUs",
        feature=f"guests and builds, which want {format_bytes(_MEMORY_BYTES)}",
        mend="" if free >= _MEMORY_BYTES else "end other programs",
    )


def _disk() -> Finding:
    free = host.free_bytes(default_root())
    return Finding(
        what="disk",
        state="ok" if free >= _DISK_BYTES else "warn",
        detail=f"{format_bytes(free)} free for {default_root()}",
        feature=f"a first build, which wants {format_bytes(_DISK_BYTES)}",
        mend="" if free >= _DISK_BYTES else "free space, or set XDG_CACHE_HOME to a larger disk",
    )
