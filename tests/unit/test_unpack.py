from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from acon_nb.boot import unpack
from acon_nb.errors import InvalidInput
from acon_nb.initrd import FileTree


def test_an_unknown_compression_is_refused_before_anything_is_made() -> None:
    with pytest.raises(InvalidInput, match="compressions='rar'"):
        unpack.measure(FileTree(), Path("/no/such/kernel"), compressions=("gz", "rar"))


def test_the_table_is_for_people() -> None:
    rows = [("none", 4096, 4096, 0.1, 5_000_000, 0), ("gz", 1024, 4096, 0.5, 7_500_000, 2_500_000)]
    columns = ["compression", "image_bytes", "archive_bytes", "make_s", "init_ns", "added_init_ns"]
    table = unpack.unpack_table(pd.DataFrame(rows, columns=columns))
    assert list(table["of the archive"]) == ["100 %", "25 %"]
    assert list(table["10⁶ instructions to unpack"]) == ["0.0", "2.5"]
