"""The check of proposals, with builds and boots that are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from acon_nb import kernel
from acon_nb.boot import BootCell, profiling, unused_check
from acon_nb.errors import BuildFailed, Cancelled, GuestFailed
from acon_nb.profile.unused import UnusedOption
from acon_nb.vm import Clock

SIZES = {"GOOD": 900, "MUTE": 800}


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

    def profile(cell: BootCell, *, until: str, **_: object) -> SimpleNamespace:
        assert until == "ready"
        if cell.name == "MUTE=n":
            raise GuestFailed("MUTE=n ended: the kernel panicked", end="panicked")
        return SimpleNamespace(total=5_000 if cell.kernel.name == "bzImage" else 4_990)

    monkeypatch.setattr(kernel, "build", build)
    monkeypatch.setattr(profiling, "profile", profile)
    return BootCell(name="k", kernel=tmp_path / "bzImage", initrd=tmp_path / "initrd", clock=Clock.INSTRUCTIONS)


def test_each_option_has_an_outcome_of_its_own(cell: BootCell) -> None:
    options = [proposal(name) for name in ("GOOD", "BROKEN", "MUTE")]
    texts = [one.text for one in unused_check.check(options, cell, cell.kernel.with_name("config"))]
    assert texts == [
        "GOOD=n boots: -100 bytes of bzImage, -10 instructions",
        "BROKEN=n does not build: the kernel did not build: make ended with 2",
        "MUTE=n does not boot: MUTE=n ended: the kernel panicked",
    ]


def test_a_cancelled_check_is_not_an_outcome(cell: BootCell) -> None:
    with pytest.raises(Cancelled):
        list(unused_check.check([proposal("STOP")], cell, cell.kernel.with_name("config")))
