"""The answers about an image in words, the best first, then each set-up, then what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from acon_nb.stats.comparison import Verdict
from acon_nb.swap.analysis.outcomes import GuestResult
from acon_nb.swap.image.answers import Answer, Answers, BestAt
from acon_nb.swap.image.corpus import CorpusSummary
from acon_nb.swap.image.measured import Measured
from acon_nb.units import format_bytes, format_seconds, format_share


def lines(answers: Answers, found: Measured, corpus: CorpusSummary | None) -> list[str]:
    """All of it as lines of text."""
    return [
        *measured_lines(found, corpus),
        *(best_line(best, answers.answers) for best in answers.best),
        *(answer_line(answer, answers.counted) for answer in answers.answers),
    ]


def measured_lines(found: Measured, corpus: CorpusSummary | None) -> list[str]:
    """What the program takes with ample memory, and what its pages are."""
    touched = found.working_set_bytes
    working = "" if touched is None else f"; half of the time it touches {format_bytes(touched)} or less in 0.5 s"
    texts = [
        f"Peak: {format_bytes(found.peak_bytes)} (anonymous memory, files that it writes, kernel memory for it;"
        f" {found.peak_from}){working}.",
        f"The image's files take {format_bytes(found.image_bytes)} of RAM on top, kernel and files together"
        f" {format_bytes(found.base_bytes)}.",
    ]
    if corpus is None:
        return [*texts, "No sample of its pages: it ended before one was taken."]
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in corpus.ratio_all.items()) or "nothing to compress"
    empty = corpus.zero_share + corpus.same_share
    what = f"{corpus.pages} pages, {format_share(empty)} of them zero or filled with one word"
    return [*texts, f"Its pages compress by {ratios} ({what})."]


def best_line(best: BestAt, answers: Sequence[Answer]) -> str:
    """The answer at a share: which set-up, what it saves and costs."""
    if not best.setups:
        ends = {GuestResult(one.end).text for one in answers if one.at == best.at}
        return f"At {best.at}: no set-up gets through ({', '.join(sorted(ends))})."
    saved = f"saves {format_bytes(best.saved_bytes)}" if best.saved_bytes else "saves nothing"
    cost = _cost(best.ratio_to_unlimited)
    died = f"; {' and '.join(best.died)} died" if best.died else ""
    if len(best.setups) == 1:
        sure = "is the best" if best.verdict == Verdict.BETTER else "is the only one that gets through"
        return f"At {best.at}: {best.setups[0]} {sure}; it {saved} and {cost}{died}."
    others = ", ".join(best.setups[1:])
    why = best.why or Verdict(best.verdict).text
    rank = "they are not surely worse" if best.verdict == Verdict.BETTER else f"no order is given: {why}"
    return f"At {best.at}: {best.setups[0]} {saved} and {cost}; so do {others} about as well ({rank}){died}."


def answer_line(answer: Answer, counted: str) -> str:
    """One set-up at a share."""
    where = f"{answer.setup} at {answer.at} ({format_bytes(answer.available_bytes)} available)"
    if answer.ended_well < answer.runs:
        text = GuestResult(answer.end).text
        return f"  {where}: {text} in {answer.runs - answer.ended_well} of {answer.runs} runs."
    costs = [_cost(answer.ratio_to_unlimited) + (f" ({counted})" if answer.ratio_to_unlimited else "")]
    costs += [f"{format_seconds(answer.system_cpu_ns / 1e9)} of CPU in the kernel"] if answer.system_cpu_ns else []
    costs += [f"{answer.major_faults:,.0f} faults that read"] if answer.major_faults is not None else []
    costs += [f"p99 {format_seconds(answer.p99_ns / 1e9)}"] if answer.p99_ns is not None else []
    return f"  {where}: {', '.join(costs)}."


def _cost(ratio: float | None) -> str:
    if ratio is None:
        return "costs what its program does not report"
    return f"takes {ratio:.2f} times as long as without a limit"
