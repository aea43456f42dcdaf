from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import KernelConfigError
from acon_nb.kernel.dotconfig import compare, fragment, parse, refuse_impossible, require
from acon_nb.kernel.features import OptionRequest, parse_setting
from acon_nb.kernel.kconfig import Symbol, read_symbols

KCONFIG = """\
mainmenu "Test"
source "drivers/Kconfig"
source "arch/$(SRCARCH)/Kconfig.cpu"

config MODULES
\tbool "Loadable modules"
\thelp
\t  depends on the reader's patience, and is
\t  bool in spirit.

menuconfig NET
\tbool "Networking"

config HIDDEN
\ttristate

choice
\tprompt "Which"
config FIRST
\tbool "First"
endchoice
"""
DRIVERS = """\
config ZRAM
\ttristate "Compressed RAM disk"
\tdepends on BLOCK && \\
\t\tMMU
\tdepends on NET || !MODULES
config ZRAM_SIZE
\tint "Size" if ZRAM
\tdefault 3
config BASE
\thex
\tprompt "Base address"
config NAME
\tstring "Name"
comment "not an option"
\tdepends on NOTHING
config WITH_DEFAULT
\tdef_bool y
"""

VALUES = {
    "bool": st.sampled_from("yn"),
    "tristate": st.sampled_from("ymn"),
    "int": st.integers(-(2**31), 2**31).map(str),
    "hex": st.integers(0, 2**32).map(hex),
    "string": st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters='"\\$`')),
}
NAME = st.from_regex(r"[A-Z0-9][A-Z0-9_a-z]{0,12}", fullmatch=True)


@pytest.fixture
def symbols(tmp_path: Path) -> dict[str, Symbol]:
    for name, text in {
        "Kconfig": KCONFIG,
        "drivers/Kconfig": DRIVERS,
        "arch/x86/Kconfig.cpu": 'config MCORE2\n\tbool "Core 2"\n',
        "arch/arm/Kconfig": 'config ARM_ONLY\n\tbool "no"\n',
    }.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_symbols(tmp_path / "tree")


@settings(max_examples=100, deadline=None)
@given(st.data(), st.dictionaries(NAME, st.sampled_from(sorted(VALUES)), max_size=6))
def test_requests_written_as_a_config_are_read_back(data: st.DataObject, kinds: dict[str, str]) -> None:
    chosen = {name: data.draw(VALUES[kind]) for name, kind in kinds.items()}
    symbols = {name: Symbol(name=name, kind=kind) for name, kind in kinds.items()}
    text = fragment((OptionRequest(option=name, value=value) for name, value in chosen.items()), symbols)
    empty = {name for name, kind in kinds.items() if kind == "string" and chosen[name] == "n"}  # n is "not set"
    assert parse(text) == chosen | dict.fromkeys(empty, "")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_can_be_read_as_a_config(text: str) -> None:
    assert all(isinstance(value, str) for value in parse(text).values())


def test_a_config_as_kconfig_writes_it() -> None:
    text = '# Linux/x86 6.12\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D="a \\"b\\" \\\\"\nCONFIG_E=0x10\n'
    assert parse(text) == {"A": "y", "B": "m", "C": "n", "D": 'a "b" \\', "E": "0x10"}
    assert parse("#CONFIG_A=y\nJUNK\nCONFIG_EMPTY=\n") == {"EMPTY": ""}


def test_options_of_a_tree(symbols: dict[str, Symbol]) -> None:
    expected = "MODULES NET HIDDEN FIRST ZRAM ZRAM_SIZE BASE NAME WITH_DEFAULT MCORE2"
    assert set(symbols) == set(expected.split())
    kinds = {name: symbol.kind for name, symbol in symbols.items()}
    assert [kinds[name] for name in ("NET", "ZRAM", "ZRAM_SIZE", "BASE", "NAME")] == [
        "bool", "tristate", "int", "hex", "string"
    ]  # fmt: skip
    conditions = [" ".join(words.split()) for words in symbols["ZRAM"].definitions[0]]
    assert conditions == ["BLOCK && MMU", "NET || !MODULES"]
    assert symbols["ZRAM_SIZE"].definitions == (("ZRAM",),)
    assert symbols["WITH_DEFAULT"].definitions == ((),)
    assert {name for name, symbol in symbols.items() if not symbol.prompted} == {"HIDDEN", "WITH_DEFAULT"}


def test_help_texts_are_not_dependencies(symbols: dict[str, Symbol]) -> None:
    assert symbols["MODULES"].definitions == ((),)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("NOT_AN_OPTION=y", "CONFIG_NOT_AN_OPTION=y: this tree has no such option"),
        ("NOT_AN_OPTION=n", "CONFIG_NOT_AN_OPTION=n: this tree has no such option"),
        ("ZRAN=y", "did you mean ZRAM"),
        ("ARM_ONLY=y", "CONFIG_ARM_ONLY=y: this tree has no such option"),
        ("NET=m", "CONFIG_NET=m: it is a bool"),
        ("NET=", "it is a bool"),
        ("ZRAM=yes", "CONFIG_ZRAM=yes: it is a tristate"),
        ("ZRAM_SIZE=big", "CONFIG_ZRAM_SIZE=big: it takes a whole number"),
        ("BASE=xyz", "CONFIG_BASE=xyz: it takes a hexadecimal number"),
        ("WITH_DEFAULT=3", "it is a bool"),
    ],
)
def test_an_impossible_request_is_refused_by_name(symbols: dict[str, Symbol], setting: str, words: str) -> None:
    with pytest.raises(KernelConfigError) as caught:
        refuse_impossible([parse_setting("NET=y"), parse_setting(setting)], symbols)
    assert words in str(caught.value)
    assert "1 kernel option cannot be set" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("setting", ["NET=y", "ZRAM=m", "ZRAM_SIZE=-1", "BASE=0xff", "NAME=any thing", "NAME="])
def test_a_possible_request_is_not_refused(symbols: dict[str, Symbol], setting: str) -> None:
    refuse_impossible([parse_setting(setting)], symbols)


def test_the_catalogue_may_turn_off_an_unknown_option_or_mark_it_optional(symbols: dict[str, Symbol]) -> None:
    refuse_impossible([OptionRequest(option="GONE", value="n", group="minimal")], symbols)
    refuse_impossible([OptionRequest(option="GONE", value="y", group="minimal", optional=True)], symbols)


@pytest.mark.parametrize(
    ("setting", "config", "why"),
    [
        ("ZRAM=y", {"BLOCK": "y"}, "needs MMU (n)"),
        ("ZRAM=y", {"BLOCK": "y", "MODULES": "y"}, "NET (n) || !MODULES (y)"),
        ("HIDDEN=y", {}, "only other options select it"),
        ("FIRST=y", {}, "only the compiler can tell"),
        ("GONE=y", {}, "no such option"),
        ("HIDDEN=n", {"HIDDEN": "y"}, "its default decides"),
    ],
)
def test_a_request_that_was_not_applied_is_explained(
    symbols: dict[str, Symbol], setting: str, config: dict[str, str], why: str
) -> None:
    request = parse_setting(setting)
    rows = compare([request], config, symbols)
    assert not rows[0].ok
    assert why in rows[0].why
    with pytest.raises(KernelConfigError) as caught:
        require(rows)
    assert f"CONFIG_{request.option} wanted {request.value}, is {config.get(request.option, 'n')}" in str(caught.value)
    assert caught.value.results == rows


@pytest.mark.parametrize(
    ("setting", "config"),
    [("A=y", {"A": "y"}), ("A=n", {}), ("A=n", {"A": "n"}), ("A=", {"A": ""}), ("A=", {}), ("A=64", {"A": "64"})],
)
def test_an_applied_request_is_ok(setting: str, config: dict[str, str]) -> None:
    (row,) = compare([parse_setting(setting)], config, {})
    assert row.ok
    assert row.why == ""
    require([row])


def test_an_optional_request_may_fail() -> None:
    rows = compare([OptionRequest(option="A", value="y", optional=True)], {}, {})
    assert not rows[0].ok
    require(rows)
