"""Named set-ups: what they mean, where they come from, and what a kernel must have for them."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.initrd.check import Kernel
from acon_nb.study.plan import Plan
from acon_nb.swap import SwapFactors, knobs, needs, reclaim, setups
from acon_nb.swap.analysis.choices import role_of, unranked
from acon_nb.swap.analysis.rows import counted
from acon_nb.swap.experiment import with_checks

MIB = 1 << 20
LEVELS = {item.name for item in fields(SwapFactors)}


@pytest.mark.parametrize("name", setups.NAMES)
def test_each_set_up_is_a_cell_with_a_source_and_decides_nothing_but_the_swap(name: str) -> None:
    setup = setups.by_name(name)
    assert setup.description
    assert setup.source
    assert setup.levels["swap"] in ("none", "disk", "zram", "zswap")
    assert set(setup.levels) <= LEVELS
    assert {role_of(factor) for factor in setup.levels} == {"choice"}, "a situation is the study's, not the set-up's"
    cell = SwapFactors.of({"setup": name})
    assert cell.configuration == name
    assert cell.levels()["setup"] == name
    for factor, level in setup.levels.items():
        assert getattr(cell, factor) == level
    by_hand = SwapFactors.of(dict(setup.levels))
    assert {**by_hand.levels(), "setup": name} == cell.levels(), "the same cell as by its levels"
    assert set(knobs.knobs_of(cell)) <= {row["name"] for row in knobs.table()}
    assert all(need.text for need in needs.needs_of(cell))


@pytest.mark.parametrize(
    ("levels", "field", "words"),
    [
        ({"setup": "fedora"}, "setup", "did you mean fedora-zram?"),
        ({"setup": "fedora-zram", "swap": "disk"}, "swap", "omit swap"),
        ({"setup": "disk", "compressor": "lz4"}, "compressor", "omit compressor"),
        ({"setup": "home-assistant", "swappiness": 60}, "swappiness", "omit swappiness"),
        ({"setup": "home-assistant", "swappiness": 1}, "swappiness", "omit swappiness"),
        ({"setup": "disk", "zram_limit": "10M"}, "zram_limit", "use swap=zram"),
    ],
)
def test_a_level_is_not_given_twice(levels: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SwapFactors.of(levels)
    assert caught.value.field == field
    assert words in caught.value.hint
    with pytest.raises(InvalidInput):
        setups.by_name("fedora")


@pytest.mark.parametrize(
    ("text", "memory", "size"),
    [
        ("50%", "128M", 64 * MIB),
        ("33%", "100M", 33 * MIB),
        ("200%", "1G", 2048 * MIB),
        ("min(100%,8G)", "16G", 8192 * MIB),
        ("min(100%, 8G)", "2G", 2048 * MIB),
        ("256M", "128M", 256 * MIB),
    ],
)
def test_a_size_may_be_a_share_of_the_memory(text: str, memory: str, size: int) -> None:
    assert SwapFactors(swap="zram", memory=memory, zram_size=text, pressure=1.0).swap_bytes == size
    assert SwapFactors(swap="disk", memory=memory, disk_size=text, pressure=1.0).swap_bytes == size


@pytest.mark.parametrize("text", ["%", "0%", "half", "min(50%)", "50%,4G", "min(4G,50%)", "-5%", "min(50%,4x)"])
def test_what_is_not_a_size_is_refused_by_the_factor(text: str) -> None:
    for factor, swap in (("zram_size", "zram"), ("disk_size", "disk")):
        with pytest.raises(InvalidInput) as caught:
            SwapFactors.of({"swap": swap, factor: text})
        assert caught.value.field == factor


def test_a_zram_of_a_share_leaves_the_guest_as_large_as_others() -> None:
    assert SwapFactors(setup="fedora-zram").disk_bytes == SwapFactors(setup="zram-lz4").disk_bytes


def test_the_cell_of_the_codecs_has_no_set_up() -> None:
    plan = with_checks(Plan(name="x", study="swap", factors={"data": ["zero", "random"]}, fixed={"setup": "android"}))
    cells = [SwapFactors.of(cell.levels) for cell in plan.all_cells]
    assert [cell.setup for cell in cells if cell.workload == "codec"] == [""]


def rows_of(*cells: dict[str, object]) -> pd.DataFrame:
    rows = []
    for levels in cells:
        factors = {f"factor_{name}": level for name, level in SwapFactors.of(levels).levels().items()}
        rows += [
            {**factors, "clock": "instructions", "seed": seed, "end": "powered_off", "access_ops_per_s": 1e4 + seed}
            for seed in (1, 2, 3)
        ]
    return pd.DataFrame(rows)


def test_a_set_up_is_a_choice_by_its_name() -> None:
    names = ("disk", "fedora-zram", "home-assistant")
    study = counted(rows_of(*({"setup": name, "pressure": p} for name in names for p in (1.2, 1.5))))
    assert sorted(map(str, study.choices)) == sorted(names)
    assert set(study.levels) == {"setup", "pressure"}, "no factor that the set-up gives"
    assert study.situations == ("pressure",)
    fedora = next(choice for choice in study.choices if choice.setup == "fedora-zram")
    assert (fedora.swap, fedora.compressor, fedora.has_pool) == ("zram", "lzo-rle", True)
    assert ("zram_size", "min(100%,8G)") in fedora.knobs


def test_set_ups_stand_beside_cells_by_hand_and_with_further_knobs() -> None:
    study = counted(rows_of({"setup": "zram-lz4"}, {"setup": "zram-lz4", "page_cluster": 0}, {"swap": "zram:zstd"}))
    assert sorted(map(str, study.choices)) == [
        "zram zstd page-cluster 3", "zram-lz4 page-cluster 0", "zram-lz4 page-cluster 3",
    ]  # fmt: skip


def test_a_set_up_that_meant_something_else_in_an_earlier_version_says_so() -> None:
    rows = rows_of({"setup": "android"}, {"setup": "disk"})
    rows.loc[rows["factor_setup"] == "android", "factor_page_cluster"] = 2
    assert "android page-cluster 2" in set(map(str, counted(rows).choices))


def test_set_ups_that_differ_in_such_a_compressor_are_not_ranked() -> None:
    study = counted(rows_of({"setup": "zram-lz4"}, {"swap": "zram:lzo-rle"}))
    assert unranked(*study.choices, "instructions")


STUDY = {
    "SWAP": "y", "ZRAM": "y", "ZSWAP": "y", "MEMCG": "y", "LRU_GEN": "y", "ZRAM_BACKEND_LZ4": "y",
    "ZRAM_BACKEND_LZO": "y", "CRYPTO_LZ4": "y", "ZRAM_MULTI_COMP": "n", "ZRAM_BACKEND_ZSTD": "m",
}  # fmt: skip


def test_what_a_kernel_lacks_is_named() -> None:
    kernel = Kernel(options=STUDY, complete=True, release="6.12.5")
    rows = {row["name"]: row for row in needs.setup_rows(kernel)}
    assert rows["fedora-zram"]["kernel"] == rows["none"]["kernel"] == rows["home-assistant"]["kernel"] == "has"
    assert rows["zswap-zstd"]["lacks"] == ["compressor needs CONFIG_CRYPTO_ZSTD"]
    assert rows["zram-zstd"]["lacks"] == [
        "compressor needs CONFIG_ZRAM_BACKEND_ZSTD built in: it is a module, and the guest loads none"
    ]
    again = SwapFactors(swap="zram", zram_recompressor="zstd")
    assert "zram_recompressor needs CONFIG_ZRAM_MULTI_COMP" in needs.lacking(again, kernel)


def test_a_kernel_is_judged_by_its_version_and_not_where_nothing_is_known() -> None:
    old = Kernel(options={**STUDY, "CRYPTO_ZSTD": "y"}, complete=True, release="6.1.0-13-amd64")
    assert needs.lacking(SwapFactors(swap="zram", compressor="zstd"), old) == [], "the crypto API's, before 6.12"
    assert needs.lacking(SwapFactors(swap="zswap", shrinker=True), old) == ["shrinker needs Linux 6.8 or later"]
    assert needs.lacking(SwapFactors(swap="zswap"), old) == []
    bare = Kernel(options={}, complete=False, release="")
    assert needs.verdict(SwapFactors(swap="zswap"), bare) == (needs.Presence.UNKNOWN, [])
    assert {row["kernel"] for row in needs.setup_rows(None)} == {"unknown"}


def test_the_command_lists_them_for_a_kernel_and_refuses_what_is_none(tmp_path: Path) -> None:
    wrong = tmp_path / "vmlinux"
    wrong.write_bytes(b"\x7fELF" + bytes(2000))
    refused = CliRunner().invoke(main, ["bench", "setups", "--kernel", str(wrong)])
    assert refused.exit_code
    assert "is not a bzImage" in str(refused.output) + str(refused.exception)
    rows = needs.setup_rows(Kernel(options=STUDY, complete=True, release="6.12.5"))
    assert json.loads(json.dumps(rows))[6]["levels"]["zram_size"] == "min(100%,8G)"


@pytest.mark.parametrize(
    ("levels", "field"),
    [
        ({"swap": "zram:zstd:best"}, "compressor"),
        ({"swap": "zram:lzo:3"}, "compressor_level"),
        ({"swap": "zram", "compressor": "zstd:3", "compressor_level": 4}, "compressor_level"),
        ({"swap": "zswap:zstd:3"}, "compressor_level"),
        ({"swap": "zram", "zram_recompressor_level": 3}, "zram_recompressor_level"),
        ({"swap": "zram", "compressor": "lzo", "zram_dictionary": "files"}, "zram_dictionary"),
        ({"swap": "zram", "data": "files", "zram_dictionary": "files"}, "zram_dictionary"),
        ({"swap": "zram", "zram_dictionary": "secrets"}, "data"),
        ({"swap": "zram", "zram_fallback": True}, "zram_fallback"),
        ({"swap": "zram", "zram_fallback": True, "zram_size": "50%", "zram_writeback": "idle"}, "zram_fallback"),
        ({"swap": "disk", "zram_fallback": True}, "zram_fallback"),
        ({"swap": "zram", "zpool": "zbud"}, "zpool"),
        ({"swap": "zswap", "zpool": "slab"}, "zpool"),
        ({"swap": "zswap", "zswap_max": "some"}, "zswap_max"),
        ({"lru_min_ttl_ms": 1000}, "lru_min_ttl_ms"),
        ({"watermark_scale_factor": 4000}, "watermark_scale_factor"),
        ({"thp": "sometimes"}, "thp"),
        ({"mthp": "8K"}, "mthp"),
        ({"mthp_shmem": "64K,16K"}, "mthp_shmem"),
        ({"damon_quota": "10M"}, "damon_quota"),
        ({"damon_reclaim": True, "damon_watermarks": "200+400+500"}, "damon_watermarks"),
        ({"damon_reclaim": True, "damon_watermarks": "500+400"}, "damon_watermarks"),
        ({"damon_reclaim": True, "damon_min_age": "long"}, "damon_min_age"),
    ],
)
def test_knobs_that_cannot_be_are_refused_by_name(levels: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SwapFactors.of(levels)
    assert caught.value.field == field
    assert caught.value.hint


def test_a_compressor_has_its_level_behind_its_name() -> None:
    cell = SwapFactors(swap="zram:zstd:15")
    assert (cell.swap, cell.compressor, cell.compressor_level) == ("zram", "zstd", 15)
    assert cell.configuration == "zram zstd:15"
    assert SwapFactors(swap="zram", compressor="lz4:8").levels() == SwapFactors(swap="zram:lz4:8").levels()
    again = SwapFactors(swap="zram", zram_recompressor="zstd:-3")
    assert knobs.knobs_of(again)["zram_recompressor_level"] == "-3"
    assert "zram_level" not in knobs.knobs_of(SwapFactors(swap="zram:zstd"))


def test_a_level_and_a_dictionary_are_written_at_once() -> None:
    names = {"zram_level", "zram_dictionary", "zram_level_dictionary"}
    both = knobs.knobs_of(SwapFactors(swap="zram:zstd:9", zram_dictionary="files"))
    assert {name: both[name] for name in names & set(both)} == {"zram_level_dictionary": "9"}
    alone = knobs.knobs_of(SwapFactors(swap="zram:zstd", zram_dictionary="files"))
    assert {name: alone[name] for name in names & set(alone)} == {"zram_dictionary": knobs.DICTIONARY}
    row = next(row for row in knobs.table() if row["name"] == "zram_level_dictionary")
    assert knobs.DICTIONARY in row["write"]


def test_knobs_of_reclaim_are_left_alone_by_default_and_set_by_value() -> None:
    plain = set(knobs.knobs_of(SwapFactors()))
    assert plain == {"swappiness", "page_cluster", "min_free", "zswap"}
    cell = SwapFactors(
        watermark_boost_factor=0, watermark_scale_factor=125, vfs_cache_pressure=0, thp="always", mthp="16K+64K",
        damon_reclaim=True, damon_min_age="2s", damon_quota="1M", damon_interval="100ms",
        damon_watermarks="500+400+200", lru_gen=True, lru_min_ttl_ms=1000,
    )  # fmt: skip
    values = knobs.knobs_of(cell)
    assert {name: values[name] for name in set(values) - plain - {f"mthp_{size}" for size in reclaim.MTHP_KIB}} == {
        "watermark_boost_factor": "0", "watermark_scale_factor": "125", "vfs_cache_pressure": "0", "thp": "always",
        "damon_min_age": "2000000", "damon_quota": str(MIB), "damon_interval": "100000", "damon_high": "500",
        "damon_mid": "400", "damon_low": "200", "damon_reclaim": "Y", "lru_gen": "0x0007", "lru_min_ttl_ms": "1000",
    }  # fmt: skip
    assert {size for size in reclaim.MTHP_KIB if values[f"mthp_{size}"] == "always"} == {16, 64}
    order = list(values)
    assert order.index("damon_reclaim") > order.index("damon_low"), "switched on when all its parameters are there"


def test_a_disk_behind_zram_is_a_disk_of_its_own_size() -> None:
    cell = SwapFactors(setup="zram-disk")
    assert cell.swap_on_disk
    assert cell.swap_bytes == cell.memory_bytes // 2
    assert cell.disk_bytes == SwapFactors(setup="disk").disk_bytes
    assert SwapFactors(swap="zram", zram_size="64M", zram_fallback=True, encryption="@").configuration.endswith(", @")


def test_allocators_and_damon_need_what_the_study_kernel_does_not_have() -> None:
    kernel = Kernel(options={**STUDY, "ZSMALLOC": "y", "TRANSPARENT_HUGEPAGE": "y"}, complete=True, release="6.12.1")
    rows = {row["name"]: row for row in needs.setup_rows(kernel)}
    assert rows["zswap-zbud"]["lacks"] == ["zpool needs CONFIG_ZBUD"]
    assert rows["zram-damon"]["lacks"] == ["damon_min_age needs CONFIG_DAMON_RECLAIM"]
    assert rows["zram-mthp"]["kernel"] == "has"
    assert rows["zram-writeback-compressed"]["lacks"][-1].endswith("needs Linux 6.19 or later")
    newer = Kernel(options={**kernel.options, "ZBUD": "y"}, complete=True, release="7.2.0")
    assert needs.lacking(SwapFactors(setup="zswap-zbud"), newer) == [
        "zpool needs Linux before 6.18, which removed it", "zpool needs Linux before 6.15, which removed it",
    ]  # fmt: skip
    older = Kernel(options=kernel.options, complete=True, release="6.6.0")
    assert "compressor_level needs Linux 6.12 or later" in needs.lacking(SwapFactors(swap="zram:lz4:4"), older)


# A cell for every knob of the table, as a user writes it
WRITTEN: list[dict[str, object]] = [
    {"swap": "zswap:zstd", "zpool": "zbud", "zswap_max": "20M", "zswap_writeback": False, "shrinker": True},
    {"swap": "zram:zstd:9", "zram_streams": 2, "zram_limit": "20M", "zram_recompressor": "zstd:15"},
    {"swap": "zram:zstd", "zram_dictionary": "files"},
    {"swap": "zram:zstd:9", "zram_dictionary": "files"},
    {"swap": "zram", "zram_writeback": "huge", "zram_writeback_compressed": True},
    {"lru_gen": True, "lru_min_ttl_ms": 1000, "swap_bios": 8, "watermark_scale_factor": 125,
     "watermark_boost_factor": 0, "vfs_cache_pressure": 50},
    {"thp": "always", "thp_defrag": "defer", "thp_shmem": "advise", "mthp": "16K", "mthp_shmem": "64K"},
    {"damon_reclaim": True, "damon_min_age": "2s", "damon_quota": "1M", "damon_interval": "100ms",
     "damon_watermarks": "500+400+200"},
]  # fmt: skip


@pytest.mark.parametrize("row", knobs.table(), ids=lambda row: row["name"])
def test_what_a_kernel_lacks_is_refused_by_the_factor_and_the_level_that_the_user_wrote(
    row: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [levels for levels in WRITTEN if row["name"] in knobs.knobs_of(SwapFactors.of(levels))]
    assert cells, "no cell above sets it"
    assert row["factor"] in LEVELS
    guests = [line.split("|") for line in knobs.guest_table().splitlines()]
    assert next(line[-1] for line in guests if line[0] == row["name"]) == row["factor"], "as the guest says it"
    factors = SwapFactors.of(cells[0])
    for need in needs.needs_of(factors):
        if need.knob != row["name"]:
            continue
        monkeypatch.setattr(needs, "needs_of", lambda *_, need=need: (need,))
        old = bool(need.since)
        kernel = Kernel(
            options={} if old else {need.option: "n"}, complete=True,
            release="2.6.1" if old else ("9.0" if need.until else "6.12"),
        )  # fmt: skip
        monkeypatch.setattr(needs, "read", lambda *_, kernel=kernel, **__: kernel)
        with pytest.raises(InvalidInput) as caught:
            needs.check(factors, Path("bzImage"))
        assert caught.value.field == row["factor"]
        assert caught.value.value == getattr(factors, str(row["factor"]))
        assert str(caught.value).startswith(f"{row['factor']}=")
        assert row["factor"] == row["name"] or f"{row['name']} needs" not in str(caught.value)


def test_a_factor_that_is_no_knob_is_refused_with_its_own_level(monkeypatch: pytest.MonkeyPatch) -> None:
    for levels in ({"cgroup_max": "40M"}, {"groups": 2, "workload": "anon"}, {"reclaim_interval": "1s"}):
        bare = Kernel(options={"SWAP": "y", "MEMCG": "n"}, complete=True, release="6.12")
        monkeypatch.setattr(needs, "read", lambda *_, bare=bare, **__: bare)
        with pytest.raises(InvalidInput) as caught:
            needs.check(SwapFactors.of(levels), Path("bzImage"))
        field, value = next(iter(levels.items()))
        assert (caught.value.field, caught.value.value) == (field, value)


def test_what_a_set_up_gives_is_refused_with_the_set_ups_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(options={**STUDY, "DAMON_RECLAIM": "n"}, complete=True, release="6.12.1")
    monkeypatch.setattr(needs, "read", lambda *_, **__: kernel)
    with pytest.raises(InvalidInput) as caught:
        needs.check(SwapFactors(setup="zram-damon"), Path("bzImage"))
    assert str(caught.value).startswith("damon_min_age='500ms': is given by setup=zram-damon and is not in this kernel")
