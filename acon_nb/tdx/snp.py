"""The launch digest of an SEV-SNP guest that boots the same files: what AMD's firmware measures of its initial memory.

The arithmetic is that of sev-snp-measure, a library by IBM and AMD's virtee project. No SEV-SNP machine was at hand: no
digest was compared with an attestation report. Sources: AMD, "SEV Secure Nested Paging Firmware ABI Specification";
QEMU target/i386/sev.c (the table of hashes).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from acon_nb.errors import InvalidInput, MissingRequirement
from acon_nb.validation import Meta, check_fields

DEFAULT_CPU = "EPYC-v4"
_FEATURES_LIMIT = (1 << 63) - 1
_IMAGE_LIMIT_BYTES = 64 << 20
_FIRMWARE = "an OVMF built from OvmfPkg/AmdSev, such as Debian's OVMF.amdsev.fd; --no-kernel-hashes for others"
_FAILURES = (RuntimeError, ValueError, LookupError, AttributeError, AssertionError, struct.error)


@dataclass(frozen=True, kw_only=True)
class SnpInputs:
    """What an SEV-SNP guest of QEMU starts with.

    `vcpu_type` is QEMU's name of the CPU model, which decides the signature that each vCPU starts with.
    `guest_features` are the bits of SEV_FEATURES (1: SEV-SNP alone). `kernel_hashes` is QEMU's option of that name: the
    firmware checks kernel, initrd and command line against hashes that are measured. Errors: `InvalidInput` at
    construction.
    """

    firmware: Path
    kernel: Path
    initrd: Path | None = None
    append: str = ""
    vcpus: Annotated[int, Meta(ge=1, le=4096)] = 1
    vcpu_type: str = DEFAULT_CPU
    guest_features: Annotated[int, Meta(ge=0, le=_FEATURES_LIMIT)] = 1
    kernel_hashes: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("firmware", "kernel", "initrd"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise InvalidInput(name, path, "is not a file", hint="give an existing file")
        size = self.firmware.stat().st_size
        if not 4096 <= size <= _IMAGE_LIMIT_BYTES or size % 4096:
            raise InvalidInput("firmware", self.firmware, f"has {size} bytes: not an image of OVMF", hint=_FIRMWARE)
        if not self.append.isprintable() or not _is_text(self.append):
            hint = "use UTF-8 without control characters"
            raise InvalidInput("append", self.append, "is not a command line that can be hashed here", hint=hint)


@dataclass(frozen=True, kw_only=True)
class SnpPrediction:
    """The launch digest of `inputs`, the field MEASUREMENT of an attestation report, and notes for a person."""

    inputs: SnpInputs
    launch_digest: bytes
    notes: tuple[str, ...]


def vcpu_types() -> tuple[str, ...]:
    """Return the CPU models whose signature is known. Errors: `MissingRequirement`."""
    return tuple(_library()[1])


def predict_snp(inputs: SnpInputs) -> SnpPrediction:
    """Predict the launch digest of an SEV-SNP guest.

    Errors: `InvalidInput` (firmware without what SEV-SNP needs, an unknown CPU type), `MissingRequirement` without
    sev-snp-measure.
    """
    calculate, signatures = _library()
    if inputs.vcpu_type not in signatures:
        hint = f"one of {', '.join(signatures)}"
        raise InvalidInput("vcpu_type", inputs.vcpu_type, "is not a CPU model whose signature is known", hint=hint)
    hashed = inputs.kernel_hashes
    try:
        digest = calculate(
            inputs.vcpus,
            signatures[inputs.vcpu_type],
            str(inputs.firmware),
            str(inputs.kernel) if hashed else "",
            str(inputs.initrd) if hashed and inputs.initrd is not None else "",
            inputs.append if hashed else "",
            inputs.guest_features,
            "",
        )
    except _FAILURES as error:
        reason = f"cannot start such an SEV-SNP guest: {error or type(error).__name__}"
        raise InvalidInput("firmware", inputs.firmware, reason, hint=_FIRMWARE) from error
    return SnpPrediction(inputs=inputs, launch_digest=bytes(digest), notes=tuple(_notes(inputs)))


def as_json_values(prediction: SnpPrediction) -> dict[str, object]:
    """Return a prediction as JSON values."""
    inputs = prediction.inputs
    return {
        "tee": "sev-snp",
        "launch_digest": prediction.launch_digest.hex(),
        "vcpus": inputs.vcpus,
        "vcpu_type": inputs.vcpu_type,
        "guest_features": inputs.guest_features,
        "kernel_hashes": inputs.kernel_hashes,
        "notes": list(prediction.notes),
    }


def _notes(inputs: SnpInputs) -> Iterator[str]:
    yield "No SEV-SNP machine was at hand: this digest was not compared with an attestation report."
    if not inputs.kernel_hashes:
        yield "Kernel, initrd and command line are not covered (QEMU's kernel-hashes=off): the host may change them."


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _library() -> tuple[Callable[..., bytes], dict[str, int]]:
    try:
        from sevsnpmeasure import guest, vcpu_types
    except ImportError as error:
        hint = "pip install 'acon-nb[snp]'"
        raise MissingRequirement("sev-snp-measure", "the launch digest of SEV-SNP guests", hint=hint) from error
    return guest.snp_calc_launch_digest, dict(vcpu_types.CPU_SIGS)
