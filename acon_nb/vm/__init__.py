"""Launching guests: a spec becomes a command, and a command a running machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules
from acon_nb.vm.attach import attach
from acon_nb.vm.command import Capabilities, Channels, argument_list, paste
from acon_nb.vm.console import Console, ExpectMatch, ExpectTimeout
from acon_nb.vm.counters import DiskCounters, Sample
from acon_nb.vm.counting import Moment, Snapshot
from acon_nb.vm.diagnosis import GOOD_ENDS, End, end_text
from acon_nb.vm.explain import Explained, explain, explained_text
from acon_nb.vm.machine import Machine, boot, capabilities
from acon_nb.vm.outcome import Message, Outcome
from acon_nb.vm.parts import DiskSpec, Forward, Share, parse_share
from acon_nb.vm.ready import Ready, parse_ready
from acon_nb.vm.spec import Clock, VmSpec, guide_append
from acon_nb.vm.timekeeping import kernel_words

__all__ = [
    "GOOD_ENDS",
    "Capabilities",
    "Channels",
    "Clock",
    "Console",
    "DiskCounters",
    "DiskSpec",
    "End",
    "ExpectMatch",
    "ExpectTimeout",
    "Explained",
    "Forward",
    "Machine",
    "Message",
    "Moment",
    "Outcome",
    "Ready",
    "Sample",
    "Share",
    "Snapshot",
    "VmSpec",
    "argument_list",
    "attach",
    "boot",
    "capabilities",
    "end_text",
    "explain",
    "explained_text",
    "guide_append",
    "kernel_words",
    "parse_ready",
    "parse_share",
    "paste",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
