"""Whether a person is in front, by what each front end says when it executes a cell."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from acon_nb.widgets import session


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The message that a kernel handles, to be changed."""
    message: dict[str, Any] = {}
    shell = SimpleNamespace(get_parent=lambda: message, execution_count=3)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(session, "_asked", {})
    for name in ("ACON_NB_HEADLESS", "SERVER_SOFTWARE"):
        monkeypatch.delenv(name, raising=False)
    return message


def test_a_front_end_that_takes_input_has_a_person(kernel: dict[str, Any]) -> None:
    assert session.headless(), "nothing was executed yet"
    kernel["content"] = {"code": "x", "allow_stdin": False}
    assert session.headless(), "papermill and nbconvert"
    kernel["content"] = {"code": "x", "allow_stdin": True}
    assert not session.headless()


def test_a_click_comes_from_the_person_who_ran_the_cell(kernel: dict[str, Any]) -> None:
    kernel["content"] = {"code": "x", "allow_stdin": True}
    assert not session.headless()
    kernel["content"] = {"comm_id": "of a button", "data": {}}
    assert not session.headless()
    kernel.clear()  # in a thread
    assert not session.headless()


def test_voila_shows_widgets_though_it_takes_no_input(kernel: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel["content"] = {"code": "x", "allow_stdin": False}
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5.13")
    assert not session.headless()
    monkeypatch.setenv("ACON_NB_HEADLESS", "1")
    assert session.headless()


def test_the_cell_is_named_by_its_request(kernel: dict[str, Any]) -> None:
    assert session.cell_now() == ("", 3)
    kernel["metadata"] = {"cellId": "c7"}
    assert session.cell_now() == ("c7", 3)
