"""What a set-up needs of a kernel, and whether one has it, by its version and its configuration (knobs.toml)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from acon_nb import kernel
from acon_nb.bootcheck.kernel import read
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.initrd.check import Kernel
from acon_nb.swap import knobs, limits, setups
from acon_nb.swap.factors import SwapFactors

_OWN_COMPRESSORS = (6, 12)  # zram has back ends of its own since this version
_OFF = {"zswap": "N", "shrinker": "N"}  # a kernel without them is one in which they are off
_VERSION = re.compile(r"([0-9]+)\.([0-9]+)")


class Presence(StrEnum):
    """Whether a kernel has what a set-up needs; unknown without its configuration."""

    HAS = "has"
    LACKS = "lacks"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a level of a factor needs for its knob: one option, and the versions in [since, until); "" for none."""

    factor: str
    knob: str
    option: str = ""
    since: str = ""
    until: str = ""

    @property
    def text(self) -> str:
        """In words: "CONFIG_ZRAM_MULTI_COMP, Linux 6.2 or later"."""
        words = [f"CONFIG_{self.option}"] if self.option else []
        words += [f"Linux {self.since} or later"] if self.since else []
        words += [f"Linux before {self.until}"] if self.until else []
        return ", ".join(words)

    def lacking(self, known: Kernel) -> str:
        """What a kernel lacks of it, by the factor; "" for nothing. Options that are not known count as there."""
        version = version_of(known.release)
        if version and self.since and version < version_of(self.since):
            return f"{self.factor} needs Linux {self.since} or later"
        if version and self.until and version >= version_of(self.until):
            return f"{self.factor} needs Linux before {self.until}, which removed it"
        value = known.value(self.option)
        if not self.option or value in (None, "y"):
            return ""
        module = " built in: it is a module, and the guest loads none" if value == "m" else ""
        return f"{self.factor} needs CONFIG_{self.option}{module}"


def needs_of(factors: SwapFactors, release: str = "") -> tuple[Need, ...]:
    """What a cell needs of a kernel of this release ("": of the newest that is known), each once."""
    rows = {row["name"]: row for row in knobs.table()}
    set_knobs = knobs.knobs_of(factors)
    needs = [] if factors.swap == "none" else [_of_factor("swap", "SWAP")]
    for name, value in set_knobs.items():
        row = rows[name]
        if _OFF.get(name) == value:
            continue
        options = [*row.get("needs", []), *_compressor_options(name, value, release)]
        its = {"factor": row["factor"], "knob": name}
        versions = {"since": row.get("since", ""), "until": row.get("until", "")}
        needs += [Need(**its, option=option, **versions) for option in options]
        if name == "zpool":
            allocator = knobs.allocators()[value]
            needs += [Need(**its, option=one, until=allocator.get("until", "")) for one in allocator["needs"]]
        if not options and any(versions.values()):
            needs.append(Need(**its, **versions))
    for name in (name for name in limits.LIMITS if getattr(factors, name)):
        needs.append(_of_factor(name, "MEMCG"))
    if factors.groups > 1:
        needs.append(_of_factor("groups", "MEMCG"))
    if factors.reclaim_interval:
        needs += [_of_factor("reclaim_interval", option, since="5.19") for option in ("MEMCG", "PSI")]
    return tuple(dict.fromkeys(needs))


def lacking(factors: SwapFactors, known: Kernel) -> list[str]:
    """What a kernel lacks of what a cell needs, in words, each option once; empty for nothing that is known."""
    texts: dict[str, str] = {}
    for need in needs_of(factors, known.release):
        if text := need.lacking(known):
            texts.setdefault(need.option if "CONFIG_" in text else text, text)
    return list(texts.values())


def check(factors: SwapFactors, image: Path, *, cache: Cache | None = None) -> None:
    """Check that a kernel has what a cell needs, as far as its image says.

    Errors: `InvalidInput` by the factor and its level, as the user or the set-up gave them.
    """
    known = read(image, cache=cache)
    for need in needs_of(factors, known.release):
        if text := need.lacking(known):
            is_its = need.factor in setups.decided_by(factors.setup)
            given = f"is given by setup={factors.setup} and " if is_its else ""
            hint = "acon-nb bench setups shows what each set-up needs; the profile reclaim adds what study lacks"
            raise InvalidInput(
                need.factor,
                getattr(factors, need.factor),
                f"{given}is not in this kernel ({known.release}): {text}",
                hint=hint,
            )


def verdict(factors: SwapFactors, known: Kernel | None) -> tuple[Presence, Sequence[str]]:
    """Whether a kernel (None: of which nothing is known) has what a cell needs, and what it lacks in words."""
    if known is None:
        return Presence.UNKNOWN, []
    missing = lacking(factors, known)
    if missing:
        return Presence.LACKS, missing
    return (Presence.HAS if known.complete else Presence.UNKNOWN), []


def kernel_of(path: Path | None, *, cache: Cache | None = None) -> Kernel | None:
    """What is known of a bzImage, by default of the kernel of swap studies, if it is built; None if nothing is.

    Errors: `InvalidInput` for what is not a bzImage.
    """
    if path is not None:
        return read(path, cache=cache)
    spec = SwapFactors().build_spec()
    return read(kernel.build(spec, cache=cache).image, cache=cache) if kernel.is_built(spec, cache=cache) else None


def setup_rows(known: Kernel | None) -> list[dict[str, Any]]:
    """Each named set-up with its levels, its source, what it needs, and whether a kernel has that."""
    rows = []
    for setup in setups.table().values():
        factors = SwapFactors(setup=setup.name)
        has, missing = verdict(factors, known)
        needed = [vars(need) for need in needs_of(factors, known.release if known else "")]
        rows.append({**vars(setup), "levels": dict(setup.levels), "needs": needed, "kernel": has, "lacks": missing})
    return rows


def version_of(release: str) -> tuple[int, ...]:
    """The first two numbers of a release ("6.12.5-cloud": (6, 12)); an empty tuple for a text without them."""
    match = _VERSION.match(release)
    return (int(match[1]), int(match[2])) if match else ()


def _of_factor(factor: str, option: str, *, since: str = "") -> Need:
    """The need of a factor that has no row in the table of knobs."""
    return Need(factor=factor, knob=factor, option=option, since=since)


def _compressor_options(knob: str, value: str, release: str) -> list[str]:
    """The option that brings a compressor to zram or zswap."""
    by_name: Mapping[str, Mapping[str, str]] = knobs.compressors()
    if not knob.endswith("compressor") or value not in by_name:
        return []
    is_own = knob != "zswap_compressor" and (not release or version_of(release) >= _OWN_COMPRESSORS)
    return [by_name[value]["zram" if is_own else "crypto"]]
