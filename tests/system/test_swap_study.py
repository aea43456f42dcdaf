"""Swap studies with real guests on the instruction clock: counters, outcomes, determinism, resuming."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import replace

import pytest

from acon_nb import kernel, process
from acon_nb.errors import Cancelled, InvalidInput
from acon_nb.guest.programs import load_program
from acon_nb.initrd import tree_of, write_folder
from acon_nb.kernel import BuildSpec
from acon_nb.profile.model import of_values
from acon_nb.progress import CancelToken, Progress, TextProgress
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.swap import corpora, needs, tables
from acon_nb.swap.calibration import CLASSES
from acon_nb.swap.classes import df_classes
from acon_nb.swap.experiment import determinism

pytestmark = pytest.mark.system

MIB = 1 << 20
SMALL = {"memory": "80M", "pressure": 1.1, "accesses": 2000, "data": "python:9+zero:1", "timeout_s": 900}
LABELS = {"disk": "swap=disk", "zram": "swap=zram:lz4", "zswap": "swap=zswap:lz4"}


@pytest.fixture(scope="module")
def small(study_kernel, store, tmp_path_factory):
    """One small study: three swaps, the codec cell, and a copy of the disk's cell."""
    folder = tmp_path_factory.mktemp("swap")
    plan = Plan(name="small", study="swap", factors={"swap": ["disk", "zram:lz4", "zswap:lz4"]}, fixed=SMALL, runs=1)
    study = study_of(plan, folder)
    return folder, plan, study.run(on_progress=TextProgress())


def test_a_guests_profile_is_exact_and_its_row_the_same(small, tmp_path):
    _, plan, rows = small
    asked = replace(plan, name="profiled", factors={"swap": ["zram:lz4"]}, profile=True, calls=True)
    study = study_of(asked, tmp_path)
    study.experiment.prepare(jobs=None, on_progress=TextProgress(), cancel=CancelToken())
    cell = study.plan.all_cells[0]
    measured = study.experiment.run(cell, next(study.plan.schedule()), CancelToken())
    profile = of_values(json.loads(measured.profile))
    assert profile.phases == ("boot", "set-up and fill", "measured")
    assert sum(one.self_count for one in profile.functions) + profile.unattributed == profile.total
    assert profile.unattributed == 0
    row = by_swap(rows, "zram")
    used = [one for one in profile.functions if one.phase == "measured"]
    assert sum(one.self_count for one in used) == row["executed_ns"] + row["busy_waiting_ns"]
    assert {"zram_submit_bio", "LZ4_decompress_safe"} <= {one.name for one in used}
    below = [stack for stack in profile.stacks if stack[0] == "measured" and stack[-1] == "LZ4_decompress_safe"]
    assert below
    assert all("asm_exc_page_fault" in stack or "do_syscall_64" in stack for stack in below)
    own = {one.name: one.self_count for one in used}
    assert sum(profile.stacks[stack] for stack in below) == own["LZ4_decompress_safe"]
    for name in ("span_ns", "idle_ns", "counters_sha256", "fault_p50_ns", "functions"):
        assert measured.row[name] == row[name], name


def by_swap(rows, name):
    return rows[rows["cell"] == LABELS[name]].iloc[0]


def test_all_that_a_study_promises_is_in_its_rows(small):
    _, _, rows = small
    assert list(rows["end"]) == ["powered_off"] * 5
    assert list(rows["error"]) == [""] * 5
    measured = rows[rows["factor_workload"] == "tmpfs"]
    assert (measured["corrupt_pages"] == 0).all()
    assert (measured["fault_count"] > 0).all()
    assert (measured["hit_count"] + measured["fault_count"] == 1000).all()
    for column in ("access_ops_per_s", "fault_p999_ns", "fill_psi_full_ns", "fill_kswapd_cpu_ns", "fill_system_cpu_ns"):
        assert (measured[column] > 0).all(), column
    disk, zram, zswap = (by_swap(rows, name) for name in LABELS)
    assert disk["fault_p50_ns"] > disk["disk_latency_ns"] * 0.97, "a fault waits for the disk"
    assert zram["fault_p50_ns"] < disk["fault_p50_ns"] / 3
    assert zram["fill_disk_written_bytes"] == 0
    assert zswap["fill_zswpout_pages"] > 0
    assert zram["fill_swpout_zero_pages"] > 0
    assert "zram0/comp_algorithm=lz4" in zram["knobs"]
    assert "zswap/parameters/max_pool_percent" in zswap["knobs"]


def test_the_pool_holds_what_we_count_and_compresses_as_the_library_does(small):
    _, _, rows = small
    zram = by_swap(rows, "zram")
    held = zram["swap_used_bytes"]
    assert zram["pool_stored_bytes"] == pytest.approx(held, rel=0.15)  # less the zero pages, kept in a bitmap
    ratio = zram["pool_stored_bytes"] / zram["pool_compressed_bytes"]
    assert ratio == pytest.approx(zram["data_ratio_lz4"], rel=0.1)  # pages of the guest's programs are there too
    zswap = by_swap(rows, "zswap")
    taken_in = zswap["fill_zswpout_pages"] + zswap["zswpout_pages"]
    assert 0 < zswap["zswap_stored_pages"] <= taken_in + 2000
    assert zswap["peak_pool_bytes"] <= 0.25 * 80 * MIB, "a fifth of the memory, as it was told"


def test_the_same_seed_gives_the_same_counters_and_latencies(small):
    _, _, rows = small
    found = determinism(rows)
    assert list(found["same"]) == [True]
    assert "1 of 1 repeated runs gave the same" in tables.determinism_lines(rows)[0]


def test_the_calibration_is_a_row_and_the_disk_is_slowed_down_by_it(small):
    _, _, rows = small
    codec = rows[rows["factor_workload"] == "codec"].iloc[0]
    table = df_classes(rows).set_index("class")
    assert set(table.index) == set(CLASSES), "each class, the cipher too: both CPUs have AES instructions"
    assert table.loc["pointer_chase", "dilation"] < 0.5, "a load counts 1 ns, wherever its data are"
    assert not table.loc["pointer_chase", "comparable"]
    assert table.loc["zstd_decompress", "guest_ns"] > table.loc["lz4_decompress", "guest_ns"]
    paid = [table.loc[["fault", "copy", f"{name}_decompress"], "dilation"] for name in ("lz4", "zstd")]
    assert min(map(min, paid)) < codec["dilation"] < max(map(max, paid))
    disk = by_swap(rows, "disk")
    assert disk["dilation"] == disk["dilation_measured"], "the plan fixes none"
    assert disk["disk_latency_ns"] == round(52_600 * disk["dilation"])
    lines = tables.calibration_lines(rows)
    assert any(text.startswith("Not comparable") and "pointer chase" in text for text in lines)
    assert any(text.startswith("Disk, instructions clock: a disk of 52.6 µs answers after") for text in lines)


def test_samples_tell_the_story_of_a_guest(small):
    _, _, rows = small
    samples = json.loads(by_swap(rows, "zram")["samples"])
    times = [sample["t_ns"] for sample in samples]
    assert times == sorted(times)
    assert max(sample["swap_used_bytes"] for sample in samples) > 10 * MIB
    assert samples[0]["pool_bytes"] < samples[-2]["pool_bytes"]


def test_a_study_that_is_run_again_measures_nothing_again(small):
    folder, plan, rows = small
    again = study_of(plan, folder)
    assert len(again.run()) == len(rows)
    assert sum(cell.kept for cell in again.state.cells) == 5


def test_outcomes_that_are_no_success_are_results(study_kernel, tmp_path, monkeypatch):
    """Out of memory, a knob that the kernel lacks, and encrypted swap that works, side by side.

    Where the configuration of a kernel is not known, it is the guest that refuses.
    """
    cells = [
        {"swap": "disk", "swap_bios": 16, "encryption": "@+ae"},
        {"swap": "zram:lz4", "kernel": "guide", "lru_gen": True},
        {"swap": "disk", "disk_size": "8M"},
        {"swap": "zram:deflate", "kernel": "guide"},
        {"swap": "disk", "kernel": "guide"},
    ]
    guide = kernel.build(BuildSpec(profiles=("guide",)))
    known = Plan(name="known", study="swap", cells=[{**cells[1], "kernel": str(guide.image)}], fixed=SMALL, runs=1)
    with pytest.raises(InvalidInput, match="lru_gen needs CONFIG_LRU_GEN"):
        study_of(known, tmp_path / "known").run()
    monkeypatch.setattr(needs, "check", lambda *_, **__: None)  # as of a kernel whose configuration is not known
    for cell in cells:
        cell["kernel"] = str(guide.image if cell.get("kernel") else study_kernel.image)
    plan = Plan(
        name="ends",
        study="swap",
        cells=[*cells, {"workload": "codec", "swap": "none", "copy": "none"}],
        fixed={**SMALL, "dilation": 10.0},
        runs=1,
    )
    rows = study_of(plan, tmp_path).run(on_progress=TextProgress()).set_index("cell")
    encrypted, lacking, short, algorithm, diskless = (rows.loc[row.label] for row in plan.all_cells[:5])
    assert short["end"] == "out_of_memory"
    assert "OOM killer in fill after" in short["error"]
    assert short["oom_kills"] >= 1
    assert short["fill_count"] > 0
    assert (encrypted["end"], encrypted["error"], encrypted["corrupt_pages"]) == ("powered_off", "", 0)
    assert "dm_mod/parameters/swap_bios=16" in encrypted["knobs"]
    assert "/sys/block/zram0/comp_algorithm does not take deflate (compressor)" in algorithm["error"]
    assert "this kernel has no /sys/kernel/mm/lru_gen/enabled (lru_gen)" in lacking["error"]
    assert "this kernel has no /sys/module/delay_disk/parameters (disk)" in diskless["error"]


def test_what_a_factor_says_shows_in_the_counters(study_kernel, tmp_path):
    """swappiness weighs a file on the disk against memory; zram's idle pages go to the disk again and again, by age."""
    file = {"workload": "file", "pattern": "zipf", "swap": "disk", "pressure": 1.6, "accesses": 20_000}
    cells = [{**file, "swappiness": swappiness} for swappiness in (1, 60, 200)]
    zram = {"swap": "zram:lz4", "workload": "anon", "pattern": "zipf", "zram_writeback": "idle", "accesses": 3000}
    cells += [{**zram, "zram_interval": "200ms", "zram_idle_age": "1s", "until_steady": 9000}]
    codec = {"workload": "codec", "swap": "none", "copy": "none"}
    fixed = {**SMALL, "dilation": 10.0, "kernel": str(study_kernel.image)}
    plan = Plan(name="factors", study="swap", cells=[*cells, codec], fixed=fixed, runs=1)
    rows = study_of(plan, tmp_path).run(on_progress=TextProgress()).set_index("cell")
    measured = rows.loc[[row.label for row in plan.all_cells[:4]]]
    assert list(measured["error"]) == [""] * 4
    assert (measured["corrupt_pages"] == 0).all()
    low, default, high = (measured.iloc[number] for number in range(3))
    counters = ["pswpout_pages", "pgscan_anon_pages", "pgscan_file_pages", "workingset_refault_file_pages"]
    assert len({tuple(row[counters]) for row in (low, default, high)}) == 3
    assert low["pgscan_anon_pages"] < high["pgscan_anon_pages"]
    assert low["workingset_refault_file_pages"] > high["workingset_refault_file_pages"]
    idle = measured.iloc[3]
    assert idle["zram_rounds"] > 3
    assert idle["backing_written_bytes"] > 0
    assert idle["warmup_accesses"] >= 1500
    assert idle["steady"] == (abs(idle["rate_trend"]) <= 0.05)


def test_a_cancelled_study_keeps_what_it_measured_and_goes_on(study_kernel, tmp_path):
    plan = Plan(
        name="cut",
        study="swap",
        factors={"swap": ["zram:lz4", "zram:zstd"]},
        runs=1,
        fixed={**SMALL, "dilation": 10.0, "kernel": str(study_kernel.image), "copy": "x"},
    )
    stop = CancelToken()

    def watch(event: Progress) -> None:
        if event.text.startswith("1 of"):
            stop.cancel()

    study = study_of(plan, tmp_path, parallel=1)
    with pytest.raises(Cancelled):
        study.run(on_progress=watch, cancel=stop)
    kept = study.rows()
    assert len(kept) == 1
    rest = study_of(plan, tmp_path, parallel=1)
    assert len(rest.run()) == 3
    assert sum(cell.kept for cell in rest.state.cells) == 1


def test_redis_gives_back_each_document_as_it_was_last_set(store, tmp_path):
    """The workload and Debian's redis-server on this host: the guest runs the same two."""
    root, place = tmp_path / "root", tmp_path / "redis"
    write_folder(tree_of(corpora.REDIS_IMAGE, cache=store), root)
    (tmp_path / "pages").write_bytes(random.Random(1).randbytes(4096) + b"d")
    told = {"workload": "redis", "pattern": "zipf", "pages": 6000, "accesses": 2000, "write_per_million": 200_000}
    with process.Child(corpora.redis_argv(root, place), cwd=tmp_path) as server:
        wait_until(place.exists)
        told |= {"redis": place, "redis_pid": server.pid}
        environment = {**os.environ, **{f"cell_{name}": str(value) for name, value in told.items()}}
        process.run([load_program(store), "run", tmp_path / "pages", tmp_path / "out"], env=environment, timeout_s=120)
    result = json.loads((tmp_path / "out").read_text().splitlines()[-1])
    assert (result["phase"], result["corrupt"]) == ("end", 0)
    assert result["things"] > 1000


def wait_until(done, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.weekly
def test_a_guest_that_is_stuck_in_reclaim_is_ended_with_its_stacks(study_kernel, tmp_path):
    """zram at its limit, with data that do not compress: the kernel goes on trying, as reclaim finds no end."""
    fixed = {**SMALL, "data": "random", "pressure": 1.6, "dilation": 10.0}
    cells = [{"swap": "zram:lz4", "zram_limit": "20M"}, {"workload": "codec", "swap": "none", "copy": "x"}]
    fixed["kernel"] = str(study_kernel.image)
    rows = study_of(Plan(name="stuck", study="swap", cells=cells, fixed=fixed, runs=1), tmp_path).run()
    stuck = rows[rows["factor_workload"] == "tmpfs"].iloc[0]
    assert stuck["end"] == "hang"
    assert "no progress in fill after" in stuck["error"]
    assert stuck["fill_count"] > 1000
    assert json.loads(stuck["samples"])[-1]["phase"] == "fill"
    assert "sysrq: Show Blocked State" in (tmp_path / stuck["log"]).read_text()


@pytest.mark.weekly
def test_stress_ng_orders_the_swaps_as_we_do(study_kernel, tmp_path):
    """A second opinion from a program that is not ours: the same order of disk, zram and zswap."""
    stress = "stress-ng --vm 1 --vm-bytes {bytes} --vm-ops 600 --vm-method write64 --vm-keep --no-rand-seed"
    plan = Plan(
        name="opinion",
        study="swap",
        factors={"swap": ["disk", "zram:lz4", "zswap:lz4"]},
        runs=1,
        fixed={
            **SMALL,
            "workload": "program",
            "program": stress,
            "packages": "stress-ng",
            "boot_room": "128M",
            "kernel": str(study_kernel.image),
        },
    )
    rows = study_of(plan, tmp_path).run(on_progress=TextProgress())
    measured = rows[(rows["factor_workload"] == "program") & (rows["factor_copy"] == "")].set_index("configuration")
    assert (measured["program_status"] == 0).all()
    elapsed = measured["program_elapsed_ns"]
    assert elapsed["zram lz4"] < elapsed["disk"]
    assert elapsed["zswap lz4"] < elapsed["disk"]
