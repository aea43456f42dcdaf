"""A git repository of 33 commits of a real kernel, one of which makes the boot longer by a loop.

It is bare, and its files are read from where they are: nothing of a kernel's tree is copied but into git's objects.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

LOOPS = 100_000
PLANTED = 21
COUNT = 32
_SETTINGS = ("core.looseCompression=0", "gc.auto=0", "user.name=A", "user.email=a@b.c")
# A function of the boot that runs once, and files of all kernels that the other commits touch
_FILE = "mm/mm_init.c"
_HEAD, _CALL = "void __init page_alloc_init_late(void)\n{\n", "\tmem_init_print_info();\n"
_TOUCHED = ("mm/util.c", "kernel/sys.c", "lib/string.c", "fs/namei.c", "mm/mmap.c", "kernel/fork.c", "lib/bitmap.c")


class PlantedHistory:
    """The repository at `path`; `commits` are the kernel and one for each change, `PLANTED` the one with the loop."""

    def __init__(self, tree: Path, path: Path) -> None:
        self.path = path
        self._tree = tree
        self.git("init", "--quiet", "--bare")
        self.git("add", "--all", "--force", files=True)
        self.commits = [self._commit("linux")]
        for number in range(1, COUNT + 1):
            name = _FILE if number == PLANTED else _TOUCHED[number % len(_TOUCHED)]
            text = self.git("show", f"{self.commits[-1]}:{name}", raw=True)
            changed = planted(text) if number == PLANTED else f"{text}\n/* change {number} */\n"
            self.commits.append(self.change(name, changed, f"change {number}", self.commits[-1]))

    def change(self, name: str, text: str, subject: str, parent: str) -> str:
        """Commit another text of a file on top of a commit; return the commit."""
        blob = self.git("hash-object", "-w", "--stdin", stdin=text)
        self.git("read-tree", parent)
        self.git("update-index", "--cacheinfo", f"100644,{blob},{name}")
        return self._commit(subject, parent)

    def git(self, *argv: str, files: bool = False, raw: bool = False, stdin: str = "") -> str:
        """The output of a git command; with `files` on the kernel's tree."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        where = [f"--work-tree={self._tree}", "-c", "core.bare=false"] if files else []
        command = ["git", f"--git-dir={self.path}", *where, *settings, *argv]
        output = subprocess.run(
            command, cwd=self._tree, check=True, capture_output=True, text=True, env=env, input=stdin
        ).stdout
        return output if raw else output.strip()

    def _commit(self, subject: str, *parents: str) -> str:
        before = [word for parent in parents for word in ("-p", parent)]
        commit = self.git("commit-tree", "-m", subject, *before, self.git("write-tree"))
        self.git("update-ref", "refs/heads/main", commit)
        return commit


def planted(text: str, loops: int = LOOPS) -> str:
    """Add a function with a loop to mm/mm_init.c, which runs once at boot: a few instructions for each turn."""
    assert text.count(_HEAD) == text.count(_CALL) == 1
    loop = f"\tfor (unsigned long turn = 0; turn < {loops}; turn++)\n\t\tbarrier();\n"
    text = text.replace(_HEAD, f"static noinline void __init planted(void)\n{{\n{loop}}}\n\n{_HEAD}")
    return text.replace(_CALL, f"\tplanted();\n{_CALL}")
