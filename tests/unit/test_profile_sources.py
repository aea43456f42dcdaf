from __future__ import annotations

from pathlib import Path

from acon_nb.cache import Cache
from acon_nb.kernel import objects
from acon_nb.kernel.objects import ObjectMap, Piece
from acon_nb.profile import FunctionCount, Profile, Region, sources


def profile(*functions: FunctionCount) -> Profile:
    return Profile(total=sum(one.self_count for one in functions), phases=("init",), functions=functions)


def counted(file: str, count: int, region: Region = Region.KERNEL) -> FunctionCount:
    return FunctionCount(name="f", phase="init", self_count=count, file=file, region=region)


def test_counts_are_summed_by_file_folder_and_subsystem() -> None:
    one = profile(
        counted("mm/page_alloc.c", 5),
        counted("mm/page_alloc.c", 2),
        counted("mm/slub.c", 1),
        counted("arch/x86/kernel/apic/apic.c", 100),
        counted("", 3),
        counted("/usr/bin/sleep", 4, Region.USER),
        counted("", 6, Region.FIRMWARE),
    )
    assert sources.counts_by(one, sources.folder_of) == {
        "arch/x86/kernel/apic": 100, "mm": 8, "(firmware)": 6, "(user)": 4, "(unknown)": 3,
    }  # fmt: skip
    assert sources.counts_by(one, sources.subsystem_of)["arch/x86"] == 100
    by_file = sources.counts_by(one, sources.file_of)
    assert by_file["mm/page_alloc.c"] == 7
    assert by_file["/usr/bin/sleep"] == 4
    assert sum(by_file.values()) == one.total


def test_files_are_found_by_address_or_unknown(tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(b"kernel")
    cache = Cache(tmp_path / "cache")
    assert sources.files_of(image, [100], cache=cache) == {100: ""}
    objects.save(ObjectMap(pieces=(Piece(start=100, end=200, object="mm/a.o", source="mm/a.c"),)), tmp_path)
    assert sources.files_of(image, [99, 100, 199, 200], cache=cache) == {99: "", 100: "mm/a.c", 199: "mm/a.c", 200: ""}
