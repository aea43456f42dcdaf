"""Plain English: phrases that no native speaker would write stay out of messages, docstrings, pages and notebooks."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import acon_nb

FOLDER = Path(acon_nb.__file__).parent
ROOT = FOLDER.parent

# Phrase -> what to write instead
PHRASES = {
    r"(?<!here )\b(?:is|are|was) no (?!longer|more\b|need|better|worse|faster|slower)": "is not a, is not a valid",
    r"\bthat (?:is|are) none\b": "invalid",
    r"\b(?:leave|leaves|leaving|left)(?: \w+)? away\b": "omit",
    r"\b(?:hold|holds|held|holding) \w+ against\b": "compare with",
    r"\bis none of (?!these|them)": "is not a ... of",
    r"\b(?:go|goes|went|going) on\b": "resume, continue",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bbeside (?!s)": "compared with, next to",
    r"\b(?:is|are|was|were|be) (?:told|said)\b": "is reported",
    r"\b(?:tells|says) (?:plainly|so)\b": "reports",
    r"\bwhat became of\b": "the result of",
    r"\bthe way out\b": "the hint, what to do",
    r"\bin the words of\b": "in the terms of",
    r"\b(?:is|are) asked for\b": "is requested",
    r"\bcut short\b": "truncated",
    r"\b(?:made|makes|make|built|build|looks|look) anew\b": "again",
    r"\bwish(?:es|ed)?\b": "requested options",
    r"\ba (?:line|step|group|file|thread) (?:each|a time)\b": "per line",
    r"\bone an? (?:line|step|file|option|row|device|run)\b": "one per line",
    r"\bputs? the swap question\b": "runs a swap study",
    r"\bin turns?\b": "alternates, one after the other",
    r"\bthe user's own\b": "files of the user",
    r"\bat all events\b": "in any case",
    r"\bin the end it is\b": "it is",
    r"\bhave of (?:its|their) own\b": "have their own",
}


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file that a person reads, with their lines."""
    text = path.read_text()
    if path.suffix == ".py":
        nodes = list(ast.walk(ast.parse(text)))
        formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
        inside = {id(part) for node in formatted for part in node.values}
        for node in formatted:
            parts = (str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
            yield node.lineno, "".join(parts)
        for node in nodes:
            value = node.value if isinstance(node, ast.Constant) and id(node) not in inside else None
            if isinstance(value, str) and " " in value:  # no keys
                yield node.lineno, value
    elif path.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(text)["cells"]):
            yield number, "".join(cell["source"])
    elif path.suffix == ".toml":
        for number, line in enumerate(text.split("\n"), 1):
            if match := re.match(r"\s*(?:note|why|title|source|text|help|summary|label)\s*=\s*\"(.*)\"", line):
                yield number, match[1]
    else:
        yield from enumerate(text.split("\n"), 1)


def files() -> list[tuple[str, Path]]:
    """Every file that is looked at, with its name below acon_nb or the root."""
    scripts = [path for path in (FOLDER / "initrd/files").iterdir() if path.is_file()]
    code = [*FOLDER.rglob("*.py"), *FOLDER.rglob("*.toml"), *scripts]
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    pages += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    named = [(str(path.relative_to(FOLDER)), path) for path in code]
    return sorted([*named, *((str(path.relative_to(ROOT)), path) for path in pages)])


def found_in(path: Path) -> list[str]:
    """The phrases in a file's texts, each with its line and what to write instead."""
    return [
        f"{path}:{line}: {match[0]!r}: write {instead!r}"
        for line, text in texts_of(path)
        for phrase, instead in PHRASES.items()
        if (match := re.search(phrase, text))
    ]


@pytest.mark.parametrize("name", [name for name, _ in files()])
def test_messages_and_pages_are_in_plain_english(name: str) -> None:
    assert found_in(dict(files())[name]) == []


def test_an_odd_phrase_is_found_where_people_read_it(tmp_path: Path) -> None:
    module = tmp_path / "x.py"
    module.write_text('def f():\n    """Say what became of it."""\n    raise ValueError(f"{f} is no size")\n')
    assert [row.split(": ", 1)[1].split(":")[0] for row in found_in(module)] == ["'is no '", "'what became of'"]
    page = tmp_path / "x.md"
    page.write_text("It is no longer there.\nThe run goes on.\n")
    assert [row.rsplit(":", 3)[1] for row in found_in(page)] == ["2"]
