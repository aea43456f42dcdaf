"""Answers a question about an image: measure it, run its study, read the answers from the rows."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.kernel.source import DEBIAN
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.study.builds import Builds
from acon_nb.study.kernels import BUILD, spec_of
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.study.runner import Study
from acon_nb.swap import data
from acon_nb.swap.cell import cell_initrd, image_of
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.image import archive, words
from acon_nb.swap.image.answers import Answers, answers_of
from acon_nb.swap.image.corpus import CorpusSummary, least_available, summary
from acon_nb.swap.image.measure import MeasuredImage, Setting, boot_room, measure
from acon_nb.swap.image.plan import places, plan_of, setups_of
from acon_nb.swap.image.question import ImageQuestion
from acon_nb.swap.image.running import Running, running_of
from acon_nb.swap.setups import by_name
from acon_nb.vm import Clock, capabilities

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class ImageStudy:
    """A question about an image whose program was measured: what is known of it, and the plan of its study."""

    question: ImageQuestion
    running: Running
    measured: MeasuredImage
    corpus: CorpusSummary | None
    plan: Plan

    def study(self, out: Path, *, again: bool = False, parallel: int | None = None) -> Study:
        """The study of the plan, with its rows in the folder `out`; a stopped one resumes. `again` measures anew."""
        return study_of(self.plan, out, session=uuid.uuid4().hex if again else "", parallel=parallel)

    def answer(self, rows: pd.DataFrame) -> ImageAnswer:
        """The answer that the study's rows give."""
        program = self.measured.program
        where = places(self.question, program)
        return ImageAnswer(image=self, answers=answers_of(rows, where, program.peak_bytes, clock=self.question.clock))


@dataclass(frozen=True, kw_only=True)
class ImageAnswer:
    """The answer to a question about an image, as lines of text and as data for JSON."""

    image: ImageStudy
    answers: Answers

    @property
    def lines(self) -> list[str]:
        """The answer in words, the best first."""
        return words.lines(self.answers, self.image.measured.program, self.image.corpus)

    @property
    def data(self) -> dict[str, Any]:
        """The answer for JSON: sizes in bytes, times in ns of the guest's clock."""
        program = self.image.measured.program
        numbers = asdict(program)
        series = numbers.pop("windows")
        numbers.pop("output")
        return {
            "image": self.image.question.image,
            "command": list(self.image.running.argv),
            "peak_bytes": program.peak_bytes,
            "working_set_bytes": program.working_set_bytes,
            "corpus": asdict(self.image.corpus) if self.image.corpus else {},
            "least_available_bytes": least_available(program, self.image.corpus),
            "measured": numbers,
            "working_set": series,
            **self.answers.data(),
            "sentences": self.lines,
        }


def image_study(
    question: ImageQuestion,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> ImageStudy:
    """Measure the program of a question's image (or take it from the cache), and plan its study.

    Errors: those of `initrd.tree_of`, `kernel.build` and `image.measure.measure`; `InvalidInput` for set-ups that are
    not known, and for shares whose guests this host cannot give.
    """
    store = cache or Cache()
    _check_kernel(question.kernel)
    for name in setups_of(question):
        by_name(name)
    tree = archive.tree(question.image, cache=store, on_progress=on_progress, cancel=cancel)
    running = running_of(
        tree, command=question.command, environment=question.environment, driver=question.driver, ready=question.ready,
        for_ns=question.for_ns,
    )  # fmt: skip
    packed = archive.pack(tree, cache=store)
    factors = SwapFactors(kernel=question.kernel, clock=question.clock)
    setting = Setting(
        kernel=_kernel(factors, store, jobs, on_progress, cancel),
        initrd=cell_initrd(image_of(factors), data.page_file(data.parse_mix("zero"), cache=store), cache=store),
        clock=Clock(question.clock), limit_ns=question.limit_ns, timeout_s=question.timeout_s,
    )  # fmt: skip
    measured = measure(
        packed, running, setting, name=question.image, host=capabilities(), cache=store, on_progress=on_progress,
        cancel=cancel,
    )  # fmt: skip
    plan = plan_of(question, measured.program, running, packed, room_bytes=boot_room(packed))
    return ImageStudy(
        question=question, running=running, measured=measured, corpus=summary(measured, cache=store), plan=plan
    )


def _check_kernel(level: str) -> None:
    if level != BUILD and not DEBIAN.fullmatch(level) and not Path(level).is_file():
        hint = "the path of a bzImage, or a kernel to build: debian:SERIES[@SUITE]"
        raise InvalidInput("kernel", level, "is not a file", hint=hint)


def _kernel(
    factors: SwapFactors, store: Cache, jobs: int | None, on_progress: OnProgress, cancel: CancelToken | None
) -> Path:
    spec = spec_of(factors.kernel, factors.build_spec(), {})
    if spec is None:
        return Path(factors.kernel)
    builds = Builds(store)
    image = builds.image("the image", spec, jobs=jobs, on_progress=on_progress, cancel=cancel)
    builds.check(1)
    assert image is not None
    return image
