"""Small git repositories that look like kernels to the source reader, with a cost in each commit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_WHO = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main")


class History:
    """A git repository that is written to by tests; `commit` makes a commit and returns its name in full."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet")
        (path / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n")
        (path / "Kconfig").write_text('mainmenu "tiny"\n')

    def git(self, *argv: str) -> str:
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-C", str(self.path), *_WHO, *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()

    def commit(self, subject: str, **files: str) -> str:
        """Write NAME.c files, and commit everything."""
        for name, text in files.items():
            (self.path / f"{name}.c").write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def cost(self, commit: str) -> int:
        """What cost.c holds in a commit."""
        return int(self.git("show", f"{commit}:cost.c"))
