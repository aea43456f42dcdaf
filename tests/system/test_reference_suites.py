"""The vTPM reference boot on the OVMF of three Debian suites: equal in every register that corresponds to an RTMR."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb import tdx
from acon_nb.cache import Cache
from acon_nb.cli import main
from acon_nb.errors import WillNotBoot
from acon_nb.kernel import KernelImage
from acon_nb.td import vtpm
from tests.system.firmwares import RELEASES, firmware_of, unpacked

pytestmark = [pytest.mark.system, pytest.mark.weekly]


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("swtpm", "swtpm_setup"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing (tools/setup.sh test)")
    path = tmp_path_factory.mktemp("suites") / "initrd"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


@pytest.mark.parametrize("suite", RELEASES)
def test_every_register_is_as_predicted(suite: str, guide_kernel: KernelImage, initrd: Path, store: Cache) -> None:
    firmware = firmware_of(suite, store)
    argv = ["measure", "twin", guide_kernel.image, "--initrd", initrd, "--append", "console=ttyS0 vga=0x317 a=b"]
    argv += ["--memory", "512M", "--firmware", firmware, "--json"]
    result = CliRunner().invoke(main, [str(word) for word in argv])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["verdict"] == "equal"
    assert [row["register"] for row in found["registers"]] == list(vtpm.REGISTERS)
    assert {row["verdict"] for row in found["registers"]} == {"equal"}
    assert all(row["verdict"] == "equal" for row in found["events"] if row["register"] in vtpm.REGISTERS)
    stack = tdx.predict_reference_boot(
        tdx.BootInputs(firmware=firmware, kernel=guide_kernel.image, initrd=initrd, memory_bytes=512 << 20)
    ).material.stack
    assert not stack.edk2 or stack.edk2 >= RELEASES[suite]  # bookworm's image does not say
    assert stack.on("smbios") == (stack.edk2 >= "202505")


def test_a_td_s_own_firmware_of_sid_refuses_the_guide_s_kernel(
    guide_kernel: KernelImage, initrd: Path, store: Cache
) -> None:
    """It has secure boot on, so it is refused before the boot and not after a hang."""
    firmware = next(unpacked("ovmf-inteltdx", "sid", store).root.rglob("OVMF.inteltdx*.fd"))
    inputs = tdx.BootInputs(firmware=firmware, kernel=guide_kernel.image, initrd=initrd, memory_bytes=512 << 20)
    with pytest.raises(WillNotBoot, match="will not boot this kernel"):
        vtpm.run(inputs)
