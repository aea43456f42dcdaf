"""Checks the fields of a dataclass against their annotations: one mechanism for plans, factors and specs.

A field says what it takes: `Annotated[int, Meta(ge=1)]` (types and limits are msgspec's), or `Annotated[str,
OneOf(NAMES)]` where the choices are known at run time. `check_fields`, called first in `__post_init__`, refuses the
first field whose value is not valid, by name, with the reason and a way out. Rules about two fields at once are the
class's own.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import operator
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from acon_nb.errors import InvalidInput

__all__ = ["Meta", "OneOf", "build", "check_fields", "check_given", "closest", "did_you_mean", "one_of", "read_text"]

T = TypeVar("T")
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Mapping: "a table",
    dict: "a table",
    Sequence: "a list",
    tuple: "a list",
    Path: "a path",
}
_FEW = 9  # as many names as are listed though one of them is near
_known: dict[Any, dict[str, tuple[Any, bool]]] = {}
_LIMITS = {"ge": "{:g} or more", "gt": "more than {:g}", "le": "{:g} or less", "lt": "less than {:g}"}


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The texts that a field takes; "" stands for nothing."""

    known: tuple[str, ...]


def check_fields(value: Any, *, prefix: str = "") -> None:
    """Check every field of a frozen dataclass; a whole number given for a number becomes one, a text an enum's member.

    `prefix` goes before the fields' names in errors, for a class whose fields a user knows by longer names.

    Errors: `InvalidInput` that names the field, its value, the reason and what it takes.
    """
    for name, (annotation, _) in _fields(type(value)).items():
        given = getattr(value, name)
        checked = _checked(prefix + name, given, annotation)
        if checked is not given and type(checked) is not type(given):
            object.__setattr__(value, name, checked)


def build(cls: type[T], data: Mapping[str, Any], *, what: str) -> T:
    """Build a `cls` from a mapping of its fields; `what` names it in errors ("a plan", "a boot study").

    Errors: `InvalidInput` for a name that it does not have, a missing one, and whatever `cls` refuses.
    """
    fields = _fields(cls)
    for name in data:
        if name not in fields:
            raise InvalidInput(str(name), data[name], f"is not a field of {what}", hint=closest(str(name), fields))
    for name, (_, required) in fields.items():
        if required and name not in data:
            raise InvalidInput(name, None, "is missing", hint=f"{what} needs it")
    return cls(**data)


def check_given(cls: type, values: Mapping[str, Any]) -> None:
    """Check values of some fields of a class, before the others are known. Errors: as `check_fields`."""
    fields = _fields(cls)
    for name, value in values.items():
        _checked(name, value, fields[name][0])


def read_text(cls: type, name: str, text: str) -> Any:
    """Read a field's value from the text of a form: "4" for a number, "yes" for true, nothing for None.

    Errors: `InvalidInput`, as `check_fields`.
    """
    annotation = _fields(cls)[name][0]
    _, kinds, _ = _parts(annotation)
    if not text and type(None) in kinds:
        return None
    truth = {"yes": "true", "on": "true", "no": "false", "off": "false"}
    word = truth.get(text.lower(), text.lower()) if bool in kinds else text
    return _checked(name, word, annotation, given=text, strict=False)


def one_of(field: str, value: object, known: Iterable[str]) -> None:
    """Refuse a value that is not among the known ones. Errors: `InvalidInput` with the closest, or all."""
    names = tuple(known)
    if value not in names:
        raise InvalidInput(field, value, "is not known", hint=closest(str(value), names))


def closest(name: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown name: "did you mean memory?" and all known names."""
    names = [str(one) for one in known]
    near = did_you_mean(name, names)
    listed = f"one of {', '.join(one or 'nothing' for one in names)}"
    if not near:
        return listed
    return near + (f" ({listed})" if len(names) <= _FEW else "")


def did_you_mean(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """Return "did you mean memory?" with up to `most` names that resemble an unknown one, or ""."""
    near = difflib.get_close_matches(name, [one for one in known if one], most, cutoff)
    return f"did you mean {', '.join(near)}?" if near else ""


def _fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """The annotation of each field, and whether it has to be given."""
    if cls in _known:
        return _known[cls]
    hints = typing.get_type_hints(cls, include_extras=True)
    missing = dataclasses.MISSING
    _known[cls] = {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(cls)
    }
    return _known[cls]


def _checked(name: str, value: Any, annotation: Any, *, given: Any = None, strict: bool = True) -> Any:
    shown = value if given is None else given
    limits, kinds, choices = _parts(annotation)
    if choices is not None and isinstance(value, str):
        one_of(name, value, choices)
    _check_items(name, value, kinds)
    try:
        return msgspec.convert(value, annotation, strict=strict, dec_hook=_instance)
    except (msgspec.ValidationError, NotImplementedError) as error:
        raise InvalidInput(name, shown, _reason(value, kinds, limits, strict), hint=_hint(kinds, limits)) from error


def _check_items(name: str, value: Any, kinds: Sequence[Any]) -> None:
    """Check what is in a table or a list first, so that an error names the item: factors.memory, tags[2]."""
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Mapping):
        items = ((f"{name}.{key}", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{name}[{number}]", item) for number, item in enumerate(value))
    table = isinstance(value, Mapping)
    inner = next(
        (args[1 if table else 0] for kind in kinds if (args := typing.get_args(kind)) and table is _is_table(kind)),
        None,
    )
    for place, item in items if inner is not None else ():
        _checked(place, item, inner)


def _is_table(kind: Any) -> bool:
    return typing.get_origin(kind) in (Mapping, dict)


def _instance(kind: type, value: Any) -> Any:
    """Take an instance of a class that msgspec does not know (a path), nothing else."""
    if isinstance(value, kind):
        return value
    raise NotImplementedError


@functools.cache
def _parts(annotation: Any) -> tuple[Meta | None, tuple[Any, ...], tuple[str, ...] | None]:
    """The limits, the plain types and the choices of an annotation."""
    limits, choices = None, None
    if typing.get_origin(annotation) is Annotated:
        annotation, *extras = typing.get_args(annotation)
        limits = next((extra for extra in extras if isinstance(extra, Meta)), None)
        choices = next((extra.known for extra in extras if isinstance(extra, OneOf)), None)
    kinds: tuple[Any, ...] = (annotation,)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = ()
        for one in typing.get_args(annotation):
            inner, plain, known = _parts(one)
            limits, choices, kinds = limits or inner, choices or known, (*kinds, *plain)
    return limits, kinds, choices


def _reason(value: Any, kinds: Sequence[Any], limits: Meta | None, strict: bool) -> str:
    """Why msgspec refused a value: its type, or its limits."""
    try:
        msgspec.convert(value, functools.reduce(operator.or_, kinds), strict=strict, dec_hook=_instance)
    except (msgspec.ValidationError, NotImplementedError):
        return f"is not {_words(kinds)}"
    if limits is not None and limits.min_length and not value:
        return "is empty"
    return "is not valid" if limits is None or limits.pattern else "is out of range"


def _words(kinds: Sequence[Any]) -> str:
    """What a field takes, in words: "a whole number", "one of wall, instructions"."""
    words = []
    for kind in kinds:
        plain = typing.get_origin(kind) or kind
        if plain is type(None):
            continue
        if isinstance(plain, type) and issubclass(plain, Enum):
            words.append(f"one of {', '.join(str(member.value) for member in plain)}")
        else:
            words.append(_WORDS.get(plain, f"a {getattr(plain, '__name__', plain)}"))
    return " or ".join(dict.fromkeys(words))


def _hint(kinds: Sequence[Any], limits: Meta | None) -> str:
    """Return the hint: what a field accepts."""
    if limits is not None and limits.description:
        return limits.description
    ends = {name: value for name in _LIMITS if (value := getattr(limits, name, None)) is not None}
    if set(ends) == {"ge", "le"}:
        return f"give {_words(kinds)}: {ends['ge']:g} to {ends['le']:g}"
    texts = [_LIMITS[name].format(value) for name, value in ends.items()]
    return f"give {_words(kinds)}" + (f": {' and '.join(texts)}" if texts else "")


def words(text: str) -> tuple[str, ...]:
    """The words of a text with commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
