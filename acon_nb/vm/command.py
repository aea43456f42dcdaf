"""Turn a spec and a host's capabilities into QEMU's argument list, without starting or probing anything."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.vm.memory import backend_of_machine, memory_arguments
from acon_nb.vm.spec import DIGESTS, Clock, VmSpec, quote_address

RESULTS_PORT = "acon.results"
EXEC_PORT = "acon.exec"
TERMINAL_PORT = "acon.terminal"
_MACHINES = {
    "q35": "q35,hpet=off",  # the guide's `-no-hpet`, an option that QEMU 9 removed
    "microvm": "microvm,acpi=on,pit=on,pic=on,rtc=on",
}


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What the host offers: the QEMU binary, its version, and whether a guest runs on KVM (`kvm_why` if not).

    `string_flags` are the CPU's flags for fast string instructions that this QEMU knows.
    """

    qemu: Path
    version: tuple[int, int, int] = (7, 2, 0)
    kvm: bool = False
    kvm_why: str = "not probed"
    string_flags: tuple[str, ...] = ("erms", "fsrm")


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Where the guest's channels go: to connected sockets, given by descriptor (as `Machine` does), or to files.

    The console is a transcript file (`console`), one socket shared with the monitor (`mux_fd`), a socket each for the
    serial port and hvc0, or, if none of these is set, QEMU's own terminal.
    """

    console: Path | None = None
    mux_fd: int | None = None
    serial_fd: int | None = None
    hvc_fd: int | None = None
    qmp_fd: int | None = None
    commands_fd: int | None = None
    results_fd: int | None = None
    exec_fd: int | None = None
    terminal_fd: int | None = None
    trace: Path | None = None
    plugin: str | None = None  # as of `counting.plugin_option`
    paused: bool = False
    pid: int = field(default_factory=os.getpid)  # used as CID in place of 2 and below


def accelerator_of(spec: VmSpec, host: Capabilities) -> str:
    """Return the accelerator that `spec` gets on this host. Errors: `InvalidInput` if it requires a KVM that fails."""
    if spec.td is not None and not host.kvm:
        hint = "a TD needs a TDX machine (see acon-nb doctor); --dry-run shows its command line anywhere"
        raise InvalidInput("td", spec.td, f"KVM is not usable here: {host.kvm_why}", hint=hint)
    if spec.clock is Clock.INSTRUCTIONS or spec.accelerator == "tcg":
        return "tcg"
    if spec.accelerator == "kvm" and not host.kvm:
        raise InvalidInput("accelerator", "kvm", host.kvm_why, hint="use accelerator=tcg; see acon-nb doctor")
    return "kvm" if host.kvm else "tcg"


def argument_list(spec: VmSpec, host: Capabilities, channels: Channels | None = None) -> list[str]:
    """Return QEMU's argument list for `spec`. That of a TD can be made on any host, whatever `host` can do."""
    channels = channels or Channels()
    argv = [str(host.qemu), "-nodefaults", "-display", "none", "-no-reboot"]
    argv += _machine(spec, host) + _clock(spec)
    argv += [
        "-smp",
        ",".join(filter(None, (str(spec.vcpus), spec.topology))),
        "-m",
        f"{spec.memory_bytes // (1 << 20)}M",
    ]
    argv += memory_arguments(spec) + _console(spec, channels) + _results(spec, channels)
    argv += _disks(spec) + _shares(spec) + _network(spec) + _vsock(spec, channels)
    if spec.balloon:
        argv += ["-device", _virtio("virtio-balloon", spec)]
    for name, fd in (("qmp", channels.qmp_fd), ("commands", channels.commands_fd)):
        if fd is not None:
            argv += ["-chardev", f"socket,id={name},fd={fd}", "-qmp", f"chardev:{name}"]
    if channels.trace is not None:
        argv += ["-msg", "timestamp=on", "-trace", "fw_cfg_select", "-D", str(channels.trace.absolute())]
    if channels.plugin is not None:
        argv += ["-plugin", channels.plugin]
    if channels.paused:
        argv += ["-S"]
    if spec.firmware is not None:
        argv += ["-bios", str(spec.firmware.absolute())]
    if spec.boot_disk:
        return [*argv, *spec.extra]
    argv += ["-kernel", str(spec.kernel)]
    if spec.initrd is not None:
        argv += ["-initrd", str(spec.initrd)]
    return [*argv, "-append", spec.append, *spec.extra]


def paste(spec: VmSpec, host: Capabilities) -> str:
    """Return the command that boots `spec` in a terminal, quoted for a shell."""
    return shlex.join(argument_list(spec, host))


_HOST_SIDE = re.compile(r"(?:id|chardev|drive|netdev|fsdev|mount_tag|guest-cid|max_ports|ioeventfd)=")
_BUS_CHILDREN = ("virtconsole", "virtserialport")


def device_words(spec: VmSpec) -> tuple[str, ...]:
    """List what of a machine's devices the guest's firmware can see: each device in order, then the spec's options.

    What lies on the host (files, ports, the CID) is left out: no table depends on it.
    """
    argv = [*_console(spec, Channels()), *_disks(spec), *_shares(spec), *_network(spec), *_vsock(spec, Channels())]
    devices = [word for option, word in itertools.pairwise(argv) if option == "-device"]
    devices += [_virtio("virtio-balloon", spec)] if spec.balloon else []
    seen = [",".join(part for part in word.split(",") if not _HOST_SIDE.match(part)) for word in devices]
    return (*(word for word in seen if word not in _BUS_CHILDREN), *spec.extra)


def _machine(spec: VmSpec, host: Capabilities) -> list[str]:
    if spec.td is not None:
        return _td(spec)
    accelerator = accelerator_of(spec, host)
    machine = _MACHINES[spec.machine] + backend_of_machine(spec)
    if accelerator == "kvm":
        # The guide's CPU: `-kvm-steal-time,pmu=off`.
        return ["-accel", "kvm", "-machine", machine, "-cpu", "host,-kvm-steal-time,pmu=off"]
    if spec.clock is Clock.WALL:
        return ["-accel", "tcg", "-machine", machine, "-cpu", "max"]
    # Each byte of `rep movsb` counts as an instruction: without these flags the kernel copies by wide moves instead.
    cpu = ",".join(["max", *(f"-{flag}" for flag in host.string_flags)])
    return ["-accel", "tcg,thread=single", "-machine", machine, "-cpu", cpu]


def _td(spec: VmSpec) -> list[str]:
    """Options of a TD's machine (QEMU: docs/system/i386/tdx.rst; the fork's options are the guide's)."""
    guard = "kernel_irqchip=split,confidential-guest-support=tdx"
    if spec.is_fork:
        size = f"{spec.memory_bytes // (1 << 20)}M"
        argv = ["-object", _fork_guest(spec), "-object", f"memory-backend-memfd-private,id=ram1,size={size}"]
        argv += ["-machine", f"q35,memory-backend=ram1,{guard}", "-no-hpet", "-cpu", "host,-kvm-steal-time,pmu=off"]
    else:
        argv = ["-object", json.dumps(tdx_guest(spec))]
        argv += ["-machine", f"{_MACHINES['q35']}{backend_of_machine(spec)},{guard}", "-cpu", "host,pmu=off"]
    return ["-accel", "kvm", *argv]


def tdx_guest(spec: VmSpec) -> dict[str, object]:
    """Return upstream's tdx-guest object (QEMU: qapi/qom.json, TdxGuestProperties; digests are base64 there)."""
    values: dict[str, object] = {"qom-type": "tdx-guest", "id": "tdx"}
    for name in DIGESTS:
        digest = spec.digest(name)
        if digest is not None:
            values[name] = base64.b64encode(digest).decode()
    bits = spec.attribute_bits
    if bits is not None:
        values["attributes"] = bits
    if spec.sept_ve_disable is not None:
        values["sept-ve-disable"] = spec.sept_ve_disable
    address = quote_address(spec.quote_socket)
    if address is not None:
        values["quote-generation-socket"] = address
    return values


def _fork_guest(spec: VmSpec) -> str:
    """The fork's tdx-guest object, in which digests are hex and the quote service is one word."""
    digests = ((name, spec.digest(name)) for name in DIGESTS)
    words = [f"{name}={digest.hex()}" for name, digest in digests if digest is not None]
    for name, value in (("sept-ve-disable", spec.sept_ve_disable), ("debug", spec.debug)):
        words += [] if value is None else [f"{name}={'on' if value else 'off'}"]
    words += [f"quote-generation-service={spec.quote_socket}"] if spec.quote_socket else []
    return ",".join(["tdx-guest,id=tdx", *words])


def _vsock(spec: VmSpec, channels: Channels) -> list[str]:
    cid = guest_cid(spec, channels.pid)
    return [] if cid is None else ["-device", f"{_virtio('vhost-vsock', spec)},guest-cid={cid}"]


def guest_cid(spec: VmSpec, pid: int) -> int | None:
    """Return the guest's vsock address: the one in the spec, or `pid` in place of 2 and below."""
    if spec.vsock_cid is None:
        return None
    return spec.vsock_cid if spec.vsock_cid > 2 else pid


def _clock(spec: VmSpec) -> list[str]:
    """Options of the instruction clock: 1 ns per instruction, idle time skipped, fixed date and random numbers.

    rr=record is there for the lock that comes with it; its log goes to /dev/null. Without the lock QEMU's main thread
    may skip idle time before the instructions of a vCPU that has just halted are counted, and the clock is wrong by
    those instructions (docs/clocks.md).
    """
    if spec.clock is Clock.WALL:
        return []
    rtc = "base=2000-01-01T00:00:00,clock=vm"
    bus = ["-global", "virtio-mmio.ioeventfd=off"] if spec.machine == "microvm" else []
    return [*bus, "-icount", "shift=0,sleep=off,rr=record,rrfile=/dev/null", "-rtc", rtc, "-seed", str(spec.seed)]


def _console(spec: VmSpec, channels: Channels) -> list[str]:
    """Options of the console: serial port and hvc0 share a transcript, so no output from before hvc0 exists is lost."""
    count = 4 if spec.results_port or channels.exec_fd is not None or channels.terminal_fd is not None else 1
    ports = ["-device", f"{_virtio('virtio-serial', spec)},id=vser,max_ports={count}", "-device"]
    if channels.serial_fd is not None:
        backends = ["-chardev", f"socket,id=serial,fd={channels.serial_fd}"]
        backends += ["-chardev", f"socket,id=hvc,fd={channels.hvc_fd}", "-serial", "chardev:serial"]
        return [*backends, *ports, "virtconsole,chardev=hvc"]
    monitor = ["-monitor", "chardev:mux"]
    if channels.mux_fd is not None:
        backend = f"socket,id=mux,mux=on,fd={channels.mux_fd}"
    elif channels.console is not None:
        backend = f"file,id=mux,mux=on,path={option_value(channels.console)}"
        monitor = []
    else:
        backend = "stdio,id=mux,mux=on,signal=off"
    return ["-chardev", backend, "-serial", "chardev:mux", *ports, "virtconsole,chardev=mux", *monitor]


def _results(spec: VmSpec, channels: Channels) -> list[str]:
    commands: list[str] = []
    ports = {"exec": (channels.exec_fd, EXEC_PORT), "terminal": (channels.terminal_fd, TERMINAL_PORT)}
    for name, (fd, port) in ports.items():
        if fd is not None:
            commands += ["-chardev", f"socket,id={name},fd={fd}"]
            commands += ["-device", f"virtserialport,chardev={name},name={port}"]
    if not spec.results_port:
        return commands
    backend = (
        "file,id=results,path=/dev/null"
        if channels.results_fd is None
        else f"socket,id=results,fd={channels.results_fd}"
    )
    return ["-chardev", backend, "-device", f"virtserialport,chardev=results,name={RESULTS_PORT}", *commands]


def _disks(spec: VmSpec) -> list[str]:
    argv: list[str] = []
    for number, disk in enumerate(spec.disks):
        argv += ["-drive", f"file={option_value(disk.path)},format={disk.format},if=none,id=disk{number},discard=unmap"]
        argv += ["-device", f"{_virtio('virtio-blk', spec)},drive=disk{number}"]
    return argv


def _shares(spec: VmSpec) -> list[str]:
    argv: list[str] = []
    for number, share in enumerate(spec.shares):
        path = option_value(share.host)
        access = "" if share.writable else ",readonly=on"
        argv += ["-fsdev", f"local,id=share{number},path={path},security_model=none,multidevs=remap{access}"]
        argv += ["-device", f"{_virtio('virtio-9p', spec)},fsdev=share{number},mount_tag={share.tag(number)}"]
    return argv


def _network(spec: VmSpec) -> list[str]:
    if not spec.network:
        return ["-nic", "none"]
    rules = "".join(f",hostfwd=tcp:{rule.address}:{rule.host_port}-:{rule.guest_port}" for rule in spec.forwards)
    name = "vm" if spec.td is None else f"td-{spec.td}"
    backend = f"user,id=net,ipv6=off,ipv4=on,hostname={name}{rules}"
    return ["-netdev", backend, "-device", f"{_virtio('virtio-net', spec)},netdev=net"]


def _virtio(name: str, spec: VmSpec) -> str:
    """The device model for the machine's bus.

    ioeventfd=off on the instruction clock makes the device answer in the vCPU's own thread, so that the guest sees no
    host timing. The balloon has no such property and always answers there; for microvm it is a property of the bus, see
    `_clock`.
    """
    if spec.machine == "microvm":
        return f"{name}-device"
    if name.startswith("vhost") or name == "virtio-balloon":
        return f"{name}-pci"
    return f"{name}-pci" + (",ioeventfd=off" if spec.clock is Clock.INSTRUCTIONS else "")


def option_value(path: Path) -> str:
    """Return a path as a value in QEMU's option syntax, where commas are doubled."""
    return str(path.absolute()).replace(",", ",,")
