"""Measurements of TDs: predict them, read and replay what was measured, compare the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules
from acon_nb.tdx.compare import MeasurementComparison, MeasurementVerdict, compare
from acon_nb.tdx.eventlog import EventLog, LoggedEvent, LogKind, parse_log, read_log
from acon_nb.tdx.events import Variant
from acon_nb.tdx.evidence.reader import (
    parse_pasted,
    parse_side,
    read_any_log,
    read_application_log,
    read_quote,
    read_side,
)
from acon_nb.tdx.firmware import Firmware, Tdvf, find_firmware, read_firmware, read_tdvf
from acon_nb.tdx.inputs import BootInputs
from acon_nb.tdx.mrtd import Mrtd, PageOrder, mrtd
from acon_nb.tdx.predict import Prediction, predict, predict_reference_boot
from acon_nb.tdx.predicted import PredictedEvent
from acon_nb.tdx.quote import TdIdentity, parse_identity, read_identity
from acon_nb.tdx.rows import parse_values
from acon_nb.tdx.stored import Expected, expected, parse_expected

__all__ = [
    "BootInputs",
    "EventLog",
    "Expected",
    "Firmware",
    "LogKind",
    "LoggedEvent",
    "MeasurementComparison",
    "MeasurementVerdict",
    "Mrtd",
    "PageOrder",
    "PredictedEvent",
    "Prediction",
    "TdIdentity",
    "Tdvf",
    "Variant",
    "compare",
    "expected",
    "find_firmware",
    "mrtd",
    "parse_expected",
    "parse_identity",
    "parse_log",
    "parse_pasted",
    "parse_side",
    "parse_values",
    "predict",
    "predict_reference_boot",
    "read_any_log",
    "read_application_log",
    "read_firmware",
    "read_identity",
    "read_log",
    "read_quote",
    "read_side",
    "read_tdvf",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
