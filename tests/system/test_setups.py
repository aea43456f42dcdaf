"""Each named set-up in a real guest: it runs, or is refused by name. docs/setups.md has the table that this makes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from acon_nb import kernel
from acon_nb.errors import InvalidInput
from acon_nb.kernel import BuildSpec, KernelImage
from acon_nb.progress import TextProgress
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.swap import SwapFactors, needs, setups

pytestmark = [pytest.mark.system, pytest.mark.weekly]

PAGE = Path(__file__).parents[2] / "docs" / "setups.md"
BEGIN, END = "<!-- tests/system/test_setups.py begins -->\n", "<!-- ends -->\n"
NOT_TRIED = "not tried yet"
SMALL = {
    "memory": "64M", "pressure": 1.2, "accesses": 200, "samples": 4, "data": "like-python:9+zero:1", "workload": "anon",
    "dilation": 12.0, "timeout_s": 1800.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def reclaim_kernel(store) -> KernelImage:
    """The kernel of swap studies with what set-ups need beyond it."""
    spec = BuildSpec(profiles=("guide", "delay-disk", "study", "reclaim"))
    return kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))


def tried(image: KernelImage, names: list[str], out: Path) -> dict[str, str]:
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
        for row in rows[rows["factor_workload"] != "codec"].to_dict("records"):
            good = row["end"] == "powered_off" and not row["error"] and row["corrupt_pages"] == 0
            dies = row["end"] == "out_of_memory"  # a result: zram is smaller than what does not fit into the memory
            words[row["factor_setup"]] = "runs" if good or dies else f"{row['end']}: {row['error']}"
            assert not good or row["knobs"], "every knob is read back"
    return words


def table_of(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The rows of the page's table; set-ups that were not tried are marked."""
    lines = ["| set-up | Linux 6.12, profile `study` | with the profile `reclaim` |", "|---|---|---|"]
    for name in setups.NAMES:
        word = first.get(name, NOT_TRIED)
        lines.append(f"| `{name}` | {word} | {second.get(name, NOT_TRIED) if word.startswith('refused') else ''} |")
    return lines


def written(lines: list[str], page: Path = PAGE) -> None:
    """Put a table into the page."""
    before, rest = page.read_text().split(BEGIN)
    page.write_text("\n".join([before + BEGIN, *lines, "", END + rest.split(END)[1]]))


def test_each_set_up_runs_or_is_refused_by_name(study_kernel, reclaim_kernel, tmp_path):
    first = tried(study_kernel, list(setups.NAMES), tmp_path / "study")
    refused = [name for name in setups.NAMES if first[name].startswith("refused")]
    second = tried(reclaim_kernel, refused, tmp_path / "reclaim")
    lines = table_of(first, second)
    if os.environ.get("ACON_NB_WRITE_TABLES"):
        written(lines)
    assert set(first) == set(setups.NAMES)
    assert all(words == "runs" or words.startswith("refused: ") for words in (*first.values(), *second.values()))
    page = PAGE.read_text().split(BEGIN)[1].split(END)[0].strip().splitlines()
    assert len(page) == len(lines)
    differ = [
        line for line, now in zip(page, lines, strict=True) if NOT_TRIED not in line and line.rstrip() != now.rstrip()
    ]
    assert differ == [], "run it with ACON_NB_WRITE_TABLES=1"
