from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import acon_nb
from acon_nb.cli import main
from tests.unit import bzimages


def call(*argv: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in argv], env=env)


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "init").write_text("#!/bin/sh\n")
    (folder / "init").chmod(0o755)
    return folder


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    result = call(*path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage:")
    assert len(result.stdout.splitlines()) > 3


@pytest.mark.parametrize("group", ["", "bench", "kernel", "initrd", "measure"])
def test_the_help_of_a_group_has_whole_sentences(group: str) -> None:
    text = CliRunner().invoke(main, [*group.split(), "--help"]).output
    listed = text.partition("Commands:")[2]
    assert listed.count("\n") > 3
    assert "..." not in listed


@pytest.mark.parametrize("words", [["measure", "replay"], ["measure", "verify"]])
def test_an_interrupt_ends_a_command_with_130(words: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    argv = [sys.executable, "-m", "acon_nb.cli", *words, str(tmp_path / "never")]
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env) as process:
        writer = os.open(tmp_path / "never", os.O_WRONLY)  # returns when the command reads
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        os.close(writer)
    assert process.returncode == 130
    assert stderr == "acon-nb: interrupted; finished parts are kept\n"


def test_the_version_is_told() -> None:
    assert acon_nb.__version__ in call("--version").stdout


@pytest.mark.parametrize(
    "argv",
    [
        ["no-such-command"],
        ["doctor", "--no-such-option"],
        ["initrd", "from", "busybox"],
        ["bench", "boot", "--kernel", "x", "--clock", "sundial", "--runs", "1"],
        ["bench", "boot", "--kernel", "x", "--clock", "wall", "--runs", "many"],
        ["bench", "swap", "--preset", "huge"],
        ["run", "--machine", "pc"],
        ["run", "--no-such-option"],
        ["disk", "create"],
    ],
)
def test_wrong_usage_ends_with_2(argv: list[str]) -> None:
    result = call(*argv)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["initrd", "from", "ALPINE", "-o", "x.cpio"], "image='ALPINE'"),
        (["initrd", "from", "tar:missing.tar", "-o", "x.cpio"], "missing.tar"),
        (["initrd", "create", "TREE", "x.rar"], "image='x.rar'"),
        (["report", "x.ipynb", "-o", "x.pdf"], "output='x.pdf'"),
        (["report", "missing.ipynb", "-o", "x.html"], "notebook='missing.ipynb'"),
        (["notebooks", "TREE/init/below"], "directory="),
        (["run"], "VMLINUZ='vmlinuz'"),
        (["run", "missing", "--print"], "VMLINUZ='missing'"),
        (["disk", "create", "disk.img", "--size", "1M"], "path='disk.img'"),
        (["disk", "create", "disk.raw"], "size='disk.raw'"),
        (["disk", "create", "disk.raw", "--size", "lots"], "size='lots'"),
        (["disk", "create", "nowhere/1m.raw"], "path='nowhere/1m.raw'"),
        (["kernel", "check", "--profile", "nonsense"], "profile='nonsense'"),
        (["kernel", "build", "--profile", "minimal", "--set", "oops"], "set='oops'"),
        (["kernel", "build", "--profile", "minimal", "--source", "/nowhere"], "source='/nowhere'"),
    ],
)
def test_bad_input_ends_with_2_and_names_its_field(
    argv: list[str], words: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    if argv[0] == "kernel" and not Path("/usr/bin/gcc").exists():
        pytest.skip("the kernel's build tools are not here")
    result = call(*[word.replace("TREE", str(tree)) for word in argv])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("acon-nb: ")
    assert words in result.stderr
    assert "hint:" in result.stderr
    assert os.listdir(tree.parent) == ["tree"]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bzImage's header, an initrd and a disk in the current folder."""
    bzimages.write(tmp_path / "vmlinuz")
    (tmp_path / "initrd").write_bytes(bytes(512))
    (tmp_path / "OVMF.fd").write_bytes(bytes(512))
    monkeypatch.chdir(tmp_path)
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not here")
    return tmp_path / "vmlinuz"


def test_the_guides_variables_make_the_command(kernel: Path) -> None:
    environ = {"VP": "2", "M": "1g", "TCPFWD": "22222:22", "BIOS": "-", "KA": "quiet"}
    said = call("run", "--print", "vmlinuz", "--", "-name", "a b", env=environ)
    assert said.exit_code == 0
    argv = shlex.split(said.stdout)
    assert argv[-2:] == ["-name", "a b"]
    assert {"-smp", "2", "1024M", "ip=dhcp console=hvc0 earlyprintk=ttyS0 quiet"} <= set(argv)
    assert "-bios" not in argv
    told = json.loads(call("run", "--print", "--json", env=environ).stdout)
    assert shlex.split(told["command"]) == told["argv"]


def test_a_td_can_be_looked_at_anywhere(kernel: Path) -> None:
    environ = {"TD": "guest", "BIOS": "OVMF.fd"}
    said = call("run", "--dry-run", env=environ)
    assert said.exit_code == 0
    assert "confidential-guest-support=tdx" in said.stdout
    assert "would be refused: firmware=" in said.stderr
    assert "memory-backend-memfd-private" in call("run", "--print", "--td-flavour", "fork", env=environ).stdout
    told = json.loads(call("run", "--dry-run", "--json", env=environ).stdout)
    assert any("no TDX metadata" in text for text in told["refusals"])


def test_an_explanation_has_each_option_with_the_guides_word(kernel: Path) -> None:
    said = call("run", "--explain", env={"TD": "guest", "BIOS": "OVMF.fd", "RD": "-"}).stdout
    assert "Open: what is kernel_irqchip=split?" in said
    assert "    source: https://www.qemu.org/docs/master/system/i386/tdx.html" in said
    told = json.loads(call("run", "--explain", "--json", env={"BIOS": "-"}).stdout)
    assert {"option", "value", "why", "guide", "today", "source"} == set(told["options"][0])


def test_a_swap_disk_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "16.0 MiB (raw, swap)" in call("disk", "create", "16m.raw", "--swap").stdout
    assert call("disk", "create", "16m.raw").exit_code == 2
    told = json.loads(call("disk", "create", "x.qcow2", "--size", "1G", "--json").stdout)
    assert (told["format"], told["size_bytes"], told["swap"]) == ("qcow2", 1 << 30, False)


def test_a_failure_exits_with_1_and_without_a_traceback(tree: Path) -> None:
    (tree / "init").unlink()
    result = call("initrd", "create", tree)
    assert result.exit_code == 1
    assert "no executable init" in result.stderr
    assert "Traceback" not in result.output


def test_an_initrd_of_a_folder_is_printed_as_one_json_object(tree: Path) -> None:
    image = tree.parent / "out.cpio.gz"
    result = call("initrd", "create", tree, image, "--json")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert said["path"] == str(image)
    assert said["bytes"] == image.stat().st_size
    assert result.stderr == ""


def test_the_guides_way_to_name_and_compress_an_initrd(tree: Path) -> None:
    result = call("initrd", "create", tree, env={"C": "xz"})
    assert result.exit_code == 0
    assert str(tree.parent / "initrd-tree.cpio.xz") in result.stdout
    assert (tree.parent / "initrd-tree.cpio.xz").exists()


def test_warnings_of_an_image_go_to_standard_error(tree: Path) -> None:
    result = call("initrd", "from", f"dir:{tree}", "-o", tree.parent / "x.cpio", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["path"].endswith("x.cpio")
    assert "warning: /bin/sh cannot be run" in result.stderr


def test_a_full_disk_is_said_in_a_sentence(tree: Path, small_disk: Path) -> None:
    (tree / "big").write_bytes(os.urandom(1 << 20))
    result = call("initrd", "create", tree, small_disk / "x.cpio")
    assert result.exit_code == 1
    assert "no space left" in result.stderr


def test_notebooks_are_copied_and_kept(tmp_path: Path) -> None:
    assert "kept" not in call("notebooks", tmp_path / "mine").stdout
    assert "(kept)" in call("notebooks", tmp_path / "mine").stdout


def test_the_doctor_says_one_json_object(tmp_path: Path) -> None:
    result = call("doctor", "--json", env={"XDG_CACHE_HOME": str(tmp_path)})
    said = json.loads(result.stdout)
    assert {"ok", "findings", "environment"} == set(said)
    assert result.exit_code == (0 if said["ok"] else 1)
    for finding in said["findings"]:
        assert finding["state"] in ("ok", "warn", "missing")
        assert finding["what"]
        assert finding["feature"]
        assert finding["fix"] or finding["state"] == "ok" or finding["what"] == "KVM"
    assert said["environment"]["cpu_count"] >= 1


def test_it_runs_as_a_module() -> None:
    argv = [sys.executable, "-m", "acon_nb.cli", "--version"]
    assert acon_nb.__version__ in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_a_kernel_without_a_profile_or_a_config_is_refused() -> None:
    result = call("kernel", "build")
    assert result.exit_code == 2
    assert "profile='': is empty" in result.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ["initrd", "from", "dir:TREE", "-o", "TREE/init/x.cpio"],
        ["initrd", "from", "dir:" + "x" * 5000, "-o", "x.cpio"],
        ["kernel", "diff", "guide", "x" * 5000],
    ],
)
def test_what_the_system_refuses_is_said_by_its_name_and_without_a_traceback(argv: list[str], tree: Path) -> None:
    result = call(*[word.replace("TREE", str(tree)) for word in argv])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.splitlines()[-1].startswith("acon-nb: '")
    assert len(result.stderr.splitlines()[-1]) < 1000


@pytest.mark.parametrize("side", ["", ",", " "])
def test_a_diff_with_nothing_is_refused(side: str) -> None:
    result = call("kernel", "diff", side, "guide")
    assert result.exit_code == 2
    assert "profile=" in result.stderr
