"""A form for a `kernel.BuildSpec`: choose profiles, search the options, check, build, and see the sizes of the parts.

Use `form = widgets.kernel_form(spec)` in a cell; `form.spec` is the spec with the values of the fields. In headless
runs the form is a table of the spec.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import kernel, plots
from acon_nb.errors import AconError
from acon_nb.jupyter import show
from acon_nb.kernel import dotconfig, tables
from acon_nb.widgets.parts import Runner, dense, lines_of, pre, scrolled
from acon_nb.widgets.view import Displayed, accessible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HINT = "Use Check first: it reads the options of the source."


class KernelForm(Displayed):
    """A view of one `BuildSpec`: `spec` has the values of the fields, `image` is the kernel built last, if any.

    `configuration` is the result of the last check of the same source, if any.
    """

    def __init__(self, spec: kernel.BuildSpec) -> None:
        super().__init__()
        self.spec = spec
        self.image: kernel.KernelImage | None = None
        self.configuration: kernel.Configuration | None = None

    def parts(self) -> list[Any]:
        """Return the spec as a table, and the kernel that was built last."""
        spec = show.table(tables.spec_table(self.spec))
        if self.image is None:
            return [spec]
        return [spec, show.ShownText(tables.image_text(self.image)), self.sizes(self.image)]

    def sizes(self, image: kernel.KernelImage) -> Figure:
        """Draw the sizes of a kernel's parts."""
        return self.drawn(_draw_sizes, image)

    def widget(self) -> Any:
        """Return the form."""
        return _View(self).box


def kernel_form(spec: kernel.BuildSpec) -> KernelForm:
    """Create a form that starts with `spec`; show it as the last value of a cell."""
    return KernelForm(spec)


class _View:
    """The widgets, created only when they are displayed."""

    def __init__(self, form: KernelForm) -> None:
        import ipywidgets as w

        self.form = form
        spec = form.spec
        wide = {"width": "98%"}
        style = {"description_width": "5em"}
        names = [*kernel.PROFILES, *(group for group in kernel.groups() if group not in kernel.PROFILES)]
        self.source = w.Text(spec.source, description="Source", layout=wide, style=style)
        self.profiles = w.SelectMultiple(options=names, rows=8, description="Profiles", layout=wide, style=style)
        self.profiles.value = [name for name in names if name in spec.profiles]
        self.settings = w.Textarea(
            "\n".join(spec.settings),
            description="Settings",
            placeholder="OPT=VAL, one per line",
            rows=8,
            layout=wide,
            style=style,
        )
        self.start = w.Text(
            str(spec.config or ""),
            description="Start",
            placeholder="tinyconfig, or a .config",
            layout=wide,
            style=style,
        )
        self.patches = w.Textarea(
            "\n".join(map(str, spec.patches)),
            description="Patches",
            placeholder="files, one per line",
            rows=2,
            layout=wide,
            style=style,
        )
        self.error = w.HTML()
        self.search = w.Text(description="Search", placeholder="name, or words of the prompt", layout=wide, style=style)
        self.hits = w.Select(options=[], rows=12, description="Options", layout=wide, style=style)
        self.detail = scrolled(w, "17em", _HINT)
        self.value = w.Combobox(options=[], description="Set to", layout={"width": "16em"}, style=style)
        self.set = w.Button(description="Set", icon="plus", disabled=True, layout={"width": "6em"})
        self.check = w.Button(description="Check", icon="check", tooltip="Configure only")
        self.build = w.Button(description="Build", icon="cogs", button_style="primary")
        self.result = w.HTML(layout=wide)
        self.runner = Runner((self.check, self.build), self.result, lambda: not self.error.value, form.keep)
        self.sizes = w.HTML(layout={"display": "none", "max_width": "100%"})
        self.box = accessible(self._layout(w))
        self._wire()

    def _layout(self, w: Any) -> Any:
        half = {"width": "50%"}
        left = w.VBox([self.source, self.start, self.profiles, self.settings, self.patches, self.error], layout=half)
        right = w.VBox(
            [self.search, self.hits, w.HBox([self.value, self.set]), self.detail],
            layout={**half, "padding": "0 0 0 1em"},
        )
        buttons = w.HBox([self.check, self.build, self.runner.cancel, self.runner.bar])
        return w.VBox([w.HBox([left, right]), buttons, self.runner.log, self.result, self.sizes])

    def _wire(self) -> None:
        for field in (self.source, self.start, self.profiles, self.settings, self.patches):
            field.observe(lambda _: self._take(), names="value")
        self.search.observe(lambda _: self._find(), names="value")
        self.hits.observe(lambda _: self._describe(), names="value")
        self.set.on_click(lambda _: self._add())
        self.check.on_click(lambda _: self._start(kernel.configure, self._checked))
        self.build.on_click(lambda _: self._start(kernel.build, self._built))

    def _take(self) -> None:
        """Read the fields into the spec; errors are shown at once."""
        try:
            spec = replace(
                self.form.spec,
                source=self.source.value.strip(),
                profiles=tuple(self.profiles.value),
                settings=lines_of(self.settings.value),
                patches=tuple(map(Path, lines_of(self.patches.value))),
                config=Path(self.start.value.strip()) if self.start.value.strip() else None,
            )
            kernel.requested_options(spec.profiles, (0, 0), settings=spec.settings)
        except AconError as error:
            self.error.value = pre(str(error), bad=True)
        else:
            if spec.source != self.form.spec.source:
                self.form.configuration = None  # it belongs to the old source
                self._find()
            self.form.spec, self.error.value = spec, ""
        self.runner.switch()

    def _find(self) -> None:
        configuration = self.form.configuration
        if configuration is None:
            self.hits.options, self.detail.value = [], _HINT
            return
        values, symbols = configuration.values, configuration.symbols
        names = kernel.search(configuration, self.search.value)
        self.hits.options = [(f"{name} = {values.get(name, 'n')}   {symbols[name].prompt}", name) for name in names]
        self.hits.value = names[0] if names else None

    def _describe(self) -> None:
        configuration, name = self.form.configuration, self.hits.value
        if configuration is None or name is None:
            self.detail.value = "" if configuration else _HINT
            self.set.disabled = True
            return
        info = kernel.describe(configuration, name)
        self.detail.value = dense(_option_html(info))
        self.value.options = info.choices
        self.value.value = "y" if info.choices and info.value == "n" else info.value
        self.set.disabled = not info.settable

    def _add(self) -> None:
        option = self.hits.value
        others = [line for line in self.settings.value.splitlines() if line.partition("=")[0].strip() != option]
        self.settings.value = "\n".join([*filter(None, others), f"{option}={self.value.value}"])

    def _start(self, function: Callable[..., Any], done: Callable[[Any], None]) -> None:
        self.sizes.layout.display = "none"
        self.runner.start(function, done, self.form.spec)

    def _checked(self, configuration: kernel.Configuration) -> None:
        self.form.configuration = configuration
        rows = configuration.results
        parts = [
            f"<b>{dotconfig.summary(rows)}</b> to Linux {html.escape(configuration.tree.release)}",
            show.table(tables.group_table(rows)).to_html(),
        ]
        if not all(row.ok for row in rows):
            parts += ["<b>Not applied:</b>", show.table(tables.failed_table(rows)).to_html()]
        self.result.value = dense("".join(parts))
        self._find()

    def _built(self, image: kernel.KernelImage) -> None:
        self.form.image = image
        self.result.value = pre(tables.image_text(image))
        self.sizes.value = show.image(self.form.sizes(image))
        self.sizes.layout.display = ""


def _draw_sizes(image: kernel.KernelImage) -> Figure:
    return plots.plot_sizes(tables.size_table(image))


def _option_html(info: kernel.OptionInfo) -> str:
    """Describe an option in HTML; texts of the source are escaped."""
    rows = {
        "": info.prompt,
        "type": info.kind + ("" if info.settable else ", set only by other options"),
        "value": info.value,
        "requested": f"{info.wanted} ({info.group})" if info.wanted else "",
        "not applied because": info.why,
        "note": info.note,
        "depends on": "\n".join(info.depends),
        "defined at": info.location,
        "help": info.help,
    }
    cells = "".join(
        f'<tr><td style="vertical-align: top; padding-right: 1em">{html.escape(name)}</td>'
        f'<td style="white-space: pre-wrap">{html.escape(text)}</td></tr>'
        for name, text in rows.items()
        if text
    )
    return f"<b>CONFIG_{html.escape(info.option)}</b><table>{cells}</table>"
