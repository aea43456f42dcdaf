"""Kernel builds: wishes that cannot come true, a corrupt cache, a killed build."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb import kernel
from acon_nb.bench import boot
from acon_nb.bench.kernel_cost import CostSpec
from acon_nb.cache import Cache, sha256_file
from acon_nb.cli import main
from acon_nb.errors import Cancelled, KernelConfigError
from acon_nb.kernel import tables
from acon_nb.kernel.config import parse
from acon_nb.kernel.expressions import evaluate
from acon_nb.kernel.kconfig import read_symbols, unmet
from acon_nb.progress import CancelToken, TextProgress

pytestmark = pytest.mark.system


def test_an_unknown_option_is_refused_before_anything_is_built(store):
    spec = kernel.BuildSpec(settings=("CONFIG_NOT_AN_OPTION=y",))
    with pytest.raises(KernelConfigError, match="CONFIG_NOT_AN_OPTION=y: this tree has no such option"):
        kernel.build(spec, cache=store)


def test_a_wrong_value_is_refused(store):
    with pytest.raises(KernelConfigError, match="CONFIG_ZRAM=7: is a tristate"):
        kernel.build(kernel.BuildSpec(settings=("ZRAM=7",)), cache=store)


def test_zram_without_block_is_refused_by_name(store):
    spec = kernel.BuildSpec(profiles=("minimal",), settings=("BLOCK=n", "ZRAM=y"))
    with pytest.raises(KernelConfigError, match=r"CONFIG_ZRAM wanted y, is n: needs .*BLOCK \(n\)"):
        kernel.build(spec, cache=store)


def test_check_says_what_became_of_each_wish():
    argv = ["kernel", "check", "--profile", "guide", "--source", "debian:6.12", "--set", "NOT_AN_OPTION=y", "--json"]
    done = CliRunner().invoke(main, argv)
    assert done.exit_code == 1
    wishes = {row["option"]: row for row in json.loads(done.stdout)["wishes"]}
    assert not wishes["NOT_AN_OPTION"]["ok"]
    assert wishes["NOT_AN_OPTION"]["why"]
    assert wishes["INTEL_TDX_GUEST"] == {
        "option": "INTEL_TDX_GUEST",
        "wanted": "y",
        "got": "y",
        "ok": True,
        "why": "",
    }


def test_bad_profiles_and_sources_exit_with_2():
    for argv in (["--profile", "no-such"], ["--profile", "guide", "--source", "/no/such/tree"]):
        done = CliRunner().invoke(main, ["kernel", "check", *argv])
        assert done.exit_code == 2, done.output
        assert "hint:" in done.stderr


def test_a_built_kernel_comes_from_the_cache(guide_kernel, store):
    again = kernel.build(kernel.BuildSpec(profiles=("guide",)), cache=store)
    assert again.cached
    assert again.sha256 == guide_kernel.sha256


def test_a_killed_or_cancelled_build_goes_on_where_it_stopped(guide_kernel, store, caplog):
    """Of a kernel of its own: other tests boot the guide's meanwhile."""
    quick = ("KERNEL_ZSTD=n", "KERNEL_GZIP=y")  # zstd -22 takes longer than the link
    spec = kernel.BuildSpec(profiles=("guide",), settings=(f"LOCALVERSION=-test{os.getpid()}", *quick))
    code = (
        f"from acon_nb import kernel; kernel.build(kernel.BuildSpec(profiles=('guide',), settings={spec.settings!r}))"
    )
    owner = subprocess.Popen([sys.executable, "-c", code])
    wait_for_make(store)
    time.sleep(3)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 10
    while makes(store) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not makes(store), "make and its compilers end with their owner"
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


def makes(store) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        ours = any(word.startswith(f"O={store.root}/".encode()) for word in words)
        if words[0] == b"make" and b"bzImage" in words and ours:
            found.append(int(path.parent.name))
    return found


def wait_for_make(store) -> None:
    deadline = time.monotonic() + 60
    while not makes(store):
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


def test_a_proposal_was_tried_and_works(store):
    (row,) = [
        row
        for row in kernel.check(kernel.BuildSpec(profiles=("minimal",), settings=("ZSWAP=y",)), cache=store)
        if row.option == "ZSWAP"
    ]
    assert row.why == "needs SWAP (n); SWAP needs BLOCK (n); it takes with --set SWAP=y --set BLOCK=y"
    assert dict(row.proposal) == {"SWAP": "y", "BLOCK": "y"}


def test_looking_for_a_proposal_is_said_and_can_be_cancelled(store):
    cancel = CancelToken()

    def stop(event):
        if event.text == "trying what lets ZSWAP take":
            cancel.cancel()

    spec = kernel.BuildSpec(profiles=("minimal",), settings=("ZSWAP=y",))
    with pytest.raises(Cancelled):
        kernel.check(spec, cache=store, on_progress=stop, cancel=cancel)


def test_a_given_config_is_where_a_build_starts(guide_kernel, store):
    spec = kernel.BuildSpec(profiles=(), config=guide_kernel.config, settings=("ZRAM=n",))
    rows = kernel.check(spec, cache=store)
    assert [(row.option, row.got) for row in rows if row.group == "set"] == [("ZRAM", "n")]


def test_what_this_tree_does_not_take_of_a_given_config_is_told(guide_kernel, store, tmp_path):
    given = tmp_path / "config-acon"
    given.write_text(guide_kernel.config.read_text() + "CONFIG_FROM_ELSEWHERE=y\n# CONFIG_SWAP is not set\n")
    rows = {row.option: row for row in kernel.check(kernel.BuildSpec(profiles=(), config=given), cache=store)}
    assert rows["FROM_ELSEWHERE"].why == "this tree has no such option"
    assert "SWAP (n)" in rows["ZSWAP"].why
    assert {row.group for row in rows.values()} == {"given .config"}
    assert all(row.optional and not row.ok for row in rows.values())


def test_a_given_config_whose_last_line_has_no_end_is_read_whole(store, tmp_path):
    config = tmp_path / "config"
    config.write_text("CONFIG_64BIT=y\n# CONFIG_SWAP is not set")
    spec = kernel.BuildSpec(profiles=(), config=config, settings=("SHMEM=y",))
    assert kernel.configure(spec, cache=store).values["SWAP"] == "n"


def test_install_names_files_as_make_install_does(guide_kernel, tmp_path):
    names = {path.name for path in kernel.install(guide_kernel, tmp_path)}
    assert names == {f"{what}-{guide_kernel.version}" for what in ("vmlinuz", "System.map", "config")}


@pytest.mark.parametrize("profile", ["minimal", "tdx", "everything"])
def test_every_wish_of_a_profile_takes_on_debians_source(store, profile):
    rows = kernel.check(kernel.BuildSpec(profiles=(profile,)), cache=store)
    assert [row for row in rows if not row.ok] == []


def test_the_catalogue_holds_for_6_1_too(store):
    rows = kernel.check(kernel.BuildSpec(profiles=("guide",), source="debian:6.1"), cache=store)
    assert [row for row in rows if not row.ok and not row.optional] == []
    took = {row.option for row in rows if row.ok and row.wanted == "y"}
    assert {"RETPOLINE", "INTEL_TDX_GUEST", "ZSWAP", "SLUB"} <= took
    assert "MITIGATION_RETPOLINE" not in {row.option for row in rows}


@pytest.mark.weekly
def test_two_builds_in_two_places_give_the_same_bytes(store, tmp_path):
    """Another source folder, another build folder, with and without ccache; each is built once and then cached."""
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


@pytest.mark.slow
def test_the_guides_kernel_of_6_1_is_built_and_boots(store, boot_initrd):
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
    assert len(list((tmp_path / "rows/kernel-cost").rglob("*.parquet"))) == 1


def test_options_of_a_configuration_can_be_searched(store):
    found = kernel.configure(kernel.BuildSpec(profiles=("minimal",), settings=("ZSWAP=y",)), cache=store)
    assert kernel.search(found, "CONFIG_ZSWAP")[0] == "ZSWAP"
    assert "ZRAM" in kernel.search(found, "compressed ram block")
    assert set(kernel.search(found, "")) <= {row.option for row in found.wishes}
    assert kernel.search(found, "no such words at all") == ()
    info = kernel.describe(found, "ZSWAP")
    assert (info.value, info.wanted, info.kind, info.choices) == ("n", "y", "bool", ("y", "n"))
    assert info.depends == ("SWAP (n)",)
    assert info.why.startswith("needs SWAP (n)")
    assert "compressed" in info.help
    assert info.place.startswith("mm/Kconfig:")


def test_rules_of_the_guide_work_on_the_tree_at_hand(store):
    for source in ("debian:6.12", "debian:6.1"):
        found = kernel.configure(kernel.BuildSpec(profiles=("guide",), source=source), cache=store)
        rules = {row["rule"]: row for row in tables.rule_table(found.wishes).to_dict("records")}
        assert {"PERF_EVENTS_INTEL_*", "*_DIAG", "all subitems under ACPI", "all subitems under PCI"} - set(rules) <= {
            "PERF_EVENTS_INTEL_*"  # a special case of PERF_EVENTS_*
        }
        assert "ACPI_BATTERY" in rules["all subitems under ACPI"]["options"].split(", ")
        assert found.values["PCI_MSI"] == "y", "which another table names"
        on = [name for name, symbol in found.symbols.items() if "ACPI" in symbol.under and symbol.prompted]
        assert [name for name in on if found.values.get(name) == "y"] == []
