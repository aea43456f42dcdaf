"""Profiles of real guests: exact, the same each time, and without effect on the guest."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from acon_nb import results
from acon_nb.boot import BootCell, profiling, run
from acon_nb.boot.experiment import BootExperiment
from acon_nb.cli import main
from acon_nb.errors import AconError, InvalidInput
from acon_nb.profile import sources
from acon_nb.profile.counts import REPEATED
from acon_nb.profile.model import load
from acon_nb.study.kinds import experiment_of
from acon_nb.study.plan import Plan
from acon_nb.study.whole import run_plan
from acon_nb.vm import Clock, Machine

pytestmark = pytest.mark.system
TIMEOUT_S = 1200


@pytest.fixture(scope="module")
def cell(guide_kernel, boot_initrd):
    return BootCell(
        name="guide", kernel=guide_kernel.image, initrd=boot_initrd, clock=Clock.INSTRUCTIONS, timeout_s=TIMEOUT_S
    )


@pytest.fixture(scope="module")
def ready(cell):
    return profiling.profile(cell, until="ready")


@pytest.fixture(scope="module")
def init(cell):
    return profiling.profile(cell)


def test_every_instruction_is_a_functions(cell, init, ready):
    """The oracle is the guest's own clock, as a boot without a profile reports it: total is it less its idle time."""
    plain = run(cell)
    assert init.total == plain.executed_ns + plain.busy_waiting_ns
    assert init.total + plain.idle_ns == plain.guest_ns["reset_to_init"]
    for profile in (init, ready):
        assert sum(one.self_count for one in profile.functions) + profile.unattributed == profile.total
        assert profile.unattributed == 0
    assert plain.guest_ns["reset_to_ready"] - plain.idle_ns_reset_to["ready"] == ready.total


def test_a_second_boot_gives_the_same_profile(cell, init):
    again = profiling.profile(cell)
    assert again.sha256 == init.sha256
    assert again.encoded() == init.encoded()


def test_a_longer_profile_has_the_shorter_in_it(init, ready):
    assert ready.phases == (*init.phases, "/init")
    assert [one for one in ready.functions if one.phase in init.phases] == list(init.functions)


def test_phases_have_what_belongs_to_them(init):
    regions = {(one.phase, one.region.value) for one in init.functions if one.name != REPEATED}
    assert {region for phase, region in regions if phase == "firmware"} == {"firmware"}
    assert {region for phase, region in regions if phase == "unpacking"} == {"unpacking"}
    assert ("kernel", "kernel") in regions
    names = {one.name for one in init.functions if one.phase == "kernel"}
    assert {"start_kernel", "unwind_init", "alternative_instructions"} <= names


def test_the_clock_is_the_same_without_the_plugin(cell, ready):
    """What a guest reports as it ends has the clock in it: the time stamp counter."""
    with Machine(cell.spec()) as machine:
        plain = machine.wait().check()
    tsc = [message.data["tsc"] for message in plain.messages if "tsc" in message.data]
    assert tsc
    counted = profiling.boot_once(cell, None, profiling.CancelToken(), starts=profiling.functions(cell).starts())
    assert [message.data["tsc"] for message in counted.messages if "tsc" in message.data] == tsc


def test_a_guest_is_profiled_to_its_end(cell, ready):
    profile = profiling.profile(cell, until="end")
    assert profile.phases == (*ready.phases, "shutdown")
    assert profile.total > ready.total
    assert sum(one.self_count for one in profile.functions) + profile.unattributed == profile.total
    assert profile.unattributed == 0


def test_a_kernel_without_symbols_is_one_entry(cell, init, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "functions_of", lambda *_: {})
    profile = profiling.profile(cell)
    kernel = [one for one in profile.functions if one.name == "(kernel)"]
    assert len(kernel) == 1
    known = sum(one.self_count for one in init.functions if one.phase == "kernel" and one.region == "kernel")
    assert 0 < kernel[0].self_count <= known
    assert profile.total == init.total
    assert 0 <= -profile.unattributed < 200  # nothing says which instructions were repeated after faults


def test_a_study_keeps_the_profile_of_each_run_and_measures_the_same(guide_kernel, boot_initrd, tmp_path, ready):
    fixed = {"kernel": str(guide_kernel.image), "initrd": f"file:{boot_initrd}", "timeout_s": float(TIMEOUT_S)}
    tables = {}
    for profile in (False, True):
        plan = Plan.of({"name": "kept", "study": "boot", "fixed": {**fixed, "profile": profile}, "runs": 1})
        out = results.Store(tmp_path / str(profile))
        tables[profile] = run_plan(plan, BootExperiment(plan), out=out).iloc[0].to_dict()
    row = tables[True]
    path = tmp_path / "True" / row["profile"]
    assert path.stem == row["profile_sha256"]
    assert load(path).functions == ready.functions
    differing = {"run_id", "timestamp", "run_key", "seconds", "load_1min", "log", "kernel_log", "console"}
    same = [
        name for name in tables[False] if name not in differing and "pss" not in name and not name.startswith("host_")
    ]
    assert len(same) > 60
    for name in same:
        assert str(row[name]) == str(tables[False][name]), name
    shown = CliRunner().invoke(main, ["bench", "profile", "kept", "--out", str(tmp_path / "True"), "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["sha256"] == load(path).sha256
    none = CliRunner().invoke(main, ["bench", "profile", "kept", "--out", str(tmp_path / "False")])
    assert none.exit_code == 2
    assert "profile = true" in none.stderr


def test_the_command_prints_what_it_counted(guide_kernel, boot_initrd, init, tmp_path):
    saved = tmp_path / "boot.json"
    argv = ["bench", "profile", "--kernel", str(guide_kernel.image), "--initrd", str(boot_initrd), "--json"]
    shown = CliRunner().invoke(main, [*argv, "--save", str(saved), "--timeout", str(TIMEOUT_S)])
    assert shown.exit_code == 0, shown.output
    values = json.loads(shown.stdout)
    assert values["total"] == sum(one["self"] for one in values["functions"]) + values["unattributed"] == init.total
    assert set(values["functions"][0]) >= {"name", "self", "phase", "file"}
    assert load(saved).sha256 == values["sha256"]


def test_the_wall_clock_is_refused(guide_kernel):
    plan = Plan.of(
        {
            "name": "wall",
            "study": "boot",
            "fixed": {"kernel": str(guide_kernel.image), "clock": "wall"},
            "profile": True,
        }
    )
    with pytest.raises(InvalidInput, match="wall clock"):
        experiment_of(plan)


def test_without_plugins_a_profile_is_refused_and_all_else_works(cell, host, tmp_path):
    """A QEMU as of a build without plugins, which does not know the option."""
    refusing = tmp_path / "qemu"
    refused = 'for word; do [ "$word" != -plugin ] || { echo "-plugin: invalid option" >&2; exit 1; }; done'
    refusing.write_text(f'#!/bin/sh\n{refused}\nexec {host.qemu} "$@"\n')
    refusing.chmod(0o755)
    without = replace(host, qemu=refusing)
    with pytest.raises(AconError, match="loads no plugin for counting"):
        profiling.profile(cell, host=without)
    row = run(cell, host=without)
    assert row.ready
    assert row.executed_ns is None
    assert row.guest_ns["reset_to_ready"] == run(cell, host=host).guest_ns["reset_to_ready"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_options_that_would_not_act_are_refused(guide_kernel):
    shown = CliRunner().invoke(main, ["bench", "profile", "--kernel", str(guide_kernel.image), "--cell", "one"])
    assert shown.exit_code == 2
    assert "--cell needs STUDY" in shown.stderr
