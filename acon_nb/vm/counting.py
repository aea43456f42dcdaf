"""Count a guest's instructions by function: the plugin for QEMU's TCG (`plugin.c` and its parts), and what it wrote.

A guest that is counted runs as it does without: the clock's every reading is the same. What the clock has shown at a
mark (`guest/src/mark.h`) is split exactly: idle time that QEMU skipped, and instructions.
"""

from __future__ import annotations

import functools
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import AconError, CommandFailed, MissingRequirement
from acon_nb.vm.calls import Calls, CallTree, kinds_of
from acon_nb.vm.command import option_value

KERNEL_BASE = 0xFFFF_8000_0000_0000
MODULES_BASE = 0xFFFF_FFFF_A000_0000  # of a kernel without RANDOMIZE_BASE; with it 0xffffffffc0000000
_SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("plugin.c", "calls.c", "programs.c", "plugin.h", "counters.h")
)
_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden")
_APIS = (1, 3, 7, 2)  # QEMU 7.2, 10.0, 11.1, 9.0; see plugin.c
_FEATURE = "counting a guest's instructions by function"


class Moment(IntEnum):
    """A moment of a guest at which its counts are taken: the numbers of `mark.h`, and three that carry none."""

    PLACE = 0  # of a boot, in a kernel's image (guest/src/milestone.S)
    INIT = 1
    READY = 2
    BEGIN = 3
    END = 4
    USER = 254  # the first instruction of user space
    EXIT = 255  # QEMU's end


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What had been counted at a moment.

    `tsc_ns` is the guest's clock at it (0 at a place and at `USER`, which do not carry it), `idle_ns` the idle time
    that QEMU had skipped (None: this QEMU does not tell). `counts` are instructions by the address at which a function
    starts, `physical` those from before the kernel ran at its own addresses, by 64 KiB. `calls` are the instructions of
    `counts` by call stack, where they were asked for, and `user` those of programs by page of a file: a
    hash of the page and the offset in it (`programs.c`); `modules` are those of modules, by address and by the
    instruction's bytes. Both are in `counts`, too.
    """

    moment: int
    tsc_ns: int
    idle_ns: int | None
    counts: Mapping[int, int]
    physical: Mapping[int, int]
    calls: Calls | None = None
    user: Mapping[tuple[int, int], int] = field(default_factory=dict)
    modules: Mapping[tuple[int, bytes], int] = field(default_factory=dict)

    @property
    def counted(self) -> int:
        """All instructions; one that faulted and was repeated counts each time."""
        return sum(self.counts.values()) + sum(self.physical.values())


@dataclass(frozen=True, kw_only=True)
class Counter:
    """The plugin with its files for one guest."""

    plugin: Path
    starts: Path
    out: Path
    addresses: tuple[int, ...]
    kinds: Path | None = None  # of the functions, for the call tree
    programs: bool = False

    @property
    def option(self) -> str:
        """The value of QEMU's option -plugin."""
        return plugin_option(self.plugin, self.starts, self.out, self.kinds, programs=self.programs)

    def take(self) -> tuple[Snapshot, ...]:
        """Return what was counted, in order, and remove the files; a snapshot not written to its end is left out."""
        try:
            lines = self.out.read_text().splitlines()
        except OSError:
            lines = []
        for path in (self.starts, self.out, self.kinds):
            if path is not None:
                path.unlink(missing_ok=True)
        return tuple(read_snapshots(lines, self.addresses))


def counter(
    qemu: Path,
    folder: Path,
    starts: Sequence[int],
    *,
    calls: Mapping[int, str] | None = None,
    programs: bool = False,
    cache: Cache | None = None,
) -> Counter:
    """Prepare counting in `folder`, which holds the files of one guest.

    `starts` are the addresses at which functions start; `calls` names functions, for counts by call stack; with
    `programs` user space is counted by page of a file and modules by instruction, too. Errors:
    `MissingRequirement` (no C compiler), `AconError` (this QEMU loads no plugin), `InvalidInput` (`calls` are not the
    functions of a kernel).
    """
    addresses = tuple(sorted({0, KERNEL_BASE, *starts}))
    kinds = None if calls is None else kinds_of(addresses, calls)
    path, kinds_path = folder / "starts", folder / "kinds"
    path.write_bytes(struct.pack(f"<{len(addresses)}Q", *addresses))
    if kinds is not None:
        kinds_path.write_bytes(kinds)
    return Counter(
        plugin=plugin(qemu, cache),
        starts=path,
        out=folder / "counts",
        addresses=addresses,
        kinds=None if kinds is None else kinds_path,
        programs=programs,
    )


def read_snapshots(lines: Sequence[str], addresses: Sequence[int]) -> Iterator[Snapshot]:
    """The snapshots of a plugin's output, whose first numbers are indices of `addresses`."""
    head: list[str] = []
    counts: dict[int, int] = {}
    physical: dict[int, int] = {}
    user: dict[tuple[int, int], int] = {}
    modules: dict[tuple[int, bytes], int] = {}
    tree = CallTree(addresses=addresses)
    calls: Calls | None = None
    for line in lines:
        words = line.split()
        match words:
            case ["node", parent, function]:
                tree.add_node(int(parent), int(function))
            case ["self", node, count]:
                tree.add_count(int(node), int(count))
            case ["returns", count, unmatched]:
                calls = tree.taken(returns=int(count), unmatched_returns=int(unmatched))
            case ["mark" | "end", _, _, _]:
                head, counts, physical, user, modules = words, {}, {}, {}, {}
            case ["physical", address, count]:
                physical[int(address)] = int(count)
            case ["user", page, offset, count]:
                user[int(page, 16), int(offset)] = int(count)
            case ["module", address, code, count]:
                modules[int(address, 16), bytes.fromhex(code)] = int(count)
            case ["."] if head:
                idle_ns = int(head[3])
                yield Snapshot(
                    moment=Moment.EXIT if head[0] == "end" else int(head[1]),
                    tsc_ns=int(head[2]),
                    idle_ns=None if idle_ns < 0 else idle_ns,
                    counts=counts,
                    physical=physical,
                    calls=calls,
                    user=user,
                    modules=modules,
                )
                head = []
            case [index, count] if int(index) < len(addresses):
                counts[addresses[int(index)]] = int(count)


def plugin_option(library: Path, starts: Path, out: Path, kinds: Path | None = None, *, programs: bool = False) -> str:
    """The value of QEMU's option -plugin."""
    files = {"starts": starts, "out": out, "kinds": kinds}
    values = (f"{name}={option_value(path)}" for name, path in files.items() if path is not None)
    return ",".join([option_value(library), *values, *(["programs=on"] if programs else [])])


def plugin(qemu: Path, cache: Cache | None = None) -> Path:
    """Build the plugin for the API of this QEMU; returns the path of the library.

    Errors: `MissingRequirement` (no C compiler), `CommandFailed` (it does not compile), `AconError` (this QEMU loads
    none of them).
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingRequirement("cc", _FEATURE, hint="apt-get install gcc libc6-dev")
    return _build(compiler, _api(qemu, compiler, cache or Cache()), cache or Cache())


@functools.cache
def why_not(qemu: Path) -> str:
    """Why guests of this QEMU cannot be counted; "" where they can."""
    try:
        plugin(qemu)
    except (AconError, OSError) as error:
        return error.what if isinstance(error, AconError) else str(error)
    return ""


def _build(compiler: str, api: int, cache: Cache) -> Path:
    inputs = {
        "plugin": [sha256_file(path) for path in _SOURCES],
        "api": api,
        "flags": _FLAGS,
        "compiler": process.output([compiler, "--version"]).splitlines()[0],
    }

    def make(folder: Path) -> None:
        argv: list[str | Path] = [compiler, *_FLAGS, f"-DAPI={api}", "-o", folder / "counts.so"]
        argv += [path for path in _SOURCES if path.suffix == ".c"]
        argv += ["-lpthread"]
        process.run(argv, cwd=folder, hint="apt-get install gcc libc6-dev")

    return cache.get("plugin", inputs, make).path / "counts.so"


def _api(qemu: Path, compiler: str, cache: Cache) -> int:
    """The version of the API for which this QEMU loads the plugin, found by loading it once."""
    binary = qemu.resolve()
    hashes = [sha256_file(path) for path in _SOURCES]
    inputs = {"qemu": str(binary), "changed_ns": binary.stat().st_mtime_ns, "plugin": hashes}

    def make(folder: Path) -> None:
        why: list[str] = []
        for api in _APIS:
            try:
                _load(qemu, _build(compiler, api, cache), folder / "starts")
            except CommandFailed as error:
                why.append(next((line for line in error.details if "lugin" in line), str(error)))
            else:
                (folder / "api").write_text(str(api))
                return
        hint = "use a QEMU with TCG plugins, as Debian's is: ACON_NB_QEMU=/path/to/qemu-system-x86_64"
        raise AconError(f"{qemu} loads no plugin for {_FEATURE}", details=why, hint=hint)

    return int((cache.get("plugin-api", inputs, make).path / "api").read_text())


def _load(qemu: Path, library: Path, starts: Path) -> None:
    """Load the plugin into a QEMU without a machine, which ends at once. Errors: `CommandFailed`."""
    starts.write_bytes(bytes(8))
    commands = b'{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'
    argv: list[str | Path] = [qemu, "-M", "none", "-accel", "tcg", "-S", "-display", "none", "-nodefaults"]
    argv += ["-qmp", "stdio", "-plugin", plugin_option(library, starts, Path("/dev/null"))]
    process.output(argv, stdin=commands, timeout_s=120)
