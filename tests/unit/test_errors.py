from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from acon_nb import errors
from acon_nb.errors import AconError

ALL = [
    errors.InvalidInput("memory", "12X", "is not a valid size", hint="write 512M"),
    errors.MissingRequirement("gcc", "building a kernel", hint="apt-get install gcc"),
    errors.Cancelled("make was cancelled"),
    errors.NoSpace(Path("/cache/kernel"), "writing stopped"),
    errors.NotWritable(Path("/cache/runs"), PermissionError(13, "Permission denied"), hint="set XDG_CACHE_HOME"),
    errors.CommandFailed(["make", "bzImage"], 2, tail=["boom"], hint="read the log"),
    errors.CommandTimeout(["make", "bzImage"], -9, why="did not end within 3 s", hint="wait longer"),
    errors.BuildFailed("the kernel did not build", hint="read the log"),
    errors.KernelConfigError(
        "1 option was not applied", ["result"], details=["CONFIG_ZRAM wanted y"], hint="set BLOCK"
    ),
    errors.TreeError("'../x' leads out of the tree", hint="remove it"),
    errors.GuestFailed("the guest ended: panic", end="panic", hint="read the console"),
    errors.CannotTell("both ends give the same number", hint="name another metric"),
    errors.WillNotBoot("this TDVF will not boot this kernel: it is unsigned", hint="sign it"),
    errors.ResultsError("x.parquet is damaged", hint="move it away"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_every_error_says_what_and_what_to_do(error: AconError) -> None:
    text = str(error)
    assert text.startswith(error.what)
    assert error.hint
    assert f"hint: {error.hint}" in text
    assert all(line in text for line in error.details)


def test_every_error_of_the_package_is_in_this_test() -> None:
    named = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AconError)}
    assert named - {AconError} == {type(error) for error in ALL}


def test_each_kind_of_error_has_its_exit_status() -> None:
    assert {type(error).__name__ for error in ALL if error.exit_status == 2} == {"InvalidInput"}
    assert {type(error).__name__ for error in ALL if error.exit_status == 3} == {"CannotTell"}
    assert {type(error).__name__ for error in ALL if error.exit_status == 5} == {"WillNotBoot"}
    assert {error.exit_status for error in ALL} == {1, 2, 3, 5}


def test_invalid_input_names_field_value_and_reason() -> None:
    text = str(ALL[0])
    assert "memory" in text
    assert "12X" in text
    assert "is not a valid size" in text
    assert isinstance(ALL[0], ValueError)


def test_a_long_value_is_truncated_and_a_path_is_shown_as_text() -> None:
    assert len(str(errors.InvalidInput("append", "x" * 5000, "is too long"))) < 300
    assert "kernel='/boot/x'" in str(errors.InvalidInput("kernel", Path("/boot/x"), "is not a file"))


def test_a_failed_command_shows_status_output_log_and_a_line_to_paste() -> None:
    error = errors.CommandFailed(["make", "V=a b"], 2, tail=["boom"], cwd=Path("/my src"), log=Path("/tmp/build.log"))
    text = str(error)
    assert "make failed with exit status 2" in text
    assert "boom" in text
    assert "/tmp/build.log" in text
    assert "cd '/my src' && make 'V=a b'" in text


@pytest.mark.parametrize(
    ("status", "words"), [(-9, "SIGKILL"), (-11, "SIGSEGV"), (-64, "SIGRTMAX"), (-99, "signal 99")]
)
def test_a_signal_is_named(status: int, words: str) -> None:
    assert words in str(errors.CommandFailed(["qemu"], status))


def test_no_space_names_the_path() -> None:
    assert "/cache/kernel" in str(ALL[3])


@pytest.mark.parametrize("error", [errors.TreeError("x", hint="y"), errors.BuildFailed("x", details=["z"])])
def test_a_plain_error_keeps_its_text_when_copied_between_processes(error: AconError) -> None:
    assert pickle.loads(pickle.dumps(error)).what == error.what
