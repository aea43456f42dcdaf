"""The initrd notebook, run by papermill: the guide's two examples."""

from __future__ import annotations

import html
import subprocess

import pytest

from acon_nb import reports
from acon_nb.jupyter import notebooks
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system
NOTEBOOK = notebooks.folder() / "02_initrd.ipynb"


def text_of(path):
    return html.unescape(shown(path))


def test_the_guides_busybox_with_a_swap_line(guide_kernel, tmp_path):
    page = tmp_path / "initrd.html"
    lines = reports.make(NOTEBOOK, page, {"folder": str(tmp_path / "made"), "compare": ",zst"})
    assert "initrd-notebook.cpio.xz" in lines[0]
    text = text_of(page)
    assert "/dev/vda" in text
    swap = next(line for line in text.splitlines() if line.startswith("Swap:"))
    assert swap.split()[1] in ("255", "256")
    assert shown(page).count('src="data:image/png;base64,') == 2


def test_the_guides_second_example_with_encrypted_disks(guide_kernel, tmp_path):
    key = tmp_path / "id-test"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-f", key, "-N", ""], check=True)
    page = tmp_path / "initrd.html"
    parameters = {
        "image": "busybox+dmsetup+e2fsprogs+openssh-server",
        "fstab": "/dev/mapper/vdb@+ae /ext4 ext4 defaults 0 0",
        "keys": f"{key}.pub",
        "disks": "256M 64M",
        "compare": "",
        "compression": "zst",
        "folder": str(tmp_path / "made"),
    }
    reports.make(NOTEBOOK, page, parameters)
    text = text_of(page)
    assert "/dev/mapper/vdb@+ae /ext4 ext4" in text
    swap = next(line for line in text.splitlines() if line.startswith("Swap:"))
    assert swap.split()[1] in ("255", "256")
    assert "authenc(cmac(aes),xts(aes))" in text
