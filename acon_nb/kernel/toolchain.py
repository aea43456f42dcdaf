"""The compiler of a kernel build: gcc, any other program (kbuild's CC=), or LLVM's tools throughout (kbuild's LLVM=).

Source: Documentation/kbuild/llvm.rst. Nothing is cross-compiled: a compiler for another machine is refused by name.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.errors import AconError, CommandFailed, InvalidInput, MissingRequirement

_CC = re.compile(r"[A-Za-z0-9_./+-]+")
_LLVM = re.compile(r"1|-[0-9]{1,3}|(?:/[A-Za-z0-9_.+-]+)+/")
_LLVM_TOOLS = ("ld.lld", "llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-strip")
_TARGET = "x86_64"


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What compiles a kernel: gcc, unless `cc` names another program, or `llvm` is 1, -VERSION or a folder with `/`."""

    cc: str = ""
    llvm: str = ""

    def __post_init__(self) -> None:
        if self.cc and self.llvm:
            raise InvalidInput("cc", self.cc, "is given together with llvm", hint="give cc or llvm")
        if self.cc and (not _CC.fullmatch(self.cc) or self.cc.startswith("-")):
            hint = "one program, such as gcc-13, clang or /opt/gcc/bin/gcc; ccache is used if it is installed"
            raise InvalidInput("cc", self.cc, "is not a compiler's name or path without blanks", hint=hint)
        if self.llvm and not _LLVM.fullmatch(self.llvm):
            hint = "1, a suffix such as -19, or the folder of the tools, which ends with /"
            raise InvalidInput("llvm", self.llvm, "is not a value of kbuild's LLVM", hint=hint)

    @property
    def compiler(self) -> str:
        """The C compiler's name or path."""
        return self._llvm_tool("clang") if self.llvm else self.cc or "gcc"

    @property
    def linker(self) -> str:
        """The linker's name or path."""
        return self._llvm_tool("ld.lld") if self.llvm else "ld"

    @property
    def is_gcc(self) -> bool:
        """Whether it is the gcc of this host's PATH."""
        return not self.cc and not self.llvm

    def variables(self, *, afresh: bool = False) -> tuple[str, ...]:
        """Return the variables of `make`: with ccache if that is installed, unless all is compiled `afresh`."""
        prefix = "ccache " if shutil.which("ccache") and not afresh else ""
        made = [f"LLVM={self.llvm}"] if self.llvm else []
        if prefix or self.cc:
            made.append(f"CC={prefix}{self.compiler}")
        if prefix:  # kbuild's own host compiler is gcc, or LLVM's clang
            made.append(f"HOSTCC={prefix}{self.compiler if self.llvm else 'gcc'}")
        return tuple(made)

    def versions(self) -> list[str]:
        """Return what of the tools ends up in a kernel: the first line of each one's `--version`.

        With the headers of gcc's plugins, Kconfig turns on GCC_PLUGINS.
        """
        tools = [self.compiler, self.linker, "zstd", *(["pahole"] if shutil.which("pahole") else [])]
        try:
            versions = [process.output([tool, "--version"]).splitlines()[0] for tool in tools]
        except IndexError as error:
            raise AconError(f"one of {', '.join(tools)} does not print its version", hint="reinstall it") from error
        return [*versions, *(["gcc plugins"] if self._has_plugins() else [])]

    def require(self) -> None:
        """Raise `MissingRequirement` for missing tools, `InvalidInput` for those that compile for another machine."""
        needed = [self.compiler, *([self._llvm_tool(tool) for tool in _LLVM_TOOLS] if self.llvm else [])]
        missing = [tool for tool in needed if shutil.which(tool) is None]
        if missing:
            package = self._package()
            hint = f"apt-get install {package}" if package else "give a compiler that is installed"
            raise MissingRequirement(", ".join(missing), "building a kernel", hint=hint)
        if self.is_gcc and os.uname().machine == _TARGET:
            return
        field, value = ("llvm", self.llvm) if self.llvm else ("cc", self.compiler)
        try:
            target = process.output([self.compiler, "-dumpmachine"]).strip()
        except (CommandFailed, AconError) as error:
            hint = "such as gcc-13 or clang"
            raise InvalidInput(field, value, "does not answer as gcc and clang do (-dumpmachine)", hint=hint) from error
        if not target.startswith(f"{_TARGET}-"):
            machine = target or "an unknown machine"
            reason = f"compiles for {machine}: guests are {_TARGET}, and nothing is cross-compiled"
            raise InvalidInput(field, value, reason, hint=f"build on an {_TARGET} host, with a compiler of its own")

    def _llvm_tool(self, name: str) -> str:
        if self.llvm.startswith("-"):
            return f"{name}{self.llvm}"
        return f"{self.llvm}{name}" if self.llvm.startswith("/") else name

    def _package(self) -> str:
        """The packages of Debian that have the tools; "" for a path."""
        if self.llvm:
            suffix = self.llvm if self.llvm.startswith("-") else ""
            return "" if self.llvm.startswith("/") else f"clang{suffix} lld{suffix} llvm{suffix}"
        return "" if "/" in self.compiler else self.compiler

    def _has_plugins(self) -> bool:
        if self.llvm or "clang" in Path(self.compiler).name:
            return False
        folder = process.output([self.compiler, "-print-file-name=plugin"]).strip()
        return Path(folder, "include/plugin-version.h").is_file()


GCC = Toolchain()
