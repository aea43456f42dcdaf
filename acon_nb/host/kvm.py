"""Finds out whether a guest really runs on KVM on this host.

It is not enough that /dev/kvm can be opened: on some hosts a guest then hangs, crawls or makes QEMU abort. So a guest
of a few instructions (`kvm_probe.S`: long mode, paging, CPUID, memory touched and copied, instructions of BMI2) is
booted with the CPU model that launches use, and KVM counts as usable only if the guest answers within two seconds: a
KVM that emulates what the CPU should run stops or crawls in a kernel's decompressor, which uses the same instructions.
"""

from __future__ import annotations

import fcntl
import grp
import hashlib
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.cache import atomic_file, default_root, sha256_file
from acon_nb.errors import AconError, CommandTimeout, NoSpace, NotWritable
from acon_nb.host.facts import boot_id
from acon_nb.host.qemu import find_qemu

_log = logging.getLogger(__name__)
KVM_DEVICE = Path("/dev/kvm")
LIMIT_S = 2.0
_CHECK_EXTENSION = 0xAE03  # KVM_CHECK_EXTENSION, include/uapi/linux/kvm.h
_CAP_VM_TYPES = 235
_TDX_VM = 5  # KVM_X86_TDX_VM
_ANSWER = (0x10 << 1) | 1  # isa-debug-exit ends QEMU with (value << 1) | 1
_ROM_BYTES = 64 * 1024
_PROBE = Path(__file__).with_name("kvm_probe.bin")


@dataclass(frozen=True, kw_only=True)
class KvmFinding:
    """Whether KVM works, `why` it does not (or how fast the guest answered), and what to do about it."""

    usable: bool
    opens: bool
    why: str
    hint: str = ""
    seconds: float = 0.0


def probe_kvm(*, fresh: bool = False) -> KvmFinding:
    """Boot the probe guest on KVM; the finding is cached until the host reboots, or what it depends on changes.

    That is the probe itself, QEMU (path, size, time), the device (numbers, owner, permissions, ACL's change time), the
    module's parameters, and who asks (user, groups). `fresh` ignores the cache. In a cache
    that cannot be written it is not kept.
    """
    path = default_root() / "host" / f"kvm-{_circumstances()}.json"
    if not fresh:
        cached = _cached(path)
        if cached is not None:
            return cached
    finding = _probe()
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(finding)))
    except (NoSpace, NotWritable) as error:
        _log.debug("the finding about KVM is not kept: %s", error.what)
    return finding


def _circumstances() -> str:
    """A hash of what the probe's result depends on."""

    def state_of(path: Path) -> tuple[object, ...]:
        try:
            status = path.stat()
        except OSError as error:
            return (error.errno,)
        changed = (status.st_size, status.st_mtime_ns) if path.is_file() else (status.st_ctime_ns,)
        return (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_ino, *changed)

    parameters = [
        (path.parent.parent.name, path.name, path.read_text() if os.access(path, os.R_OK) else "")
        for path in sorted(Path("/sys/module").glob("kvm*/parameters/*"))
    ]
    try:
        qemu = find_qemu().resolve()
    except AconError:
        qemu = Path("missing")
    who = (os.geteuid(), os.getegid(), sorted(os.getgroups()), os.access(KVM_DEVICE, os.R_OK | os.W_OK))
    facts = (boot_id(), sha256_file(_PROBE), str(qemu), state_of(qemu), state_of(KVM_DEVICE), who, parameters)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def kvm_has_tdx(device: Path = KVM_DEVICE) -> bool:
    """Whether the host's KVM can create TDs (KVM_CAP_VM_TYPES, bit KVM_X86_TDX_VM; QEMU docs/system/i386/tdx.rst)."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(fcntl.ioctl(fd, _CHECK_EXTENSION, _CAP_VM_TYPES) >> _TDX_VM & 1)
    except OSError:
        return False
    finally:
        os.close(fd)


def _cached(path: Path) -> KvmFinding | None:
    try:
        return KvmFinding(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _probe() -> KvmFinding:
    if not KVM_DEVICE.exists():
        return KvmFinding(
            usable=False, opens=False, why="/dev/kvm does not exist", hint="enable virtualisation; modprobe kvm_intel"
        )
    try:
        os.close(os.open(KVM_DEVICE, os.O_RDWR))
    except OSError as error:
        return KvmFinding(
            usable=False,
            opens=False,
            why=f"cannot open /dev/kvm: {error.strerror}",
            hint=access_hint(KVM_DEVICE),
        )
    try:
        code, seconds, message = boot_probe("kvm", "host")
    except CommandTimeout as error:
        stopped = any(line.startswith("RIP=") for line in error.details)  # the registers that QEMU prints then
        end = "stops at an instruction that KVM does not run" if stopped else f"hangs (no answer in {LIMIT_S:g} s)"
        return KvmFinding(usable=False, opens=True, why=f"/dev/kvm opens, but a guest {end}")
    except AconError as error:
        return KvmFinding(usable=False, opens=True, why=error.what, hint=error.hint)
    if code == _ANSWER:
        return KvmFinding(usable=True, opens=True, why=f"a guest answered in {seconds:.2f} s", seconds=seconds)
    reason = message or f"QEMU ended with status {code}"
    return KvmFinding(usable=False, opens=True, why=f"/dev/kvm opens, but a guest dies: {reason}", seconds=seconds)


def access_hint(device: Path) -> str:
    """How this user gets at a device: through the group that owns it, if there is one that helps."""
    status = device.stat()
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = ""
    if not group or not status.st_gid or not status.st_mode & 0o020:
        return f"as root: setfacl -m u:USER:rw {device} (no group but root's may open it)"
    if status.st_gid in os.getgroups():
        return "you are in its group: a container or a security module forbids it"
    return f"join the group {group}: sudo adduser $USER {group}, then log in again"


def boot_probe(accelerator: str, cpu: str, limit_s: float = LIMIT_S) -> tuple[int, float, str]:
    """Boot the probe guest for at most `limit_s`.

    Returns QEMU's exit status (33: the guest answered), the seconds, and QEMU's last message.
    """
    code = _PROBE.read_bytes()
    rom = os.memfd_create("acon-kvm-probe")  # not a file: the disk of temporary ones may be full
    try:
        os.write(rom, bytes(_ROM_BYTES - len(code)) + code)
        started = time.monotonic()
        argv: list[str | Path] = [find_qemu(), "-accel", accelerator, "-cpu", cpu, "-machine", "q35", "-m", "16M"]
        argv += ["-nodefaults", "-display", "none", "-no-reboot", "-bios", f"/proc/{os.getpid()}/fd/{rom}"]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        done = process.run(argv, timeout_s=limit_s, check=False)
    finally:
        os.close(rom)
    message = next((line for line in done.tail if "error" in line), done.tail[-1] if done.tail else "")
    return done.returncode, time.monotonic() - started, message
