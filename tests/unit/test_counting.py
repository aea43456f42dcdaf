"""Counting instructions by function: what the plugin writes, what a kernel's functions are, how time is split."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb import bzimage
from acon_nb.errors import AconError, MissingRequirement
from acon_nb.guest import kallsyms, symbols
from acon_nb.host import find_qemu
from acon_nb.study import clock_parts
from acon_nb.study.functions import functions_of, system_map_of
from acon_nb.vm import Moment, Snapshot, counting

KERNEL = 0xFFFF_FFFF_8100_0000
SAID = """\
mark 1 1000 40
1 900
physical 65536 60
.
mark 4 2500 540
1 1200
2 700
physical 65536 60
.
end 0 0 -1
1 3
"""


def snapshot(tsc_ns: int, idle_ns: int | None, counts: dict[int, int], moment: int = Moment.INIT) -> Snapshot:
    return Snapshot(moment=moment, tsc_ns=tsc_ns, idle_ns=idle_ns, counts=counts, physical={})


def test_snapshots_are_read_by_address_and_a_cut_one_is_left_out() -> None:
    first, second = counting.read_snapshots(SAID.splitlines(), (0, KERNEL, KERNEL + 64))
    assert (first.moment, first.tsc_ns, first.idle_ns) == (Moment.INIT, 1000, 40)
    assert first.counts == {KERNEL: 900}
    assert first.physical == {0x10000: 60}
    assert first.counted == first.tsc_ns - 40
    assert second.counts == {KERNEL: 1200, KERNEL + 64: 700}
    assert second.moment == Moment.END


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU")
def test_the_plugin_loads_into_this_hosts_qemu() -> None:
    assert counting.plugin(find_qemu()).is_file()


def test_what_loads_no_plugin_is_named() -> None:
    with pytest.raises(AconError, match="loads no plugin for counting"):
        counting.plugin(Path("/bin/false"))


def test_without_a_compiler_the_feature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingRequirement, match="counting a guest's instructions by function"):
        counting.plugin(Path("/usr/bin/qemu-system-x86_64"))


def test_waits_are_told_apart_by_function() -> None:
    functions = {KERNEL: "kernel_init", KERNEL + 16: "delay_tsc", KERNEL + 32: "timer_irq_works.isra.0"}
    begin = snapshot(500, 20, {KERNEL: 470, KERNEL + 16: 10})
    end = snapshot(2000, 320, {KERNEL: 1450, KERNEL + 16: 110, KERNEL + 32: 120})
    found = clock_parts.parts_of(end, functions)
    assert found is not None
    row = found.columns()
    assert clock_parts.parts_of_row(row) == {"executed": 1450, "busy_waiting": 230, "idle": 320}
    waits = [{"function": "timer_irq_works", "ns": 120}, {"function": "delay_tsc", "ns": 110}]
    assert clock_parts.waits_of_row(row) == waits
    since = clock_parts.parts_of(end, functions, begin=begin)
    assert since is not None
    assert (since.executed_ns, since.busy_waiting_ns, since.idle_ns) == (980, 220, 300)


def test_without_a_mark_or_the_idle_time_nothing_is_split() -> None:
    assert clock_parts.parts_of(None, {}) is None
    assert clock_parts.parts_of(snapshot(10, None, {}), {}) is None
    assert clock_parts.parts_of_row({"executed_ns": float("nan"), "busy_waiting_ns": None}) is None
    assert clock_parts.waits_of_row({"host_ns_init": 5}) is None


def test_the_last_span_that_ended_counts() -> None:
    moments = [Moment.INIT, Moment.BEGIN, Moment.END, Moment.BEGIN, Moment.END, Moment.BEGIN]
    taken = [snapshot(10 * number, 0, {}, moment) for number, moment in enumerate(moments)]
    assert clock_parts.last_span(taken) == (taken[3], taken[4])
    assert clock_parts.last_span(taken[:2]) is None
    assert clock_parts.first(taken, Moment.BEGIN) is taken[1]


def test_functions_are_listed_with_what_has_no_name() -> None:
    taken = Snapshot(
        moment=1, tsc_ns=0, idle_ns=0, physical={0x10000: 7, 0x100000: 90}, counts={0: 20, KERNEL: 30, KERNEL + 16: 40}
    )
    assert clock_parts.top_functions(taken, {KERNEL: "a.isra.0", KERNEL + 16: "b"}, most=4) == (
        "(before the kernel, above 1 MiB) 90", "b 40", "a 30", "(user space) 20",
    )  # fmt: skip


@given(st.dictionaries(st.integers(KERNEL, KERNEL + 99), st.integers(0, 1 << 40)), st.integers(0, 1 << 40))
def test_the_parts_add_up_to_the_clock(counts: dict[int, int], idle_ns: int) -> None:
    functions = {address: ("delay_tsc", "memcpy", "__delay")[address % 3] for address in counts}
    clock_ns = sum(counts.values()) + idle_ns
    found = clock_parts.parts_of(snapshot(clock_ns, idle_ns, counts), functions)
    assert found is not None
    assert found.clock_ns == clock_ns
    assert found.busy_waiting_ns == sum(found.waits.values())
    assert found.executed_ns == sum(count for address, count in counts.items() if address % 3 == 1)


def test_each_wait_has_a_reason() -> None:
    assert "delay_tsc" in clock_parts.busy_waits()
    assert all(why for why in clock_parts.busy_waits().values())


def image(names: list[bytes], *, last: bool, per_cpu: bool) -> bytes:
    """A kernel's table as scripts/kallsyms.c writes it, with two names for tokens, and other data around it."""
    tokens = [bytes([code]) if 32 < code < 127 else b"" for code in range(256)]
    tokens[0], tokens[1] = b"tfunction_", b"Tthing"
    for code, token in enumerate(tokens):
        if not token:
            tokens[code] = b"t%d" % code if code < 10 else b"zz%d" % code
    table = b"".join(token + b"\0" for token in tokens)
    index = struct.pack("<256H", *(sum(len(token) + 1 for token in tokens[:code]) for code in range(256)))
    packed, markers = b"", []
    for number, name in enumerate(names):
        if number % 256 == 0:
            markers.append(len(packed))
        codes = name.replace(b"tfunction_", b"\0")
        size = bytes([len(codes)]) if len(codes) < 128 else bytes([len(codes) & 127 | 128, len(codes) >> 7])
        packed += size + codes
    relative = [-1 - 16 * number if per_cpu else 16 * number for number in range(len(names))]
    offsets = struct.pack(f"<{len(names)}i", *relative)
    parts_of_table = [struct.pack("<Q", len(names)), packed, struct.pack(f"<{len(markers)}I", *markers), table, index]
    base = struct.pack("<Q", KERNEL)
    both = [*parts_of_table, offsets, base] if last else [offsets, base, *parts_of_table]
    return bytes(4096) + b"".join(part + bytes(-len(part) % 8) for part in both) + b"\1" * 4096


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("per_cpu", [False, True])
def test_a_kernels_own_symbols_are_read(last: bool, per_cpu: bool) -> None:
    many = [b"tfunction_%d" % number for number in range(3000)]
    names = [b"T_stext", *many, b"Dvariable", b"T" + b"long" * 40, b"T_etext"]
    found = kallsyms.functions(image(names, last=last, per_cpu=per_cpu))
    assert found[KERNEL] == "_stext"
    assert found[KERNEL + 16 * 2999] == "function_2998"
    assert found[KERNEL + 16 * 3002] == "long" * 40
    assert KERNEL + 16 * 3001 not in found
    assert len(found) == len(names) - 1


@given(st.binary(max_size=20_000))
def test_any_other_bytes_have_no_functions(data: bytes) -> None:
    assert kallsyms.functions(data) == {}


def test_a_kernel_without_symbols_has_no_functions(tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(bytes(2000))
    assert functions_of(path) == {}
    path.with_name("System.map").write_text("ffffffff81000000 T _stext\nffffffff81000010 t delay_tsc\n" * 50)
    path.write_bytes(bytes(2001))
    assert functions_of(path) == {KERNEL: "_stext", KERNEL + 16: "delay_tsc"}


def test_a_system_map_is_found_where_builds_leave_it(tmp_path: Path) -> None:
    built = tmp_path / "linux/arch/x86/boot/bzImage"
    built.parent.mkdir(parents=True)
    built.write_bytes(bytes(2000))
    (tmp_path / "linux/System.map").write_text("ffffffff81000000 T _stext\n" * 50)
    assert system_map_of(built) == tmp_path / "linux/System.map"
    installed = tmp_path / "vmlinuz-6.12.9"
    installed.write_bytes(bytes(2000))
    (tmp_path / "System.map-6.12.9").write_text("ffffffffffffffff B The real System.map is elsewhere\n")
    assert system_map_of(installed) is None
    (tmp_path / "System.map-6.12.9").write_text("ffffffff81000000 T _stext\n" * 50)
    assert system_map_of(installed) == tmp_path / "System.map-6.12.9"


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_a_packed_kernels_symbols_are_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    kernel = image(
        [b"T_stext", *(b"tfunction_%d" % number for number in range(1000)), b"T_etext"], last=True, per_cpu=False
    )
    payload = pack(kernel) + (b"" if pack is gzip.compress else struct.pack("<I", len(kernel)))
    head = bytearray(1024)
    head[bzimage.SETUP_SECTORS] = 1
    struct.pack_into("<II", head, bzimage.PAYLOAD, 0, len(payload))
    path = tmp_path / "bzImage"
    path.write_bytes(bytes(head) + payload)
    assert functions_of(path)[KERNEL + 16] == "function_0"


@pytest.mark.parametrize("label", ["_stext", "_sinittext", "__irqentry_text_start", "__softirqentry_text_end"])
def test_a_function_keeps_its_name_where_the_linker_has_a_label(label: str) -> None:
    for names in ([label, "irq_entries_start"], ["irq_entries_start", label]):
        assert symbols.by_address((KERNEL, name) for name in names) == {KERNEL: "irq_entries_start"}
    assert symbols.by_address([(KERNEL, label)]) == {KERNEL: label}
    assert symbols.by_address([(KERNEL, "memmove"), (KERNEL, "__memmove")]) == {KERNEL: "__memmove"}
