"""Live curves of the running guests of a swap study: their memory, pool and faults.

Use `curves = widgets.guest_curves(study)` in a cell before the study is run. In headless runs it creates no widget and
shows nothing; `curves.report()` is a figure of the guest that ended last, which stays in the notebook.
"""

from __future__ import annotations

import html
import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from acon_nb import plots
from acon_nb.errors import InvalidInput
from acon_nb.plots import COLOURS
from acon_nb.study.runner import Study
from acon_nb.units import format_bytes
from acon_nb.widgets import sparkline
from acon_nb.widgets.session import headless
from acon_nb.widgets.view import Displayed, accessible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
_EVERY_S = 1.0
_ENDED = ("done", "failed", "cancelled")
_BYTES = (("memavailable_bytes", "MemAvailable"), ("pool_bytes", "pool's RAM"), ("swap_used_bytes", "swap in use"))


class GuestCurves(Displayed):
    """A view over a study that samples its guests (`study.experiment.samples()`)."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.study = study

    def report(self) -> Figure:
        """Draw memory, pool and faults of the guest that ended last. Errors: `InvalidInput` if none has samples."""
        return plots.guest_figure(self.study.rows())

    def parts(self) -> list[Any]:
        """Return the figure of the guest that ended last; nothing if none has samples."""
        try:
            return [self.report()]
        except InvalidInput:
            return []

    def _ipython_display_(self) -> None:
        if not headless():  # then `report()` comes behind the study
            super()._ipython_display_()

    def widget(self) -> Any:
        """Return the widget that draws the curves until the study has ended."""
        return _View(self).box


def guest_curves(study: Study) -> GuestCurves:
    """Create live curves of a study's guests; show them as the last value of a cell."""
    return GuestCurves(study)


def curves_html(guests: Samples) -> str:
    """Draw the curves of each guest as SVG, one guest per row; what a guest reports is shown as text or a number."""
    return "".join(_guest_html(name, samples) for name, samples in guests.items())


def samples_of_study(study: Study) -> Samples:
    """Return the samples of the running guests; none for an experiment that does not sample."""
    samples = getattr(study.experiment, "samples", None)
    running: Samples = samples() if samples is not None else {}
    return running


class _View:
    """The widget, and the thread that draws into it until the study has ended."""

    def __init__(self, shown: GuestCurves) -> None:
        import ipywidgets as w

        self.shown, self.study = shown, shown.study
        self.curves = w.HTML("waiting for a guest")
        self.box = accessible(w.VBox([self.curves]))
        threading.Thread(target=self._follow, name="acon-curves", daemon=True).start()

    def _follow(self) -> None:
        pause = threading.Event()
        while self.study.state.phase not in _ENDED:
            drawn = curves_html(samples_of_study(self.study))
            if drawn:
                self.curves.value = drawn
            pause.wait(_EVERY_S)
        self.shown.keep()


def _guest_html(name: str, samples: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for number, (column, label) in enumerate(_BYTES):
        values = _numbers(samples, column)
        if values:
            shown = format_bytes(values[-1])
            lines.append(sparkline.svg(label, shown, values, max(values), colour=COLOURS[number]))
    rates = _rates(samples)
    if rates:
        lines.append(sparkline.svg("major faults / s", f"{rates[-1]:,.0f}", rates, max(rates), colour=COLOURS[3]))
    phase = str(samples[-1].get("phase", ""))[:40] if samples else "starting"
    head = f"<div><b>{html.escape(name)}</b>: {html.escape(phase)}</div>"
    return f'{head}<div style="display: flex; flex-wrap: wrap; gap: 0 1em">{"".join(lines)}</div>'


def _numbers(samples: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    return [float(one[column]) for one in samples if isinstance(one.get(column), int | float)]


def _rates(samples: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the faults per second between two samples; none where the counter fell."""
    rates = []
    for before, after in itertools.pairwise(samples):
        times, faults = _numbers([before, after], "t_ns"), _numbers([before, after], "major_faults")
        if len(times) == len(faults) == 2 and times[1] > times[0] and faults[1] >= faults[0]:
            rates.append((faults[1] - faults[0]) * 1e9 / (times[1] - times[0]))
    return rates
