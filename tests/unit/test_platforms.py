"""Platforms of images: their grammar, the levels of CPUs, and the best that a machine runs."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.initrd.sources.oci.choice import ImageSelector, choose
from acon_nb.initrd.sources.oci.manifests import ArchivedImage
from acon_nb.initrd.sources.oci.platforms import ImagePlatform, of_this_machine, warning

V2 = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = f"{V3} avx512bw avx512cd avx512dq avx512f avx512vl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("Linux/x86_64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/i386", "linux/386"),
        ("linux/riscv64", "linux/riscv64"),
    ],
)
def test_platforms_are_written_as_containerd_writes_them(text: str, expected: str) -> None:
    assert str(ImagePlatform.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "linux/",
        "linux//v3",
        "linux/amd64/v3/x",
        "windows/amd64",
        "linux/pdp11",
        "linux/amd64/v9",
        "a b",
        "linux/\x1b",
    ],
)
def test_other_platforms_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="platform="):
        ImagePlatform.parse(text)


@pytest.mark.parametrize(
    ("flags", "level"),
    [("", ""), (V2, "v2"), (V2.replace("cx16", ""), ""), (V3, "v3"), (V3.replace("fma", ""), "v2"), (V4, "v4")],
)
def test_the_level_of_a_cpu_follows_its_flags(flags: str, level: str) -> None:
    cpuinfo = f"processor\t: 0\nflags\t\t: fpu {flags} end\nbugs\t\t: x\n"
    assert of_this_machine("x86_64", cpuinfo) == ImagePlatform("amd64", level)


def test_the_level_of_this_cpu_is_that_of_the_dynamic_linker() -> None:
    """An oracle from outside: `ld.so --help` lists the levels that it searches for libraries."""
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    if platform.machine() != "x86_64" or not loader.exists():
        pytest.skip("glibc for x86-64 is not here")
    text = subprocess.run([loader, "--help"], capture_output=True, text=True, check=True).stdout
    levels = re.findall(r"x86-64-(v\d) \(supported", text)
    if "x86-64-v2" not in text:
        pytest.skip("this glibc does not list levels")
    assert of_this_machine().variant == max(levels, default="")


def test_other_machines_are_named_as_images_name_them() -> None:
    names = {"aarch64": "linux/arm64", "armv7l": "linux/arm/v7", "armv6l": "linux/arm/v6", "i686": "linux/386"}
    for machine, expected in names.items():
        assert str(of_this_machine(machine)) == expected


def image(text: str) -> ArchivedImage:
    return ArchivedImage(names=("x:1",), digests=(f"sha256:{text}",), platform=ImagePlatform.parse(text), config={})


def chosen(offered: list[str], machine: str, requested: str = "") -> str:
    selector = ImageSelector.parse("", requested)
    return str(choose([image(text) for text in offered], selector, "x", ImagePlatform.parse(machine))[0].platform)


LEVELS = ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4"]
ARMS = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8"]


@given(st.sampled_from([LEVELS, ARMS]), st.data())
def test_the_best_variant_that_a_machine_runs_is_chosen_and_never_a_better_one(
    order: list[str], data: st.DataObject
) -> None:
    offered = data.draw(st.lists(st.sampled_from(order), min_size=1, unique=True))
    machine = data.draw(st.sampled_from(order))
    others = data.draw(st.lists(st.sampled_from(["linux/s390x", "linux/riscv64"]), unique=True))
    runs = [text for text in offered if order.index(text) <= order.index(machine)]
    images = data.draw(st.permutations(offered + others))
    if runs:
        assert chosen(images, machine) == max(runs, key=order.index)
    else:
        with pytest.raises(InvalidInput, match="contains no image"):
            chosen(images, machine)


@given(
    st.sampled_from(["linux/amd64", "linux/amd64/v4", "linux/arm64"]), st.permutations(LEVELS), st.sampled_from(LEVELS)
)
def test_a_requested_platform_is_chosen_whatever_the_machine(machine: str, offered: list[str], requested: str) -> None:
    assert chosen(offered, machine, requested) == requested


def test_a_lower_variant_stands_in_for_a_requested_one_but_never_a_higher_one() -> None:
    assert (
        chosen(["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64", "linux/amd64/v3") == "linux/amd64/v2"
    )
    with pytest.raises(InvalidInput, match="linux/amd64"):
        chosen(["linux/amd64/v3"], "linux/amd64/v4", "linux/amd64")


def test_a_32_bit_image_is_the_last_choice_and_is_warned_of() -> None:
    assert chosen(["linux/386", "linux/amd64"], "linux/amd64/v3") == "linux/amd64"
    assert chosen(["linux/386", "linux/s390x"], "linux/amd64/v3") == "linux/386"
    assert chosen(["linux/arm/v6", "linux/arm/v7"], "linux/arm64") == "linux/arm/v7"
    machine, arm = ImagePlatform.parse("linux/amd64/v3"), ImagePlatform.parse("linux/arm64")
    assert "CONFIG_IA32_EMULATION" in warning(ImagePlatform.parse("linux/386"), machine)
    assert "CONFIG_COMPAT" in warning(ImagePlatform.parse("linux/arm/v7"), arm)
    assert "does not run" in warning(ImagePlatform.parse("linux/amd64/v4"), machine)
    assert warning(ImagePlatform.parse("linux/amd64/v2"), machine) == ""
