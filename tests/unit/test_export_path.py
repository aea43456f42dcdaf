"""Files whose names are typed into forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.widgets.parts import export_path


def test_an_export_makes_no_folder(tmp_path: Path) -> None:
    assert export_path(f" {tmp_path}/a.png ") == tmp_path / "a.png"
    with pytest.raises(InvalidInput, match="folder that does not exist"):
        export_path(f"{tmp_path}/mistyped/a.png")
    for text in ("", "  ", str(tmp_path)):
        with pytest.raises(InvalidInput, match="not the name of a file"):
            export_path(text)
    assert list(tmp_path.iterdir()) == []
