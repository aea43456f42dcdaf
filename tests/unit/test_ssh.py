from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.vm import Forward
from acon_nb.vm.ssh import generate_key, ssh_command

RULE = Forward(host_port=22222, guest_port=22)


def test_the_key_is_ecdsa_521_and_made_once(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("openssh-client is not here")
    key = tmp_path / "keys" / "id test"
    public = generate_key(key)
    assert public.read_text().startswith("ecdsa-sha2-nistp521 ")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert generate_key(key) == public
    assert key.read_bytes() == before
    public.unlink()
    with pytest.raises(InvalidInput, match="only half of a key pair"):
        generate_key(key)


def test_the_command_connects_to_this_host_only_and_asks_nothing(tmp_path: Path) -> None:
    argv = ssh_command(RULE, tmp_path / "id", ["echo", "a b; reboot"])
    assert argv[-3:] == ["root@127.0.0.1", "--", "echo 'a b; reboot'"]
    assert {"BatchMode=yes", "UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no"} <= set(argv)
    assert argv[argv.index("-p") + 1] == "22222"
    assert ssh_command(RULE, tmp_path / "id", "free -h | head -1")[-1] == "free -h | head -1"
