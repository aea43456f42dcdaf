"""SSH to a guest over a port forwarded from 127.0.0.1, with a generated key (guide: "alpine Based initrd", step 4)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from acon_nb import process
from acon_nb.errors import CommandFailed, InvalidInput
from acon_nb.vm.parts import Forward
from acon_nb.vm.spec import VmSpec

_SSH_PORT = 22
_ATTEMPT_S = 5
_RETRY_S = 0.5
_OWN_FAILURE = 255  # ssh(1): an error of ssh itself, not of the command


def generate_key(path: Path) -> Path:
    """Create an ECDSA-521 key pair without a passphrase at `path` (and `path`.pub, for /root/.ssh/authorized_keys).

    An existing key is kept. Returns the path of the public key.
    """
    public = path.with_name(f"{path.name}.pub")
    if path.exists() != public.exists():
        raise InvalidInput("path", path, "only half of a key pair is there", hint="remove it, or choose another name")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [
            "ssh-keygen",
            "-q",
            "-t",
            "ecdsa",
            "-b",
            "521",
            "-N",
            "",
            "-C",
            "acon_nb",
            "-f",
            path.absolute(),
        ]
        process.run(argv, timeout_s=30, hint="apt-get install openssh-client")
    return public


def ssh_rule(spec: VmSpec) -> Forward:
    """Return the forward that leads to the guest's SSH port. Errors: `InvalidInput`."""
    rule = next((rule for rule in spec.forwards if rule.guest_port == _SSH_PORT), None)
    if rule is None:
        raise InvalidInput(
            "forwards", spec.forwards, "none of them leads to port 22 of the guest", hint="TCPFWD=22222:22"
        )
    return rule


def ssh_command(rule: Forward, key: Path, command: str | Sequence[str] = (), *, user: str = "root") -> list[str]:
    """Return the argument list of ssh. A text is run by the guest's shell; a sequence reaches it word by word.

    A guest has new host keys after each boot, so they are neither checked nor stored.
    """
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(_ATTEMPT_S),
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
    }
    argv = ["ssh", "-F", "none", "-i", str(key.absolute()), "-p", str(rule.host_port)]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    text = command if isinstance(command, str) else shlex.join(command)
    return [*argv, f"{user}@{rule.address or '127.0.0.1'}", *(["--", text] if text else [])]


def ssh(rule: Forward, key: Path, command: str | Sequence[str], *, user: str = "root", timeout_s: float = 60.0) -> str:
    """Run a command in the guest over SSH and return its output; wait for the guest's sshd if need be.

    Errors: `CommandFailed` (of the command, or of ssh after `timeout_s`), `CommandTimeout`.
    """
    argv = ssh_command(rule, key, command, user=user)
    deadline = time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        try:
            return process.output(argv, timeout_s=max(1.0, left), hint="the guest needs sshd, a network and the key")
        except CommandFailed as error:
            if error.returncode != _OWN_FAILURE or time.monotonic() + _RETRY_S >= deadline:
                raise
            time.sleep(_RETRY_S)
