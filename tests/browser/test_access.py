"""All widgets in one page of real JupyterLab, by keyboard alone and as a screen reader hears
them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


def shown(test, name):
    """The cell of another test, which shows its widget here with the others: its last line names it."""
    source = runpy.run_path(str(Path(__file__).with_name(f"test_{test}.py")))["CELLS"][0]
    return f"{source.strip().rpartition(chr(10))[0]}\ndisplay({name})\n"


CELLS = [
    "\n".join(
        [
            shown("explorer", "explorer"),
            shown("initrd", "form"),
            shown("kernel", "form"),
            shown("measure", "form"),
            shown("profile", "explorer"),
            shown("board", "board"),
            """
from acon_nb import vm
from acon_nb.study.plan import Plan
from acon_nb.swap.image.question import ImageQuestion
plan = Plan(name="designed", study="boot", factors={"memory": ["128M", "256M"]}, runs=2, warmups=0)
display(widgets.study_designer(plan, Path("results")))
display(widgets.image_form(ImageQuestion(image="busybox", command=("true",))))
display(widgets.vm_panel(vm.VmSpec(kernel=image, initrd=Path("initrd"))))
await widgets.run(lambda on_progress, cancel: None)
print("all", "shown")
""",
        ]
    )
]
# What can have the focus in the outputs, each by its place in the page; a frame holds fields of its own.
FIELDS = """() => [...document.querySelectorAll('.jp-OutputArea :is(input, textarea, select, button, summary, iframe,'
  + ' [tabindex="0"])')].filter((one) => !one.disabled && one.tabIndex >= 0 && one.offsetParent !== null
  && !one.closest('.jp-OutputCollapser, .jp-OutputPrompt') && one.localName !== 'iframe')
  .map((one, number) => { one.dataset.number = number; return `${number} ${one.localName} ` + (one.ariaLabel
  || one.labels?.[0]?.innerText || one.innerText).slice(0, 40); })"""
NOW = "document.activeElement.localName === 'iframe' ? 'frame' : document.activeElement.dataset.number ?? 'out'"


@pytest.fixture
def all_widgets(guide_kernel, run_cells):
    page = run_cells
    page.get_by_text("all shown").wait_for()
    page.locator("button.jupyter-button", has_text="Kill").wait_for()
    page.locator("code", has_text="-kernel").wait_for()
    return page


def test_an_error_is_announced_and_marks_and_describes_its_field_among_all_widgets(all_widgets, look):
    page = all_widgets
    memory = page.get_by_label("Memory (M)")
    memory.fill("8M")
    alert = page.locator("[role=alert]", has_text="cannot hold the kernel and its initrd")
    alert.wait_for()
    page.locator('input[aria-invalid="true"]').first.wait_for()
    assert memory.get_attribute("aria-invalid") == "true"
    described = memory.get_attribute("aria-describedby")
    assert "cannot hold the kernel" in page.locator(f'[id="{described}"]').inner_text()
    look("access")


def press(page, name, key):
    button = page.locator("button.jupyter-button", has_text=name).first
    button.focus()
    page.keyboard.press(key)


def test_axe_finds_nothing_in_any_widget(all_widgets, axe, look):
    page = all_widgets
    press(page, "Predict", "Enter")  # pictures and tables, too
    page.get_by_text("Which registers change").wait_for()
    press(page, "Look inside", "Space")
    page.get_by_text("/bin/busybox").first.wait_for()
    assert page.locator(".jp-OutputArea img:visible").count() >= 2
    assert axe(page, ".jp-OutputArea") == []
    look("access-light")


def test_every_field_is_reached_by_tab_and_left_again(all_widgets):
    page = all_widgets
    fields = page.evaluate(FIELDS)
    assert len(fields) > 80
    page.locator('[data-number="0"]').focus()
    visited = ["0"]
    for _ in range(3 * len(fields)):
        page.keyboard.press("Tab")
        now = page.evaluate(NOW)
        if now == "out":
            break
        visited.append(now)
    assert now == "out", f"Tab never leaves the outputs; it ends at {visited[-5:]}"
    missing = [field for field in fields if field.split()[0] not in visited]
    assert missing == []
    places = [int(one) for one in visited if one != "frame"]
    assert places == sorted(places), "the order of Tab is that of the page"


PRESSED = {  # a button: what appears once it was pressed
    "Predict": "Which registers change",
    "Look inside": "/bin/busybox",
    "Check": "requested options applied",
    "Add line": "",  # a line in a field
    "Export": "written: ",
}


def test_enter_and_space_press_buttons_which_keep_the_focus(all_widgets):
    page = all_widgets
    for number, (name, text) in enumerate(PRESSED.items()):
        button = page.locator("button.jupyter-button:visible", has_text=name).first
        press(page, name, ("Enter", "Space")[number % 2])
        if name == "Add line":
            field = page.locator("textarea[placeholder^='DEVICE POINT']")
            page.wait_for_function("field => field.value.includes('swap')", arg=field.element_handle())
        else:
            page.get_by_text(text).first.wait_for()
        page.wait_for_function("one => !one.disabled", arg=button.element_handle())
        page.wait_for_function("one => document.activeElement === one", arg=button.element_handle(), timeout=10_000)


def test_arrows_and_letters_stay_in_a_list_and_its_form_keeps_the_focus(all_widgets):
    page = all_widgets
    cells = page.locator(".jp-Cell").count()
    page.get_by_label("Across", exact=True).focus()
    for key, value in (("ArrowDown", "memory"), ("ArrowDown", "machine"), ("ArrowUp", "memory")):
        page.keyboard.press(key)
        page.wait_for_function("value => document.activeElement.value === value", arg=value, timeout=20_000)
    page.get_by_text("256M compared with 1G (machine=q35)").wait_for()
    assert page.evaluate("document.activeElement.value") == "memory", "the form was drawn again"
    page.keyboard.type("dd")  # JupyterLab: delete the cell
    page.wait_for_timeout(1_000)
    assert page.locator(".jp-Cell").count() == cells
    memory = page.get_by_label("Memory (M)")
    memory.fill("8M")
    page.locator("[role=alert]", has_text="cannot hold the kernel and its initrd").wait_for()
    assert memory.evaluate("one => document.activeElement === one")
