"""Whether a person is in front of this notebook."""

from __future__ import annotations

import os
import sys
from typing import Any


def headless() -> bool:
    """True under papermill and outside Jupyter; `ACON_NB_HEADLESS` (1 or 0) overrides.

    papermill runs its kernels without standard input, JupyterLab with it; there is no public way to ask.
    """
    wanted = os.environ.get("ACON_NB_HEADLESS", "")
    if wanted:
        return wanted != "0"
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    return not getattr(kernel, "_allow_stdin", False)


def steady(widget: Any) -> Any:
    """Let a widget, and all that it holds, take the page's messages in the thread that they name; returns the widget.

    ipykernel 7.4 passes a comm's messages to the subshell that sent last instead (`BaseComm._reply_subshell_for`, there
    to let a callback wait for its answer). After a broken connection Lab has a new subshell and deletes the old: then
    each message is answered by UnknownSubshellError and the widget is deaf. Other versions have no such method.
    """
    comm = getattr(widget, "comm", None)
    if comm is not None and hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _, named: named
    for child in getattr(widget, "children", ()):
        steady(child)
    return widget
