"""What each option of a kernel costs: the difference of a kernel without it, by rows of boots."""

from __future__ import annotations

import pandas as pd
import pytest

from acon_nb.boot.option_cost import OptionCostSpec, cost_table, costs_of
from acon_nb.errors import InvalidInput


def row(kernel: str, options_on: int, image: int, executed: float, available: int, spare: int = 0) -> dict[str, object]:
    return {
        "factor_kernel": kernel,
        "kernel_release": "6.12.9",
        "kernel_options_on": options_on,
        "kernel_bytes": image,
        "kernel_linked_bytes": 2 * image,
        "mem_pcp_bytes": spare,
        "memory_bytes": 512 << 20,
        "memavailable_bytes": available,
        "guest_ns_reset_to_init": executed,
        "executed_ns": executed,
    }


ROWS = pd.DataFrame(
    [
        row("build", 400, 4 << 20, 300e6, 480 << 20, 2 << 20),
        row("ZSWAP", 398, (4 << 20) - 4096, 299e6, 481 << 20, 2 << 20),
        row("ZRAM", 399, (4 << 20) - 8192, 290e6, 479 << 20, 4 << 20),
        {**row("PROC_FS", 390, 4 << 20, 300e6, 0), "guest_ns_reset_to_init": None},
    ]
)


def test_an_option_costs_what_a_kernel_without_it_saves() -> None:
    costs = costs_of(ROWS)
    assert list(costs["option"]) == ["ZRAM", "ZSWAP"], "the dearest first, and none that did not boot"
    assert list(costs["saved_executed_ns"]) == [10e6, 1e6]
    assert list(costs["saved_bzimage_bytes"]) == [8192, 4096]
    assert list(costs["saved_gone_bytes"]) == [1 << 20, 1 << 20], "free pages of a CPU's lists are not gone"
    assert list(costs["options_off"]) == [1, 2]


def test_the_table_reads_as_a_change() -> None:
    (first, _) = cost_table(costs_of(ROWS)).to_dict("records")
    assert first == {
        "without": "ZRAM",
        "options off": 1,
        "10⁶ instructions to /init": "-10.00",
        "memory gone at /init / KiB": "-1024",
        "bzImage / KiB": "-8.0",
        "linked objects / KiB": "-16.0",
    }


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"profile=.?nonsense"):
        OptionCostSpec(profiles=("nonsense",))
