"""A question about an image, answered by real guests: a planted heap of known pages, servers, and every bad end."""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from acon_nb.cli import main
from acon_nb.errors import Cancelled, InvalidInput, NoSpace
from acon_nb.host import facts
from acon_nb.progress import CancelToken, silent
from acon_nb.results.store import Store
from acon_nb.swap.image import measure as measuring
from acon_nb.swap.image.corpus import least_available
from acon_nb.swap.image.plan import places
from acon_nb.swap.image.question import ImageQuestion
from acon_nb.swap.image.study import image_study
from tests.system.engines import saved_redis

pytestmark = [pytest.mark.system, pytest.mark.weekly]

MIB = 1 << 20
HEAP = 200 * MIB
REDIS = ("redis-server", "--save", "", "--appendonly", "no")
CLIENT = ("redis-benchmark", "-n", "30000", "-r", "100000000", "-d", "1500", "-t", "set", "-q")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """An image of one static program, without a shell or anything else."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "bin").mkdir()
    source = f"{__file__.rpartition('/')[0]}/planted.c"
    subprocess.run(["gcc", "-O2", "-static", "-Wall", "-Werror", "-o", folder / "bin/planted", source], check=True)
    return f"dir:{folder}"


def asked(image, *argv, **fields):
    return ImageQuestion(image=image, command=argv, **{"at": ("1x",), "seeds": 1, **fields})


@pytest.fixture(scope="module")
def heap(planted, study_kernel, tmp_path_factory):
    """The planted heap at shares 5 % below and above where it must die by arithmetic, without swap and in zram."""
    folder = tmp_path_factory.mktemp("heap")
    measured = image_study(asked(planted, "/bin/planted", "200"))
    peak = measured.measured.program.peak_bytes
    least = least_available(measured.measured.program, measured.corpus)["lz4"] / peak
    shares = (f"{0.95 * least:.4f}x", f"{1.05 * least:.4f}x", "0.5x", "0.95x", "1.05x")
    question = asked(planted, "/bin/planted", "200", at=shares, setups=("none", "zram-lz4"))
    made = image_study(question)
    return made, made.study(folder).run(), folder


def test_the_peak_of_a_planted_heap_is_measured(heap):
    made, *_ = heap
    assert made.measured.program.peak_bytes == pytest.approx(HEAP, rel=0.05)
    sample = made.measured.program.sample
    assert sample.anonymous_pages * 4096 == pytest.approx(HEAP, rel=0.05)


def test_the_samples_ratio_is_that_which_zram_has(heap):
    """The program shows zram's own count while its heap is there: what is stored, compressed, filled with a word."""
    made, rows, folder = heap
    half = str(
        next(place for place in places(made.question, made.measured.program) if place.at == "0.5x").available_bytes
    )
    row = rows[(rows["factor_setup"] == "zram-lz4") & (rows["factor_available"] == half)].iloc[0]
    log = (folder / row["log"]).read_text(errors="replace")
    stored, compressed, *_, same = [int(word) for word in re.search(r"mm_stat ([ \d]+)", log)[1].split()][:6]
    assert stored > HEAP / 4
    assert made.corpus.ratio["lz4"] == pytest.approx((stored - 4096 * same) / compressed, rel=0.03)


def test_it_dies_where_arithmetic_says(heap):
    """Within 5 %: without swap where its peak is, with zram where the pool of all its pages is."""
    made, rows, _ = heap
    ends = {(one.setup, one.at): one.end for one in made.answer(rows).answers.answers}
    assert ends["none", "0.95x"] == "out_of_memory"
    assert ends["none", "1.05x"] == "ended_well"
    below, above, *_ = made.question.at
    assert 0.2 < float(below[:-1]) < float(above[:-1]) < 0.3
    assert ends["zram-lz4", below] == "out_of_memory"
    assert ends["zram-lz4", above] == "ended_well"


def test_an_answer_of_one_seed_ranks_nothing_and_says_all(heap):
    made, rows, _ = heap
    answer = made.answer(rows)
    data = json.loads(json.dumps(answer.data))
    assert set(data) >= {"peak_bytes", "working_set_bytes", "corpus", "answers", "best"}
    assert data["corpus"]["ratio"]["lz4"] > 1
    assert data["best"]["at"] == made.question.at[1]
    text = "\n".join(answer.lines)
    assert "is the best" not in text
    assert "out of memory in 1 of 1 runs" in text


@pytest.fixture(scope="module")
def redis_image(tmp_path_factory):
    with saved_redis(tmp_path_factory.mktemp("redis")) as made:
        yield made


def answered(out, *words, status=0):
    result = CliRunner().invoke(main, ["bench", "swap", "--out", str(out), *words], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result


SERVER = ("--driver", *CLIENT, "--ready", "port:6379", "--at", "0.7x", "--setups", "none,zram-zstd", "--seeds", "1")


def test_redis_from_docker_save_is_answered_by_one_command(redis_image, study_kernel, tmp_path):
    archive, _ = redis_image
    result = answered(tmp_path, "--image", f"docker-archive:{archive}", *SERVER, "--json")
    data = json.loads(result.stdout)
    assert data["command"] == ["redis-server", "--save", "", "--appendonly", "no"]
    assert data["peak_bytes"] > 40 * MIB
    ends = {one["setup"]: one["end"] for one in data["answers"]}
    assert ends == {"none": "out_of_memory", "zram-zstd": "ended_well"}
    assert data["best"]["setups"] == ["zram-zstd"]
    assert data["best"]["ratio_to_unlimited"] > 0.9


def test_redis_from_an_engine_is_answered_by_one_command(redis_image, study_kernel, tmp_path, monkeypatch):
    _, host = redis_image
    monkeypatch.setenv("DOCKER_HOST", host)
    result = answered(tmp_path, "--image", "my-redis:1", *SERVER)
    assert "At 0.7x: zram-zstd is the only one that gets through" in result.output


def test_a_stopped_study_resumes(planted, study_kernel, tmp_path):
    question = asked(planted, "/bin/planted", "32", setups=("zram-lz4",), at=("0.6x", "0.8x"))
    made, token, seen = image_study(question), CancelToken(), []

    def cancel(event):
        seen.append(event)
        if Store(tmp_path).load("swap", made.plan.name).shape[0]:
            token.cancel()

    with pytest.raises(Cancelled):
        made.study(tmp_path, parallel=1).run(on_progress=cancel, cancel=token)
    kept = len(Store(tmp_path).load("swap", made.plan.name))
    assert kept >= 1
    rows = made.study(tmp_path).run()
    assert len(made.answer(rows).answers.answers) == 2
    assert len(Store(tmp_path).load("swap", made.plan.name)) == len(made.study(tmp_path).plan.all_cells)


@pytest.mark.parametrize(
    ("argv", "fields", "words"),
    [
        (("/bin/no-such-program",), {}, "does not start: the command"),
        (("sh", "-c", "exit 3"), {}, "ended with status 3"),
        (("true",), {}, "there is nothing to compress"),
        (("sh", "-c", "while :; do sleep 1; done"), {"limit": "3s"}, "has not ended after"),
        (("wget", "http://example.org/"), {}, "needs the network"),
        (("sh", "-c", "sleep 100"), {"driver": ("true",), "ready": "up", "limit": "3s"}, "has not ended"),
        (("sh", "-c", "echo up; exit 1"), {"driver": ("sleep", "9"), "ready": "up"}, "ended before its driver"),
    ],
)
def test_a_command_that_answers_nothing_ends_by_its_reason(argv, fields, words, study_kernel):
    with pytest.raises(InvalidInput) as error:
        image_study(asked("busybox", *argv, **fields))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01" + bytes(43), "of another processor"),
        (b"#!/no/such/interpreter\n", "loader or interpreter"),
    ],
    ids=["arm64", "no interpreter"],
)
def test_a_program_that_cannot_start_here_ends_by_its_reason(data, words, study_kernel, tmp_path):
    (tmp_path / "program").write_bytes(data)
    (tmp_path / "program").chmod(0o755)
    with pytest.raises(InvalidInput, match="does not start") as error:
        image_study(asked(f"dir:{tmp_path}", "/program"))
    assert words in error.value.hint


def test_control_c_ends_the_command_and_nothing_is_lost(planted, study_kernel, tmp_path):
    """After the first row: the command says so, ends with status 130 and without a guest, and resumes."""
    options = ["--image", planted, "--at", "0.8x", "--setups", "zram-lz4", "--seeds", "2"]
    program = ["--command", "/bin/planted", "32"]
    argv = [sys.executable, "-m", "acon_nb.cli", "bench", "swap", "--out", tmp_path, "--parallel", "1", *options]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whatever the shell of the tests does
    command = subprocess.Popen([*argv, *program], preexec_fn=listens, **silent)
    try:
        while command.poll() is None and not list(tmp_path.rglob("*.parquet")):
            time.sleep(0.1)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 130
    assert said.decode().splitlines()[-1] == "acon-nb: interrupted; finished parts are kept"
    assert b"Traceback" not in said
    kept = set(Store(tmp_path).load("swap")["run_id"])
    assert kept
    (answer,) = json.loads(answered(tmp_path, *options, "--json", *program).stdout)["answers"]
    assert answer["ended_well"] == 2
    assert kept < set(Store(tmp_path).load("swap")["run_id"])


def test_a_peak_that_is_larger_than_the_host_is_refused(planted, study_kernel, monkeypatch):
    monkeypatch.setattr(measuring, "memory_available_bytes", lambda: facts.memory_available_bytes() and 900 * MIB)
    with pytest.raises(InvalidInput, match="and this host can give 675"):
        image_study(asked(planted, "/bin/planted", "700"))


def test_a_server_for_a_time_is_ended_and_not_compared_by_time(study_kernel, tmp_path):
    work = "yes 0123456789 | head -c 24m > /tmp/data; while :; do sort /tmp/data > /dev/null; echo op sort >&3; done"
    question = asked("busybox", "sh", "-c", work, run_for="8s", at=("0.7x",), setups=("zram-lz4",))
    made = image_study(question)
    assert made.measured.program.end == "for"
    (one,) = made.answer(made.study(tmp_path).run(on_progress=silent)).answers.answers
    assert one.end == "ended_well"
    assert one.operations_per_s is None or one.ratio_to_unlimited is not None


def test_a_full_disk_ends_by_name_and_nothing_is_lost(planted, study_kernel, small_disk):
    question = asked(planted, "/bin/planted", "16", setups=("none",))
    made = image_study(question)
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(NoSpace):
        made.study(small_disk / "out").run()
    (small_disk / "filler").unlink()
    rows = made.study(small_disk / "out").run()
    assert made.answer(rows).answers.answers
