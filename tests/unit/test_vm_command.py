from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.vm import Capabilities, Channels, Clock, DiskSpec, Forward, VmSpec, argument_list, kernel_words, paste
from acon_nb.vm.spec import identifying_values
from tests.unit import bzimages

TCG = Capabilities(qemu=Path("/usr/bin/qemu-system-x86_64"), kvm=False, kvm_why="/dev/kvm opens, but a guest hangs")
KVM = Capabilities(qemu=Path("/usr/bin/qemu-system-x86_64"), kvm=True)
QMP = '{"execute":"qmp_capabilities"}{"execute":"quit"}'


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "a, b" / "bzImage"
    path.parent.mkdir()
    return bzimages.write(path)


def after(argv: list[str], option: str) -> list[str]:
    return [argv[place + 1] for place, word in enumerate(argv) if word == option]


def test_the_guides_machine(kernel: Path) -> None:
    argv = argument_list(VmSpec(kernel=kernel, memory_bytes=512 << 20, vcpus=2), TCG)
    assert argv[0] == "/usr/bin/qemu-system-x86_64"
    assert after(argv, "-machine") == ["q35,hpet=off"]
    assert after(argv, "-accel") == ["tcg"]
    assert after(argv, "-m") == ["512M"]
    assert after(argv, "-smp") == ["2"]
    assert after(argv, "-nic") == ["none"]
    assert {"-nodefaults", "-no-reboot"} <= set(argv)
    assert not {"-initrd", "-icount", "-S", "-seed", "-drive"} & set(argv)


def test_the_small_machine_has_acpi_and_devices_of_its_own_bus(kernel: Path) -> None:
    argv = argument_list(VmSpec(kernel=kernel, machine="microvm", network=True), TCG)
    (machine,) = after(argv, "-machine")
    assert machine.split(",")[0] == "microvm"
    assert "acpi=on" in machine.split(",")
    assert not [word for word in argv if "-pci" in word]


def test_kvm_is_taken_where_it_works_with_the_guides_cpu(kernel: Path) -> None:
    argv = argument_list(VmSpec(kernel=kernel), KVM)
    assert after(argv, "-accel") == ["kvm"]
    assert after(argv, "-cpu") == ["host,-kvm-steal-time,pmu=off"]
    assert after(argument_list(VmSpec(kernel=kernel, accelerator="tcg"), KVM), "-accel") == ["tcg"]


def test_kvm_that_fails_is_refused_with_the_reason(kernel: Path) -> None:
    with pytest.raises(InvalidInput, match="a guest hangs") as caught:
        argument_list(VmSpec(kernel=kernel, accelerator="kvm"), TCG)
    assert caught.value.field == "accelerator"
    assert "tcg" in caught.value.hint


def test_the_instruction_clock_depends_on_nothing_of_the_host(kernel: Path) -> None:
    argv = argument_list(VmSpec(kernel=kernel, clock=Clock.INSTRUCTIONS, seed=7), KVM)
    assert after(argv, "-accel") == ["tcg,thread=single"]
    assert after(argv, "-icount") == ["shift=0,sleep=off,rr=record,rrfile=/dev/null"]
    assert after(argv, "-rtc") == ["base=2000-01-01T00:00:00,clock=vm"]
    assert after(argv, "-seed") == ["7"]
    assert after(argv, "-cpu") == ["max,-erms,-fsrm"]
    assert argv == argument_list(VmSpec(kernel=kernel, clock=Clock.INSTRUCTIONS, seed=7), TCG)


def test_string_instructions_are_off_on_the_instruction_clock_alone(kernel: Path) -> None:
    later = Capabilities(qemu=Path("qemu"), version=(10, 0, 0), string_flags=("erms", "fsrm", "fzrm"))
    counted = VmSpec(kernel=kernel, clock=Clock.INSTRUCTIONS)
    assert after(argument_list(counted, later), "-cpu") == ["max,-erms,-fsrm,-fzrm"]
    assert after(argument_list(VmSpec(kernel=kernel), later), "-cpu") == ["max"]
    assert identifying_values(counted)["machine_model"]
    assert "machine_model" not in identifying_values(VmSpec(kernel=kernel))


def test_a_kernel_is_told_about_its_clock() -> None:
    assert kernel_words(Clock.WALL, None) == "no_timer_check"
    assert kernel_words(Clock.WALL, 2_445_504) == "no_timer_check tsc=reliable tsc_early_khz=2445504"
    counted = kernel_words(Clock.INSTRUCTIONS, 2_445_504).split()
    assert {"tsc_early_khz=1000000", "nolapic_timer", "no_timer_check", "nokaslr"} <= set(counted)


def test_forwards_are_bound_to_this_host_alone(kernel: Path) -> None:
    forwards = (Forward(host_port=2222, guest_port=22), Forward(host_port=80, guest_port=8080, address="10.0.0.1"))
    argv = argument_list(VmSpec(kernel=kernel, network=True, forwards=forwards), TCG)
    rules = [part for word in argv for part in word.split(",") if part.startswith("hostfwd")]
    assert rules == ["hostfwd=tcp:127.0.0.1:2222-:22", "hostfwd=tcp:10.0.0.1:80-:8080"]


def test_the_results_port_has_the_name_that_the_guest_looks_for(kernel: Path) -> None:
    named = "virtserialport,chardev=results,name=acon.results"
    assert named in argument_list(VmSpec(kernel=kernel), TCG)
    assert named not in argument_list(VmSpec(kernel=kernel, results_port=False), TCG)
    argv = argument_list(VmSpec(kernel=kernel), TCG, Channels(results_fd=7, qmp_fd=8, paused=True))
    assert "socket,id=results,fd=7" in argv
    assert "socket,id=qmp,fd=8" in argv
    assert "-S" in argv


def test_nothing_goes_through_a_shell(kernel: Path) -> None:
    append = "console=ttyS0 'quoted' $(touch /tmp/evil) `id` ; reboot \"x\" a,b"
    argv = argument_list(VmSpec(kernel=kernel, append=append, extra=("-name", "a b")), TCG)
    assert after(argv, "-append") == [append]
    assert argv[-2:] == ["-name", "a b"]
    assert shlex.split(paste(VmSpec(kernel=kernel, append=append), TCG))[-1] == append


def test_relative_paths_are_made_whole(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d.raw").write_bytes(bytes(512))
    (drive,) = after(argument_list(VmSpec(kernel=kernel, disks=(DiskSpec(path=Path("d.raw")),)), TCG), "-drive")
    assert f"file={tmp_path}/d.raw,format=raw" in drive


def test_commas_in_a_disks_path_are_doubled(kernel: Path, tmp_path: Path) -> None:
    path = tmp_path / "a,b=c,readonly=on.raw"
    path.write_bytes(bytes(512))
    argv = argument_list(VmSpec(kernel=kernel, disks=(DiskSpec(path=path),)), TCG)
    assert f"file={tmp_path}/a,,b=c,,readonly=on.raw,format=raw" in after(argv, "-drive")[0]
    assert "virtio-blk-pci,drive=disk0" in argv


def start(spec: VmSpec, channels: Channels) -> subprocess.CompletedProcess[str]:
    """Start QEMU with the guest held still, and quit."""
    binary = shutil.which("qemu-system-x86_64")
    if binary is None:
        pytest.skip("QEMU is not here")
    argv = [*argument_list(spec, Capabilities(qemu=Path(binary)), channels), "-S", "-qmp", "stdio"]
    return subprocess.run(argv, input=QMP, capture_output=True, text=True, timeout=300, check=False)


def test_qemu_itself_finds_every_file_in_a_folder_with_commas_and_spaces(kernel: Path) -> None:
    folder = kernel.parent
    (folder / "initrd").write_bytes(b"x" * 100)
    (folder / "disk,0.raw").write_bytes(bytes(1 << 20))
    disks = (DiskSpec(path=folder / "disk,0.raw"),)
    spec = VmSpec(kernel=kernel, initrd=folder / "initrd", memory_bytes=64 << 20, disks=disks, accelerator="tcg")
    done = start(spec, Channels(console=folder / "console.log"))
    assert done.stderr == ""
    assert done.returncode == 0
    assert (folder / "console.log").exists()


def test_qemu_writes_its_trace_where_it_is_looked_for(kernel: Path) -> None:
    folder = kernel.parent
    spec = VmSpec(kernel=kernel, memory_bytes=64 << 20, accelerator="tcg")
    start(spec, Channels(console=folder / "console.log", trace=folder / "trace"))
    assert (folder / "trace").exists()


@pytest.mark.parametrize("address", ["127.0.0.1", "", "::1"])
def test_qemu_takes_every_address_that_a_forward_takes(kernel: Path, address: str) -> None:
    try:
        rule = Forward(host_port=48123, guest_port=22, address=address)
    except InvalidInput:
        return
    spec = VmSpec(kernel=kernel, memory_bytes=64 << 20, accelerator="tcg", network=True, forwards=(rule,))
    assert start(spec, Channels(console=kernel.parent / "console.log")).stderr == ""
