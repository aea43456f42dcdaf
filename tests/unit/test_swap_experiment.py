"""A swap study without guests: the host's disk full, rows kept as they are measured, the command."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from click.testing import CliRunner, Result

from acon_nb.cli import main
from acon_nb.errors import AconError, NoSpace
from acon_nb.results.store import Store
from acon_nb.study.plan import Plan, PlanCell, PlannedRun
from acon_nb.study.runner import Measured, Study
from acon_nb.swap import experiment
from acon_nb.swap.experiment import SwapExperiment
from acon_nb.swap.factors import SwapFactors
from acon_nb.vm import Capabilities, Clock, End
from tests.unit import bzimages
from tests.unit.test_calibration import MEASURED


class Large:
    """Rows of some 60 KiB, as of a guest that was looked at often."""

    kind = "swap"
    unbuilt: Mapping[str, AconError] = MappingProxyType({})

    def __init__(self, console: Path) -> None:
        self._console = console

    def clock(self, _: PlanCell) -> Clock:
        return Clock.INSTRUCTIONS

    def prepare(self, **_: object) -> None:
        pass

    def identity(self, cell: PlanCell) -> str:
        return cell.label

    def run(self, _: PlanCell, planned: PlannedRun, *__: object) -> Measured:
        samples = "".join(chr(33 + (index * index + planned.block) % 90) for index in range(60_000))
        row = {"samples": samples, "factor_workload": "anon", "seed": planned.block + 1}
        return Measured(row=row, end=End.POWERED_OFF, console=self._console)


def test_a_host_whose_disk_is_full_says_so_and_keeps_what_was_measured(tmp_path: Path, small_disk: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("x" * 30_000)
    plan = Plan(name="full", study="swap", factors={"swap": ["disk", "zram"]}, runs=10)
    study = Study(plan=plan, experiment=Large(console), store=Store(small_disk / "out"), parallel=1)
    with pytest.raises((NoSpace, OSError)) as caught:
        study.run()
    assert isinstance(caught.value, NoSpace) or caught.value.errno == errno.ENOSPC
    kept = study.rows()
    assert 1 <= len(kept) < 20
    assert not kept.attrs["set_aside"], "no row is torn"
    assert study.state.phase == "failed"


def call(*argv: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in argv])


@pytest.mark.parametrize("argv", [(), ("--preset", "smoke", "--plan", "x.toml"), ("--preset", "huge")])
def test_one_plan_is_asked_for(argv: tuple[str, ...]) -> None:
    assert call("bench", "swap", *argv).exit_code == 2


def test_the_cells_of_a_preset_are_listed_with_the_studys_checks(tmp_path: Path) -> None:
    said = call("bench", "swap", "--preset", "smoke", "--dry-run", "--runs", "3", "--out", tmp_path).stdout
    assert "swap=zswap:lz4: 3 runs, instructions clock" in said
    assert "workload=codec" in said
    assert "copy=again" in said


def test_a_plan_of_another_study_or_with_a_bad_level_is_refused_by_name(tmp_path: Path) -> None:
    boot = tmp_path / "boot.toml"
    boot.write_text('study = "boot"\n[factors]\nmemory = ["1G"]\n')
    said = call("bench", "swap", "--plan", boot, "--out", tmp_path)
    assert said.exit_code == 2
    assert "is not a swap study" in said.output
    bad = tmp_path / "bad.toml"
    bad.write_text('study = "swap"\n[factors]\nswap = ["zram:lz5"]\n')
    said = call("bench", "swap", "--plan", bad, "--out", tmp_path)
    assert said.exit_code == 2
    assert "compressor" in said.output
    assert "lz4" in said.output


def test_a_corpus_that_is_none_is_refused() -> None:
    said = call("bench", "corpora", "../etc")
    assert said.exit_code == 2
    assert "redis, python, compiler, files" in said.output


def test_a_cell_is_the_same_on_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cluster's driver sends is enough: same guest, same disk, same columns."""
    host = Capabilities(qemu=Path("/usr/bin/qemu"), version=(7, 2, 0), kvm=False, kvm_why="")
    monkeypatch.setattr(experiment, "capabilities", lambda: host)
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd"
    bzimages.write(kernel)
    initrd.write_bytes(b"070701")
    plan = Plan(name="s", study="swap", fixed={"swap": "disk", "dilation": 10.0}, runs=1, warmups=0)
    first, second = SwapExperiment(plan), SwapExperiment(plan)
    cell = plan.all_cells[0]
    first._host = host
    first._make(cell.label, SwapFactors.of(cell.levels), kernel, initrd, MEASURED)
    second.adopt(cell, first.parts(cell), json.loads(json.dumps(first.findings(cell))))
    assert second.identity(cell) == first.identity(cell)
    assert second.findings(cell) == first.findings(cell)
