"""QEMU's memory by purpose, from smaps."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.host import qemu_memory
from acon_nb.host.smaps import classify, parse

TEXT = """\
55fb507ca000-55fb50fcc000 r-xp 00000000 fe:00 260131                     /usr/bin/qemu-system-x86_64
Size:               8200 kB
Pss:                6000 kB
Pss_Dirty:             0 kB
55fb51000000-55fb51400000 rw-p 00000000 00:00 0                          [heap]
Pss:                4000 kB
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
Pss:              100000 kB
7f1000000000-7f1040000000 rwxp 00000000 00:00 0
Pss:               50000 kB
7f2000000000-7f2000100000 rw-p 00000000 00:00 0
Pss:                 500 kB
"""


def test_each_mapping_has_one_purpose_and_the_sum_is_the_total() -> None:
    memory = classify(parse(TEXT), 256 << 20)
    assert (memory.files, memory.heap, memory.ram, memory.code, memory.other) == tuple(
        1024 * number for number in (6000, 4000, 100000, 50000, 500)
    )
    assert memory.total_bytes == 1024 * 160500


def test_a_guest_without_a_large_mapping_has_no_ram() -> None:
    assert classify(parse(TEXT), 1 << 30).ram == 0


def test_a_process_that_has_ended_has_no_memory() -> None:
    assert qemu_memory(0, 1) is None


def test_the_purposes_of_a_real_process_add_up_to_the_kernels_sum() -> None:
    memory = qemu_memory(os.getpid(), 1 << 40)
    assert memory is not None
    assert memory.files > 0
    assert memory.heap > 0
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    rollup = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    assert abs(memory.total_bytes - rollup) < rollup / 4


@settings(deadline=None)
@given(st.text(alphabet="0123456789abcdef-rwxp: \nPsk", max_size=400))
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    assert classify(parse(text), 1).total_bytes >= 0
