"""The inside of a boot, with real guests: milestones, initcalls, and every factor of a plan."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from acon_nb.boot import milestones, phases, summary
from acon_nb.boot.cell import BootCell
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.study.host_lock import run_locked
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.vm import Clock

pytestmark = pytest.mark.system

FIXED = {"timeout_s": 600}


@pytest.fixture(scope="module")
def study(guide_kernel, boot_initrd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inside")
    plan = Plan(
        name="inside",
        study="boot",
        cells=[{"milestones": False}, {"milestones": True}, {"initcalls": True}],
        fixed={**FIXED, "kernel": str(guide_kernel.image), "initrd": f"file:{boot_initrd}"},
        runs=1,
    )
    return folder, study_of(plan, folder).run().set_index("cell", drop=False)


def test_milestones_are_in_order_and_do_not_touch_the_boot(study):
    _, rows = study
    plain, marked = rows.loc["milestones=no"], rows.loc["milestones=yes"]
    moments = ["kernel_entry", "unpack", "kernel", "log", "init", "ready"]
    times = [marked[f"guest_ns_reset_to_{name}"] for name in moments]
    assert times == sorted(times)
    assert times[0] > 0
    assert len(set(times)) == len(times)
    assert marked["guest_ns_reset_to_ready"] == plain["guest_ns_reset_to_ready"]
    table = phases.phase_rows(rows.loc[["milestones=no", "milestones=yes"]].reset_index(drop=True))
    assert list(table["phase"]) == [
        "firmware + real-mode set-up + unpacking + early kernel", "kernel init", "/init",
        "firmware", "real-mode set-up", "unpacking", "early kernel + kernel init", "/init",
    ]  # fmt: skip
    split = table[table["cell"] == "milestones=yes"]
    assert list(split[list(phases.PARTS)].sum(axis=1)) == list(split["took_ns"])
    assert split["busy_waiting_ns"].max() == marked["busy_waiting_ns"] > 0


def test_initcalls_have_their_names_though_the_kernel_has_no_table_of_them(study):
    folder, rows = study
    (boot,) = summary.boots(rows.reset_index(drop=True), folder).values()
    names = {call.name for call in boot.calls}
    assert {"acpi_init", "virtio_console_init", "populate_rootfs"} <= names
    assert boot.lost == 0
    assert boot.init_us * 1000 == rows.loc["initcalls=yes", "guest_ns_init"]
    assert all(call.ended_us is not None for call in boot.calls)


def test_the_commands_show_them(study, tmp_path):
    folder, _ = study
    argv = ["bench", "initcalls", "--study", "inside", "--out", str(folder), "--plot", str(tmp_path / "calls.png")]
    done = CliRunner().invoke(main, [*argv, "--json"])
    assert done.exit_code == 0, done.output
    assert any(row["name"] == "acpi_init" for row in json.loads(done.stdout)["rows"])
    assert (tmp_path / "calls.png").read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(main, ["bench", "phases", "inside", "--out", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert {row["phase"] for row in json.loads(done.stdout)["phases"]} >= {"unpacking", "/init"}
    done = CliRunner().invoke(main, ["bench", "memory", "inside", "--out", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    parts = json.loads(done.stdout)["parts"]
    assert parts[0]["bytes"] == 512 << 20
    assert sum(row["bytes"] for row in parts if row["group"]) == parts[-1]["bytes"] - parts[0]["bytes"]


def test_factors_boot_and_reach_the_guest(guide_kernel, boot_initrd, tmp_path):
    plan = Plan(
        name="factors",
        study="boot",
        cells=[
            {"vcpus": 2},
            {"memory": "192M"},
            {"initrd": "busybox", "initrd_compression": "xz"},
            {"cmdline": "mitigations=off lpj=4000000"},
            {"append": "console=ttyS0 panic=-1"},
            {"firmware": "ovmf", "timeout_s": 300},
            {"accelerator": "tcg"},
        ],
        fixed={"kernel": str(guide_kernel.image), "clock": "wall"},
        runs=1,
        warmups=0,
    )
    rows = study_of(plan, tmp_path).run()
    assert list(rows["end"]) == ["powered_off"] * 7, rows[["cell", "end", "error"]].to_string()
    assert not rows["error"].any()
    two, small, packed, words, chatty, ovmf, tcg = rows.to_dict("records")
    assert two["mem_percpu_first_bytes"] == 2 * tcg["mem_percpu_first_bytes"]
    assert small["memtotal_bytes"] < 192 << 20
    assert packed["initrd_bytes"] < tcg["initrd_bytes"]
    assert "mitigations=off lpj=4000000" in words["cmdline"]
    assert "quiet" not in chatty["cmdline"]
    assert "Linux version" in (tmp_path / chatty["log"]).read_text()
    assert ovmf["firmware_sha256"]
    assert ovmf["mem_firmware_bytes"] > tcg["mem_firmware_bytes"]
    assert ovmf["host_ns_kernel_entry"] > ovmf["host_ns_vmm_start"]
    assert tcg["accelerator"] == "tcg"
    for row in rows.to_dict("records"):
        parts = [value for name, value in row.items() if name.startswith("mem_")]
        assert sum(parts) + row["memavailable_bytes"] == row["memory_bytes"]


@pytest.mark.parametrize(
    "levels", [{"accelerator": "kvm"}, {"td": True, "firmware": "ovmf"}], ids=lambda levels: next(iter(levels))
)
def test_what_this_host_cannot_run_is_refused_before_anything_is_built(host, tmp_path, levels):
    if host.kvm:
        pytest.skip("KVM works here")
    study = study_of(
        Plan(name="refused", study="boot", fixed={"clock": "wall", "profile": "none-such", **levels}), tmp_path
    )
    with pytest.raises(InvalidInput) as caught:
        study.run()
    assert next(iter(levels)) in str(caught.value)
    assert "acon-nb doctor" in caught.value.hint


@pytest.mark.weekly
def test_kernels_of_their_own_boot_too(tmp_path):
    plan = Plan(
        name="kernels",
        study="boot",
        cells=[{"kernel_compression": "gzip"}, {"machine": "microvm", "profile": "guide,microvm"}],
        fixed={**FIXED, "milestones": True},
        runs=1,
    )
    rows = study_of(plan, tmp_path).run().set_index("cell", drop=False)
    assert list(rows["end"]) == ["powered_off"] * 2
    packed, micro = (rows.iloc[number] for number in range(2))
    assert micro["guest_ns_reset_to_kernel_entry"] < packed["guest_ns_reset_to_kernel_entry"]
    for row in (packed, micro):
        assert row["guest_ns_reset_to_unpack"] < row["guest_ns_reset_to_kernel"] < row["guest_ns_reset_to_log"]


def test_a_kernel_without_room_behind_its_code_has_the_same_milestones(guide_kernel, boot_initrd, monkeypatch):
    cell = BootCell(name="x", kernel=guide_kernel.image, initrd=boot_initrd, clock=Clock.INSTRUCTIONS, timeout_s=600.0)

    def measured():
        marks, _ = run_locked(lambda token: milestones.measure(cell, cancel=token), alone=False)
        return {name: one.clock_ns for name, one in marks.items()}

    usual = measured()
    monkeypatch.setattr(milestones, "_room", lambda *_: None)
    assert set(usual) == {"kernel_entry", "unpack", "kernel"}
    assert measured() == usual
