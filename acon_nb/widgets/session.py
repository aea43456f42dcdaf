"""Finds out whether a notebook runs interactively, and keeps widgets responsive after reconnects."""

from __future__ import annotations

import os
import sys
from typing import Any


def headless() -> bool:
    """Return True under papermill and outside Jupyter; `ACON_NB_HEADLESS` (1 or 0) overrides it.

    papermill runs its kernels without standard input, JupyterLab with it; there is no public way to find out.
    """
    setting = os.environ.get("ACON_NB_HEADLESS", "")
    if setting:
        return setting != "0"
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    return not getattr(kernel, "_allow_stdin", False)


def cell_now() -> tuple[str, int]:
    """Return the id of the notebook's cell that runs now, and which execution this is; ("", 0) outside notebooks."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = parent.get("metadata", {}).get("cellId", "") if isinstance(parent, dict) else ""
    return str(cell or ""), int(getattr(shell, "execution_count", 0) or 0)


def steady(widget: Any) -> Any:
    """Make a widget and its children handle the page's messages in the subshell that each message names; return it.

    ipykernel 7.4 passes messages of a comm to the subshell that sent last instead (`BaseComm._reply_subshell_for`, so
    that a callback can wait for an answer). After a broken connection Lab creates a new subshell and deletes the old
    one; each message is then answered by UnknownSubshellError, and the widget no longer responds. Other versions do
    not have this method.
    """
    comm = getattr(widget, "comm", None)
    if comm is not None and hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _, named: named
    for child in getattr(widget, "children", ()):
        steady(child)
    return widget
