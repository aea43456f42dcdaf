"""A git repository of 33 commits of a real kernel, one of which makes the boot longer by a loop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

LOOPS = 100_000
PLANTED = 21
COUNT = 32
# What a small kernel does not compile: only its Kconfig files and Makefiles are taken, so that git is quick.
_LARGE = re.compile(
    r"(?:arch/(?!x86(?:/|$))[^/]+|drivers/(?:gpu|media|net/ethernet|net/wireless|infiniband|staging|scsi|usb|iio)|sound"
    r"|tools/(?:testing|perf)|Documentation|samples|fs/(?:xfs|btrfs|smb|ocfs2))/"
)
_KEPT = re.compile(r"(?:Kconfig|Makefile|Kbuild)[^/]*")
_WHO = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "core.looseCompression=0", "-c", "gc.auto=0")
# A function of the boot that runs once, and files of all kernels that the other commits touch
_FUNCTION = ("mm/mm_init.c", "void __init page_alloc_init_late(void)\n{\n", "\tmem_init_print_info();\n")
_TOUCHED = ("mm/util.c", "kernel/sys.c", "lib/string.c", "fs/namei.c", "mm/mmap.c", "kernel/fork.c", "lib/bitmap.c")


def git(repository: Path, *argv: str) -> str:
    """The output of a git command."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", repository, *_WHO, *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()


def copy_of(tree: Path, repository: Path) -> str:
    """Make a repository of a kernel's tree, less what a small kernel does not compile; return its commit."""

    def omitted(folder: str, names: list[str]) -> list[str]:
        below = Path(folder).relative_to(tree)
        paths = {name: (below / name).as_posix() for name in names}
        return [
            name
            for name, path in paths.items()
            if _LARGE.match(path) and not _KEPT.fullmatch(name) and not (tree / path).is_dir()
        ]

    shutil.copytree(tree, repository, symlinks=True, ignore=omitted)
    (repository / "manifest.json").unlink(missing_ok=True)  # of the cache
    git(repository, "init", "--quiet")
    git(repository, "add", "--all", "--force")
    git(repository, "commit", "--quiet", "-m", "linux")
    return git(repository, "rev-parse", "HEAD")


def plant(repository: Path, loops: int = LOOPS) -> None:
    """Add a function with a loop, which runs once at boot: three instructions for each turn, as GCC compiles it."""
    name, head, call = _FUNCTION
    path = repository / name
    text = path.read_text()
    assert text.count(head) == text.count(call) == 1
    loop = f"\tfor (unsigned long turn = 0; turn < {loops}; turn++)\n\t\tbarrier();\n"
    text = text.replace(head, f"static noinline void __init planted(void)\n{{\n{loop}}}\n\n{head}")
    path.write_text(text.replace(call, f"\tplanted();\n{call}"))


def make(tree: Path, repository: Path) -> list[str]:
    """The commits: the kernel, then one for each change, of which `PLANTED` has the loop."""
    commits = [copy_of(tree, repository)]
    for number in range(1, COUNT + 1):
        if number == PLANTED:
            plant(repository)
        else:
            path = repository / _TOUCHED[number % len(_TOUCHED)]
            path.write_text(f"{path.read_text()}\n/* change {number} */\n")
        git(repository, "commit", "--quiet", "-a", "-m", f"change {number}")
        commits.append(git(repository, "rev-parse", "HEAD"))
    return commits
