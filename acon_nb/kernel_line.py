"""Split a kernel command line into words, as the kernel does.

Source: `parse_args` of kernel/params.c, `next_arg` of lib/cmdline.c and `isspace` of lib/ctype.c: words end at white
space outside double quotes, quotes are removed around a whole word and around a value, and the word `--` ends those for
the kernel: what follows are arguments of init. The kernel sees bytes, and takes 0xA0 for a space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPACE = "\t\n\v\f\r \xa0"
_WORD = re.compile(rf'([{_SPACE}]*)((?:"[^"]*(?:"|\Z)|[^{_SPACE}"])+)')


@dataclass(frozen=True)
class Word:
    """A word of a command line: the white space before it, its text, and what the kernel reads in it.

    `value` is None for a word without `=`; neither it nor `name` has the quotes that the kernel removes.
    """

    space: str
    text: str
    name: str
    value: str | None

    @property
    def is_open(self) -> bool:
        """Whether a quote in it is not closed, so that it takes all that follows."""
        return self.text.count('"') % 2 == 1


@dataclass(frozen=True)
class Line:
    """A command line: the words for the kernel, and the rest from the white space before `--` on."""

    words: tuple[Word, ...]
    rest: str

    @property
    def text(self) -> str:
        """The command line as it was."""
        return _joined(*(part for word in self.words for part in (word.space, word.text)), self.rest)

    def value(self, name: str) -> str | None:
        """The value of the last word of this name; None if there is none with a value."""
        return next((word.value for word in reversed(self.words) if word.name == name and word.value is not None), None)


def parse(append: str) -> Line:
    """Split a command line."""
    line = append.encode(errors="surrogateescape").decode("latin-1")
    words: list[Word] = []
    place = 0
    while match := _WORD.match(line, place):
        name, value = _read(match[2])
        if name == "--" and value is None:
            break
        shown = None if value is None else _text(value)
        words.append(Word(space=_text(match[1]), text=_text(match[2]), name=_text(name), value=shown))
        place = match.end()
    return Line(tuple(words), _text(line[place:]))


def texts(append: str) -> list[str]:
    """The texts of all words, of those for init too."""
    line = append.encode(errors="surrogateescape").decode("latin-1")
    return [_text(match[2]) for match in _WORD.finditer(line)]


def with_words(append: str, *added: str) -> str:
    """Return a command line with words added behind those for the kernel, where it takes them for its own.

    That is before `--`, and before a last word whose quote is not closed. Empty words are omitted.
    """
    line = parse(append)
    kept = [*line.words]
    last = [kept.pop()] if kept and kept[-1].is_open else []
    pairs = [(word.space, word.text) for word in kept] + [(" ", word) for word in added if word]
    pairs += [(word.space or " ", word.text) for word in last]
    rest = line.rest if line.rest.strip() else ""
    if rest and not line.words:
        rest = f" {rest.lstrip()}"
    return _joined(*[part for pair in pairs for part in pair][not kept :], rest)


def _read(text: str) -> tuple[str, str | None]:
    """The name and value of a word (`next_arg`); one of `=` alone at its start is part of the name."""
    quoted = text.startswith('"')
    word = text[1:] if quoted else text
    equals = word.find("=", 1)
    name, value = (word, None) if equals < 0 else (word[:equals], word[equals + 1 :])
    if value is None:
        return (name[:-1] if quoted and name.endswith('"') else name), None
    if value.startswith('"'):
        return name, value[1:].removesuffix('"')
    return name, value[:-1] if quoted and value.endswith('"') else value


def _text(latin: str) -> str:
    return latin.encode("latin-1").decode(errors="surrogateescape")


def _joined(*parts: str) -> str:
    """The parts as one text; a space that the kernel sees inside a character comes between two halves of it."""
    return b"".join(part.encode(errors="surrogateescape") for part in parts).decode(errors="surrogateescape")
