"""What a kernel build prints when compiler, tools and tree do not fit each other (build_errors.toml)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from acon_nb.known_errors import KnownError, explanation, read_errors


@functools.cache
def build_errors() -> tuple[KnownError, ...]:
    """Return the rows of build_errors.toml, in their order."""
    return read_errors(Path(__file__).with_name("build_errors.toml"))


def hint_for(lines: Sequence[str]) -> str:
    """Return cause and remedy of the first row that matches a line of a build's output; "" if none does."""
    return explanation(build_errors(), lines)
