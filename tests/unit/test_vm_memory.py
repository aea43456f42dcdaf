"""Memory back ends, huge pages and NUMA: what QEMU is told, what is refused, and that a real QEMU takes it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.vm import Capabilities, VmSpec, argument_list, explain
from acon_nb.vm.memory import check_free_pages
from tests.unit import bzimages

HOST = Capabilities(qemu=Path("/usr/bin/qemu-system-x86_64"))
QMP = '{"execute":"qmp_capabilities"}{"execute":"query-memdev"}{"execute":"quit"}'


@pytest.fixture
def spec(tmp_path: Path) -> VmSpec:
    return VmSpec(kernel=bzimages.write(tmp_path / "k"), memory_bytes=256 << 20, vcpus=4)


def after(argv: list[str], option: str) -> list[str]:
    return [argv[place + 1] for place, word in enumerate(argv) if word == option]


def test_a_spec_without_them_has_no_back_end(spec: VmSpec) -> None:
    argv = argument_list(spec, HOST)
    assert not {"-object", "-numa"} & set(argv)
    assert after(argv, "-machine") == ["q35,hpet=off"]


def test_huge_pages_come_by_memfd_from_nodes_of_the_host(spec: VmSpec) -> None:
    argv = argument_list(replace(spec, hugepages="2M", host_nodes="0-1,3"), HOST)
    (backend,) = map(json.loads, after(argv, "-object"))
    assert backend == {
        "qom-type": "memory-backend-memfd", "id": "ram0", "size": 256 << 20, "hugetlb": True, "hugetlbsize": 2 << 20,
        "host-nodes": [0, 1, 3], "policy": "bind",
    }  # fmt: skip
    assert after(argv, "-machine") == ["q35,hpet=off,memory-backend=ram0"]


def test_nodes_share_vcpus_and_memory(spec: VmSpec) -> None:
    argv = argument_list(replace(spec, numa=2), HOST)
    assert [json.loads(text)["size"] for text in after(argv, "-object")] == [128 << 20] * 2
    assert after(argv, "-numa") == ["node,nodeid=0,cpus=0-1,memdev=ram0", "node,nodeid=1,cpus=2-3,memdev=ram1"]
    assert after(argv, "-machine") == ["q35,hpet=off"]
    assert all(row.why for row in explain(replace(spec, numa=2), HOST))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("hugepages", {"hugepages": "4M"}),
        ("hugepages", {"hugepages": "2M", "memory_backend": "ram"}),
        ("hugepages", {"hugepages": "1G"}),
        ("hugepages", {"hugepages": "2M", "memory_bytes": 257 << 20}),
        ("numa", {"numa": 3}),
        ("numa", {"numa": 0}),
        ("numa", {"numa": 2, "machine": "microvm"}),
        ("numa", {"numa": 4, "memory_bytes": 258 << 20}),
        ("host_nodes", {"host_nodes": "all"}),
        ("host_nodes", {"host_nodes": "3-1"}),
        ("memory_backend", {"memory_backend": "file"}),
    ],
)
def test_memory_that_cannot_be_is_refused(spec: VmSpec, field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        replace(spec, **values)
    assert caught.value.field == field


def test_pages_that_the_host_has_not_reserved_are_refused_by_number(spec: VmSpec, tmp_path: Path) -> None:
    (tmp_path / "hugepages-2048kB").mkdir()
    (tmp_path / "hugepages-2048kB/free_hugepages").write_text("127\n")
    huge = replace(spec, hugepages="2M")
    with pytest.raises(InvalidInput, match="127 free pages of 2M, the guest needs 128"):
        check_free_pages(huge, tmp_path)
    (tmp_path / "hugepages-2048kB/free_hugepages").write_text("128\n")
    check_free_pages(huge, tmp_path)
    check_free_pages(spec, tmp_path / "none")


@pytest.mark.parametrize("values", [{"memory_backend": "memfd"}, {"memory_backend": "ram"}, {"numa": 2}, {"numa": 4}])
def test_a_real_qemu_takes_it(spec: VmSpec, values: dict[str, Any]) -> None:
    binary = shutil.which("qemu-system-x86_64")
    if binary is None:
        pytest.skip("qemu-system-x86_64 is missing")
    argv = argument_list(replace(spec, **values), replace(HOST, qemu=Path(binary)))
    argv = argv[: argv.index("-kernel")]
    argv[argv.index("-chardev") + 1] = "null,id=mux,mux=on"
    done = subprocess.run(
        [*argv, "-S", "-qmp", "stdio"], input=QMP, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    (devices,) = [
        answer for line in done.stdout.splitlines() if isinstance(answer := json.loads(line).get("return"), list)
    ]
    assert sum(device["size"] for device in devices) == 256 << 20
