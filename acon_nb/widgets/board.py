"""A board of a running study: its cells and their states, the time left, a Cancel button, the log of a selected cell.

`board = widgets.board(study)` in a cell shows it with a Start button; `rows = await board.run()` starts it and waits.
It works with any kind of study: it reads the `state` and calls `run`. In headless runs it shows a table.
"""

from __future__ import annotations

import html
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from acon_nb.errors import Cancelled
from acon_nb.jupyter import show
from acon_nb.plots import COLOURS
from acon_nb.progress import CancelToken, OnProgress, Progress, TextProgress
from acon_nb.study import live
from acon_nb.study.state import CellState, StudyState, headline, log_of
from acon_nb.vm.diagnosis import end_text
from acon_nb.widgets.job import NotebookJob
from acon_nb.widgets.parts import pre, scrolled
from acon_nb.widgets.session import headless
from acon_nb.widgets.view import Displayed, accessible

if TYPE_CHECKING:
    import pandas as pd

_EVERY_S = 0.5
_LISTED = 500  # cells in the list; a filter finds the others
_SQUARES = 2000
_STATES = {
    "running": (COLOURS[4], "▶"),
    "failed": (COLOURS[1], "✗"),
    "done": (COLOURS[2], "✓"),
    "waiting": ("#bbb", "·"),
}


_EDGE = f' stroke="{COLOURS[1]}" stroke-width="2"'


class Watched(Protocol):
    """What a board shows: `study.runner.Study`, or anything else that runs a plan."""

    @property
    def state(self) -> StudyState:
        """The current state of the study; may be read from any thread."""
        ...

    def run(self, *, on_progress: OnProgress = ..., cancel: CancelToken | None = None) -> pd.DataFrame:
        """Run what is missing; return the rows."""
        ...


class BoardView(Displayed):
    """A view of a study; `rows` are its rows once it has ended, `error` is the error that ended it early."""

    def __init__(self, study: Watched) -> None:
        super().__init__()
        self.study = study
        self.rows: pd.DataFrame | None = None
        self.error: BaseException | None = None
        self._view: _View | None = None
        self._job: NotebookJob[pd.DataFrame] | None = None

    def start(self, on_progress: OnProgress | None = None) -> NotebookJob[pd.DataFrame]:
        """Run the study in a thread, unless it is running already; return the job."""
        if self._job is None:
            job = NotebookJob(self.study.run, on_progress=on_progress or _ignore)
            job.then(self._ended)
            self._job = job
            if self._view is not None:
                self._view.follow()
        return self._job

    async def run(self) -> pd.DataFrame:
        """Run the study and wait for its rows; show the board, or in headless runs lines of text."""
        if headless():
            return await self.start(TextProgress(every_s=10))
        if self._view is None:
            self._ipython_display_()
        return await self.start()

    def cancel(self) -> None:
        """Request that the study stop; rows measured so far are kept."""
        if self._job is not None:
            self._job.cancel()

    def report(self) -> Any:
        """Return the cells as a table, which stays in a saved notebook."""
        return show.table(cells_table(self.study.state))

    @property
    def running(self) -> bool:
        """Whether the study is running."""
        return self._job is not None

    def _ended(self, future: Any) -> None:
        self.error = future.exception()
        self.rows = None if self.error is not None else future.result()
        self._job = None
        self.keep()

    def parts(self) -> list[Any]:
        """Return the cells as a table; below it, how far the study has come."""
        state = self.study.state
        return [self.report(), *([show.ShownText(headline(state))] if state.done or self.error else [])]

    def widget(self) -> Any:
        """Return the board."""
        if self._view is None:
            self._view = _View(self)
        if self.running:
            self._view.follow()
        return self._view.box


def board(study: Watched) -> BoardView:
    """Create a board of a study; show it as the last value of a cell, or `await board.run()`."""
    return BoardView(study)


def watch(folder: str | Path, study: str = "") -> BoardView:
    """Show the study that runs in a folder, whoever started it; *Cancel* stops it, `await` of its `run()` has its rows.

    Errors: `InvalidInput` for a folder without one, or with several (`study` names one).
    """
    view = BoardView(live.attach(Path(folder), study))
    view.start()
    return view


def cells_table(state: StudyState) -> pd.DataFrame:
    """Return the cells of a study as a table for people."""
    import pandas as pd

    return pd.DataFrame(
        {
            "cell": cell.label,
            "clock": cell.clock.value,
            "state": cell.state,
            "runs": f"{cell.done} of {cell.planned}",
            "failed": cell.failed,
            "last end": end_text(cell.last_end),
            "error": cell.last_error,
        }
        for cell in state.cells
    )


def squares(state: StudyState) -> str:
    """Draw all cells as small squares in SVG, coloured by state, those with a failure outlined."""
    side, gap, wide = 11, 2, 64
    shown = state.cells[:_SQUARES]
    rects = "".join(
        f'<rect x="{(number % wide) * (side + gap)}" y="{(number // wide) * (side + gap)}" width="{side}" '
        f'height="{side}" rx="2" fill="{_STATES[cell.state][0]}"{_EDGE if cell.failed else ""}><title>'
        f"{html.escape(_line(cell))}</title></rect>"
        for number, cell in enumerate(shown)
    )
    rows = -(-len(shown) // wide)
    more = f"<div>the first {len(shown)} of {len(state.cells)} cells</div>" if len(shown) < len(state.cells) else ""
    width, height = min(len(shown), wide) * (side + gap), rows * (side + gap)
    return f'<svg role="img" aria-label="cells" width="{width}" height="{height}">{rects}</svg>{more}'


def _line(cell: CellState) -> str:
    """Describe a cell in one line of the list."""
    mark = _STATES[cell.state][1]
    failed = f", {cell.failed} failed: {end_text(cell.last_end)}" if cell.failed else ""
    return f"{mark} {cell.label}  [{cell.clock.value}] {cell.done}/{cell.planned}{failed}"


def _ignore(_: Progress) -> None:
    """Ignore an event: the board reads the state instead."""


class _View:
    """The widgets, created only when they are displayed."""

    def __init__(self, shown: BoardView) -> None:
        import ipywidgets as w

        self.board = shown
        self.start = w.Button(description="Start", icon="play", button_style="primary")
        self.cancel = w.Button(description="Cancel", icon="stop", disabled=True)
        self.bar = w.FloatProgress(min=0, max=1, layout={"width": "30%"})
        self.head, self.overview = w.HTML(), w.HTML()
        self.state = w.Dropdown(options=["all", *_STATES], description="Show", layout={"width": "14em"})
        self.filter = w.Text(description="Filter", placeholder="part of a cell's name", layout={"width": "22em"})
        self.count = w.HTML()
        self.cells = w.Select(options=[], rows=10, description="Cells", layout={"width": "98%"})
        self.log = scrolled(w, "24em", "Choose a cell for its log.")
        buttons = w.HBox([self.start, self.cancel, self.bar])
        choice = w.HBox([self.state, self.filter, self.count])
        self.box = accessible(w.VBox([buttons, self.head, self.overview, choice, self.cells, self.log]))
        self._drawing = False
        self._ticker: threading.Thread | None = None
        self._seen: StudyState | None = None
        self._logged: tuple[str, str] | None = None
        self.start.on_click(lambda _: self.board.start())
        self.cancel.on_click(lambda _: self._ask_to_stop())
        self.cells.observe(lambda _: self._show_log(), names="value")
        for field in (self.state, self.filter):
            field.observe(lambda _: self._list(), names="value")
        self.draw()

    def follow(self) -> None:
        """Draw the state twice a second until the study ends."""
        if self._ticker is None or not self._ticker.is_alive():
            self._ticker = threading.Thread(target=self._tick, name="acon-board", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        pause = threading.Event()
        while self.board.running:
            self.draw()
            pause.wait(_EVERY_S)
        self.draw()

    def draw(self) -> None:
        """Show the current state; nothing is sent to the page if it has not changed."""
        state = self.board.study.state
        running = self.board.running
        self.start.disabled, self.cancel.disabled = running, not running
        if state == self._seen:
            return
        self._seen = state
        self.bar.value = state.done / state.total if state.total else 0.0
        self.bar.bar_style = {"done": "success", "failed": "danger", "cancelled": "warning"}.get(state.phase, "")
        error = self.board.error
        bad = error is not None and not isinstance(error, Cancelled)
        self.head.value = pre(headline(state), bad=bad)
        self.overview.value = squares(state)
        self._list()
        self._show_log()

    def _list(self) -> None:
        """List the cells that match the filter; the selection is kept."""
        state = self._seen or self.board.study.state
        word = self.filter.value.strip().lower()
        matches = [
            (number, cell)
            for number, cell in enumerate(state.cells)
            if self.state.value in ("all", cell.state) and word in cell.label.lower()
        ]
        options = tuple((_line(cell), number) for number, cell in matches[:_LISTED])
        chosen = self.cells.value
        if options != self.cells.options:
            self._drawing = True
            self.cells.options = options
            self.cells.value = chosen if any(number == chosen for _, number in options) else None
            self._drawing = False
        more = f", the first {_LISTED} listed" if len(matches) > _LISTED else ""
        self.count.value = f"{len(matches)} of {len(state.cells)} cells{more}"

    def _show_log(self) -> None:
        number = self.cells.value
        if self._drawing or number is None:
            return
        cell = self.board.study.state.cells[number]
        mark = (cell.label, f"{cell.done} {cell.log}")
        if mark != self._logged:
            self._logged = mark
            self.log.value = pre(log_of(cell), bad=bool(cell.failed))

    def _ask_to_stop(self) -> None:
        self.cancel.disabled = True
        self.board.cancel()
