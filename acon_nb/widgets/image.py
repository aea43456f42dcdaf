"""A form for a question about an image: what is run, at which shares of its peak, in which set-ups.

Use `form = widgets.image_form(question)` in a cell; `form.question` has the values of the fields. In headless runs the
form is a table of the question.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from acon_nb.errors import AconError
from acon_nb.jupyter import show
from acon_nb.swap.image import words
from acon_nb.swap.image.question import ImageQuestion, words_of
from acon_nb.swap.image.study import ImageStudy, image_study
from acon_nb.widgets.parts import Runner, lines_of, pre
from acon_nb.widgets.view import Displayed, accessible


class ImageForm(Displayed):
    """A view of one `ImageQuestion`: `question` has the values of the fields, `made` is what was measured last."""

    def __init__(self, question: ImageQuestion) -> None:
        super().__init__()
        self.question = question
        self.made: ImageStudy | None = None

    def parts(self) -> list[Any]:
        """Return the question as a table, and what was measured last."""
        question = show.table(words.question_table(self.question))
        return [question, *([show.ShownText(_measured(self.made))] if self.made is not None else [])]

    def widget(self) -> Any:
        """Return the form."""
        return _View(self).box


def image_form(question: ImageQuestion) -> ImageForm:
    """Create a form that starts with `question`; show it as the last value of a cell."""
    return ImageForm(question)


class _View:
    """The widgets, created only when they are displayed."""

    def __init__(self, form: ImageForm) -> None:
        import ipywidgets as w

        self.form = form
        asked = form.question
        look: dict[str, Any] = {"layout": {"width": "98%"}, "style": {"description_width": "8em"}}
        quoted = "words as in a shell; nothing: the image's own"
        self.image = w.Text(asked.image, description="Image", placeholder="docker-archive:my.tar", **look)
        self.command = w.Text(shlex.join(asked.command), description="Command", placeholder=quoted, **look)
        self.environment = w.Textarea("\n".join(asked.environment), description="Environment", rows=2, **look)
        self.at = w.Text(",".join(asked.at), description="At", placeholder="0.5x,0.75x,1x or 256M", **look)
        self.setups = w.Text(",".join(asked.setups), description="Set-ups", placeholder="the usual five", **look)
        self.seeds = w.BoundedIntText(asked.seeds, min=1, max=1000, description="Seeds", **look)
        self.run_for = w.Text(asked.run_for, description="Run for", placeholder="a server: such as 30s", **look)
        self.driver = w.Text(shlex.join(asked.driver), description="Driver", placeholder="a server's client", **look)
        self.ready = w.Text(asked.ready, description="Ready", placeholder="port:6379, or a text", **look)
        self.error = w.HTML()
        self.measure = w.Button(description="Measure", icon="search", button_style="primary")
        self.result = w.HTML(layout=look["layout"])
        self.runner = Runner((self.measure,), self.result, lambda: not self.error.value, form.keep)
        fields = (self.image, self.command, self.environment, self.at, self.setups, self.seeds)
        server = (self.run_for, self.driver, self.ready)
        buttons = w.HBox([self.measure, self.runner.cancel, self.runner.bar])
        parts = [*fields, *server, self.error, buttons, self.runner.log, self.result]
        self.box = accessible(w.VBox(parts))
        for field in (*fields, *server):
            field.observe(lambda _: self._take(), names="value")
        self.measure.on_click(lambda _: self.runner.start(image_study, self._measured, self.form.question))

    def _take(self) -> None:
        """Read the fields into the question; errors are shown at once."""
        try:
            self.form.question = replace(
                self.form.question,
                image=self.image.value.strip(),
                command=words_of("command", (self.command.value,)) if self.command.value.strip() else (),
                environment=lines_of(self.environment.value),
                at=_listed(self.at.value),
                setups=_listed(self.setups.value),
                seeds=self.seeds.value,
                run_for=self.run_for.value.strip(),
                driver=words_of("driver", (self.driver.value,)) if self.driver.value.strip() else (),
                ready=self.ready.value.strip(),
            )
            self.error.value = ""
        except AconError as error:
            self.error.value = pre(str(error), bad=True)
        self.runner.switch()

    def _measured(self, made: ImageStudy) -> None:
        self.form.made = made
        self.result.value = pre(_measured(made))


def _measured(made: ImageStudy) -> str:
    return "\n".join(words.measured_lines(made.measured.program, made.corpus))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))
