"""An explorer of results: choose study, measure, factors and baseline; the plot, tables and sentences are updated.

Use `explorer = widgets.explorer("results")` (a folder, or a DataFrame of rows) in a cell; `explorer.view` is the view
that is shown, `explorer.explored` its result. It works with any kind of study. In headless runs it shows the same
without a widget.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import plots, results
from acon_nb.analysis import explore
from acon_nb.analysis.explore import Explored, View
from acon_nb.errors import AconError, InvalidInput
from acon_nb.jupyter import show
from acon_nb.plots import save
from acon_nb.widgets.parts import dense, export_path, pre
from acon_nb.widgets.view import Displayed, accessible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_PICTURES = (".png", ".svg", ".pdf")
_ALL = "(all)"


class Explorer(Displayed):
    """An explorer of rows of results. `explored` is the result of `view`, or None if it has none: see `error`."""

    def __init__(self, source: str | Path | pd.DataFrame, view: View | None = None, *, kind: str = "") -> None:
        super().__init__()
        self._folder = None if not isinstance(source, str | Path) else Path(source)
        self._kind = kind
        self.study = ""
        self.rows = self._load(source)
        self.view = view or explore.first_view(self.rows)
        self.explored: Explored | None = None
        self.error = ""
        self.look(self.view)

    @property
    def studies(self) -> list[str]:
        """The studies that have rows in the folder."""
        return results.Store(self._folder).studies(self._kind) if self._folder is not None else []

    def choose(self, study: str) -> None:
        """Select the rows of one study ("": of all), and keep the view if these rows allow it."""
        if self._folder is None:
            return
        self.study = study
        self.rows = explore.measured(results.load(self._folder, self._kind, study or None))
        self.look(self.view)
        if self.explored is None:
            self.look(explore.first_view(self.rows))

    def look(self, view: View) -> Explored | None:
        """Change the view; if it is not possible for these rows, `error` is the reason."""
        self.view = view
        try:
            self.explored, self.error = explore.explore(self.rows, view), ""
        except InvalidInput as error:
            self.explored, self.error = None, str(error)
        return self.explored

    def export(self, path: Path) -> Path:
        """Write the plot (.png, .svg, .pdf) or the rows that count (.csv, .json, .md, .tex, .parquet).

        Errors: `InvalidInput` for another suffix, or if there is nothing to write.
        """
        if self.explored is None:
            raise InvalidInput("view", self.view.metric, "shows nothing", hint=self.error or "choose others")
        if path.suffix not in _PICTURES:
            return results.export(self.explored.rows, path)
        save(self.figure(), path)
        return path

    def _load(self, source: str | Path | pd.DataFrame) -> pd.DataFrame:
        rows = explore.measured(results.load(source, self._kind) if isinstance(source, str | Path) else source)
        if rows.empty:
            raise InvalidInput("results", self._folder or "rows", "has no rows", hint="run a study first")
        return rows

    def figure(self) -> Figure:
        """Draw what is shown."""
        return self.drawn(plots.plot_study, self.explored)

    def parts(self) -> list[Any]:
        """Return what is shown: the figure, the table and the sentences."""
        if self.explored is None:
            return [show.table(results.frame([{"nothing to show": self.error}]))]
        sentences = results.frame({"compared": text} for text in self.explored.sentences)
        compared = [show.table(sentences)] if self.explored.sentences else []
        return [self.figure(), show.table(self.explored.summary), *compared]

    def widget(self) -> Any:
        """Return the explorer."""
        return _View(self).box


def explorer(source: str | Path | pd.DataFrame, view: View | None = None, *, kind: str = "") -> Explorer:
    """Create an explorer of a folder of results or of rows; show it as the last value of a cell.

    `kind` is the kind of study, for a folder that has rows of several.
    """
    return Explorer(source, view, kind=kind)


class _View:
    """The widgets, created only when they are displayed."""

    def __init__(self, shown: Explorer) -> None:
        import ipywidgets as w

        self.shown = shown
        style, wide = {"description_width": "6em"}, {"width": "97%"}

        def choice(label: str) -> Any:
            return w.Dropdown(options=[], description=label, style=style, layout=wide)

        self.fields = {
            name: choice(label)
            for name, label in {
                "study": "Study", "clock": "Clock", "metric": "Measure", "x": "Across", "colour": "Colour",
                "facet": "Panels", "baseline": "Baseline",
            }.items()
        }  # fmt: skip
        self.effect = w.Text(placeholder="share, such as 0.01", description="Matters", style=style, layout=wide)
        self.file = w.Text("explorer.png", description="File", style=style, layout={"width": "18em"})
        self.button = w.Button(description="Export", icon="download", layout={"width": "8em"})
        self.error, self.message = w.HTML(), w.HTML()
        self.plot = w.HTML(layout={"max_width": "100%"})
        self.summary, self.sentences = w.HTML(), w.HTML()
        left = w.VBox([*self.fields.values(), self.effect], layout={"width": "32%"})
        right = w.VBox([self.plot, self.error], layout={"width": "68%"})
        export = w.HBox([self.file, self.button, self.message])
        self.box = accessible(w.VBox([w.HBox([left, right]), self.sentences, self.summary, export]))
        self._setting = False
        self._offer()
        for name, field in self.fields.items():
            field.observe(lambda _, name=name: self._take(name), names="value")
        self.effect.observe(lambda _: self._take("effect"), names="value")
        self.button.on_click(lambda _: self._export())
        self._draw()

    def _offer(self) -> None:
        """Set the options of the fields to what these rows have, and their values to the view."""
        rows, view = self.shown.rows, self.shown.view
        clocks = explore.clocks(rows)
        clock = view.clock or next(iter(clocks), "wall")
        factors = explore.factors(rows[rows["clock"] == clock] if clocks else rows)
        others = [("(none)", ""), *((name, name) for name in factors)]
        levels = explore.levels(rows, view.x) if view.x in factors else []
        offers: dict[str, tuple[list[Any], Any]] = {
            "study": ([(_ALL, ""), *((name, name) for name in self.shown.studies)], self.shown.study),
            "clock": (clocks, clock),
            "metric": (explore.metrics(rows, clock), view.metric),
            "x": (factors, view.x),
            "colour": (others, view.colour),
            "facet": (others, view.facet),
            "baseline": ([("(the plan's)", ""), *((name, name) for name in levels)], view.baseline),
        }
        self._setting = True
        for name, (options, value) in offers.items():
            field = self.fields[name]
            if tuple(options) != tuple(field.options):
                field.options = options
            values = [option[1] if isinstance(option, tuple) else option for option in options]
            field.value = value if value in values else (values[0] if values else None)
        self._setting = False

    def _take(self, changed: str) -> None:
        """Read the fields into the view; errors are shown immediately."""
        if self._setting:
            return
        if changed == "study":
            self.shown.choose(self.fields["study"].value)
        else:
            try:
                self.shown.look(self._view_of_fields(changed))
            except InvalidInput as error:
                self.shown.explored, self.shown.error = None, str(error)
                self._draw()
                return
        self._offer()
        self._draw()

    def _view_of_fields(self, changed: str) -> View:
        """Return the view of the fields. A change of clock or factor resets the fields that it makes invalid."""
        values = {name: field.value or "" for name, field in self.fields.items() if name != "study"}
        if changed == "clock":
            measures = explore.metrics(self.shown.rows, values["clock"])
            values["metric"] = values["metric"] if values["metric"] in measures else measures[0]
            values |= {"colour": "", "facet": "", "baseline": ""}
        if changed == "x":
            values["baseline"] = ""
            values |= {name: "" for name in ("colour", "facet") if values[name] == values["x"]}
        text = self.effect.value.strip()
        try:
            effect = float(text) if text else None
        except ValueError as error:
            raise InvalidInput("minimum_effect", text, "is not a share", hint="such as 0.01 for 1 %") from error
        return replace(self.shown.view, **values, minimum_effect=effect)

    def _draw(self) -> None:
        explored = self.shown.explored
        self.error.value = pre(self.shown.error, bad=True) if self.shown.error else ""
        self.plot.layout.display = "" if explored is not None else "none"
        if explored is None:
            self.sentences.value = self.summary.value = ""
            return
        self.plot.value = show.image(self.shown.figure())
        self.sentences.value = pre("\n".join(explored.sentences) or "Only one level: nothing to compare.")
        self.summary.value = dense(show.table(explored.summary).to_html())

    def _export(self) -> None:
        try:
            path = self.shown.export(export_path(self.file.value))
            self.message.value = pre(f"written: {path}")
            self.shown.keep()
        except (AconError, OSError) as error:
            self.message.value = pre(str(error), bad=True)
