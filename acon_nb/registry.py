"""Finds the installed kinds of study, without importing them.

A distribution registers a kind by an entry point of the group `acon_nb.studies`: the kind's name, and MODULE:ATTRIBUTE
of a `study.kinds.StudyKind`. The data files of a kind are in the folder of that module: `columns.toml` describes its
columns (`results.columns`), `plans/NAME.toml` are its plans (`study.plan.load`). They are read without running code.
"""

from __future__ import annotations

import functools
import importlib.util
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from acon_nb.errors import AconError, InvalidInput

T = TypeVar("T")
GROUP = "acon_nb.studies"
_OWN = "acon-nb"
_PROJECT = Path(__file__).parents[1] / "pyproject.toml"
_caches: list[Any] = []


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A registered kind of study: its name, the object that describes it, and the distribution that registers it.

    `target` is MODULE:ATTRIBUTE, `folder` the folder of the module (None if it does not exist or is not in a package).
    """

    name: str
    target: str
    distribution: str
    folder: Path | None = None

    def load(self) -> Any:
        """Import the object. Errors: `AconError` that names the distribution, whatever its code raises."""
        try:
            return EntryPoint(name=self.name, value=self.target, group=GROUP).load()
        except Exception as error:
            what = f"the kind of study {self.name!r} cannot be loaded from {self.distribution}: {error!r}"
            raise AconError(what, hint=f"it is registered as {self.target}: update or uninstall it") from error


def cached(function: Callable[..., T]) -> Callable[..., T]:
    """Cache a function of what is installed until `refresh`."""
    cache = functools.cache(function)
    _caches.append(cache)
    return functools.update_wrapper(lambda *arguments: cache(*arguments), function)


def refresh() -> None:
    """Clear the caches, so that a distribution installed since the first look is found."""
    for cache in _caches:
        cache.cache_clear()


@cached
def registrations() -> tuple[Registration, ...]:
    """Return all registered kinds, by name; a name that several distributions register appears several times.

    A checkout registers what its pyproject.toml declares, since the metadata of an editable install may be out of date.
    """
    checkout = _of_checkout()
    points = [(point, _distribution(point)) for point in entry_points(group=GROUP)]
    if checkout:
        points = [(point, name) for point, name in points if name.split(" ")[0] != _OWN]
        points += [(point, f"the checkout {_PROJECT.parent}") for point in checkout]
    kinds = [
        Registration(name=point.name, target=point.value, distribution=name, folder=_folder(point.module))
        for point, name in points
    ]
    return tuple(sorted(kinds, key=lambda one: (one.name, one.distribution)))


def registered(name: str) -> Registration:
    """Return the registration of a kind. Errors: `InvalidInput` for a kind that is not installed, or that two
    distributions register."""
    matches = [one for one in registrations() if one.name == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = " and ".join(one.distribution for one in matches)
        raise InvalidInput("study", name, f"is registered by {names}", hint="uninstall one of them")
    known = ", ".join(dict.fromkeys(one.name for one in registrations()))
    if not known:
        reason = f"cannot be found: the installed {_OWN} registers no kind of study"
        raise InvalidInput("study", name, reason, hint=f"install it again: pip install --force-reinstall {_OWN}")
    hint = f"one of {known}; another kind is found once the package that registers it is installed (again)"
    raise InvalidInput("study", name, "is not an installed kind of study", hint=hint)


def _of_checkout() -> list[EntryPoint]:
    """The entry points that the pyproject.toml of a checkout declares; none for an installed package."""
    if not _PROJECT.is_file():
        return []
    project = tomllib.loads(_PROJECT.read_text()).get("project", {})
    if project.get("name") != _OWN:
        return []
    declared = project.get("entry-points", {}).get(GROUP, {})
    return [EntryPoint(name=name, value=value, group=GROUP) for name, value in declared.items()]


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"


def _folder(module: str) -> Path | None:
    """The folder of a module's package, found without running the package."""
    package = module.rpartition(".")[0] or module
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(folders[0]) if folders else None
