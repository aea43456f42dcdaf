"""Find what would stop a guest on this host before QEMU starts: ports, vsock addresses and disks in use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from acon_nb.errors import InvalidInput, MissingRequirement
from acon_nb.host import access_hint
from acon_nb.host.facts import memory_available_bytes
from acon_nb.units import format_bytes
from acon_nb.vm.command import guest_cid
from acon_nb.vm.memory import check_free_pages
from acon_nb.vm.parts import DiskSpec, Forward
from acon_nb.vm.spec import VmSpec

VHOST_VSOCK = Path("/dev/vhost-vsock")
_SET_OWNER = 0xAF01  # VHOST_SET_OWNER, include/uapi/linux/vhost.h
_SET_GUEST_CID = 0x4008AF60  # VHOST_VSOCK_SET_GUEST_CID
_LOCK_FIRST, _LOCK_BYTES = 100, 200  # the bytes by which QEMU locks an image (block/file-posix.c)
_MOST_VCPUS = 288  # of q35 and microvm in QEMU 7.2, as it reports for -smp 999
_MORE_VCPUS = (8, 0, 0)  # later versions were not tried: they refuse what they cannot take at the start
_FLOCK = "hhqqi4x"  # struct flock of a 64-bit Linux


def check(spec: VmSpec, *, device: Path = VHOST_VSOCK) -> None:
    """Refuse a spec that cannot start here now. Errors: `InvalidInput`, `MissingRequirement` without vhost-vsock."""
    taken: set[tuple[str, int]] = set()
    for rule in spec.forwards:
        if (rule.address, rule.host_port) in taken:
            raise InvalidInput("forwards", f"{rule.address}:{rule.host_port}", "is given twice", hint="choose another")
        taken.add((rule.address, rule.host_port))
        _check_port(rule)
    cid = guest_cid(spec, os.getpid())
    if cid is not None:
        check_cid(cid, device)
    for disk in spec.disks:
        _check_disk(disk)
    check_free_pages(spec)


def check_size(spec: VmSpec, qemu_version: tuple[int, int, int]) -> None:
    """Refuse memory that this host does not have, and more vCPUs than its QEMU takes. Errors: `InvalidInput`.

    Quick enough for a form that checks while someone types.
    """
    have = memory_available_bytes()
    if spec.memory_bytes > have:
        reason = f"this host has {format_bytes(have)} available"
        raise InvalidInput("memory_bytes", format_bytes(spec.memory_bytes), reason, hint="give less")
    if spec.vcpus > _MOST_VCPUS and qemu_version < _MORE_VCPUS:
        reason = f"{spec.machine} takes up to {_MOST_VCPUS} in this QEMU"
        raise InvalidInput("vcpus", spec.vcpus, reason, hint="give fewer")


def _check_port(rule: Forward) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((rule.address, rule.host_port))
        except OSError as error:
            value = f"{rule.address}:{rule.host_port}"
            why = os.strerror(error.errno or 0)
            raise InvalidInput("forwards", value, why, hint="choose another host port") from error


def check_cid(cid: int, device: Path = VHOST_VSOCK) -> None:
    """Refuse a vsock address that another guest has, and a host without vhost-vsock, by briefly taking the address."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = access_hint(device) if device.exists() else "sudo modprobe vhost_vsock"
        raise MissingRequirement(f"{device} ({error.strerror})", "a vsock address (CID)", hint=hint) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, _SET_OWNER)
        fcntl.ioctl(fd, _SET_GUEST_CID, struct.pack("<Q", cid))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "choose another CID"
            raise InvalidInput("vsock_cid", cid, "is in use by another guest", hint=hint) from error
        raise InvalidInput(
            "vsock_cid", cid, f"is refused by the host: {error.strerror}", hint="use 3 or above"
        ) from error
    finally:
        os.close(fd)


def _check_disk(disk: DiskSpec) -> None:
    """Ask for the lock that QEMU will take."""
    try:
        fd = os.open(disk.path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "give yourself write permission on the image"
        raise InvalidInput("disks", disk.path, f"cannot be opened: {error.strerror}", hint=hint) from error
    try:
        request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _LOCK_FIRST, _LOCK_BYTES, 0)
        kind = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, request))[0]
    except OSError:  # a file system without locks: QEMU will report it
        return
    finally:
        os.close(fd)
    if kind != fcntl.F_UNLCK:
        hint = "stop that machine, or give this one a disk of its own"
        raise InvalidInput("disks", disk.path, "is in use by another machine (QEMU holds its lock)", hint=hint)
