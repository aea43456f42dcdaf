"""Numbers in, numbers out: intervals, tests, steps in a series, break-even points, Pareto fronts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
