"""A form for a `tdx.BootInputs`: predict a boot's measurements, change an input, see which registers change, compare.

Use `form = widgets.measure_form(inputs)` in a cell; `form.inputs` are the inputs in the fields, `form.prediction` is
the last prediction. In an unattended run it shows the inputs as a table and creates no widget.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acon_nb import plots, tdx
from acon_nb.errors import AconError
from acon_nb.jupyter import show
from acon_nb.progress import CancelToken, OnProgress
from acon_nb.tdx import BootInputs, MeasurementComparison, Prediction, chain, tables
from acon_nb.units import parse_bytes
from acon_nb.widgets.parts import Runner, dense, pre
from acon_nb.widgets.view import Displayed, accessible

_KEPT = "Registers are compared with the first prediction; Keep makes the current one the reference."


class MeasureForm(Displayed):
    """A view of one `BootInputs`: `prediction` is the last one made, `before` the one it is compared with."""

    def __init__(self, inputs: BootInputs) -> None:
        super().__init__()
        self.inputs = inputs
        self.prediction: Prediction | None = None
        self.before: Prediction | None = None
        self.comparison: MeasurementComparison | None = None

    def parts(self) -> list[Any]:
        """Return the inputs, the registers that were predicted last and the last comparison as tables."""
        made = [tables.inputs_table(self.inputs)]
        made += [tables.register_table(self.prediction)] if self.prediction is not None else []
        shown: list[Any] = [show.table(one) for one in made]
        if self.comparison is not None:
            shown += [show.ShownText(self.comparison.headline), show.table(tables.comparison_table(self.comparison))]
        return shown

    def widget(self) -> Any:
        """Return the form."""
        return _View(self).box


def measure_form(inputs: BootInputs) -> MeasureForm:
    """Create a form that starts with `inputs`, to be the last value of a cell."""
    return MeasureForm(inputs)


class _View:
    """The widgets, created only when they are displayed."""

    def __init__(self, form: MeasureForm) -> None:
        import ipywidgets as w

        self.form = form
        inputs = form.inputs
        wide, style = {"width": "98%"}, {"description_width": "6em"}

        def text(value: object, name: str, empty: str = "") -> Any:
            shown = "" if value is None else str(value)
            return w.Text(shown, description=name, placeholder=empty, layout=wide, style=style)

        self.firmware = text(inputs.firmware, "Firmware")
        self.kernel = text(inputs.kernel, "Kernel")
        self.initrd = text(inputs.initrd, "Initrd", "none")
        self.append = text(inputs.append, "Append")
        self.memory = text(f"{inputs.memory_bytes >> 20}M", "Memory")
        self.edk2 = text(inputs.edk2, "edk2", "detected from the image; or a release, such as 202411")
        self.qemu = text(inputs.qemu, "QEMU", "a version, such as 10.1; empty: one that can start a TD")
        self.capture = text(inputs.capture, "Capture", "a folder (measure capture); empty: RTMR[0] is unknown")
        self.error = w.HTML()
        self.predict = w.Button(description="Predict", icon="calculator", button_style="primary")
        self.keep = w.Button(description="Keep", icon="thumb-tack", disabled=True, tooltip=_KEPT)
        self.pasted = w.Textarea(
            description="Measured",
            placeholder="paste a log or quote in base64 or hexadecimal, or a stored prediction",
            rows=4,
            layout=wide,
            style=style,
        )
        self.file = text("", "or file", "an event log, a quote, a TDREPORT")
        self.compare = w.Button(description="Compare", icon="balance-scale", disabled=True)
        self.result = w.HTML(layout=wide)
        self.picture = w.HTML(layout={"display": "none", "max_width": "100%"})
        self.tables = w.HTML(layout=wide)
        self.runner = Runner((self.predict,), self.result, lambda: not self.error.value, form.keep)
        self.box = accessible(self._layout(w))
        self._wire()

    def _layout(self, w: Any) -> Any:
        half = {"width": "50%"}
        left = w.VBox([self.firmware, self.kernel, self.initrd, self.append], layout=half)
        right = w.VBox([self.memory, self.edk2, self.qemu, self.capture], layout=half)
        buttons = w.HBox([self.predict, self.keep, self.runner.cancel, self.runner.bar])
        compared = w.VBox([self.pasted, w.HBox([self.file, self.compare])])
        parts = [w.HBox([left, right]), self.error, buttons, compared]
        return w.VBox([*parts, self.result, self.picture, self.tables])

    def _wire(self) -> None:
        for field in (
            self.firmware,
            self.kernel,
            self.initrd,
            self.append,
            self.memory,
            self.edk2,
            self.qemu,
            self.capture,
        ):
            field.observe(lambda _: self._take(), names="value")
        self.predict.on_click(lambda _: self.runner.start(_predict, self._predicted, self.form.inputs))
        self.keep.on_click(lambda _: self._keep())
        self.compare.on_click(lambda _: self._compare())

    def _take(self) -> None:
        """Read the fields into the inputs, and show errors at once."""
        try:
            self.form.inputs = self.form.inputs.changed(
                firmware=Path(self.firmware.value.strip()),
                kernel=Path(self.kernel.value.strip()),
                initrd=_path(self.initrd.value),
                append=self.append.value,
                memory_bytes=parse_bytes(self.memory.value, field="memory", bare="M"),
                edk2=self.edk2.value.strip(),
                qemu=self.qemu.value.strip(),
                capture=_path(self.capture.value),
            )
        except AconError as error:
            self.error.value = pre(str(error), bad=True)
        else:
            self.error.value = ""
        self.runner.switch()

    def _predicted(self, prediction: Prediction) -> None:
        form = self.form
        form.prediction, form.before = prediction, form.before or prediction
        self.keep.disabled = self.compare.disabled = False
        self._show()

    def _keep(self) -> None:
        self.form.before = self.form.prediction
        self._show()

    def _show(self) -> None:
        prediction, before = self.form.prediction, self.form.before
        assert prediction is not None
        assert before is not None
        self.picture.value = show.image(plots.plot_chain(chain.chain_table(prediction, before)))
        self.picture.layout.display = ""
        parts = [
            "<b>Which registers change</b>",
            show.table(tables.change_table(before, prediction)).to_html(),
            "<b>Registers</b>",
            show.table(tables.register_table(prediction)).to_html(),
            "<b>Events</b>",
            show.table(tables.event_table(prediction)).to_html(),
        ]
        self.tables.value = dense("".join(parts))
        self.result.value = pre("\n".join(prediction.notes)) if prediction.notes else ""

    def _compare(self) -> None:
        """Compare the prediction with the pasted text, or with the file."""
        assert self.form.prediction is not None
        try:
            name = self.file.value.strip()
            side = tdx.parse_pasted(self.pasted.value) if not name else tdx.read_side(Path(name))
            comparison = tdx.compare(tdx.expected(self.form.prediction), side)
        except AconError as error:
            self.result.value = pre(str(error), bad=True)
            return
        self.form.comparison = comparison
        explained = (f"explained: {text}" for text in comparison.explanations)
        text = "\n".join([comparison.headline, *explained, *comparison.notes])
        rows = show.table(tables.comparison_table(comparison)).to_html()
        self.result.value = pre(text, bad=comparison.verdict is tdx.MeasurementVerdict.DIFFERENT) + dense(rows)
        self.form.keep()


def _predict(inputs: BootInputs, *, on_progress: OnProgress, cancel: CancelToken) -> Prediction:
    return tdx.predict(inputs, on_progress=on_progress, cancel=cancel)


def _path(text: str) -> Path | None:
    return Path(text.strip()) if text.strip() else None
