"""Commands in a guest, with their exit status: any kernel with virtio-serial, any initrd."""

from acon_nb.agent.guest import prepare
from acon_nb.agent.session import await_ready, run_command

__all__ = ["await_ready", "prepare", "run_command"]
