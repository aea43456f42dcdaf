"""The exact profile of a boot: what each function of the kernel executed, by phase, on the instruction clock.

Phases are parted where the guest marks a moment (`guest/src/mark.h`), and before the kernel where a copy of the boot is
ended (`boot.milestones`): what is executed until then is the same in every boot of the cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from acon_nb.boot import milestones
from acon_nb.boot.cell import BootCell, boot_once, not_ready, row_of, spec_hash
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.guest.programs import guest_script
from acon_nb.host import probe_qemu
from acon_nb.profile import code, sources
from acon_nb.profile.counts import Functions, PhaseEnd, profile_of
from acon_nb.profile.model import BEFORE_KERNEL, Profile, Region
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.study import clock_parts
from acon_nb.study.host_lock import run_locked
from acon_nb.vm import Capabilities, Clock, Moment, Outcome, Snapshot, capabilities, counting

UNTIL = ("init", "ready", "end")
KERNEL, USER, SHUTDOWN = "kernel", "/init", "shutdown"
_FIRMWARE = ("(firmware)", Region.FIRMWARE)
_CODE = (guest_script("milestone.S"), Path(counting.__file__).with_name("plugin.c"), Path(milestones.__file__))
_BEFORE = (BEFORE_KERNEL, Region.OTHER)
# The milestone that ends a phase, the phase, and what runs in it.
_EARLY = {
    "kernel_entry": ("firmware", _FIRMWARE),
    "unpack": ("real-mode set-up", ("(real-mode set-up)", Region.UNPACKING)),
    "kernel": ("unpacking", ("(unpacking)", Region.UNPACKING)),
}


def profile(
    cell: BootCell,
    *,
    until: str = "init",
    calls: bool = False,
    build: Path | None = None,
    host: Capabilities | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
    cache: Cache | None = None,
) -> Profile:
    """Boot a cell and count what it executes from reset until a moment.

    `until` is init (the first instruction of user space), ready (the end of /init, for an initrd that reports it) or
    end (of the guest, which must end by itself). Before the kernel, three short boots find where phases end; they are
    cached. With `calls` the profile has call stacks. `build` is the folder of the kernel's build, or its vmlinux with
    debug information, for the source files of its functions; those of kernels that were built here are known.
    Errors: `InvalidInput` for a cell of the wall clock, a moment that the initrd does not mark, or `calls` of a kernel
    without symbols; `GuestFailed` for a guest that does not reach the moment; those of `Machine`, as for a QEMU without
    plugins; `Cancelled`.
    """
    check(cell, until)
    host = host or capabilities()
    counted = functions(cell, build, cache=cache)
    on_progress(Progress("profile", 0.0, "boot, counted by function"))

    def count(token: CancelToken) -> Profile:
        names = counted.names if calls else None
        outcome = boot_once(
            cell, host, token, starts=counted.starts(), calls=names, programs=True, to_end=until == "end"
        )
        token.check()
        on_progress(Progress("profile", 0.5, "find where firmware and unpacking end"))
        return of_outcome(cell, outcome, counted, until=until, host=host, cancel=token, cache=cache)

    made, _ = run_locked(count, alone=False, cancel=cancel, on_progress=on_progress)
    on_progress(Progress("profile", 1.0, f"{made.total:,} instructions"))
    return made


def check(cell: BootCell, until: str) -> None:
    """Refuse a cell that cannot be profiled. Errors: `InvalidInput`."""
    if cell.clock is not Clock.INSTRUCTIONS:
        raise InvalidInput("profile", cell.clock, "is counted in instructions", hint="use clock=instructions")
    if until not in UNTIL:
        raise InvalidInput("until", until, "is not a moment of a boot", hint=f"one of {', '.join(UNTIL)}")
    if until == "ready" and not cell.reports_itself:
        hint = "init or end; an initrd with our report (docs/profile.md) marks it"
        raise InvalidInput("until", until, f"is not marked by {cell.initrd.name}", hint=hint)


def functions(cell: BootCell, build: Path | None = None, *, cache: Cache | None = None) -> Functions:
    """The functions of a cell's guest, with files where they are known; `build` is as of `profile`."""
    known = sources.functions(cell.kernel, cell.system_map, build, cache=cache)
    return known.with_initrds(cell.booted_initrd())


def merged(outcome: Outcome, functions: Functions) -> Outcome:
    """The outcome of a guest that was counted by `functions.starts()`, as if it were counted by functions alone."""
    return replace(outcome, snapshots=tuple(map(functions.merged, outcome.snapshots)))


def of_outcome(
    cell: BootCell,
    outcome: Outcome,
    functions: Functions,
    *,
    until: str = "",
    host: Capabilities,
    cancel: CancelToken | None = None,
    cache: Cache | None = None,
) -> Profile:
    """The profile of a cell's guest that was counted by `functions.starts()`, under the host's lock.

    `until` is as of `profile`; "" is ready where the guest marked it, else init. Errors: as of `profile`.
    """
    if not until:
        until = "init" if clock_parts.first(outcome.snapshots, Moment.READY) is None else "ready"
    phases = _marked(outcome.snapshots, until)
    if not phases:
        row = row_of(cell, replace(outcome, snapshots=()))
        raise outcome.failure(f"{cell.name} ended: {outcome.end.text}; {not_ready(cell, outcome, row)}, not {until}")
    early, joined = _early(cell, cache or Cache(), host, cancel)
    if joined:
        phases[0] = replace(phases[0], name=" + ".join([*joined, KERNEL]), early=_BEFORE)
    origin = origin_of(cell, until, functions, host)
    if (calls := phases[-1].end.calls) is not None:
        origin |= {"returns": str(calls.returns), "unmatched_returns": str(calls.unmatched_returns)}
    return code.of_profile(profile_of([*early, *phases], functions, origin=origin), cell.kernel, functions)


def _marked(snapshots: Sequence[Snapshot], until: str) -> list[PhaseEnd]:
    """The phases of the kernel and of user space up to a moment; empty where the guest did not reach it."""
    first = {moment: clock_parts.first(snapshots, moment) for moment in (Moment.INIT, Moment.READY, Moment.EXIT)}
    wanted = [(KERNEL, Moment.INIT)]
    if until == "ready":
        wanted += [(USER, Moment.READY)]
    elif until == "end":
        wanted += [(USER, Moment.READY), (SHUTDOWN, Moment.EXIT)] if first[Moment.READY] else [(USER, Moment.EXIT)]
    ends = [(name, first[moment]) for name, moment in wanted]
    if any(end is None or not end.tsc_ns for _, end in ends):
        return []
    return [PhaseEnd(name=name, end=end) for name, end in ends if end is not None]


def _early(
    cell: BootCell, cache: Cache, host: Capabilities, cancel: CancelToken | None
) -> tuple[list[PhaseEnd], list[str]]:
    """The phases before the kernel, and the names of those that join it. One whose end is not found joins the next."""
    reached = cached_milestones(cell, cache, host, cancel)
    phases: list[PhaseEnd] = []
    joined: list[str] = []
    for milestone, (name, early) in _EARLY.items():
        if milestone == "unpack" and cell.firmware is not None:
            continue  # the EFI stub does all
        joined.append(name)
        if milestone in reached:
            alone = len(joined) == 1
            phases.append(PhaseEnd(name=" + ".join(joined), end=reached[milestone], early=early if alone else _BEFORE))
            joined = []
    return phases, joined


class _Incomplete(Exception):
    """Not all milestones were reached."""


def cached_milestones(
    cell: BootCell, cache: Cache, host: Capabilities, cancel: CancelToken | None
) -> Mapping[str, Snapshot]:
    """What any boot of the cell has executed as it comes by each milestone, by its name; those that were reached."""
    qemu = probe_qemu(host.qemu)
    inputs = {"cell": spec_hash(cell), "qemu": [qemu.version_text, qemu.package], "code": [*map(sha256_file, _CODE)]}
    reached: dict[str, Snapshot] = {}

    def make(folder: Path) -> None:
        marks = milestones.measure(cell, cache=cache, host=host, cancel=cancel)
        reached.update({name: mark.counted for name, mark in marks.items() if mark.counted is not None})
        if "kernel" not in reached:
            raise _Incomplete
        (folder / "milestones.json").write_text(json.dumps({name: asdict(one) for name, one in reached.items()}))

    try:
        path = cache.get("milestones", inputs, make).path / "milestones.json"
    except _Incomplete:
        return reached
    return {name: _snapshot(values) for name, values in json.loads(path.read_text()).items()}


def _snapshot(values: Mapping[str, Any]) -> Snapshot:
    """A snapshot of its values as JSON, whose keys are texts."""
    return Snapshot(
        moment=values["moment"],
        tsc_ns=values["tsc_ns"],
        idle_ns=values["idle_ns"],
        counts={int(address): count for address, count in values["counts"].items()},
        physical={int(address): count for address, count in values["physical"].items()},
    )


def origin_of(cell: BootCell, until: str, functions: Functions, host: Capabilities) -> dict[str, str]:
    """What a profile was made from."""
    origin = {
        "name": cell.name,
        "kernel": cell.kernel.name,
        "kernel_sha256": sha256_file(cell.kernel),
        "initrd": cell.initrd.name,
        "initrd_sha256": sha256_file(cell.initrd),
        "cmdline": cell.spec().append,
        "memory_bytes": str(cell.memory_bytes),
        "qemu": probe_qemu(host.qemu).text,
        "until": until,
    }
    return origin if functions.names else {**origin, "symbols": "none"}
