"""A form over a `Plan`: factors and their levels, how many cells that makes, and how long it takes before it is run.

`designer = widgets.study_designer(plan, out)` in a cell; `designer.plan` is the plan as the fields have it. It starts
nothing until its button is pressed. Without a person it shows the plan as a table and makes no widget.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import show
from acon_nb.bench import design, results
from acon_nb.bench.experiments import study_of
from acon_nb.bench.plan import Plan
from acon_nb.bench.runner import Study
from acon_nb.errors import AconError
from acon_nb.widgets.guest_curves import GuestCurves
from acon_nb.widgets.parts import Runner, dense, pre
from acon_nb.widgets.session import headless, steady

if TYPE_CHECKING:
    import pandas as pd

# The factors with a field of their own; all others are lines below. By kind of study.
SHOWN = {
    "boot": ("kernel", "profile", "memory", "machine", "firmware", "clock"),
    "swap": (
        "swap", "data", "workload", "pattern", "pressure", "disk_latency", "encryption", "memory", "accesses", "clock",
    ),
}  # fmt: skip
_SHOWN_CELLS = 12


class StudyDesigner:
    """A view over one `Plan`; `plan` is what the fields say now, `study` the one started last, `rows` what it gave."""

    def __init__(self, plan: Plan, out: Path, shown: Sequence[str]) -> None:
        design.check(plan)
        self.plan = plan
        self.out = out
        self.shown = tuple(shown)
        self.study: Study | None = None
        self.rows: pd.DataFrame | None = None

    def estimate(self) -> design.Estimate:
        """How many cells and runs the plan has now, and how long they take."""
        return design.estimate(self.plan, _earlier(self.out, self.plan.study))

    def report(self) -> Any:
        """The plan and its size as a table: it stays in the notebook."""
        return show.table(design.design_table(self.plan, self.estimate()))

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if headless():
            display(self.report())
        else:
            display(_View(self).box)


def study_designer(plan: Plan, out: Path = Path("results"), *, shown: Sequence[str] = ()) -> StudyDesigner:
    """A designer that starts with `plan`; its study's rows go to `out`. `shown` are the factors with a field each.

    Errors: `InvalidInput` for a plan whose cells cannot be.
    """
    return StudyDesigner(plan, out, shown or SHOWN.get(plan.study, ()))


class _View:
    """The widgets, made only when they are shown to a person."""

    def __init__(self, designer: StudyDesigner) -> None:
        import ipywidgets as w

        self.designer = designer
        self.earlier = _earlier(designer.out, designer.plan.study)
        wide, style = {"width": "97%"}, {"description_width": "9em"}
        labels = {"name": "Study", "runs": "Seeds (runs)", "seed": "Order's seed", "more": "More", "cells": "Cells"}
        hints = {"more": "name = levels, one factor a line", "cells": "name=level name=level, one cell a line"}
        self.fields: dict[str, Any] = {}
        self.errors: dict[str, Any] = {}
        for name, text in design.texts_of(designer.plan, designer.shown).items():
            kind, more = (w.Textarea, {"rows": 4}) if name in hints else (w.Text, {})
            place = hints.get(name, "levels between blanks" if name in designer.shown else "")
            self.fields[name] = kind(
                text, description=labels.get(name, name), placeholder=place, layout=wide, style=style, **more
            )
            self.errors[name] = w.HTML(layout={"margin": "0 0 0 9.5em"})
        self.size = w.HTML()
        self.cells = w.HTML(layout={"max_height": "22em", "overflow": "auto"})
        self.run = w.Button(description="Run", icon="play", button_style="primary")
        self.live = w.VBox([])
        self.result = w.HTML(layout=wide)
        self.valid = True
        self.runner = Runner((self.run,), self.result, lambda: self.valid)
        self.box = steady(self._layout(w))
        for field in self.fields.values():
            field.observe(lambda _: self._take(), names="value")
        self.run.on_click(lambda _: self._start())
        self._show(designer.plan)

    def _layout(self, w: Any) -> Any:
        rows = [w.VBox([field, self.errors[name]]) for name, field in self.fields.items()]
        left = w.VBox(rows, layout={"width": "50%"})
        right = w.VBox([self.size, self.cells], layout={"width": "50%", "padding": "0 0 0 1em"})
        buttons = w.HBox([self.run, self.runner.cancel, self.runner.bar])
        return w.VBox([w.HBox([left, right]), buttons, self.runner.log, self.live, self.result])

    def _take(self) -> None:
        """Read the fields into the plan; what is wrong is said at once, beside its field."""
        texts = {name: field.value for name, field in self.fields.items()}
        plan, wrong = design.read_texts(texts, self.designer.plan, self.designer.shown)
        for name, place in self.errors.items():
            text = _red(wrong[name]) if name in wrong else ""
            if place.value != text:
                place.value = text
        self.valid = plan is not None
        self.runner.switch()
        if plan is not None:
            self.designer.plan = plan
            self._show(plan)

    def _show(self, plan: Plan) -> None:
        """The size of the study, and its first cells."""
        text = design.estimate(plan, self.earlier).text()
        self.size.value = dense(f"<b>{html.escape(text)}</b>")
        settings = plan.settings
        labels = [setting.label for setting in settings[:_SHOWN_CELLS]]
        left = len(settings) - len(labels)
        labels += [f"and {left} more"] if left else []
        self.cells.value = dense("".join(f"<div>{html.escape(label)}</div>" for label in labels))

    def _start(self) -> None:
        try:
            self.designer.study = study_of(self.designer.plan, self.designer.out)
        except AconError as error:
            self.result.value = pre(str(error), bad=True)
            return
        samples = hasattr(self.designer.study.experiment, "samples")
        self.live.children = [GuestCurves(self.designer.study).view()] if samples else []
        self.runner.start(self.designer.study.run, self._done)

    def _done(self, rows: pd.DataFrame) -> None:
        self.designer.rows = rows
        self.live.children = []
        self.earlier = _earlier(self.designer.out, self.designer.plan.study)
        ends = rows["end"].value_counts().to_dict() if len(rows) else {}
        told = ", ".join(f"{count} {end}" for end, count in ends.items()) or "no runs"
        self.result.value = pre(f"{len(rows)} rows: {told}")


def _red(text: str) -> str:
    style = "color: var(--jp-error-color1); line-height: 1.3; overflow-wrap: anywhere"
    return f'<div style="{style}">{html.escape(text)}</div>'


def _earlier(out: Path, kind: str) -> pd.DataFrame | None:
    """The rows of a folder of results that say how long a run takes; None where there are none yet."""
    return results.load(out, kind) if out.is_dir() else None
