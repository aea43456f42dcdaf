"""A question about an image: what is asked, what is run of the image, its archive, what was measured, the plan."""

from __future__ import annotations

import base64
import errno
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.archive.tree import FileTree
from acon_nb.cache import Cache
from acon_nb.cli import main
from acon_nb.cli.image import gathered, question_of
from acon_nb.errors import InvalidInput
from acon_nb.initrd import load, tree_of
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.image import observations
from acon_nb.swap.image.archive import ImageArchive, pack
from acon_nb.swap.image.measure import _refuse
from acon_nb.swap.image.observations import MeasuredProgram, of_messages, pages_of
from acon_nb.swap.image.plan import places, plan_of
from acon_nb.swap.image.pool import HUGE_BYTES, pool_bytes
from acon_nb.swap.image.question import ImageQuestion, available_of, words_of
from acon_nb.swap.image.running import Running, running_of
from acon_nb.swap.image.study import image_study
from tests.unit.image_archives import AMD64, packed, saved_image

MIB = 1 << 20
OWN = {"--at", "--json", "--seeds", "--command", "--driver"}
START = {"event": "image-start", "meminfo_kib": {"MemAvailable": 400 << 10}}


def end_event(**more: Any) -> dict[str, Any]:
    event = {
        "event": "image-end", "t_ns": 10**9, "why": "exit", "status": 0, "ready_ns": 0, "driver_ns": 0,
        "program_peak": 200 * MIB, "program_oom_kills": 0, "driver_peak": -1, "driver_oom_kills": -1, "failed": "",
        "output": "",
    }  # fmt: skip
    return event | more


def found(**more: Any) -> MeasuredProgram:
    made = of_messages([START, end_event(**more)], memory_bytes=512 * MIB, image_bytes=20 * MIB)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": ""}, "image=''"),
        ({"at": ("1.2.3x",)}, "neither a share nor a size"),
        ({"at": ("0x",)}, "0.01x to 8x"),
        ({"at": ("4K",)}, "leaves 4096 bytes"),
        ({"at": ()}, "at=''"),
        ({"at": ("1x", "1x")}, "a share twice"),
        ({"at": ("0.5x", "0.50x")}, "a share twice"),
        ({"setups": ("none", "disk", "none")}, "a set-up twice"),
        ({"driver": ("client",)}, "needs ready"),
        ({"ready": "port:1"}, "is for a server with a driver"),
        ({"driver": ("client",), "ready": "port:70000"}, "is not a port"),
        ({"driver": ("client",), "ready": "up", "run_for": "3s"}, "does not go with driver"),
        ({"run_for": "soon"}, "is not a time"),
        ({"limit": "0s"}, "not a time above 0"),
        ({"seeds": 0}, "seeds=0"),
        ({"clock": "sun"}, "clock='sun'"),
    ],
)
def test_a_question_that_cannot_be_asked_names_its_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as error:
        ImageQuestion(**{"image": "busybox", **fields})
    assert words in str(error.value)
    assert error.value.hint


@given(st.floats(0.05, 8, allow_nan=False), st.integers(100 * MIB, 1 << 34))
@settings(max_examples=100, deadline=None)
def test_a_share_is_that_of_the_peak_in_whole_pages(share: float, peak: int) -> None:
    text = f"{share:.3f}x"
    size = available_of(text, peak)
    assert size % 4096 == 0
    assert -1 <= float(text[:-1]) * peak - size < 4097


def test_a_size_is_taken_as_it_is() -> None:
    assert available_of("256M", 1) == 256 * MIB


def test_a_studys_name_is_a_folder_whatever_the_image_is_called() -> None:
    for image in ("docker-archive:/tmp/My Image.tar", "registry:5000/a/b@sha256:00", "dir:/", "///", "é"):
        name = ImageQuestion(image=image).name
        assert name.isascii()
        assert "/" not in name
        assert name.startswith("image-")


def test_a_command_takes_the_words_up_to_the_next_own_option() -> None:
    args = ["--command", "redis-server", "--save", "", "--at", "0.5x", "--driver", "a", "b c", "--json"]
    assert gathered(args, OWN) == [
        "--command", '["redis-server", "--save", ""]', "--at", "0.5x", "--driver", '["a", "b c"]', "--json",
    ]  # fmt: skip
    assert gathered(["--json", "--command", "--", "x", "--at", "1x"], OWN)[-1] == '["x", "--at", "1x"]'
    assert gathered(["--command=sh -c 'echo a'"], OWN) == ["--command", "[\"sh -c 'echo a'\"]"]


def test_one_text_is_taken_apart_as_a_shell_does() -> None:
    asked = question_of("busybox", command=json.dumps(["sh -c 'echo a  b'"]), at="0.5x, 1x", seeds=None)
    assert asked.command == ("sh", "-c", "echo a  b")
    assert asked.at == ("0.5x", "1x")
    assert asked.seeds == 5
    assert words_of("command", ("a b", "c")) == ("a b", "c")
    with pytest.raises(InvalidInput, match="not quoted"):
        words_of("command", ("sh -c 'x",))


def test_the_command_line_refuses_what_goes_not_together(tmp_path: Path) -> None:
    def run(*words: str, status: int = 2) -> str:
        result = CliRunner().invoke(main, ["bench", "swap", "--out", str(tmp_path), *words])
        assert result.exit_code == status
        return result.output

    assert "one of the three" in run("--image", "busybox", "--preset", "smoke")
    assert "is for --image" in run("--preset", "smoke", "--at", "0.5x")
    assert "--seeds" in run("--image", "busybox", "--runs", "3")
    assert "does not exist" in run("--image", "dir:/no/such/folder", "--command", "-l", "--at", "1x")


def tree_with(**config: Any) -> FileTree:
    tree = FileTree()
    tree.add_file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nredis:x:999:998::/data:/bin/sh\n")
    tree.add_file("etc/group", b"root:x:0:\nredis:x:998:\nextra:x:77:redis,other\n")
    tree.config = config
    return tree


def test_an_images_configuration_is_followed_as_docker_run_does() -> None:
    config = {
        "Entrypoint": ["entry", "-x"], "Cmd": ["serve"], "Env": ["PATH=/own", "A=1"], "User": "redis",
        "WorkingDir": "/data",
    }  # fmt: skip
    run = running_of(tree_with(**config), environment=("A=2",))
    assert run.argv == ("entry", "-x", "serve")
    assert set(run.environment) >= {"PATH=/own", "A=2", "HOME=/data"}
    assert (run.uid, run.gid, run.groups, run.folder) == (999, 998, (77,), "/data")
    assert running_of(tree_with(**config), command=("other",)).argv == ("entry", "-x", "other")
    assert running_of(tree_with(**config), argv=("whole",)).argv == ("whole",)
    assert running_of(tree_with(Cmd=["a"], User="5:extra")).gid == 77


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "the image names none"),
        ({"Cmd": ["a"], "User": "nobody-knows"}, "does not have"),
        ({"Cmd": ["a"], "User": "redis:nobody-knows"}, "does not have"),
        ({"Cmd": "a", "Entrypoint": 7}, "the image names none"),
        ({"Cmd": ["a"], "WorkingDir": "/etc/passwd"}, "/etc/passwd in it is not a folder"),
        ({"Cmd": ["a"], "WorkingDir": "/etc/passwd/x"}, "/etc/passwd in it is not a folder"),
        ({"Entrypoint": [""], "Cmd": ["a"]}, "its first word is empty"),
        ({"Cmd": ["a"], "Env": ["A=" + "x" * 131069, "B=" + "y" * 131070]}, r"'B=yy.*less than 128 KiB"),
        ({"Cmd": ["a"], "Env": [f"V{one}=" + "y" * 1000 for one in range(300)]}, "environment.*a guest is given 255"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        running_of(tree_with(**config))


@pytest.mark.parametrize("kernel", ["/no/such/bzImage", ".", "debian"])
def test_a_kernel_that_is_not_there_is_named_before_the_image_is_read(kernel: str) -> None:
    with pytest.raises(InvalidInput, match=r"kernel=.*is not a file") as error:
        image_study(ImageQuestion(image="dir:/no/such/folder", command=("a",), kernel=kernel))
    assert "debian:SERIES" in error.value.hint


def test_words_as_long_as_linux_takes_them_are_given() -> None:
    assert running_of(tree_with(Cmd=["a", "x" * 131071])).argv[1] == "x" * 131071


def test_the_folder_to_start_in_is_made_as_an_engine_does(cache: Cache) -> None:
    tree = tree_with(Cmd=["a"], WorkingDir="/srv//app/../new/")
    assert running_of(tree).folder == "/srv/new"
    pack(tree, cache=cache)
    assert tree.has_folder("srv/new")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_any_words_get_to_the_guest_as_they_are(words: list[str]) -> None:
    text = Running(argv=tuple(words)).description()
    pairs = [item.partition(b"=") for item in text.split(b"\0")[:-1]]
    assert [os.fsdecode(value) for name, _, value in pairs if name == b"arg"] == words


def test_a_saved_image_has_its_configuration(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    entry, _ = saved_image(files, "mine", **AMD64, config={"Cmd": ["/bin/a"], "Env": ["B=1"]})
    files["manifest.json"] = json.dumps([entry]).encode()
    tree = tree_of(f"docker-archive:{packed(files, tmp_path / 'a.tar')}")
    assert tree.config == {"Cmd": ["/bin/a"], "Env": ["B=1"]}
    assert running_of(tree).argv == ("/bin/a",)


def test_an_images_links_lead_nowhere_but_into_the_image(cache: Cache, tmp_path: Path) -> None:
    del cache
    tree = FileTree()
    tree.add_symlink("etc", "/acon")
    tree.add_symlink("tmp", "/init")
    tree.add_dir("acon")
    tree.add_file("init", b"mine")
    packed = pack(tree, cache=Cache())
    inside = load(packed.path)
    assert {name.split(b"/")[0] for name, _ in inside.items()} == {b"image", b"acon"}
    assert inside.get(b"image/acon/hosts") is not None
    assert inside.get(b"acon/hosts") is None
    assert packed.memory_bytes % 4096 == 0
    del tmp_path


def test_pages_that_were_damaged_on_their_way_are_refused() -> None:
    data = bytes(range(256)) * 16
    event = {"event": "image-pages", "count": 1, "crc32": zlib.crc32(data), "data": base64.b64encode(data).decode()}
    assert pages_of([START, event]) == data
    for wrong in ({"crc32": 1}, {"count": 2}, {"data": "?"}, {"data": base64.b64encode(data[:-1]).decode()}):
        with pytest.raises(ValueError, match="pages"):
            pages_of([{**event, **wrong}])


def test_what_was_measured_reads_back_as_it_was_written(tmp_path: Path) -> None:
    stat = {"anon": 1, "file": 2, "kernel": 3}
    window = {
        "event": "image-watch",
        "t_ns": 5,
        "window_ns": 4,
        "current": 9,
        "touched": 7,
        "resident": 8,
        "stat": stat,
    }
    sample = {"event": "image-sample", "t_ns": 1, "current": 2, "anon": 3, "shared": 4, "file": 5, "data": 6, "same": 7}
    events = [START, window, {**window, "touched": 17}, end_event(), {**sample, "zero": 8, "lost": 0}]
    made = of_messages(events, memory_bytes=512 * MIB, image_bytes=0)
    assert made is not None
    made.save(tmp_path)
    assert MeasuredProgram.load(tmp_path) == made
    assert made.working_set_bytes == 12
    gone = of_messages(
        [*events[:3], {**window, "touched": 0, "resident": 0}, *events[3:]], memory_bytes=0, image_bytes=0
    )
    assert gone is not None
    assert gone.working_set_bytes == 12
    assert made.base_bytes == 512 * MIB - 8 * MIB - 400 * MIB
    assert observations.of_messages([START], memory_bytes=1, image_bytes=0) is None


def test_without_memory_peak_the_samples_give_it() -> None:
    stat = {"anon": 0, "file": 0, "kernel": 0}
    window = {"event": "image-watch", "t_ns": 5, "window_ns": 4, "current": 9 * MIB, "touched": 0, "resident": 0}
    made = of_messages([START, {**window, "stat": stat}, end_event(program_peak=-1)], memory_bytes=MIB, image_bytes=0)
    assert made is not None
    assert (made.peak_bytes, made.peak_from) == (9 * MIB, "samples")


@pytest.mark.parametrize(
    ("event", "running", "words"),
    [
        ({"failed": "the command (nope): No such file", "status": 127 << 8}, {}, "does not start: the command (nope)"),
        ({"why": "limit"}, {}, "has not ended after 1.00 s of the guest's time"),
        ({"status": 3 << 8}, {}, "ended with status 3"),
        ({"status": 6}, {}, "ended with SIGABRT"),
        ({"status": 1 << 8, "output": "wget: bad address 'example.org'\n"}, {}, "needs the network"),
        ({"program_peak": 600 << 10}, {}, "there is nothing to compress"),
        ({}, {"driver": ("client",), "ready": "up"}, "was never ready"),
        ({"ready_ns": 5}, {"driver": ("client",), "ready": "up"}, "ended before its driver did"),
        (
            {"why": "driver", "ready_ns": 5, "status": 256},
            {"driver": ("c",), "ready": "up"},
            "driver='c': ended with status 1",
        ),
        (
            {"why": "driver", "ready_ns": 5, "failed": "the command (c): No such file", "status": 127 << 8},
            {"driver": ("c", "-x"), "ready": "up"},
            "driver='c -x': does not start: the command (c)",
        ),
        ({"failed": "the command (/bin/thing)"}, {"driver": ("c",), "ready": "up"}, "command='/bin/thing x': does not"),
    ],
)
def test_a_run_that_answers_nothing_is_refused_by_its_reason(
    event: dict[str, Any], running: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        _refuse(found(**event), Running(argv=("/bin/thing", "x"), **running))
    assert words in str(error.value)
    assert error.value.hint
    for line in event.get("output", "").splitlines():
        assert line in error.value.details


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOEXEC, "of another processor"), (errno.ENOENT, "loader"), (errno.EACCES, "modes")]
)
def test_a_command_that_does_not_start_has_a_way_out_for_its_reason(number: int, words: str) -> None:
    with pytest.raises(InvalidInput) as error:
        _refuse(found(failed=f"the command (x): {os.strerror(number)}", status=127 << 8), Running(argv=("x",)))
    assert words in error.value.hint


def test_a_good_run_is_not_refused() -> None:
    _refuse(found(), Running(argv=("a",)))
    _refuse(found(why="for"), Running(argv=("a",), for_ns=5))
    _refuse(found(why="driver", ready_ns=4), Running(argv=("a",), driver=("b",), ready="up"))


def test_the_plan_has_each_set_up_at_each_share_and_one_without_a_limit(tmp_path: Path) -> None:
    asked = ImageQuestion(image="busybox", at=("0.5x", "1x"), setups=("none", "zram-lz4"), seeds=3, run_for="2s")
    (tmp_path / "image.cpio").write_bytes(b"x")
    image = ImageArchive(path=tmp_path / "image.cpio", memory_bytes=20 * MIB)
    plan = plan_of(asked, found(), Running(argv=("sh", "-c", "a b")), image, room_bytes=30 * MIB)
    assert plan.runs == 3
    factors = [SwapFactors.of(cell.levels) for cell in plan.all_cells]
    assert [(one.setup, one.available_bytes // MIB) for one in factors] == [
        ("none", 100), ("zram-lz4", 100), ("none", 200), ("zram-lz4", 200), ("none", 300),
    ]  # fmt: skip
    assert {one.program for one in factors} == {"sh -c 'a b'"}
    half, unlimited = factors[0], factors[-1]
    # what a guest takes without the program, and the kernel's 64 bytes for each page frame
    assert half.memory_bytes * 63 // 64 - 100 * MIB >= found().base_bytes
    assert unlimited.memory_bytes > half.memory_bytes
    assert half.swap_bytes > 200 * MIB
    assert plan.baseline_label == plan.all_cells[-1].label


def test_a_drivers_memory_comes_on_top() -> None:
    asked = ImageQuestion(image="busybox", at=("0.5x",))
    where = places(asked, found(driver_peak=30 * MIB))
    assert [place.available_bytes // MIB for place in where] == [130, 330]


def test_a_guest_has_room_for_the_tables_of_its_swap_however_large_the_program() -> None:
    """What swap-study asks for at last is what is available and 2 MiB, after the largest swap has been set up."""
    program = replace(found(), peak_bytes=12 << 30)
    place, *_ = places(ImageQuestion(image="busybox", at=("0.5x",)), program)
    guest = place.memory_bytes * 63 // 64
    tables = 28 * max(2 * place.memory_bytes, program.peak_bytes) // 4096
    assert guest - program.base_bytes - tables >= place.available_bytes + 2 * MIB


def test_a_pool_takes_what_zsmalloc_takes_for_a_page() -> None:
    # classes of Linux 6.12 with chains of 8 pages: bytes, pages of a block, objects in it
    for size, pages, objects in ((1084, 3, 11), (2040, 1, 2), (3600, 8, 9), (3625, 1, 1), (4096, 1, 1), (20, 1, 128)):
        assert pool_bytes(size) == pytest.approx(4096 * pages / objects)
    sizes = [pool_bytes(size) for size in range(1, 4097)]
    assert sizes == sorted(sizes)
    assert all(taken >= min(4096, size + 8) for size, taken in enumerate(sizes, 1))
    assert pool_bytes(HUGE_BYTES) == 4096 > pool_bytes(HUGE_BYTES - 1)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"image": "busybox", "packages": "sed"}, "does not go with image"),
        ({"available": "64M"}, "is for the program of an image"),
        ({"image": "busybox", "driver": "a"}, "ready"),
        ({"image": "busybox", "driver": "a", "ready": "port:1", "program_time": "3s"}, "does not go with driver"),
        ({"image": "busybox", "available": "much"}, "available"),
    ],
)
def test_levels_that_do_not_go_together_are_refused(levels: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        SwapFactors(workload="program", program="ls", **levels)
