"""The finished page of a report: headers of tables, contents, numbers of findings, places where words may break."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

# Widths of a page in CSS pixels, less its margins: a table that needs more is stacked below it (report.css).
_WIDTHS = ((340, ""), (560, "w-phone"), (800, "w-tablet"), (1060, "w-page"))
_STACKED = "w-none"
_CHARACTER_PX = 8.4  # of a table's text, wide letters
_PADDING_PX = 12
_LONGEST = 22  # characters: longer words get places to break at
_UNITS = "|".join(["ns", "µs", "ms", "s", "min", "h", "days", "B", "KiB", "MiB", "GiB", "kB", "MB", "GB", "%", "times"])
_UNITS += r"|MiB/s|accesses / s|instructions|points|pages|guests|runs|TDs"
_NUMBER = re.compile(rf"(?<![\w.,/-])[+−-]?\d[\d,]*(?:\.\d+)?\s?(?:{_UNITS})(?![\w/])")
_BRACKETS = re.compile(r"[(\[][^()\[\]]*[)\]]")
_PIECES = re.compile(r"^[/_.,;:=&+@-]*[^/_.,;:=&+@-]+[/_.,;:=&+@-]*|[^/_.,;:=&+@-]+[/_.,;:=&+@-]*|[/_.,;:=&+@-]+")
_COMMON = frozenset(["which", "that", "with", "from", "than", "more", "less", "each", "seeds", "clock", "instruction"])


def finish(page: str) -> str:
    """Return a report's page with scopes, contents and places to break; every table fits the width it is shown at."""
    from bs4 import BeautifulSoup

    soup: Any = BeautifulSoup(page, "html.parser")
    for table in soup.find_all("table"):
        _finish_table(table)
    _number_figures(soup)
    _add_contents(soup)
    _finish_findings(soup)
    _allow_breaks(soup)
    return str(soup)


def lead(sentence: str) -> str:
    """Return the first number of a sentence that has a unit, if possible not one in brackets; "" if it has none."""
    match = _NUMBER.search(_BRACKETS.sub("", sentence)) or _NUMBER.search(sentence)
    return match.group(0) if match else ""


def _finish_table(table: Any) -> None:
    """Give headers their scope and cells the names of their columns, and find out how wide the table is at least."""
    head = [row for row in table.find_all("tr") if row.find_parent("thead")]
    names = [cell.get_text(" ", strip=True) for cell in head[-1].find_all(["th", "td"])] if head else []
    for cell in table.find_all("th"):
        if not cell.get("scope"):
            cell["scope"] = "col" if cell.find_parent("thead") else "row"
    if not head:
        return  # two columns of names and values, which fit
    widths: list[int] = []
    for row in table.find_all("tr"):
        for number, cell in enumerate(row.find_all(["th", "td"], recursive=False)):
            if row.find_parent("thead") is None and number < len(names) and names[number]:
                cell["data-name"] = names[number]
            longest = max((_longest(word) for word in cell.get_text(" ").split()), default=0)
            widths[number : number + 1] = [max([longest, *widths[number : number + 1]])]
    least = sum(width * _CHARACTER_PX + _PADDING_PX for width in widths)
    name = next((name for limit, name in _WIDTHS if least <= limit), _STACKED)
    if name:
        table["class"] = [*table.get("class", []), name]


def _longest(word: str) -> int:
    return max(map(len, pieces(word)))


def pieces(word: str) -> Sequence[str]:
    """Return the parts of a word between which a line may end: one part, unless it is longer than people's words."""
    if len(word) <= _LONGEST:
        return [word]
    parts = _PIECES.findall(word) or [word]
    return [part[start : start + 16] for part in parts for start in range(0, len(part), 16)]


def _number_figures(soup: Any) -> None:
    for number, figure in enumerate(soup.select("div.figure"), 1):
        figure["id"] = f"figure-{number}"


def _add_contents(soup: Any) -> None:
    """List the sections below what comes first; a page of one section needs no list."""
    headings = [heading for heading in soup.find_all("h2") if heading.get_text(strip=True)]
    title = soup.find("h1")
    if len(headings) < 2 or title is None:
        return
    nav = soup.new_tag("nav", attrs={"class": "contents", "aria-labelledby": "contents"})
    label = soup.new_tag("h2", id="contents")
    label.string = "Contents"
    items = soup.new_tag("ul")
    for number, heading in enumerate(headings, 1):
        heading["id"] = heading.get("id") or f"section-{number}"
        link = soup.new_tag("a", href=f"#{heading['id']}")
        link.string = heading.get_text(strip=True)
        item = soup.new_tag("li")
        item.append(link)
        items.append(item)
    nav.extend([label, items])
    headings[0].insert_before(nav)


def _finish_findings(soup: Any) -> None:
    """Put the number before each finding, and a link to the figure that shows what it is about."""
    figures = [(figure["id"], _words(_alt(figure)), _alt(figure)) for figure in soup.select("div.figure")]
    for item in soup.select("ul.findings > li"):
        sentence = item.get_text()
        if not sentence.strip():
            item.decompose()
            continue
        text = soup.new_tag("span", attrs={"class": "said"})
        text.extend(list(item.contents))
        number = soup.new_tag("strong")
        number.string = lead(sentence)
        item.extend([number, text])
        shared = [(len(words & _words(sentence)), name, alt) for name, words, alt in figures]
        most = max(shared, default=(0, "", ""), key=lambda one: one[0])
        if most[0] >= 2:
            link = soup.new_tag("a", href=f"#{most[1]}", attrs={"class": "of"})
            caption = textwrap.shorten(most[2].splitlines()[0], 70, placeholder=" ...")
            link.string = f"Figure {most[1].removeprefix('figure-')}: {caption}"
            item.append(link)


def _alt(figure: Any) -> str:
    return str(figure.img.get("alt", "")) if figure.img is not None else ""


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in re.findall(r"[a-z]{4,}", text.lower()) if word not in _COMMON)


def _allow_breaks(soup: Any) -> None:
    """Allow long names, hashes and paths to continue on the next line, at their own joints; they are copied whole."""
    from bs4.element import NavigableString

    for text in [text for text in soup.find_all(string=True) if type(text) is NavigableString]:
        if (
            text.find_parent(["script", "style", "title", "svg"]) is not None
            or max(map(len, str(text).split()), default=0) <= _LONGEST
        ):
            continue
        for number, part in enumerate(_broken(str(text))):
            if number:
                text.insert_before(soup.new_tag("wbr"))
            text.insert_before(part)
        text.extract()


def _broken(text: str) -> Sequence[str]:
    """Part a text at the places within its long words where a line may end."""
    parts = [""]
    for word in re.split(r"(\s+)", text):
        first, *more = pieces(word) if word.strip() else [word]
        parts[-1] += first
        parts += more
    return parts
