"""Can times on hardware be predicted from counted classes of work? A trial on this host (docs/cost-model.md).

    python benchmarks/cost_model.py [--qemu qemu-x86_64] [--json FILE]

Micro-benchmarks and programs run natively (CPU time, the least of five runs) and once under QEMU's user mode with a
plugin that counts classes of instructions, simulated misses of caches, TLBs and a branch predictor, system calls and
bytes that the kernel copies. ns for each class are fitted, none below 0, to relative errors; then each program's time
is predicted twice: from the micro-benchmarks alone, and from these and all other programs (leave one out). Needs gcc
and Debian's qemu-user, lz4, zstd, xz-utils, bzip2, perl, gawk, sqlite3; takes some ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from acon_nb.initrd import tree_of, write_folder
from acon_nb.swap import corpora

HERE = Path(__file__).with_name("cost_model")
RUNS = 5
CPU = "max,-erms,-fsrm"
# The same code on both: what QEMU's CPU lacks, the C library does not use natively either.
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "LC_ALL": "C",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F_Usable,-AVX512VL_Usable,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM",
    "OPENSSL_ia32cap": "0x7ffaf3ffffebffff:0x00000000000027ab",  # no AVX-512, SHA or VAES
    "PYTHONHASHSEED": "0",
}
KEYS = 20_000
Argv = Sequence[str]


@dataclass(frozen=True)
class Work:
    """A program: its arguments; with a name, its standard output goes there. `drive` talks to it while it runs."""

    name: str
    argv: Argv
    output: Path | None = None
    drive: Callable[[], None] | None = None


@dataclass(frozen=True)
class Sample:
    """A program's least CPU time in ns, and its counts."""

    name: str
    ns: float
    counts: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qemu", default="qemu-x86_64")
    parser.add_argument("--json", type=Path, help="where to keep the samples; read if it is there")
    options = parser.parse_args()
    if options.json and options.json.exists():
        raw = json.loads(options.json.read_text())
        micro, programs = ([Sample(**one) for one in raw[name]] for name in ("micro", "programs"))
    else:
        micro, programs = measured(options.qemu)
        if options.json:
            parts = {"micro": micro, "programs": programs}
            text = json.dumps({name: [vars(one) for one in found] for name, found in parts.items()}, indent=1)
            options.json.write_text(text)
    report(micro, programs)


def measured(qemu: str) -> tuple[list[Sample], list[Sample]]:
    """All samples: of the micro-benchmarks, and of the programs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        plugin, program = folder / "count.so", folder / "micro"
        subprocess.run(["gcc", *flags, "-shared", "-fPIC", "-o", plugin, HERE / "count.c"], check=True)
        subprocess.run(["gcc", *flags, "-static", "-o", program, HERE / "micro.c"], check=True)
        names = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
        micro = [Work(one, [str(program), one]) for one in names]
        both = [[sample(work, qemu, plugin, folder) for work in works] for works in (micro, programs(folder))]
    return both[0], both[1]


def programs(folder: Path) -> list[Work]:
    """Programs of Debian on 8 MiB of text, a compiler on a C file, and redis."""
    text = folder / "text"
    sources = sorted(Path(os.__file__).parent.glob("*.py")) * 4
    text.write_bytes(b"".join(path.read_bytes() for path in sources)[: 8 << 20])
    packed = {name: folder / f"text.{name}" for name in ("lz4", "zst", "gz")}
    for name, command in (("lz4", "lz4"), ("zst", "zstd"), ("gz", "gzip")):
        packed[name].write_bytes(subprocess.run([command, "-c", text], check=True, stdout=subprocess.PIPE).stdout)
    source = folder / "source.i"
    subprocess.run(["gcc", "-E", "-o", source, HERE / "micro.c"], check=True)
    cc1 = subprocess.run(["gcc", "-print-prog-name=cc1"], check=True, capture_output=True, text=True).stdout.strip()
    out, t = folder / "out", str(text)
    works = [
        Work("lz4", ["lz4", "-1", "-c", t], out),
        Work("lz4 -d", ["lz4", "-d", "-c", str(packed["lz4"])], out),
        Work("zstd", ["zstd", "-3", "--single-thread", "-c", t], out),
        Work("zstd -d", ["zstd", "-d", "--single-thread", "-c", str(packed["zst"])], out),
        Work("gzip", ["gzip", "-1", "-c", t], out),
        Work("gzip -d", ["gzip", "-d", "-c", str(packed["gz"])], out),
        Work("xz", ["xz", "-0", "-T1", "-c", t], out),
        Work("bzip2", ["bzip2", "-1", "-c", t], out),
        Work("sha256sum", ["sha256sum", t], out),
        Work("sort", ["sort", "--parallel=1", t], out),
        Work("grep", ["grep", "-c", "-E", "(self|class).*[0-9]+:$", t], out),
        Work("awk", ["awk", "{for (i = 1; i <= NF; i++) n[$i]++} END {print length(n)}", t], out),
        Work("perl", ["perl", "-ne", "$n{$_}++ for split; END {print scalar keys %n}", t], out),
        Work(
            "python", [sys.executable, "-S", "-c", f"import json; json.loads(json.dumps(open({t!r}).read().split()))"]
        ),
        Work("sqlite3", ["sqlite3", ":memory:", SQL], out),
        Work("cc1 -O2", [cc1, "-quiet", "-O2", str(source), "-o", str(folder / "source.s")]),
    ]
    root, place = folder / "root", folder / "redis"
    write_folder(tree_of(corpora.REDIS_IMAGE), root)
    argv = [str(word) for word in corpora.redis_argv(root, place)]
    return [*works, Work("redis", argv, out, lambda: drive_redis(place))]


SQL = """
create table t(a integer, b text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000)
insert into t select i * 7919 % 65537, hex(i) from n;
create index x on t(a);
select sum(length(b)) from t join (select a as c from t order by a limit 9999) on a = c;
"""


def drive_redis(place: Path) -> None:
    """Set and get documents over redis' socket, then end it."""
    import socket

    while not place.exists():
        time.sleep(0.02)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        file = client.makefile("rb")
        for number in range(KEYS):
            client.sendall(f"SET key:{number} {'document' * 30}\r\nGET key:{number * 7919 % KEYS}\r\n".encode())
            for _ in range(2):
                answer = file.readline()
                if answer.startswith(b"$") and not answer.startswith(b"$-1"):
                    file.readline()
        client.sendall(b"SHUTDOWN NOSAVE\r\n")
        file.read()
    place.unlink(missing_ok=True)


def sample(work: Work, qemu: str, plugin: Path, folder: Path) -> Sample:
    """A program's time here and its counts under QEMU."""
    program = shutil.which(work.argv[0]) or work.argv[0]
    runs = [run(work, [program, *work.argv[1:]]) for _ in range(RUNS)]
    counts = folder / "counts.json"
    # the loader's own search for QEMU's libraries is not part of the program
    run(work, [qemu, "-cpu", CPU, "-plugin", f"{plugin},out={counts}", program, *work.argv[1:]])
    found = json.loads(counts.read_text())
    found["fault"] = min(faults for _, faults in runs)
    print(f"{work.name}: {min(ns for ns, _ in runs) / 1e6:.1f} ms", file=sys.stderr, flush=True)
    return Sample(work.name, min(ns for ns, _ in runs), found)


def run(work: Work, argv: Argv) -> tuple[float, int]:
    """CPU time in ns and minor faults of one run."""
    with (work.output or Path(os.devnull)).open("wb") as output:
        child = subprocess.Popen(argv, env=ENVIRONMENT, stdout=output)
        if work.drive:
            work.drive()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{work.name} ended with {child.returncode}")
    return (usage.ru_utime + usage.ru_stime) * 1e9, usage.ru_minflt


def fitted(samples: Sequence[Sample], classes: Sequence[str]) -> np.ndarray:
    """ns of each class, none below 0, that make the squares of the relative errors least."""
    rows = np.array([[one.counts[name] / one.ns for name in classes] for one in samples])
    scale = rows.max(axis=0)
    scale[scale == 0] = 1
    found, _ = nnls(rows / scale, np.ones(len(samples)))
    return np.asarray(found / scale)


def predicted(one: Sample, ns: np.ndarray, classes: Sequence[str]) -> float:
    """A program's time in ns."""
    return float(np.dot([one.counts[name] for name in classes], ns))


def report(micro: Sequence[Sample], programs: Sequence[Sample]) -> None:
    """Print the fit, each prediction, and the errors."""
    classes = list(micro[0].counts)
    from_micro = fitted(micro, classes)
    shown = [f"{name} {value:.3g}" for name, value in zip(classes, from_micro, strict=True) if value]
    print(f"ns a class, from the micro-benchmarks: {', '.join(shown)}")
    errors: dict[str, list[float]] = {"micro-benchmarks": [], "leave one out": [], "one rate": []}
    titles = "".join(name.rjust(18) for name in errors)
    print(f"{'program':12} {'instructions':>13} {'measured':>10}{titles}")
    for one in programs:
        rest = [other for other in programs if other is not one]
        rates = [other.ns / instructions(other) for other in rest]
        guesses = [predicted(one, ns, classes) for ns in (from_micro, fitted([*micro, *rest], classes))]
        guesses.append(instructions(one) * float(np.exp(np.mean(np.log(rates)))))
        for name, guess in zip(errors, guesses, strict=True):
            errors[name].append(guess / one.ns - 1)
        shares = "".join(f"{guess / one.ns - 1:+.0%}".rjust(18) for guess in guesses)
        print(f"{one.name:12} {instructions(one) / 1e6:11.1f} M {one.ns / 1e6:7.1f} ms{shares}")
    for name, found in errors.items():
        off = np.abs(found)
        text = f"mean {off.mean():.0%}, median {np.median(off):.0%}, largest {off.max():.0%}"
        print(f"error, {name}: {text}")


def instructions(one: Sample) -> float:
    """All instructions of a program: the classes before `load` are disjoint, those after it are events."""
    names = list(one.counts)
    return sum(one.counts[name] for name in names[: names.index("load")])


if __name__ == "__main__":
    main()
