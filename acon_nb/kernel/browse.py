"""Searches and describes the options of a configured kernel. Starts no program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acon_nb.kernel.build import Configuration
from acon_nb.kernel.features import catalogue
from acon_nb.kernel.kconfig import Symbol, help_text
from acon_nb.kernel.why import with_values


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """An option: Kconfig's prompt, type, location and help, the catalogue's note, and the conditions it depends on.

    `value` is its value in the configuration ("n": not set), `wanted` the requested value ("" if none), `why` the
    reason if the request was not applied. `settable` is false if the option has no prompt, so only other options set
    it. `depends` gives each condition with the current values of its options.
    """

    option: str
    prompt: str
    kind: str
    value: str
    wanted: str
    group: str
    note: str
    depends: tuple[str, ...]
    location: str
    help: str
    why: str
    settable: bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that its type allows; () for numbers and strings."""
        return {"bool": ("y", "n"), "tristate": ("y", "m", "n")}.get(self.kind.removeprefix("def_"), ())


def search(configuration: Configuration, text: str, *, limit: int = 200) -> tuple[str, ...]:
    """Find the options whose name, prompt or note contains every word of `text`.

    Exact names come first, then requested options. An empty text finds all requested options.
    """
    words = text.lower().removeprefix("config_").split()
    requested = {row.option for row in configuration.results}
    if not words:
        return tuple(sorted(requested & set(configuration.symbols)))[:limit]
    notes = _notes()

    def rank(symbol: Symbol) -> tuple[bool, bool, bool, str]:
        name = symbol.name.lower()
        return name != words[0], symbol.name not in requested, not name.startswith(words[0]), symbol.name

    hits = [
        symbol
        for symbol in configuration.symbols.values()
        if all(word in f"{symbol.name} {symbol.prompt} {notes.get(symbol.name, '')}".lower() for word in words)
    ]
    return tuple(symbol.name for symbol in sorted(hits, key=rank)[:limit])


def describe(configuration: Configuration, option: str) -> OptionInfo:
    """Describe one option of the tree. Errors: `KeyError` if the tree does not have it."""
    symbol = configuration.symbols[option]
    row = next((row for row in configuration.results if row.option == option), None)
    conditions = min(symbol.definitions, key=len, default=())
    return OptionInfo(
        option=option,
        prompt=symbol.prompt,
        kind=symbol.kind,
        value=configuration.values.get(option, "n"),
        wanted=row.wanted if row else "",
        group=row.group if row else "",
        note=_notes().get(option, ""),
        depends=tuple(with_values(text, configuration.values) for text in dict.fromkeys(conditions)),
        location=symbol.location,
        help=help_text(configuration.tree.path, symbol),
        why=row.why if row else "",
        settable=symbol.prompted,
    )


def _notes() -> Mapping[str, str]:
    return {feature.option: feature.text for feature in catalogue() if not feature.rule}
