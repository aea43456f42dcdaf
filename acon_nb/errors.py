"""Every exception that the package raises on purpose.

Each says what was wrong, where, and what to do: `str(error)` is the whole text for a person, and
`error.hint` is the way out alone. `exit_status` is what the command line ends with.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path


class AconError(Exception):
    """Base of all errors of the package.

    Parameters: `what` one sentence that names the thing and the reason; `hint` what to do about it;
    `details` lines that show the evidence (a log's tail, a table).
    """

    exit_status = 1

    def __init__(self, what: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        self.what = what
        self.hint = hint
        self.details = tuple(details)
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what, *(f"  | {line}" for line in self.details)]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the text, not the way through our code."""
        return [f"{type(self).__name__}: {self}"]


class InvalidInput(AconError, ValueError):
    """Bad input, refused before anything starts: names the field, the value, the reason and the way out."""

    exit_status = 2

    def __init__(self, field: str, value: object, reason: str, *, hint: str = "") -> None:
        self.field = field
        self.value = value
        self.reason = reason
        super().__init__(f"{field}={_short(value)}: {reason}", hint=hint)


class MissingRequirement(AconError):
    """A program, package or device that a feature needs is not on this host."""

    def __init__(self, need: str, feature: str, *, hint: str) -> None:
        self.need = need
        super().__init__(f"{need} is missing; {feature} needs it", hint=hint)


class Cancelled(AconError):
    """The user (or the owner) cancelled the work; what it left behind can be continued."""

    def __init__(self, what: str = "cancelled") -> None:
        super().__init__(what, hint="run it again: finished parts are kept")


class NoSpace(AconError):
    """A disk is full, or would be."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"no space left at {path}: {what}",
            hint="free some space there, or set XDG_CACHE_HOME to a larger disk; the next run goes on from here",
        )


class CommandFailed(AconError):
    """A host program ended badly. `command` can be pasted into a shell; `details` are its last lines."""

    def __init__(
        self,
        argv: Sequence[str],
        returncode: int,
        *,
        tail: Sequence[str] = (),
        cwd: Path | None = None,
        log: Path | None = None,
        why: str = "",
        hint: str = "",
    ) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.command = shlex.join(argv) if cwd is None else f"cd {shlex.quote(str(cwd))} && {shlex.join(argv)}"
        reason = why or _ending(returncode)
        where = [f"log: {log}"] if log else []
        super().__init__(
            f"{Path(argv[0]).name} {reason}", hint=hint, details=[*tail, *where, f"command: {self.command}"]
        )


class CommandTimeout(CommandFailed):
    """A host program did not end within its time limit and was ended, with all that it started."""


class BuildFailed(AconError):
    """A build (kernel, guest program) failed."""


class KernelConfigError(AconError):
    """A wish for the kernel's configuration did not come true. `wishes` holds the failed ones."""

    def __init__(self, what: str, wishes: Sequence[object], *, details: Sequence[str], hint: str = "") -> None:
        self.wishes = tuple(wishes)
        super().__init__(what, hint=hint, details=details)


class TreeError(AconError):
    """An initrd tree is refused: a path leads out of it, or it has no init."""


class GuestFailed(AconError):
    """A guest did not end as it should. `end` is its named end (see `acon_nb.vm.End`)."""

    def __init__(self, what: str, *, end: str, details: Sequence[str] = (), hint: str = "") -> None:
        self.end = end
        super().__init__(what, hint=hint, details=details)


class ResultsError(AconError):
    """A file of results cannot be read."""


def _short(value: object, limit: int = 120) -> str:
    text = repr(str(value)) if isinstance(value, Path) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"failed with exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was ended by {name}"
