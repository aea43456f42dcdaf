"""An explorer of profiles: flame graph, functions and their difference, with search, zoom and phases; exports.

Use `explorer = widgets.profile_explorer(chosen)` (of `profile.chosen`) as the last value of a cell. In headless runs
it shows the same as figures, a table and the flame graph, which stays interactive in a report.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import plots
from acon_nb.errors import AconError, InvalidInput
from acon_nb.jupyter import show
from acon_nb.profile import exports, flame, tables
from acon_nb.profile.chosen import ChosenProfiles
from acon_nb.widgets.parts import dense, export_path, pre
from acon_nb.widgets.view import Displayed, accessible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = {
    ".folded": "folded",
    ".pb.gz": "pprof",
    ".speedscope.json": "speedscope",
    ".callgrind": "callgrind",
    ".html": "flame",
}


def file_format(path: Path) -> str:
    """Return the format that the name of an export asks for. Errors: `InvalidInput` for a name without one."""
    name = next((name for suffix, name in _SUFFIXES.items() if path.name.endswith(suffix)), "")
    if not name:
        raise InvalidInput("file", path, "has no suffix of a known format", hint=", ".join(_SUFFIXES))
    return name


_DIFFERENCE = -1  # of a choice, in which None would be nothing


class ProfileExplorer(Displayed):
    """An explorer of chosen profiles; `shown` is the number of the profile that is shown, None for the difference."""

    def __init__(self, chosen: ChosenProfiles, *, most: int = 25) -> None:
        super().__init__()
        self.chosen = chosen
        self.most = most
        self.shown: int | None = None if chosen.difference is not None else 0

    @property
    def page(self) -> str:
        """The flame graph of what is shown, as HTML."""
        return self.chosen.page(self.shown)

    def figure(self) -> Figure:
        """Draw ranked bars of what is shown."""
        if self.shown is None and self.chosen.difference is not None:
            return plots.plot_profile_difference(self.chosen.difference, names=self.chosen.pair, most=self.most)
        return plots.plot_profile(tables.ranked(self.chosen.profiles[self.shown or 0]), most=self.most)

    def export(self, path: Path) -> Path:
        """Write what is shown in the format of its name: .html, or of one profile .folded, .pb.gz and others.

        Errors: `InvalidInput` for another name, and for the difference in a format of one profile.
        """
        format_name = file_format(path)
        if format_name == "flame":
            return flame.save(self.page, path)
        if self.shown is None:
            raise InvalidInput("file", path, "is a format of one profile", hint="choose a profile, or give a .html")
        return exports.save(self.chosen.profiles[self.shown], {format_name: path})[0]

    def parts(self) -> list[Any]:
        """Return what is shown: ranked bars, the table of functions, and the flame graph."""
        from IPython.display import HTML

        return [self.figure(), show.table(self.chosen.table(self.most)), HTML(flame.embedded(self.page))]

    def widget(self) -> Any:
        """Return the explorer."""
        return _View(self).box


def profile_explorer(chosen: ChosenProfiles, *, most: int = 25) -> ProfileExplorer:
    """Create an explorer of profiles; show it as the last value of a cell. `most` limits the rows of its tables."""
    return ProfileExplorer(chosen, most=most)


class _View:
    """The widgets, created only when they are displayed."""

    def __init__(self, explorer: ProfileExplorer) -> None:
        import ipywidgets as w

        self.explorer = explorer
        options = [(name, number) for number, name in enumerate(explorer.chosen.names)]
        if explorer.chosen.difference is not None:
            options.insert(0, ("difference", _DIFFERENCE))
        self.show = w.Dropdown(options=options, description="Show", layout={"width": "24em"})
        self.show.value = _DIFFERENCE if explorer.shown is None else explorer.shown
        self.file = w.Text("profile.html", description="File", layout={"width": "22em"})
        self.button = w.Button(description="Export", icon="download", layout={"width": "8em"})
        self.message, self.sentences, self.graph = w.HTML(), w.HTML(), w.HTML(layout={"width": "100%"})
        self.sentences.value = dense(pre("\n".join(explorer.chosen.sentences())))
        controls = w.HBox([self.show, self.file, self.button], layout={"flex_flow": "row wrap"})
        self.box = accessible(w.VBox([controls, self.message, self.sentences, self.graph]))
        self.show.observe(lambda _: self._draw(), names="value")
        self.button.on_click(lambda _: self._export())
        self._draw()

    def _draw(self) -> None:
        self.explorer.shown = None if self.show.value == _DIFFERENCE else self.show.value
        self.graph.value = flame.embedded(self.explorer.page)

    def _export(self) -> None:
        try:
            self.message.value = pre(f"written: {self.explorer.export(export_path(self.file.value))}")
            self.explorer.keep()
        except (AconError, OSError) as error:
            self.message.value = pre(str(error), bad=True)
