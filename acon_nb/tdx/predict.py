"""Predict the measurement of a boot: MRTD and RTMR[0..3], or for the vTPM reference boot a TPM's PCRs.

A register with an event that cannot be known offline has no value: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.tdx.eventlog import ZERO, LogKind, extend
from acon_nb.tdx.events import Variant, td_events, tpm_events
from acon_nb.tdx.inputs import BootInputs, Material, load, of_captured
from acon_nb.tdx.mrtd import Mrtd
from acon_nb.tdx.predicted import PredictedEvent
from acon_nb.tdx.stacks import Stack, stack, td_versions


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a boot must measure. `kind` is whose registers; `mrtd` is None for a TPM; `notes` are caveats.

    `qemu_assumed` is whether the version of QEMU was not given; then `inputs` has the one that was assumed.
    """

    kind: LogKind
    inputs: BootInputs
    variant: Variant
    events: tuple[PredictedEvent, ...]
    mrtd: Mrtd | None
    notes: tuple[str, ...]
    material: Material = field(repr=False, compare=False)
    qemu_assumed: bool = False

    @cached_property
    def registers(self) -> dict[str, bytes | None]:
        """The value of each register after the boot; None if one of its events cannot be known offline."""
        values: dict[str, bytes | None] = {}
        if self.kind is LogKind.TD:
            values = {self.kind.register(index): ZERO for index in self.kind.indexes}
        for event in self.events:
            value = values.get(event.register, ZERO)
            known = value is not None and event.digest is not None
            values[event.register] = extend(value, event.digest) if known else None  # type: ignore[arg-type]
        return values

    @property
    def unknown(self) -> tuple[PredictedEvent, ...]:
        """The events that cannot be known offline."""
        return tuple(event for event in self.events if event.digest is None)

    def with_variant(self, variant: Variant) -> Prediction:
        """Predict the same boot on a stack that behaves differently; no file is read again."""
        return _predict(self.material, self.kind, variant)

    def with_hardware(self, acpi: Mapping[str, bytes], smbios: bytes | None = None) -> Prediction:
        """Predict the same boot with what QEMU gave its guest.

        `acpi` are its tables by the names in `ACPI_FILES` (and `TPM_LOG` for a TPM), `smbios` the SMBIOS structures.
        """
        return _predict(replace(self.material, acpi=acpi, smbios=smbios), self.kind, self.variant)

    @cached_property
    def other_versions(self) -> dict[str, Prediction]:
        """The same boot on each later QEMU with which a register differs, if QEMU's version was assumed."""
        if not self.qemu_assumed:
            return {}
        later = {}
        for version in td_versions()[1:]:
            stack_there = stack(self.material.content, edk2=self.inputs.edk2, qemu=version)
            other = self.with_variant(_variant(stack_there, self.kind))
            if other.registers != self.registers:
                later[version] = other
        return later

    def other_machines(self) -> Iterator[tuple[tuple[str, ...], Prediction]]:
        """Predict the same boot on each other machine of the capture; yield what differs, and the prediction."""
        for words, captured in self.material.others:
            yield words, of_material(of_captured(self.material, captured), self.kind)

    def variants(self) -> Iterator[Prediction]:
        """Predict the same boot on each other stack in use, those with the fewest differences first."""
        others = [
            Variant(token, patched, separator)
            for token in ("suffix", "prefix")
            for patched in (True, False)
            for separator in (True, False)
        ]
        for other in sorted(others, key=lambda it: len(self.variant.differences(it))):
            if other != self.variant:
                yield self.with_variant(other)


def predict(inputs: BootInputs, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> Prediction:
    """Predict what a TD that boots `inputs` must measure: MRTD and RTMR[0..3].

    Without a version of QEMU, that of the capture counts, else the first that can start a TD; see `other_versions`.
    Errors: `InvalidInput` for unsuitable files, `MissingRequirement` without lief.
    """
    material = load(inputs, on_progress=on_progress, cancel=cancel)
    if material.inputs.qemu:
        return of_material(material, LogKind.TD)
    assumed = replace(material, inputs=material.inputs.changed(qemu=td_versions()[0]))
    prediction = replace(of_material(assumed, LogKind.TD), qemu_assumed=True)
    return replace(prediction, notes=(*prediction.notes, *_assumed(prediction)))


def _assumed(prediction: Prediction) -> Iterator[str]:
    first = prediction.inputs.qemu
    text = f"QEMU's version was not given: {first}, the first that can start a TD, is assumed"
    if not prediction.other_versions:
        yield f"{text}; what is known does not differ with a later one."
    for version, other in prediction.other_versions.items():
        names = [name for name, value in other.registers.items() if value != prediction.registers[name]]
        yield f"{text}; with {version} or later {', '.join(names)} has another value, which is given too."


def predict_reference_boot(
    inputs: BootInputs, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> Prediction:
    """Predict the PCRs of a plain guest with a TPM that boots `inputs`. Errors: as for `predict`."""
    return of_material(load(inputs, on_progress=on_progress, cancel=cancel), LogKind.TPM)


def of_material(material: Material, kind: LogKind) -> Prediction:
    """Predict from inputs that were read (`inputs.load`), for the stack that they reveal."""
    return _predict(material, kind, _variant(material.stack, kind))


def _variant(there: Stack, kind: LogKind) -> Variant:
    named = there.kernel_named if kind is LogKind.TPM else not there.kernel_patched
    return Variant(there.token, not named, there.on("separator_rtmr1"))


def _predict(material: Material, kind: LogKind, variant: Variant) -> Prediction:
    """Predict for one stack. Errors: `WillNotBoot`."""
    td = kind is LogKind.TD
    events = tuple(td_events(material, variant) if td else tpm_events(material, variant))
    return Prediction(
        kind=kind,
        inputs=material.inputs,
        variant=variant,
        events=events,
        mrtd=material.mrtd if td else None,
        notes=tuple(_notes(material, kind)),
        material=material,
    )


def _notes(material: Material, kind: LogKind) -> Iterator[str]:
    there, kernel = material.stack, material.kernel
    if kind is LogKind.TD and not there.on("rtmr"):
        yield "This firmware has no module that measures into RTMRs: they stay zero, and only MRTD distinguishes TDs."
    elif kind is LogKind.TD and material.uki is not None and not material.uki.measures_cc:
        yield (
            f"systemd-stub {material.uki.stub} does not support the CC protocol: the UKI's sections and a command line "
            "that it is given are not measured one by one; RTMR[1] has the hash of the whole file."
        )
    elif kind is LogKind.TD and not kernel.measures_cc:
        yield (
            f"The EFI stub of kernel {kernel.release} does not support the CC protocol (Linux 6.9 and later do): "
            "command line and initrd are not measured."
        )
    if kind is LogKind.TD and there.on("rtmr") and not material.content.has_module("TdTcg2Dxe"):
        yield f"This image does not measure RTMRs; the values are what edk2 {there.edk2}, as requested, would measure."
    if kind is LogKind.TPM and not kernel.measures_tpm:
        yield f"The EFI stub of kernel {kernel.release} does not measure: no PCR covers command line and initrd."
    if kind is LogKind.TPM and not material.inputs.qemu:
        yield "QEMU's version was not given: the kernel is assumed to be patched, as old versions do."
    if material.stored_variables and material.content.unpacked and not there.on("secure_boot"):
        names = ", ".join(sorted(name for name, _ in material.stored_variables))
        yield f"This firmware was built without secure boot: it ignores the UEFI variables of its image ({names})."
    for switch in there.switches:
        if switch.name == "separator_rtmr1" and "names no version" in switch.known_by and there.on("rtmr"):
            yield f"It is uncertain where the second separator goes: {switch.known_by}."


def without_initrd(prediction: Prediction) -> Prediction:
    """Predict the same boot without an initrd."""
    material = prediction.material
    inputs = replace(material.inputs, initrd=None)
    return _predict(
        replace(material, inputs=inputs, initrd_digest=None, initrd_bytes=None), prediction.kind, prediction.variant
    )
