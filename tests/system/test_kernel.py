"""Kernel builds: impossible requests, a corrupt cache, a killed build."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb import boot, initrd, kernel, results
from acon_nb.boot import kernel_cost
from acon_nb.boot.kernel_cost import CostSpec
from acon_nb.cache import Cache, sha256_file
from acon_nb.cli import main
from acon_nb.errors import Cancelled, InvalidInput, KernelConfigError
from acon_nb.host import apt
from acon_nb.kernel import renames, source, tables
from acon_nb.kernel.build import symbols_of
from acon_nb.kernel.dotconfig import parse
from acon_nb.kernel.expressions import evaluate
from acon_nb.kernel.kconfig import read_symbols, unmet
from acon_nb.progress import CancelToken, TextProgress
from acon_nb.study.host_lock import host_lock
from acon_nb.vm import Clock

pytestmark = pytest.mark.system


def test_an_unknown_option_is_refused_before_anything_is_built(store):
    spec = kernel.BuildSpec(settings=("CONFIG_NOT_AN_OPTION=y",))
    with pytest.raises(KernelConfigError, match="CONFIG_NOT_AN_OPTION=y: this tree has no such option"):
        kernel.build(spec, cache=store)


def test_a_wrong_value_is_refused(store):
    with pytest.raises(KernelConfigError, match="CONFIG_ZRAM=7: it is a tristate"):
        kernel.build(kernel.BuildSpec(settings=("ZRAM=7",)), cache=store)


def test_zram_without_block_is_refused_by_name(store):
    spec = kernel.BuildSpec(profiles=("minimal",), settings=("BLOCK=n", "ZRAM=y"))
    with pytest.raises(KernelConfigError, match=r"CONFIG_ZRAM wanted y, is n: needs .*BLOCK \(n\)"):
        kernel.build(spec, cache=store)


def test_check_reports_each_requested_option():
    argv = ["kernel", "check", "--profile", "guide", "--source", "debian:6.12", "--set", "NOT_AN_OPTION=y", "--json"]
    done = CliRunner().invoke(main, argv)
    assert done.exit_code == 1
    options = {row["option"]: row for row in json.loads(done.stdout)["options"]}
    assert not options["NOT_AN_OPTION"]["ok"]
    assert options["NOT_AN_OPTION"]["why"]
    assert options["INTEL_TDX_GUEST"] == {
        "option": "INTEL_TDX_GUEST",
        "wanted": "y",
        "got": "y",
        "ok": True,
        "why": "",
    }


def test_invalid_profiles_and_sources_exit_with_2():
    for argv in (["--profile", "no-such"], ["--profile", "guide", "--source", "/no/such/tree"]):
        done = CliRunner().invoke(main, ["kernel", "check", *argv])
        assert done.exit_code == 2, done.output
        assert "hint:" in done.stderr


def test_a_built_kernel_comes_from_the_cache(guide_kernel, store):
    again = kernel.build(kernel.BuildSpec(profiles=("guide",)), cache=store)
    assert again.cached
    assert again.sha256 == guide_kernel.sha256


def test_a_killed_or_cancelled_build_resumes_where_it_stopped(guide_kernel, store, caplog):
    """Of a kernel of its own: other tests boot the guide's meanwhile."""
    quick = ("KERNEL_ZSTD=n", "KERNEL_GZIP=y")  # zstd -22 takes longer than the link
    spec = kernel.BuildSpec(profiles=("guide",), settings=(f"LOCALVERSION=-test{os.getpid()}", *quick))
    code = (
        f"from acon_nb import kernel; kernel.build(kernel.BuildSpec(profiles=('guide',), settings={spec.settings!r}))"
    )
    owner = subprocess.Popen([sys.executable, "-c", code])
    wait_for_make(owner.pid)
    time.sleep(3)
    below = descendants(owner.pid)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 300
    while alive(below) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(below), "make and its compilers end with their owner"
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        kernel.build(spec, cache=store, cancel=token)
    built = kernel.build(spec, cache=store)
    assert built.version.endswith(spec.settings[0].partition("=")[2])
    try:
        a_corrupt_image_is_said_and_made_again(spec, built, store, caplog)
    finally:
        shutil.rmtree(built.image.parent)


def a_corrupt_image_is_said_and_made_again(spec, built, store, caplog):
    with built.image.open("r+b") as file:
        file.write(b"garbage")
    with caplog.at_level(logging.WARNING):
        again = kernel.build(spec, cache=store)
    assert "corrupt" in caplog.text
    assert not again.cached
    assert again.sha256 == built.sha256 == sha256_file(again.image), "the same inputs give the same bytes"


def descendants(ancestor: int) -> dict[int, bytes]:
    """The processes below one, each with its command line; other workers build kernels at the same time."""
    parents, commands = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            commands[int(path.name)] = (path / "cmdline").read_bytes()
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    below = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return {pid: commands[pid] for pid in below - {ancestor}}


def alive(processes: dict[int, bytes]) -> list[int]:
    """Those that still run their command."""
    found = []
    for pid, command in processes.items():
        try:
            if command and Path(f"/proc/{pid}/cmdline").read_bytes() == command:
                found.append(pid)
        except OSError:
            continue
    return found


def wait_for_make(owner: int) -> None:
    deadline = time.monotonic() + 300
    while not any(words.startswith(b"make\0") and b"\0bzImage\0" in words for words in descendants(owner).values()):
        assert time.monotonic() < deadline, "make did not start"
        time.sleep(0.1)


def test_our_reading_of_kconfig_agrees_with_kconfig(guide_kernel, store):
    """Kconfig itself is the oracle: what it lists as "is not set" is reachable, what it leaves out is not."""
    tree = kernel.fetch("debian:6.12", cache=store)
    symbols = read_symbols(tree.path)
    config = parse(guide_kernel.config.read_text())
    assert set(config) <= set(symbols)
    listed = [name for name, value in config.items() if value == "n" and symbols[name].prompted]
    assert [name for name in listed if unmet(symbols[name], config)] == []
    hidden = [symbol for name, symbol in symbols.items() if name not in config and symbol.kind in ("bool", "tristate")]
    reachable = [symbol.name for symbol in hidden if symbol.prompted and not unmet(symbol, config)]
    assert all(unknown(symbols[name], config) for name in reachable), "only the compiler could tell"
    assert len(hidden) > 5000


def unknown(symbol, config):
    return any(evaluate(text, config) == "?" or "m" in text for rows in symbol.definitions for text in rows)


def test_a_proposal_is_verified_and_works(store):
    (row,) = [
        row
        for row in kernel.check(kernel.BuildSpec(profiles=("minimal",), settings=("ZSWAP=y",)), cache=store)
        if row.option == "ZSWAP"
    ]
    assert row.why == "needs SWAP (n); SWAP needs BLOCK (n); it works with --set SWAP=y --set BLOCK=y"
    assert dict(row.proposal) == {"SWAP": "y", "BLOCK": "y"}


def test_looking_for_a_proposal_is_reported_and_can_be_cancelled(store):
    cancel = CancelToken()

    def stop(event):
        if event.text == "looking for what ZSWAP needs":
            cancel.cancel()

    spec = kernel.BuildSpec(profiles=("minimal",), settings=("ZSWAP=y",))
    with pytest.raises(Cancelled):
        kernel.check(spec, cache=store, on_progress=stop, cancel=cancel)


def test_a_given_config_is_where_a_build_starts(guide_kernel, store):
    spec = kernel.BuildSpec(profiles=(), config=guide_kernel.config, settings=("ZRAM=n",))
    rows = kernel.check(spec, cache=store)
    assert [(row.option, row.got) for row in rows if row.group == "set"] == [("ZRAM", "n")]
    lost = [row for row in rows if row.group == "given .config" and not row.ok]
    assert lost, "what needs ZRAM"
    assert not any(row.proposal for row in lost), "no proposal contradicts --set ZRAM=n"


def test_options_of_a_given_config_that_this_tree_drops_are_reported(guide_kernel, store, tmp_path):
    given = tmp_path / "config-acon"
    given.write_text(guide_kernel.config.read_text() + "CONFIG_FROM_ELSEWHERE=y\n# CONFIG_SWAP is not set\n")
    rows = {row.option: row for row in kernel.check(kernel.BuildSpec(profiles=(), config=given), cache=store)}
    assert rows["FROM_ELSEWHERE"].why == "this tree has no such option"
    assert "SWAP (n)" in rows["ZSWAP"].why
    assert {row.group for row in rows.values()} == {"given .config"}
    assert all(row.optional for row in rows.values())
    assert 100 < sum(row.ok for row in rows.values()) < len(rows), "what was kept is counted, too"


def test_a_given_config_without_a_final_newline_is_read_completely(store, tmp_path):
    config = tmp_path / "config"
    config.write_text("CONFIG_64BIT=y\n# CONFIG_SWAP is not set")
    spec = kernel.BuildSpec(profiles=(), config=config, settings=("SHMEM=y",))
    assert kernel.configure(spec, cache=store).values["SWAP"] == "n"


@pytest.mark.parametrize("settings", [("KERNEL_XZ=y",), ("KERNEL_GZIP=y", "CMDLINE_BOOL=y"), ("PREEMPT=y",)])
def test_a_members_of_a_choice_that_is_set_is_chosen(store, settings):
    found = kernel.configure(kernel.BuildSpec(profiles=("guide",), settings=settings), cache=store)
    assert [row for row in found.results if not row.ok] == []
    assert found.values.get("CMDLINE", "") == ""
    if "KERNEL_XZ=y" in settings:
        assert found.values["KERNEL_XZ"] == "y"
        assert found.values.get("KERNEL_ZSTD", "n") == "n"


def test_options_of_another_series_are_set_by_the_names_of_this_one(store, tmp_path):
    given = tmp_path / "config-6.1"
    given.write_text(
        "CONFIG_64BIT=y\nCONFIG_PAGE_TABLE_ISOLATION=y\nCONFIG_CPU_MITIGATIONS=y\n# CONFIG_SLS is not set\n"
    )
    found = kernel.configure(kernel.BuildSpec(profiles=(), config=given, rename=True), cache=store)
    assert found.renamed["PAGE_TABLE_ISOLATION"] == "MITIGATION_PAGE_TABLE_ISOLATION"
    assert found.values["MITIGATION_PAGE_TABLE_ISOLATION"] == "y"
    assert found.values["MITIGATION_SLS"] == "n"


def test_the_sources_that_apt_lists_are_listed_by_suite():
    done = CliRunner().invoke(main, ["kernel", "sources", "--here", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)["sources"]
    (newest,) = [row for row in rows if row["source"] == "debian:6.12" and row["newest"]]
    assert newest["version"] == apt.find("linux-source-6.12").version
    assert newest["suite"]
    text = CliRunner().invoke(main, ["kernel", "sources", "--here"]).output
    assert re.search(rf"^debian:6\.12 +{re.escape(newest['version'])} ", text, re.MULTILINE)


def test_the_sources_of_a_suite_that_the_host_does_not_use_are_listed_and_its_apt_stays_as_it_is(store):
    before = apt.HOST.changed_ns()
    listed = kernel.packaged(["trixie"], cache=store)
    rows = [row for row in listed.sources if row.suite == "trixie" and row.source.endswith("@trixie")]
    assert any(row.source == "debian:6.12@trixie" and row.newest for row in rows)
    assert listed.unreachable == {}
    assert apt.HOST.changed_ns() == before
    older = next((row for row in rows if not row.newest), None)
    if older is not None:
        assert older.source == f"debian:6.12={older.version}@trixie"


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("debian:6.12@nosuchsuite", "is not in http"),
        (
            "debian:9.99@trixie",
            "is not there: linux-source-9.99 is not in the lists of trixie",
        ),
        ("debian:6.12=1.2-3", "is not there: linux-source-6.12=1.2-3 is not in apt's lists"),
        ("debian:9.99", "is not there: linux-source-9.99 is not in apt's lists"),
    ],
)
def test_a_source_that_no_suite_has_is_refused_by_name(store, named, reason):
    with pytest.raises(InvalidInput, match=re.escape(reason)):
        source.fetch(named, cache=store)


@pytest.mark.weekly
@pytest.mark.parametrize(
    ("before", "after"),
    [("debian:6.1@bookworm", "debian:6.12@trixie"), ("debian:6.12@trixie", "debian:7.3@trixie-backports")],
)
def test_the_known_renames_are_those_of_the_trees(store, before, after):
    older, newer = (symbols_of(source.fetch(named, cache=store), store) for named in (before, after))
    since = after.partition(":")[2].partition("@")[0]
    known = {row.old: row.new for row in renames.renames() if row.since == since}
    assert renames.between(older, newer) == known


@pytest.mark.weekly
def test_an_option_that_is_m_is_a_module_that_a_guest_loads(store, tmp_path):
    spec = kernel.BuildSpec(profiles=("guide",), settings=("MODULES=y", "ZRAM=m"))
    image = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))
    folder = image.modules / "lib/modules" / image.version
    assert "zram.ko:" in (folder / "modules.dep").read_text()
    assert not (folder / "build").is_symlink()
    installed = kernel.install(image, tmp_path / "boot")[-1]
    assert (installed / "modules.dep").read_text() == (folder / "modules.dep").read_text()

    files = kernel.module_closure(kernel.built_kernel(image), ["zram"], cache=store)
    assert files[-1].name == "zram.ko", "after those that it needs"
    made = boot.boot_initrd(tmp_path / "one.cpio", modules=files, release=image.version, store=store)
    tree = initrd.load(made.path)
    tree.add_file("etc/modules", b"zram\n")
    loaded = initrd.create(tree, tmp_path / "two.cpio")
    row = boot.run(boot.BootCell(name="modules", kernel=image.image, initrd=loaded.path, timeout_s=300))
    assert any("zram: Added device" in record.text for record in row.log)


@pytest.mark.weekly
def test_the_fast_profile_is_fast_and_keeps_the_mitigations(store, guide_kernel, boot_initrd):
    """From reset to /init at most 130 million instructions, and at most 20 MiB between MemTotal and MemAvailable."""
    image = kernel.build(kernel.BuildSpec(profiles=("fast",)), cache=store, on_progress=TextProgress(every_s=30))
    row = boot.run(boot.BootCell(name="fast", kernel=image.image, initrd=boot_initrd, clock=Clock.INSTRUCTIONS))
    assert row.guest_ns["reset_to_init"] <= 130_000_000
    assert row.memtotal_bytes - row.memavailable_bytes <= 20 << 20
    guide, fast = (vulnerabilities(one.image, boot.default_initrd()) for one in (guide_kernel, image))
    assert "meltdown:Mitigation: PTI" in guide
    assert fast == guide


def vulnerabilities(image: Path, initrd_path: Path) -> str:
    command = "cd /sys/devices/system/cpu/vulnerabilities && grep . *"
    argv = [sys.executable, "-m", "acon_nb.cli", "run", str(image), "--exec", command]
    environment = {**os.environ, "RD": str(initrd_path)}
    return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, timeout=600).stdout


@pytest.mark.weekly
def test_a_packaged_kernel_of_a_later_suite_boots_with_its_modules(store, tmp_path):
    packaged = kernel.debian_kernel("linux-image-cloud-amd64@sid", cache=store)
    modules = kernel.module_closure(packaged, boot.VIRTIO_MODULES, cache=store)
    made = boot.boot_initrd(tmp_path / "i.cpio", modules=modules, release=packaged.version, store=store)
    row = boot.run(boot.BootCell(name="sid", kernel=packaged.image, initrd=made.path, timeout_s=300))
    assert row.kernel_release == packaged.version


@pytest.mark.weekly
def test_a_kernel_built_after_edits_is_the_one_that_a_cold_build_makes(store, tmp_path):
    """Edits that make does not notice by their times: a header, one behind a link, and the table of system calls."""
    (minimal,) = CostSpec(groups=("minimal",)).steps()
    tree = tmp_path / "linux"
    copy_tree(kernel.fetch("debian:6.12", cache=store).path, tree)
    shutil.move(tree / "init", tmp_path / "init")
    (tree / "init").symlink_to("../init")
    link = tmp_path / "by-link"
    link.symlink_to(tree)
    spec = replace(minimal, source=str(link))
    edit_keeping_times(tmp_path / "init/calibrate.c", "#include", f"/* {time.time_ns()}: not in the cache */\n#include")
    before = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))

    edit_keeping_times(tree / "include/linux/uts.h", '"Linux"', '"Edited"')
    edit_keeping_times(
        tmp_path / "init/calibrate.c", "#include <linux/jiffies.h>", "#include <linux/jiffies.h>\nint edited;"
    )
    proof = kernel.prove(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert proof.difference == ""
    assert proof.image.sha256 != before.sha256

    edit_keeping_times(
        tree / "arch/x86/entry/syscalls/syscall_64.tbl",
        "0\tcommon\tread\t\t\tsys_read",
        "0\tcommon\tread\t\t\tsys_write",
    )
    other = kernel.prove(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert other.difference == ""
    assert other.image.sha256 != proof.image.sha256


def edit_keeping_times(path: Path, old: str, new: str) -> None:
    status, text = path.stat(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.weekly
def test_a_kernel_with_signed_modules_and_debug_information_is_reproducible(store, tmp_path):
    """Its initramfs counts by content; a module that its own key signed is loaded where signatures are enforced."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/note").write_text("one")
    settings = ("MODULES=y", "ZRAM=m", "MODULE_SIG=y", "MODULE_SIG_FORCE=y", "MODULE_SIG_ALL=y", "DEBUG_INFO_DWARF5=y")
    spec = kernel.BuildSpec(profiles=("guide",), settings=(*settings, f"INITRAMFS_SOURCE={tmp_path}/root"))
    proof = kernel.prove(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert proof.difference == ""
    assert proof.sha256_again == proof.image.sha256

    files = kernel.module_closure(kernel.built_kernel(proof.image), ["zram"], cache=store)
    made = boot.boot_initrd(tmp_path / "one.cpio", modules=files, release=proof.image.version, store=store)
    tree = initrd.load(made.path)
    tree.add_file("etc/modules", b"zram\n")
    loaded = initrd.create(tree, tmp_path / "two.cpio")
    row = boot.run(boot.BootCell(name="signed", kernel=proof.image.image, initrd=loaded.path, timeout_s=300))
    assert any("zram: Added device" in record.text for record in row.log)

    (tmp_path / "root/note").write_text("two")
    other = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert other.sha256 != proof.image.sha256


def test_a_kernel_without_modules_has_none_to_give(guide_kernel):
    assert guide_kernel.modules is None
    with pytest.raises(InvalidInput, match="was built without modules"):
        kernel.built_kernel(guide_kernel)


def test_install_names_files_as_make_install_does(guide_kernel, tmp_path):
    names = {path.name for path in kernel.install(guide_kernel, tmp_path)}
    assert names == {f"{what}-{guide_kernel.version}" for what in ("vmlinuz", "System.map", "config")}


@pytest.mark.parametrize("profile", ["minimal", "tdx", "everything"])
def test_every_request_of_a_profile_is_applied_to_debians_source(store, profile):
    rows = kernel.check(kernel.BuildSpec(profiles=(profile,)), cache=store)
    assert [row for row in rows if not row.ok] == []


def test_the_catalogue_applies_to_6_1_too(store):
    skip_without("debian:6.1")
    rows = kernel.check(kernel.BuildSpec(profiles=("guide",), source="debian:6.1"), cache=store)
    assert [row for row in rows if not row.ok and not row.optional] == []
    applied = {row.option for row in rows if row.ok and row.wanted == "y"}
    assert {"RETPOLINE", "INTEL_TDX_GUEST", "ZSWAP", "SLUB"} <= applied
    assert "MITIGATION_RETPOLINE" not in {row.option for row in rows}


@pytest.mark.weekly
def test_two_builds_in_two_places_give_the_same_bytes(guide_kernel, store, tmp_path):
    """Another source folder, with and without ccache, from the guide's objects and from none; each is built once."""
    tree = kernel.fetch("debian:6.12", cache=store)
    (spec,) = CostSpec(groups=("minimal",)).steps()  # which the test of the costs builds too
    one = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))
    elsewhere = Cache(store.root / "elsewhere")
    copy = elsewhere.get("source", {"copy of": tree.identity}, lambda to: copy_tree(tree.path, to), hashed=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path_without_ccache(tmp_path))
        other = replace(spec, source=str(copy.path))
        two = kernel.build(other, cache=elsewhere, on_progress=TextProgress(every_s=30))
    assert one.image != two.image
    assert one.sha256 == two.sha256
    assert one.config.read_text() == two.config.read_text()


def skip_without(source: str) -> None:
    """Skip the test where this release of Debian lacks the source: 12 has 6.1 and 6.12, 13 has 6.12."""
    name = source.replace("debian:", "linux-source-")
    try:
        apt.find(name)
    except InvalidInput:
        pytest.skip(f"this release of Debian has no {name}")


def skip_unless_built(spec: kernel.BuildSpec, store: Cache) -> None:
    """Go on where the kernel is built already, and where the tests of a week are asked for."""
    if not os.environ.get("ACON_NB_WEEKLY") and not kernel.is_built(spec, cache=store):
        pytest.skip("its kernel is not built here: make test-weekly")


def copy_tree(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", target], check=True)


def path_without_ccache(folder: Path) -> str:
    for name in dict.fromkeys(os.environ["PATH"].split(":")):
        for path in Path(name).glob("*"):
            link = folder / path.name
            if path.name != "ccache" and not link.is_symlink():
                link.symlink_to(path)
    return str(folder)


@pytest.mark.weekly
def test_the_guides_kernel_of_the_newest_series_in_reach_is_built_and_boots(store, boot_initrd):
    newest = next(
        row for row in reversed(kernel.packaged(cache=store).sources) if row.newest and "~" not in row.version
    )
    spec = kernel.BuildSpec(profiles=("guide",), source=newest.source)
    image = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert [row for row in image.results if not row.ok and not row.optional] == []
    row = boot.run(boot.BootCell(name="newest", kernel=image.image, initrd=boot_initrd, timeout_s=300))
    assert row.kernel_release == image.version
    assert row.guest_ns["init"] > 0


@pytest.mark.slow
def test_the_guides_kernel_of_6_1_is_built_and_boots(store, boot_initrd):
    skip_without("debian:6.1")
    spec = kernel.BuildSpec(profiles=("guide",), source="debian:6.1")
    skip_unless_built(spec, store)
    image = kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))
    assert image.version.startswith("6.1.")
    run = boot.run(boot.BootCell(name="6.1", kernel=image.image, initrd=boot_initrd))
    assert run.kernel_release == image.version
    assert run.guest_ns["init"] > 0


@pytest.mark.slow
def test_what_groups_cost_is_measured_by_building_and_booting(store, tmp_path):
    skip_unless_built(CostSpec(groups=("minimal",)).steps()[0], store)
    argv = ["kernel", "cost", "--groups", "minimal", "--out", str(tmp_path / "rows"), "--json"]
    done = CliRunner().invoke(main, [*argv, "--plot", str(tmp_path / "cost.png")])
    assert done.exit_code == 0, done.output
    (step,) = json.loads(done.stdout)["steps"]
    assert 500 << 10 < step["bzimage_bytes"] < 4 << 20
    assert 0 < step["gone_bytes"] < 64 << 20
    assert step["added_init_ns"] == step["init_ns"] > 10_000_000
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    (row,) = results.load(tmp_path / "rows", "boot", "kernel-cost").to_dict("records")
    assert row["kernel_bytes"] == step["bzimage_bytes"]
    again = json.loads(CliRunner().invoke(main, argv).stdout)["steps"]
    assert [one["run_id"] for one in again] == [row["run_id"]], "what is kept is not measured again"


@pytest.mark.slow
def test_a_cost_that_was_stopped_resumes_with_what_it_has(store, tmp_path):
    spec = CostSpec(groups=("minimal", "container"))
    for step in spec.steps():
        skip_unless_built(step, store)
    out = results.Store(tmp_path)

    def measure_until(reached):
        cancel = CancelToken()

        def watch(event):
            if reached(event):
                cancel.cancel()

        with pytest.raises(Cancelled):
            kernel_cost.measure(spec, cache=store, out=out, on_progress=watch, cancel=cancel)

    with host_lock(shared=False):
        measure_until(lambda event: event.task.startswith("wait for another measurement"))
    assert out.load("boot").empty, "the wait for a study on the wall clock was cancelled"
    with suppress(pytest.fail.Exception):  # both may be done at once, since guests run side by side on this clock
        measure_until(lambda event: "1 of 2 runs" in event.text)
    kept = set(out.load("boot")["run_id"])
    assert kept
    steps = kernel_cost.measure(spec, cache=store, out=out)
    assert list(steps["name"]) == ["minimal", "+ container"]
    assert steps["added_bzimage_bytes"].iloc[1] == steps["bzimage_bytes"].iloc[1] - steps["bzimage_bytes"].iloc[0]
    assert kept <= set(steps["run_id"])
    assert len(out.load("boot")) == 2


def test_options_of_a_configuration_can_be_searched(store):
    found = kernel.configure(kernel.BuildSpec(profiles=("minimal",), settings=("ZSWAP=y",)), cache=store)
    assert kernel.search(found, "CONFIG_ZSWAP")[0] == "ZSWAP"
    assert "ZRAM" in kernel.search(found, "compressed ram block")
    assert set(kernel.search(found, "")) <= {row.option for row in found.results}
    assert kernel.search(found, "no such words at all") == ()
    info = kernel.describe(found, "ZSWAP")
    assert (info.value, info.wanted, info.kind, info.choices) == ("n", "y", "bool", ("y", "n"))
    assert info.depends == ("SWAP (n)",)
    assert info.why.startswith("needs SWAP (n)")
    assert "compressed" in info.help
    assert info.location.startswith("mm/Kconfig:")


@pytest.mark.parametrize("source", ["debian:6.12", "debian:6.1"])
def test_rules_of_the_guide_are_resolved_against_the_source_tree(store, source):
    skip_without(source)
    found = kernel.configure(kernel.BuildSpec(profiles=("guide",), source=source), cache=store)
    rules = {row["rule"]: row for row in tables.rule_table(found.results).to_dict("records")}
    assert {"PERF_EVENTS_INTEL_*", "*_DIAG", "all subitems under ACPI", "all subitems under PCI"} - set(rules) <= {
        "PERF_EVENTS_INTEL_*"  # a special case of PERF_EVENTS_*
    }
    assert "ACPI_BATTERY" in rules["all subitems under ACPI"]["options"].split(", ")
    assert found.values["PCI_MSI"] == "y", "which another table names"
    on = [name for name, symbol in found.symbols.items() if "ACPI" in symbol.under and symbol.prompted]
    assert [name for name in on if found.values.get(name) == "y"] == []
