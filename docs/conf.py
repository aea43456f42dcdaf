"""The documentation site: `make docs` builds it from these pages, the notebooks and the package (Sphinx, MyST)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import reference_pages  # noqa: E402

from acon_nb import __version__  # noqa: E402

project = "acon_nb"
author = "the acon_nb authors"
release = version = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_click"]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]  # pages that are a list of one kind may begin at any level

html_theme = "furo"
html_title = f"acon_nb {release}"
html_static_path: list[str] = []
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # a notebook builds kernels and boots guests; what `make tour` executed is taken instead
nb_merge_streams = True
nb_output_stderr = "remove"  # progress

default_role = "code"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}

_UP = re.compile(r"\]\(\.\./([^)]+)\)")
_PAGES = {"CONTRIBUTING.md": "_generated/contributing.md", "CHANGELOG.md": "_generated/changelog.md"}


def _links_into_the_repository(_app: object, _docname: str, source: list[str]) -> None:
    """Pages link to files of the repository as its readers need it; those that are pages here, too, are found here."""

    def here(match: re.Match[str]) -> str:
        name = _PAGES.get(match[1], match[1].replace("notebooks/", "_generated/tutorials/"))
        return match[0] if name == match[1] else f"]({name})"

    source[0] = _UP.sub(here, source[0])


def _plain(*given: list[str]) -> None:
    """Docstrings are plain text: a name that ends in _ is no reference."""
    lines = given[-1]
    lines[:] = [re.sub(r"(?<=\w)_(?=[^\w`]|$)", r"\_", line) for line in lines]


def _paths(_app: object, _context: object, lines: list[str]) -> None:
    """A default that is a path is shown as it is typed."""
    lines[:] = [re.sub(r"PosixPath\('([^']*)'\)", r"\1", line) for line in lines]


def setup(app: object) -> None:
    """Write the pages that are made from the package before the sources are listed."""
    reference_pages.write(HERE / "_generated", ROOT)
    app.connect("source-read", _links_into_the_repository)  # type: ignore[attr-defined]
    app.connect("sphinx-click-process-options", _paths)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", _plain)  # type: ignore[attr-defined]
