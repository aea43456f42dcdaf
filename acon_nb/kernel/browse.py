"""The options of a configured kernel, one by one: what a person wants to know before setting one. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acon_nb.kernel.build import Configuration
from acon_nb.kernel.features import catalogue
from acon_nb.kernel.kconfig import Symbol, help_text
from acon_nb.kernel.why import with_values


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """An option: Kconfig's prompt, type, place and help, the guide's note, its conditions with their values now.

    `value` is what it has in the configuration ("n": not set), `wanted` what a wish says ("": none does), `why` the
    reason if the wish did not take. `settable` is false where only other options decide.
    """

    option: str
    prompt: str
    kind: str
    value: str
    wanted: str
    group: str
    note: str
    depends: tuple[str, ...]
    place: str
    help: str
    why: str
    settable: bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that its type allows; () for numbers and texts."""
        return {"bool": ("y", "n"), "tristate": ("y", "m", "n")}.get(self.kind.removeprefix("def_"), ())


def search(found: Configuration, text: str, *, limit: int = 200) -> tuple[str, ...]:
    """The options whose name, prompt or note has every word of `text`; exact names and wishes first.

    An empty text gives the wishes.
    """
    words = text.lower().removeprefix("config_").split()
    wished = {row.option for row in found.wishes}
    if not words:
        return tuple(sorted(wished & set(found.symbols)))[:limit]
    notes = _notes()

    def rank(symbol: Symbol) -> tuple[bool, bool, bool, str]:
        name = symbol.name.lower()
        return name != words[0], symbol.name not in wished, not name.startswith(words[0]), symbol.name

    hits = [
        symbol
        for symbol in found.symbols.values()
        if all(word in f"{symbol.name} {symbol.prompt} {notes.get(symbol.name, '')}".lower() for word in words)
    ]
    return tuple(symbol.name for symbol in sorted(hits, key=rank)[:limit])


def describe(found: Configuration, option: str) -> OptionInfo:
    """All about one option of the tree. Errors: `KeyError` for a name that the tree does not have."""
    symbol = found.symbols[option]
    row = next((row for row in found.wishes if row.option == option), None)
    conditions = min(symbol.definitions, key=len, default=())
    return OptionInfo(
        option=option,
        prompt=symbol.prompt,
        kind=symbol.kind,
        value=found.values.get(option, "n"),
        wanted=row.wanted if row else "",
        group=row.group if row else "",
        note=_notes().get(option, ""),
        depends=tuple(with_values(text, found.values) for text in dict.fromkeys(conditions)),
        place=symbol.place,
        help=help_text(found.tree.path, symbol),
        why=row.why if row else "",
        settable=symbol.prompted,
    )


def _notes() -> Mapping[str, str]:
    return {feature.option: feature.note for feature in catalogue() if not feature.rule}
