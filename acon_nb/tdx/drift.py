"""Search the drift: which plausible change of a boot's inputs leads to the registers of a quote.

A quote has no events, so its registers say only that something differs. Each input is varied over values that occur in
practice, alone and together with one other: memory, command line, and what stacks do differently (token, the kernel's
header, separators, no initrd). The ACPI tables, which depend on the vCPUs and the memory too, are not computed: what
other machines have of them is searched if it was captured (`measure capture --also`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import ZERO, EventLog, extend
from acon_nb.tdx.evidence.reader import Side
from acon_nb.tdx.facts import MEMORY_SIZES, UNCHANGED, BootFacts
from acon_nb.tdx.hob import below_4g_bytes, hob_list, memory_text
from acon_nb.tdx.kernel_image import load_options
from acon_nb.tdx.stored import Expected, ExpectedEvent

_BOOT = ("RTMR[0]", "RTMR[1]", "RTMR[2]")
_SHOWN = 3
_MOST = 2  # inputs that may differ at once
_WORDS = (
    *("console=ttyS0", "console=ttyS0,115200", "console=hvc0", "console=tty0", "console=ttynull", "earlyprintk=ttyS0"),
    *("quiet", "debug", "nokaslr", "ro", "rw", "panic=-1", "panic=1", "ignore_loglevel", "loglevel=7", "nosplash"),
    *("root=/dev/vda1", "root=/dev/vda", "clearcpuid=mtrr", "tdx_disable_filter", "init=/init", "rdinit=/init"),
)
# Where OVMF keeps its TD HOB and the memory that it accepts itself: edk2, OvmfPkg, OvmfPkgDefines.fdf.inc.
_OVMF = BootFacts(
    append="",
    memory_bytes=0,
    hob=(0x809000, 0x2000),
    accepted=((0x809000, 0x2000), (0x80B000, 0x2000), (0x800000, 0x6000), (0x810000, 0x10000)),
    kernels={},
)


@dataclass(frozen=True)
class _Change:
    """Changed digests by the label of their event, and the words for what changed."""

    words: str
    digests: Mapping[str, bytes]


def search(expected: Expected, measured: Side, different: Sequence[str]) -> Iterator[str]:
    """Yield which changes of the inputs explain the registers that differ, or what to give for an answer."""
    if isinstance(measured, Expected | EventLog):
        return  # their events already say which input differs
    wanted = {name: measured.registers[name] for name in _BOOT if name in measured.registers}
    facts = expected.facts or _usual(expected)
    known = {name: value for name, value in expected.registers.items() if value is not None and name in wanted}
    open_rows = [name for name in different if name in known]
    if not open_rows:
        return
    fits = list(_fitting(expected, facts, {name: wanted[name] for name in known}))
    if fits:
        fewest = min(count for count, _ in fits)
        texts = list(dict.fromkeys(text for count, text in fits if count == fewest))
        yield from (f"drift: everything that can be known fits if {text}" for text in texts[:_SHOWN])
        return
    for name in open_rows:
        alone = list(_fitting(expected, facts, {name: wanted[name]}))
        fewest = min((count for count, _ in alone), default=0)
        texts = list(dict.fromkeys(text for count, text in alone if count == fewest))
        if texts:
            yield from (f"drift: {name} fits if {text}" for text in texts[:_SHOWN])
        else:
            why = _remaining(expected, name, wanted)
            yield f"drift: no plausible change of one or two inputs leads to {name}: {why}"
            yield from _unsearched(expected, name)
    yield "drift: give the event log (/sys/firmware/acpi/tables/data/CCEL in the TD): it names the event that differs"


def _fitting(expected: Expected, facts: BootFacts | None, wanted: Mapping[str, bytes]) -> Iterator[tuple[int, str]]:
    """Yield (number of changes, words) of each combination after which all wanted registers are right."""
    bases = [((), expected.events), *((other.words, other.events) for other in expected.alternatives)]
    for stack, events in bases:
        if len(stack) > _MOST:
            continue
        values = _Values(events)
        left = _MOST - len(stack)
        memories = [None, *(_memories(events, facts) if left else ())]
        appends = [None, *(_appends(events, facts) if left else ())]
        for memory in memories:
            for append in appends:
                changes = [change for change in (memory, append) if change is not None]
                if len(changes) > left or not (stack or changes):
                    continue
                if all(values.after(name, changes) in (None, value) for name, value in wanted.items()):
                    yield len(stack) + len(changes), " and ".join((*stack, *(change.words for change in changes)))


class _Values:
    """The registers of some events after changes; each is computed once for the changes that concern it."""

    def __init__(self, events: Sequence[ExpectedEvent]) -> None:
        self._events: dict[str, list[ExpectedEvent]] = {}
        for event in events:
            self._events.setdefault(event.register, []).append(event)
        self._known: dict[tuple[str, tuple[str, ...]], bytes | None] = {}

    def after(self, register: str, changes: Sequence[_Change]) -> bytes | None:
        """Return a register's value after changes; None if it cannot be known."""
        events = self._events.get(register, [])
        labels = {event.label for event in events}
        own = [change for change in changes if labels & set(change.digests)]
        key = register, tuple(change.words for change in own)
        if key not in self._known:
            value: bytes | None = ZERO
            for event in _changed(events, own):
                value = None if value is None or event.digest is None else extend(value, event.digest)
            self._known[key] = value
        return self._known[key]


def _changed(events: Sequence[ExpectedEvent], changes: Sequence[_Change]) -> Iterator[ExpectedEvent]:
    for event in events:
        digest = next((change.digests[event.label] for change in changes if event.label in change.digests), None)
        yield event if digest is None or event.digest is None else replace(event, digest=digest)


def _memories(events: Sequence[ExpectedEvent], facts: BootFacts | None) -> Iterator[_Change]:
    """Changes of the memory size: the TD HOB, and the kernel if QEMU writes the initrd's address to its header."""
    if facts is None:
        return
    kernel = next((event.digest for event in events if event.label == "kernel"), None)
    own = facts.kernels.get(str(below_4g_bytes(facts.memory_bytes)))
    patched = kernel is not None and kernel == own and kernel != facts.kernels.get(UNCHANGED)
    for size in MEMORY_SIZES:
        if size == facts.memory_bytes:
            continue
        try:
            digests = {"TdxTable": hashlib.sha384(hob_list(facts.hob, facts.accepted, size)).digest()}
        except InvalidInput:  # the firmware does not fit into so little memory
            continue
        other = facts.kernels.get(str(below_4g_bytes(size))) if patched else None
        if other is not None:
            digests["kernel"] = other
        yield _Change(f"the memory is {memory_text(size)}, not {memory_text(facts.memory_bytes)}", digests)


def _appends(events: Sequence[ExpectedEvent], facts: BootFacts | None) -> Iterator[_Change]:
    """Changes of the command line: a word more or less, a space, the order of a console."""
    line = next((event.digest for event in events if event.label == "command line"), None)
    if facts is None or line is None:
        return
    tokens = ("", "suffix", "prefix")
    token = next((t for t in tokens if hashlib.sha384(load_options(facts.append, token=t)).digest() == line), None)
    if token is None:
        return
    for append, words in _lines(facts.append):
        digest = hashlib.sha384(load_options(append, token=token)).digest()
        yield _Change(f"the command line {words}", {"command line": digest})


def _lines(append: str) -> Iterator[tuple[str, str]]:
    words = append.split(" ")
    yield append + " ", "has a space at its end"
    yield append + "\n", "has a line feed at its end"
    yield " " + append, "has a space at its start"
    yield append.strip(), "has no spaces around it"
    yield "", "is empty"
    for number, word in enumerate(words):
        yield " ".join(words[:number] + words[number + 1 :]), f"lacks {word!r}"
    for word in _WORDS:
        if word not in words:
            yield f"{append} {word}".strip(), f"has {word!r} at its end"
            yield f"{word} {append}".strip(), f"has {word!r} at its start"
    for first in range(len(words) - 1):
        swapped = [*words[:first], words[first + 1], words[first], *words[first + 2 :]]
        yield " ".join(swapped), f"has {words[first]!r} after {words[first + 1]!r}"


def _usual(expected: Expected) -> BootFacts | None:
    """The facts of an older prediction, which kept none: OVMF's layout, if it leads to the TD HOB's digest."""
    table = next((event.digest for event in expected.events if event.label == "TdxTable"), None)
    for size in MEMORY_SIZES if table is not None else ():
        if hashlib.sha384(hob_list(_OVMF.hob, _OVMF.accepted, size)).digest() == table:
            return replace(_OVMF, memory_bytes=size)
    return None


def _unsearched(expected: Expected, name: str) -> Iterator[str]:
    """What was not tried because nothing is known of it: the tables of machines that were not captured."""
    depends = any("vcpus" in event.depends for event in expected.events if event.register == name)
    if depends and not any("vCPU" in word for other in expected.alternatives for word in other.words):
        yield "drift: other numbers of vCPUs were not tried: capture them too (acon-nb measure capture --also vcpus=2)"


def _remaining(expected: Expected, name: str, wanted: Mapping[str, bytes]) -> str:
    """What can still differ: the inputs of a register's events, less those that another register shows to be right."""
    depends = dict.fromkeys(word for event in expected.events if event.register == name for word in event.depends)
    right: set[str] = set()
    for other, value in expected.registers.items():
        if value is not None and wanted.get(other) == value:
            right |= {word for event in expected.events if event.register == other for word in event.depends}
    left = [word for word in depends if word not in right]
    shown = f"it depends on {', '.join(left or depends)}"
    equal = [word for word in depends if word in right]
    return shown + (f" ({', '.join(equal)}: as expected, by another register)" if left and equal else "")
