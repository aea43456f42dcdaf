"""How the package's views are displayed: a widget for a person, and with it what stays in a saved notebook.

A saved notebook holds no widget, only its name; GitHub and nbconvert show the tables and figures stored with it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, cast

from acon_nb.jupyter import show
from acon_nb.widgets.session import headless, steady

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

_WIDGET = "application/vnd.jupyter.widget-view+json"


class Displayed:
    """A view of a dataclass: `widget()` is what a person uses, `parts()` are the tables and figures that stay."""

    def __init__(self) -> None:
        self._displays: list[str] = []
        self._shown: Any = None
        self._drawn: tuple[Any, tuple[Any, ...], Any] = (None, (), None)

    def drawn(self, draw: Callable[..., Figure], *what: Any) -> Figure:
        """Return `draw(*what)`, the figure drawn last if it was of the same objects: a form shows and keeps it."""
        last, of, figure = self._drawn
        if draw is not last or len(of) != len(what) or any(a is not b for a, b in zip(of, what, strict=True)):
            figure = draw(*what)
            self._drawn = (draw, what, figure)
        return cast("Figure", figure)

    def parts(self) -> list[Any]:
        """Return the present state as tables, figures and texts."""
        raise NotImplementedError

    def widget(self) -> Any:
        """Return the widget: a new one, unless it holds what has to outlive its cell."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """The parts and, with a person in front, the widget, which front ends prefer."""
        data = show.bundle(self.parts())
        if not headless():
            self._shown = self._shown or self.widget()
            data[_WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": self._shown.model_id}
        return data

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if headless():
            display(*self.parts())
            return
        self._shown = None
        name = secrets.token_hex(8)
        display(self._repr_mimebundle_(), raw=True, display_id=name)
        self._displays.append(name)

    def keep(self) -> None:
        """Put the present state into the cells that show this view: for the end of what it shows, from any thread."""
        from IPython.display import update_display

        data = self._repr_mimebundle_() if self._displays else {}
        for name in self._displays:
            update_display(data, display_id=name, raw=True)


def accessible(box: Any) -> Any:
    """Return a widget that assistive technology and the keyboard can use.

    Fields with an error are marked as invalid, with the error as their description; keys reach the field that has the
    focus; the focus outlives a form that is drawn again. ipywidgets can do none of this: a part in the page does.
    Without anywidget it is as it was.
    """
    import ipywidgets as w

    form = w.VBox([box])
    try:
        from acon_nb.widgets.terminal import FieldsWidget
    except ImportError:
        return steady(form)
    form.children = [box, FieldsWidget(form=secrets.token_hex(8))]
    form.add_class("acon-form")
    return steady(form)
