"""How the options that a given .config sets are resolved in a tree of another series or with other requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from acon_nb.kernel import dotconfig
from acon_nb.kernel.features import OptionRequest
from acon_nb.kernel.kconfig import Symbol, rivals
from acon_nb.kernel.renames import became


def renamed(config: Path, symbols: Mapping[str, Symbol]) -> dict[str, str]:
    """Return the options of a .config that have another name in a tree with these `symbols`, with that name."""
    names = (name for name in _values(config) if name not in symbols)
    return {name: now for name in names if (now := became(name, symbols))}


def renamed_requests(config: Path, symbols: Mapping[str, Symbol]) -> tuple[OptionRequest, ...]:
    """Return requests for those options of a .config by their names in the tree, unless it sets these as well."""
    values = _values(config)
    return tuple(
        OptionRequest(option=now, value=values[name], group=dotconfig.RENAMED, optional=True)
        for name, now in renamed(config, symbols).items()
        if now not in values
    )


def results(
    config: Path, requests: Sequence[OptionRequest], values: Mapping[str, str], symbols: Mapping[str, Symbol]
) -> tuple[dotconfig.OptionResult, ...]:
    """Compare each option that a .config sets with the `values` that resulted; no difference is an error.

    Left out are options that only others select, those that a request decided, and members of a choice of which a
    request chose another.
    """
    requested = {request.option for request in requests}
    on = (symbols[one.option] for one in requests if one.value == "y" and one.option in symbols)
    decided = requested | {name for symbol in on for name in rivals(symbol, symbols)}
    set_in_config = (
        OptionRequest(option=option, value=value, group=dotconfig.GIVEN, optional=True)
        for option, value in _values(config).items()
        if value not in ("n", "")
        and option not in decided
        and (symbols[option].prompted if option in symbols else became(option, symbols) not in requested)
    )
    return dotconfig.compare(tuple(set_in_config), values, symbols)


def _values(config: Path) -> dict[str, str]:
    return dotconfig.read(config)
