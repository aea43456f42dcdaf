"""Whether the kernel can execute a program: scripts and their interpreters, ELF files, loaders and libraries.

Sources: fs/exec.c, fs/binfmt_script.c, fs/binfmt_elf.c and arch/x86/include/asm/elf.h of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from acon_nb.archive.tree import Entry, shown
from acon_nb.initrd.check import elf
from acon_nb.initrd.check.elf import Damaged, Elf
from acon_nb.initrd.check.files import Files, Missing, executable, head, plain
from acon_nb.initrd.check.findings import Severity, Trouble
from acon_nb.initrd.check.libraries import Loader

_HEAD_BYTES = 256  # BINPRM_BUF_SIZE
_MOST_SCRIPTS = 5  # scripts that may name each other as interpreter (exec_binprm)
_SHELLS = (b"sh", b"ash", b"dash", b"bash", b"ksh", b"zsh", b"busybox")
# Where env(1) looks without PATH, which the kernel does not set: glibc's and musl's default
_ENV_PATH = (b"/bin", b"/usr/bin", b"/usr/local/bin")
_BLANKS = b" \t"


class Programs:
    """The programs of a root file system; each ELF file is read once."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._elfs: dict[int, Elf | Damaged] = {}
        self._loaders: dict[bytes, Loader] = {}

    def libraries(self, path: bytes) -> list[bytes]:
        """Return the libraries that a dynamic program loads, by path; empty for one that is not or cannot be run."""
        entry = self.files.file(path)
        program = self._elf(entry) if entry is not None and head(entry, 4) == elf.MAGIC else None
        if not isinstance(program, Elf) or not program.interpreter:
            return []
        loader = self.files.file(program.interpreter)
        if loader is None:
            return []
        return self._loader(program.interpreter, loader).load(path, program, proc=True)[0]

    def troubles(self, path: bytes, severity: Severity, purpose: str, *, proc: bool = False) -> Iterator[Trouble]:
        """Yield why a program does not run; `purpose` says in a clause what then does not work.

        `proc` is whether /proc is mounted by then.
        """
        yield from self._troubles(path, severity, purpose, proc, 0)

    def _troubles(self, path: bytes, severity: Severity, purpose: str, proc: bool, depth: int) -> Iterator[Trouble]:
        name = plain(path)
        target = self.files.lookup(path)
        if isinstance(target, Missing):
            fix = f"add what {name} leads to, or replace the link" if target.links else f"add {name} to the image"
            yield Trouble(severity=severity, what=f"{name} cannot be run", why=f"{target}; {purpose}", fix=fix)
            return
        if not executable(target.entry):
            kind = "is not executable" if target.entry.is_file else "is not a regular file"
            fix = (
                f"chmod 755 {plain(target.path)}" if target.entry.is_file else f"put a program at {plain(target.path)}"
            )
            yield Trouble(severity=severity, what=f"{name} {kind}", why=purpose, fix=fix)
            return
        raw = head(target.entry, _HEAD_BYTES)
        if raw.startswith(b"#!"):
            yield from self._script_troubles(path, raw, severity, purpose, proc, depth)
        elif raw.startswith(elf.MAGIC):
            yield from self._elf_troubles(path, target.entry, severity, purpose, proc)
        else:
            what = f"{name} is neither a script nor a program"
            why = f"it begins with {shown(raw[:16])}" if raw else "it is empty"
            fix = "its first line must be #! and the path of an interpreter, such as #!/bin/sh"
            yield Trouble(severity=severity, what=what, why=f"{why}; {purpose}", fix=fix)

    def _script_troubles(
        self, path: bytes, raw: bytes, severity: Severity, purpose: str, proc: bool, depth: int
    ) -> Iterator[Trouble]:
        name = plain(path)
        script = Trouble(severity=severity, what=f"{name} is a script", why="", options=("BINFMT_SCRIPT",))
        yield replace(script, why=f"the kernel must run scripts; {purpose}", fix="set BINFMT_SCRIPT=y")
        if depth >= _MOST_SCRIPTS:
            why = f"the kernel follows at most {_MOST_SCRIPTS} scripts that are each other's interpreters; {purpose}"
            yield Trouble(severity=severity, what=f"{name} is one script too many", why=why, fix="name a program")
            return
        interpreter, argument = first_line(raw)
        if not interpreter:
            why = f"its first line names no interpreter, or is longer than {_HEAD_BYTES - 1} bytes; {purpose}"
            yield Trouble(severity=severity, what=f"{name} has no interpreter", why=why, fix="such as #!/bin/sh")
            return
        if interpreter.endswith(b"\r"):
            what = f"{name} has the line ends of Windows"
            why = f"the kernel looks for the interpreter {shown(interpreter)}; {purpose}"
            if self.files.file(interpreter) is None:
                yield Trouble(severity=severity, what=what, why=why, fix=f"sed -i 's/\\r$//' {name}")
                return
        need = purpose if depth else f"it is the interpreter of {name}; {purpose}"
        yield from self._troubles(interpreter, severity, need, proc, depth + 1)
        yield from self._argument_troubles(path, interpreter, argument, severity, purpose, proc, depth)

    def _argument_troubles(
        self,
        path: bytes,
        interpreter: bytes,
        argument: bytes,
        severity: Severity,
        purpose: str,
        proc: bool,
        depth: int,
    ) -> Iterator[Trouble]:
        """What is wrong with the one argument that a script gives to its interpreter."""
        name = plain(path)
        program = interpreter.rpartition(b"/")[2]
        if program in _SHELLS and argument.endswith(b"\r"):
            why = f"its interpreter gets {shown(argument)} as argument and ends; {purpose}"
            what = f"{name} has the line ends of Windows"
            yield Trouble(severity=severity, what=what, why=why, fix=f"sed -i 's/\\r$//' {name}")
        if program != b"env":
            return
        words = argument.split() if argument.startswith(b"-S") else [argument]
        wanted = next((word for word in (words[0].removeprefix(b"-S"), *words[1:]) if word), b"")
        if not wanted or wanted.startswith(b"-") or b"=" in wanted:
            if not wanted:
                why = f"env prints its environment and ends; {purpose}"
                yield Trouble(severity=severity, what=f"{name} names no program for env", why=why, fix="#!/bin/sh")
            return
        candidates = [wanted] if b"/" in wanted else [folder + b"/" + wanted for folder in _ENV_PATH]
        wanted_path = next((one for one in candidates if (entry := self.files.file(one)) and executable(entry)), None)
        if wanted_path is None:
            where = f"env finds no {shown(wanted)}" + ("" if b"/" in wanted else f" in {plain(b':'.join(_ENV_PATH))}")
            fix = "name the interpreter by its path, such as #!/bin/sh"
            if b" " in wanted or b"\t" in wanted:
                where += ": the kernel passes all that follows as one argument"
                fix = "#!/usr/bin/env -S, or name the interpreter by its path"
            yield Trouble(severity=severity, what=f"{name} cannot be run", why=f"{where}; {purpose}", fix=fix)
            return
        need = f"it is the interpreter of {name}; {purpose}"
        yield from self._troubles(wanted_path, severity, need, proc, depth + 1)

    def _elf_troubles(
        self, path: bytes, entry: Entry, severity: Severity, purpose: str, proc: bool
    ) -> Iterator[Trouble]:
        name = plain(path)
        program = self._elf(entry)
        native = Trouble(severity=severity, what=f"{name} is an ELF program", why="", options=("BINFMT_ELF",))
        yield replace(native, why=f"the kernel must run ELF programs; {purpose}", fix="set BINFMT_ELF=y")
        wrong = _format_fault(program)
        if wrong or isinstance(program, Damaged):
            yield Trouble(severity=severity, what=f"{name} cannot be run", why=f"{wrong}; {purpose}", fix=_FIX_MACHINE)
            return
        kind, options = _KINDS[program.bits, program.machine]
        why = f"the kernel must run such programs; {purpose}"
        fix = f"set {options[0]}=y"
        yield Trouble(severity=severity, what=f"{name} is a program for {kind}", why=why, fix=fix, options=options)
        if program.missing_bytes:
            why = f"{program.missing_bytes} bytes of it are missing; {purpose}"
            yield Trouble(severity=severity, what=f"{name} is truncated", why=why, fix="copy the file again")
            return
        if not program.interpreter:
            return
        yield from self._loader_troubles(path, program, severity, purpose, proc)

    def _loader_troubles(
        self, path: bytes, program: Elf, severity: Severity, purpose: str, proc: bool
    ) -> Iterator[Trouble]:
        name = plain(path)
        loader_path = program.interpreter if program.interpreter.startswith(b"/") else b"/" + program.interpreter
        loader = self.files.lookup(loader_path)
        fix = "add the C library of the distribution that the program is from, or use a static program"
        if isinstance(loader, Missing):
            why = f"{loader}; {purpose}"
            yield Trouble(
                severity=severity, what=f"the loader of {name}, {plain(loader_path)}, is missing", why=why, fix=fix
            )
            return
        what = f"the loader of {name}, {plain(loader_path)}, cannot be run"
        if not executable(loader.entry):
            yield Trouble(
                severity=severity,
                what=what,
                why=f"it is not executable; {purpose}",
                fix=f"chmod 755 {plain(loader.path)}",
            )
            return
        own = self._elf(loader.entry) if head(loader.entry, 4) == elf.MAGIC else Damaged("it is not an ELF file")
        wrong = _format_fault(own)
        if isinstance(own, Elf) and (own.bits, own.machine) != (program.bits, program.machine):
            wrong = "it is for another machine"
        if wrong or (isinstance(own, Elf) and own.missing_bytes):
            yield Trouble(severity=severity, what=what, why=f"{wrong or 'it is truncated'}; {purpose}", fix=fix)
            return
        for fault in self._loader(loader_path, loader.entry).load(path, program, proc=proc)[1]:
            yield Trouble(
                severity=severity, what=fault.what, why=f"{fault.why}; {purpose}", fix=fault.fix, sure=fault.sure
            )

    def _loader(self, path: bytes, entry: Entry) -> Loader:
        if path not in self._loaders:
            self._loaders[path] = Loader(self.files, self._elf, path, entry)
        return self._loaders[path]

    def _elf(self, entry: Entry) -> Elf | Damaged:
        if id(entry) not in self._elfs:
            self._elfs[id(entry)] = elf.read(entry)
        return self._elfs[id(entry)]


_FIX_MACHINE = "take the program for x86-64, and copy it whole"


def _format_fault(program: Elf | Damaged) -> str:
    """Why no x86-64 kernel runs an ELF file; "" if one may."""
    if isinstance(program, Damaged):
        return program.why
    if (program.bits, program.machine) not in _KINDS:
        return f"it is for another machine (e_machine {program.machine})"
    return "" if program.kind in ("ET_EXEC", "ET_DYN") else f"it is not a program ({program.kind})"


_32BIT = ("32-bit x86", ("IA32_EMULATION", "X86_32"))
# What the kernels of x86 run, by bits and machine, and the options of which each needs one
_KINDS: dict[tuple[int, int], tuple[str, tuple[str, ...]]] = {
    (64, elf.X86_64): ("64-bit x86", ("X86_64",)),
    (32, elf.X86_64): ("x32", ("X86_X32_ABI",)),
    (32, elf.I386): _32BIT,
    (32, elf.I486): _32BIT,
}


def first_line(raw: bytes) -> tuple[bytes, bytes]:
    """Return interpreter and argument of a script as the kernel takes them from its first 256 bytes (load_script).

    The interpreter is b"" if the kernel does not take the file for a script that it can run.
    """
    buffer = raw.ljust(_HEAD_BYTES, b"\0")[:_HEAD_BYTES]
    end = buffer.find(b"\n")
    if end < 0:
        body = buffer[2:]
        start = next((at for at, byte in enumerate(body) if byte not in _BLANKS), None)
        if start is None or not any(byte in b" \t\0" for byte in body[start:]):
            return b"", b""
        end = _HEAD_BYTES - 1
    line = buffer[2:end].rstrip(_BLANKS).lstrip(_BLANKS)
    if not line:
        return b"", b""
    stop = next((at for at, byte in enumerate(line) if byte in b" \t\0"), len(line))
    argument = b"" if line[stop : stop + 1] == b"\0" else line[stop:].lstrip(_BLANKS)
    return line[:stop], argument.partition(b"\0")[0]
