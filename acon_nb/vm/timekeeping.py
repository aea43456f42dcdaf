"""The words about its clock on the kernel command line of a guest whose time is measured."""

from __future__ import annotations

from acon_nb.vm.spec import Clock

# nolapic_timer, no_timer_check: QEMU's TCG has no TSC deadline timer, no TSC frequency in CPUID, no paravirtual clock:
# a kernel would busy-wait some 0.3 s to calibrate and check its timers. A TD has the deadline timer and does neither
# (docs/clocks.md). nokaslr: the addresses that are counted are those of the kernel's symbols.
_INSTRUCTIONS = "nokaslr nolapic_timer no_timer_check tsc=reliable tsc_early_khz=1000000"
# no_timer_check: the check counts timer interrupts against the TSC, and panics ("IO-APIC + timer doesn't work!") when a
# busy host runs QEMU late. A guest of KVM sets it by itself (arch/x86/kernel/kvm.c, paravirt_ops_setup).
_WALL = "no_timer_check"


def kernel_words(clock: Clock, tsc_khz: int | None) -> str:
    """The words for a guest on `clock`; `tsc_khz` is the rate of the host's time stamp counter (None or 0: unknown).

    On the instruction clock the counter runs at 1 GHz, whatever the host's does.
    """
    if clock is Clock.INSTRUCTIONS:
        return _INSTRUCTIONS
    return f"{_WALL} tsc=reliable tsc_early_khz={tsc_khz}" if tsc_khz else _WALL
