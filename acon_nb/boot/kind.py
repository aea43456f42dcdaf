"""The kind of study that boots guests: what `acon_nb.studies` registers as "boot"."""

from acon_nb.boot.experiment import BootExperiment
from acon_nb.boot.factors import BootFactors
from acon_nb.boot.tables import boot_table
from acon_nb.study.kinds import StudyKind

KIND = StudyKind(
    name="boot",
    factors=BootFactors,
    experiment=BootExperiment,
    measures=("host_ns_init", "guest_ns_reset_to_init", "host_ns_ready"),
    followed=("guest_ns_reset_to_init", "host_ns_init", "memavailable_bytes"),
    shown=("kernel", "profile", "initrd", "ready", "memory", "machine", "firmware", "clock"),
    typical_s={"instructions": (11.0, 24.0), "wall": (5.0, 6.3)},  # of 18 and 34 runs, 2 CPUs, QEMU 7.2 with TCG
    alike=("memory", "kernel", "machine"),
    table=boot_table,
    profiles=True,
    figures={
        "phases": "acon_nb.plots.boot_phases:plot_phases",
        "qemu-memory": "acon_nb.plots.boot_memory:plot_qemu_memory",
    },
)
