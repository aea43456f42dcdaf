"""What a TD's firmware and measurements say."""

from acon_nb.tdx.firmware import Firmware, find_firmware, read_firmware

__all__ = ["Firmware", "find_firmware", "read_firmware"]
