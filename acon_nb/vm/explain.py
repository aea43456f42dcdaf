"""Each option of a guest's command: why it is there, what the guide says of it, what differs today."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from acon_nb.vm.command import Capabilities, Channels, argument_list
from acon_nb.vm.spec import VmSpec

_FLAGS = ("-nodefaults", "-no-reboot", "-no-hpet", "-S")


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One option with its value ("" for a flag). `guide` is "" where the guide does not have it; `source` is a link."""

    option: str
    value: str
    why: str
    guide: str
    today: str
    source: str


def explain(spec: VmSpec, host: Capabilities, channels: Channels | None = None) -> tuple[Explained, ...]:
    """The options of `argument_list`, in its order, explained from `options.toml`; `extra` is the caller's own."""
    argv = argument_list(spec, host, channels)[1:]
    words = iter(argv[: len(argv) - len(spec.extra)])
    rows = [_row(option, "" if option in _FLAGS else next(words)) for option in words]
    own = "given by you, passed on as it is"
    rows += [
        Explained(option=word, value="", why=own, guide="QEMU_OPTIONS", today="", source="") for word in spec.extra
    ]
    return tuple(rows)


def explained_text(rows: tuple[Explained, ...]) -> str:
    """The explanation as text for a terminal."""
    lines = []
    for row in rows:
        lines.append(f"{row.option} {row.value}".rstrip())
        told = (("why", row.why), ("guide", row.guide), ("today", row.today), ("source", row.source))
        lines += [f"    {name}: {words}" for name, words in told if words]
    return "\n".join(lines)


def _row(option: str, value: str) -> Explained:
    fact = next(
        (fact for fact in _facts() if fact["option"] == option and re.search(fact.get("match", ""), value)), None
    )
    if fact is None:
        raise LookupError(f"options.toml does not explain {option} {value}")
    told = {name: fact[name] for name in ("why", "guide", "today", "source")}
    return Explained(option=option, value=value, **told)


@cache
def _facts() -> tuple[dict[str, str], ...]:
    rows = tomllib.loads(Path(__file__).with_name("options.toml").read_text())["option"]
    return tuple(rows)
