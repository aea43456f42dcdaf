"""The console's page part in the package is what its source gives."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


def test_what_the_package_holds_is_built_from_js(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("npm is missing (only who changes js/ needs it): apt-get install npm")
    for name in ("console.js", "console.css", "package.json", "package-lock.json"):
        shutil.copy(ROOT / "js" / name, tmp_path / name)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=240)
    built = tmp_path / "built"
    subprocess.run(
        ["npm", "run", "build"], cwd=tmp_path, check=True, timeout=600, env={**os.environ, "OUT": str(built)}
    )
    kept = ROOT / "acon_nb/widgets/static"
    assert {path.name for path in built.iterdir()} == {"console.js", "console.css"}
    for path in built.iterdir():
        assert path.read_bytes() == (kept / path.name).read_bytes(), f"npm ci && npm run build in js/: {path.name}"


def test_the_page_part_loads_nothing_from_a_network():
    for path in (ROOT / "acon_nb/widgets/static").glob("console.*"):
        text = path.read_text()
        assert "import(" not in text
        assert "url(http" not in text
        assert "fetch(" not in text
