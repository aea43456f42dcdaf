"""A form for a `Plan`: its factors and their levels, the number of cells, and an estimate of the time before it is run.

Use `designer = widgets.study_designer(plan, out)` in a cell; `designer.plan` is the plan in the fields. Nothing starts
until Run is pressed. In headless runs it shows the plan as a table and creates no widget.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.errors import AconError
from acon_nb.jupyter import show
from acon_nb.study import form
from acon_nb.study.estimate import Estimate
from acon_nb.study.kinds import estimate_of, kind, study_of
from acon_nb.study.plan import Plan
from acon_nb.study.runner import Study
from acon_nb.vm import end_text
from acon_nb.widgets.parts import Runner, dense, error_line, pre, scrolled, with_error
from acon_nb.widgets.view import Displayed, accessible

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_CELLS = 12


class StudyDesigner(Displayed):
    """A view of one `Plan`: `plan` has the values of the fields, `study` is the one started last, `rows` its rows."""

    def __init__(self, plan: Plan, out: Path, shown: Sequence[str]) -> None:
        super().__init__()
        kind(plan.study).check(plan)
        self.plan = plan
        self.out = out
        self.shown = tuple(shown)
        self.study: Study | None = None
        self.rows: pd.DataFrame | None = None

    def estimate(self) -> Estimate:
        """Estimate how many cells and runs the plan has, and how long they take."""
        return estimate_of(self.plan, _earlier(self.out, self.plan.study))

    def report(self) -> Any:
        """Return the plan and its size as a table, which stays in a saved notebook."""
        return show.table(form.design_table(self.plan, self.estimate()))

    def parts(self) -> list[Any]:
        """Return the plan as a table; below it, how the runs of the study ended that was started last."""
        return [self.report(), *([show.ShownText(_ends(self.rows))] if self.rows is not None else [])]

    def widget(self) -> Any:
        """Return the form."""
        return _View(self).box


def study_designer(plan: Plan, out: Path = Path("results"), *, shown: Sequence[str] = ()) -> StudyDesigner:
    """Create a form that starts with `plan`; its study's rows go to `out`. `shown` are the factors with a field each.

    Errors: `InvalidInput` for a plan with an invalid cell.
    """
    return StudyDesigner(plan, out, shown or kind(plan.study).shown)


class _View:
    """The widgets, created only when they are displayed."""

    def __init__(self, designer: StudyDesigner) -> None:
        import ipywidgets as w

        self.designer = designer
        self.earlier = _earlier(designer.out, designer.plan.study)
        wide, style = {"width": "97%"}, {"description_width": "9em"}
        labels = {
            "name": "Study",
            "runs": "Seeds (runs)",
            "seed": "Order's seed",
            "more": "More",
            "cells": "Cells",
            "applies": "Applies to",
        }
        hints = {
            "more": "name = levels, one factor per line",
            "cells": "name=level name=level, one cell per line",
            "applies": "name: other = levels, for a factor that applies to these alone",
        }
        self.fields: dict[str, Any] = {}
        self.errors: dict[str, Any] = {}
        for name, text in form.texts_of(designer.plan, designer.shown).items():
            kind, more = (w.Textarea, {"rows": 4}) if name in hints else (w.Text, {})
            hint = hints.get(name, "levels, separated by blanks" if name in designer.shown else "")
            self.fields[name] = kind(
                text, description=labels.get(name, name), placeholder=hint, layout=wide, style=style, **more
            )
            self.errors[name] = w.HTML(layout={"margin": "0 0 0 9.5em"})
        self.size = w.HTML()
        self.cells = scrolled(w, "22em")
        self.run = w.Button(description="Run", icon="play", button_style="primary")
        self.live = w.VBox([])
        self.result = w.HTML(layout=wide)
        self.valid = True
        self.runner = Runner((self.run,), self.result, lambda: self.valid, designer.keep)
        self.box = accessible(self._layout(w))
        for field in self.fields.values():
            field.observe(lambda _: self._take(), names="value")
        self.run.on_click(lambda _: self._start())
        self._show(designer.plan)

    def _layout(self, w: Any) -> Any:
        rows = [with_error(field, self.errors[name]) for name, field in self.fields.items()]
        left = w.VBox(rows, layout={"width": "50%"})
        right = w.VBox([self.size, self.cells], layout={"width": "50%", "padding": "0 0 0 1em"})
        buttons = w.HBox([self.run, self.runner.cancel, self.runner.bar])
        return w.VBox([w.HBox([left, right]), buttons, self.runner.log, self.live, self.result])

    def _take(self) -> None:
        """Read the fields into the plan; errors are shown immediately, next to their fields."""
        texts = {name: field.value for name, field in self.fields.items()}
        plan, wrong = form.read_texts(texts, self.designer.plan, self.designer.shown)
        for name, label in self.errors.items():
            text = error_line(wrong[name]) if name in wrong else ""
            if label.value != text:
                label.value = text
        self.valid = plan is not None
        self.runner.switch()
        if plan is not None:
            self.designer.plan = plan
            self._show(plan)

    def _show(self, plan: Plan) -> None:
        """Show the size of the study, and its first cells."""
        text = estimate_of(plan, self.earlier).text()
        self.size.value = dense(f"<b>{html.escape(text)}</b>")
        cells = plan.all_cells
        labels = [cell.label for cell in cells[:_SHOWN_CELLS]]
        left = len(cells) - len(labels)
        labels += [f"and {left} more"] if left else []
        self.cells.value = dense("".join(f"<div>{html.escape(label)}</div>" for label in labels))

    def _start(self) -> None:
        try:
            self.designer.study = study_of(self.designer.plan, self.designer.out)
        except AconError as error:
            self.result.value = pre(str(error), bad=True)
            return
        live = kind(self.designer.plan.study).live_view(self.designer.study)
        self.live.children = [] if live is None else [live]
        self.runner.start(self.designer.study.run, self._done)

    def _done(self, rows: pd.DataFrame) -> None:
        self.designer.rows = rows
        self.live.children = []
        self.earlier = _earlier(self.designer.out, self.designer.plan.study)
        self.result.value = pre(_ends(rows))


def _ends(rows: pd.DataFrame) -> str:
    ends = rows["end"].value_counts().to_dict() if len(rows) else {}
    counts = ", ".join(f"{count} {end_text(str(end))}" for end, count in ends.items()) or "no runs"
    return f"{len(rows)} rows: {counts}"


def _earlier(out: Path, kind: str) -> pd.DataFrame | None:
    """Return the rows of a folder of results, to estimate how long a run takes; None if the folder does not exist."""
    return results.load(out, kind) if out.is_dir() else None
