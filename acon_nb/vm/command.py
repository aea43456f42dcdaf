"""A spec and a host's capabilities -> QEMU's argument list. Starts nothing, looks at nothing."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.vm.spec import DIGESTS, Clock, VmSpec, quote_address

RESULTS_PORT = "acon.results"
_MACHINES = {
    "q35": "q35,hpet=off",  # the guide's `-no-hpet`, an option that is gone since QEMU 9
    "microvm": "microvm,acpi=on,pit=on,pic=on,rtc=on",
}


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What the host offers: the QEMU binary, its version, and whether a guest runs on KVM (`why` if not)."""

    qemu: Path
    version: tuple[int, int, int] = (7, 2, 0)
    kvm: bool = False
    kvm_why: str = "not probed"


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Where the guest's channels go: descriptors of connected sockets (a `Machine`), else files and the terminal.

    The console is a transcript (`console`), one socket with the monitor on it (`mux_fd`), a socket each for the
    serial port and hvc0, or QEMU's own terminal.
    """

    console: Path | None = None
    mux_fd: int | None = None
    serial_fd: int | None = None
    hvc_fd: int | None = None
    qmp_fd: int | None = None
    commands_fd: int | None = None
    results_fd: int | None = None
    trace: Path | None = None
    paused: bool = False
    pid: int = field(default_factory=os.getpid)  # a CID of 2 or below stands for it


def accelerator_of(spec: VmSpec, host: Capabilities) -> str:
    """The accelerator that `spec` gets on this host. Errors: `InvalidInput` when it asks for a KVM that fails."""
    if spec.td is not None and not host.kvm:
        hint = "a TD needs a TDX machine (see acon-nb doctor); --dry-run shows its command line anywhere"
        raise InvalidInput("td", spec.td, f"KVM is not usable here: {host.kvm_why}", hint=hint)
    if spec.clock is Clock.INSTRUCTIONS or spec.accelerator == "tcg":
        return "tcg"
    if spec.accelerator == "kvm" and not host.kvm:
        raise InvalidInput("accelerator", "kvm", host.kvm_why, hint="use accelerator=tcg; see acon-nb doctor")
    return "kvm" if host.kvm else "tcg"


def argument_list(spec: VmSpec, host: Capabilities, channels: Channels | None = None) -> list[str]:
    """QEMU's argument list for `spec`; that of a TD is made on any host, whatever `host` can do."""
    channels = channels or Channels()
    argv = [str(host.qemu), "-nodefaults", "-display", "none", "-no-reboot"]
    argv += _machine(spec, host) + _clock(spec)
    argv += ["-smp", str(spec.vcpus), "-m", f"{spec.memory_bytes // (1 << 20)}M"]
    argv += _console(spec, channels) + _results(spec, channels)
    argv += _disks(spec) + _network(spec) + _vsock(spec, channels)
    if spec.balloon:
        argv += ["-device", _virtio("virtio-balloon", spec)]
    for name, fd in (("qmp", channels.qmp_fd), ("commands", channels.commands_fd)):
        if fd is not None:
            argv += ["-chardev", f"socket,id={name},fd={fd}", "-mon", f"chardev={name},mode=control"]
    if channels.trace is not None:
        argv += ["-msg", "timestamp=on", "-trace", "fw_cfg_select", "-D", str(channels.trace.absolute())]
    if channels.paused:
        argv += ["-S"]
    if spec.firmware is not None:
        argv += ["-bios", str(spec.firmware.absolute())]
    argv += ["-kernel", str(spec.kernel)]
    if spec.initrd is not None:
        argv += ["-initrd", str(spec.initrd)]
    return [*argv, "-append", spec.append, *spec.extra]


def _machine(spec: VmSpec, host: Capabilities) -> list[str]:
    if spec.td is not None:
        return _td(spec)
    accelerator = accelerator_of(spec, host)
    machine = _MACHINES[spec.machine]
    if accelerator == "kvm":
        # The guide's CPU: `-kvm-steal-time,pmu=off`.
        return ["-accel", "kvm", "-machine", machine, "-cpu", "host,-kvm-steal-time,pmu=off"]
    accel = "tcg,thread=single" if spec.clock is Clock.INSTRUCTIONS else "tcg"
    return ["-accel", accel, "-machine", machine, "-cpu", "max"]


def _td(spec: VmSpec) -> list[str]:
    """The machine of a TD (QEMU: docs/system/i386/tdx.rst; the fork's options are the guide's)."""
    guard = "kernel_irqchip=split,confidential-guest-support=tdx"
    if spec.is_fork:
        size = f"{spec.memory_bytes // (1 << 20)}M"
        argv = ["-object", _fork_guest(spec), "-object", f"memory-backend-memfd-private,id=ram1,size={size}"]
        argv += ["-machine", f"q35,memory-backend=ram1,{guard}", "-no-hpet", "-cpu", "host,-kvm-steal-time,pmu=off"]
    else:
        argv = ["-object", json.dumps(tdx_guest(spec))]
        argv += ["-machine", f"{_MACHINES['q35']},{guard}", "-cpu", "host,pmu=off"]
    return ["-accel", "kvm", *argv]


def tdx_guest(spec: VmSpec) -> dict[str, object]:
    """Upstream's tdx-guest object (QEMU: qapi/qom.json, TdxGuestProperties; digests are base64 there)."""
    values: dict[str, object] = {"qom-type": "tdx-guest", "id": "tdx"}
    for name in DIGESTS:
        digest = spec.digest(name)
        if digest is not None:
            values[name] = base64.b64encode(digest).decode()
    address = quote_address(spec.quote_socket)
    if address is not None:
        values["quote-generation-socket"] = address
    return values


def _fork_guest(spec: VmSpec) -> str:
    """The fork's tdx-guest object: digests are hex there, the quote service one word."""
    digests = ((name, spec.digest(name)) for name in DIGESTS)
    words = [f"{name}={digest.hex()}" for name, digest in digests if digest is not None]
    words += [f"quote-generation-service={spec.quote_socket}"] if spec.quote_socket else []
    return ",".join(["tdx-guest,id=tdx", *words])


def _vsock(spec: VmSpec, channels: Channels) -> list[str]:
    cid = guest_cid(spec, channels.pid)
    return [] if cid is None else ["-device", f"{_virtio('vhost-vsock', spec)},guest-cid={cid}"]


def guest_cid(spec: VmSpec, pid: int) -> int | None:
    """The guest's vsock address: what the spec names, or the process id in place of 2 and below."""
    if spec.vsock_cid is None:
        return None
    return spec.vsock_cid if spec.vsock_cid > 2 else pid


def _clock(spec: VmSpec) -> list[str]:
    """The instruction clock: 1 ns an instruction, idle time skipped, date and random numbers held still.

    rr=record, whose log nobody reads, is for the lock that comes with it: without it QEMU's main thread may skip idle
    time while a vCPU that has just halted is not yet counted, and the clock goes wrong by what it ran (docs/clocks.md).
    """
    if spec.clock is Clock.WALL:
        return []
    rtc = "base=2000-01-01T00:00:00,clock=vm"
    bus = ["-global", "virtio-mmio.ioeventfd=off"] if spec.machine == "microvm" else []
    return [*bus, "-icount", "shift=0,sleep=off,rr=record,rrfile=/dev/null", "-rtc", rtc, "-seed", str(spec.seed)]


def _console(spec: VmSpec, channels: Channels) -> list[str]:
    """The serial port and hvc0 share one transcript, so that nothing said before hvc0 exists is lost."""
    ports = [
        "-device",
        f"{_virtio('virtio-serial', spec)},id=vser,max_ports={4 if spec.results_port else 1}",
        "-device",
    ]
    if channels.serial_fd is not None:
        backends = ["-chardev", f"socket,id=serial,fd={channels.serial_fd}"]
        backends += ["-chardev", f"socket,id=hvc,fd={channels.hvc_fd}", "-serial", "chardev:serial"]
        return [*backends, *ports, "virtconsole,chardev=hvc"]
    monitor = ["-mon", "chardev=mux,mode=readline"]  # the guide's -monitor chardev:mux
    if channels.mux_fd is not None:
        backend = f"socket,id=mux,mux=on,fd={channels.mux_fd}"
    elif channels.console is not None:
        backend = f"file,id=mux,mux=on,path={_value(channels.console)}"
        monitor = []
    else:
        backend = "stdio,id=mux,mux=on,signal=off"
    return ["-chardev", backend, "-serial", "chardev:mux", *ports, "virtconsole,chardev=mux", *monitor]


def _results(spec: VmSpec, channels: Channels) -> list[str]:
    if not spec.results_port:
        return []
    backend = (
        "file,id=results,path=/dev/null"
        if channels.results_fd is None
        else f"socket,id=results,fd={channels.results_fd}"
    )
    return ["-chardev", backend, "-device", f"virtserialport,chardev=results,name={RESULTS_PORT}"]


def _disks(spec: VmSpec) -> list[str]:
    argv: list[str] = []
    for number, disk in enumerate(spec.disks):
        argv += ["-drive", f"file={_value(disk.path)},format={disk.format},if=none,id=disk{number},discard=unmap"]
        argv += ["-device", f"{_virtio('virtio-blk', spec)},drive=disk{number}"]
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

    ioeventfd=off on the instruction clock: the device answers in the vCPU's own thread, and no host timing is seen
    (the balloon has no such property and does so anyway; microvm's is that of its bus, see `_clock`).
    """
    if spec.machine == "microvm":
        return f"{name}-device"
    if name.startswith("vhost") or name == "virtio-balloon":
        return f"{name}-pci"
    return f"{name}-pci" + (",ioeventfd=off" if spec.clock is Clock.INSTRUCTIONS else "")


def _value(path: Path) -> str:
    """A path as a value of QEMU's option syntax, in which a comma is written twice."""
    return str(path.absolute()).replace(",", ",,")
