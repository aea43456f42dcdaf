"""Exports of profiles, read back by callgrind_annotate, protobuf, `go tool pprof` and by speedscope's schema."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from acon_nb.profile import FunctionCount, Profile, Region, exports
from acon_nb.profile.frames import Frame, function_stacks_of, stacks_of

DATA = Path(__file__).parent / "data"
HOSTILE = 'evil;name\n<script>alert("x")</script> 99'
FUNCTIONS = (
    FunctionCount(name="[firmware]", phase="firmware", self_count=1000, region=Region.FIRMWARE),
    FunctionCount(name="start_kernel", phase="init", self_count=40, file="init/main.c"),
    FunctionCount(name="get_page", phase="init", self_count=300, file="mm/page_alloc.c"),
    FunctionCount(name="memset", phase="init", self_count=60, file="arch/x86/lib/memset_64.S"),
    FunctionCount(name="get_page", phase="ready", self_count=70, file="mm/page_alloc.c"),
    FunctionCount(name="crc", phase="ready", self_count=20, file="lib/crc.ko", region=Region.MODULE),
    FunctionCount(name=HOSTILE, phase="ready", self_count=5, file="/bin/busybox", region=Region.USER),
)
FLAT = Profile(total=1500, phases=("firmware", "init", "ready"), functions=FUNCTIONS, origin={"kernel": "vmlinuz-6.12"})
CALLED = Profile(
    total=1500,
    phases=FLAT.phases,
    functions=FUNCTIONS,
    stacks={
        ("init", "start_kernel"): 40,
        ("init", "start_kernel", "get_page"): 290,
        ("init", "start_kernel", "get_page", "memset"): 50,
        ("init", "start_kernel", "memset"): 10,
        ("ready", "get_page"): 70,
    },
)


@pytest.fixture(params=[FLAT, CALLED], ids=["flat", "called"])
def profile(request: pytest.FixtureRequest) -> Profile:
    one: Profile = request.param
    return one


def self_counts(profile: Profile) -> Counter[str]:
    """Instructions by name and phase, as any tool has to show them."""
    counts: Counter[str] = Counter()
    for function in profile.functions:
        counts[function.name] += function.self_count
    counts["[unattributed]"] += profile.unattributed
    return counts


def readable(name: str) -> str:
    return name.replace("\n", " ")


# --- stacks ---


def test_all_stacks_add_up_to_the_total(profile: Profile) -> None:
    assert sum(stacks_of(profile).values()) == profile.total
    leaves: Counter[str] = Counter()
    for stack, count in function_stacks_of(profile).items():
        leaves[stack[-1].name] += count
    assert leaves == self_counts(profile)


def test_a_flat_profile_is_stacked_by_region_folder_and_file() -> None:
    names = {"/".join(frame.name for frame in stack): count for stack, count in stacks_of(FLAT).items()}
    assert names["init/[kernel]/arch//x86//lib//memset_64.S/memset"] == 60
    assert names["firmware/[firmware]"] == 1000
    assert names["[unattributed]"] == 5
    assert names[f"ready/[user]//bin/busybox/{HOSTILE}"] == 5


def test_a_function_whose_calls_are_known_in_part_is_complete() -> None:
    names = {tuple(frame.name for frame in stack): count for stack, count in stacks_of(CALLED).items()}
    assert names["init", "start_kernel", "get_page"] == 290
    assert names["init", "[kernel]", "mm/", "page_alloc.c", "get_page"] == 10
    called = {frame for stack in stacks_of(CALLED) for frame in stack if frame.name == "memset"}
    assert called == {Frame("memset", "arch/x86/lib/memset_64.S", Region.KERNEL)}


def test_more_counted_than_executed_adds_nothing() -> None:
    repeated = Profile(total=1400, phases=FLAT.phases, functions=FUNCTIONS)
    assert repeated.unattributed == -95
    assert sum(stacks_of(repeated).values()) == 1495


def test_phases_are_in_their_order() -> None:
    assert list(dict.fromkeys(stack[0].name for stack in stacks_of(FLAT))) == [*FLAT.phases, "[unattributed]"]


# --- folded ---


def test_folded_stacks_read_back_as_the_same(profile: Profile) -> None:
    text = exports.folded(profile).decode()
    read: Counter[str] = Counter()
    for line in text.splitlines():
        match = re.fullmatch(r"(.*) (\d+)", line)  # as flamegraph.pl does
        assert match, line
        read[match[1].split(";")[-1]] += int(match[2])
    expected = {readable(name).replace(";", ":"): count for name, count in self_counts(profile).items()}
    assert read == expected


def test_folded_stacks_of_calls_begin_with_the_phase() -> None:
    assert "init;start_kernel;get_page;memset 50\n" in exports.folded(CALLED).decode()


# --- speedscope ---


def test_speedscope_files_follow_its_schema_and_hold_all_counts(profile: Profile) -> None:
    values = json.loads(exports.speedscope(profile))
    jsonschema.validate(values, json.loads((DATA / "speedscope-schema.json").read_text()))
    every, *phases = values["profiles"]
    assert every["endValue"] == sum(every["weights"]) == profile.total
    assert sum(one["endValue"] for one in phases) == profile.total
    frames = values["shared"]["frames"]
    leaves: Counter[str] = Counter()
    for sample, weight in zip(every["samples"], every["weights"], strict=True):
        leaves[frames[sample[-1]]["name"]] += weight
    assert leaves == self_counts(profile)


# --- pprof ---

NUMBER, TEXT, FLAG = "int64", "string", "bool"
PROTO = {  # https://github.com/google/pprof/blob/main/proto/profile.proto; "*" is repeated
    "Profile": {1: "sample_type *ValueType", 2: "sample *Sample", 3: "mapping *Mapping", 4: "location *Location",
                5: "function *Function", 6: "string_table *string", 7: "drop_frames int64", 8: "keep_frames int64",
                9: "time_nanos int64", 10: "duration_nanos int64", 11: "period_type ValueType", 12: "period int64",
                13: "comment *int64", 14: "default_sample_type int64"},
    "ValueType": {1: "type int64", 2: "unit int64"},
    "Sample": {1: "location_id *uint64", 2: "value *int64", 3: "label *Label"},
    "Label": {1: "key int64", 2: "str int64", 3: "num int64", 4: "num_unit int64"},
    "Mapping": {1: "id uint64", 2: "memory_start uint64", 3: "memory_limit uint64", 4: "file_offset uint64",
                5: "filename int64", 6: "build_id int64", 7: "has_functions bool", 8: "has_filenames bool",
                9: "has_line_numbers bool", 10: "has_inline_frames bool"},
    "Location": {1: "id uint64", 2: "mapping_id uint64", 3: "address uint64", 4: "line *Line", 5: "is_folded bool"},
    "Line": {1: "function_id uint64", 2: "line int64"},
    "Function": {1: "id uint64", 2: "name int64", 3: "system_name int64", 4: "filename int64", 5: "start_line int64"},
}  # fmt: skip


def decoded(data: bytes) -> Any:
    """The message, read by Google's library."""
    field = descriptor_pb2.FieldDescriptorProto
    types = {name: getattr(field, f"TYPE_{name.upper()}") for name in ("int64", "uint64", "string", "bool")}
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="p", syntax="proto3")
    for name, fields in PROTO.items():
        message = file.message_type.add(name=name)
        for number, text in fields.items():
            called, kind = text.split()
            one = message.field.add(name=called, number=number)
            one.label = field.LABEL_REPEATED if kind.startswith("*") else field.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            one.type = types.get(kind, field.TYPE_MESSAGE)
            if kind not in types:
                one.type_name = f".p.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    parsed = message_factory.GetMessageClass(pool.FindMessageTypeByName("p.Profile"))()
    parsed.ParseFromString(gzip.decompress(data))
    return parsed


def test_pprof_files_decode_to_the_same_counts_by_function_and_phase(profile: Profile) -> None:
    message = decoded(exports.WRITERS["pprof"](profile))
    texts = list(message.string_table)
    assert texts[0] == ""
    assert not message.FindInitializationErrors()
    assert [(texts[one.type], texts[one.unit]) for one in message.sample_type] == [("instructions", "count")]
    functions = {one.id: one for one in message.function}
    locations = {one.id: functions[one.line[0].function_id] for one in message.location}
    assert {one.mapping_id for one in message.location} <= {one.id for one in message.mapping}
    counts: Counter[tuple[str, str, str]] = Counter()
    for sample in message.sample:
        leaf = locations[sample.location_id[0]]
        ((key, phase),) = [(texts[label.key], texts[label.str]) for label in sample.label]
        assert key == "phase"
        counts[texts[leaf.name], texts[leaf.filename], phase] += sample.value[0]
    expected = Counter({(one.name, one.file, one.phase): one.self_count for one in profile.functions})
    expected["[unattributed]", "", "[unattributed]"] = profile.unattributed
    assert counts == expected


def test_pprof_reads_the_file(tmp_path: Path, profile: Profile) -> None:
    if shutil.which("go") is None:
        pytest.skip("go is missing: apt-get install golang-go")
    exports.save(profile, {"pprof": tmp_path / "profile.pb.gz"})
    argv = ["go", "tool", "pprof", "-top", "-nodecount=100", "-nodefraction=0", str(tmp_path / "profile.pb.gz")]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "of 1500 total" in text
    rows = {line.split()[-1]: line.split() for line in text.splitlines() if re.match(r" +\d", line)}
    assert rows["get_page"][0] == "370"
    assert rows["start_kernel"][3] == ("390" if profile.stacks else "40")


# --- callgrind ---


@pytest.fixture
def annotate(tmp_path: Path) -> Any:
    """`annotate(profile, OPTION...)`: what callgrind_annotate prints."""
    if shutil.which("callgrind_annotate") is None:
        pytest.skip("callgrind_annotate is missing: apt-get install valgrind")

    def run(profile: Profile, *options: str) -> str:
        exports.save(profile, {"callgrind": tmp_path / "callgrind.out"})
        argv = ["callgrind_annotate", "--threshold=100", "--auto=no", *options, str(tmp_path / "callgrind.out")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def rows_of(text: str) -> dict[str, list[int]]:
    """The counts of each line of callgrind_annotate's table, by "file:function [object]"."""
    rows = {}
    for line in text.splitlines():
        cells = re.match(r"((?: *(?:[\d,]+|\.) (?:\([ \d.]+%\))? ?)+) +(\S.*)", line)
        if cells:
            counts = re.sub(r"\(.*?\)|,", "", cells[1]).split()
            rows[cells[2]] = [0 if count == "." else int(count) for count in counts]
    return rows


def test_callgrind_annotate_shows_the_counts_by_phase(annotate: Any, profile: Profile) -> None:
    text = annotate(profile)
    rows = rows_of(text)
    assert rows["PROGRAM TOTALS"] == [1500, 1000, 400, 95, 5]
    assert rows["mm/page_alloc.c:get_page [kernel]"] == [370, 0, 300, 70, 0]
    assert rows["lib/crc.ko:crc [module]"] == [20, 0, 0, 20, 0]


def test_callgrind_annotate_shows_what_functions_call(annotate: Any) -> None:
    text = annotate(CALLED, "--inclusive=yes", "--show=Ir")
    assert rows_of(text)["init/main.c:start_kernel [kernel]"] == [390]
    assert rows_of(text)["mm/page_alloc.c:get_page [kernel]"] == [420]


# --- all ---


def test_the_same_profile_makes_the_same_bytes(profile: Profile, tmp_path: Path) -> None:
    for name, write in exports.WRITERS.items():
        assert write(profile) == write(profile)
        exports.save(profile, {name: tmp_path / name})
        assert (tmp_path / name).read_bytes() == write(profile)


def test_an_empty_profile_is_written_in_all_formats() -> None:
    empty = Profile(total=0, phases=(), functions=())
    for write in exports.WRITERS.values():
        assert isinstance(write(empty), bytes)
