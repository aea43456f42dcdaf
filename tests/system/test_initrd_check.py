"""The check's verdict against what a boot shows, on generated images of which half are broken."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from acon_nb import vm
from acon_nb.bootcheck import initrd as bootcheck
from acon_nb.bootcheck import kernel as kernels
from acon_nb.kernel import KernelImage, dotconfig
from tests.system.initrd_cases import Case, Parts, case_of

pytestmark = pytest.mark.system
# Of each kind one: a library, a script, a loader's rules, an order, a compression, a cut stream, memory, our /init
CI_SEEDS = (1, 10, 13, 22, 31, 34, 43, 47, 50, 53, 54, 36)
WEEKLY_SEEDS = range(200)


@pytest.fixture(scope="module")
def parts(store, tmp_path_factory) -> Parts:
    return Parts(tmp_path_factory.mktemp("parts"), store)


def verdict_and_boot(case: Case, kernel: Path, path: Path, host: vm.Capabilities) -> tuple[bool | None, bool, str]:
    """The check's answer, whether init ran (it powers the guest off), and what both say."""
    path.write_bytes(case.image())
    append = f"console=ttyS0 panic=-1 no_timer_check {case.append}".strip()  # no panic on a host that is busy
    memory_bytes = case.memory_mib << 20
    spec = bootcheck.CheckSpec(image=str(path), kernel=kernel, memory_bytes=memory_bytes, append=append, firmware=False)
    found = bootcheck.check(spec)
    outcome = vm.boot(
        vm.VmSpec(
            kernel=kernel,
            initrd=path,
            append=append,
            memory_bytes=memory_bytes,
            results_port=False,
            timeout_s=120,
        ),
        host=host,
    )
    said = "\n".join([case.name, *map(str, found.findings), *outcome.tail[-6:]])
    return found.boots, outcome.end is vm.End.POWERED_OFF, said


def compare(seeds: range | tuple[int, ...], parts: Parts, kernel: Path, folder: Path, host: vm.Capabilities) -> Counter:
    """Boot images, and count answers by (verdict, boot); a verdict that a boot contradicts is an error."""
    counts: Counter = Counter()
    wrong = []
    for seed in seeds:
        boots, booted, said = verdict_and_boot(case_of(seed, parts), kernel, folder / "initrd", host)
        counts[boots, booted] += 1
        if boots is not None and boots is not booted:
            wrong.append(said)
    assert wrong == [], "\n\n".join(wrong)
    return counts


def test_a_dozen_verdicts_are_what_their_boots_show(guide_kernel: KernelImage, parts, host, tmp_path):
    counts = compare(CI_SEEDS, parts, guide_kernel.image, tmp_path, host)
    assert counts[True, True] >= 4
    assert counts[False, False] >= 4
    assert counts[None, True] + counts[None, False] == 0


@pytest.mark.weekly
def test_two_hundred_verdicts_are_what_their_boots_show(guide_kernel: KernelImage, parts, host, tmp_path):
    counts = compare(WEEKLY_SEEDS, parts, guide_kernel.image, tmp_path, host)

    assert counts[True, True] >= 80
    assert counts[False, False] >= 80
    assert counts[None, True] + counts[None, False] <= 4


def test_a_kernels_options_are_read_from_its_image(guide_kernel: KernelImage, tmp_path):
    alone = tmp_path / "vmlinuz"
    alone.write_bytes(guide_kernel.image.read_bytes())
    found = kernels.read(alone)
    assert found.complete
    assert found.release == guide_kernel.version
    wanted = dotconfig.parse(guide_kernel.config.read_text())
    assert {name: found.options.get(name) for name in wanted} == wanted
