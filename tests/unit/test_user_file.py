from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb import user_file
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.kernel import dotconfig

READING = [
    ["measure", "replay", "FILE"],
    ["measure", "compare", "FILE", "FILE"],
    ["measure", "verify", "FILE"],
    ["measure", "igvm", "FILE"],
    ["measure", "predict", "FILE"],
    ["kernel", "check", "--config", "FILE"],
    ["kernel", "diff", "FILE", "FILE"],
    ["kernel", "unused", "FILE", "--kernel", "FILE"],
    ["bench", "initcalls", "FILE"],
    ["bench", "study", "FILE", "--dry-run"],
    ["bench", "series", "--mbox", "FILE"],
    ["initrd", "check", "FILE"],
    ["initrd", "diff", "FILE", "FILE"],
    ["initrd", "sbom", "FILE"],
    ["report", "--repeat", "FILE"],
]
ODD = ["", "empty", "folder", "noise", "utf-16", "deep.json", "loop", "missing", "nul", "new\nline", "/proc/self/mem"]


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("empty").touch()
    Path("folder").mkdir()
    Path("noise").write_bytes(bytes(range(7, 250)) * 500)
    Path("utf-16").write_text('{"a": 1}\nCONFIG_ZRAM=y\n', encoding="utf-16")
    Path("deep.json").write_text("[" * 200_000)
    Path("loop").symlink_to("loop")
    Path("nul").write_bytes(b"a\0b\n" * 100)
    Path("new\nline").write_text("x")


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize("name", ODD, ids=repr)
@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_no_file_that_is_none_of_its_kind_is_read_in_silence_or_ends_in_a_traceback(
    command: list[str], name: str
) -> None:
    ended = CliRunner().invoke(main, [name if word == "FILE" else word for word in command])
    assert isinstance(ended.exception, SystemExit), ended.exception
    assert ended.exit_code in (1, 2, 4), ended.output
    assert any(word in ended.output for word in ("acon-nb: ", "Usage: ", "error: "))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_a_file_without_end_is_refused_at_its_limit(device: str) -> None:
    with pytest.raises(InvalidInput, match=r"plan='/dev/.*': is larger than 1.0 MiB") as caught:
        user_file.read_text("plan", Path(device), hint="give a plan", most_bytes=1 << 20)
    assert "give a plan" in str(caught.value)


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, "\ufeffCONFIG_ZRAM=y\r\n".encode())
    os.close(writing)
    try:
        assert dotconfig.read_given(Path(f"/dev/fd/{reading}")) == {"ZRAM": "y"}
    finally:
        os.close(reading)


@pytest.mark.parametrize("options", [["bench", "rows", "-o", "x.csv"], ["bench", "memory", "boots"]], ids=" ".join)
@pytest.mark.usefixtures("odd")
def test_a_folder_without_rows_is_not_taken_for_an_answer(options: list[str]) -> None:
    ended = CliRunner().invoke(main, [*options, "--results", "folder"])
    assert ended.exit_code == 2
    assert "has no rows" in ended.output
    assert not Path("x.csv").exists()
