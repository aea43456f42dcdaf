"""Each row of the hints' table against what the guide's kernel really prints."""

from __future__ import annotations

import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from acon_nb import vm
from acon_nb.kernel import KernelImage
from acon_nb.vm import diagnosis
from tests.system import initrd_cases as cases
from tests.system.initrd_cases import Case, Parts

pytestmark = pytest.mark.system
OFTEN = ("tmpfs full", "no interpreter")  # the others once a week


def _static(parts: Parts, pack: str = "", **fields: object) -> Case:
    case = Case("static", pack=pack, **fields)  # type: ignore[arg-type]
    case.put("init", parts.off)
    return case


def _full(parts: Parts, mib: int, append: str = "") -> Case:
    case = Case("full", pack="zst", append=append)
    case.put("big", bytes(mib << 20))
    case.put("init", parts.off)
    return case


def _cut(parts: Parts) -> Case:
    case = _static(parts, "gz")
    case.put("big", random.Random(1).randbytes(1 << 20))
    case.entries.reverse()
    case.change = lambda data: data[: len(data) // 2]
    return case


def _mode(parts: Parts) -> Case:
    case = _static(parts)
    case.edit("init", mode=stat.S_IFREG | 0o644)
    return case


def _scripts(parts: Parts) -> Case:
    return _text(b"#!/init\n")


def _text(data: bytes, append: str = "") -> Case:
    case = Case("text", append=append)
    case.put("init", data)
    return case


def _shell(parts: Parts, text: bytes) -> Case:
    case = Case("shell")
    case.put("bin/busybox", parts.shell)
    case.link("bin/sh", "busybox")
    case.put("init", b"#!/bin/sh\n" + text)
    return case


def _library(parts: Parts, make: Callable[[Parts, random.Random], Case]) -> Case:
    case = make(parts, random.Random(1))
    if make is cases.dynamic:
        name = next(entry[0] for entry in case.entries if entry[0].endswith("libtwo.so"))
        case.drop(name)
    return case


def _cut_program(parts: Parts) -> Case:
    case = _shell(parts, b"")
    case.edit("bin/busybox", lambda data: data[: len(data) // 2])
    return case


def _crash(parts: Parts) -> Case:
    case = Case("crash")
    case.put("init", parts.freestanding("crash", "void _start(void) { *(volatile int *)8 = 0; }\n"))
    return case


BOOTS: dict[str, Callable[[Parts], Case]] = {
    "tmpfs full": lambda parts: _full(parts, 180),
    "ramfs full": lambda parts: _full(parts, 300, "root=/dev/vda"),
    "lzma": lambda parts: _static(parts, "lzma"),
    "xz crc64": lambda parts: _static(parts, "xz-crc64"),
    "odc": lambda parts: _static(parts, "odc"),
    "lz4 frame": lambda parts: _static(parts, "lz4-frame"),
    "cut gzip": _cut,
    "no interpreter": lambda parts: _text(b"#!/bin/sh\n"),
    "not executable": _mode,
    "text as init": lambda parts: _text(b"text\n"),
    "scripts of scripts": _scripts,
    "init=": lambda parts: _text(b"text\n", "init=/none"),
    "no library": lambda parts: _library(parts, cases.dynamic),
    "old library": lambda parts: _library(parts, cases.old_version),
    "init 127": lambda parts: _shell(parts, b"no-such-program\n"),
    "cut program": _cut_program,
    "crash": _crash,
    "init ends": lambda parts: _shell(parts, b"exit 3\n"),
    "no init": lambda parts: Case("empty", entries=[("etc", cases.DIR, b"")]),
}
ROWS = [row for row in diagnosis.guest_hints() if row.boot]


@pytest.fixture(scope="module")
def parts(store, tmp_path_factory) -> Parts:
    return Parts(tmp_path_factory.mktemp("parts"), store)


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.weekly) for name in BOOTS]
)
def test_the_kernel_prints_the_lines_of_the_table(name: str, guide_kernel: KernelImage, parts, host, tmp_path: Path):
    case = BOOTS[name](parts)
    image = tmp_path / "initrd"
    image.write_bytes(case.image())
    spec = vm.VmSpec(
        kernel=guide_kernel.image,
        initrd=image,
        append=f"console=ttyS0 panic=-1 no_timer_check {case.append}",
        memory_bytes=256 << 20,
        results_port=False,
        timeout_s=120,
    )
    outcome = vm.boot(spec, host=host)
    text = outcome.console.read_text(errors="replace")
    rows = [row for row in ROWS if row.boot == name]
    assert rows, f"no row of the table is about {name}"
    for row in rows:
        assert row.match.search(text.replace("\r", "")), f"{row.match.pattern}\n{text[-1500:]}"
    starved = any(row.starved for row in rows)
    assert outcome.end is (vm.End.OUT_OF_MEMORY if starved else vm.End.PANIC)
    assert outcome.hint in {diagnosis.filled(row, text) for row in rows}


def test_each_row_comes_from_a_boot_or_says_where_from():
    for row in diagnosis.guest_hints():
        assert bool(row.boot) is not bool(row.source), row.match.pattern
        assert not row.boot or row.boot in BOOTS
