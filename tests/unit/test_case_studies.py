"""docs/case-studies.md says what its rows say: its commands ask what was measured, its tables come from the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from acon_nb import results
from acon_nb.cli import main
from acon_nb.swap.image import words
from acon_nb.swap.image.answers import Answers, answers_of
from acon_nb.swap.image.corpus import CorpusSummary
from acon_nb.swap.image.observations import MeasuredProgram, PageSample, Window
from acon_nb.swap.image.plan import places, setups_of
from acon_nb.swap.image.question import ImageQuestion
from tests import page_parts
from tests.unit.test_docs import ROOT, commands_in, indented

PAGE = ROOT / "docs/case-studies.md"
FOLDER = ROOT / "docs/case-studies"
NAMES = ("build", "sessions", "catalogue")  # in the order of the page
MEASURED = ("build", "sessions", "catalogue")
SEEDS = 5


@pytest.fixture(scope="module")
def questions() -> dict[str, ImageQuestion]:
    """The question of each command of the page, as the command line itself takes it."""
    asked: list[ImageQuestion] = []

    def note(question: ImageQuestion, out: Path, **options: Any) -> None:
        asked.append(question)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("acon_nb.cli.swap.answer_image", note)
        for command in _commands():
            result = CliRunner().invoke(main, command, catch_exceptions=False)
            assert result.exit_code == 0, result.output
    return dict(zip(NAMES, asked, strict=True))


def _commands() -> Iterator[list[str]]:
    for block in indented(PAGE):
        yield from (command for command in commands_in(block) if command[:2] == ["bench", "swap"])


def measured(name: str) -> tuple[MeasuredProgram, CorpusSummary | None]:
    """What was measured of a case's image: `keep_rows.py` took it from the command's JSON."""
    data = json.loads((FOLDER / f"{name}.json").read_text())
    sample = data["measured"].pop("sample")
    windows = tuple(Window(**window) for window in data["working_set"])
    taken = PageSample(**sample) if sample else None  # a run can end before one is taken
    program = MeasuredProgram(**data["measured"], output="", windows=windows, sample=taken)
    return program, CorpusSummary(**data["corpus"], path="") if data["corpus"] else None


def answers(question: ImageQuestion, program: MeasuredProgram) -> Answers:
    rows = results.load(ROOT / "docs/rows", "swap", question.name)
    return answers_of(rows, places(question, program), program.peak_bytes, clock=question.clock)


def block(question: ImageQuestion, name: str) -> str:
    """The part of the page that is made of a case's rows: sentences, and the table."""
    program, corpus = measured(name)
    answered = answers(question, program)
    sentences = [
        *words.measured_lines(program, corpus),
        *(words.best_line(one, answered) for one in answered.best),
    ]
    table = words.answer_table(answered)
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    lines = [f"* {sentence}" for sentence in sentences] + [""] + [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["", *lines, ""]) + "\n"


@pytest.mark.parametrize("name", MEASURED)
def test_the_page_has_what_the_rows_give(name: str, questions: dict[str, ImageQuestion]) -> None:
    made = block(questions[name], name)
    if page_parts.is_written():
        page_parts.write_part(PAGE, name, made)
    assert page_parts.part_of(PAGE, name) == made, "run it with ACON_NB_WRITE_TABLES=1"


@pytest.mark.parametrize("name", MEASURED)
def test_every_set_up_ran_with_every_seed(name: str, questions: dict[str, ImageQuestion]) -> None:
    question = questions[name]
    program, _ = measured(name)
    answered = answers(question, program).answers
    assert question.seeds == SEEDS
    assert {(one.at, one.setup) for one in answered} == {
        (at, setup) for at in question.at for setup in setups_of(question)
    }
    assert {one.runs for one in answered} == {SEEDS}


@pytest.mark.parametrize("name", MEASURED)
def test_the_rows_are_of_the_command_and_of_the_clock_that_repeats(
    name: str, questions: dict[str, ImageQuestion]
) -> None:
    question = questions[name]
    rows = results.load(ROOT / "docs/rows", "swap", question.name)
    assert set(rows["clock"]) == {"instructions"}
    programs = rows[rows["factor_workload"] == "program"]
    assert set(programs["factor_image"]) == {question.image}
    copies = programs[programs["factor_copy"] != ""]
    assert len(copies) == SEEDS, "a cell is run twice, and must give the same counters"
    for _, copy in copies.iterrows():
        twins = programs[(programs["factor_setup"] == copy["factor_setup"]) & (programs["seed"] == copy["seed"])]
        twins = twins[twins["factor_available"] == copy["factor_available"]]
        assert twins["counters_sha256"].nunique() == 1


def test_the_files_that_the_page_names_are_what_the_images_are_made_of() -> None:
    for folder in ("redis", "service"):
        lines = (FOLDER / folder / "Dockerfile").read_text().splitlines()
        copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
        assert copied
        for name in copied:
            assert (FOLDER / folder / name).is_file()
