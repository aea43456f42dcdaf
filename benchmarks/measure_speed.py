"""How long a prediction takes: a firmware of 4 MiB, a kernel of 15 MiB, an initrd of 350 MiB.

    .venv/bin/python benchmarks/measure_speed.py [RUNS]

The firmware is Debian's OVMF.fd, its configuration volume grown so that the image has 4 MiB; the kernel is Debian's
cloud kernel, grown to 15 MiB; the initrd is random. Each run is a new process, as `acon-nb measure predict` is one.
Prints seconds (median of the runs, which are listed), the parts of one run, and the peak memory.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from acon_nb import kernel
from acon_nb.cache import Cache

OVMF = Path("/usr/share/ovmf/OVMF.fd")
KERNEL_BYTES, INITRD_BYTES, FIRMWARE_BYTES = 15 << 20, 350 << 20, 4 << 20
_ONE = "--one"


def material(folder: Path) -> list[Path]:
    """Files of the three sizes."""
    image = OVMF.read_bytes()
    grown = bytearray(FIRMWARE_BYTES - len(image)) + bytearray(image)
    shift_sections(grown, FIRMWARE_BYTES - len(image))
    source = kernel.debian_kernel("linux-image-cloud-amd64", cache=Cache()).image.read_bytes()
    files = [folder / name for name in ("OVMF.fd", "bzImage", "initrd")]
    files[0].write_bytes(grown)
    files[1].write_bytes(source + bytes(max(0, KERNEL_BYTES - len(source))))
    with files[2].open("wb") as file:
        for _ in range(INITRD_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    return files


def shift_sections(image: bytearray, by: int) -> None:
    """Let the descriptor's boot volume start where it did in the smaller image."""
    start = image.rindex(b"TDVF", 0, len(image))
    count = int.from_bytes(image[start + 12 : start + 16], "little")
    for number in range(count):
        place = start + 16 + 32 * number
        if int.from_bytes(image[place + 4 : place + 8], "little"):
            offset = int.from_bytes(image[place : place + 4], "little") + by
            image[place : place + 4] = offset.to_bytes(4, "little")


def one(files: list[str]) -> None:
    """A prediction in this process, with the times of its parts."""
    started = time.monotonic()
    from acon_nb import tdx
    from acon_nb.tdx.inputs import load
    from acon_nb.tdx.predict import of_material

    parts = {"import": time.monotonic() - started}
    firmware, image, initrd = map(Path, files)
    inputs = tdx.BootInputs(firmware=firmware, kernel=image, initrd=initrd, memory_bytes=4 << 30, edk2="202502")
    step = time.monotonic()
    found = load(inputs)
    parts["read, hash the initrd"] = time.monotonic() - step
    for name in ("content", "stack", "kernel_digest", "patched_digest"):
        step = time.monotonic()
        getattr(found, name)
        parts[name] = time.monotonic() - step
    step = time.monotonic()
    of_material(found, tdx.LogKind.TD)
    parts["MRTD and events"] = time.monotonic() - step
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items()), f"peak {peak} MiB", sep="; ")


def main() -> None:
    if sys.argv[1:2] == [_ONE]:
        one(sys.argv[2:])
        return
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        files = material(Path(name))
        sizes = ", ".join(f"{path.name} {path.stat().st_size / (1 << 20):.1f} MiB" for path in files)
        print(f"{sizes}; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True)
        argv = [sys.executable, "-m", "acon_nb.cli", "measure", "predict", str(files[1]), "--firmware", str(files[0])]
        argv += ["--initrd", str(files[2]), "--memory", "4G", "--append", "console=hvc0", "--edk2", "202502"]
        argv += ["--only", "rtmr1,rtmr2", "--qemu", "10.1"]
        wall, used = [], []
        for _ in range(runs):
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall.append(time.monotonic() - started)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        for what, seconds in (("wall clock", wall), ("processor time", used)):
            listed = ", ".join(f"{value:.2f}" for value in seconds)
            print(f"command, {what}: median {statistics.median(seconds):.2f} s ({listed})", flush=True)
        subprocess.run([sys.executable, __file__, _ONE, *map(str, files)], check=True)


if __name__ == "__main__":
    main()
