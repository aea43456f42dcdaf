"""Each named set-up in a real guest: it runs, or is refused by name. docs/setups.md has the table that this makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from acon_nb import kernel
from acon_nb.errors import InvalidInput
from acon_nb.kernel import BuildSpec, KernelImage
from acon_nb.progress import TextProgress
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.swap import SwapFactors, needs, setups
from tests import page_parts

pytestmark = [pytest.mark.system, pytest.mark.weekly]

PAGE = Path(__file__).parents[2] / "docs" / "setups.md"
PART = "tests/system/test_setups.py"
HEAD = ["| set-up | Linux 6.12, profile `study` | with the profile `reclaim` |", "|---|---|---|"]
RUNS, DIES = "runs", "runs; out of memory"  # the second is a result, too: of no swap
AT_ONCE = 9  # set-ups that share the guests that a study has besides
GROUPS = [setups.NAMES[first : first + AT_ONCE] for first in range(0, len(setups.NAMES), AT_ONCE)]
SMALL = {
    "memory": "64M", "pressure": 0.7, "accesses": 200, "samples": 4, "data": "like-python:9+zero:1", "workload": "anon",
    "dilation": 12.0, "timeout_s": 1800.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def reclaim_kernel(store) -> KernelImage:
    """The kernel of swap studies with what set-ups need beyond it."""
    spec = BuildSpec(profiles=("guide", "delay-disk", "study", "reclaim"))
    return kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))


def tried(image: KernelImage, names: Sequence[str], out: Path) -> dict[str, str]:
    """What becomes of each set-up with a kernel, in words; guests are started for all that are not refused before."""
    words, left = {}, []
    for name in names:
        try:
            needs.check(SwapFactors(setup=name), image.image)
            left.append(name)
        except InvalidInput as error:
            words[name] = f"refused: {error.reason.partition(': ')[2]}"
    if left:
        fixed = {**SMALL, "kernel": str(image.image)}
        plan = Plan(name="setups", study="swap", factors={"setup": left}, fixed=fixed, runs=1, warmups=0)
        rows = study_of(plan, out).run(on_progress=TextProgress(every_s=30))
        for row in rows[(rows["factor_workload"] != "codec") & (rows["factor_copy"] == "")].to_dict("records"):
            good = row["end"] == "powered_off" and not row["error"] and row["corrupt_pages"] == 0
            dies = row["end"] == "out_of_memory"
            words[row["factor_setup"]] = RUNS if good else DIES if dies else f"{row['end']}: {row['error']}"
            assert not good or row["knobs"], "every knob is read back"
    return words


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: f"{names[0]}-{names[-1]}")
def test_each_set_up_runs_or_is_refused_by_name(study_kernel, reclaim_kernel, tmp_path, names):
    first = tried(study_kernel, names, tmp_path / "study")
    refused = [name for name in names if first[name].startswith("refused")]
    second = tried(reclaim_kernel, refused, tmp_path / "reclaim")
    lines = {name: f"| `{name}` | {first[name]} | {second.get(name, '')} |" for name in names}
    if page_parts.is_written():
        page_parts.write_lines(PAGE, PART, HEAD, lines, setups.NAMES)
    for words in (*first.values(), *second.values()):
        assert words in (RUNS, DIES) or words.startswith("refused: ")
    assert [name for name, words in first.items() if words == DIES] == (["none"] if "none" in names else [])
    page = page_parts.lines_by_name(PAGE, PART)
    assert {name: page.get(name) for name in names} == lines, "run it with ACON_NB_WRITE_TABLES=1"


def test_the_page_has_every_set_up():
    assert list(page_parts.lines_by_name(PAGE, PART)) == list(setups.NAMES)
