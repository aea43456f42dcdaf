from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from acon_nb.kernel import sizes


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build folder as make leaves it: objects, the thin archive of those that are linked, and a stale one."""
    for name, count in {"init/main": 100, "drivers/pci/pci": 3000, "drivers/net/old": 5000, "lib/string": 50}.items():
        source = tmp_path / f"{name}.c"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(f"char {source.stem}[{count}] = {{1}};\n")
        subprocess.run(["gcc", "-c", source.name], cwd=source.parent, check=True)
    subprocess.run(["ar", "cDPrST", "vmlinux.a", "init/main.o", "drivers/pci/pci.o"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "cDPrST", "lib/lib.a", "lib/string.o"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "cDPrST", "drivers/net/built-in.a", "drivers/net/old.o"], cwd=tmp_path, check=True)
    (tmp_path / "drivers/net/old.o").unlink()
    return tmp_path


def test_only_linked_objects_count(build: Path) -> None:
    found = sizes.measure(build)
    assert [(part.part, part.data_bytes) for part in found] == [("drivers/pci", 3000), ("init", 100), ("lib", 50)]


def test_sizes_are_stored_next_to_the_image(build: Path) -> None:
    found = sizes.measure(build)
    sizes.save(found, build)
    assert sizes.of_image(build / "bzImage") == found


def test_a_folder_that_was_never_built_has_no_parts(tmp_path: Path) -> None:
    assert sizes.measure(tmp_path) == ()
