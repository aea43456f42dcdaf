"""The dilation of each class of work: the one that scales a disk, what cannot be compared, and what is never reused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from acon_nb import process
from acon_nb.cache import Cache
from acon_nb.guest.programs import classes_program
from acon_nb.progress import Progress
from acon_nb.study.plan import Plan
from acon_nb.swap import calibration, experiment, tables
from acon_nb.swap.calibration import CLASSES, Calibration
from acon_nb.swap.classes import class_lines, class_table, df_classes
from acon_nb.swap.experiment import SwapExperiment
from acon_nb.swap.factors import SwapFactors
from acon_nb.vm import Capabilities, Clock, VmSpec
from tests.unit import bzimages

PAID = ("copy", "fault", "lz4_decompress", "zstd_decompress")
HOST = dict.fromkeys(CLASSES, 1000.0) | dict(zip(PAID, (100.0, 400.0, 500.0, 1500.0), strict=True))
GUEST = dict.fromkeys(CLASSES, 9000.0) | dict(zip(PAID, (1000.0, 1000.0, 8000.0, 16000.0), strict=True))
GUEST["pointer_chase"] = 10.0
MEASURED = Calibration(host_ns=HOST, guest_ns=GUEST)
QEMU = Capabilities(qemu=Path("/usr/bin/qemu-system-x86_64"))


def test_a_disk_is_scaled_by_what_a_fault_pays_without_it() -> None:
    lz4 = (1000 + 8000 + 1000) / (100 + 400 + 500)
    zstd = (1000 + 16000 + 1000) / (100 + 400 + 1500)
    assert MEASURED.dilation == pytest.approx(math.sqrt(lz4 * zstd), rel=0.06)
    assert MEASURED.dilation == float(f"{MEASURED.dilation:.2g}")
    slower = Calibration(host_ns=HOST, guest_ns={**GUEST, "lz4_compress": 9e9, "cipher": 9e9, "pointer_chase": 9e9})
    assert slower.dilation == MEASURED.dilation, "what no fault pays for changes nothing"


def test_a_cpu_without_aes_instructions_has_every_class_but_the_cipher() -> None:
    answer = {"event": "classes", "ns": {name: 1 for name in CLASSES if name != "cipher"}}
    without = Calibration(host_ns=HOST, guest_ns=calibration.times_of(answer))
    assert set(CLASSES) - set(without.of_class) == {"cipher"}
    assert "dilation_cipher" not in without.row()
    with pytest.raises(KeyError):
        calibration.times_of({"ns": {"cipher": 1}})


def test_the_program_encrypts_as_the_standard_says(tmp_path: Path) -> None:
    """IEEE 1619-2007, annex B, vector 10: bytes 0 to 255, AES-256-XTS."""
    (tmp_path / "page").write_bytes(bytes(range(256)) * 16)
    out = process.run_bytes([classes_program(), "cipher", tmp_path / "page"])
    assert out.startswith(bytes.fromhex("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"))
    assert len(out) == 4096


def test_the_program_times_every_class_on_this_host(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(b"some text that compresses " * 4096)
    found = calibration.time_classes(classes_program(), tmp_path / "pages")
    assert set(found) >= set(CLASSES) - {"cipher"}
    assert all(value > 0 for value in found.values())


@pytest.fixture
def spec(tmp_path: Path) -> VmSpec:
    return VmSpec(kernel=bzimages.write(tmp_path / "vmlinuz"), clock=Clock.INSTRUCTIONS)


def test_a_calibration_of_anything_else_is_not_used(
    spec: VmSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU model, QEMU, kernel, memory, machine and the host's kernel: each makes a calibration of its own."""
    measured: list[VmSpec] = []

    def measure(one: VmSpec, *_: object) -> Calibration:
        measured.append(one)
        return MEASURED

    monkeypatch.setattr(calibration, "_measure", measure)
    cache = Cache(tmp_path / "cache")

    def is_measured_anew(host: Capabilities = QEMU, **changes: object) -> bool:
        before = len(measured)
        assert calibration.calibrate(replace(spec, **changes), host=host, cache=cache) == MEASURED  # type: ignore[arg-type]
        return len(measured) > before

    assert is_measured_anew()
    assert not is_measured_anew()
    assert is_measured_anew(replace(QEMU, string_flags=()))
    assert is_measured_anew(memory_bytes=1 << 30)
    assert is_measured_anew(machine="microvm")
    assert is_measured_anew(append="nokaslr")
    spec.kernel.write_bytes(spec.kernel.read_bytes() + b"another kernel")
    assert is_measured_anew()
    assert not is_measured_anew()
    here = calibration.environment()
    monkeypatch.setattr(calibration, "environment", lambda: replace(here, host_kernel=f"{here.host_kernel}-other"))
    assert is_measured_anew()
    qemu = calibration.probe_qemu(QEMU.qemu)
    later = (qemu.version[0] + 1, *qemu.version[1:])
    monkeypatch.setattr(calibration, "probe_qemu", lambda _: replace(qemu, version=later))
    assert is_measured_anew()


@pytest.mark.parametrize(("fixed", "warned"), [(20.0, True), (9.5, False), (6.0, True), (0.0, False)])
def test_a_plan_that_fixes_another_dilation_is_warned_of_before_it_starts(
    fixed: float, warned: bool, spec: VmSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment.calibration, "calibrate", lambda *_, **__: MEASURED)
    monkeypatch.setattr(SwapExperiment, "_codec_spec", lambda *_: spec)
    said: list[Progress] = []
    study = SwapExperiment(Plan(name="s", study="swap", fixed={"dilation": fixed}))
    assert study._calibration(SwapFactors(dilation=fixed), spec.kernel, said.append, None) is MEASURED
    assert bool(said) == warned
    if fixed == 20.0:
        assert said[0].task == "warning, instructions clock"
        assert "the plan fixes dilation = 20, but 9.5 was measured here: disks are 2.1 times too slow" in said[0].text
        assert "Fix dilation = 9.5" in said[0].text


def study_rows(dilation: float = 9.5, fixed: float = 0.0) -> pd.DataFrame:
    common = {"clock": "instructions", "dilation_measured": MEASURED.dilation}
    disk = {"factor_workload": "tmpfs", "disk_latency_ns": 80_000 * dilation, "disk_latency_hardware_ns": 80_000}
    codec = {"factor_workload": "codec", "dilation": MEASURED.dilation, **MEASURED.row()}
    return pd.DataFrame([{**common, **disk, "dilation": dilation, "factor_dilation": fixed}, {**common, **codec}])


def test_each_class_is_in_the_report_and_those_far_off_are_named() -> None:
    table = df_classes(study_rows()).set_index("class")
    assert set(table.index) == set(CLASSES)
    assert table.loc["lz4_decompress", "dilation"] == 16
    assert not table.loc["pointer_chase", "comparable"]
    assert table.loc["lz4_compress", "comparable"]
    shown = class_table(study_rows()).set_index("class of work")
    assert shown.loc["pointer chase, a load", ["host", "guest", "with a disk"]].tolist() == [
        "1 µs", "10 ns", "not comparable",
    ]  # fmt: skip
    lines = tables.calibration_lines(study_rows())
    assert lines[0].startswith("Calibration, instructions clock: fault, decompression and copy take 9.5 times")
    assert lines[0].endswith("in the codec cell; disks are scaled by 9.5.")
    (far,) = [text for text in lines if text.startswith("Not comparable")]
    assert "pointer chase, a load (0.01)" in far
    assert "lz4, compress" not in far
    assert lines[-1] == "Disk, instructions clock: a disk of 80.0 µs answers after 760.0 µs of the guest's time."


def test_the_report_warns_of_a_dilation_that_the_plan_fixed() -> None:
    assert warnings(study_rows(9.5)) == warnings(study_rows(10.0, fixed=10.0)) == []
    (text,) = warnings(study_rows(20.0, fixed=20.0))
    assert "fixes dilation = 20, but 9.5 was measured" in text


def test_the_report_warns_where_codec_cell_and_calibration_differ() -> None:
    (text,) = warnings(study_rows(14.0).assign(dilation_measured=[14.0, 9.5]))
    assert "scaled by 14, as calibrated, but the codec cell measured 9.5" in text


def warnings(rows: pd.DataFrame) -> list[str]:
    return [text for text in class_lines(rows) if text.startswith("Warning")]


def test_rows_of_an_older_version_have_no_classes() -> None:
    cell = {"clock": "instructions", "factor_workload": "codec", "dilation": 9.0, "codec_guest_lz4_ns": 1}
    old = pd.DataFrame([cell])
    assert df_classes(old).empty
    assert class_table(old).empty
    assert class_lines(old) == []
    assert df_classes(pd.DataFrame()).empty
