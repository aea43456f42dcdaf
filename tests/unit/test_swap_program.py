"""A program of the user's in a swap cell: what it is given, how it ends, what it prints and reports."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.guest.programs import load_program
from acon_nb.initrd import load
from acon_nb.study.plan import Plan
from acon_nb.swap import SwapFactors, guest_report, program_report
from acon_nb.swap.program import Program, archive, program_of
from acon_nb.vm import End
from tests.unit.test_swap_load import outcome_of

WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=5)


def run_program(place: Path, argv: list[str], *, environment: tuple[str, ...] = (), **more: Any) -> list[dict]:
    """Run a program as a guest would, here; returns what the workload said."""
    cell = place / "cell"
    cell.mkdir()
    (cell / "argv").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))
    (cell / "environment").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in environment))
    for name in ("stdin", "folder", "user"):
        if name in more:
            (cell / name).write_text(more[name])
    told = {"cell_workload": "program", "cell_program_folder": str(cell), "cell_program_ns": str(more.get("ns", 0))}
    command = [str(load_program(Cache())), "run", "none", str(place / "out")]
    subprocess.run(command, env={**os.environ, **told}, capture_output=True, timeout=100, check=False)
    return [json.loads(line) for line in (place / "out").read_text().splitlines()]


def row_of(events: list[dict]) -> dict[str, Any]:
    return guest_report.row_of(SwapFactors(workload="program", program="x"), outcome_of(events))


def end_of(events: list[dict]) -> tuple[End, str]:
    return guest_report.end_of(events, outcome_of(events))


@given(WORDS)
@settings(max_examples=60, deadline=None)
def test_a_list_of_arguments_gets_through_a_plan_as_it_is(words: list[str]) -> None:
    first = ["prog", *words]
    plan = Plan(name="x", study="swap", fixed={"workload": "program", "program": first})
    factors = SwapFactors.of(plan.all_cells[0].levels)
    assert program_of(factors).argv == tuple(word.replace("{bytes}", str(factors.pages * 4096)) for word in first)


def test_lists_are_levels_of_a_factor_and_cells_too() -> None:
    factors = {"program": [["sh", "-c", "echo 'a, b'"], ["true"]]}
    plan = Plan.of({"name": "x", "study": "swap", "factors": factors, "fixed": {"workload": "program"}})
    found = [program_of(SwapFactors.of(cell.levels)).argv for cell in plan.all_cells]
    assert found == [("sh", "-c", "echo 'a, b'"), ("true",)]
    listed = Plan.of({"name": "x", "study": "swap", "cells": [{"workload": "program", "program": ["a b", "c"]}]})
    assert program_of(SwapFactors.of(listed.all_cells[0].levels)).argv == ("a b", "c")


def test_identical_programs_have_identical_bytes_and_a_files_content_counts(tmp_path: Path) -> None:
    conf, store = tmp_path / "my.conf", Cache(tmp_path / "cache")
    conf.write_text("a = 1\n")
    given = Program(argv=("sh", "-c", "echo 'a, b; +\"\\\n'"), files=(("/etc/my.conf", conf),), environment=("A=b c",))
    first = archive(given, cache=store)
    assert archive(given, cache=Cache(tmp_path / "other")).read_bytes() == first.read_bytes()
    assert first.stat().st_size % 512 == 0
    conf.write_text("a = 2\n")
    assert archive(given, cache=store).read_bytes() != first.read_bytes()


@pytest.mark.parametrize(
    ("factor", "value", "reason"),
    [
        ("program", "", "names no program"),
        ("program", "sh -c 'echo", "is not quoted as in a shell"),
        ("program", "a\0b", "NUL"),
        ("program", "-c", "an option"),
        ("program", ["x", "y" * 70_000], "at most 65536"),
        ("environment", "FOO", "is not NAME=VALUE"),
        ("environment", ["1A=b"], "is not NAME=VALUE"),
        ("files", "/etc/passwd", "is not HOST:GUEST"),
        ("files", ["/etc/passwd:../up"], "is not an absolute path"),
        ("files", ["/etc/passwd:/proc/1"], "cannot be a file"),
        ("files", ["/nonexistent:/srv/x"], "does not exist"),
        ("stdin", "/etc", "is not a regular file"),
        ("program_folder", "srv", "is not an absolute path"),
        ("program_user", "a b", "is not USER"),
        ("program_time", "0s", "is not a time above 0"),
    ],
)
def test_what_no_guest_could_be_given_is_refused_by_name(factor: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as error:
        SwapFactors(**{"workload": "program", "program": "true", factor: value})
    assert error.value.field == factor
    if factor != "program":
        with pytest.raises(InvalidInput, match="does not go with workload=tmpfs") as other:
            SwapFactors(**{factor: value})
        assert other.value.field == factor


def test_a_program_gets_its_arguments_environment_input_and_folder(tmp_path: Path) -> None:
    script = 'printf "%s|" "$0" "$@" "$GREETING" "$PWD" "$HOME"; cat; echo "on error" >&2'
    argv = ["/bin/sh", "-c", script, "a, b;+", "c\n'd\"\\"]
    events = run_program(tmp_path, argv, environment=("GREETING=hi, you",), stdin="input\n", folder="/tmp")
    said = program_report.output(events).decode()
    assert said == "a, b;+|c\n'd\"\\|hi, you|/tmp|/root|input\non error\n"
    row = row_of(events)
    assert (row["program_status"], row["program_end"] in ("exited", "at_once")) == (0, True)


def test_the_last_64_kib_are_kept_byte_by_byte(tmp_path: Path) -> None:
    printed = bytes(range(256)) * 800
    events = run_program(tmp_path, ["/bin/sh", "-c", "cat; sleep 0.1"], stdin="")
    assert program_report.output(events) == b""
    (tmp_path / "more").mkdir()
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 800)"
    events = run_program(tmp_path / "more", ["/usr/bin/env", "python3", "-c", code])
    assert program_report.output(events) == printed[-(64 << 10) :]


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (shell("sleep 0.1; exit 3"), "failed", "ended with status 3"),
        (shell("kill -SEGV $$"), "signal", "ended by SIGSEGV"),
        (shell("sleep 0.1"), "exited", ""),
        (["/bin/true"], "at_once", "ended at once"),
        (["/nonexistent/program"], "not_started", "no such program"),
        (["nonexistent-program"], "not_started", "no such program"),
        (["/etc"], "not_started", "may not be executed"),
        (["SCRIPT"], "not_started", "neither a program for this machine nor a script"),
        (["INTERPRETED"], "not_started", "its interpreter"),
        (["DYNAMIC"], "no_library", "lacks a library: libnowhere.so.1"),
    ],
)
def test_each_end_has_its_own_name(tmp_path: Path, argv: list[str], code: str, words: str) -> None:
    if argv[0] in ("SCRIPT", "INTERPRETED", "DYNAMIC"):
        argv = [str(made(tmp_path, argv[0]))]
    events = run_program(tmp_path, argv)
    assert row_of(events)["program_end"] == code
    end, error = end_of(events)
    assert end is End.POWERED_OFF
    assert words in error
    if not words:  # processes of others on this host may come while it runs; a guest has none
        assert not error or "of its processes still running" in error


def test_processes_that_a_program_leaves_behind_are_told() -> None:
    left = {"event": "result", "access_ns": 10**9, "program_status": 0, "program_left": 2}
    assert "with 2 of its processes still running" in program_report.problems([], left)[0]


def made(folder: Path, kind: str) -> Path:
    """A program that cannot run: no program at all, a script whose interpreter is missing, one without its library."""
    path = folder / "program"
    path.write_text("neither\n" if kind == "SCRIPT" else "#!/nonexistent/sh\n")
    if kind == "DYNAMIC":
        (folder / "empty.c").write_text("int nothing(void) { return 0; }")
        (folder / "main.c").write_text("int nothing(void);\nint main(void) { return nothing(); }")
        library = folder / "libnowhere.so.1"
        shared = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, folder / "empty.c"]
        subprocess.run(shared, check=True)
        subprocess.run(["gcc", "-o", path, folder / "main.c", library], check=True)
        library.unlink()
    path.chmod(0o755)
    return path


def test_a_program_that_does_not_end_is_stopped_in_time(tmp_path: Path) -> None:
    events = run_program(tmp_path, shell("sleep 60"), ns=300_000_000)
    row = row_of(events)
    assert (row["program_end"], row["program_signal"]) == ("stopped", signal.SIGTERM)
    assert 0.3e9 <= row["program_elapsed_ns"] < 20e9
    assert "stopped after program_time" in end_of(events)[1]


def test_one_that_reports_its_work_is_stopped_well(tmp_path: Path) -> None:
    events = run_program(tmp_path, shell("while :; do echo op get 10 >&3; sleep 0.05; done"), ns=500_000_000)
    row = row_of(events)
    assert end_of(events) == (End.POWERED_OFF, "")
    assert row["reported_operations"] > 0
    assert row["reported_ops_per_s"] == pytest.approx(row["reported_operations"] * 1e9 / row["reported_elapsed_ns"])


REPORT = """
echo op load 1000000 >&3; echo latency get 1 >&3
echo begin >&3
for i in 1 2 3 4 5 6 7 8 9; do echo latency get 1000; done >&3
echo "latency get 1000000 1" >&3
echo op set 7 >&3; echo op set >&3
sleep 0.1
echo end >&3; echo op set 5 >&3
"""


def test_reported_operations_and_latencies_are_columns(tmp_path: Path) -> None:
    row = row_of(run_program(tmp_path, shell(REPORT)))
    assert (row["reported_operations"], row["reported_lines"], row["reported_invalid"]) == (18, 17, 0)
    assert row["reported_p50_ns"] == pytest.approx(1000, rel=0.03)
    assert row["reported_p999_ns"] == pytest.approx(1_000_000, rel=0.03)
    by_name = json.loads(row["reported"])
    assert by_name["set"] == {"operations": 8}
    assert by_name["get"]["operations"] == 10
    assert "load" not in by_name
    assert row["reported_elapsed_ns"] >= 0.05e9


def test_a_hostile_report_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    lines = [
        b"op", b"op a b", b"op a -1", b"op a 99999999999999999999999", b"latency a", b"latency a 1 0", b"\0\0",
        b'op x"y 1', b"op " + b"n" * 33 + b" 1", b"z" * 5000, b"begin now", b"op a 1 2 3", b"latency \xff 1",
    ]  # fmt: skip
    good = [b"op a 9007199254740992", b"op a 9007199254740992", b"latency b 9007199254740992 9007199254740992"]
    many = [b"op name%d" % number for number in range(40)]
    text = b"\n".join([*lines, *good, *many, b"op unended 3"])
    (tmp_path / "report").write_bytes(text)
    row = row_of(run_program(tmp_path, shell(f"cat {shlex.quote(str(tmp_path / 'report'))} >&3; sleep 0.1")))
    assert row["reported_lines"] == len(lines) + len(good) + len(many)
    assert row["reported_invalid"] == len(lines) + 40 - 14  # 16 names are kept, two were there
    operations = {name: values["operations"] for name, values in json.loads(row["reported"]).items()}
    assert operations["a"] == 1 << 53
    assert row["reported_p50_ns"] == pytest.approx(1 << 53, rel=0.04)


def test_the_archive_has_what_the_guest_reads(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    factors = SwapFactors(
        workload="program",
        program=["tool", "{bytes}"],
        files=[f"{tmp_path}/tool:/usr/bin/tool"],
        stdin=str(tmp_path / "tool"),
        program_user="nobody",
    )
    path = archive(program_of(factors), cache=Cache(tmp_path / "cache"))
    tree = load(path)
    assert tree["acon/cell/argv"].content.read() == b"tool\0" + str(factors.pages * 4096).encode() + b"\0"
    assert tree["acon/cell/places"].content.read() == b"/usr/bin/tool\0"
    assert tree["acon/cell/files/0"].mode & 0o777 == 0o755
    assert tree["acon/cell/user"].content.read() == b"nobody"
    assert "acon/cell/folder" not in tree
