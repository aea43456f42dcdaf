"""Determine what a given firmware and QEMU measure, and how, with the commit behind each switch.

`stacks.toml` holds the facts. A requested release decides first; otherwise the image itself (its modules and strings)
answers most switches, and the release that it names the others. Nothing is guessed silently: `Switch.known_by` states
the basis of each switch.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.tdx.volumes import FirmwareContent

_FACTS = Path(__file__).with_name("stacks.toml")
_FIRST_WITH_TDX = (10, 1)  # QEMU docs/system/i386/tdx.rst


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One switch: whether it is on, what it means, how that is known, and the source of the fact."""

    name: str
    on: bool
    what: str
    known_by: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The switches of one firmware with one QEMU; `edk2` and `qemu` are the assumed versions ("": none)."""

    edk2: str
    qemu: str
    switches: tuple[Switch, ...]

    def on(self, name: str) -> bool:
        """Return whether a switch is on."""
        return next(switch.on for switch in self.switches if switch.name == name)

    @property
    def kernel_patched(self) -> bool:
        """Whether the TD's firmware measures the kernel with QEMU's changes to its header."""
        return not (self.kernel_named or self.on("unpatched_td"))

    @property
    def kernel_named(self) -> bool:
        """Whether the firmware loads the kernel from etc/boot/kernel."""
        return self.on("named_kernel") and self.on("offers_kernel")

    @property
    def token(self) -> str:
        """Where OVMF puts its token for the initrd: "prefix" or "suffix"."""
        return "prefix" if self.on("token_first") else "suffix"


def stack(content: FirmwareContent, *, edk2: str = "", qemu: str = "") -> Stack:
    """Return the stack of a firmware's content and a QEMU.

    `edk2` is a release such as 202411 (also edk2-stable202411, 2024.11) and `qemu` a version such as 10.1; both may be
    empty. The image's modules and strings take precedence over the release that it names; a release given here takes
    precedence over both. Errors: `InvalidInput`.
    """
    requested = edk2_release(edk2)
    version = qemu_version(qemu)
    release = requested or content.release
    switches = tuple(
        _of_qemu(name, fact, version)
        if fact["part"] == "qemu"
        else _of_edk2(name, fact, content, requested=requested, release=release)
        for name, fact in _facts().items()
    )
    return Stack(edk2=release, qemu=".".join(map(str, version)), switches=switches)


def edk2_release(text: str) -> str:
    """Return a release of edk2 as six digits: 202411 for "edk2-stable202411", "2024.11-1", "202411"; "" for ""."""
    if not text:
        return ""
    match = re.fullmatch(r"(?:edk2-stable)?(20\d\d)\.?(0[1-9]|1[0-2])(?:[-+.].{0,40})?", text)
    if match is None:
        raise InvalidInput("edk2", text, "is not a valid release of edk2", hint="such as 202411, for edk2-stable202411")
    return match[1] + match[2]


def qemu_version(text: str) -> tuple[int, ...]:
    """Return QEMU's version as numbers; () for ""."""
    if not text:
        return ()
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,2}", text):
        raise InvalidInput("qemu", text, "is not a valid version of QEMU", hint="such as 10.1 or 7.2.17")
    return tuple(map(int, text.split(".")))


def starts_td(version: str) -> bool:
    """Whether upstream's QEMU of this version can start a TD."""
    return qemu_version(version) >= _FIRST_WITH_TDX


def td_versions() -> tuple[str, ...]:
    """Return the first QEMU that can start a TD, and each later one from which something measured differs."""
    since = {qemu_version(fact["since"]) for fact in _facts().values() if fact["part"] == "qemu"}
    later = sorted(version for version in since if version > _FIRST_WITH_TDX)
    return tuple(".".join(map(str, version)) for version in (_FIRST_WITH_TDX, *later))


@cache
def _facts() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(_FACTS.read_text())


def _of_qemu(name: str, fact: Mapping[str, Any], version: tuple[int, ...]) -> Switch:
    on = version >= qemu_version(fact["since"])
    known = f"QEMU {'.'.join(map(str, version))}" if version else "QEMU's version is unknown: an old one is assumed"
    return Switch(name=name, on=on, what=fact["what"], known_by=known, source=fact["source"])


def _of_edk2(name: str, fact: Mapping[str, Any], content: FirmwareContent, *, requested: str, release: str) -> Switch:
    since, mark = fact.get("since", ""), fact.get("module") or fact.get("text")
    if requested and since:
        on, known = requested >= since, f"edk2 {requested}, as requested"
    elif mark and content.unpacked:
        on = content.has_module(mark) if "module" in fact else content.has_text(mark)
        known = f"{'module' if 'module' in fact else 'text'} {mark.strip()!r} is {'' if on else 'not '}in the image"
    elif release and since:
        on, known = release >= since, f"the image calls itself {content.version or release}"
    else:
        on, known = _from_later_features(content)
    return Switch(name=name, on=on, what=fact["what"], known_by=known, source=fact["source"])


def _from_later_features(content: FirmwareContent) -> tuple[bool, str]:
    """A switch that leaves no trace, in an image without a version: on if the image has a later feature."""
    if content.has_text(_facts()["named_kernel"]["text"]):
        return True, "the image has a feature of 202502"
    return False, "the image lacks features of 202502 and names no version: an older one is assumed (see edk2=RELEASE)"
