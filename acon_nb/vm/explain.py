"""Explain each option of a guest's command: why it is there, what the guide says about it, what differs today."""

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
    """One option with its value ("" for a flag). `guide` is "" if the guide lacks the option; `source` is a link."""

    option: str
    value: str
    why: str
    guide: str
    today: str
    source: str


def explain(spec: VmSpec, host: Capabilities, channels: Channels | None = None) -> tuple[Explained, ...]:
    """Explain the options of `argument_list`, in order, from `options.toml`; the words of `spec.extra` come last."""
    argv = argument_list(spec, host, channels)[1:]
    words = iter(argv[: len(argv) - len(spec.extra)])
    rows = [_row(option, "" if option in _FLAGS else next(words)) for option in words]
    own = "given by you, passed on unchanged"
    rows += [
        Explained(option=word, value="", why=own, guide="QEMU_OPTIONS", today="", source="") for word in spec.extra
    ]
    return tuple(rows)


def explained_text(rows: tuple[Explained, ...]) -> str:
    """Format an explanation as text for a terminal."""
    lines = []
    for row in rows:
        lines.append(f"{row.option} {row.value}".rstrip())
        parts = (("why", row.why), ("guide", row.guide), ("today", row.today), ("source", row.source))
        lines += [f"    {name}: {text}" for name, text in parts if text]
    return "\n".join(lines)


def _row(option: str, value: str) -> Explained:
    fact = next(
        (fact for fact in _facts() if fact["option"] == option and re.search(fact.get("match", ""), value)), None
    )
    if fact is None:
        raise LookupError(f"options.toml does not explain {option} {value}")
    texts = {name: fact[name] for name in ("why", "guide", "today", "source")}
    return Explained(option=option, value=value, **texts)


@cache
def _facts() -> tuple[dict[str, str], ...]:
    rows = tomllib.loads(Path(__file__).with_name("options.toml").read_text())["option"]
    return tuple(rows)
