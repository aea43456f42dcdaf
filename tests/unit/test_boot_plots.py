"""Figures of a boot's inside: drawn from rows, nothing cut, clocks apart."""

from __future__ import annotations

import pandas as pd

from acon_nb import plots
from acon_nb.boot import initcalls

PHASES = {
    "clock": ["wall", "instructions"], "cell": ["a", "b"], "end": ["powered_off"] * 2,
    "host_ns_vmm_start": [1e8, None], "host_ns_kernel_entry": [3e8, None], "host_ns_log": [9e8, None],
    "host_ns_init": [2e9, None], "host_ns_ready": [2.5e9, None],
    "guest_ns_reset_to_kernel_entry": [None, 2e7], "guest_ns_reset_to_unpack": [None, 2.1e7],
    "guest_ns_reset_to_kernel": [None, 2e8], "guest_ns_reset_to_log": [None, 2.2e8],
    "guest_ns_reset_to_init": [None, 3e8], "guest_ns_reset_to_ready": [None, 3.3e8],
}  # fmt: skip


def test_each_clock_has_a_panel_and_each_phase_a_look_of_its_own() -> None:
    figure = plots.plot_phases(pd.DataFrame(PHASES))
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert ["host's clock" in label for label in labels] == [True, False]
    assert ["instruction clock" in label for label in labels] == [False, True]
    looks = [(patch.get_facecolor(), patch.get_hatch()) for patch in figure.legends[0].get_patches()]
    assert len(set(looks)) == len(looks) == 8


def test_the_waterfall_has_the_initcalls_and_the_gaps() -> None:
    lines = []
    for n in range(1, 9):
        lines.append(f"[    0.{n}00000] calling  call_{n}+0x0/0x1 @ 1\n")
        lines.append(f"[    0.{n}{n}0000] initcall call_{n}+0x0/0x1 returned 0 after 1 usecs\n")
    log = "".join(lines)
    boot = initcalls.read(log)
    names = [label.get_text() for label in plots.plot_initcalls(boot, most=3).axes[0].get_yticklabels()]
    assert sum(name.startswith("call_") for name in names) == 3
    assert "before the first initcall" in names
    other = initcalls.read(log.replace("call_8", "call_x"))
    table = initcalls.difference(boot, other, names=("old", "new"))
    figure = plots.plot_initcall_difference(table, names=("old", "new"), clock=boot.clock)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any("only in old" in text for text in texts)
    assert any("only in new" in text for text in texts)
