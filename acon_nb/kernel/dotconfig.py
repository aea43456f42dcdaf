"""Reads .config files, compares them with the requested options, and explains differences. Starts no program.

Kconfig silently drops a value that it cannot apply, so every request is read back from the resulting .config, and one
that was not applied is an error unless it is optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb import user_file
from acon_nb.errors import InvalidInput, KernelConfigError
from acon_nb.kernel.features import OptionRequest
from acon_nb.kernel.kconfig import Symbol, rivals
from acon_nb.kernel.renames import became
from acon_nb.kernel.why import former_name, way_out, why_not
from acon_nb.validation import did_you_mean

GIVEN = "given .config"  # the group of options that a given .config sets
RENAMED = "renamed"  # the group of those that have another name in the tree
_SET = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)")
_UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]+) is not set")


@dataclass(frozen=True, kw_only=True)
class OptionResult:
    """The result of one request.

    `got` is the value in .config ("n": not set); `why` the reason if the request was not applied; `proposal` further
    options with which it is, verified with olddefconfig; `rule` the catalogue's rule that matched the option.
    """

    option: str
    wanted: str
    got: str
    ok: bool
    optional: bool
    group: str
    why: str = ""
    proposal: tuple[tuple[str, str], ...] = ()
    rule: str = ""


def read(path: Path) -> dict[str, str]:
    """Read a .config file (see `parse`). Errors: `OSError`."""
    return parse(path.read_text(errors="replace"))


def read_given(path: Path) -> dict[str, str]:
    """Read a .config that a user named. Errors: `InvalidInput` if it cannot be read, or has no option."""
    hint = "give a kernel's .config"
    values = parse(user_file.read_text("config", path, hint=hint, errors="replace"))
    if not values:
        raise InvalidInput("config", path, "contains no kernel options", hint=hint)
    return values


def parse(text: str) -> dict[str, str]:
    """Parse a .config into values by name (without CONFIG_); quotes are stripped, "is not set" becomes "n"."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        if match := _SET.fullmatch(line.strip()):
            value = match.group(2)
            quoted = len(value) >= 2 and value[0] == value[-1] == '"'
            values[match.group(1)] = re.sub(r"\\(.)", r"\1", value[1:-1]) if quoted else value
        elif match := _UNSET.fullmatch(line.strip()):
            values[match.group(1)] = "n"
    return values


def fragment(requests: Iterable[OptionRequest], symbols: Mapping[str, Symbol]) -> str:
    """Return the requests as lines of a .config; values of string options (by the tree's Kconfig) are quoted.

    "n" is "not set", so it empties a string. A member of a choice that is turned on turns the others off.
    """
    lines = []
    for request in requests:
        symbol = symbols.get(request.option)
        kind = symbol.kind if symbol else ""
        if symbol and request.value == "y":
            lines += [f"# CONFIG_{rival} is not set" for rival in rivals(symbol, symbols)]
        if kind == "string":
            lines.append(f'CONFIG_{request.option}="{"" if request.value == "n" else request.value}"')
        elif request.value == "n":
            lines.append(f"# CONFIG_{request.option} is not set")
        else:
            lines.append(f"CONFIG_{request.option}={request.value}")
    return "\n".join(lines) + "\n"


def refuse_impossible(requests: Sequence[OptionRequest], symbols: Mapping[str, Symbol]) -> None:
    """Raise `KernelConfigError` for requests that no configuration of this tree can meet.

    These are unknown options and values of the wrong type. An optional request for an unknown option is accepted, as is
    "not set".
    """
    failed = [
        _result(request, got="n", ok=False, why=reason)
        for request in requests
        if not request.optional and (reason := _impossible(request, symbols))
    ]
    if failed:
        raise KernelConfigError(
            f"{len(failed)} kernel option{'s' * (len(failed) > 1)} cannot be set in this source tree",
            failed,
            details=[f"CONFIG_{row.option}={row.wanted}: {row.why}" for row in failed],
            hint="check the spelling and the kernel version, or omit the option",
        )


def compare(
    requests: Sequence[OptionRequest], config: Mapping[str, str], symbols: Mapping[str, Symbol]
) -> tuple[OptionResult, ...]:
    """Compare each request with the value in `config`.

    Options that a rule matched are left out if the configuration does not offer them.
    """
    rows = []
    for request in requests:
        if request.rule and request.option not in config:
            continue
        got = config.get(request.option, "n")
        wanted_off = request.value in ("n", "")
        ok = got in ("n", "") if wanted_off else got == request.value
        why = "" if ok else _impossible(request, symbols) or why_not(request.option, request.value, config, symbols)
        rows.append(_result(request, got=got, ok=ok, why=why))
    return tuple(rows)


def require(rows: Sequence[OptionResult], advice: str = "") -> None:
    """Raise `KernelConfigError` if a request that is not optional was not applied; its hint is the `advice`, if any."""
    failed = [row for row in rows if not row.ok and not row.optional]
    if failed:
        raise KernelConfigError(
            f"{len(failed)} requested kernel option{'s were' if len(failed) > 1 else ' was'} not applied",
            failed,
            details=[f"CONFIG_{row.option} wanted {row.wanted}, is {row.got}: {row.why}" for row in failed],
            hint=advice or way_out([row.why for row in failed]),
        )


def summary(rows: Sequence[OptionResult]) -> str:
    """Return "160 of 161 requested options applied", and how many options of a given .config were kept."""
    given = [row for row in rows if row.group == GIVEN]
    requested = [row for row in rows if row.group != GIVEN]
    parts = []
    if requested or not given:
        parts.append(f"{sum(row.ok for row in requested)} of {len(requested)} requested options applied")
    if given:
        parts.append(f"{sum(row.ok for row in given)} of {len(given)} options of the given .config kept")
    return ", ".join(parts)


def _result(request: OptionRequest, *, got: str, ok: bool, why: str) -> OptionResult:
    return OptionResult(
        option=request.option,
        wanted=request.value,
        got=got,
        ok=ok,
        optional=request.optional,
        group=request.group,
        why=why,
        rule=request.rule,
    )


@dataclass(frozen=True, kw_only=True)
class OptionDifference:
    """An option that two configurations set differently ("n": not set)."""

    option: str
    left: str
    right: str


def diff(left: Mapping[str, str], right: Mapping[str, str]) -> tuple[OptionDifference, ...]:
    """Return the differences between two configurations (or sets of requests), sorted by option."""
    rows = (
        OptionDifference(option=name, left=left.get(name, "n"), right=right.get(name, "n"))
        for name in sorted({*left, *right})
    )
    return tuple(row for row in rows if row.left != row.right)


def _wrong_type(request: OptionRequest, symbol: Symbol) -> str:
    """Return why the option's type does not allow the requested value, or ""."""
    kind = symbol.kind.removeprefix("def_")
    checks = {
        "bool": (r"[yn]", "it is a bool: y or n"),
        "tristate": (r"[ymn]", "it is a tristate: y, m or n"),
        "int": (r"-?\d+", "it takes a whole number"),
        "hex": (r"(0[xX])?[0-9a-fA-F]+", "it takes a hexadecimal number"),
    }
    pattern, reason = checks.get(kind, (r".*", ""))
    return "" if re.fullmatch(pattern, request.value) or request.value == "n" else reason


def _impossible(request: OptionRequest, symbols: Mapping[str, Symbol]) -> str:
    symbol = symbols.get(request.option)
    if symbol is None:
        if request.value == "n" and request.group != "set":
            return ""
        now = became(request.option, symbols)
        if now:
            return f"this tree has no such option; here it is called {now}"
        case = [name for name in symbols if name.casefold() == request.option.casefold()]
        near = f"did you mean {case[0]}?" if case else did_you_mean(request.option, symbols, most=3, cutoff=0.75)
        return "this tree has no such option" + (f"; {near}" if near else "")
    if symbol.transitional and request.value != "n":
        return former_name(request.option, symbols)
    return _wrong_type(request, symbol)
