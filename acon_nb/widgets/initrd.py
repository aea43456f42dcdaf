"""A form for an `initrd.InitrdSpec`: choose an image, look at its contents, add lines, files and keys, build it.

Use `form = widgets.initrd_form(spec, path)` in a cell; `form.spec` is the spec with the values of the fields. In
headless runs the form is a table of the spec.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import initrd, plots
from acon_nb.archive.compress import SUFFIXES
from acon_nb.errors import AconError
from acon_nb.initrd import fstab, tables
from acon_nb.jupyter import show
from acon_nb.widgets.parts import Runner, dense, lines_of, pre, scrolled
from acon_nb.widgets.view import Displayed, accessible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class InitrdForm(Displayed):
    """A view of one `InitrdSpec`: `spec` has the values of the fields, `built` is the initrd built last, if any."""

    def __init__(self, spec: initrd.InitrdSpec, folder: Path) -> None:
        super().__init__()
        self.spec = spec
        self.folder = folder
        self.built: initrd.BuiltInitrd | None = None

    def parts(self) -> list[Any]:
        """Return the spec as a table, and what was built last."""
        spec = show.table(tables.spec_table(self.spec))
        if self.built is None:
            return [spec]
        files = tables.file_table(self.built.tree)
        text = show.ShownText(tables.image_text(self.built.image))
        return [spec, text, show.table(files), self.folders(self.built.tree)]

    def folders(self, tree: initrd.FileTree) -> Figure:
        """Draw the sizes of a tree's folders."""
        return self.drawn(_draw_folders, tree)

    def widget(self) -> Any:
        """Return the form."""
        return _View(self).box


def initrd_form(spec: initrd.InitrdSpec, folder: Path = Path()) -> InitrdForm:
    """Create a form that starts with `spec` and builds images in `folder`; show it as the last value of a cell."""
    return InitrdForm(spec, folder)


class _View:
    """The widgets, created only when they are displayed."""

    def __init__(self, form: InitrdForm) -> None:
        import ipywidgets as w

        self.form = form
        spec = form.spec
        wide, style = {"width": "98%"}, {"description_width": "7em"}
        self.image = w.Text(spec.image, description="Image", layout=wide, style=style)
        self.platform = w.Text(
            spec.platform, description="Platform", placeholder="this machine's", layout=wide, style=style
        )
        self.compression = w.Dropdown(
            options=[("none", ""), *((name, name) for name in SUFFIXES)],
            value=spec.compression,
            description="Compression",
            style=style,
        )
        self.fstab = _lines(w, "fstab", spec.fstab, "DEVICE POINT TYPE OPTIONS 0 0, one per line")
        self.files = _lines(w, "Files", spec.files, "NAME=HOSTFILE, one per line")
        self.keys = _lines(w, "Keys", map(str, spec.keys), "public keys that may log in as root, one per line")
        self.dirs = w.Text(" ".join(spec.dirs), description="Folders", placeholder="all", layout=wide, style=style)
        self.edits = _lines(w, "Edits", map(str, spec.edits), "folders of files to add, one per line")
        self.force = w.Checkbox(spec.force, description="replace the image's own /init, profile, fstab", style=style)
        self.error = w.HTML()
        self.meaning = scrolled(w, "12em")
        self.device = w.Text("vda", description="Encrypt", layout={"width": "12em"}, style=style)
        self.use = w.Combobox(value="swap", options=["swap", "/ext4"], description="as", layout={"width": "12em"})
        self.cipher = w.Dropdown(
            options=[(f"@{text}", text) for text in tables.SPECS], description="scheme", layout={"width": "18em"}
        )
        self.add = w.Button(description="Add line", icon="plus")
        self.look = w.Button(description="Look inside", icon="search")
        self.make = w.Button(description="Build", icon="archive", button_style="primary")
        self.result = w.HTML(layout=wide)
        self.runner = Runner((self.look, self.make), self.result, lambda: not self.error.value, form.keep)
        self.sizes = w.HTML(layout={"display": "none", "max_width": "100%"})
        self.box = accessible(self._layout(w))
        self._wire()
        self._explain()

    def _layout(self, w: Any) -> Any:
        left = w.VBox(
            [self.image, self.platform, self.dirs, self.compression, self.force, self.files, self.edits, self.keys],
            layout={"width": "50%"},
        )
        cipher = w.HBox([self.device, self.use, self.cipher, self.add], layout={"flex_flow": "row wrap"})
        right = w.VBox([self.fstab, cipher, self.meaning], layout={"width": "50%"})
        buttons = w.HBox([self.look, self.make, self.runner.cancel, self.runner.bar])
        return w.VBox([w.HBox([left, right]), self.error, buttons, self.runner.log, self.result, self.sizes])

    def _wire(self) -> None:
        choices = (self.image, self.platform, self.dirs, self.compression, self.force)
        for field in (*choices, self.fstab, self.files, self.edits, self.keys):
            field.observe(lambda _: self._take(), names="value")
        for field in (self.device, self.use, self.cipher):
            field.observe(lambda _: self._explain(), names="value")
        self.add.on_click(lambda _: self._add())
        self.look.on_click(lambda _: self._start(initrd.plan, self._looked, self.form.spec))
        self.make.on_click(lambda _: self._start(initrd.make, self._built, self.form.spec, self._path()))

    def _path(self) -> Path:
        stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.form.spec.image.rpartition("/")[2])
        return self.form.folder / self.form.spec.file_name(stem or "image")

    def _take(self) -> None:
        """Read the fields into the spec; errors are shown at once."""
        try:
            self.form.spec = replace(
                self.form.spec,
                image=self.image.value.strip(),
                platform=self.platform.value.strip(),
                dirs=tuple(self.dirs.value.split()),
                force=self.force.value,
                compression=self.compression.value,
                fstab=lines_of(self.fstab.value),
                files=lines_of(self.files.value),
                edits=tuple(map(Path, lines_of(self.edits.value))),
                keys=tuple(map(Path, lines_of(self.keys.value))),
            )
            self.error.value = ""
        except AconError as error:
            self.error.value = pre(str(error), bad=True)
        self.runner.switch()

    def _line(self) -> fstab.FstabLine:
        use = self.use.value.strip()
        kind = "swap" if use == "swap" else "ext4"
        options = ("sw", "discard") if kind == "swap" else ("defaults",)
        device = f"/dev/mapper/{self.device.value.strip()}@{self.cipher.value}"
        return fstab.FstabLine(device=device, point="none" if kind == "swap" else use, type=kind, options=options)

    def _explain(self) -> None:
        try:
            line = self._line()
            items = "".join(f"<li>{html.escape(text)}</li>" for text in line.explain())
            self.meaning.value = dense(f"<code>{html.escape(str(line))}</code><ul>{items}</ul>")
            self.add.disabled = False
        except AconError as error:
            self.meaning.value, self.add.disabled = pre(str(error), bad=True), True

    def _add(self) -> None:
        self.fstab.value = "\n".join([*lines_of(self.fstab.value), str(self._line()).replace("\t", " ")])

    def _start(self, function: Callable[..., Any], done: Callable[[Any], None], *args: Any) -> None:
        self.sizes.layout.display = "none"
        self.runner.start(function, done, *args)

    def _looked(self, contents: tuple[initrd.FileTree, tuple[str, ...]]) -> None:
        tree, warnings = contents
        self._show(tree, warnings, f"{len(tree)} names")

    def _built(self, built: initrd.BuiltInitrd) -> None:
        self.form.built = built
        self._show(built.tree, built.warnings, tables.image_text(built.image))

    def _show(self, tree: initrd.FileTree, warnings: tuple[str, ...], head: str) -> None:
        parts = [pre(head), *(pre(f"warning: {text}") for text in warnings)]
        self.result.value = dense("".join([*parts, show.table(tables.file_table(tree)).to_html()]))
        self.sizes.value = show.image(self.form.folders(tree))
        self.sizes.layout.display = ""


def _draw_folders(tree: initrd.FileTree) -> Figure:
    return plots.plot_folders(tables.folder_table(tree))


def _lines(w: Any, name: str, values: Any, placeholder: str) -> Any:
    return w.Textarea(
        "\n".join(values),
        description=name,
        placeholder=placeholder,
        rows=4,
        layout={"width": "98%"},
        style={"description_width": "7em"},
    )
