from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb.study import host_lock


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up guests wait for no real measurement on this host, and none waits for them."""
    monkeypatch.setattr(host_lock, "_folder", lambda: tmp_path)
