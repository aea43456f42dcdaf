"""`acon-nb`: one thin command per capability.

`--json` prints one JSON object on standard output and nothing else; progress and errors go to standard error.
Exit status: 0 done, 1 failed as named, 2 wrong usage.
"""

from acon_nb.cli import bench, cluster, initrd, kernel, nightly, notebook, run
from acon_nb.cli.base import main

__all__ = ["bench", "cluster", "initrd", "kernel", "main", "nightly", "notebook", "run"]
