"""A spec and a host's capabilities -> QEMU's argument list. Starts nothing, looks at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.vm.spec import Clock, VmSpec

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
    results_fd: int | None = None
    trace: Path | None = None
    paused: bool = False


def accelerator_of(spec: VmSpec, host: Capabilities) -> str:
    """The accelerator that `spec` gets on this host. Errors: `InvalidInput` when it asks for a KVM that fails."""
    if spec.clock is Clock.INSTRUCTIONS or spec.accelerator == "tcg":
        return "tcg"
    if spec.accelerator == "kvm" and not host.kvm:
        raise InvalidInput("accelerator", "kvm", host.kvm_why, hint="use accelerator=tcg; see acon-nb doctor")
    return "kvm" if host.kvm else "tcg"


def argument_list(spec: VmSpec, host: Capabilities, channels: Channels = Channels()) -> list[str]:
    """QEMU's argument list for `spec`."""
    argv = [str(host.qemu), "-nodefaults", "-display", "none", "-no-reboot"]
    argv += _machine(spec, host) + _clock(spec)
    argv += ["-smp", str(spec.vcpus), "-m", f"{spec.memory_bytes // (1 << 20)}M"]
    argv += _console(spec, channels) + _results(spec, channels)
    argv += _disks(spec) + _network(spec)
    if channels.qmp_fd is not None:
        argv += ["-chardev", f"socket,id=qmp,fd={channels.qmp_fd}", "-mon", "chardev=qmp,mode=control"]
    if channels.trace is not None:
        argv += ["-msg", "timestamp=on", "-trace", "fw_cfg_select", "-D", str(channels.trace.absolute())]
    if channels.paused:
        argv += ["-S"]
    argv += ["-kernel", str(spec.kernel)]
    if spec.initrd is not None:
        argv += ["-initrd", str(spec.initrd)]
    return [*argv, "-append", spec.append, *spec.extra]


def _machine(spec: VmSpec, host: Capabilities) -> list[str]:
    accelerator = accelerator_of(spec, host)
    machine = _MACHINES[spec.machine]
    if accelerator == "kvm":
        # The guide's CPU: `-kvm-steal-time,pmu=off`.
        return ["-accel", "kvm", "-machine", machine, "-cpu", "host,-kvm-steal-time,pmu=off"]
    accel = "tcg,thread=single" if spec.clock is Clock.INSTRUCTIONS else "tcg"
    return ["-accel", accel, "-machine", machine, "-cpu", "max"]


def _clock(spec: VmSpec) -> list[str]:
    """The instruction clock: 1 ns an instruction, idle time skipped, date and random numbers held still."""
    if spec.clock is Clock.WALL:
        return []
    rtc = "base=2000-01-01T00:00:00,clock=vm"
    return ["-icount", "shift=0,sleep=off", "-rtc", rtc, "-seed", str(spec.seed)]


def _console(spec: VmSpec, channels: Channels) -> list[str]:
    """The serial port and hvc0 share one transcript, so that nothing said before hvc0 exists is lost."""
    ports = ["-device", f"{_virtio('virtio-serial', spec)},id=vser,max_ports=4", "-device"]
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
    backend = f"user,id=net,ipv6=off,ipv4=on,hostname=vm{rules}"
    return ["-netdev", backend, "-device", f"{_virtio('virtio-net', spec)},netdev=net"]


def _virtio(name: str, spec: VmSpec) -> str:
    """The device model for the machine's bus.

    ioeventfd=off on the instruction clock: the device answers in the vCPU's own thread, and no host timing is seen.
    """
    if spec.machine == "microvm":
        return f"{name}-device"
    return f"{name}-pci" + (",ioeventfd=off" if spec.clock is Clock.INSTRUCTIONS else "")


def _value(path: Path) -> str:
    """A path as a value of QEMU's option syntax, in which a comma is written twice."""
    return str(path.absolute()).replace(",", ",,")
