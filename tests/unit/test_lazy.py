"""`import acon_nb` alone: every module can be reached by its name, and none is loaded before it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import acon_nb

FOLDER = Path(acon_nb.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in FOLDER.rglob("*.py")
    if path.stem not in ("__main__", "process_supervisor") and "src" not in path.parts  # programs of their own
)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_module_is_reached_by_its_name() -> None:
    code = "import acon_nb, json, sys\nfor name in json.loads(sys.argv[1]): assert eval(name) is not None, name"
    subprocess.run([sys.executable, "-c", code, json.dumps(MODULES)], check=True)
    assert "acon_nb.td.preflight" in MODULES


def test_nothing_is_loaded_before_it_is_used() -> None:
    loaded = run("import acon_nb, sys\nprint(*(name for name in sys.modules if name.startswith('acon_nb')))")
    assert set(loaded.split()) == {"acon_nb", "acon_nb.lazy"}


@pytest.mark.parametrize("name", ["no_such_module", "_private"])
@pytest.mark.parametrize("package", [acon_nb, acon_nb.vm])
def test_a_name_that_does_not_exist_is_an_attribute_error(package: object, name: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(package, name)


def test_what_a_module_lacks_is_not_taken_for_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lacking"
    package.mkdir()
    (package / "__init__.py").write_text("from acon_nb.lazy import submodules\n__getattr__ = submodules(__name__)\n")
    (package / "module.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    import lacking

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        lacking.module  # noqa: B018
