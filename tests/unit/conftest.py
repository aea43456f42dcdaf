from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acon_nb.study import host_lock


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up guests wait for no real measurement on this host, and none waits for them."""
    monkeypatch.setattr(host_lock, "_folder", lambda: tmp_path)


@pytest.fixture(autouse=True)
def texts_inside_figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every text of every figure that a test draws lies inside the figure's canvas."""
    from matplotlib.figure import Figure

    from acon_nb.jupyter import narrow

    drawn: list[Figure] = []
    construct = Figure.__init__

    def noted(figure: Figure, *args: Any, **kwargs: Any) -> None:
        construct(figure, *args, **kwargs)
        drawn.append(figure)

    monkeypatch.setattr(Figure, "__init__", noted)
    yield
    assert [(figure.get_suptitle(), narrow.outside(figure)) for figure in drawn if narrow.outside(figure)] == []
