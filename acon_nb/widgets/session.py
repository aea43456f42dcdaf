"""Finds out whether a notebook runs interactively, and keeps widgets responsive after reconnects."""

from __future__ import annotations

import os
import sys
from typing import Any

_asked: dict[str, bool] = {}  # whether the last request to execute came from a front end with a person


def headless() -> bool:
    """Return True where no person can use a widget; `ACON_NB_HEADLESS` (1 or 0) overrides it.

    A front end with a person takes input: `allow_stdin` is true in its requests to execute (Jupyter's messaging
    protocol), as in those of JupyterLab, and false in those of papermill and nbconvert. Voila executes as these do but
    shows widgets; its kernels know it by SERVER_SOFTWARE. Outside Jupyter there is nobody.
    """
    setting = os.environ.get("ACON_NB_HEADLESS", "")
    if setting:
        return setting != "0"
    request = _request().get("content")
    if isinstance(request, dict) and "allow_stdin" in request:  # not a widget's message, nor a thread without one
        _asked["person"] = bool(request["allow_stdin"])
        _asked["voila"] = os.environ.get("SERVER_SOFTWARE", "").startswith("voila/")
    return not any(_asked.values())


def _request() -> dict[str, Any]:
    """Return the message that the cell runs for; nothing outside Jupyter."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return parent if isinstance(parent, dict) else {}


def cell_now() -> tuple[str, int]:
    """Return the id of the notebook's cell that runs now, and which execution this is; ("", 0) outside notebooks."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    cell = _request().get("metadata", {}).get("cellId", "")
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
