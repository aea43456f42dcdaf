"""The source file of each function of a kernel, from its objects; gcc's debug information is the oracle."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.kernel import debug_info, objects

# Three files define the same static functions; `twin` and `other` nothing that tells them apart, not even their size
SAME = (
    "static {keep} int step(int x) {{ return x + {n}; }}\nstatic {keep} int walk(int x) {{ return step(x) * {n}; }}\n"
)
KEEP = "__attribute__((noinline, used))"
CODE = {
    "init/main.c": "int first(int);\nint main(void) { return first(1); }\nint __attribute__((weak)) arch_hook(void)"
    " { return 1; }\n",
    "mm/one.c": SAME.format(keep=KEEP, n=3) + "int first(int x) { return walk(x); }\n",
    "mm/twin.c": SAME.format(keep=KEEP, n=5),
    "mm/other.c": SAME.format(keep=KEEP, n=6),
    "arch/hook.c": "int arch_hook(void) { return 2; }\nint __attribute__((section(\".init.text\"))) setup(void)"
    " { return 7; }\n",
    "arch/entry.S": ".text\n.globl entry\nentry:\n call main\nlocal_stub:\n ret\n",
    "lib/last.c": "int last(void) { return 9; }\n",
}  # fmt: skip


def run(*argv: object, cwd: Path) -> str:
    return subprocess.run(list(map(str, argv)), cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a kernel's build leaves it: objects with their commands, vmlinux.a, System.map; vmlinux with -g."""
    tree, build = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("build")
    names = []
    for name, text in CODE.items():
        source = tree / name
        source.parent.mkdir(exist_ok=True)
        source.write_text(text)
        target = (build / name).with_suffix(".o")
        target.parent.mkdir(exist_ok=True)
        run("gcc", "-c", "-g", "-O1", "-fno-pic", "-o", target, source, cwd=build)
        target.with_name(f".{target.name}.cmd").write_text(
            f"savedcmd_{target} := gcc {source}\n\nsource_{target} := {source}\n\ndeps_x := \\\n"
        )
        names.append(str(target.relative_to(build)))
    (build / "source").symlink_to(tree)
    run("ar", "cDPrST", "vmlinux.a", *names, cwd=build)
    run("ld", "-r", "-o", "vmlinux.o", "--whole-archive", "vmlinux.a", cwd=build)
    run("ld", "-e", "entry", "-Ttext=0xffffffff81000000", "-o", "vmlinux", "vmlinux.o", cwd=build)
    (build / "System.map").write_text(run("nm", "-n", "vmlinux", cwd=build))
    image = build / "arch/x86/boot/bzImage"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"a built kernel")
    return build


def functions_of(build: Path) -> list[str]:
    rows = [line.split() for line in (build / "System.map").read_text().splitlines()]
    return [address for address, kind, name in rows if kind in "tTW" and not name.startswith(("_end", "_e"))]


def test_each_function_has_the_file_that_debug_information_names(built: Path) -> None:
    found = objects.of_build(built)
    addresses = functions_of(built)
    lines = run("addr2line", "-e", "vmlinux", *addresses, cwd=built).splitlines()
    expected = {address: line.rpartition(":")[0].removeprefix(f"{(built / 'source').resolve()}/")
                for address, line in zip(addresses, lines, strict=True)}  # fmt: skip
    assert {address: found.source_at(int(address, 16)) for address in addresses} == expected
    assert set(expected.values()) == set(CODE)


@pytest.mark.parametrize("source", ["mm/one.c", "../TREE/mm/one.c", "./mm/one.c"])
def test_sources_that_are_given_relative_to_the_build(source: str, built: Path) -> None:
    """As of a build in the tree itself, or of 6.13 and later."""
    tree = (built / "source").resolve()
    (built / "mm/.one.o.cmd").write_text(f"source_mm/one.o := {source.replace('TREE', tree.name)}\n")
    try:
        assert {piece.source for piece in objects.of_build(built).pieces} == set(CODE)
    finally:
        (built / "mm/.one.o.cmd").write_text(f"source_mm/one.o := {tree}/mm/one.c\n")


def test_what_no_object_contains_has_no_file(built: Path) -> None:
    found = objects.of_build(built)
    assert found.source_at(0xFFFF_FFFF_8000_0000) == ""
    assert found.source_at(found.pieces[-1].end) == ""
    piece = found.piece_at(found.pieces[0].start)
    assert piece is not None
    assert piece.object == piece.source.replace(".c", ".o")


def test_a_map_is_read_as_it_was_written(built: Path, tmp_path: Path) -> None:
    found = objects.of_build(built)
    objects.save(found, tmp_path)
    assert objects.load(tmp_path / objects.FILE) == found
    (tmp_path / "bzImage").write_bytes(b"x")
    assert objects.of_image(tmp_path / "bzImage", Cache(tmp_path / "cache")) == found


def test_a_kernel_that_was_built_before_gets_its_map_from_its_build_folder(built: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    (tmp_path / "bzImage").write_bytes((built / "arch/x86/boot/bzImage").read_bytes())
    assert objects.of_image(tmp_path / "bzImage", cache) is None
    (cache.root / "kernel-build").mkdir(parents=True)
    (cache.root / "kernel-build" / "abc").symlink_to(built)
    assert objects.of_image(tmp_path / "bzImage", cache) == objects.of_build(built)
    (cache.root / "kernel-build" / "abc").unlink()
    assert objects.of_image(tmp_path / "bzImage", cache) == objects.of_build(built)  # kept
    assert objects.of_image(built / "arch/x86/boot/bzImage", Cache(tmp_path / "other")) == objects.of_build(built)
    assert cache.has("objects", {"bzImage": sha256_file(tmp_path / "bzImage"), "format": 1})


def test_a_folder_whose_objects_do_not_belong_to_its_map_is_refused(built: Path, tmp_path: Path) -> None:
    run("cp", "-a", f"{built}/.", tmp_path, cwd=built)
    source = tmp_path / "one.c"
    source.write_text(CODE["mm/one.c"].replace("x + 3", "x / (x + 3) % (x & 12345)"))
    run("gcc", "-c", "-O1", "-fno-pic", "-o", "mm/one.o", "one.c", cwd=tmp_path)
    with pytest.raises(InvalidInput, match=r"elsewhere than its System.map says"):
        objects.of_build(tmp_path)


def test_a_map_that_cannot_be_made_does_not_fail_a_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objects.keep(tmp_path, tmp_path)
    assert "has no System.map" in caplog.text
    assert not (tmp_path / objects.FILE).exists()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2}', json.dumps({"format": 1, "objects": [], "pieces": [[0]]}),
                                  '{"format": 1, "objects": [["a", "b"]], "pieces": [[0, 1, 7]]}'])  # fmt: skip
def test_a_damaged_map_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / objects.FILE).write_text(text)
    with pytest.raises(InvalidInput, match="objects="):
        objects.load(tmp_path / objects.FILE)


def test_a_vmlinux_with_debug_information_gives_the_same_files(built: Path) -> None:
    found, expected = debug_info.of_vmlinux(built / "vmlinux"), objects.of_build(built)
    for address in functions_of(built):
        assert found.source_at(int(address, 16)) == expected.source_at(int(address, 16))


def test_what_is_not_a_vmlinux_with_debug_information_is_refused(built: Path, tmp_path: Path) -> None:
    run("strip", "-g", "-o", tmp_path / "stripped", "vmlinux", cwd=built)
    (tmp_path / "text").write_text("vmlinux")
    (tmp_path / "short").write_bytes((built / "vmlinux").read_bytes()[:3000])
    for name, reason in {
        "stripped": "has no debug",
        "text": "cannot be read",
        "short": "debug|read",
        "none": "cannot",
    }.items():
        with pytest.raises(InvalidInput, match=reason):
            debug_info.of_vmlinux(tmp_path / name)
