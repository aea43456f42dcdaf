"""How much longer a guest's time is than the host's: the same codecs on the same pages, on both.

On the instruction clock a guest counts 1 ns an instruction, which is some ten times what the instruction takes on
hardware. A simulated disk's latency is scaled by this dilation, so that disk and codecs keep their proportion. It is
measured once for a host, QEMU and clock, and kept in the user cache; every study also has a codec cell of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acon_nb import process
from acon_nb.bench.swap.programs import codec_program, load_program
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import GuestFailed
from acon_nb.host import environment, probe_qemu
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.vm import Capabilities, Machine, VmSpec

CODECS = ("lzo", "lz4", "zstd")
_SCALING = ("lz4", "zstd")  # those that the dilation is taken from; lzo's decompression is out of line under emulation
_PAGES = 256
_ROUNDS = 40
_DIGITS = 2


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """ns that each codec takes for a page, compressed and back, on the host and in a guest."""

    host_ns: Mapping[str, float]
    guest_ns: Mapping[str, float]

    @property
    def of_codec(self) -> dict[str, float]:
        """The dilation by codec."""
        return {name: self.guest_ns[name] / self.host_ns[name] for name in CODECS}

    @property
    def dilation(self) -> float:
        """The dilation: geometric mean of lz4's and zstd's, to two digits (the host's part is noisy)."""
        mean = math.exp(sum(math.log(self.of_codec[name]) for name in _SCALING) / len(_SCALING))
        return float(f"{mean:.{_DIGITS}g}")

    def row(self) -> dict[str, float]:
        """Columns of a row."""
        values = {f"dilation_{name}": value for name, value in self.of_codec.items()}
        for name in CODECS:
            values |= {f"codec_host_{name}_ns": self.host_ns[name], f"codec_guest_{name}_ns": self.guest_ns[name]}
        return values


def pages_file(cache: Cache | None = None) -> Path:
    """The pages that are compressed: 1 MiB of the documents that the redis workload keeps, the same everywhere."""
    store = cache or Cache()
    program = load_program(store)

    def make(folder: Path) -> None:
        text = process.run_bytes([program, "documents", "2000", "1"])[: _PAGES * 4096]
        (folder / "pages").write_bytes(text + b"d" * _PAGES)

    return store.get("swap-codec-pages", {"program": sha256_file(program), "pages": _PAGES}, make).path / "pages"


def on_host(cache: Cache | None = None) -> dict[str, float]:
    """The host's ns a page, the fastest of some rounds."""
    return time_codecs(codec_program(cache), pages_file(cache))


def time_codecs(program: Path, pages: Path) -> dict[str, float]:
    """What `program` (of `codec_program`) says of `pages` on this host."""
    return times_of(json.loads(process.output([program, "time", pages, str(_ROUNDS)])))


def times_of(data: Mapping[str, Any]) -> dict[str, float]:
    """ns a page by codec, of the program's answer."""
    return {name: float(data[f"{name}_ns"]) for name in CODECS}


def calibrate(
    spec: VmSpec,
    *,
    host: Capabilities | None = None,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Calibration:
    """The calibration of this host for the clock and machine of `spec`, the guest of a codec cell; kept in the cache.

    Errors: `GuestFailed` when the guest gives no times.
    """
    store = cache or Cache()
    inputs = {
        "codec": sha256_file(codec_program(store)),
        "clock": spec.clock.value,
        "machine": spec.machine,
        "host_class": environment().host_class,
        "qemu": probe_qemu().version_text,
    }

    def make(folder: Path) -> None:
        on_progress(Progress("calibrate", 0.0, "the codecs on host and guest"))
        with Machine(spec, host=host) as machine:
            outcome = machine.wait(cancel)
        found = next((message.data for message in outcome.messages if message.data.get("event") == "codec"), None)
        if cancel is not None:
            cancel.check()
        if found is None:
            raise GuestFailed("the codec cell gave no times", end=outcome.end, details=outcome.tail, hint=outcome.hint)
        made = Calibration(host_ns=on_host(store), guest_ns=times_of(found))
        (folder / "calibration.json").write_text(json.dumps(asdict(made)))
        on_progress(Progress("calibrate", 1.0, f"a guest's time is {made.dilation:g} times the host's"))

    path = store.get("swap-calibration", inputs, make).path / "calibration.json"
    return Calibration(**json.loads(path.read_text()))
