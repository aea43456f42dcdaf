"""The stack's switches: what a firmware and a QEMU of some version measure, and how, with the commit behind each.

`profiles.toml` holds the facts. An image tells most of them itself (its modules and texts); where it does not, its
release decides, and where that is not known, what was asked for. Nothing is guessed in silence: `Switch.known_by` says
for each switch where it came from.
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
from acon_nb.tdx.volumes import Content

_FACTS = Path(__file__).with_name("profiles.toml")


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One switch: whether it is on, what it means, how that is known, and its source."""

    name: str
    on: bool
    what: str
    known_by: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The switches of one firmware with one QEMU; `edk2` and `qemu` are the versions that were believed ("": none)."""

    edk2: str
    qemu: str
    switches: tuple[Switch, ...]

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        return next(switch.on for switch in self.switches if switch.name == name)

    @property
    def kernel_patched(self) -> bool:
        """Whether the TD's firmware measures the kernel with QEMU's changes in its header."""
        return not (self.kernel_named or self.on("unpatched_td"))

    @property
    def kernel_named(self) -> bool:
        """Whether the firmware takes the kernel from etc/boot/kernel."""
        return self.on("named_kernel") and self.on("offers_kernel")

    @property
    def token(self) -> str:
        """Where OVMF puts its token for the initrd: "prefix" or "suffix"."""
        return "prefix" if self.on("token_first") else "suffix"


def stack(content: Content, *, edk2: str = "", qemu: str = "") -> Stack:
    """The stack of a firmware's content and a QEMU.

    `edk2` is a release such as 202411 (also edk2-stable202411, 2024.11) and `qemu` a version such as 10.1; both may be
    empty. What the image shows wins over a release that it names; a release that was asked for wins over both.
    Errors: `InvalidInput`.
    """
    asked = edk2_release(edk2)
    version = qemu_version(qemu)
    release = asked or content.release
    found = tuple(
        _of_qemu(name, fact, version)
        if fact["part"] == "qemu"
        else _of_edk2(name, fact, content, asked=asked, release=release)
        for name, fact in _facts().items()
    )
    return Stack(edk2=release, qemu=".".join(map(str, version)), switches=found)


def edk2_release(text: str) -> str:
    """A release of edk2 as six digits: 202411 of "edk2-stable202411", "2024.11-1" or "202411"; "" of ""."""
    if not text:
        return ""
    match = re.fullmatch(r"(?:edk2-stable)?(20\d\d)\.?(0[1-9]|1[0-2])(?:[-+.].{0,40})?", text)
    if match is None:
        raise InvalidInput("edk2", text, "is no release of edk2", hint="such as 202411, for edk2-stable202411")
    return match[1] + match[2]


def qemu_version(text: str) -> tuple[int, ...]:
    """QEMU's version as numbers; () of ""."""
    if not text:
        return ()
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,2}", text):
        raise InvalidInput("qemu", text, "is no version of QEMU", hint="such as 10.1 or 7.2.17")
    return tuple(map(int, text.split(".")))


@cache
def _facts() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(_FACTS.read_text())


def _of_qemu(name: str, fact: Mapping[str, Any], version: tuple[int, ...]) -> Switch:
    on = version >= qemu_version(fact["since"])
    known = f"QEMU {'.'.join(map(str, version))}" if version else "QEMU's version is not known: taken as an old one"
    return Switch(name=name, on=on, what=fact["what"], known_by=known, source=fact["source"])


def _of_edk2(name: str, fact: Mapping[str, Any], content: Content, *, asked: str, release: str) -> Switch:
    since, mark = fact.get("since", ""), fact.get("module") or fact.get("text")
    if asked and since:
        on, known = asked >= since, f"edk2 {asked}, as asked for"
    elif mark and content.unpacked:
        on = content.has_module(mark) if "module" in fact else content.has_text(mark)
        known = f"{'module' if 'module' in fact else 'text'} {mark.strip()!r} is {'' if on else 'not '}in the image"
    elif release and since:
        on, known = release >= since, f"the image calls itself {content.version or release}"
    else:
        on, known = _by_others(content)
    return Switch(name=name, on=on, what=fact["what"], known_by=known, source=fact["source"])


def _by_others(content: Content) -> tuple[bool, str]:
    """Of a switch without a mark, in an image without a version: on in what has later things."""
    later = content.has_text(_facts()["named_kernel"]["text"])
    word = "has a thing of 202502" if later else "has nothing of 202502, and names no version"
    return later, f"the image {word}" + ("" if later else ": taken as an older one; edk2=RELEASE says it")
