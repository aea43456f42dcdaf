"""Whether a person is in front of this notebook."""

from __future__ import annotations

import os
import sys


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
