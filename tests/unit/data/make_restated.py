"""Write what those quantities of test_same_numbers.py are now whose rule was changed on purpose.

    python -m tests.unit.data.make_restated

To run it is to say that each of them may be another; look at what differs first (`git diff`).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.unit.quantities import DATA, QUANTITIES, Rows
from tests.unit.test_same_numbers import RESTATED

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows.copied_to(Path(folder))
        numbers = {name: QUANTITIES[name](rows) for name in sorted(RESTATED)}
    lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in numbers.items()]
    (DATA / "restated.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
