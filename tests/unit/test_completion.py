"""Completion of commands, options and their values, as real shells ask for it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import acon_nb

BASH = """
source /dev/stdin <<< "$(acon-nb completion bash)"
COMP_WORDS=({words}) COMP_CWORD={place}
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with an `acon-nb` of this interpreter, as an installed one."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "acon-nb"
    program.write_text(f"#!{sys.executable}\nfrom acon_nb.cli import main\nmain()\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def run(argv: list[str], path: str, cache: Path, **variables: str) -> str:
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(acon_nb.__file__).parents[1])}
    environment |= {"XDG_CACHE_HOME": str(cache), **variables}
    return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout


def in_bash(words: list[str], path: str, folder: Path) -> list[str]:
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in ["acon-nb", *words])
    script = BASH.format(words=quoted, place=len(words), function="_acon_nb_completion acon-nb")
    return run(["bash", "-c", script], path, folder).split()


@pytest.mark.parametrize(
    ("words", "offered", "not_offered"),
    [
        (["kernel", "build", "--profile", "gu"], {"guide"}, {"minimal"}),
        (["kernel", "build", "--profile", "guide,swa"], {"guide,swap-study"}, {"swap-study"}),
        (["kernel", "diff", "min"], {"minimal"}, set()),
        (["bench", "study", "qui"], {"quick", "quickstart"}, {"smoke"}),
        (["bench", "swap", "--preset", "t"], {"tour", "tutorial"}, {"smoke"}),
        (["bench", "compare", "x", "--metric", "memav"], {"memavailable_bytes"}, {"executed_ns"}),
        (["bench", "swap", "--setups", "zram"], {"zram-lz4"}, set()),
        (["be"], {"bench"}, {"kernel"}),
    ],
)
def test_bash_completes_values(
    words: list[str], offered: set[str], not_offered: set[str], path: str, tmp_path: Path
) -> None:
    answer = set(in_bash(words, path, tmp_path))
    assert offered <= answer
    assert not not_offered & answer


def test_guests_and_studies_are_named(path: str, tmp_path: Path) -> None:
    run_folder = tmp_path / "acon_nb/runs/2026-01-01T00-00-00-mine"
    run_folder.mkdir(parents=True)
    values = {"name": "mine", "pid": 1, "started": "2026-01-01T00:00:00", "kernel": "k"}
    (run_folder / "run.json").write_text(json.dumps(values))
    assert in_bash(["logs", "mi"], path, tmp_path) == ["mine"]
    assert in_bash(["attach", "mi"], path, tmp_path) == [], "it has ended"
    rows = Path(__file__).parent / "data/rows_v2"
    assert "net-boot" in in_bash(["bench", "compare", "--results", str(rows), "net"], path, tmp_path)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is missing: apt-get install fish")
def test_fish_completes_values(path: str, tmp_path: Path) -> None:
    script = 'acon-nb completion fish | source; complete -C "acon-nb kernel build --profile gu"'
    assert run(["fish", "--no-config", "-c", script], path, tmp_path, HOME=str(tmp_path)).split() == ["guide"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is missing: apt-get install zsh")
def test_zsh_completes_values(path: str, tmp_path: Path) -> None:
    owner, shell = os.openpty()
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(acon_nb.__file__).parents[1]), "TERM": "dumb"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    zsh = subprocess.Popen(["zsh", "-f", "-i"], stdin=shell, stdout=shell, stderr=shell, env=environment)
    os.close(shell)
    try:
        os.write(owner, b"autoload -U compinit; compinit -u; eval \"$(acon-nb completion zsh)\"; echo rea''dy\n")
        read_until(owner, "ready\r\n")
        os.write(owner, b"acon-nb kernel build --profile gui\t")
        read_until(owner, "guide")
    finally:
        zsh.kill()
        zsh.wait()
        os.close(owner)


def read_until(terminal: int, text: str) -> None:
    shown = ""
    deadline = time.monotonic() + 60
    while text not in shown:
        assert select.select([terminal], [], [], deadline - time.monotonic())[0], shown
        shown += os.read(terminal, 4096).decode(errors="replace")
