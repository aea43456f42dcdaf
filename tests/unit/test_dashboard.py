"""The page over all nights: 400 of them, with steps, two plans, links, hostile names; its size, and how it compares."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from acon_nb.changes import dashboard
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.results.older import SCHEMA
from acon_nb.results.store import Store

NIGHTS = 400
HOSTILE = 'swap=<script>alert("@DATA@")</script>'


def night_name(number: int) -> str:
    return str(dt.date(2025, 1, 1) + dt.timedelta(days=number))


def rows_of(number: int) -> dict[str, list[dict[str, Any]]]:
    """A night: boots on both clocks and swap guests, with steps at the nights 100 and 250."""
    night = night_name(number)
    step = 1.0 + 0.01 * (number >= 100) - 0.004 * (number >= 250)
    common = {
        "schema": SCHEMA, "timestamp": f"{night}T02:00:00", "session": night, "block": 0, "host_class": "h",
        "end": "powered_off", "error": "", "host_fault": "", "warmup": False, "kernel_release": f"6.12.{number // 100}",
        "packages": "\n".join(f"package{part}==1.{number // 50}" for part in range(80)),
    }  # fmt: skip
    counted = {**common, "clock": "instructions"}
    boots = [
        {**counted, "cell": f"memory={size}M", "guest_ns_reset_to_init": round(1.2e8 * step) + size,
         "memavailable_bytes": (size - 20) << 20}
        for size in (256, 512)
    ]  # fmt: skip
    wall = 2.0e9 * (1 + 0.003 * ((number * 7919) % 13 - 6))
    boots.append({**common, "cell": "wall", "clock": "wall", "host_ns_init": wall})
    swaps = [
        {**counted, "cell": cell, "access_ops_per_s": 26_000 / step, "executed_ns": round(9e8 * step), "seed": 1,
         "freed_bytes": 40 << 20}
        for cell in ("swap=disk", "swap=zram:lz4", HOSTILE)
    ]  # fmt: skip
    for kind, study, rows in (("boot", "quick", boots), ("swap", "tour", swaps)):
        for place, row in enumerate(rows):
            row |= {"run_id": f"{night}-{kind}-{place}", "study": study, "kind": kind}
    return {"boot": boots, "swap": swaps}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nights") / "history"
    everything = [rows_of(number) for number in range(NIGHTS)]
    for kind in ("boot", "swap"):
        table = pd.DataFrame([row for one in everything for row in one[kind]])
        path = Store(folder).add(kind, {**everything[0][kind][0]})
        table.to_parquet(path, index=False)  # as if gathered: one file of all nights
    return folder


@pytest.fixture(scope="module")
def page(history: Path) -> Path:
    reports = history.parent / "reports"
    reports.mkdir()
    for number in (398, 399):
        summary = {"schema": 2, "night": night_name(number)}
        (reports / f"{number}.json").write_text(json.dumps(summary))
        (reports / f"{number}.html").write_text("a report")
    (reports / "other.json").write_text("{}")
    began = time.process_time()
    done = CliRunner().invoke(main, ["bench", "nights", "--history", str(history), "-o", str(reports / "nights.html")])
    assert done.exit_code == 0, done.output
    sys.stderr.write(f"{NIGHTS} nights: {time.process_time() - began:.1f} s of CPU time\n")
    return reports / "nights.html"


def test_400_nights_are_one_small_page_that_loads_nothing(page: Path) -> None:
    text = page.read_text()
    sys.stderr.write(f"{page.stat().st_size / 1e6:.2f} MB\n")
    assert page.stat().st_size < 3_000_000
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    assert text.count("<figure>") == 2 * 2 + 1 + 3 * 3
    assert "<script>alert" not in text
    assert text.count('<script type="application/json" id="data">{"nights":') == 1


def test_steps_are_at_their_nights_and_reports_are_linked(page: Path) -> None:
    rows = {
        row[0]: row[1:]
        for row in re.findall(r"<tr><td[^>]*>([^<]*)</td><td[^>]*>(.*?)</td><td>(.*?)</td></tr>", page.read_text())
    }
    assert "memory=256M, reset to /init: +1 % (worse)" in re.sub("<.*?>", "", rows[night_name(100)][0])
    assert "(better)" in rows[night_name(250)][0]
    assert rows[night_name(99)][0] == ""
    assert rows[night_name(399)][1] == '<a href="399.html">report</a>'
    assert rows[night_name(10)][1] == ""


def test_the_last_night_is_judged_as_a_night_is(history: Path) -> None:
    board = dashboard.of(history, "quick,tour", reports=Path("none"))
    assert board.last.verdict == "no_change"
    assert board.last.sentences()[0].startswith(f"STEADY: night {night_name(399)}, 14 series over 30 nights")
    assert board.nights[0] == night_name(0)
    with pytest.raises(InvalidInput, match="has no nights"):
        dashboard.of(history, "kernels", reports=Path("none"))
    one = dashboard.of(history, "quick,kernels", reports=Path("none"))
    assert one.last.plan == "quick"


def test_a_last_night_of_one_plan_is_judged_by_that_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(6):
        for kind, rows in rows_of(number).items():
            for row in rows if number < 5 or kind == "boot" else ():
                store.add(kind, row)
    board = dashboard.of(tmp_path, "quick,tour", reports=tmp_path)
    assert board.nights[-1] == board.last.night == night_name(5)
    assert {one.plan for one in board.last.series} == {"quick"}
    assert {one.metric for one in board.series} > {one.metric for one in board.last.series}
    assert "swap=disk" in dashboard.write(board, tmp_path / "nights.html").read_text()


def test_the_markdown_of_a_night_is_a_table_without_markup_of_its_cells(history: Path) -> None:
    text = dashboard.of(history, "quick,tour", reports=Path("none")).last.markdown()
    assert text.startswith("## ✅ STEADY")
    assert "<script>" not in text.replace("\\<script\\>", "")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 14
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_the_facts_of_a_night_are_kept_once() -> None:
    frame = pd.DataFrame([{"session": "2026-01-01", "packages": "x" * 500, "kernel_sha256": "ab" * 32}])
    facts = dashboard._facts([frame])["2026-01-01"]
    assert facts["kernel's image"] == "abababababab"
    assert len(facts["Python packages"]) < 230


def test_a_history_that_is_not_there_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^history=.*is not a folder"):
        dashboard.of(tmp_path / "none", "quick", reports=tmp_path)
