"""What a TD's firmware and measurements say: predicted, read, replayed, compared."""

from acon_nb.tdx.boot import Prediction, predict, predict_twin
from acon_nb.tdx.compare import Comparison, Verdict, compare, parse_pasted, parse_side, read_side
from acon_nb.tdx.eventlog import EventLog, LoggedEvent, LogKind, parse_log, read_log
from acon_nb.tdx.events import PredictedEvent, Variant
from acon_nb.tdx.expected import Expected, expected, parse_expected
from acon_nb.tdx.firmware import Firmware, Tdvf, find_firmware, read_firmware, read_tdvf
from acon_nb.tdx.inputs import BootInputs
from acon_nb.tdx.mrtd import Mrtd, PageOrder, mrtd
from acon_nb.tdx.quote import TdIdentity, parse_identity, read_identity

__all__ = [
    "BootInputs",
    "Comparison",
    "EventLog",
    "Expected",
    "Firmware",
    "LogKind",
    "LoggedEvent",
    "Mrtd",
    "PageOrder",
    "PredictedEvent",
    "Prediction",
    "TdIdentity",
    "Tdvf",
    "Variant",
    "Verdict",
    "compare",
    "expected",
    "find_firmware",
    "mrtd",
    "parse_expected",
    "parse_identity",
    "parse_log",
    "parse_pasted",
    "parse_side",
    "predict",
    "predict_twin",
    "read_firmware",
    "read_identity",
    "read_log",
    "read_side",
    "read_tdvf",
]
