"""A panel for a `vm.VmSpec`: edit it, see errors next to the fields and what each option does, start, type, stop.

Use `panel = widgets.vm_panel(spec)` in a cell; `panel.spec` is the spec in the fields, `panel.machine` the machine
started last. In an unattended run it shows the spec and its explained command as tables and creates no widget.
"""

from __future__ import annotations

import html
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from acon_nb import agent, vm
from acon_nb.errors import AconError, InvalidInput
from acon_nb.jupyter import show
from acon_nb.td import preflight
from acon_nb.units import format_bytes, format_seconds
from acon_nb.vm import form, tables
from acon_nb.vm.preflight import check_size
from acon_nb.widgets import sparkline
from acon_nb.widgets.console import COLUMNS, ROWS, TERM, ConsoleView
from acon_nb.widgets.parts import error_line, scrolled, with_error
from acon_nb.widgets.session import cell_now
from acon_nb.widgets.view import Displayed, accessible

_LABELS = {
    "kernel": "Kernel",
    "initrd": "Initrd (RD)",
    "append": "Command line (KA)",
    "memory_bytes": "Memory (M)",
    "vcpus": "vCPUs (VP)",
    "machine": "Machine",
    "accelerator": "Accelerator",
    "firmware": "Firmware (BIOS)",
    "disks": "Disks (DRV)",
    "forwards": "Forwards (TCPFWD)",
    "shares": "Shares (HOST:GUEST)",
    "vsock_cid": "vsock (CID)",
    "td": "TD name (TD)",
    "td_flavour": "TD flavour",
    "quote_socket": "TD quote socket",
    "mrconfigid": "TD mrconfigid",
    "mrowner": "TD mrowner",
    "mrownerconfig": "TD mrownerconfig",
    "attributes": "TD attributes",
    "sept_ve_disable": "TD sept-ve-disable",
    "debug": "TD debug (fork)",
    "memory_backend": "Memory back end",
    "hugepages": "Huge pages",
    "numa": "NUMA nodes",
    "host_nodes": "Nodes of the host",
    "timeout_s": "Time limit / s",
    "extra": "More options",
}
_CHOICES = {"machine": ("q35", "microvm"), "accelerator": ("auto", "kvm", "tcg"), "td_flavour": ("upstream", "fork")}
_CHOICES |= dict.fromkeys(("sept_ve_disable", "debug"), ("", "on", "off"))
_CHOICES |= {"memory_backend": ("", "ram", "memfd"), "hugepages": ("", "2M", "1G")}
_POINTS = 120
_GRACE_S = 10.0


class VmPanel(Displayed):
    """A view of one `VmSpec`: `spec` is what the fields contain, `machine` and `console` are those started last.

    Made again by the same cell of a notebook, it finds the guest that the cell's earlier panel started, if that still
    runs, with its fields and its console.
    """

    def __init__(self, spec: vm.VmSpec) -> None:
        super().__init__()
        self.spec = self.base = spec
        self.cell, self.execution = cell_now()
        self.machine: vm.Machine | None = None
        self.console: ConsoleView | None = None
        self._view: _View | None = None
        earlier = _earlier(self)
        if earlier is not None:
            self.spec, self.machine, self.console = earlier.spec, earlier.machine, earlier.console
            _started.append(self)

    def started(self, machine: vm.Machine) -> None:
        """Note the guest that was started from this panel; its console takes the place of the last one's."""
        if self.console is not None:
            self.console.close()
        self.machine, self.console = machine, ConsoleView(machine)
        _started.append(self)

    def close(self) -> None:
        """End the guest if it is running."""
        if self.machine is not None:
            self.machine.close()

    def report(self) -> Any:
        """Return the explained command as a table, which stays in a saved notebook."""
        return show.table(tables.explained_table(vm.explain(self.spec, vm.capabilities())))

    def parts(self) -> list[Any]:
        """Return the spec and its explained command as tables; of a guest that was started, its console and its end."""
        shown: list[Any] = [show.table(tables.spec_table(self.spec)), self.report()]
        if self.machine is None or self.console is None:
            return shown
        end = [] if self.machine.running else [show.ShownText(_end(self.machine))]
        return [*shown, self.console.report(), *end]

    def widget(self) -> Any:
        """Return the panel."""
        if self._view is None:
            self._view = _View(self)
        return self._view.box


_started: list[VmPanel] = []  # panels whose guest runs, in the order of their start


def _earlier(panel: VmPanel) -> VmPanel | None:
    """Return the panel whose guest runs and that the same cell made in an earlier execution; of several, the one that
    was made with the same spec. Outside notebooks, where cells are not known, the spec decides alone."""
    _started[:] = [one for one in _started if one.machine is not None and one.machine.running]
    same = [one for one in _started if one.cell == panel.cell and (not panel.cell or one.execution != panel.execution)]
    alike = [one for one in same if one.base == panel.base]
    return next(reversed(alike or (same if panel.cell else [])), None)


def vm_panel(spec: vm.VmSpec) -> VmPanel:
    """Create a panel that starts with `spec`, to be the last value of a cell."""
    return VmPanel(spec)


class _View:
    """The widgets, created only when they are displayed. Slow work runs in threads."""

    def __init__(self, panel: VmPanel) -> None:
        import ipywidgets as w

        self.panel = panel
        self.base = panel.spec
        self.host: vm.Capabilities | None = None
        self.busy = False
        self.valid = True
        wide = {"width": "97%"}
        style = {"description_width": "11em"}
        self.fields: dict[str, Any] = {}
        self.errors: dict[str, Any] = {}
        for name, text in form.texts_of(panel.spec).items():
            kind = w.Dropdown if name in _CHOICES else w.Text
            more = {"options": _CHOICES[name]} if name in _CHOICES else {}
            self.fields[name] = kind(value=text, description=_LABELS[name], layout=wide, style=style, **more)
            self.errors[name] = w.HTML(layout={"margin": "0 0 0 11.5em"})
        self.error = w.HTML()
        self.command = scrolled(w, "36em", "probing this host")
        self.start = w.Button(description="Start", icon="play", button_style="primary")
        self.stop = w.Button(description="Stop", icon="power-off", tooltip="The power button, then SIGTERM")
        self.kill = w.Button(description="Kill", icon="times", button_style="danger")
        self.badge, self.state = w.HTML(), w.HTML("not started")
        self.cpu, self.memory, self.counters = w.HTML(), w.HTML(), w.HTML()
        self.console = w.VBox([])
        self.box = accessible(self._layout(w))
        for field in self.fields.values():
            field.observe(lambda _: self._take(), names="value")
        self.start.on_click(lambda _: self._begin(self._start))
        self.stop.on_click(lambda _: self._begin(self._stop))
        self.kill.on_click(lambda _: self.panel.machine.kill() if self.panel.machine else None)
        self._enable()
        self._begin(self._probe)
        if panel.machine is not None and panel.machine.running:
            self._show_guest(panel.machine)

    def _layout(self, w: Any) -> Any:
        rows = [with_error(field, self.errors[name]) for name, field in self.fields.items()]
        left = w.VBox([*rows, self.error], layout={"width": "50%"})
        right = w.VBox([self.command], layout={"width": "50%"})
        buttons = w.HBox([self.start, self.stop, self.kill, self.badge, self.state])
        return w.VBox([w.HBox([left, right]), buttons, w.HBox([self.cpu, self.memory, self.counters]), self.console])

    def _begin(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread and show what it raises."""

        def guarded() -> None:
            try:
                work()
            except InvalidInput as error:
                self._show_errors({form.field_of(error): form.error_text(error)})
            except AconError as error:
                self.error.value = error_line(str(error))
            except Exception as error:  # in a thread, where nothing else would show it
                self.error.value = error_line(f"{type(error).__name__}: {error}")
            finally:
                self.busy = False
                self._enable()

        self.busy = True
        self._enable()
        threading.Thread(target=guarded, name="acon-panel", daemon=True).start()

    def _enable(self) -> None:
        running = self.panel.machine is not None and self.panel.machine.running
        self.start.disabled = self.busy or running or not self.valid
        self.stop.disabled = self.busy or not running
        self.kill.disabled = not running

    def _take(self) -> None:
        """Read the fields into the spec, and show errors at once, next to their fields."""
        spec, errors = form.read_texts({name: field.value for name, field in self.fields.items()}, self.base)
        self.valid = spec is not None
        self._show_errors(errors)
        self._enable()
        if spec is not None:
            self.panel.spec = spec
            self._explain()

    def _show_errors(self, errors: dict[str, str]) -> None:
        for name, label in self.errors.items():
            text = error_line(errors[name]) if name in errors else ""
            if label.value != text:
                label.value = text
        self.error.value = "".join(
            error_line(f"{name} {text}") for name, text in errors.items() if name not in self.errors
        )

    def _probe(self) -> None:
        self.host = vm.capabilities()
        self._explain()

    def _explain(self) -> None:
        if self.host is None:
            return
        try:
            check_size(self.panel.spec, self.host.version)
            rows = vm.explain(self.panel.spec, self.host)
        except InvalidInput as error:  # such as a KVM that this host lacks
            self.valid = False
            self._enable()
            self._show_errors({form.field_of(error): form.error_text(error)})
            return
        self.command.value = f"<b>qemu-system-x86_64</b>{''.join(map(_option, rows))}"

    def _start(self) -> None:
        spec = self.panel.spec
        has_agent = bool(spec.shares)  # which mounts them
        machine = preflight.machine(agent.with_shares(spec), interactive=True, agent=has_agent)
        machine.window.set(ROWS, COLUMNS, TERM)  # until the console in the page knows its size
        machine.start()
        if has_agent:
            arguments = (machine, lambda text: setattr(self.error, "value", html.escape(text)))
            threading.Thread(target=agent.share_when_ready, args=arguments, name="acon-shares", daemon=True).start()
        self.panel.started(machine)
        self._show_guest(machine)

    def _show_guest(self, machine: vm.Machine) -> None:
        """Show a running guest: its console, and what it uses from now on."""
        self.cpu.value = ""
        self.badge.value = _badge(machine.accelerator, machine.host.kvm_why)
        self.console.children = [self.panel.console.widget()] if self.panel.console is not None else []
        threading.Thread(target=self._follow, args=(machine,), name="acon-panel-live", daemon=True).start()

    def _stop(self) -> None:
        if self.panel.machine is not None:
            self.state.value = "stopping"
            self.panel.machine.stop(_GRACE_S)

    def _follow(self, machine: vm.Machine) -> None:
        """Show the guest's counters once per second, and finally its end."""
        started = time.monotonic()
        before: vm.Sample | None = None
        cpu: deque[float] = deque(maxlen=_POINTS)
        memory: deque[float] = deque(maxlen=_POINTS)
        for sample in machine.samples(1.0):
            if not self.busy:
                self.state.value = f"running for {format_seconds(time.monotonic() - started)}"
            if before is not None:
                elapsed = sample.host_ns - before.host_ns
                cpu.append(100 * (sum(sample.vcpu_ns) - sum(before.vcpu_ns)) / max(elapsed, 1))
                self.cpu.value = sparkline.svg("vCPUs", f"{cpu[-1]:.0f} %", cpu, 100 * machine.spec.vcpus)
            before = sample
            memory.append(sample.resident_bytes)
            shown = format_bytes(sample.resident_bytes)
            self.memory.value = sparkline.svg("QEMU's resident set", shown, memory, machine.spec.memory_bytes)
            self.counters.value = show.table(tables.sample_table(sample)).to_html()
        try:
            self.state.value = _pre(tables.outcome_text(machine.wait()))
        except AconError as error:
            self.error.value = error_line(str(error))
        self._enable()
        self.panel.keep()


def _end(machine: vm.Machine) -> str:
    try:
        return tables.outcome_text(machine.wait())
    except AconError as error:
        return str(error)


def _option(row: vm.Explained) -> str:
    """Describe an option with its reason in HTML; a click shows what the guide says and what differs today."""
    head = f"<code>{html.escape(row.option)} {html.escape(row.value)}</code>"
    texts = {"The guide": row.guide, "Today": row.today, "Source": row.source}
    more = "".join(f"<div><i>{name}:</i> {html.escape(text)}</div>" for name, text in texts.items() if text)
    style = "margin: 2px 0; line-height: 1.35; overflow-wrap: anywhere"
    return f'<details style="{style}"><summary>{head}<br>{html.escape(row.why)}</summary>{more}</details>'


def _badge(accelerator: str, why: str) -> str:
    colour = "#2e7d32" if accelerator == "kvm" else "#b26a00"
    style = f"background: {colour}; color: #fff; border-radius: 3px; padding: 1px 0.6em; font-weight: bold"
    title = "" if accelerator == "kvm" else f"emulated; KVM: {why}"
    return f'<span style="{style}" title="{html.escape(title, quote=True)}">{accelerator.upper()}</span>'


def _pre(text: str) -> str:
    return f'<span style="white-space: pre-wrap; line-height: 1.3">{html.escape(text)}</span>'
