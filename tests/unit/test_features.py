from __future__ import annotations

import tomllib
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.kernel.features import PROFILES, Wish, catalogue, groups, parse_setting, wishes
from acon_nb.kernel.kconfig import Symbol

GUIDE: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "data/guide_options.toml").read_text())
VERSIONS = [(5, 15), (6, 1), (6, 2), (6, 6), (6, 8), (6, 9), (6, 12), (6, 18)]


def symbols(*names: str) -> dict[str, Symbol]:
    return {name: Symbol(name=name, kind="bool", prompted=True) for name in names}


def options(version: tuple[int, int], known: tuple[str, ...] = (), profile: str = "guide") -> dict[str, str]:
    return {wish.option: wish.value for wish in wishes([profile], version, symbols(*known))}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in GUIDE.items() for name in names])
def test_every_name_of_the_guide_is_covered_in_its_group(group: str, name: str) -> None:
    rows = [row for row in catalogue() if row.group == group]
    assert any(
        name in (row.guide, row.option) or (row.rule == "pattern" and fnmatchcase(name, row.option)) for row in rows
    )


def test_the_guides_tables_are_whole() -> None:
    assert {group: len(names) for group, names in GUIDE.items()} == {
        "minimal": 24, "container": 38, "performance": 14, "security": 10, "not-needed": 38, "storage": 18
    }  # fmt: skip
    assert all(len(set(names)) == len(names) for names in GUIDE.values())


def test_every_name_that_a_row_says_the_guide_has_is_there() -> None:
    for row in catalogue():
        if row.guide and row.guide != row.option:
            assert row.guide in GUIDE[row.group], row


def test_every_row_has_a_note_and_a_span_of_versions() -> None:
    for row in catalogue():
        assert row.note.endswith("."), row
        assert row.since < row.until, row


def test_the_groups_and_the_profiles() -> None:
    assert set(GUIDE) == set(PROFILES["guide"])
    assert {group for members in PROFILES.values() for group in members} <= set(groups())
    assert set(PROFILES["guide"]) < set(PROFILES["swap-study"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("profile", ["guide", "swap-study"])
def test_no_option_is_wished_twice_with_different_values(profile: str, version: tuple[int, int]) -> None:
    found: dict[str, set[str]] = {}
    for row in catalogue():
        if row.group in PROFILES[profile] and not row.rule and row.since <= version < row.until:
            found.setdefault(row.option, set()).add(row.value)
    assert {option: values for option, values in found.items() if len(values) > 1} == {}


@pytest.mark.parametrize(
    ("version", "there", "absent"),
    [
        ((5, 15), {"RETPOLINE", "ARCH_RANDOM", "SLAB", "SLOB"}, {"INTEL_TDX_GUEST", "SLUB_TINY", "LRU_GEN"}),
        ((6, 1), {"RETPOLINE", "SLAB", "BASE_FULL", "RANDOM_TRUST_CPU"}, {"MITIGATION_RETPOLINE", "TDX_GUEST_DRIVER"}),
        (
            (6, 12),
            {"MITIGATION_RETPOLINE", "TDX_GUEST_DRIVER", "ZRAM_BACKEND_LZ4", "BASE_SMALL"},
            {"RETPOLINE", "SLAB"},
        ),
        ((6, 18), {"ZSWAP"}, {"ZPOOL", "MCORE2", "SCHED_DEBUG", "X86_5LEVEL"}),
    ],
)
def test_rows_hold_for_their_versions_only(version: tuple[int, int], there: set[str], absent: set[str]) -> None:
    found = set(options(version))
    assert there <= found
    assert not absent & found


def test_a_group_is_a_profile_and_profiles_add_up() -> None:
    both = {wish.option for wish in wishes(["minimal", "storage"], (6, 12))}
    assert both == {wish.option for group in ("minimal", "storage") for wish in wishes([group], (6, 12))}
    assert {wish.group for wish in wishes(["security"], (6, 12))} == {"security"}


def test_a_pattern_takes_what_the_tree_has_and_a_named_row_wins() -> None:
    found = options((6, 12), ("PERF_EVENTS_INTEL_UNCORE", "UNIX_DIAG", "INET_DIAG", "ZRAM"))
    assert found["PERF_EVENTS_INTEL_UNCORE"] == found["UNIX_DIAG"] == found["INET_DIAG"] == "n"
    assert found["ZRAM"] == "y"
    assert not any("*" in option for option in found)


def test_own_settings_come_last_and_win() -> None:
    found = {wish.option: wish for wish in wishes(["guide"], (6, 12), {}, ["ZRAM=n", "CONFIG_NEW=m", "ZRAM=m"])}
    assert (found["ZRAM"].value, found["ZRAM"].group, found["ZRAM"].optional) == ("m", "set", False)
    assert found["NEW"].value == "m"


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("ZRAM=y", "ZRAM", "y"),
        ("CONFIG_ZRAM=y", "ZRAM", "y"),
        (" NR_CPUS = 8 ", "NR_CPUS", "8"),
        ('LOCALVERSION="-x"', "LOCALVERSION", "-x"),
        ("CMDLINE=a=b c", "CMDLINE", "a=b c"),
        ("64BIT=y", "64BIT", "y"),
    ],
)
def test_a_setting_is_read(text: str, option: str, value: str) -> None:
    assert parse_setting(text) == Wish(option=option, value=value)


@pytest.mark.parametrize(
    "text",
    ["ZRAM", "", "=y", "A B=y", "ZRAM-X=y", "ZRAM*=n", "X=$(id)", "X=`id`", "X=a\nCONFIG_Y=y", 'X=a"b', "X=a\rb"],
)
def test_a_malformed_setting_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_setting(text)
    assert caught.value.hint


@pytest.mark.parametrize("profiles", [["nonsense"], ["guide", "nonsense"], [""], ["Guide"]])
def test_an_unknown_profile_is_refused_with_the_known_ones(profiles: list[str]) -> None:
    with pytest.raises(InvalidInput, match="profile") as caught:
        wishes(profiles, (6, 12))
    assert "guide" in caught.value.hint


def test_what_a_pattern_matched_says_so() -> None:
    known = symbols("PERF_EVENTS_INTEL_UNCORE", "PERF_EVENTS", "INET_DIAG", "INET")
    matched = {wish.option: wish.rule for wish in wishes(["not-needed"], (6, 12), known) if wish.rule}
    assert matched == {"PERF_EVENTS_INTEL_UNCORE": "PERF_EVENTS_*", "INET_DIAG": "*_DIAG"}


def test_a_submenu_is_turned_off_but_for_what_a_table_names() -> None:
    known = symbols("PCI_MSI", "PCI_QUIRKS", "PCI_HIDDEN", "PCIE_BUS_SAFE", "VGA_ARB_MAX_GPUS", "ELSEWHERE")
    for name in known.keys() - {"ELSEWHERE"}:
        known[name] = replace(known[name], under=("PCI",))
    known["PCI_HIDDEN"] = replace(known["PCI_HIDDEN"], prompted=False)
    known["PCIE_BUS_SAFE"] = replace(known["PCIE_BUS_SAFE"], choice=True)
    known["VGA_ARB_MAX_GPUS"] = replace(known["VGA_ARB_MAX_GPUS"], kind="int")
    found = {wish.option: wish for wish in wishes(["container", "not-needed"], (6, 12), known)}
    assert {name for name, wish in found.items() if wish.rule == "all subitems under PCI"} == {"PCI_QUIRKS"}
    assert found["PCI_QUIRKS"].value == "n"
    assert found["PCI_MSI"].value == "y"


def test_on_a_newer_tree_a_row_that_is_gone_is_reported_not_refused() -> None:
    def optional(version: tuple[int, int], names: tuple[str, ...]) -> bool:
        rows = {wish.option: wish for wish in wishes(["minimal"], version, symbols(*names))}
        return rows["INTEL_TDX_GUEST"].optional

    assert not optional((6, 12), ("ACPI",))
    assert not optional((7, 1), ("INTEL_TDX_GUEST",))
    assert optional((7, 1), ("ACPI",))


def test_on_a_newer_tree_a_row_holds_as_long_as_the_tree_has_its_option() -> None:
    assert "ZPOOL" in options((7, 1), ("ZPOOL",))
    assert "ZPOOL" not in options((7, 1), ("ZSWAP",))
    assert "RETPOLINE" not in options((7, 1), ("RETPOLINE",)), "the range of versions before 6.12 was checked"
