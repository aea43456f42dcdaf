"""The form of a question about an image: a view of the dataclass, whose errors are shown as they are typed."""

from __future__ import annotations

import pytest

from acon_nb.swap.image.question import ImageQuestion
from acon_nb.widgets.image import _View, image_form


@pytest.fixture
def view() -> _View:
    question = ImageQuestion(image="busybox", command=("sh", "-c", "echo a  b"), at=("0.5x",), seeds=3)
    return _View(image_form(question))


def test_the_form_shows_the_question_and_takes_what_is_entered(view: _View) -> None:
    assert view.command.value == "sh -c 'echo a  b'"
    view.command.value = "redis-server --save ''"
    view.driver.value = "redis-benchmark -q"
    assert "needs ready" in view.error.value
    view.ready.value = "port:6379"
    view.at.value = "0.6x, 64M"
    view.environment.value = "A=1\nB=2"
    assert view.error.value == ""
    asked = view.form.question
    assert asked.command == ("redis-server", "--save", "")
    assert asked.driver == ("redis-benchmark", "-q")
    assert asked.at == ("0.6x", "64M")
    assert asked.environment == ("A=1", "B=2")
    assert asked.seeds == 3


def test_what_cannot_be_asked_is_shown_and_the_question_stays(view: _View) -> None:
    before = view.form.question
    view.at.value = "much"
    assert "neither a share nor a size" in view.error.value
    assert view.form.question == before


def test_in_a_headless_run_the_form_is_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("acon_nb.widgets.view.headless", lambda: True)
    image_form(ImageQuestion(image="busybox", command=("sh", "-c", "a b")))._ipython_display_()
    assert "_View" not in capsys.readouterr().out
