"""Commands in a guest, with their exit status: any kernel with virtio-serial, any initrd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.agent.guest import prepare
from acon_nb.agent.session import await_ready, run_command
from acon_nb.lazy import submodules

__all__ = ["await_ready", "prepare", "run_command"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
