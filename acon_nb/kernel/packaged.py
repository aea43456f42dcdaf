"""Lists the kernel sources that `debian:` can fetch, by suite."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from acon_nb.cache import Cache
from acon_nb.errors import AconError
from acon_nb.host import apt, apt_suites
from acon_nb.host.apt_suites import SUITES as SUITES
from acon_nb.kernel.source import DEBIAN, PACKAGE
from acon_nb.progress import OnProgress, silent


@dataclass(frozen=True, kw_only=True)
class PackagedSource:
    """A version of a kernel's source: what `--source` takes for it, and the suite that has it.

    `newest` says whether the suite has no newer one of its series: without a version, `source` means that.
    """

    source: str
    version: str
    suite: str
    newest: bool


@dataclass(frozen=True, kw_only=True)
class PackagedSources:
    """The sources that were found, and why the lists of other suites could not be read, by suite."""

    sources: tuple[PackagedSource, ...]
    unreachable: Mapping[str, str]


def packaged(
    suites: Sequence[str] = SUITES, *, cache: Cache | None = None, on_progress: OnProgress = silent
) -> PackagedSources:
    """Return the kernel sources in this host's apt lists and in those of `suites`, by series.

    Errors: `MissingRequirement` (no apt), `InvalidInput` (no valid name of a suite).
    """
    store = cache or Cache()
    rows, unreachable = _rows(apt.HOST), {}
    for suite in suites:
        try:
            rows += _rows(apt_suites.lists_of(suite, store, on_progress))
        except AconError as error:
            if suite not in SUITES:
                raise
            unreachable[suite] = error.what
    rows.sort(key=lambda row: [int(number) for number in re.findall(r"\d+", row.source)[:2]])
    return PackagedSources(sources=tuple(rows), unreachable=unreachable)


def _rows(lists: apt.Lists) -> list[PackagedSource]:
    newest_of = functools.cache(lambda name: apt.find(name, lists).version)
    rows = []
    for listed in apt.versions(PACKAGE, lists):
        source = f"debian:{listed.name.removeprefix(PACKAGE)}"
        if DEBIAN.fullmatch(source):
            newest = newest_of(listed.name) == listed.version
            source += "" if newest else f"={listed.version}"
            source += f"@{lists.suite}" if lists.suite else ""
            rows.append(
                PackagedSource(source=source, version=listed.version, suite=lists.suite or listed.suite, newest=newest)
            )
    return rows
