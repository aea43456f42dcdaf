"""Give a guest the agent that runs commands: an archive in front of its initrd, and words on its command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from acon_nb import kernel_line
from acon_nb.archive import cpio
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.guest.programs import agent_program
from acon_nb.initrd import DEFAULT_MTIME, FileTree, join
from acon_nb.vm import VmSpec, first_program

_PROGRAM = "/acon/exec"
READY = "/acon/exec-ready"
_NEXT = "acon/next"


def prepare(spec: VmSpec, *, has_shell: bool = False, cache: Cache | None = None) -> VmSpec:
    """Return a spec whose guest has the agent, for `vm.Machine(..., agent=True)`.

    The agent starts before the user's init, which the kernel would have started (`rdinit=`, /init), and waits in the
    background; our own /init tells it when the guest is set up, unless `INIT=` names another program. With
    `has_shell` the console keeps the shell that our /init starts in the end; otherwise it has none.
    Errors: `InvalidInput` (no initrd, a clock of instructions, which the host's timing would disturb).
    """
    store = cache or Cache()
    if spec.initrd is None:
        raise InvalidInput("initrd", None, "a guest without an initrd cannot run commands", hint="RD=FILE")
    append, program = _command_line(spec.append, has_shell=has_shell)
    agent = agent_program(store)
    inputs = {"agent": sha256_file(agent), "program": program, "initrd": sha256_file(spec.initrd)}

    def make(folder: Path) -> None:
        tree = FileTree()
        tree.add_dir("acon")
        tree.add_file(_PROGRAM.lstrip("/"), agent, mode=0o755)
        tree.add_symlink(READY.lstrip("/"), _PROGRAM)
        if program != first_program.INIT:
            tree.add_symlink(_NEXT, program)
        with (folder / "agent.cpio").open("wb") as file:
            cpio.write(tree, file, mtime=DEFAULT_MTIME, owner=(0, 0))
        assert spec.initrd is not None
        join((folder / "agent.cpio", spec.initrd), folder / "initrd")
        (folder / "agent.cpio").unlink()

    return dataclasses.replace(spec, append=append, initrd=store.get("agent", inputs, make).path / "initrd")


def _command_line(append: str, *, has_shell: bool = False) -> tuple[str, str]:
    """The command line that starts the agent, and the program that the kernel would have started."""
    started, program = first_program.replaced(append, _PROGRAM)
    has_init = kernel_line.parse(started).value("INIT") is not None
    return started if has_init or has_shell else kernel_line.with_words(started, f"INIT={READY}"), program
