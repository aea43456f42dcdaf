"""Every exception that the package raises on purpose.

Each reports what is wrong, where, and what to do about it: `str(error)` is the full text for a person, `error.hint` the
suggested fix alone. `exit_status` is the exit status of the command line.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path


class AconError(Exception):
    """Base class of all errors of the package.

    Parameters: `what` is one sentence that names the object and the reason; `hint` is what to do about it;
    `details` are lines of evidence (the end of a log, a table).
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
        """Return what IPython shows in a notebook: the text without a traceback."""
        return [f"{type(self).__name__}: {self}"]


class InvalidInput(AconError, ValueError):
    """Invalid input, refused before anything starts.

    The text reads "FIELD=VALUE: REASON", followed by the hint. `reason` is a predicate of the field, as in "is not a
    file" or "has no FROM line"; `hint` says what to give instead.
    """

    exit_status = 2

    def __init__(self, field: str, value: object, reason: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        self.field = field
        self.value = value
        self.reason = reason
        super().__init__(f"{field}={_short(value)}: {reason}", hint=hint, details=details)


class MissingRequirement(AconError):
    """A program, package or device that a feature needs is missing on this host."""

    def __init__(self, need: str, feature: str, *, hint: str) -> None:
        self.need = need
        super().__init__(f"{need} is missing; {feature} needs it", hint=hint)


class Cancelled(AconError):
    """The work was cancelled; finished parts are kept and the next run resumes from them."""

    def __init__(self, what: str = "cancelled") -> None:
        super().__init__(what, hint="run it again to resume: finished parts are kept")


class NoSpace(AconError):
    """A disk is full, or would be."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"no space left at {path}: {what}",
            hint="free some space there, or set XDG_CACHE_HOME to a folder on a larger disk; the next run resumes here",
        )


class NotWritable(AconError, OSError):
    """A file or folder cannot be written: no permission, a read-only file system, a file in the way of a folder."""

    def __init__(self, path: Path, error: OSError, *, hint: str) -> None:
        super().__init__(f"cannot write {path}: {error.strerror}", hint=hint)
        self.errno, self.strerror, self.filename = error.errno, error.strerror, str(path)


class CommandFailed(AconError):
    """A host program failed. `command` can be pasted into a shell; `details` are its last lines of output."""

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
    """A host program exceeded its time limit and was killed, together with everything it started."""


class BuildFailed(AconError):
    """A build (kernel, guest program) failed."""


class KernelConfigError(AconError):
    """A requested kernel option was not applied. `results` holds the failed requests."""

    def __init__(self, what: str, results: Sequence[object], *, details: Sequence[str], hint: str = "") -> None:
        self.results = tuple(results)
        super().__init__(what, hint=hint, details=details)


class TreeError(AconError):
    """An initrd tree is invalid: a path leads out of it, an archive is damaged, or there is no init."""


class GuestFailed(AconError):
    """A guest did not end as expected. `end` is how it ended (see `acon_nb.vm.End`)."""

    def __init__(self, what: str, *, end: str, details: Sequence[str] = (), hint: str = "") -> None:
        self.end = end
        super().__init__(what, hint=hint, details=details)


class CannotTell(AconError):
    """A question has no answer in what was measured, though nothing failed."""

    exit_status = 3


class WillNotBoot(AconError):
    """A combination of files that cannot boot, found out before the boot: firmware that refuses a kernel."""

    exit_status = 5


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
    return f"was killed by {name}"
