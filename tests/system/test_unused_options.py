"""Options whose code never ran: the kernel is built and booted without them; a second check does neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from acon_nb import kernel
from acon_nb.boot import BootCell, profiling, unused_check
from acon_nb.cli import main
from acon_nb.vm import Clock

pytestmark = [pytest.mark.system, pytest.mark.weekly]
NUMBER = 2


def test_proposals_are_built_and_booted_once(
    guide_kernel: kernel.KernelImage, boot_initrd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = BootCell(
        name="guide", kernel=guide_kernel.image, initrd=boot_initrd, clock=Clock.INSTRUCTIONS, timeout_s=900
    )
    profiling.profile(cell, until="end").save(tmp_path / "boot.json")
    argv = ["kernel", "unused", "--kernel", str(guide_kernel.image), "--most", str(NUMBER), "--check", "--json"]

    def checked() -> list[dict[str, Any]]:
        done = CliRunner().invoke(main, [*argv, str(tmp_path)])
        assert done.exit_code == 0, done.output
        rows: list[dict[str, Any]] = json.loads(done.stdout)["checked"]
        return rows

    first = checked()
    assert len(first) == NUMBER
    for row in first:
        assert row["boots"], row["why"]
        assert row["image_bytes"] < row["before_image_bytes"]
        assert row["instructions"] < row["before_instructions"]  # less to unpack, and no __init code

    def never(*_: object, **__: object) -> None:
        raise AssertionError("booted again")

    monkeypatch.setattr(unused_check, "run", never)
    assert checked() == first
