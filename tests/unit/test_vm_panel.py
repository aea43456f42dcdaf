"""The panel's cell run again finds the guest that it started; no guest and no page here."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acon_nb import vm
from acon_nb.errors import InvalidInput
from acon_nb.vm.preflight import check_size
from acon_nb.widgets.vm_panel import VmPanel
from tests.unit import bzimages

module = sys.modules[VmPanel.__module__]  # the package has a function of this name


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`cell(name)` is the cell that runs from then on, each time in a new execution."""
    now = {"cell": "", "execution": 0}

    def run(name: str) -> None:
        now.update(cell=name, execution=now["execution"] + 1)  # type: ignore[operator]

    monkeypatch.setattr(module, "cell_now", lambda: (now["cell"], now["execution"]))
    monkeypatch.setattr(module, "_started", [])
    return run


def guest() -> Any:
    return SimpleNamespace(running=True, console=SimpleNamespace(transcript=Path("x")))


def panel(spec: str) -> VmPanel:
    return VmPanel(spec)  # type: ignore[arg-type] # what a spec holds does not matter here


def test_a_cell_that_is_run_again_finds_its_guest_its_fields_and_its_console(cell: Any) -> None:
    cell("a")
    first = panel("spec")
    first.spec = "edited"  # type: ignore[assignment]
    first.started(guest())
    cell("a")
    again = panel("spec")
    assert again.machine is first.machine
    assert again.console is first.console
    assert again.spec == "edited"
    cell("a")
    assert panel("another spec").machine is first.machine, "the cell was edited"
    cell("a")
    assert panel("spec").machine is first.machine, "a third time too"


def test_another_cell_and_an_ended_guest_are_not_taken(cell: Any) -> None:
    cell("a")
    first = panel("spec")
    first.started(guest())
    cell("b")
    assert panel("spec").machine is None
    cell("a")
    first.machine.running = False  # type: ignore[union-attr, misc]
    assert panel("spec").machine is None


def test_two_panels_of_a_cell_each_find_their_own(cell: Any) -> None:
    cell("a")
    one, two = panel("one"), panel("two")
    one.started(guest())
    two.started(guest())
    third = panel("one")
    assert third.machine is None, "the same execution starts one more"
    cell("a")
    assert panel("one").machine is one.machine
    assert panel("two").machine is two.machine


def test_outside_notebooks_the_spec_decides(cell: Any) -> None:
    cell("")
    first = panel("spec")
    first.started(guest())
    cell("")
    assert panel("spec").machine is first.machine
    assert panel("other").machine is None


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return bzimages.write(tmp_path / "bzImage")


@pytest.mark.parametrize(("field", "value"), [("memory_bytes", 900 << 40), ("vcpus", 999)])
def test_a_size_that_cannot_be_is_refused_while_it_is_typed(kernel: Path, field: str, value: int) -> None:
    good = vm.VmSpec(kernel=kernel)
    check_size(good, (7, 2, 0))
    with pytest.raises(InvalidInput) as caught:
        check_size(dataclasses.replace(good, **{field: value}), (7, 2, 0))
    assert caught.value.field == field


def test_a_kvm_that_cannot_start_leaves_start_disabled(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = vm.Capabilities(qemu=Path("/usr/bin/qemu-system-x86_64"), kvm=False, kvm_why="no /dev/kvm")
    monkeypatch.setattr(module.vm, "capabilities", lambda: host)
    view = module._View(VmPanel(vm.VmSpec(kernel=kernel)))
    deadline = time.monotonic() + 60
    while view.start.disabled:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    view.fields["accelerator"].value = "kvm"
    assert view.start.disabled
    assert "no /dev/kvm" in view.errors["accelerator"].value
    view.fields["accelerator"].value = "tcg"
    assert not view.start.disabled
    view.fields["memory_bytes"].value = "900T"
    assert view.start.disabled
