from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import acon_nb

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONDA_NAMES = {"matplotlib": "matplotlib-base", "docker": "docker-py"}
HEAVY = (
    *("pandas", "matplotlib", "numpy", "ipywidgets", "scipy", "pyarrow", "docker", "papermill", "nbconvert"),
    *("distributed", "dask"),
)


def requirement(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([\w.-]+?)\s*(>=[\w.]+)?", text.strip())
    assert match, text
    return match.group(1), match.group(2) or ""


def test_conda_and_pip_install_the_same() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = dict(map(requirement, [*project["dependencies"], *extras["lab"], *extras["docker"], *extras["cluster"]]))
    wanted = {CONDA_NAMES.get(name, name): least for name, least in wanted.items()}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (by_pip,) = [item["pip"] for item in listed if isinstance(item, dict)]
    found = dict(
        requirement(text) for text in [*listed, *by_pip] if isinstance(text, str) and not text.startswith("-e")
    )
    assert found.pop("python") == project["requires-python"]
    found.pop("pip")
    assert found == wanted


def test_the_dev_container_is_the_dockerfile_with_its_user() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert f"USER {container['remoteUser']}\n" in dockerfile
    for port in container["forwardPorts"]:
        assert f"EXPOSE {port}\n" in dockerfile


def test_the_extra_all_has_all() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert extras["all"] == [f"acon-nb[{','.join(name for name in extras if name != 'all')}]"]


def test_everything_that_a_wheel_takes_in_is_there() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source in [*wheel["force-include"], *wheel["packages"]]:
        assert any((ROOT / source).iterdir()), source


def test_the_wheel_holds_the_console_its_licence_the_notebooks_and_the_kinds_of_study(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    static = {f"acon_nb/widgets/static/{name}" for name in ("console.js", "console.css", "LICENSE-xterm.txt")}
    assert static <= names
    assert {f"acon_nb/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= names
    assert {f"acon_nb/{kind}/{file}" for kind in ("boot", "swap") for file in ("columns.toml", "kind.py")} <= names
    assert {"acon_nb/boot/plans/quick.toml", "acon_nb/swap/plans/paper.toml"} <= names
    (points,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    assert (
        "[acon_nb.studies]\nboot = acon_nb.boot.kind:KIND\nswap = acon_nb.swap.kind:KIND"
        in archive.read(points).decode()
    )
    assert not [name for name in names if "node_modules" in name or ".ipynb_checkpoints" in name]


def test_licence_and_readme_are_there() -> None:
    for name in [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]:
        assert (ROOT / name).stat().st_size


def python(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("module", ["acon_nb", "acon_nb.cli"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    loaded = python("-c", f"import sys, {module}; print(*sys.modules)").stdout.split()
    assert sorted(set(HEAVY) & set(loaded)) == []


def test_importing_the_package_takes_under_a_third_of_a_second() -> None:
    def seconds() -> float:
        (line,) = [
            x for x in python("-X", "importtime", "-c", "import acon_nb").stderr.splitlines() if x.endswith("acon_nb")
        ]
        return int(line.split("|")[1]) / 1e6

    assert min(seconds() for _ in range(3)) < 0.3


def test_rooms_are_reached_by_attribute_and_others_are_named() -> None:
    import acon_nb

    assert acon_nb.tdx.find_firmware
    assert {"kernel", "initrd", "vm", "__version__"} <= set(dir(acon_nb))
    with pytest.raises(AttributeError, match="no_such_room"):
        acon_nb.no_such_room  # noqa: B018


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == acon_nb.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["authors"]


def test_issue_forms_ask_for_what_is_needed() -> None:
    for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")):
        form = yaml.safe_load(path.read_text())
        assert path.name == "config.yml" or {"name", "description", "body"} <= set(form)
        assert all(field["attributes"]["label"] for field in form.get("body", []))


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == acon_nb.__version__


def test_the_newest_notes_are_of_this_version() -> None:
    first = re.search(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())
    assert first is not None
    assert first.group(1) == acon_nb.__version__
