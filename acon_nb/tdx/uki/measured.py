"""The events of a UKI: those of systemd-stub, then those of the EFI stub of the kernel in it, in order.

A TD has all of them in RTMR[2], a TPM in PCRs 11 (sections), 12 (a command line that was given, and the profile) and 9
(the kernel's). systemd-stub uses a TPM if there is one, else the CC protocol; of the events that it marks by a tag a TD
has none, since it measures those into a TPM alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from acon_nb.errors import InvalidInput
from acon_nb.tdx import smbios
from acon_nb.tdx.kernel_image import KernelFile
from acon_nb.tdx.predicted import PredictedEvent, given, hashed
from acon_nb.tdx.uki.image import CHOSEN, UNMEASURED, Uki, command_line, trimmed

_PROFILE = re.compile(r"@([0-9]{1,9})(?: |$)")
_CONSOLE = re.compile(r"(?:^| )console=")
_IGNORED_IN_TDS = 254  # systemd-stub: the first that ignores the given command line in a TD with secure boot on
_SMBIOS_TYPES = (1, 2, 11)
_WAKE_UP = 24  # of type 1: how the machine was switched on
_READS_ALL = 257  # the last that looks at the first character alone to tell a command line from other data


@dataclass(frozen=True)
class KernelStart:
    """How the stub starts the kernel: the profile, the command line that was given and is used, and the kernel's.

    `given` is None if none was given or the stub ignores it; `line` is None if the kernel gets none, or if `why` says
    why it cannot be known.
    """

    profile: int
    given: str | None
    line: str | None
    why: str = ""


def start_of(uki: Uki, append: str, *, secure_boot: bool, td: bool) -> KernelStart:
    """Return how the stub of a UKI starts the kernel, given QEMU's -append. Errors: `InvalidInput`."""
    text = append.encode(errors="surrogateescape").decode("latin-1")  # as the firmware widens it
    if uki.release > _READS_ALL and any(character < " " for character in text):
        hint = "use spaces"
        raise InvalidInput("append", append, "has control characters, which newer stubs do not accept", hint=hint)
    text_given, profile, custom = text, 0, None
    if text and text[0] > "\x1f":
        match = _PROFILE.match(text) if uki.has_profiles else None
        if match is not None:
            profile, text = int(match[1]), text[match.end() :]
        custom = trimmed(text, both_ends=uki.trims_start)
        if uki.has_profiles and not custom:
            custom = None
    sections = uki.sections(profile)
    own = sections.get(".cmdline")
    if custom is not None and secure_boot and (own is not None or (td and uki.release >= _IGNORED_IN_TDS)):
        custom = None
    line, why = custom, ""
    if custom is None and own is not None:
        decoded = command_line(own)
        line = None if decoded is None else trimmed(decoded, both_ends=uki.trims_start)
        why = "the UKI's .cmdline is not UTF-8 of 16 bits" if decoded is None else ""
    if line is None and not why and not uki.loads_kernel:
        line = text_given  # the kernel takes over the stub's own image handle, with what the firmware gave it
    if uki.adds_console and not why and not _CONSOLE.search(line or ""):
        line, why = None, "systemd-stub adds console= for the guest's devices to a command line without: write it there"
    return KernelStart(profile, custom, line, why)


def td_uki_events(uki: Uki, kernel: KernelFile, start: KernelStart, *, from_disk: bool) -> Iterator[PredictedEvent]:
    """Yield what a UKI measures in a TD, in order."""
    if uki.measures_cc:
        yield from _sections(uki, start, "RTMR[2]")
        yield from _given(start, "RTMR[2]")
    if kernel.measures_cc:
        yield from _kernel(uki, start, "RTMR[2]", from_disk=from_disk)


def tpm_uki_events(
    uki: Uki, kernel: KernelFile, start: KernelStart, *, from_disk: bool, table: bytes | None
) -> Iterator[PredictedEvent]:
    """Yield what a UKI measures into a TPM, in order. `table` are the guest's SMBIOS structures, None if unknown."""
    if uki.measures_tpm:
        if start.profile:
            data = _wide(str(start.profile))
            words = {"what": f"profile @{start.profile} of the UKI", "source": "append", "depends": ("append",)}
            yield hashed("PCR[12]", "EV_EVENT_TAG", "profile of the UKI", data, **words)
        yield from _sections(uki, start, "PCR[11]")
        yield from _given(start, "PCR[12]")
        if uki.measures_smbios:
            yield from _smbios(table)
    if kernel.measures_tpm:
        yield from _kernel(uki, start, "PCR[9]", from_disk=from_disk)


def _sections(uki: Uki, start: KernelStart, register: str) -> Iterator[PredictedEvent]:
    digests, sections = uki.digests(start.profile).sections, uki.sections(start.profile)
    for name, section in sections.items():
        if name == UNMEASURED or (name in CHOSEN and ".hwids" not in sections):
            continue
        words: dict[str, object] = {"source": f"{uki.path.name}, section {name}", "depends": ("kernel",)}
        names = {"what": f"name of the section {name}", **words}
        contents = {"what": f"content of the section {name}", **words}
        labels = f"section {name}: name", f"section {name}: content"
        if name in CHOSEN:
            why = {"why": f"which {name} is used depends on the machine (.hwids)"}
            yield given(register, "EV_IPL", labels[0], None, None, **names, **why)
            yield given(register, "EV_IPL", labels[1], None, None, **contents, **why)
            continue
        yield hashed(register, "EV_IPL", labels[0], name.encode() + b"\0", **names)
        yield given(register, "EV_IPL", labels[1], digests[name], section.size, **contents)


def _given(start: KernelStart, register: str) -> Iterator[PredictedEvent]:
    if start.given is not None:
        words = {"what": "command line that was given to the UKI", "source": "append", "depends": ("append",)}
        yield hashed(register, "EV_IPL", "command line", _wide(start.given), **words)


def _smbios(table: bytes | None) -> Iterator[PredictedEvent]:
    words: dict[str, object] = {"source": "SMBIOS tables that the firmware installed", "depends": ("qemu", "devices")}
    if table is None:
        more = {"what": "SMBIOS structure of type 1", "why": "it identifies the machine; a reference boot reads it"}
        yield given("PCR[1]", "EV_EVENT_TAG", "systemd-stub: smbios:type1", None, None, **words, **more)
        return
    for structure in smbios.structures(table):
        raw = structure.raw
        if structure.kind == 1 and structure.length > _WAKE_UP:
            raw = raw[:_WAKE_UP] + b"\0" + raw[_WAKE_UP + 1 :]
        if structure.kind in _SMBIOS_TYPES:
            label, what = f"systemd-stub: smbios:type{structure.kind}", f"SMBIOS structure of type {structure.kind}"
            yield hashed("PCR[1]", "EV_EVENT_TAG", label, raw, what=what, **words)


def _kernel(uki: Uki, start: KernelStart, register: str, *, from_disk: bool) -> Iterator[PredictedEvent]:
    depends = ("kernel",) if start.given is None else ("append",)
    source = f"{uki.path.name}, section .cmdline" if start.given is None else "append"
    words: dict[str, object] = {"what": "kernel command line in UTF-16", "source": source, "depends": depends}
    if start.why:
        yield given(register, "EV_EVENT_TAG", "command line", None, None, why=start.why, **words)
    elif start.line is not None:
        yield hashed(register, "EV_EVENT_TAG", "command line", _wide(start.line), **words)
    initrd = uki.digests(start.profile).initrd
    words = {"what": "initrd that systemd-stub hands over", "source": f"{uki.path.name}: its initrd and files for it"}
    words["depends"] = ("kernel",)
    if from_disk and uki.makes_secret:
        why = "systemd-stub adds a random secret to the initrd of a UKI that was started from a disk"
        yield given(register, "EV_EVENT_TAG", "initrd", None, None, why=why, **words)
    elif initrd is not None:
        digest, size = initrd
        yield given(register, "EV_EVENT_TAG", "initrd", digest, size, **words)


def _wide(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"
