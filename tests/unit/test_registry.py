"""Kinds of study as other distributions register them: what is found, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acon_nb import registry
from acon_nb.errors import AconError, InvalidInput
from acon_nb.results import columns
from acon_nb.results.metrics import metric, metric_on
from acon_nb.study import kinds, plan

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution with one module and one entry point where Python looks for them."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(distribution: str, name: str, target: str, code: str = "KIND = 3\n") -> Path:
        package = tmp_path / target.partition(".")[0].partition(":")[0]
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        (package / "kind.py").write_text(code)
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {target}\n")
        registry.refresh()
        return package

    yield put
    registry.refresh()
    for name in [name for name in sys.modules if name.startswith("acon_test_")]:
        del sys.modules[name]


def test_the_kinds_of_the_package_itself_are_there() -> None:
    assert kinds.names() == ("boot", "swap")
    assert {kinds.kind(name).name for name in kinds.names()} == {"boot", "swap"}


@pytest.mark.parametrize("name", ["boot", "swap"])
def test_what_a_kind_names_is_there(name: str) -> None:
    kind = kinds.kind(name)
    assert all(callable(kind.figure(figure)) for figure in kind.figures)
    assert not kind.live or callable(kinds.named_object(kind.live))
    assert {metric(measure).name for measure in (*kind.measures, *kind.followed)}
    assert {*kind.shown, *kind.alike} <= {item.name for item in dataclasses.fields(kind.factors)}


def test_what_a_kind_of_another_distribution_brings_is_found_without_running_it(install: Install) -> None:
    package = install("snow", "snow", "acon_test_snow.kind:KIND", "raise RuntimeError('not yet')\n")
    (package / "plans").mkdir()
    (package / "plans/winter.toml").write_text('study = "snow"\n')
    assert kinds.names() == ("boot", "snow", "swap")
    assert "winter" in plan.built_in()
    assert plan.load("winter").study == "snow"
    assert "acon_test_snow.kind" not in sys.modules


@pytest.mark.parametrize(
    ("target", "code", "reason"),
    [
        ("acon_test_a.kind:KIND", "import no_such_module\n", "No module named 'no_such_module'"),
        ("acon_test_b.kind:KIND", "1 / 0\n", "division by zero"),
        ("acon_test_c.kind:NONE", "KIND = 3\n", "has no attribute 'NONE'"),
        ("acon_test_d.none:KIND", "KIND = 3\n", "No module named 'acon_test_d.none'"),
        ("acon_test_e.kind:KIND", "KIND = 3\n", "which is of type int"),
        ("acon_test_f.kind:KIND", "from acon_nb.boot.kind import KIND\n", "which is the kind 'boot'"),
    ],
)
def test_a_kind_that_does_not_load_is_named_with_its_distribution(
    install: Install, target: str, code: str, reason: str
) -> None:
    install("snow", "snow", target, code)
    with pytest.raises(AconError, match=reason) as caught:
        kinds.kind("snow")
    assert "snow 1.0" in str(caught.value)
    assert kinds.kind("boot").name == "boot", "the others are not touched"


def test_two_distributions_cannot_both_register_a_name(install: Install) -> None:
    install("other", "swap", "acon_test_g.kind:KIND")
    with pytest.raises(InvalidInput, match=r"study='swap': is registered by other 1\.0 and the checkout"):
        kinds.kind("swap")
    assert kinds.names() == ("boot", "swap")


def test_two_plans_of_one_name_are_refused_with_both_files(install: Install) -> None:
    package = install("snow", "snow", "acon_test_h.kind:KIND")
    (package / "plans").mkdir()
    (package / "plans/quick.toml").write_text('study = "snow"\n')
    with pytest.raises(InvalidInput, match=r"boot/plans/quick\.toml and .*acon_test_h/plans/quick\.toml"):
        plan.load("quick")


COLUMN = '[[column]]\nname = "depth_mm"\ntype = "number"\nmeaning = "of the snow"\n'


def test_the_columns_of_another_kind_are_measures_too(install: Install) -> None:
    package = install("snow", "snow", "acon_test_j.kind:KIND")
    (package / "columns.toml").write_text(
        'factor_words = ["snow="]\n[words.seasons]\nwinter = "the cold season"\n'
        + COLUMN + 'label = "depth"\nunit = "m"\nscale = 1000\nmore_is_better = true\nclock = "wall"\n'
        '[[column]]\nname = "*_flakes"\ntype = "integer"\nmeaning = "of a season"\nlabel = "flakes in {}"\n'
        'words = "seasons"\nclosed = true\nunit = ""\n'
    )  # fmt: skip
    depth = metric("depth_mm")
    assert (depth.label, depth.unit, depth.scale, depth.is_worse(0.5), depth.clock) == (
        "depth",
        "m",
        1000,
        True,
        "wall",
    )
    assert metric("winter_flakes").label == "flakes in the cold season"
    assert (columns.type_of("winter_flakes"), columns.type_of("spring_flakes")) == ("integer", "any")
    assert "snow=" in columns.factor_words()
    with pytest.raises(InvalidInput, match="'spring_flakes': is not a measure"):
        metric("spring_flakes")
    with pytest.raises(InvalidInput, match="exists only on the wall clock"):
        metric_on("depth_mm", "instructions")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (COLUMN + 'units = "m"\n', "units='m': is not a field of a column of .*columns.toml"),
        (COLUMN + 'words = "seasons"\n', "words='seasons': are not in"),
        (COLUMN.replace("number", "float"), "type='float'"),
        (COLUMN.replace("depth_mm", "a*b*c"), r"name='a\*b\*c'"),
        (COLUMN.replace("depth_mm", "seconds"), "column='seconds': is described for any study and snow studies"),
        ("[[columns]]\n", "has an unknown table 'columns'"),
        ("[[column]\n", "columns.toml': cannot be read"),
    ],
)
def test_a_file_of_columns_that_is_not_valid_is_named(install: Install, text: str, words: str) -> None:
    package = install("snow", "snow", "acon_test_k.kind:KIND")
    (package / "columns.toml").write_text(text)
    with pytest.raises(InvalidInput, match=words):
        columns.columns()


def test_an_installed_package_that_registers_nothing_says_how_to_get_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Install
) -> None:
    """An install of a version before kinds registered themselves, or a copy of the package without its metadata."""
    monkeypatch.setattr(registry, "_PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    registry.refresh()
    with pytest.raises(InvalidInput, match="the installed acon-nb registers no kind of study") as caught:
        kinds.kind("boot")
    assert "pip install" in caught.value.hint


def test_a_checkout_registers_what_its_project_file_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Install
) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        f'[project]\nname = "acon-nb"\n[project.entry-points."{registry.GROUP}"]\nfog = "fog.kind:KIND"\n'
    )
    monkeypatch.setattr(registry, "_PROJECT", project)
    install("snow", "snow", "acon_test_i.kind:KIND")
    assert kinds.names() == ("fog", "snow")
    with pytest.raises(AconError, match="'fog' cannot be loaded from the checkout"):
        kinds.kind("fog")
