"""TDs and the guide's variables: specs, their commands, what a host lacks for them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from acon_nb import boot
from acon_nb.cache import sha256_file
from acon_nb.errors import InvalidInput, MissingRequirement
from acon_nb.host import kvm_has_tdx
from acon_nb.initrd import FileTree, create
from acon_nb.td import preflight as launch
from acon_nb.vm import Capabilities, Channels, Clock, Forward, Machine, VmSpec, argument_list, explain
from acon_nb.vm.spec import parse_forward
from tests.unit import bzimages

DATA = Path(__file__).parent / "data"
HOST = Capabilities(qemu=Path("qemu-system-x86_64"), kvm=False, kvm_why="/dev/kvm does not exist")
ABLE = launch.TdHost(kvm=True, kvm_why="", kvm_tdx=True, qemu_version=(10, 1, 0), qemu_tdx=True)
DIGEST = bytes(range(48))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, made the current one, with a kernel, an initrd, a firmware and two disks."""
    bzimages.write(tmp_path / "vmlinuz")
    for name in ("initrd", "OVMF.fd", "a.raw", "b.qcow2"):
        (tmp_path / name).write_bytes(bytes(4096))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def td(**fields: Any) -> VmSpec:
    values = {"kernel": Path("vmlinuz"), "td": "guest", "firmware": Path("OVMF.fd"), "network": True, **fields}
    return VmSpec(**values)


def after(argv: list[str], option: str) -> list[str]:
    return [argv[place + 1] for place, word in enumerate(argv) if word == option]


def test_the_guides_example(folder: Path) -> None:
    variables = {"TD": "1", "RD": "initrd", "DRV": "a.raw,b.qcow2", "TCPFWD": "22222:22,80", "VP": "2", "M": "1g"}
    variables |= {"CID": "5", "BIOS": "OVMF.fd", "KA": "quiet"}
    spec = VmSpec.from_environment(variables, ["vmlinuz", "-name", "x y"])
    assert (spec.td, spec.vcpus, spec.memory_bytes, spec.vsock_cid) == ("1", 2, 1 << 30, 5)
    assert spec.forwards == (Forward(host_port=22222, guest_port=22), Forward(host_port=80, guest_port=80))
    assert [disk.format for disk in spec.disks] == ["raw", "qcow2"]
    assert spec.append == "ip=dhcp console=hvc0 earlyprintk=ttyS0 quiet"
    argv = argument_list(spec, HOST)
    assert argv[-2:] == ["-name", "x y"]
    assert "hostname=td-1" in after(argv, "-netdev")[0]
    assert "vhost-vsock-pci,guest-cid=5" in after(argv, "-device")


def test_the_guides_defaults(folder: Path) -> None:
    spec = VmSpec.from_environment({"BIOS": "OVMF.fd", "TD": "", "CID": "", "M": ""})
    assert (spec.kernel, spec.initrd, spec.memory_bytes) == (Path("vmlinuz"), Path("initrd"), 2 << 30)
    assert (spec.td, spec.vsock_cid, spec.network, spec.timeout_s) == (None, None, True, math.inf)
    argv = argument_list(spec, HOST)
    assert "hostname=vm" in after(argv, "-netdev")[0]
    assert after(argv, "-bios") == [str(folder / "OVMF.fd")]
    assert VmSpec.from_environment({"RD": "-", "BIOS": "-"}).initrd is None
    assert VmSpec.from_environment({"BIOS": "-"}).firmware is None
    assert VmSpec.from_environment({}, machine="microvm").firmware is None


def test_a_small_cid_stands_for_the_process_id(folder: Path) -> None:
    for cid in ("0", "1", "2", "-1"):
        argv = argument_list(VmSpec.from_environment({"CID": cid, "BIOS": "-"}), HOST, Channels(pid=4711))
        assert "vhost-vsock-pci,guest-cid=4711" in after(argv, "-device")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("M", "much"),
        ("M", "1.5"),
        ("M", "4m"),
        ("VP", "two"),
        ("VP", "0"),
        ("VP", "2,sockets"),
        ("VP", "2,sockets=1,"),
        ("VP", "2,sockets=1,file=/etc/passwd"),
        ("CID", "x"),
        ("CID", "99999999999"),
        ("TCPFWD", "22:22:22:22"),
        ("TCPFWD", "ssh"),
        ("TCPFWD", "0:22"),
        ("TCPFWD", "evil,guestfwd=x"),
        ("DRV", "a.img"),
        ("DRV", "a.raw,a.raw"),
        ("DRV", "missing.raw"),
        ("RD", "missing"),
        ("BIOS", "missing"),
        ("TD", "a b"),
        ("TD", "x,hostfwd=tcp::1-:1"),
        ("KA", "x\ny"),
    ],
)
def test_a_bad_variable_is_refused_by_its_own_name_and_value(folder: Path, name: str, value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        VmSpec.from_environment({"BIOS": "OVMF.fd", name: value})
    assert caught.value.field == name
    assert str(caught.value.value) in value
    assert caught.value.hint or caught.value.reason


def test_what_the_command_line_gives_keeps_its_name(folder: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        VmSpec.from_environment({"BIOS": "OVMF.fd", "TD": "x"}, accelerator="tcg")
    assert caught.value.field == "accelerator"


@pytest.mark.parametrize(
    ("drv", "names"),
    [
        ("a.raw, b.raw", ["a.raw", "b.raw"]),
        ("a.raw,,b.raw,", ["a.raw", "b.raw"]),
        ("with, comma/c.raw,a.raw", ["with, comma/c.raw", "a.raw"]),
        (" a.raw ", ["a.raw"]),
    ],
)
def test_images_are_separated_by_commas_and_may_have_one(folder: Path, drv: str, names: list[str]) -> None:
    (folder / "with, comma").mkdir()
    for name in ("a.raw", "b.raw", "with, comma/c.raw"):
        (folder / name).touch()
    spec = VmSpec.from_environment({"BIOS": "-", "DRV": drv})
    assert [str(one.path) for one in spec.disks] == names


def test_vp_may_say_what_qemus_smp_says(folder: Path) -> None:
    spec = VmSpec.from_environment({"BIOS": "-", "VP": "4,sockets=2,threads=2", "M": "1.5g"})
    assert (spec.vcpus, spec.memory_bytes) == (4, 1536 << 20)
    assert after(argument_list(spec, HOST), "-smp") == ["4,sockets=2,threads=2"]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_forward_or_refused(text: str) -> None:
    try:
        rule = parse_forward(text)
    except InvalidInput:
        return
    assert 1 <= rule.host_port <= 65535
    assert not set(rule.address) - set("0123456789.")


_VARIABLES = st.sampled_from(["TD", "VP", "M", "CID", "BIOS", "RD", "KA", "TCPFWD", "DRV"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(variables=st.dictionaries(_VARIABLES, st.text(st.characters(exclude_characters="\0"), max_size=20)))
@example(variables={"KA": "\udcff"})
@example(variables={"KA": "\ud800"})
@example(variables={"DRV": "\udcff.raw"})
@example(variables={"TCPFWD": "٣٣:22"})
@example(variables={"TD": "x\n"})
def test_any_environment_gives_a_spec_or_a_named_refusal(folder: Path, variables: dict[str, str]) -> None:
    try:
        spec = VmSpec.from_environment({"BIOS": "-", **variables})
    except InvalidInput:
        return
    argv = argument_list(spec, HOST)
    plain = argument_list(VmSpec.from_environment({"BIOS": "-"}), HOST)
    added = {"-object", "-bios", "-drive"} | set(plain)
    options = [word for word in argv if word.startswith("-") and word not in (spec.append, str(spec.kernel))]
    assert set(options) <= added, "no variable adds an option"


def check_published(value: dict[str, Any]) -> None:
    """Compare an object with QEMU's published schema of TdxGuestProperties."""
    schema = json.loads((DATA / "tdx_guest_properties.json").read_text())
    assert value.pop("qom-type") == schema["object"]["qom-type"]
    assert isinstance(value.pop("id"), str)
    for name, member in value.items():
        kind = schema["members"][name]
        if kind == "digest":
            assert len(base64.b64decode(member, validate=True)) == 48
        elif kind == "SocketAddress":
            kind_of_socket = member.pop("type")
            assert set(member) == set(schema["SocketAddress"][kind_of_socket])
            assert all(isinstance(word, str) for word in member.values())
        elif kind in ("uint64", "bool"):
            assert type(member) is {"uint64": int, "bool": bool}[kind]
        else:
            raise AssertionError(f"{name} is written by nothing so far: check its type here")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"quote_socket": "vsock:2:4050"},
        {"quote_socket": "unix:/run/a,b c.sock", "mrconfigid": DIGEST.hex()},
        {"mrowner": base64.b64encode(DIGEST).decode(), "mrownerconfig": "00" * 48},
        {"attributes": "0x8000000050000000", "sept_ve_disable": True},
        {"sept_ve_disable": False},
    ],
)
def test_upstreams_td_has_the_published_form(folder: Path, fields: dict[str, str]) -> None:
    argv = argument_list(td(**fields), HOST)
    (guest,) = after(argv, "-object")
    check_published(json.loads(guest))
    assert after(argv, "-machine") == ["q35,hpet=off,kernel_irqchip=split,confidential-guest-support=tdx"]
    assert after(argv, "-cpu") == ["host,pmu=off"]
    assert after(argv, "-accel") == ["kvm"]
    assert not {"-no-hpet", "-drive", "-pflash"} & set(argv)


def test_digests_reach_qemu_as_they_were_given(folder: Path) -> None:
    for text in (DIGEST.hex(), DIGEST.hex().upper(), base64.b64encode(DIGEST).decode()):
        (guest,) = after(argument_list(td(mrconfigid=text), HOST), "-object")
        assert base64.b64decode(json.loads(guest)["mrconfigid"]) == DIGEST
        fork = after(argument_list(td(mrconfigid=text, td_flavour="fork"), HOST), "-object")[0]
        assert f"mrconfigid={DIGEST.hex()}" in fork.split(",")


def test_the_forks_td_is_the_guides(folder: Path) -> None:
    argv = argument_list(td(td_flavour="fork", quote_socket="vsock:2:4050", memory_bytes=1 << 30), HOST)
    assert after(argv, "-object") == [
        "tdx-guest,id=tdx,quote-generation-service=vsock:2:4050",
        "memory-backend-memfd-private,id=ram1,size=1024M",
    ]
    assert after(argv, "-m") == ["1024M"]
    guard = "kernel_irqchip=split,confidential-guest-support=tdx"
    assert after(argv, "-machine") == [f"q35,memory-backend=ram1,{guard}"]
    assert after(argv, "-cpu") == ["host,-kvm-steal-time,pmu=off"]
    assert "-no-hpet" in argv


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("firmware", {"firmware": None}),
        ("machine", {"machine": "microvm", "firmware": None}),
        ("clock", {"clock": Clock.INSTRUCTIONS}),
        ("accelerator", {"accelerator": "tcg"}),
        ("td_flavour", {"td_flavour": "downstream"}),
        ("quote_socket", {"quote_socket": "tcp:1.2.3.4:5"}),
        ("quote_socket", {"quote_socket": "unix:/x", "td_flavour": "fork"}),
        ("mrowner", {"mrowner": "00" * 47}),
        ("mrowner", {"mrowner": "not base64!"}),
        ("debug", {"debug": True}),
        ("attributes", {"attributes": "0x1"}),
        ("attributes", {"attributes": "much"}),
        ("attributes", {"attributes": "0x1" + "0" * 16}),
        ("attributes", {"attributes": "0x10000000", "td_flavour": "fork"}),
        ("sept_ve_disable", {"attributes": "0x10000000", "sept_ve_disable": False}),
        ("attributes", {"td": None, "attributes": "0x10000000"}),
        ("debug", {"td": None, "debug": True}),
        ("hugepages", {"td_flavour": "fork", "hugepages": "2M"}),
        ("td", {"td": ""}),
        ("td", {"td": "-x"}),
        ("mrconfigid", {"td": None, "mrconfigid": "00" * 48}),
        ("td_flavour", {"td": None, "td_flavour": "fork"}),
        ("memory_bytes", {"memory_bytes": 48 << 20}),
        ("memory_bytes", {"memory_bytes": (1 << 30) + 1}),
    ],
)
def test_a_td_that_cannot_be_is_refused(folder: Path, field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        td(**values)
    assert caught.value.field == field
    assert caught.value.hint


def test_a_td_does_not_start_without_kvm(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="/dev/kvm does not exist") as caught:
        Machine(td(), host=HOST, folder=folder / "run")
    assert caught.value.field == "td"


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ({"kvm": False, "kvm_why": "/dev/kvm does not exist"}, "KVM (/dev/kvm does not exist)"),
        ({"kvm_tdx": False}, "TDX in the host's KVM"),
        ({"qemu_tdx": False, "qemu_version": (7, 2, 0)}, "tdx-guest in QEMU (this is 7.2.0)"),
        ({"qemu_version": (7, 0, 50)}, "td_flavour"),
    ],
)
def test_what_a_host_lacks_for_a_td_is_reported_before_the_start(
    folder: Path, lack: dict[str, Any], words: str
) -> None:
    found = launch.refusals(td(), replace(ABLE, **lack))
    assert words in found[0].what
    assert all(error.hint for error in found)


def test_a_firmware_that_is_not_a_tdvf_is_refused(folder: Path) -> None:
    found = launch.refusals(td(), ABLE)
    assert [getattr(error, "field", "") for error in found] == ["firmware"]
    assert "no TDX metadata" in found[0].what


@pytest.mark.parametrize(("path", "good"), [("/usr/share/ovmf/OVMF.fd", True), ("/usr/share/OVMF/OVMF_CODE.fd", False)])
def test_debians_firmware(folder: Path, path: str, good: bool) -> None:
    if not Path(path).is_file():
        pytest.skip("ovmf is not installed")
    found = launch.refusals(td(firmware=Path(path)), ABLE)
    assert [getattr(error, "field", "") for error in found] == ([] if good else ["firmware"])
    assert good or "split image" in found[0].what


def test_a_plain_vm_needs_nothing_of_tdx(folder: Path) -> None:
    assert launch.refusals(VmSpec(kernel=Path("vmlinuz"))) == []


def test_a_host_without_vhost_vsock_gets_a_hint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acon_nb.vm import preflight

    with pytest.raises(MissingRequirement, match="No such file") as caught:
        preflight.check_cid(5, folder / "vhost-vsock")
    assert "modprobe vhost_vsock" in caught.value.hint


def test_a_device_that_is_not_kvm_has_no_tdx(folder: Path) -> None:
    assert not kvm_has_tdx(folder / "none")
    assert not kvm_has_tdx(folder / "initrd")


def specs(folder: Path) -> list[VmSpec]:
    kernel = Path("vmlinuz")
    return [
        VmSpec(kernel=kernel),
        VmSpec(kernel=kernel, clock=Clock.INSTRUCTIONS, balloon=True),
        VmSpec(kernel=kernel, machine="microvm", network=True),
        VmSpec(kernel=kernel, machine="microvm", clock=Clock.INSTRUCTIONS),
        VmSpec.from_environment(
            {"DRV": "a.raw", "CID": "7", "BIOS": "OVMF.fd", "TCPFWD": "80"}, ["vmlinuz", "-name", "x"]
        ),
        td(quote_socket="vsock:2:4050"),
        td(td_flavour="fork"),
    ]


def test_every_option_is_explained_with_its_source(folder: Path) -> None:
    ways = [
        Channels(),
        Channels(console=folder / "c", trace=folder / "t", paused=True, qmp_fd=3, results_fd=4, commands_fd=9),
    ]
    ways += [Channels(mux_fd=5), Channels(serial_fd=5, hvc_fd=6)]
    for spec in specs(folder):
        for kvm in (True, False):
            host = replace(HOST, kvm=kvm)
            for channels in ways:
                rows = explain(spec, host, channels)
                words = [word for row in rows for word in (row.option, row.value) if word]
                assert words == argument_list(spec, host, channels)[1:]
                own = rows[: len(rows) - len(spec.extra)]
                assert all(row.why and row.today and row.source.startswith("https://") for row in own)


def test_the_guides_open_questions_are_answered(folder: Path) -> None:
    rows = {row.option: row for row in explain(td(td_flavour="fork"), HOST)}
    assert "I/O APIC" in rows["-machine"].today
    assert "kernel_irqchip" in rows["-machine"].guide
    assert "vCPU was ready to run but did not" in rows["-cpu"].today
    assert "performance counters" in rows["-cpu"].today


def test_a_benchs_hash_does_not_know_fields_that_are_not_set(folder: Path) -> None:
    """The hash of kept results, as it was before a spec could be a TD; their initrds report themselves."""
    tree = FileTree()
    for name in ("init", "acon/boot-report"):
        tree.add_file(name, b"", mode=0o755)
    Path("initrd").unlink()
    create(tree, Path("initrd"))
    cell = boot.BootCell(name="x", kernel=Path("vmlinuz"), initrd=Path("initrd"), clock=Clock.WALL, tsc_khz=1)
    names = (
        "append memory_bytes vcpus machine accelerator clock seed disks network forwards results_port timeout_s extra"
    )
    spec = cell.spec()
    values = {name: str(getattr(spec, name)) for name in names.split()}
    values |= {name: sha256_file(Path(path)) for name, path in (("kernel", "vmlinuz"), ("initrd", "initrd"))}
    values["append"] = values["append"].replace("tsc_early_khz=1", "")
    assert boot.spec_hash(cell) == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    assert boot.spec_hash(replace(cell, vcpus=2)) != boot.spec_hash(cell)


def test_a_benchs_hash_does_not_know_the_measured_rate_of_the_hosts_clock(folder: Path) -> None:
    cell = boot.BootCell(name="x", kernel=Path("vmlinuz"), initrd=Path("initrd"))
    first = boot.spec_hash(replace(cell, append="tsc_early_khz=2596194"))
    assert first == boot.spec_hash(replace(cell, append="tsc_early_khz=2596221"))
