from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.vm import disk


def through_qemu(path: Path, *commands: str) -> str:
    """What QEMU itself says of an image: what its monitor prints."""
    binary = shutil.which("qemu-system-x86_64")
    if binary is None:
        pytest.skip("QEMU is not here")
    lines = [{"execute": "qmp_capabilities"}, {"execute": "query-block"}]
    lines += [{"execute": "human-monitor-command", "arguments": {"command-line": line}} for line in commands]
    drive = f"file={path},format={path.suffix[1:]},if=none,id=d"
    argv = [binary, "-M", "none", "-S", "-display", "none", "-nodefaults", "-qmp", "stdio", "-drive", drive]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"execute": "quit"}])
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=300, check=True).stdout


@settings(max_examples=8, deadline=None)
@given(pages=st.integers(10, 1 << 30), swap=st.booleans(), suffix=st.sampled_from(["raw", "qcow2"]))
def test_qemu_opens_every_image_at_its_size(
    tmp_path_factory: pytest.TempPathFactory, pages: int, swap: bool, suffix: str
) -> None:
    size = pages * 4096
    made = disk.create(tmp_path_factory.mktemp("d") / f"x.{suffix}", size, swap=swap)
    output = through_qemu(made.path, 'qemu-io d "read -v 4080 16"', 'qemu-io d "write -P 7 8k 4k"')
    assert f'"virtual-size": {size}' in output
    assert ("SWAPSPACE2" in output) == swap
    assert "wrote 4096/4096" in output
    assert made.used_bytes < 2 << 20, "it is sparse"


def test_the_swap_area_is_mkswaps(tmp_path: Path) -> None:
    if shutil.which("mkswap") is None:
        pytest.skip("mkswap is not here")
    identity = uuid.uuid4()
    theirs = tmp_path / "theirs.raw"
    theirs.write_bytes(bytes(1 << 20))
    subprocess.run(["mkswap", "-L", "here", "-U", str(identity), theirs], check=True, capture_output=True)
    assert theirs.read_bytes()[:4096] == disk.swap_page(1 << 20, label="here", identity=identity)


def test_util_linux_knows_the_swap_area(tmp_path: Path) -> None:
    if shutil.which("swaplabel") is None:
        pytest.skip("swaplabel is not here")
    made = disk.create(tmp_path / "256m.raw", 256 << 20, swap=True, label="guide")
    output = subprocess.run(["swaplabel", made.path], capture_output=True, text=True, check=True).stdout
    assert "guide" in output
    assert made.path.stat().st_size == 256 << 20


@pytest.mark.parametrize("name", ["256m.img", "256m", "a.vmdk", "a.RAW"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="neither"):
        disk.create(tmp_path / name, 1 << 20)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, -4096, 4095, 4097, 1 << 60])
def test_a_bad_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidInput, match="size_bytes"):
        disk.create(tmp_path / "x.raw", size)


def test_a_swap_area_has_ten_pages_at_least(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="size_bytes"):
        disk.create(tmp_path / "x.raw", 9 * 4096, swap=True)
    disk.create(tmp_path / "x.raw", 10 * 4096, swap=True)


def test_the_name_can_tell_the_size() -> None:
    assert disk.size_of_name(Path("a/256m.raw")) == 256 << 20
    assert disk.size_of_name(Path("2GiB.qcow2")) == 2 << 30
    for name in ("disk.raw", "256.raw", "m.raw", "256m-old.raw"):
        with pytest.raises(InvalidInput, match="--size"):
            disk.size_of_name(Path(name))


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.raw"
    theirs.write_bytes(b"precious")
    link = tmp_path / "link.raw"
    link.symlink_to(theirs)
    for path in (theirs, link):
        for replace in (False, True):
            with pytest.raises(InvalidInput, match="path="):
                disk.create(path, 1 << 20, replace=replace)
    assert theirs.read_bytes() == b"precious"
    dangling = tmp_path / "dangling.raw"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="already exists"):
        disk.create(dangling, 1 << 20)


def test_an_own_image_is_made_anew_on_request(tmp_path: Path) -> None:
    path = disk.create(tmp_path / "a.raw", 1 << 20).path
    try:
        os.getxattr(path, "user.acon_nb")
    except OSError:
        pytest.skip("this file system has no user attributes")
    with pytest.raises(InvalidInput, match="--replace"):
        disk.create(path, 2 << 20)
    assert disk.create(path, 2 << 20, replace=True).size_bytes == path.stat().st_size == 2 << 20
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.raw"], "nothing else is left"
