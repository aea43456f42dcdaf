"""The console's page part by keyboard alone, in a page of its own: a way out, what the guest gets, a screen reader."""

from __future__ import annotations

from pathlib import Path

import pytest

import acon_nb

pytestmark = pytest.mark.system
STATIC = Path(acon_nb.__file__).parent / "widgets/static"
PAGE = """<!DOCTYPE html><html lang="en"><title>console</title><main><h1>Console</h1>
<button id="before">before</button><div id="view" style="width: 600px"></div><button id="after">after</button></main>
<script type="module">
import part from "./console.js";
window.sent = [];
const values = { rows: 10, state: "running", ended: false, transcript: "/tmp/console.log", channel: "" };
const model = {
  get: (name) => values[name], on: () => {}, off: () => {},
  send: (head, _, data) => { if (head.kind === "input") window.sent.push(...data[0]); },
};
part.render({ model, el: document.getElementById("view") });
</script></html>"""


@pytest.fixture
def terminal(page):
    """A page with a console between two buttons; the focus is in the terminal."""
    page.route(
        "http://localhost/**",
        lambda route: (
            route.fulfill(body=PAGE, content_type="text/html")
            if route.request.url.endswith("/")
            else route.fulfill(path=STATIC / "console.js", content_type="text/javascript")
        ),
    )
    page.set_default_timeout(60_000)
    page.goto("http://localhost/")
    page.add_style_tag(path=STATIC / "console.css")
    page.locator(".xterm-helper-textarea").focus()
    return page


def focus(page):
    return page.evaluate(
        "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
    )


def test_escape_twice_and_tab_leaves_and_tab_alone_is_the_guests(terminal, look):
    assert "leaves the terminal" in terminal.locator(".acon-console-leave").inner_text()
    for key in ("Tab", "Escape", "Tab"):
        terminal.keyboard.press(key)
        assert focus(terminal) == "xterm-helper-textarea", f"{key} is the guest's"
    assert terminal.evaluate("window.sent") == [9, 27, 9]
    for key in ("Escape", "Escape", "Tab"):
        terminal.keyboard.press(key)
    assert focus(terminal) == "after"
    assert terminal.evaluate("window.sent") == [9, 27, 9, 27, 27], "the guest gets no Tab"
    look("console-keys")


def test_it_is_left_backwards_too_and_its_buttons_are_reached(terminal):
    for key in ("Escape", "Escape", "Shift+Tab"):
        terminal.keyboard.press(key)
    assert "acon-console-button" in focus(terminal)
    button = terminal.get_by_role("button", name="Screen reader")
    button.focus()
    terminal.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    terminal.locator(".xterm-accessibility").wait_for(state="attached")


def test_the_way_out_waits_no_longer_than_two_seconds_and_for_no_other_key(terminal):
    for key in ("Escape", "a", "Escape", "Tab"):
        terminal.keyboard.press(key)
    assert focus(terminal) == "xterm-helper-textarea"
    for key in ("Escape", "Escape"):
        terminal.keyboard.press(key)
    terminal.wait_for_timeout(2_200)
    terminal.keyboard.press("Tab")
    assert focus(terminal) == "xterm-helper-textarea"


def test_axe_finds_nothing(terminal, axe):
    assert axe(terminal, "main") == []
    terminal.get_by_role("button", name="Screen reader").click()
    assert axe(terminal, "main") == []
