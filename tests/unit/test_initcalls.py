"""The parser of initcall_debug: real lines, cut logs, hostile text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.boot import initcalls
from acon_nb.errors import InvalidInput
from acon_nb.guest import kernel_log, symbols
from acon_nb.guest.kernel_log import Record

# Lines of Debian's 6.1 kernel under QEMU, times made round.
LOG = """\
[    0.000000] Linux version 6.1.0
[    0.010000] Mount-cache hash table entries: 1024 (order: 1, 8192 bytes, linear)
[    0.100000] calling  pci_driver_init+0x0/0x10 @ 1
[    0.100010] initcall pci_driver_init+0x0/0x10 returned 0 after 0 usecs
[    0.200000] calling  acpi_init+0x0/0x3b5 @ 1
[    0.210000] probe of 00:04 returned 0 after 22 usecs
[    0.250010] initcall acpi_init+0x0/0x3b5 returned -19 after 50000 usecs
[    0.300000] Run /init as init process
[    0.400000] calling  virtio_init+0x0/0x20 [virtio] @ 79
[    0.400040] initcall virtio_init+0x0/0x20 [virtio] returned 0 after 17 usecs
"""


def test_calls_probes_and_gaps_are_read() -> None:
    boot = initcalls.read(LOG)
    assert [(call.name, call.module, call.returned) for call in boot.calls] == [
        ("pci_driver_init", "", 0),
        ("acpi_init", "", -19),
        ("virtio_init", "virtio", 0),
    ]
    assert boot.line_us == 10
    assert [boot.took_us(call) for call in boot.calls] == [0, 50_000, 30]
    assert [(probe.name, probe.ended_us) for probe in boot.probes] == [("00:04", 210_000)]
    assert (boot.init_us, boot.lost) == (300_000, 0)
    assert [(gap.after, gap.before, gap.took_us) for gap in boot.gaps] == [
        ("", "pci_driver_init", 100_000),
        ("pci_driver_init", "acpi_init", 99_990),
        ("acpi_init", "/init", 49_990),
    ]
    assert boot.gaps[0].says.startswith("Mount-cache")


def test_the_table_has_the_longest_in_the_order_of_the_boot() -> None:
    table = initcalls.call_table(initcalls.read(LOG), most=1)
    assert list(table["name"]) == [
        "before the first initcall",
        "after pci_driver_init",
        "acpi_init",
        "after acpi_init",
    ]
    assert table["share"].iloc[2] == pytest.approx(1 / 6)


def test_an_initcall_that_never_returns_is_named() -> None:
    boot = initcalls.read("[    1.000000] calling  hangs+0x0/0x10 @ 1\n[    9.000000] watchdog: soft lockup\n")
    assert boot.took_us(boot.calls[0]) == 8_000_000
    assert "hangs never returned" in initcalls.sentences(boot)


def test_a_log_whose_begin_is_lost_says_so() -> None:
    boot = initcalls.read(LOG.partition("calling  pci_driver_init+0x0/0x10 @ 1\n")[2])
    assert boot.lost == 1
    assert any("larger log_buf_len" in text for text in initcalls.sentences(boot))


def test_a_log_without_initcalls_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no initcalls"):
        initcalls.read("[    0.000000] Linux version 6.1.0\n")


def test_the_difference_names_what_changed_and_what_only_one_has() -> None:
    first = initcalls.read(LOG)
    second = initcalls.read(LOG.replace("0.250010", "0.230010").replace("pci_driver_init", "other_init"))
    table = initcalls.difference(first, second, names=("a", "b"))
    rows = {row["name"]: row for row in table.to_dict("records")}
    assert rows["acpi_init"]["difference_us"] == -20_000
    assert rows["(outside of initcalls)"]["difference_us"] == 20_000
    assert table["b_us"].isna()[list(table["name"]).index("pci_driver_init")]
    assert table["a_us"].isna()[list(table["name"]).index("other_init")]


def test_a_serial_consoles_log_is_read_too() -> None:
    assert len(initcalls.read("\n".join("<7>" + line + "\r" for line in LOG.splitlines())).calls) == 3


NAMES = st.from_regex(r"[a-z_][a-z0-9_.]{0,20}", fullmatch=True)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=30))
def test_what_a_kernel_prints_comes_back(calls: list[tuple[str, int, int]]) -> None:
    records, now = [], 0
    for name, idle, took in calls:
        records.append(Record(now + idle, f"calling  {name}+0x0/0x10 @ 1"))
        now += idle + took
        records.append(Record(now, f"initcall {name}+0x0/0x10 returned 0 after {took} usecs"))
    boot = initcalls.read(records)
    assert [(call.name, (call.ended_us or 0) - call.began_us) for call in boot.calls] == [
        (name, took) for name, _, took in calls
    ]
    covered = sum((call.ended_us or 0) - call.began_us for call in boot.calls)
    assert covered + sum(idle for _, idle, _ in calls) == boot.end_us
    assert sum(gap.took_us for gap in boot.gaps) <= sum(idle for _, idle, _ in calls)
    assert not initcalls.difference(boot, boot)["difference_us"].any()


HOSTILE = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="calling initcall+0x/[]@ returned after usecs<b>\x1b\n-9", max_size=300),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 50), HOSTILE), max_size=20))
def test_hostile_records_break_nothing(items: list[tuple[int, str]]) -> None:
    records = [Record(us, text) for us, text in items]
    good = [Record(1, "calling  a+0x0/0x1 @ 1"), Record(2, "initcall a+0x0/0x1 returned 0 after 1 usecs")]
    boot = initcalls.read([*records, *good])
    initcalls.call_table(boot)
    initcalls.sentences(boot)
    text = kernel_log.to_text(records)
    assert "\x1b" not in text
    assert len(text.splitlines()) == len(records) or any(c in t for _, t in items for c in "\x85\u2028\u2029")


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**12 - 1), st.text(st.characters(min_codepoint=32, max_codepoint=126)))))
def test_the_log_as_text_is_read_back(items: list[tuple[int, str]]) -> None:
    records = tuple(Record(us, text) for us, text in items)
    assert kernel_log.of_text(kernel_log.to_text(records)) == records


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_messages_of_a_hostile_guest_give_records_or_none(value: object) -> None:
    messages = [{"event": "log", "records": value}, {"event": "log", "records": [value]}, {"event": "log"}]
    assert all(isinstance(record, Record) for record in kernel_log.of_messages(messages))


def test_addresses_get_their_names_whatever_kaslr_chose(tmp_path: Path) -> None:
    system_map = tmp_path / "System.map"
    starts = {0xFFFFFFFF81000000 + 0x1230 * n: f"init_{n}" for n in range(1, 40)}
    lines = [f"{address:016x} t {name}" for address, name in starts.items()]
    system_map.write_text("\n".join([*lines, "0000000000000000 A fixed_percpu_data", "not a line"]))
    shift = 37 * (2 << 20)
    log = "".join(
        f"[    0.00000{n % 10}] calling  0x{address + shift:016x} @ 1\n"
        f"[    0.00000{n % 10}] initcall 0x{address + shift:016x} returned 0 after 0 usecs\n"
        for n, address in enumerate(list(starts)[::5])
    )
    named = symbols.named(log, symbols.read_map(system_map))
    assert [call.name for call in initcalls.read(named).calls] == list(starts.values())[::5]
    other = log.replace("0xffffffff8", "0xffffffff9", 1)
    assert symbols.named(LOG, symbols.read_map(system_map)) == LOG
    assert "0xffffffff9" in symbols.named(other, symbols.read_map(system_map))


def test_a_system_map_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("hello\n")
    with pytest.raises(InvalidInput, match="names no function"):
        symbols.read_map(tmp_path / "map")
