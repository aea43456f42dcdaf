"""Choices, ranges, modules and names of other series: what is asked for takes the place of what a profile asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.kernel import dotconfig, given, renames
from acon_nb.kernel.expressions import evaluate
from acon_nb.kernel.features import OptionRequest, parse_setting, requested_options
from acon_nb.kernel.kconfig import Symbol, read_symbols, rivals
from acon_nb.kernel.why import way_out, why_not

KCONFIG = """
config MODULES
\tbool "Modules"

config SMALL
\tbool "Fewer # than most" # a comment

choice
\tprompt "Kernel compression mode" if !SMALL
\tdefault KERNEL_GZIP
config KERNEL_GZIP
\tbool "Gzip"
config KERNEL_XZ
\tbool "XZ"
config KERNEL_ZSTD
\tbool "ZSTD"
endchoice

choice
\tprompt "Another choice"
config HZ_100
\tbool "100 # per second"
config HZ_250
\tbool "250"
endchoice

config NR_CPUS_END
\tint
\tdefault 512

config NR_CPUS
\tint "Processors"
\trange 2 NR_CPUS_END if !SMALL
\trange 1 1

config CMDLINE_BOOL
\tbool "Built-in command line"

config CMDLINE
\tstring "Words"
\tdepends on CMDLINE_BOOL

config NEEDS_WORDS
\tbool "Needs words"
\tdepends on CMDLINE != ""

config IF_MODULES
\tbool "Only with what modules need"
\tdepends on CMDLINE_BOOL if MODULES

config OLD_SWITCH
\tbool
\ttransitional

config NEW_SWITCH
\tbool "Switch"
\tdefault OLD_SWITCH

config ZRAM
\ttristate "Compressed RAM"

config MITIGATION_RETPOLINE
\tbool "Avoid speculative indirect branches in kernel"
"""


@pytest.fixture(scope="module")
def symbols(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Symbol]:
    tree = tmp_path_factory.mktemp("tree")
    (tree / "Kconfig").write_text(KCONFIG)
    return read_symbols(tree)


def test_a_users_member_of_a_choice_takes_the_place_of_the_profiles(symbols: dict[str, Symbol]) -> None:
    wanted = {r.option: r.value for r in requested_options(["minimal"], (6, 12), symbols, ["KERNEL_XZ=y"])}
    assert wanted["KERNEL_XZ"] == "y"
    assert "KERNEL_ZSTD" not in wanted, "the profile's"
    with pytest.raises(InvalidInput, match="same choice as KERNEL_XZ"):
        requested_options(["minimal"], (6, 12), symbols, ["KERNEL_XZ=y", "KERNEL_GZIP=y"])
    both = requested_options(["minimal"], (6, 12), symbols, ["KERNEL_XZ=y", "HZ_250=y", "KERNEL_GZIP=n"])
    assert [one.option for one in both if one.group == "set"] == ["KERNEL_XZ", "HZ_250", "KERNEL_GZIP"]


def test_the_other_members_of_a_choice_are_turned_off(symbols: dict[str, Symbol]) -> None:
    assert set(rivals(symbols["KERNEL_XZ"], symbols)) == {"KERNEL_GZIP", "KERNEL_ZSTD"}
    assert rivals(symbols["ZRAM"], symbols) == ()
    text = dotconfig.fragment([parse_setting("KERNEL_XZ=y")], symbols)
    assert dotconfig.parse(text) == {"KERNEL_GZIP": "n", "KERNEL_ZSTD": "n", "KERNEL_XZ": "y"}


def test_a_string_that_is_not_set_is_empty(symbols: dict[str, Symbol]) -> None:
    """With CMDLINE_BOOL on, the catalogue's CMDLINE=n must not become the command line `n`."""
    wanted = requested_options(["container"], (6, 12), symbols, ["CMDLINE_BOOL=y"])
    assert 'CONFIG_CMDLINE=""\n' in dotconfig.fragment(wanted, symbols)


@pytest.mark.parametrize(
    ("setting", "config", "why"),
    [
        ("ZRAM=m", {"ZRAM": "y"}, "m needs MODULES (n): without modules it is y or n"),
        ("KERNEL_XZ=y", {"KERNEL_ZSTD": "y"}, "KERNEL_ZSTD (y) is chosen in the choice of which it is a member"),
        ("KERNEL_XZ=y", {"SMALL": "y"}, "needs !SMALL (y)"),
        ("KERNEL_ZSTD=n", {"KERNEL_ZSTD": "y"}, "set another member of it, KERNEL_GZIP, KERNEL_XZ"),
        ("NR_CPUS=8192", {"NR_CPUS_END": "512"}, "it takes 2 to 512 (NR_CPUS_END) where !SMALL (n)"),
        ("NR_CPUS=0x1000", {"NR_CPUS_END": "512"}, "it takes 2 to 512 (NR_CPUS_END) where !SMALL (n)"),
        ("NR_CPUS=8", {"SMALL": "y", "NR_CPUS_END": "512"}, "it takes 1 to 1"),
        ("NR_CPUS_END=4", {}, "its defaults decide"),
        ("IF_MODULES=y", {"MODULES": "y"}, "needs CMDLINE_BOOL (n) || !MODULES (y)"),
        ("IF_MODULES=y", {"MODULES": "n"}, "only the compiler can tell"),
        ("NEEDS_WORDS=y", {}, 'needs CMDLINE (n) != ""'),
        ("NEEDS_WORDS=y", {"CMDLINE": "quiet"}, "only the compiler can tell"),
        ("OLD_SWITCH=y", {}, "it is a former name: set NEW_SWITCH"),
    ],
)
def test_why_not(symbols: dict[str, Symbol], setting: str, config: dict[str, str], why: str) -> None:
    request = parse_setting(setting)
    assert why in why_not(request.option, request.value, config, symbols)


def test_a_quoted_number_sign_is_no_comment(symbols: dict[str, Symbol]) -> None:
    assert symbols["SMALL"].prompt == "Fewer # than most"
    assert symbols["HZ_100"].prompt == "100 # per second"


@pytest.mark.parametrize(
    ("expression", "value"),
    [('WORDS = ""', "y"), ('WORDS != ""', "n"), ('WORDS = "n"', "y"), ('"" = WORDS', "y")],
)
def test_a_string_that_is_not_in_the_config_is_empty(expression: str, value: str) -> None:
    assert evaluate(expression, {}) == value


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("zram", "did you mean ZRAM?"),
        ("RETPOLINE", "here it is called MITIGATION_RETPOLINE"),
        ("OLD_SWITCH", "it is a former name: set NEW_SWITCH"),
    ],
)
def test_a_name_of_elsewhere_is_refused_with_the_one_of_here(
    symbols: dict[str, Symbol], option: str, words: str
) -> None:
    (row,) = dotconfig.compare([OptionRequest(option=option, value="y")], {}, symbols)
    assert words in row.why


def test_a_rename_is_an_option_that_went_and_one_with_its_prompt_that_came() -> None:
    def tree(**prompts: str) -> dict[str, Symbol]:
        return {name: Symbol(name=name, prompt=prompt) for name, prompt in prompts.items()}

    before = tree(SAME="Same", OLD="Avoid branches", GONE="Nobody has it", TWICE="lzo")
    after = tree(SAME="Same", NEW="avoid branches", ONE="lzo", TWO="lzo")
    assert renames.between(before, after) == {"OLD": "NEW"}


def test_names_are_followed_in_both_directions() -> None:
    old, new = "PAGE_TABLE_ISOLATION", "MITIGATION_PAGE_TABLE_ISOLATION"
    assert renames.became(old, {new: Symbol(name=new)}) == new
    assert renames.became(new, {old: Symbol(name=old)}) == old
    assert renames.became("NOT_AN_OPTION", {new: Symbol(name=new)}) == ""


def test_what_becomes_of_a_given_config(symbols: dict[str, Symbol], tmp_path: Path) -> None:
    path = tmp_path / ".config"
    path.write_text("CONFIG_ZRAM=y\nCONFIG_KERNEL_GZIP=y\nCONFIG_RETPOLINE=y\nCONFIG_NR_CPUS=4\nCONFIG_GONE=y\n")
    assert given.renamed(path, symbols) == {"RETPOLINE": "MITIGATION_RETPOLINE"}
    requests = (*given.renamed_requests(path, symbols), parse_setting("KERNEL_XZ=y"))
    assert [(one.option, one.value, one.optional) for one in requests[:1]] == [("MITIGATION_RETPOLINE", "y", True)]
    values = {"ZRAM": "y", "KERNEL_XZ": "y", "MITIGATION_RETPOLINE": "y", "NR_CPUS": "2"}
    rows = given.results(path, requests, values, symbols)
    assert {row.option: row.ok for row in rows} == {"ZRAM": True, "NR_CPUS": False, "GONE": False}
    done = dotconfig.compare(requests, values, symbols)
    text = dotconfig.summary((*done, *rows))
    assert text == "2 of 2 requested options applied, 1 of 3 options of the given .config kept"
    assert dotconfig.summary(rows) == "1 of 3 options of the given .config kept"


@pytest.mark.parametrize(
    ("reasons", "way"),
    [
        (["m needs MODULES (n)"], "allow modules (--modules), or set it to y; or omit it"),
        (["it takes 2 (A) to 512 (B)"], "give a number within its limits; or omit it"),
        (["needs SWAP (n)"], "set the options it depends on too (--set OPT=VAL); or omit it"),
    ],
)
def test_the_way_out_fits_the_reason(reasons: list[str], way: str) -> None:
    assert way_out(reasons) == way
