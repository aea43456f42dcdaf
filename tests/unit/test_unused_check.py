"""The check of proposals, with builds and boots that are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from acon_nb import kernel
from acon_nb.boot import BootCell, unused_check
from acon_nb.cache import Cache
from acon_nb.errors import BuildFailed, Cancelled, GuestFailed
from acon_nb.profile.unused import UnusedOption
from acon_nb.vm import Clock

SIZES = {"GOOD": 900, "MUTE": 800}
BOOTED: list[str] = []


def proposal(option: str) -> UnusedOption:
    return UnusedOption(option=option, prompt="", objects=("a.o",), functions=1, code_bytes=1)


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BootCell:
    for name in ("bzImage", "config", "initrd"):
        (tmp_path / name).write_text("CONFIG_GOOD=y\n".ljust(1000))

    def build(spec: kernel.BuildSpec, **_: object) -> SimpleNamespace:
        (setting,) = spec.settings
        option = setting.removesuffix("=n")
        assert (spec.profiles, spec.config, spec.source) == ((), tmp_path / "config", "debian:6.12")
        if option == "STOP":
            raise Cancelled("stopped")
        if option not in SIZES:
            raise BuildFailed("the kernel did not build: make ended with 2")
        image = tmp_path / option
        image.write_bytes(bytes(SIZES[option]))
        return SimpleNamespace(image=image)

    def run(cell: BootCell, **_: object) -> SimpleNamespace:
        BOOTED.append(cell.name)
        if cell.name == "MUTE=n":
            raise GuestFailed("MUTE=n ended: the kernel panicked", end="panicked")
        ready_ns = 5_500 if cell.kernel.name == "bzImage" else 5_490
        return SimpleNamespace(guest_ns={"reset_to_ready": ready_ns}, idle_ns_reset_to={"ready": 500})

    monkeypatch.setattr(kernel, "build", build)
    monkeypatch.setattr(unused_check, "run", run)
    monkeypatch.setattr(unused_check, "spec_hash", lambda cell: cell.name)
    monkeypatch.setattr(unused_check, "probe_qemu", lambda: SimpleNamespace(version_text="7.2", package=""))
    BOOTED.clear()
    return BootCell(name="k", kernel=tmp_path / "bzImage", initrd=tmp_path / "initrd", clock=Clock.INSTRUCTIONS)


def checked(cell: BootCell, cache: Cache, *options: str) -> list[str]:
    proposals = [proposal(name) for name in options]
    return [one.text for one in unused_check.check(proposals, cell, cell.kernel.with_name("config"), cache=cache)]


def test_each_option_has_an_outcome_of_its_own(cell: BootCell, cache: Cache) -> None:
    assert checked(cell, cache, "GOOD", "BROKEN", "MUTE") == [
        "GOOD=n boots: -100 bytes of bzImage, -10 instructions",
        "BROKEN=n does not build: the kernel did not build: make ended with 2",
        "MUTE=n does not boot: MUTE=n ended: the kernel panicked",
    ]


def test_a_check_that_was_stopped_resumes(cell: BootCell, cache: Cache) -> None:
    with pytest.raises(Cancelled):
        checked(cell, cache, "GOOD", "STOP")
    assert BOOTED == ["k", "GOOD=n"]
    BOOTED.clear()
    assert checked(cell, cache, "GOOD") == ["GOOD=n boots: -100 bytes of bzImage, -10 instructions"]
    assert BOOTED == []
