"""The answers about an image in words, the best first, then each set-up, then what was measured."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import TYPE_CHECKING

from acon_nb import results
from acon_nb.stats.comparison import Verdict
from acon_nb.swap.analysis.outcomes import GuestResult
from acon_nb.swap.image.answers import Answers, BestAt, SetupAnswer
from acon_nb.swap.image.corpus import CorpusSummary, least_available
from acon_nb.swap.image.observations import MeasuredProgram
from acon_nb.swap.image.question import ImageQuestion
from acon_nb.units import format_bytes, format_seconds, format_share

if TYPE_CHECKING:
    import pandas as pd


def lines(answers: Answers, program: MeasuredProgram, corpus: CorpusSummary | None) -> list[str]:
    """All of it as lines of text."""
    return [
        *measured_lines(program, corpus),
        *unlimited_lines(answers.unlimited),
        *(best_line(best, answers) for best in answers.best),
        *(answer_line(answer, answers) for answer in answers.answers),
    ]


def unlimited_lines(unlimited: SetupAnswer | None) -> list[str]:
    """What is wrong with that which all is compared with; nothing if each of its runs ended well."""
    if unlimited is None:
        return ["No run without a limit counts: there is nothing to compare its time with."]
    if unlimited.ended_well == unlimited.runs:
        return []
    ended = f"{GuestResult(unlimited.end).text} in {unlimited.runs - unlimited.ended_well} of {unlimited.runs} runs"
    size = format_bytes(unlimited.available_bytes)
    return [f"Without a limit ({size} available): {ended}; their seeds have nothing to be compared with."]


def measured_lines(program: MeasuredProgram, corpus: CorpusSummary | None) -> list[str]:
    """What the program takes with ample memory, and what its pages are."""
    touched = program.working_set_bytes
    working = "" if touched is None else f"; half of the time it touches {format_bytes(touched)} or less in 0.5 s"
    texts = [
        f"Peak: {format_bytes(program.peak_bytes)} (anonymous memory, files that it writes, kernel memory for it;"
        f" {program.peak_from}){working}.",
        f"The image's files take {format_bytes(program.image_bytes)} of RAM on top, kernel and files together"
        f" {format_bytes(program.base_bytes)}.",
    ]
    if corpus is None:
        return [*texts, "No sample of its pages: it ended before one was taken."]
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in corpus.ratio_all.items()) or "nothing to compress"
    empty = corpus.zero_share + corpus.same_share
    what = f"{corpus.pages} pages, {format_share(empty)} of them zero or filled with one word"
    least = least_available(program, corpus)
    pools = ", ".join(f"{format_bytes(size)} with {name}" for name, size in least.items() if name != "none")
    arithmetic = f"; with zram it gets through, by arithmetic, in {pools}" if pools else ""
    return [*texts, f"Its pages compress by {ratios} ({what}){arithmetic}."]


def best_line(best: BestAt, answers: Answers) -> str:
    """The answer at a share: which set-up, what it saves and costs."""
    if not best.setups:
        ends = {GuestResult(one.end).text for one in answers.answers if one.at == best.at} or {"no run counts"}
        return f"At {best.at}: no set-up gets through ({', '.join(sorted(ends))})."
    saved = f"saves {format_bytes(best.saved_bytes)}" if best.saved_bytes else "saves nothing"
    cost = _cost(best.ratio_to_unlimited, answers.unlimited)
    died = f"; died: {', '.join(best.died)}" if best.died else ""
    if len(best.setups) == 1:
        sure = "is the best" if best.verdict == Verdict.BETTER else "is the only one that gets through"
        return f"At {best.at}: {best.setups[0]} {sure}; it {saved} and {cost}{died}."
    others = ", ".join(best.setups[1:])
    why = best.why or Verdict(best.verdict).text
    rank = "they are not surely worse" if best.verdict == Verdict.BETTER else f"no order is given: {why}"
    return f"At {best.at}: {best.setups[0]} {saved} and {cost}; so do {others} about as well ({rank}){died}."


def answer_line(answer: SetupAnswer, answers: Answers) -> str:
    """One set-up at a share."""
    where = f"{answer.setup} at {answer.at} ({format_bytes(answer.available_bytes)} available)"
    if answer.ended_well < answer.runs:
        text = GuestResult(answer.end).text
        return f"  {where}: {text} in {answer.runs - answer.ended_well} of {answer.runs} runs."
    costs = [_answer_cost(answer, answers)]
    costs += [f"{format_seconds(answer.system_cpu_ns / 1e9)} of CPU in the kernel"] if answer.system_cpu_ns else []
    costs += [f"{answer.major_faults:,.0f} faults that read"] if answer.major_faults is not None else []
    costs += [f"p99 {format_seconds(answer.p99_ns / 1e9)}"] if answer.p99_ns is not None else []
    return f"  {where}: {', '.join(costs)}."


def _answer_cost(answer: SetupAnswer, answers: Answers) -> str:
    if answer.ratio_to_unlimited is None:
        return _cost(None, answers.unlimited)
    return f"takes {_ratio_text(answer)} times as long as without a limit ({answers.counted}; {answer.interval})"


def _ratio_text(answer: SetupAnswer) -> str:
    """The ratio with its interval, if it has one: "1.50 [1.44, 1.58]"."""
    if answer.ratio_to_unlimited is None:
        return ""
    span = "" if answer.ratio_seeds < 2 else f" [{answer.ratio_low:.2f}, {answer.ratio_high:.2f}]"
    return f"{answer.ratio_to_unlimited:.2f}{span}"


def _cost(ratio: float | None, unlimited: SetupAnswer | None) -> str:
    if ratio is None and (unlimited is None or unlimited.ended_well < unlimited.runs):
        return "costs what is not known: without a limit it did not end well"
    if ratio is None:
        return "costs what its program does not report"
    return f"takes {ratio:.2f} times as long as without a limit"


def question_table(question: ImageQuestion) -> pd.DataFrame:
    """The question's fields that are given, a row each."""
    values = {item.name: getattr(question, item.name) for item in fields(question)}
    texts = {name: shlex.join(value) if isinstance(value, tuple) else str(value) for name, value in values.items()}
    return results.frame({"field": name, "value": text} for name, text in texts.items() if text)


def answer_table(answers: Answers) -> pd.DataFrame:
    """A row for each set-up at each share: how it ended, its time compared with no limit, what it saves and costs.

    The interval of the time is in brackets, and its kind a column.
    """
    return results.frame(
        {
            "at": one.at,
            "set-up": one.setup,
            "available": format_bytes(one.available_bytes),
            "ended well": f"{one.ended_well} of {one.runs}",
            "end": GuestResult(one.end).text,
            "time / unlimited": _ratio_text(one),
            "interval": one.interval,
            "saves": "" if one.saved_bytes is None else format_bytes(one.saved_bytes),
            "kernel CPU": "" if one.system_cpu_ns is None else format_seconds(one.system_cpu_ns / 1e9),
            "faults that read": "" if one.major_faults is None else f"{one.major_faults:,.0f}",
            "p99": "" if one.p99_ns is None else format_seconds(one.p99_ns / 1e9),
        }
        for one in answers.answers
    )
