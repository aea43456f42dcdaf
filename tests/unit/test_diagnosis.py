from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.vm.diagnosis import End, end_of_reset, hint_for, last_words, panic_lines, read_tail

NO_INIT = """\
[    0.412345] Run /init as init process
[    0.413000] Kernel panic - not syncing: No working init found.  Try passing init= option to kernel. See Linux
[    0.413100] CPU: 0 UID: 0 PID: 1 Comm: swapper/0 Not tainted 6.12.57-acon #1
[    0.413200] Call Trace:
[    0.413300]  <TASK>
[    0.413400]  panic+0x10a/0x2c0
[    0.413500] ---[ end Kernel panic - not syncing: No working init found. ]---
"""
NO_ROOT = """\
[    0.500000] VFS: Cannot open root device "" or unknown-block(0,0): error -6
[    0.500100] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
"""
OOPS = """\
[    1.000000] init: all is well
[    1.100000] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    1.100100] #PF: supervisor write access in kernel mode
[    1.100200] Oops: Oops: 0002 [#1] PREEMPT SMP
[    1.100300] RIP: 0010:sysrq_handle_crash+0x16/0x20
[    1.100400] Kernel panic - not syncing: Fatal exception
"""
DEADLOCKED = """\
[    2.000000] swapper/0 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
[    2.000100] Mem-Info:
[    2.000200] Out of memory and no killable processes...
[    2.000300] Kernel panic - not syncing: System is deadlocked on memory
"""
SMALL = """\
[    0.300000] Initramfs unpacking failed: write error
[    0.400000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
"""
KILLED_ONE = """\
[    3.000000] Out of memory: Killed process 77 (swap_load) total-vm:300000kB, anon-rss:200000kB
[    3.100000] reboot: Restarting system
"""
QUIET = "[    0.000000] Linux version 6.12\n[    0.800000] reboot: Restarting system\n"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (NO_INIT, End.PANIC),
        (NO_ROOT, End.PANIC),
        (OOPS, End.PANIC),
        (DEADLOCKED, End.OUT_OF_MEMORY),
        (SMALL, End.OUT_OF_MEMORY),
        (KILLED_ONE, End.RESET),
        (QUIET, End.RESET),
        ("", End.RESET),
    ],
)
def test_the_cause_of_a_reset_is_found(text: str, end: End) -> None:
    assert end_of_reset(text.splitlines()) is end


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"[    0.478525] reboot: Power off not available: System halted instead\r\n", "halted"),
        (b"# halt -f\r\nreboot: System halted\r\n", "halted"),
        (b"[   1.2] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---\r\n", "panic"),
        (b"[    0.478525] reboot: Power down\r\n", ""),
        (b"echo reboot: System halted\r\n", ""),
        (b"", ""),
    ],
)
def test_the_last_words_of_a_kernel(raw: bytes, why: str) -> None:
    assert last_words(raw) == why


def test_the_report_begins_with_the_oops_and_holds_the_panic() -> None:
    lines = panic_lines(OOPS.splitlines())
    assert "NULL pointer" in lines[0]
    assert "Fatal exception" in lines[-1]
    assert "No working init" in panic_lines(NO_INIT.splitlines())[0]
    assert panic_lines(QUIET.splitlines()) == []
    assert len(panic_lines(["Kernel panic", *["noise"] * 500])) <= 60


@pytest.mark.parametrize(
    ("end", "text", "words"),
    [
        (End.OUT_OF_MEMORY, DEADLOCKED, "more memory"),
        (End.PANIC, NO_INIT, "/init"),
        (End.PANIC, NO_ROOT, "no working init"),
        (End.HANG, QUIET, "timeout_s"),
        (End.QEMU_FAILED, "qemu: Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'", "another host port"),
        (End.QEMU_FAILED, 'qemu: Failed to get "write" lock', "in use"),
        (End.QEMU_FAILED, "vhost-vsock: unable to set guest cid: Address already in use", "CID"),
        (End.QEMU_FAILED, "qemu: vm-type tdx not supported by KVM", "kvm_intel.tdx=1"),
        (End.QEMU_FAILED, "KVM_TDX_INIT_MEM_REGION failed: Invalid argument", "TDVF"),
        (End.QEMU_FAILED, "invalid accelerator kvm", "without KVM"),
        (End.FLOOD, QUIET, "transcript_limit_bytes"),
    ],
)
def test_an_end_has_a_hint(end: End, text: str, words: str) -> None:
    assert words in hint_for(end, text.splitlines())


def test_a_good_end_has_no_hint() -> None:
    assert hint_for(End.POWERED_OFF, QUIET.splitlines()) == ""


def test_a_transcript_is_read_without_its_control_sequences(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n\r\n\x1b[1;31mred\x1b[0m\r\n\xff\xfe\0\x07done")
    assert read_tail(path) == ["SeaBIOS", "red", "\ufffd\ufffddone"]


def test_only_the_end_of_a_long_transcript_is_read(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text("x" * 5_000_000 + "\nlast\n")
    lines = read_tail(path)
    assert lines[-1] == "last"
    assert sum(map(len, lines)) < 300_000


def test_a_missing_transcript_is_empty(tmp_path: Path) -> None:
    assert read_tail(tmp_path / "none") == []


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_transcript(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("console") / "log"
    path.write_bytes(raw)
    lines = read_tail(path)
    assert all(line and "\n" not in line and "\x1b[" not in line[:2] for line in lines) or b"\x1b" in raw
    assert end_of_reset(lines) in End
