"""Where a guest's memory comes from (memory back ends, huge pages, nodes of the host), and its own NUMA nodes.

Source: QEMU's qapi/qom.json (MemoryBackendProperties, MemoryBackendMemfdProperties) and `-numa` of its manual.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Protocol

from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes

_PAGES = {"2M": 2 << 20, "1G": 1 << 30}
_NODES = re.compile(r"[0-9]{1,3}(-[0-9]{1,3})?(,[0-9]{1,3}(-[0-9]{1,3})?)*")
_HUGE = Path("/sys/kernel/mm/hugepages")
FIELDS = ("memory_backend", "hugepages", "numa", "host_nodes")


class _Spec(Protocol):
    """What matters here of a `VmSpec`, which checks itself by this module."""

    @property
    def memory_bytes(self) -> int: ...
    @property
    def vcpus(self) -> int: ...
    @property
    def machine(self) -> str: ...
    @property
    def is_fork(self) -> bool: ...
    @property
    def memory_backend(self) -> str | None: ...
    @property
    def hugepages(self) -> str | None: ...
    @property
    def numa(self) -> int | None: ...
    @property
    def host_nodes(self) -> str | None: ...


def check_memory(spec: _Spec) -> None:
    """Refuse memory that QEMU cannot give such a guest. Errors: `InvalidInput`."""
    for name in FIELDS:
        if spec.is_fork and getattr(spec, name) is not None:
            reason = "does not apply to Intel's former fork, whose memory is memory-backend-memfd-private"
            raise InvalidInput(name, getattr(spec, name), reason, hint="omit it, or use td_flavour=upstream")
    if spec.hugepages is not None:
        if spec.memory_backend == "ram":
            raise InvalidInput("hugepages", spec.hugepages, "needs memory_backend=memfd", hint="omit memory_backend")
        page = _PAGES[spec.hugepages]
        if spec.memory_bytes // (spec.numa or 1) % page:
            reason = f"does not divide the memory of each node, {format_bytes(spec.memory_bytes // (spec.numa or 1))}"
            raise InvalidInput("hugepages", spec.hugepages, reason, hint="give a multiple of the page's size")
    if spec.numa is not None:
        if spec.machine == "microvm":
            raise InvalidInput("numa", spec.numa, "microvm has no NUMA nodes", hint="use machine=q35")
        for name, total in (("vcpus", spec.vcpus), ("memory_bytes", spec.memory_bytes >> 20)):
            if total % spec.numa:
                shown = f"{total} MiB" if name == "memory_bytes" else f"{total}"
                reason = f"does not divide {name} ({shown}), which the nodes share equally"
                raise InvalidInput("numa", spec.numa, reason, hint=f"change {name}, or the number of nodes")
    if spec.host_nodes is not None and not (_NODES.fullmatch(spec.host_nodes) and _numbers(spec.host_nodes)):
        raise InvalidInput("host_nodes", spec.host_nodes, "is not a list of NUMA nodes", hint="such as 0 or 0-1,3")


def check_free_pages(spec: _Spec, folder: Path = _HUGE) -> None:
    """Refuse huge pages that this host has not reserved. Errors: `InvalidInput`."""
    if spec.hugepages is None:
        return
    size = _PAGES[spec.hugepages]
    kib = size >> 10
    needed = spec.memory_bytes // size
    try:
        free = int((folder / f"hugepages-{kib}kB/free_hugepages").read_text())
    except (OSError, ValueError):
        free = 0
    if free < needed:
        reason = f"the host has {free} free pages of {spec.hugepages}, the guest needs {needed}"
        hint = f"as root: echo {needed} > {folder}/hugepages-{kib}kB/nr_hugepages (1G: best at the host's boot)"
        raise InvalidInput("hugepages", spec.hugepages, reason, hint=hint)


def backend_of_machine(spec: _Spec) -> str:
    """What -machine says of the memory; "" for QEMU's own memory, and for nodes, which have theirs."""
    return ",memory-backend=ram0" if _has_backend(spec) and spec.numa is None else ""


def memory_arguments(spec: _Spec) -> list[str]:
    """The options of memory back ends and NUMA nodes."""
    if not _has_backend(spec) and spec.numa is None:
        return []
    count = spec.numa or 1
    kind = "memfd" if spec.hugepages is not None else spec.memory_backend or "ram"
    values: dict[str, object] = {"qom-type": f"memory-backend-{kind}", "size": spec.memory_bytes // count}
    if spec.hugepages is not None:
        values |= {"hugetlb": True, "hugetlbsize": _PAGES[spec.hugepages]}
    if spec.host_nodes is not None:
        values |= {"host-nodes": _numbers(spec.host_nodes), "policy": "bind"}
    argv: list[str] = []
    for number in range(count):
        argv += ["-object", json.dumps({**values, "id": f"ram{number}"})]
    if spec.numa is not None:
        share = spec.vcpus // spec.numa
        for number in range(spec.numa):
            cpus = f"{number * share}-{(number + 1) * share - 1}"
            argv += ["-numa", f"node,nodeid={number},cpus={cpus},memdev=ram{number}"]
    return argv


def _has_backend(spec: _Spec) -> bool:
    return any(value is not None for value in (spec.memory_backend, spec.hugepages, spec.host_nodes))


def _numbers(text: str) -> list[int]:
    """The nodes of a list such as 0-1,3."""
    spans = [part.partition("-") for part in text.split(",")]
    return [number for first, _, last in spans for number in range(int(first), int(last or first) + 1)]
