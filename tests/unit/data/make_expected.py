"""Write what the package derives from `rows_v2` today: the expectations of test_same_numbers.py.

    python -m tests.unit.data.make_expected

Run once, with the version that wrote the rows. To run it again is to say that every number may be another.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.unit.quantities import DATA, QUANTITIES, Rows

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows.copied_to(Path(folder))
        numbers = {name: function(rows) for name, function in QUANTITIES.items()}
    lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in numbers.items()]
    (DATA / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
