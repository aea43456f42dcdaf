"""`acon-nb run` where no person watches: scripts on standard input, readers that do not read, closed descriptors."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from acon_nb import initrd, kernel
from acon_nb.cache import Cache

pytestmark = pytest.mark.system
RUN = [sys.executable, "-m", "acon_nb.cli", "run"]


@pytest.fixture(scope="module")
def surroundings(
    guide_kernel: kernel.KernelImage, store: Cache, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """The guide's variables for its kernel with a shell of busybox."""
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    lines = tree["etc/fstab"].content.read().splitlines(keepends=True)
    tree.add_file("etc/fstab", b"".join(line for line in lines if b"vda@" not in line))
    image = initrd.create(tree, tmp_path_factory.mktemp("shell") / "initrd")
    return {**os.environ, "BIOS": "-", "RD": str(image.path), "M": "256m"}


def run(
    kernel_image: Path, variables: Mapping[str, str], script: bytes, *options: str
) -> subprocess.CompletedProcess[bytes]:
    argv = [*RUN, str(kernel_image), "--timeout", "200", *options]
    return subprocess.run(argv, input=script, capture_output=True, env=dict(variables), check=False, timeout=400)


def test_a_script_on_standard_input_is_typed_as_the_guest_waits_for_it(
    guide_kernel: kernel.KernelImage, surroundings: Mapping[str, str]
) -> None:
    """A prompt, a command that sleeps, a program that reads, bytes that are keys of QEMU's at a terminal."""
    script = b"echo $((6 * 7))\nsleep 1; echo slept\ncat > /tmp/x\n\x01x first\nlast\n\x04wc -l < /tmp/x\npoweroff -f\n"
    done = run(guide_kernel.image, surroundings, script)
    assert done.returncode == 0, done.stdout
    lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines()]
    assert lines.index("42") < lines.index("slept") < lines.index("2")


def test_a_reader_that_does_not_read_does_not_hold_up_the_end(tiny_kernel: Path) -> None:
    argv = [*RUN, str(tiny_kernel), "--timeout", "2"]
    variables = {**os.environ, "BIOS": "-", "RD": "-", "M": "32m", "KA": "", "ACON_NB": ""}
    started = time.monotonic()
    with subprocess.Popen(
        [*argv, "--", "-append", "flood"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=variables
    ) as process:
        assert process.wait(60) == 1
        assert time.monotonic() - started < 60
        assert process.stdout is not None
        assert process.stdout.read(4096)


def test_an_output_that_does_not_block_gets_all_of_it(tiny_kernel: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    variables = {**os.environ, "BIOS": "-", "RD": "-", "M": "32m"}
    argv = [*RUN, str(tiny_kernel), "--timeout", "4", "--", "-append", "flood"]
    errors = tmp_path / "stderr"
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=writer, stderr=stderr, env=variables) as process,
    ):
        os.close(writer)
        time.sleep(2)  # the pipe is full by now
        size = 0
        with os.fdopen(reader, "rb", buffering=0) as file:
            while data := file.read(65536):
                size += len(data)
        assert process.wait(60) == 1
    assert size > room
    text = errors.read_text()
    assert "hang" in text
    assert max(map(len, text.splitlines())) < 2000, "a flood without a line feed"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_change_nothing_of_the_end(tiny_kernel: Path, closed: str, tmp_path: Path) -> None:
    variables = {"PATH": os.environ["PATH"], "BIOS": "-", "RD": "-", "M": "32m", "LC_ALL": "C"}
    variables |= {name: os.environ[name] for name in ("XDG_CACHE_HOME", "HOME", "PYTHONPATH") if name in os.environ}
    shell = ["sh", "-c", f'"$@" {closed}', "sh", *RUN, str(tiny_kernel), "--timeout", "60", "--", "-append", "p"]
    done = subprocess.run(
        shell, stdin=subprocess.DEVNULL, capture_output=True, env=variables, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_qemus_options_need_no_word_as_in_the_guide(tiny_kernel: Path) -> None:
    variables = {**os.environ, "BIOS": "-", "RD": "-", "M": "32m"}
    done = subprocess.run(
        [*RUN, "--timeout", "60", str(tiny_kernel), "-m", "40m", "-append", "p"],
        stdin=subprocess.DEVNULL, capture_output=True, env=variables, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["-m", "1g", "--timeout", "5"], "--timeout comes before the options of QEMU, which begin with -m"),
        (["--timout", "5"], "no such option: --timout; did you mean --timeout?"),
        (["--rtc", "base=utc"], "follow --"),
    ],
)  # fmt: skip
def test_a_mistyped_option_of_ours_is_not_qemus(tiny_kernel: Path, words: list[str], answer: str) -> None:
    variables = {**os.environ, "BIOS": "-", "RD": "-"}
    done = subprocess.run([*RUN, str(tiny_kernel), *words], capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 2
    assert answer in done.stderr
