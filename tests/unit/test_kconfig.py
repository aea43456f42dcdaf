import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.kernel.expressions import evaluate, missing_options, requirements
from acon_nb.kernel.kconfig import Symbol, help_text, read_symbols, unmet
from acon_nb.kernel.why import propose, why_not

CONFIG = {"A": "y", "B": "n", "M": "m", "NUM": "8", "TEXT": "x86"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("A", "y"),
        ("B", "n"),
        ("M", "m"),
        ("ABSENT", "n"),
        ("!B", "y"),
        ("A && M", "m"),
        ("B || M", "m"),
        ("A && (B || !ABSENT)", "y"),
        ("!(A && M)", "m"),
        ("A = y", "y"),
        ("A!=y", "n"),
        ("NUM >= 8", "y"),
        ("NUM < 8", "n"),
        ('TEXT = "x86"', "y"),
        ("$(cc-option,-mfoo)", "?"),
        ("B && $(cc-option,-mfoo)", "n"),
        ("A || $(cc-option,-mfoo)", "y"),
        ("A && $(shell,echo (x))", "?"),
        ("A &&", "?"),
    ],
)
def test_expressions_evaluate_as_in_kconfig(expression, value):
    assert evaluate(expression, CONFIG) == value


@settings(max_examples=100, deadline=None)
@given(st.text('AB M!()&|=<>"$yn', max_size=30))
def test_any_expression_has_a_value(text):
    assert evaluate(text, CONFIG) in {"y", "m", "n", "?"}
    missing_options(text, CONFIG)


@pytest.fixture
def symbols(tmp_path):
    (tmp_path / "arch/x86").mkdir(parents=True)
    (tmp_path / "Kconfig").write_text('mainmenu "x"\nsource "arch/$(SRCARCH)/Kconfig"\nsource "missing/Kconfig"\n')
    (tmp_path / "arch/x86/Kconfig").write_text(
        """if-success = $(shell,{ $(1); } && echo "$(2)")
config ACPI
\tbool "ACPI"
\thelp
\t  Long text.
\t  depends on nothing at all
menu "Firmware"
\tdepends on ACPI
config EFI
\tbool "EFI" # with a comment
if EFI
config EFI_STUB
\tbool "stub"
endif
endmenu
config TDX
\tbool "TDX"
\tdepends on EFI_STUB && \\
\t\tX2APIC
config X2APIC
\tbool "x2apic" if EXPERT
\tdepends on LOCAL || !ACPI
config LOCAL
\tbool "local"
config EXPERT
\tbool "expert"
config HIDDEN
\tbool
config DOUBLE
\tbool "one"
\tdepends on HIDDEN
config DOUBLE
\tbool "two"
\tdepends on LOCAL
"""
    )
    return read_symbols(tmp_path)


def test_menus_ifs_and_prompts_are_conditions_of_their_contents(symbols):
    assert symbols["EFI"].definitions == (("ACPI",),)
    assert symbols["EFI_STUB"].definitions == (("ACPI", "EFI"),)
    assert symbols["X2APIC"].definitions == (("EXPERT", "LOCAL || !ACPI"),)
    assert symbols["ACPI"].definitions == ((),)
    assert not symbols["HIDDEN"].prompted


def test_the_definition_with_the_fewest_unmet_conditions_counts(symbols):
    assert unmet(symbols["DOUBLE"], {"LOCAL": "y"}) == ()
    assert len(unmet(symbols["DOUBLE"], {})) == 1


def test_the_chain_is_given_in_kconfigs_terms(symbols):
    said = why_not("TDX", "y", {"LOCAL": "y", "EXPERT": "y", "X2APIC": "y"}, symbols)
    assert said == "needs EFI_STUB (n); EFI_STUB needs ACPI (n), EFI (n); EFI needs ACPI (n)"
    assert "only other options select it" in why_not("HIDDEN", "y", {}, symbols)
    assert "no such option" in why_not("NOT_AN_OPTION", "y", {}, symbols)


def test_a_proposal_names_all_that_is_needed(symbols):
    assert dict(propose("TDX", {}, symbols)) == {
        "EFI_STUB": "y",
        "X2APIC": "y",
        "EXPERT": "y",
        "EFI": "y",
        "ACPI": "y",
    }
    assert propose("ACPI", {}, symbols) == ()


def test_files_that_include_each_other_are_refused(tmp_path):
    (tmp_path / "Kconfig").write_text('source "Kconfig"\n')
    with pytest.raises(InvalidInput, match="include each other"):
        read_symbols(tmp_path)


def test_a_symbol_without_definitions_has_no_unmet_conditions():
    assert unmet(Symbol(name="X"), {}) == ()


KCONFIG = """menuconfig PCI
\tbool "PCI support"

if PCI

config PCI_MSI
\tbool "MSI"
\tselect GENERIC_MSI_IRQ
\thelp
\t  First line.

\t    Indented line.
\t  config NOT_AN_ENTRY

config PCI_HIDDEN
\tbool

choice
\tprompt "Bus"
config PCIE_BUS_SAFE
\tbool "Safe"
endchoice

endif

config VGA
\ttristate "Cards" \\
\t\tif PCI_MSI

config OTHER
\tbool "No child"
\tselect VGA if PCI

config LATE
\tbool "Depends on PCI, but stands elsewhere"
\tdepends on PCI
"""


@pytest.fixture
def menu(tmp_path):
    (tmp_path / "Kconfig").write_text(KCONFIG)
    return tmp_path, read_symbols(tmp_path)


def test_a_submenu_ends_where_the_next_entry_does_not_depend_on_its_head(menu):
    _, symbols = menu
    assert {name for name, symbol in symbols.items() if "PCI" in symbol.under} == {
        "PCI_MSI",
        "PCI_HIDDEN",
        "PCIE_BUS_SAFE",
        "VGA",
    }
    assert [name for name, symbol in symbols.items() if symbol.choice] == ["PCIE_BUS_SAFE"]


def test_an_option_has_prompt_location_and_help(menu):
    tree, symbols = menu
    assert (symbols["PCI_MSI"].prompt, symbols["PCI_MSI"].location) == ("MSI", "Kconfig:6")
    assert help_text(tree, symbols["PCI_MSI"]) == "First line.\n\n  Indented line.\nconfig NOT_AN_ENTRY"
    assert help_text(tree, symbols["PCI_HIDDEN"]) == help_text(tree, symbols["LATE"]) == ""
    assert symbols["VGA"].definitions == (("PCI_MSI",),)


def test_what_keeps_an_option_on_is_named(menu):
    _, symbols = menu
    assert why_not("VGA", "n", {"PCI": "y", "OTHER": "y", "VGA": "y"}, symbols) == "turned on by OTHER"
    assert "its default decides" in why_not("VGA", "n", {"PCI": "n", "OTHER": "y", "VGA": "y"}, symbols)


@pytest.mark.parametrize(
    ("expression", "needed"),
    [
        ("A && B", {"A", "B"}),
        ("A || B", set()),
        ("(A && (B || C))", {"A"}),
        ("A=y && B!=n && C=m && !D", {"A", "B"}),
        ("", set()),
    ],
)
def test_requirements_of_an_expression(expression, needed):
    assert requirements(expression) == needed


@pytest.mark.parametrize("text", ["(" * 5000 + "A" + ")" * 5000, "!" * 5000 + "A", "$(" * 5000])
def test_a_deeply_nested_expression_is_unknown(text, tmp_path):
    (tmp_path / "Kconfig").write_text(f'config A\n\tbool "a"\nconfig B\n\tbool "b"\n\tdepends on {text}\n')
    symbols = read_symbols(tmp_path)
    assert evaluate(text, {"A": "y"}) == "?"
    assert propose("B", {"A": "y"}, symbols) == ()
    assert why_not("B", "y", {"A": "y"}, symbols)


def test_lines_are_counted_as_editors_do(tmp_path):
    (tmp_path / "Kconfig").write_text('# a\x0cb\u2028c\nconfig A\n\tbool "a"\n\thelp\n\t  one\x0ctwo\n', "utf-8")
    symbol = read_symbols(tmp_path)["A"]
    assert symbol.location == "Kconfig:2"
    assert help_text(tmp_path, symbol).endswith("two")
