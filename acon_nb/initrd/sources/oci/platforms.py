"""Platforms of images: their grammar, what this machine runs, and which variant is the best of those.

Sources: the OCI image specification (image-index.md, "platform"), containerd's platforms package (the grammar
OS/ARCHITECTURE[/VARIANT], its aliases and defaults), the x86-64 psABI (micro-architecture levels).
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput, TreeError

_NAMES = "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x"
_ALIASES = {
    "i386": ("386", ""),
    "i686": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "loongarch64": ("loong64", ""),
}
# The variant that an architecture without one stands for
_DEFAULTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_VARIANTS = {"amd64": ("v1", "v2", "v3", "v4"), "arm": ("v5", "v6", "v7", "v8")}
# Flags of /proc/cpuinfo that each level adds to the one below
_LEVELS = (
    ("v2", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"),
    ("v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("v4", "avx512bw avx512cd avx512dq avx512f avx512vl"),
)
_32_BIT = {"amd64": ("386", "CONFIG_IA32_EMULATION"), "arm64": ("arm", "CONFIG_COMPAT")}
_WORD = re.compile(r"[a-z0-9_.-]{1,32}")
_HINT = "OS/ARCHITECTURE[/VARIANT], such as linux/amd64, linux/amd64/v3, linux/arm64 or linux/arm/v7"


@dataclass(frozen=True)
class ImagePlatform:
    """A platform as in `linux/arm/v7`; a variant that the architecture implies is omitted (amd64/v1, arm64/v8)."""

    architecture: str
    variant: str = ""
    os: str = "linux"

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @classmethod
    def parse(cls, text: str) -> ImagePlatform:
        """Parse the value of `--platform`. Errors: `InvalidInput`."""
        parts = text.strip().lower().split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        name, variant = _ALIASES.get(parts[1], (parts[1], ""))
        if len(parts) > 3 or not all(map(_WORD.fullmatch, parts)):
            raise InvalidInput("platform", text, "is not a platform", hint=_HINT)
        if parts[0] != "linux":
            raise InvalidInput("platform", text, "is not a platform of Linux, which an initrd needs", hint=_HINT)
        if name not in _NAMES.split():
            hint = f"one of {_NAMES.replace(' ', ', ')}"
            raise InvalidInput("platform", text, f"has the unknown architecture {name!r}", hint=hint)
        chosen = _normal(name, parts[2] if len(parts) == 3 else variant)
        known = _VARIANTS.get(name, ())
        if known and chosen.variant and chosen.variant not in known:
            hint = f"one of {', '.join(known)}"
            raise InvalidInput("platform", text, f"has the unknown variant {parts[2]!r} of {name}", hint=hint)
        return chosen

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> ImagePlatform | None:
        """Read the platform of a descriptor or of a configuration; None if it names none."""
        values = [record.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(value, str) and _WORD.fullmatch(value.lower() or "-") for value in values):
            raise TreeError(f"the archive names the invalid platform {values!r:.200}", hint="create the archive again")
        system, name, variant = (value.lower() for value in values)
        if not system and not name:
            return None
        return _normal(name, variant, system or "linux")

    @property
    def is_unknown(self) -> bool:
        """Whether it is the platform that BuildKit gives to attestations."""
        return "unknown" in (self.os, self.architecture)

    def runnable(self) -> list[ImagePlatform]:
        """List the platforms of its own architecture whose programs it runs, the best first."""
        order = _VARIANTS.get(self.architecture, ())
        level = self.variant or _DEFAULTS.get(self.architecture, "")
        if level not in order:
            return [self]
        return [_normal(self.architecture, variant) for variant in reversed(order[: order.index(level) + 1])]

    def runnable_here(self) -> list[ImagePlatform]:
        """List the platforms whose programs a machine of this platform runs; the 32-bit ones come last."""
        other, _ = _32_BIT.get(self.architecture, ("", ""))
        if not other:
            return self.runnable()
        return [*self.runnable(), *ImagePlatform(other, "v8" if other == "arm" else "").runnable()]


def _normal(architecture: str, variant: str, system: str = "linux") -> ImagePlatform:
    name, implied = _ALIASES.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant.isdigit():
        variant = f"v{variant}"
    if name == "arm":
        variant = variant or "v7"
    elif variant == _DEFAULTS.get(name):
        variant = ""
    return ImagePlatform(name, variant, system)


def of_this_machine(machine: str = "", cpuinfo: str | None = None) -> ImagePlatform:
    """Return the platform of this machine, with the highest level of its CPU as the variant."""
    name, variant = _ALIASES.get(machine or platform.machine(), (machine or platform.machine(), ""))
    if name == "amd64":
        variant = _level(_flags(cpuinfo))
    return _normal(name, variant)


def _flags(cpuinfo: str | None) -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    except OSError:
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def _level(flags: set[str]) -> str:
    reached = "v1"
    for level, needed in _LEVELS:
        if not flags.issuperset(needed.split()):
            break
        reached = level
    return reached


def warning(chosen: ImagePlatform, machine: ImagePlatform) -> str:
    """Return what a user should know before booting an image of this platform on this machine, or ""."""
    if chosen not in machine.runnable_here():
        return f"the image is for {chosen}, whose programs this machine ({machine}) does not run"
    if chosen.architecture != machine.architecture:
        option = _32_BIT[machine.architecture][1]
        return f"the image is for {chosen}: its programs need a guest kernel with {option}"
    if chosen.architecture == "amd64" and chosen.variant == "v4" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return f"the image is for {chosen}, but there is no KVM here, and guests that QEMU emulates have no AVX-512"
    return ""
