"""From an engine's image to an initrd: `acon-nb initrd from` beside the plain pipeline of shell tools, in turns.

    make benchmarks            (or: .venv/bin/python benchmarks/initrd_speed.py [RUNS [FORM...]])

The image is Debian's minbase by debootstrap (cached), in a dockerd of our own (storage driver vfs). Needs root,
docker.io and debootstrap. Both sides compress at the same level. Prints seconds, ratios, sizes, and our peak memory.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache

PLAIN = Path(__file__).with_name("plain_pipeline.sh")
# suffix -> the tool at the level of ours
FORMS = {
    "": [],
    "lz4": ["lz4", "-l", "-9"],
    "gz": ["gzip", "-9", "-n"],
    "bz2": ["bzip2", "-9"],
    "zst": ["zstd", "-19", "-q"],
    "xz": ["xz", "-6", "--check=crc32"],
}


def rootfs(cache: Cache) -> Path:
    """The tar of a Debian root file system."""

    def make(folder: Path) -> None:
        root = folder / "root"
        process.run(["debootstrap", "--variant=minbase", "bookworm", root], timeout_s=1800)
        process.run(["tar", "-C", root, "-cf", folder / "rootfs.tar", "."], timeout_s=300)
        shutil.rmtree(root)

    return cache.get("debootstrap", {"suite": "bookworm", "variant": "minbase", "form": 1}, make).path / "rootfs.tar"


def peak_of(argv: list[str], env: dict[str, str]) -> tuple[float, int]:
    """Seconds and peak memory (bytes) of a child."""
    started = time.monotonic()
    child = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{argv} ended with {child.returncode}")
    return time.monotonic() - started, usage.ru_maxrss << 10


def engine(host: str, folder: Path) -> process.Child:
    argv = ["dockerd", "--storage-driver=vfs", "--iptables=false", "--bridge=none", f"--host={host}"]
    argv += [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
    daemon = process.Child(argv)
    for _ in range(300):
        if not subprocess.run(["docker", "--host", host, "info"], capture_output=True, check=False).returncode:
            return daemon
        time.sleep(0.2)
    daemon.close()
    raise SystemExit("dockerd does not start here")


def require_root_and_programs() -> None:
    programs = [name for name in ("debootstrap", "dockerd", "docker") if shutil.which(name) is None]
    missing = programs if os.geteuid() == 0 else ["root"]
    if missing:
        raise SystemExit(
            f"initrd_speed needs root, debootstrap and docker.io; missing here: {', '.join(missing)}\n"
            "  hint: make benchmarks as root, or: BENCHMARKS='boot_overhead boots_per_minute' make benchmarks"
        )


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    forms = sys.argv[2:] or list(FORMS)
    require_root_and_programs()
    tar = rootfs(Cache())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        host = f"unix://{folder}/docker.sock"
        env = {**os.environ, "DOCKER_HOST": host}
        with engine(host, folder):
            subprocess.run(["docker", "import", tar, "deb:bench"], env=env, check=True, stdout=subprocess.DEVNULL)
            megabytes = tar.stat().st_size / 1e6
            print(f"image of {megabytes:.0f} MB, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
            print("  form   plain s    ours s  plain/ours  plain MB  ours MB  peak MB", flush=True)
            for form in forms:
                measure("" if form == "cpio" else form, runs, folder, env)


def measure(form: str, runs: int, folder: Path, env: dict[str, str]) -> None:
    plain: list[float] = []
    ours: list[float] = []
    peaks: list[int] = []
    out = folder / "plain.out", folder / f"ours.cpio{'.' if form else ''}{form}"
    argv = [sys.executable, "-m", "acon_nb.cli", "initrd", "from", "docker:deb:bench", "-o", str(out[1])]
    for _ in range(runs if form in ("", "lz4") else 1):
        os.sync()
        seconds, _ = peak_of([str(PLAIN), "deb:bench", str(folder / "tree"), str(out[0]), *FORMS[form]], env)
        plain.append(seconds)
        os.sync()
        seconds, peak = peak_of(argv, env)
        ours.append(seconds)
        peaks.append(peak)
    first, second = statistics.median(plain), statistics.median(ours)
    sizes = [path.stat().st_size / 1e6 for path in out]
    print(
        f"{form or 'cpio':>6} {first:9.2f} {second:9.2f} {first / second:11.2f} {sizes[0]:9.1f} {sizes[1]:8.1f}"
        f" {max(peaks) / 1e6:8.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
