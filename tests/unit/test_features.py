from __future__ import annotations

import tomllib
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.kernel.features import (
    PROFILES,
    OptionRequest,
    advice,
    catalogue,
    groups,
    parse_setting,
    patches,
    requested_options,
    tables,
)
from acon_nb.kernel.kconfig import Symbol

GUIDE: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "data/guide_options.toml").read_text())
VERSIONS = [(5, 15), (6, 1), (6, 2), (6, 6), (6, 8), (6, 9), (6, 12), (6, 18)]


def symbols(*names: str) -> dict[str, Symbol]:
    return {name: Symbol(name=name, kind="bool", prompted=True) for name in names}


def options(version: tuple[int, int], known: tuple[str, ...] = (), profile: str = "guide") -> dict[str, str]:
    return {request.option: request.value for request in requested_options([profile], version, symbols(*known))}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in GUIDE.items() for name in names])
def test_every_name_of_the_guide_is_covered_in_its_group(group: str, name: str) -> None:
    rows = [row for row in catalogue() if row.group == group]
    assert any(
        name in (row.guide, row.option) or (row.rule == "pattern" and fnmatchcase(name, row.option)) for row in rows
    )


def test_the_guides_tables_are_complete() -> None:
    assert {group: len(names) for group, names in GUIDE.items()} == {
        "minimal": 24, "container": 38, "performance": 14, "security": 10, "not-needed": 38, "storage": 18
    }  # fmt: skip
    assert all(len(set(names)) == len(names) for names in GUIDE.values())


def test_every_guide_name_of_a_row_is_in_the_guide() -> None:
    for row in catalogue():
        if row.guide and row.guide != row.option:
            assert row.guide in GUIDE[row.group], row


def test_every_row_has_a_note_and_a_span_of_versions() -> None:
    for row in catalogue():
        assert row.note.endswith("."), row
        assert row.since < row.until, row


# What the guide's tables of options leave open ("Open:")
OPEN = {
    "VIRTIO_BALLOON",
    "BALLOON_COMPACTION",
    "PCIE_BUS_TUNE_OFF",
    "SCHED_CORE",
    "X86_INTEL_TSX_MODE_OFF",
    "RANDOMIZE_MEMORY",
}


def test_what_the_guide_leaves_open_is_answered_in_its_row() -> None:
    rows = {row.option: row for row in catalogue() if row.question or row.answer}
    assert set(rows) == OPEN
    for row in rows.values():
        assert row.question.endswith("?")
        assert row.answer.endswith(".")
        assert row.answer in row.text
        assert row.guide


def test_a_group_that_does_not_stand_alone_says_what_to_add() -> None:
    assert advice(["guide"]) == advice(["minimal"]) == ""
    for name, table in tables().items():
        assert not advice([*table.needs, name]), "what it needs is enough"
        assert name not in table.needs
        assert (advice([name]) == "") is (not table.needs)
        for needed in table.needs:
            assert set(tables()[needed].needs) <= set(table.needs), "what the needed ones need is listed, too"
    assert advice(["storage"]) == "the group storage does not stand alone: --profile minimal,container,storage"
    with pytest.raises(InvalidInput, match="no-such"):
        advice(["no-such"])


def test_the_groups_and_the_profiles() -> None:
    assert set(GUIDE) == set(PROFILES["guide"])
    assert {group for members in PROFILES.values() for group in members} <= set(groups())
    assert set(PROFILES["guide"]) < set(PROFILES["swap-study"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("profile", ["guide", "swap-study"])
def test_no_option_is_requested_twice_with_different_values(profile: str, version: tuple[int, int]) -> None:
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
def test_rows_apply_to_their_versions_only(version: tuple[int, int], there: set[str], absent: set[str]) -> None:
    found = set(options(version))
    assert there <= found
    assert not absent & found


def test_a_group_is_a_profile_and_profiles_add_up() -> None:
    both = {request.option for request in requested_options(["minimal", "storage"], (6, 12))}
    assert both == {
        request.option for group in ("minimal", "storage") for request in requested_options([group], (6, 12))
    }
    assert {request.group for request in requested_options(["security"], (6, 12))} == {"security"}


def test_a_profile_brings_its_patch_and_the_guide_none() -> None:
    assert patches(["guide", "study", "microvm"]) == ()
    (patch,) = patches(["guide", "delay-disk"])
    assert patches(["swap-study"]) == patches(["everything"]) == (patch,)
    assert "config BLK_DEV_DELAY" in patch.read_text()


def test_a_pattern_matches_options_of_the_tree_and_a_named_row_wins() -> None:
    found = options((6, 12), ("PERF_EVENTS_INTEL_UNCORE", "UNIX_DIAG", "INET_DIAG", "ZRAM"))
    assert found["PERF_EVENTS_INTEL_UNCORE"] == found["UNIX_DIAG"] == found["INET_DIAG"] == "n"
    assert found["ZRAM"] == "y"
    assert not any("*" in option for option in found)


def test_a_later_group_takes_the_place_of_an_earlier_ones_member_of_a_choice() -> None:
    members = ("KERNEL_ZSTD", "KERNEL_LZ4")
    known = {name: Symbol(name=name, kind="bool", prompted=True, choice="1") for name in members}
    given = {request.option: request.value for request in requested_options(["fast"], (6, 12), known)}
    assert "KERNEL_ZSTD" not in given
    assert given["KERNEL_LZ4"] == "y"
    assert dict(options_of("guide", known))["KERNEL_ZSTD"] == "y"


def options_of(profile: str, known: dict[str, Symbol]) -> list[tuple[str, str]]:
    return [(request.option, request.value) for request in requested_options([profile], (6, 12), known)]


def test_fastest_drops_the_mitigations_of_the_guide_and_fast_none() -> None:
    guide, fast, fastest = (dict(options_of(name, {})) for name in ("guide", "fast", "fastest"))
    on = [name for name, value in guide.items() if value == "y"]
    assert {name for name in on if fast.get(name) != "y"} == set()
    dropped = {name for name in on if fastest.get(name) != "y"}
    assert dropped == {"CPU_MITIGATIONS", "MITIGATION_RETPOLINE", "X86_KERNEL_IBT"}


def test_own_settings_come_last_and_win() -> None:
    found = {
        request.option: request
        for request in requested_options(["guide"], (6, 12), {}, ["ZRAM=n", "CONFIG_NEW=m", "ZRAM=m"])
    }
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
    assert parse_setting(text) == OptionRequest(option=option, value=value)


@pytest.mark.parametrize(
    "text",
    ["ZRAM", "", "=y", "A B=y", "ZRAM-X=y", "ZRAM*=n", "X=$(id)", "X=`id`", "X=a\nCONFIG_Y=y", 'X=a"b', "X=a\rb"],
)
def test_a_malformed_setting_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_setting(text)
    assert caught.value.hint


@pytest.mark.parametrize("profiles", [["nonsense"], ["guide", "nonsense"], [""], ["Guide"]])
def test_an_unknown_profile_is_refused_with_the_known_ones(profiles: list[str]) -> None:
    with pytest.raises(InvalidInput, match="profile") as caught:
        requested_options(profiles, (6, 12))
    assert "guide" in caught.value.hint


def test_an_option_that_a_pattern_matched_names_the_rule() -> None:
    known = symbols("PERF_EVENTS_INTEL_UNCORE", "PERF_EVENTS", "INET_DIAG", "INET")
    matched = {
        request.option: request.rule for request in requested_options(["not-needed"], (6, 12), known) if request.rule
    }
    assert matched == {"PERF_EVENTS_INTEL_UNCORE": "PERF_EVENTS_*", "INET_DIAG": "*_DIAG"}


def test_a_submenu_is_turned_off_except_named_options() -> None:
    known = symbols("PCI_MSI", "PCI_QUIRKS", "PCI_HIDDEN", "PCIE_BUS_SAFE", "VGA_ARB_MAX_GPUS", "ELSEWHERE")
    for name in known.keys() - {"ELSEWHERE"}:
        known[name] = replace(known[name], under=("PCI",))
    known["PCI_HIDDEN"] = replace(known["PCI_HIDDEN"], prompted=False)
    known["PCIE_BUS_SAFE"] = replace(known["PCIE_BUS_SAFE"], choice=True)
    known["VGA_ARB_MAX_GPUS"] = replace(known["VGA_ARB_MAX_GPUS"], kind="int")
    found = {request.option: request for request in requested_options(["container", "not-needed"], (6, 12), known)}
    assert {name for name, request in found.items() if request.rule == "all subitems under PCI"} == {"PCI_QUIRKS"}
    assert found["PCI_QUIRKS"].value == "n"
    assert found["PCI_MSI"].value == "y"


def test_on_a_newer_tree_a_removed_option_is_reported_not_refused() -> None:
    def optional(version: tuple[int, int], names: tuple[str, ...]) -> bool:
        rows = {request.option: request for request in requested_options(["minimal"], version, symbols(*names))}
        return rows["INTEL_TDX_GUEST"].optional

    assert not optional((6, 12), ("ACPI",))
    assert not optional((7, 1), ("INTEL_TDX_GUEST",))
    assert optional((7, 1), ("ACPI",))


def test_on_a_newer_tree_a_row_applies_while_its_option_exists() -> None:
    assert "ZPOOL" in options((7, 1), ("ZPOOL",))
    assert "ZPOOL" not in options((7, 1), ("ZSWAP",))
    assert "RETPOLINE" not in options((7, 1), ("RETPOLINE",)), "the range of versions before 6.12 was checked"
