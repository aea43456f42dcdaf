"""What makes wall times unsteady on a host is found out, said with its fix, and recorded with the rows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from acon_nb import doctor
from acon_nb.cli import main
from acon_nb.host import environment
from acon_nb.host.wall_clock import wall_clock_facts, warnings
from acon_nb.results.select import host_notes

GOOD = {
    "proc/cpuinfo": "processor : 0\nflags : fpu sse2\n",
    "proc/swaps": "Filename Type Size Used Priority\n",
    "proc/loadavg": "0.04 0.10 0.05 1/200 4711\n",
    "sys/devices/system/cpu/online": "0-4095\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
    "sys/devices/system/cpu/smt/active": "0\n",
    "sys/devices/system/node/node0/cpulist": "0-4095\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/ksm/run": "0\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
}
BAD = {
    "proc/cpuinfo": ("processor : 0\nflags : fpu hypervisor sse2\n", "virtual_host"),
    "proc/swaps": ("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n", "host_swap"),
    "sys/devices/system/cpu/online": (",".join(map(str, sorted(os.sched_getaffinity(0)))), "not_pinned"),
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": ("powersave\n", "governor"),
    "sys/devices/system/cpu/intel_pstate/no_turbo": ("0\n", "turbo"),
    "sys/devices/system/cpu/smt/active": ("1\n", "smt"),
    "sys/kernel/mm/transparent_hugepage/enabled": ("always madvise [never]\n", "no_huge_pages"),
    "sys/kernel/mm/ksm/run": ("1\n", "ksm"),
    "sys/devices/system/clocksource/clocksource0/current_clocksource": ("hpet\n", "clocksource"),
}


def host_of(folder: Path, **changed: str) -> Path:
    for name, text in {**GOOD, **changed}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_steady_host_has_no_warnings(tmp_path: Path) -> None:
    facts = wall_clock_facts(host_of(tmp_path))
    assert {fact.code: fact.is_good for fact in facts} == dict.fromkeys((fact.code for fact in facts), True)
    assert warnings(tmp_path) == ()


@pytest.mark.parametrize("name", list(BAD))
def test_each_fault_is_found_alone(tmp_path: Path, name: str) -> None:
    text, code = BAD[name]
    host_of(tmp_path, **{name: text})
    assert warnings(tmp_path) == (code,)
    fact = next(fact for fact in wall_clock_facts(tmp_path) if fact.code == code)
    assert fact.value
    assert fact.why
    assert fact.fix


def test_amds_boost_is_turbo_too(tmp_path: Path) -> None:
    host_of(tmp_path, **{"sys/devices/system/cpu/cpufreq/boost": "1\n"})
    (tmp_path / "sys/devices/system/cpu/intel_pstate/no_turbo").unlink()
    assert warnings(tmp_path) == ("turbo",)
    fact = next(fact for fact in wall_clock_facts(tmp_path) if fact.code == "turbo")
    assert fact.fix == "echo 0 > /sys/devices/system/cpu/cpufreq/boost"


def test_what_cannot_be_seen_is_not_called_good(tmp_path: Path) -> None:
    facts = wall_clock_facts(tmp_path)
    assert all(fact.is_good is None for fact in facts)
    assert warnings(tmp_path) == ()


def test_the_load_is_said_but_no_warning_of_rows(tmp_path: Path) -> None:
    host_of(tmp_path, **{"proc/loadavg": "3.50 1 1 1/2 3\n"})
    assert next(fact for fact in wall_clock_facts(tmp_path) if fact.code == "loaded").is_good is False
    assert warnings(tmp_path) == ()


def test_doctor_has_a_finding_for_each() -> None:
    findings = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["findings"]
    ours = [one for one in findings if one["what"].startswith("wall: ")]
    assert len(ours) == len(wall_clock_facts())
    assert all(one["detail"] and one["feature"] for one in ours)
    assert all(one["fix"] for one in ours if one["state"] != "ok")
    assert "wall: CPU pinning" in doctor.table(doctor._wall_clock())


def test_rows_say_under_which_state_they_were_measured() -> None:
    assert environment().host_warnings == "\n".join(warnings())
    rows = pd.DataFrame({"host_warnings": ["governor\nsmt", "smt", ""]})
    (note,) = host_notes(rows)
    assert "governor (1 of 3 runs), smt (2 of 3 runs)" in note
    assert host_notes(pd.DataFrame({"host_warnings": ["", None]})) == []
    assert host_notes(pd.DataFrame({"end": ["powered_off"]})) == []
