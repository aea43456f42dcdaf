"""The models in the kernel of what is in the page alone, the terminal above all; imported only when one is shown."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

_STATIC = Path(__file__).parent / "static"


class TerminalWidget(anywidget.AnyWidget):
    """xterm.js in the page. Output and input travel in binary messages (see `stream`), not in traits."""

    _esm = _STATIC / "console.js"
    _css = _STATIC / "console.css"
    rows = traitlets.Int(24).tag(sync=True)
    state = traitlets.Unicode("").tag(sync=True)
    ended = traitlets.Bool(False).tag(sync=True)
    channel = traitlets.Unicode("").tag(sync=True)  # NAME/KEY of `acon_nb.jupyter.channel`
    transcript = traitlets.Unicode("").tag(sync=True)


class FieldsWidget(anywidget.AnyWidget):
    """Makes the form around it accessible (see `view.accessible`); shows nothing itself. `form` names the form."""

    _esm = _STATIC / "fields.js"
    _css = _STATIC / "fields.css"
    form = traitlets.Unicode("").tag(sync=True)
