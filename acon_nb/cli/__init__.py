"""`acon-nb`: one thin command per capability.

`--json` prints a single JSON object on standard output; progress and errors go to standard error. Exit status: 0 for
success, 1 for a failure, 2 for invalid usage, 130 after ^C (SIGINT), when what the command had started has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.cli import (
    answers,
    bench,
    boot,
    changes,
    cluster,
    completion,
    image,
    initrd,
    kernel,
    measure,
    measure_evidence,
    nightly,
    notebook,
    profile,
    run,
    runs,
    selfcheck,
    sizing,
    swap,
)
from acon_nb.cli.base import main
from acon_nb.lazy import submodules

__all__ = [
    "answers",
    "bench",
    "boot",
    "changes",
    "cluster",
    "completion",
    "image",
    "initrd",
    "kernel",
    "main",
    "measure",
    "measure_evidence",
    "nightly",
    "notebook",
    "profile",
    "run",
    "runs",
    "selfcheck",
    "sizing",
    "swap",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
