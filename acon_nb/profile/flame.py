"""Flame graphs: one HTML file that loads nothing, of one profile or of the difference of two.

Boxes are as wide as the instructions in them, callers or folders above what they contain. Zoom, search, phases and a
table of functions are in the page (`acon_nb/profile/page`); its policy lets nothing else run or load. Names come from
guests: they are data in it, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from acon_nb.cache import atomic_file
from acon_nb.profile.frames import UNATTRIBUTED, Frame, comparable, stacks_of
from acon_nb.profile.model import Profile, Region

_PAGE = Path(__file__).with_name("page")
_FOREIGN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")  # control, and order of writing
Counts = tuple[int, ...]


def flame(profile: Profile, *, title: str = "") -> str:
    """Return the page of a profile as HTML."""
    counts = stacks_of(profile)
    sentences = [_total_sentence(profile, sum(counts.values())), _stacks_sentence(profile)]
    stacks = {stack: (count,) for stack, count in counts.items()}
    return _page(title or f"Instructions of {_name(profile)}", sentences, (), stacks)


def difference(before: Profile, after: Profile, *, names: tuple[str, str] = ("A", "B"), title: str = "") -> str:
    """Return the page of the difference of two profiles as HTML, from `before` to `after`, under these `names`.

    Functions are the same as for `frames.comparable`: what the compiler inlined or moved is shown as it is.
    """
    first, second = map(stacks_of, comparable(before, after))
    stacks = {stack: (first.get(stack, 0), second.get(stack, 0)) for stack in (first | second)}
    change = after.total - before.total
    share = f" ({change / before.total:+.2%})" if before.total else ""
    sentences = [
        f"{names[0]}: {_total_sentence(before, sum(first.values()))}",
        f"{names[1]}: {_total_sentence(after, sum(second.values()))}",
        f"Difference: {change:+,} instructions{share}. Red has more in {names[1]}, blue fewer, grey is equal.",
    ]
    return _page(title or f"Difference of {names[0]} and {names[1]}", sentences, names, stacks)


def names_of(before: Profile, after: Profile) -> tuple[str, str]:
    """Return the names of two profiles' kernels, with the beginnings of their hashes where the names are equal."""
    first, second = _name(before), _name(after)
    if first == second:
        hashes = [one.origin.get("kernel_sha256", "")[:8] for one in (before, after)]
        marks = hashes if hashes[0] != hashes[1] else ["A", "B"]
        return f"{first} {marks[0]}", f"{second} {marks[1]}"
    return first, second


def save(page: str, path: Path) -> Path:
    """Write a page to a file, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def embedded(page: str, *, height_px: int = 760) -> str:
    """Return HTML that shows a page inside a notebook, a report or a widget, in a frame of its own."""
    source = html.escape(page, quote=True).replace("//", "/&#47;")  # a report is searched for what it would load
    style = f"width: 100%; height: {height_px}px; border: 1px solid #bbb; box-sizing: border-box"
    return f'<div><iframe sandbox="allow-scripts" title="Flame graph" style="{style}" srcdoc="{source}"></iframe></div>'


def _total_sentence(profile: Profile, shown: int) -> str:
    """Say what a profile's boxes, which add up to `shown`, are of."""
    rest = profile.unattributed
    text = f"{profile.total:,} instructions"
    text += f", {rest:,} of them attributed to no function" if rest > 0 else ", all attributed"
    more = shown - profile.total
    if more > 0:
        text += f"; the boxes add up to {more:,} more, which faulted and were executed again"
    return f"{text}."


def _stacks_sentence(profile: Profile) -> str:
    if not profile.stacks:
        return "Below each phase: region, source folder, file, function. Callers were not recorded."
    return "Below each phase: callers above what they called; by source folder where callers are not known."


def _name(profile: Profile) -> str:
    return profile.origin.get("kernel") or "a guest"


def _page(
    title: str, sentences: Sequence[str], sides: Sequence[str], stacks: Mapping[tuple[Frame, ...], Counts]
) -> str:
    style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("flame.css", "flame.js"))
    values = {
        "STYLE_HASH": _hash(style),
        "SCRIPT_HASH": _hash(script),
        "TITLE": html.escape(_clean(title)),
        "SENTENCES": "\n".join(f"<p>{html.escape(_clean(sentence))}</p>" for sentence in sentences),
        "STYLE": style,
        "DATA": _json_in_html({"sides": list(map(_clean, sides)), **_tables(stacks)}),
        "SCRIPT": script,
    }
    template = (_PAGE / "flame.html").read_text(encoding="utf-8")
    return re.sub("@([A-Z_]+)@", lambda match: values[match[1]], template)


def _tables(stacks: Mapping[tuple[Frame, ...], Counts]) -> dict[str, list[object]]:
    """Return texts, frames that refer to them, and nodes in preorder: depth, frame and counts, one after the other."""
    texts: dict[str, int] = {}
    frames: dict[tuple[Frame, str], int] = {}
    nodes: list[object] = []
    for path, counts in _preorder(stacks):
        kind = "phase" if len(path) == 1 else "function" if path[-1].region else "folder"
        nodes += [len(path) - 1, frames.setdefault((path[-1], kind), len(frames)), *counts]
    table: list[object] = [
        [texts.setdefault(_clean(text), len(texts)) for text in (frame.name, frame.file, kind, _group(frame))]
        for frame, kind in frames
    ]
    return {"texts": list(texts), "frames": table, "nodes": nodes}


def _preorder(stacks: Mapping[tuple[Frame, ...], Counts]) -> Iterator[tuple[tuple[Frame, ...], Counts]]:
    """Yield every box, each after the one that contains it, with its own counts."""
    none = (0,) * max(map(len, stacks.values()), default=1)
    own: dict[tuple[Frame, ...], Counts] = {}
    children: dict[tuple[Frame, ...], dict[tuple[Frame, ...], None]] = {}
    for stack, counts in stacks.items():
        own[stack] = counts
        for depth in range(len(stack), 0, -1):
            siblings = children.setdefault(stack[: depth - 1], {})
            if stack[:depth] in siblings:
                break
            siblings[stack[:depth]] = None
    rest = list(reversed(children.get((), {})))
    while rest:
        path = rest.pop()
        yield path, own.get(path, none)
        rest += reversed(children.get(path, {}))


def _group(frame: Frame) -> str:
    """What a function's colour stands for: the top folder of the kernel's sources, else its region."""
    if frame.region == Region.KERNEL:
        folder, slash, _ = frame.file.partition("/")
        return f"{folder}/" if slash else "kernel, file not known"
    if frame.region:
        return frame.region
    return UNATTRIBUTED if frame.name == UNATTRIBUTED else ""


def _clean(text: str) -> str:
    return _FOREIGN.sub("\N{REPLACEMENT CHARACTER}", text)


def _json_in_html(value: object) -> str:
    """Return JSON that ends no script element, whatever texts it has."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
