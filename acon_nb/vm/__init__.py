"""Launching guests: a spec becomes a command, a command becomes a machine."""

from acon_nb.vm.command import Capabilities, Channels, argument_list
from acon_nb.vm.console import End
from acon_nb.vm.machine import Machine, Message, Outcome, boot, capabilities, paste
from acon_nb.vm.spec import Clock, DiskSpec, Forward, VmSpec

__all__ = [
    "Capabilities",
    "Channels",
    "Clock",
    "DiskSpec",
    "End",
    "Forward",
    "Machine",
    "Message",
    "Outcome",
    "VmSpec",
    "argument_list",
    "boot",
    "capabilities",
    "paste",
]
