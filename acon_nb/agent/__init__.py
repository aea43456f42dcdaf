"""Commands in a guest, with their exit status: any kernel with virtio-serial, any initrd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.agent.files import Transfers, get, mount_shares, put
from acon_nb.agent.guest import prepare
from acon_nb.agent.session import await_ready, run_command, share_when_ready, with_shares
from acon_nb.lazy import submodules

__all__ = [
    "Transfers",
    "await_ready",
    "get",
    "mount_shares",
    "prepare",
    "put",
    "run_command",
    "share_when_ready",
    "with_shares",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
