"""The factors of a boot study: what cannot be is refused by name; plans from lines; milestones in an image."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.boot import initcalls, memory, milestones, phases, summary
from acon_nb.boot.experiment import check_host
from acon_nb.boot.factors import BootFactors, boot_factors
from acon_nb.boot.tables import boot_table
from acon_nb.errors import InvalidInput
from acon_nb.study import plan as plans
from acon_nb.vm import Capabilities


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"vcpus": 0, "clock": "wall"}, "vcpus=0: is out of range"),
        ({"seed": -1}, "seed=-1"),
        ({"milestones": "yes"}, "milestones='yes': is not true or false"),
        ({"milestones": True, "clock": "wall"}, "counted in instructions"),
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"cmdline": 5}, "cmdline=5: is not text"),
        ({"kernel_compression": "rar"}, "kernel_compression='rar'"),
        ({"initrd_compression": "zip"}, "initrd_compression='zip'"),
        ({"machine": "microvm", "firmware": "ovmf"}, "firmware of its own"),
        ({"initrd": "file:i.cpio", "initrd_compression": "xz"}, "is the file's own"),
        ({"ready": "port:80"}, "would disturb the count"),
        ({"ready": "console:["}, "not a regular expression"),
        ({"accelerator": "kvm"}, "counts one vCPU of TCG alone"),
        ({"clock": "wall", "td": True}, "needs q35, a TDVF"),
        ({"clock": "wall", "td": True, "firmware": "ovmf", "accelerator": "tcg"}, "needs q35, a TDVF"),
    ],
)
def test_a_level_that_cannot_be_names_the_factor(levels: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        boot_factors(levels)


@pytest.mark.parametrize("levels", [{"accelerator": "kvm"}, {"td": True, "firmware": "ovmf"}])
def test_kvm_and_a_td_are_refused_with_the_hosts_reason(tmp_path: Any, levels: dict[str, Any]) -> None:
    host = Capabilities(qemu=tmp_path / "qemu", kvm=False, kvm_why="no /dev/kvm")
    with pytest.raises(InvalidInput, match="no /dev/kvm"):
        check_host(boot_factors({"clock": "wall", **levels}), host)


def test_a_compressor_of_the_kernel_replaces_the_profiles() -> None:
    assert "KERNEL_XZ=y" in BootFactors(kernel_compression="xz").build_spec().settings
    assert "KERNEL_ZSTD=n" in BootFactors(kernel_compression="xz").build_spec().settings
    assert BootFactors(kernel_compression="zstd").build_spec().settings == ("KERNEL_ZSTD=y",)


def test_lines_of_toml_make_a_plan() -> None:
    plan = summary.plan_of("p", ['memory = ["1G", "2G"]'], ["quick = true", "vcpus = 2"], runs=3)
    assert dict(plan.factors) == {"memory": ["1G", "2G"]}
    assert dict(plan.fixed) == {"quick": True, "vcpus": 2}
    assert summary.plan_of("p", ["no"], [], runs=1, plan="kernels").name == "kernels"


def test_files_of_the_user_take_the_place_of_a_plans_levels() -> None:
    plan = summary.plan_of(
        "p", ['kernel = ["build", "package:x"]', 'memory = ["1G", "2G"]'], ["vcpus = 1"], runs=1,
        kernel="k/vmlinuz", initrd="i.cpio", ready="console:login:",
    )  # fmt: skip
    assert dict(plan.factors) == {"memory": ["1G", "2G"]}
    own = {"kernel": "k/vmlinuz", "initrd": "file:i.cpio", "ready": "console:login:"}
    assert dict(plan.fixed) == {"vcpus": 1, **own}
    named = summary.plan_of("p", [], [], runs=1, plan="kernels", initrd="i.cpio")
    assert named.fixed["initrd"] == "file:i.cpio"
    assert named.factors == plans.load("kernels").factors


def test_a_guest_without_a_report_is_a_whole_run_of_which_little_is_known() -> None:
    known = {"memory_bytes": 512 << 20, "ready": "init", "error": "", "clock": "wall"}
    times = {"host_ns_vmm_start": 1e8, "host_ns_kernel_entry": 2e8, "host_ns_ready": 9e8}
    rows = pd.DataFrame([{**known, **times, "cell": "c", "end": "ready", "memavailable_bytes": None}])
    assert not memory.is_known(rows.to_dict("records")[0])
    assert list(boot_table(rows)["time"]) == ["QEMU's start to /init: no report"]
    assert list(phases.phase_rows(rows)["phase"]) == [
        "VMM start", "firmware", "unpacking and early kernel + kernel init",
    ]  # fmt: skip
    (sentence,) = summary.findings(rows, Path("none"))
    assert sentence == "c: 0.90 s (medians) to /init, most of it unpacking and early kernel + kernel init (78%)"


def test_the_end_of_what_was_timed_is_named() -> None:
    base = {"memory_bytes": 512 << 20, "error": "", "clock": "instructions", "cell": "c", "end": "ready"}
    times = {"guest_ns_reset_to_log": 50.0, "guest_ns_reset_to_init": 70.0, "guest_ns_reset_to_ready": 99.0}
    cases = [
        ({"ready": "message", "report_ns": float("nan")}, times, "to the end of /init,"),
        ({"ready": "message", "report_ns": 5.0}, times, "to ready (message),"),
        ({"ready": "init", "report_ns": 5.0}, {**times, "guest_ns_reset_to_ready": None}, "to /init,"),
    ]
    for rule, found, words in cases:
        (sentence,) = summary.findings(pd.DataFrame([{**base, **rule, **found}]), Path("none"))
        assert words in sentence


@pytest.mark.parametrize(
    ("lines", "words"),
    [(["memory: 1G"], "is not a line of TOML"), (["a = 1", "a = 2"], "twice"), ([5], "is not a line")],
)
def test_a_line_that_is_none_is_named(lines: list[Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        plans.of_lines("factors", lines)


@pytest.mark.parametrize("name", plans.built_in())
def test_the_built_in_plans_have_cells_that_can_be(name: str) -> None:
    plan = plans.load(name)
    if plan.study == "boot":
        for cell in plan.all_cells:
            boot_factors(cell.levels)
    assert plan.baseline_label


def test_phases_join_where_a_moment_is_missing_and_add_up() -> None:
    rows = pd.DataFrame(
        {
            "clock": ["instructions"] * 2, "cell": ["a", "b"], "end": ["powered_off"] * 2,
            "guest_ns_reset_to_kernel_entry": [10.0, None], "guest_ns_reset_to_log": [50.0, 60.0],
            "guest_ns_reset_to_init": [70.0, 90.0], "guest_ns_reset_to_ready": [75.0, 99.0],
        }
    )  # fmt: skip
    found = phases.phase_rows(rows)
    assert list(found[found["cell"] == "a"]["phase"]) == [
        "firmware", "real-mode set-up + unpacking + early kernel", "kernel init", "/init",
    ]  # fmt: skip
    assert list(found.groupby("cell")["took_ns"].sum()) == [75.0, 99.0]
    assert set(phases.phase_table(rows)["runs"]) == {1}
    with pytest.raises(InvalidInput, match="no whole run"):
        phases.phase_rows(rows.assign(end="panic"))


def test_labels_lose_what_they_share() -> None:
    assert initcalls.apart("kernel=a, initcalls=yes", "kernel=b, initcalls=yes") == ("kernel=a", "kernel=b")
    assert initcalls.apart("same", "same") == ("same", "same")


def image(leave: bytes = b"\x4c\x89\xfe\xff\xe0") -> bytes:
    """A bzImage of one set-up sector, a head, a payload that looks like code, the way out, and an unfilled page."""
    head = bytearray(1024)
    head[0x1F1], head[0x200:0x202] = 1, b"\xeb\x6a"
    struct.pack_into("<II", head, 0x248, 0x2C4, 0x400)
    body = bytes([0x90]) * 0x100 + bytes(0x100) + bytes([0x90]) * 0xC4 + b"\x4c\x89\xfe\xff\xe0" * 0xCD
    body = body[: 0x2C4 + 0x400].ljust(0x2C4 + 0x400, b"\xcc")
    code = body + bytes([0x90]) * 16 + leave + bytes([0x90]) * 16
    return bytes(head) + code.ljust(0x1000, b"\0") + bytes([0x90]) * 16


@pytest.mark.parametrize(
    "leave", [b"\x4c\x89\xfe\xff\xe0", b"\x48\x89\xde\x48\x01\xc8\xff\xe0", b"\x5e\xff\xe0\xf4\xeb\xfd"]
)
def test_the_way_out_of_the_unpacker_is_marked_and_no_payload_touched(monkeypatch: Any, leave: bytes) -> None:
    monkeypatch.setattr(milestones, "guest_code", lambda *_, **__: b"\xaa" * 56)
    whole = image(leave)
    marked = milestones._at_leaving(whole, None)
    assert marked is not None
    assert len(marked) == len(whole)
    payload = slice(0x400 + 0x2C4, 0x400 + 0x2C4 + 0x400)
    assert marked[payload] == whole[payload]
    place = whole.rindex(leave)
    assert marked[place] == 0xE9
    target = place + 5 + struct.unpack_from("<i", marked, place + 1)[0]
    assert marked[target : target + 56] == b"\xaa" * 56
    assert whole[target : target + 56] == bytes(56)


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_marked_or_refused(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(milestones, "guest_code", lambda *_, **__: b"\xaa" * 56)
        for mark in (
            milestones.marked_at_setup,
            milestones._at_protected_mode,
            milestones._at_efi_entry,
            milestones._at_leaving,
        ):
            try:
                marked = mark(data, None)
            except InvalidInput:
                continue
            assert marked is None or len(marked) == len(data)
