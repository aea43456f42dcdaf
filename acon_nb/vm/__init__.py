"""Launching guests: a spec becomes a command, a command becomes a machine."""

from acon_nb.vm.attach import attach
from acon_nb.vm.command import Capabilities, Channels, argument_list
from acon_nb.vm.console import End
from acon_nb.vm.explain import Explained, explain, explained_text
from acon_nb.vm.machine import Machine, boot, capabilities, paste
from acon_nb.vm.outcome import Message, Outcome
from acon_nb.vm.spec import Clock, DiskSpec, Forward, VmSpec
from acon_nb.vm.statistics import DiskCounters, Sample
from acon_nb.vm.terminal import Console, ExpectTimeout, Said

__all__ = [
    "Capabilities",
    "Channels",
    "Clock",
    "Console",
    "DiskCounters",
    "DiskSpec",
    "End",
    "ExpectTimeout",
    "Explained",
    "Forward",
    "Machine",
    "Message",
    "Outcome",
    "Said",
    "Sample",
    "VmSpec",
    "argument_list",
    "attach",
    "boot",
    "capabilities",
    "explain",
    "explained_text",
    "paste",
]
