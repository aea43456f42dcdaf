"""`acon-nb measure predict`, `twin` and `capture`: what a boot must measure."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, print_json
from acon_nb.cli.measure_base import (
    FILE,
    STATUS,
    measure_group,
    names,
    only_option,
    print_comparison,
    print_notes,
    progress,
)
from acon_nb.units import parse_bytes

_NOT_MEASURED = ("TD", "CID", "TCPFWD", "DRV")  # variables of the guide that no measurement depends on


def _guest_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that describe the guest to boot."""
    for option in (
        click.option("--firmware", type=FILE, help="A TDVF; default: BIOS, or OVMF where distributions install it."),
        click.option("--memory", help="For example 2G; default: M, or 2g."),
        click.option("--append", help="The whole kernel command line; default: the guide's, followed by KA."),
        click.option("--initrd", help="The initrd (-: none); default: RD, or initrd."),
        click.argument("kernel", type=FILE, default=Path("vmlinuz")),
    ):
        command = option(command)
    return command


def _boot_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a prediction: the guest, and the versions of firmware and QEMU that the rules depend on."""
    for option in (
        click.option("--uki", type=FILE, help="A UKI instead of KERNEL; --append replaces its command line."),
        click.option("--disk", type=FILE, help="A raw disk image from whose ESP the firmware starts the UKI."),
        click.option("--disk-address", default="2.0", show_default=True, help="For --disk: its PCI device.function."),
        click.option("--qemu", default="", help="QEMU's version; default: one that can start a TD; twin: this host's."),
        click.option("--edk2", default="", help="The firmware's release (202411); default: detected from the image."),
    ):
        command = option(command)
    return _guest_options(command)


@measure_group.command("predict")
@_boot_options
@click.option("--capture", "--acpi", type=FILE, help="A folder of this machine's captured hardware (measure capture).")
@click.option("--cpuid", default="", metavar="EAX:EDX", help="CPUID leaf 1 of the TD's vCPU, which SMBIOS contains.")
@click.option("--shim", type=FILE, help="QEMU's -shim, which firmware with secure boot starts first.")
@click.option("--rvps", type=FILE, help="Also write the known values as a message to Trustee's RVPS.")
@click.option("--xfam", default="", help="For --rvps: XFAM, which depends on the processor (e702060000000000).")
@click.option("--corim", type=FILE, help="Also write the known values as a CoRIM (CBOR), for other verifiers.")
@click.option("--corim-key", type=FILE, help="For --corim: the private key (PEM) that signs it; default: unsigned.")
@click.option("--corim-signer", default="acon-nb", show_default=True, help="For --corim: the name of who signs it.")
@click.option("--snp", is_flag=True, help="Predict the launch digest of an SEV-SNP guest instead.")
@click.option("--vcpu-type", default="EPYC-v4", show_default=True, help="For --snp: QEMU's CPU model.")
@click.option("--guest-features", default="0x1", show_default=True, help="For --snp: SEV_FEATURES.")
@click.option("--kernel-hashes/--no-kernel-hashes", default=True, help="For --snp: QEMU's kernel-hashes; default: on.")
@only_option
@as_json_option
def measure_predict(
    snp: bool,
    vcpu_type: str,
    guest_features: str,
    kernel_hashes: bool,
    capture: Path | None,
    cpuid: str,
    shim: Path | None,
    rvps: Path | None,
    xfam: str,
    corim: Path | None,
    corim_key: Path | None,
    corim_signer: str,
    only: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Predict what a TD that boots KERNEL must measure: MRTD, and each event of RTMR[0..2].

    The guide's variables (BIOS, M, RD, KA; with a capture also VP, CID, DRV) work as for `acon-nb run`. Exit status 3:
    one of the registers to consider cannot be known offline; 5: the firmware's secure boot refuses the kernel. The
    object that --json prints can be stored and passed to `measure compare`. With --snp: the launch digest of an SEV-SNP
    guest of QEMU, which depends on VP too.
    """
    from acon_nb import tdx
    from acon_nb.tdx import reference

    if snp:
        if only or rvps or capture or shim or cpuid or xfam or corim:
            raise click.UsageError("--snp takes none of --only, --rvps, --xfam, --corim, --capture, --cpuid, --shim")
        _print_snp(given, vcpu_type, guest_features, kernel_hashes, as_json)
        return
    if corim_key is not None and corim is None:
        raise click.UsageError("--corim-key needs --corim FILE, which it signs")
    prediction = tdx.predict(_inputs(capture=capture, cpuid=cpuid, shim=shim, **given), on_progress=progress())
    others = {version: tdx.expected(other) for version, other in prediction.other_versions.items()}
    wanted = names(only, ["MRTD", *prediction.registers])
    if rvps is not None:
        xfams = list(tdx.parse_values([f"xfam={xfam}"]).values()) if xfam else []
        also = tuple(others.values())
        values = reference.write_message(rvps, tdx.expected(prediction), only=wanted, xfam=xfams, also=also)
        click.echo(f"{rvps}: {', '.join(values)}", err=True)
        if missing := reference.unmet(values):
            click.echo(f"note: Trustee's default policy also reads {', '.join(missing)}", err=True)
    if corim is not None:
        from acon_nb.tdx.corim import write_corim

        also = tuple(others.values())
        size = write_corim(corim, tdx.expected(prediction), key=corim_key, signer=corim_signer, only=wanted, also=also)
        click.echo(f"{corim}: {size} bytes, {'unsigned' if corim_key is None else 'signed'}", err=True)
    if as_json:
        stack = [asdict(switch) for switch in prediction.material.stack.switches]
        versions = {version: other.as_json()["registers"] for version, other in others.items()}
        print_json({**tdx.expected(prediction).as_json(), "stack": stack, "other_qemu": versions})
    else:
        _print_prediction(prediction)
    considered = [value for name, value in prediction.registers.items() if not wanted or name in wanted]
    sys.exit(STATUS["cannot_know"] if None in considered else 0)


@measure_group.command("twin")
@_boot_options
@click.option(
    "--expect", type=FILE, help="Compare with this stored prediction (--store), not with that of these files."
)
@click.option("--log", type=FILE, help="Save the event log to a file.")
@click.option("--store", type=FILE, help="Save the prediction to a file.")
@click.option(
    "--timeout", "timeout_s", type=float, default=300.0, show_default=True, help="Time limit for the boot, in seconds."
)
@as_json_option
def measure_twin(
    expect: Path | None, log: Path | None, store: Path | None, timeout_s: float, as_json: bool, **given: Any
) -> None:
    """Boot KERNEL as a plain guest with a vTPM (swtpm) on the same firmware; compare its PCRs with the prediction.

    This reference boot needs no TDX hardware. PCR[0], the firmware's own code, is left out: a TD has it in MRTD.
    """
    import json

    from acon_nb import tdx
    from acon_nb.cache import atomic_file
    from acon_nb.td import vtpm

    stored = None if expect is None else tdx.read_side(expect)
    boot = vtpm.run(_inputs(**given), timeout_s=timeout_s, on_progress=progress())
    for path, data in ((log, boot.raw), (store, json.dumps(tdx.expected(boot.prediction).as_json()).encode())):
        if path is not None:
            with atomic_file(path) as temporary:
                temporary.write_bytes(data)
    comparison = boot.comparison if stored is None else tdx.compare(stored, boot.log, only=vtpm.REGISTERS)
    print_comparison(comparison, as_json)
    sys.exit(STATUS[comparison.verdict.value])


@measure_group.command("capture")
@click.argument("folder", type=FILE)
@click.option("--also", multiple=True, metavar="CHANGES", help="Capture another machine too: vcpus=2, memory=4G.")
@_guest_options
def measure_capture(folder: Path, also: tuple[str, ...], **given: Any) -> None:
    """Capture what this host's QEMU gives a guest (ACPI, SMBIOS, fw_cfg) into FOLDER, for `measure predict --capture`.

    It depends on QEMU, firmware, memory and devices (VP, CID, DRV, ... of the guide); FOLDER/manifest.json names them,
    and a prediction for another machine refuses the capture. Boots the firmware under TCG for a few seconds. A quote
    that does not match is also compared with what the machines of --also measure (vcpus=1,memory=4G is one of both).
    """
    from acon_nb.td import capture

    changes = [capture.parse_changes(text) for text in also]
    spec = _spec(given, without=())
    capture.capture(spec, folder, on_progress=progress())
    capture.capture_others(spec, folder, changes, on_progress=progress())
    click.echo(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


@measure_group.command("igvm")
@click.argument("file", type=FILE)
@as_json_option
def measure_igvm(file: Path, as_json: bool) -> None:
    """Compute what an IGVM file measures: SEV-SNP's launch digest, and MRTD if it is for TDX too.

    As coconut-svsm's igvmmeasure does; no hardware was at hand to compare it with.
    """
    from acon_nb.tdx import igvm

    rows = igvm.measure_igvm(file)
    if as_json:
        print_json([{**asdict(row), "platform": row.platform.name, "digest": row.digest.hex()} for row in rows])
        return
    for row in rows:
        name = "MRTD" if row.platform is igvm.Platform.TDX else "launch digest"
        click.echo(f"{row.platform.name:8} {name} {row.digest.hex()}  ({row.measured_pages} of {row.pages} pages)")


measure_group.add_command(measure_capture, "acpi")  # its former name


def _spec(given: dict[str, Any], *, without: tuple[str, ...] = _NOT_MEASURED) -> Any:
    """The guest that the guide's variables and the command line describe; never a TD, which would need KVM."""
    from acon_nb import vm
    from acon_nb.tdx.uki import image

    fields: dict[str, Any] = {"td": None}
    kernel = given["kernel"]
    if "uki" in given and given["uki"] is not None:
        kernel = given["uki"]
        image.require_uki(kernel)
    if image.is_uki(kernel):  # it has both, so the guide's are not meant
        fields |= {"append": "", "initrd": None}
    if given["append"] is not None:
        fields["append"] = given["append"]
    if given["initrd"] is not None:
        fields["initrd"] = None if given["initrd"] == "-" else Path(given["initrd"])
    if given["memory"] is not None:
        fields["memory_bytes"] = parse_bytes(given["memory"], field="memory", bare="M")
    if given["firmware"] is not None:
        fields["firmware"] = given["firmware"]
    environment = {name: value for name, value in os.environ.items() if name not in without}
    return vm.VmSpec.from_environment(environment, [str(kernel)], **fields)


def _inputs(*, capture: Path | None = None, cpuid: str = "", shim: Path | None = None, **given: Any) -> Any:
    from acon_nb import tdx
    from acon_nb.errors import InvalidInput
    from acon_nb.vm.command import device_words

    spec = _spec(given) if capture is None else _spec(given, without=("TD",))
    if spec.firmware is None:
        raise InvalidInput("firmware", None, "a TD needs a TDVF", hint="BIOS=/usr/share/ovmf/OVMF.fd")
    return tdx.BootInputs(
        firmware=spec.firmware,
        kernel=spec.kernel,
        initrd=spec.initrd,
        append=spec.append,
        memory_bytes=spec.memory_bytes,
        edk2=given["edk2"],
        qemu=given["qemu"],
        vcpus=spec.vcpus,
        topology=spec.topology or "",
        devices=device_words(spec),
        capture=capture,
        cpuid=cpuid,
        shim=shim,
        disk=given["disk"],
        disk_address=given["disk_address"],
    )


def _print_snp(given: dict[str, Any], vcpu_type: str, guest_features: str, kernel_hashes: bool, as_json: bool) -> None:
    from acon_nb.errors import InvalidInput
    from acon_nb.tdx.snp import SnpInputs, as_json_values, predict_snp

    spec = _spec(given)
    if spec.firmware is None:
        raise InvalidInput("firmware", None, "an SEV-SNP guest needs an OVMF", hint="BIOS=.../OVMF.amdsev.fd")
    try:
        features = int(guest_features, 0)
    except ValueError as error:
        raise InvalidInput("guest_features", guest_features, "is not a number", hint="such as 0x1") from error
    prediction = predict_snp(
        SnpInputs(
            firmware=spec.firmware,
            kernel=spec.kernel,
            initrd=spec.initrd,
            append=spec.append,
            vcpus=spec.vcpus,
            vcpu_type=vcpu_type,
            guest_features=features,
            kernel_hashes=kernel_hashes,
        )
    )
    if as_json:
        print_json(as_json_values(prediction))
        return
    click.echo(f"launch digest {prediction.launch_digest.hex()}")
    print_notes(prediction.notes)


def _print_prediction(prediction: Any) -> None:
    for order, value in (("per page", prediction.mrtd.per_page), ("per section", prediction.mrtd.per_section)):
        click.echo(f"MRTD     {value.hex()}  ({order})")
    for name, value in prediction.registers.items():
        click.echo(f"{name:8} {value.hex() if value else 'cannot be known offline'}")
    for version, other in prediction.other_versions.items():
        for name, value in other.registers.items():
            if value and value != prediction.registers[name]:
                click.echo(f"{name:8} {value.hex()}  (QEMU {version} or later)")
    for event in prediction.events:
        digest = event.digest.hex()[:16] if event.digest else "?" * 16
        click.echo(f"  {event.register} {digest}  {event.type_name}: {event.what}")
    for reason in dict.fromkeys(event.why for event in prediction.unknown):
        click.echo(f"unknown: {reason}", err=True)
    print_notes(prediction.notes)
