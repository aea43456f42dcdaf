from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from acon_nb import process
from acon_nb.errors import Cancelled, CommandFailed, CommandTimeout, MissingRequirement, NoSpace
from acon_nb.process import Child
from acon_nb.progress import CancelToken

OWNER = """
import sys, time
from acon_nb.process import Child
child = Child(["sh", "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(1000)
"""


def unique_sleep() -> str:
    return f"{random.randrange(10**6, 10**7)}.{os.getpid()}"


def alive(duration: str) -> list[int]:
    """The processes that are `sleep DURATION`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", duration.encode()]:
            found.append(int(path.parent.name))
    return found


def wait_until(true, limit_s: float = 60.0) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_output_and_exit_status() -> None:
    done = process.run(["sh", "-c", "echo one; echo two >&2; exit 3"], check=False)
    assert done.returncode == 3
    assert sorted(done.tail) == ["one", "two"]
    assert process.output(["echo", "grüß dich"]) == "grüß dich\n"


def test_lines_are_streamed_and_an_unfinished_one_counts() -> None:
    lines: list[str] = []
    process.run(["printf", r"one\r\ntwo\n\xff\nlast"], on_line=lines.append)
    assert lines == ["one", "two", "\ufffd", "last"]


def test_arguments_reach_the_program_unchanged() -> None:
    words = ["a b", "$HOME", "*", "'", '"', "; echo no", "", "\n"]
    assert process.run_bytes(["printf", r"%s\0", *words]) == "".join(f"{word}\0" for word in words).encode()


def test_much_output_on_both_streams_does_not_block() -> None:
    script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"
    assert len(process.run_bytes(["sh", "-c", script])) == 300000


def test_standard_input_is_empty_or_as_given() -> None:
    assert process.output(["cat"]) == ""
    assert process.output(["cat"], stdin=b"hello") == "hello"
    assert process.run(["cat"]).tail == ()


def test_folder_and_environment(tmp_path: Path) -> None:
    assert process.output(["pwd"], cwd=tmp_path) == f"{tmp_path}\n"
    assert "ONLY=1" in process.output(["env"], env={"ONLY": "1"}).splitlines()
    assert "HOME=" not in process.output(["env"], env={"ONLY": "1"})


def test_a_failure_shows_the_last_lines_and_a_command_that_can_be_pasted(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo 'it broke' >&2; exit 7"]
    with pytest.raises(CommandFailed) as caught:
        process.run(argv, cwd=tmp_path)
    assert caught.value.returncode == 7
    assert "it broke" in str(caught.value)
    pasted = subprocess.run(["sh", "-c", caught.value.command], capture_output=True, text=True, check=False)
    assert (pasted.returncode, pasted.stderr) == (7, "it broke\n")
    with pytest.raises(CommandFailed, match="it broke"):
        process.output(argv)


def test_a_signal_is_named() -> None:
    with pytest.raises(CommandFailed, match="SIGSEGV") as caught:
        process.run(["sh", "-c", "kill -SEGV $$"])
    assert caught.value.returncode == -signal.SIGSEGV


def test_a_missing_program_is_named() -> None:
    with pytest.raises(MissingRequirement, match="no-such-program-here is missing"):
        process.run(["no-such-program-here"])


def test_a_file_that_is_not_executable_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(PermissionError, match="data"):
        process.run([tmp_path / "data"])
    with pytest.raises(OSError, match="nowhere"):
        process.run(["true"], cwd=tmp_path / "nowhere")


def test_the_log_has_the_whole_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        process.run(["seq", "1000"], log=log)
    assert log.read_text() == 2 * "".join(f"{number}\n" for number in range(1, 1001))
    with pytest.raises(CommandFailed, match=str(log)):
        process.run(["false"], log=log)


def test_a_log_on_a_full_disk_is_reported(small_disk: Path) -> None:
    with pytest.raises(NoSpace, match="small-disk"):
        process.run(["head", "-c", "1000000", "/dev/zero"], log=small_disk / "log")


@pytest.mark.parametrize("call", [process.run, process.output], ids=["run", "output"])
def test_a_time_limit_ends_everything_that_was_started(call) -> None:
    duration = unique_sleep()
    with pytest.raises(CommandTimeout, match=r"did not end within 0\.3 s"):
        call(["sh", "-c", f"echo hello; (setsid sleep {duration} &) ; sleep {duration}"], timeout_s=0.3)
    assert alive(duration) == []


def test_a_cancel_ends_everything_that_was_started() -> None:
    duration, token = unique_sleep(), CancelToken()
    threading.Timer(0.3, token.cancel).start()
    with pytest.raises(Cancelled, match="sh was cancelled"):
        process.run(["sh", "-c", f"setsid sleep {duration} & sleep {duration}"], cancel=token)
    assert alive(duration) == []


def test_a_daemon_left_by_a_finished_program_is_killed() -> None:
    duration = unique_sleep()
    process.run(["sh", "-c", f"setsid sleep {duration} >/dev/null 2>&1 & echo done"])
    assert alive(duration) == []


def test_a_program_that_ignores_sigterm_is_killed() -> None:
    duration = unique_sleep()
    with Child(["sh", "-c", f"trap '' TERM; sleep {duration}; sleep {duration}"]) as child:
        assert wait_until(lambda: alive(duration))
        assert child.poll() is None
        child.terminate()
        assert child.wait(0.3) is None
    assert child.returncode == -signal.SIGKILL
    assert alive(duration) == []


def test_waiting_has_a_limit_and_a_program_can_be_ended_and_killed() -> None:
    for method, number in ((Child.terminate, signal.SIGTERM), (Child.kill, signal.SIGKILL)):
        with Child(["sleep", unique_sleep()]) as child:
            assert child.wait(0.05) is None
            method(child)
            assert child.wait(60) == -number


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_its_owner(number: int) -> None:
    durations = [unique_sleep() for _ in range(3)]
    script = "setsid sleep {} & (setsid setsid sleep {} &) ; sleep {}; true".format(*durations)
    with subprocess.Popen([sys.executable, "-c", OWNER, script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert wait_until(lambda: all(alive(duration) for duration in durations))
        os.kill(owner.pid, number)
    assert wait_until(lambda: not any(alive(duration) for duration in durations))


def test_the_program_dies_with_its_supervisor() -> None:
    duration = unique_sleep()
    with Child(["sleep", duration]) as child:
        assert wait_until(lambda: alive(duration))
        os.kill(parent_of(alive(duration)[0]), signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL
        assert wait_until(lambda: not alive(duration))


def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    process.output(["true"])
    before = count()
    for _ in range(25):
        process.output(["true"])
        with pytest.raises(CommandFailed):
            process.run(["false"])
    with pytest.raises(MissingRequirement):
        process.run(["no-such-program-here"])
    with pytest.raises(OSError, match="nowhere"):
        process.run(["true"], cwd=Path("/nowhere"))
    assert count() == before


def test_the_program_inherits_only_the_given_descriptors() -> None:
    listing = process.output(["ls", "/proc/self/fd"]).split()
    assert set(listing) <= {"0", "1", "2", "3"}  # 3 is ls reading the folder


def test_commands_are_quoted_for_the_shell() -> None:
    with pytest.raises(CommandFailed) as caught:
        process.output(["sh", "-c", "exit 1", "it's", "a b"])
    assert shlex.split(caught.value.command) == ["sh", "-c", "exit 1", "it's", "a b"]


def test_a_program_that_waits_for_its_daemon_to_be_gone_ends() -> None:
    """As fakeroot does: a daemon is reparented to the supervisor, which must reap it as init would."""
    loop = "for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 $pid 2>/dev/null || exit 0; sleep 0.2; done; exit 9"
    script = f"pid=$( (sleep 0.1 >/dev/null & echo $!) ); {loop}"
    assert process.run(["sh", "-c", script], check=False).returncode == 0


def test_a_program_reads_the_file_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one\ntwo\n")
    with (tmp_path / "file").open("rb") as stream:
        assert process.run(["cat"], stdin=stream).tail == ("one", "two")
