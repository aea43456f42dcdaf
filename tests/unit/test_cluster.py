"""The driver's rules on a pool of threads; tests/system/test_cluster.py has real workers and guests."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from acon_nb.errors import AconError, Cancelled, InvalidInput
from acon_nb.host import environment, probe_qemu
from acon_nb.progress import CancelToken, Progress
from acon_nb.results.select import usable
from acon_nb.results.store import Store
from acon_nb.study.cluster import ClusterStudy, worker
from acon_nb.study.cluster import dispatch as dispatch_module
from acon_nb.study.cluster.dispatch import plan_of
from acon_nb.study.cluster.pool import Lost
from acon_nb.study.cluster.worker import HostReport, Reply, Ticket
from acon_nb.study.plan import Plan, PlanCell, PlannedRun
from acon_nb.study.runner import Measured, Study
from acon_nb.vm import Clock, End


class Machine:
    """An experiment whose guests take `SECONDS` and end well."""

    kind = "boot"
    unbuilt: Mapping[str, AconError] = MappingProxyType({})
    SECONDS = 0.002

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.file = Path(__file__)

    def clock(self, cell: PlanCell) -> Clock:
        return Clock(cell.levels.get("clock", "wall"))

    def prepare(self, **_: object) -> None:
        pass

    def identity(self, cell: PlanCell) -> str:
        return cell.label

    def parts(self, cell: PlanCell) -> dict[str, Path]:
        return {"kernel": self.file}

    def findings(self, cell: PlanCell) -> dict[str, Any]:
        return {}

    def adopt(self, cell: PlanCell, parts: Mapping[str, Path], findings: Mapping[str, Any]) -> None:
        self.file = parts["kernel"]

    def run(self, cell: PlanCell, planned: PlannedRun, cancel: CancelToken) -> Measured:
        time.sleep(self.SECONDS)
        profile = cell.label.encode() if self.plan.profile else b""
        return Measured(row={"guest_ns_init": 5}, end=End.POWERED_OFF, console=self.file, profile=profile)


@dataclass
class Host:
    """A host of the pool: its class, and what is wrong with it."""

    host_class: str = "a CPU"
    slots: int = 1
    qemu: str = ""
    version: str = ""
    error: Exception | None = None
    alive: bool = True
    kernel: str = ""


class Threads:
    """Hosts that are threads. `before(ticket, address)` may return a reply, raise, or kill its host."""

    def __init__(self, hosts: Mapping[str, Host], before: Callable[[Ticket, str], Reply | None] | None = None) -> None:
        self.hosts = dict(hosts)
        self.before = before or (lambda *_: None)
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.sent: list[tuple[str, str, int]] = []
        self.cancelled = 0
        self._lock = threading.Lock()
        self._results: dict[int, Any] = {}

    def workers(self) -> dict[str, int]:
        return {address: host.slots for address, host in self.hosts.items() if host.alive}

    def ask(
        self, function: Callable[..., Any], *args: Any, workers: Sequence[str], large: bool = False
    ) -> dict[str, Any]:
        if function is worker.report:
            return {address: self.report(address) for address in workers if self.hosts[address].alive}
        return {address: function(*args) for address in workers if self.hosts[address].alive}

    def report(self, address: str) -> HostReport | Exception:
        host = self.hosts[address]
        if host.error is not None:
            return host.error
        here = environment()
        there = replace(here, host=address, cpu_model=host.host_class)
        return HostReport(
            incarnation=worker.INCARNATION,
            boot_id=host.kernel or address,
            cache_id=address,
            environment=replace(there, acon_nb_version=host.version or here.acon_nb_version),
            qemu=host.qemu or probe_qemu().text,
            kvm=False,
        )

    def submit(self, address: str, ticket: Ticket, on_done: Callable[[Any], None]) -> int:
        with self._lock:
            number = len(self.sent)
            self.sent.append((address, ticket.plan.all_cells[0].label, ticket.planned.block))
        threading.Thread(target=self._run, args=(number, address, ticket, on_done)).start()
        return number

    def result(self, handle: int) -> Reply:
        found, address = self._results[handle], self.sent[handle][0]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Reply)
        return replace(found, host=replace(found.host, host=address, cpu_model=self.hosts[address].host_class))

    def cancel(self, handles: Iterable[int]) -> None:
        self.cancelled += len(list(handles))

    def _run(self, number: int, address: str, ticket: Ticket, on_done: Callable[[Any], None]) -> None:
        kernel = self.hosts[address].kernel or address
        with self._lock:
            self.running[kernel] += 1
            self.most[kernel] = max(self.most[kernel], self.running[kernel])
        try:
            found: Any = self.before(ticket, address) or worker.run(ticket, CancelToken())
        except Exception as error:
            found = error
        with self._lock:
            self.running[kernel] -= 1
            self._results[number] = found
        if self.hosts[address].alive:
            on_done(number)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("acon_nb.study.cluster.membership._POLL_S", 0.05)
    monkeypatch.setattr(dispatch_module, "_POLL_S", 0.02)
    monkeypatch.setattr("acon_nb.study.host_lock._folder", lambda: tmp_path)
    monkeypatch.setattr(worker, "probe_kvm", lambda: pytest.fail("hosts of the pool are not asked"))


def study_on(pool: Threads, out: Path, plan: Plan | None = None, **values: Any) -> ClusterStudy:
    chosen = plan or PLAN
    return ClusterStudy(plan=chosen, experiment=Machine(chosen), store=Store(out), pool=pool, **values)


def counted(**hosts: Host) -> dict[str, Host]:
    return hosts or {f"host{number}": Host() for number in range(3)}


PLAN = Plan(name="sizes", study="boot", factors={"memory": ["1G", "2G", "3G"]}, fixed={"clock": "instructions"}, runs=4)


def test_every_run_is_a_row_once_and_names_its_worker_and_host(tmp_path: Path) -> None:
    pool = Threads(counted())
    study = study_on(pool, tmp_path / "out")
    rows = study.run()
    assert len(rows) == rows["run_key"].nunique() == 12
    assert list(rows["cell"]) == ["memory=1G"] * 4 + ["memory=2G"] * 4 + ["memory=3G"] * 4
    assert list(rows["worker"]) == list(rows["host"])
    assert set(rows["worker"]) <= set(pool.hosts)
    assert set(rows["attempt"]) == {1}
    assert all((tmp_path / "out" / log).read_text() == Path(__file__).read_text() for log in rows["log"])
    assert (study.state.phase, study.state.done, study.state.total, study.state.left_s) == ("done", 12, 12, 0.0)
    assert {cell.state for cell in study.state.cells} == {"done"}


def test_profiles_come_from_the_workers_and_equal_ones_are_one_file(tmp_path: Path) -> None:
    rows = study_on(Threads(counted()), tmp_path / "out", replace(PLAN, profile=True)).run()
    for row in rows.to_dict("records"):
        path = tmp_path / "out" / row["profile"]
        assert path.read_bytes() == row["cell"].encode()
        assert path.stem == row["profile_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(list((tmp_path / "out/profiles").iterdir())) == 3
    assert Store(tmp_path / "out").kinds() == ["boot"]
    assert "profile" not in study_on(Threads(counted()), tmp_path / "without").run()


def test_a_guest_on_the_wall_clock_is_alone_on_its_host_and_counted_ones_fill_the_slots(tmp_path: Path) -> None:
    wall = Plan(name="wall", study="boot", factors={"memory": ["1G", "2G"]}, runs=10, warmups=1)
    # two workers in containers of one machine, and one of four slots: three workers, two hosts
    hosts = {"pod0": Host(kernel="node"), "pod1": Host(kernel="node"), "big": Host(slots=4)}
    pool = Threads(hosts)
    rows = study_on(pool, tmp_path / "wall", wall).run()
    assert (len(rows), rows["warmup"].sum()) == (22, 2)
    assert pool.most == {"node": 1, "big": 1}
    held = threading.Barrier(4, timeout=300)
    pool = Threads({"big": Host(slots=4)}, lambda *_: held.wait() and None)
    assert len(study_on(pool, tmp_path / "counted").run()) == 12
    assert pool.most == {"big": 4}


def test_a_lost_worker_s_run_is_a_row_and_is_done_again_elsewhere(tmp_path: Path) -> None:
    pool = Threads(counted())

    def dies(_: Ticket, address: str) -> Reply | None:
        if address == "host1":  # its first run; every host gets one at the start
            pool.hosts["host1"].alive = False
            deadline = time.monotonic() + 300
            while not pool.cancelled and time.monotonic() < deadline:  # a dead worker never answers
                time.sleep(0.02)
        return None

    pool.before = dies
    study = study_on(pool, tmp_path / "out")
    rows = study.run()
    (lost,) = rows[rows["host_fault"] != ""].to_dict("records")
    assert (lost["worker"], lost["end"], lost["attempt"]) == ("host1", "killed", 1)
    assert (lost["host_fault"], lost["error"]) == ("worker_lost", "the worker host1 was lost")
    again = rows[(rows["run_key"] == lost["run_key"]) & (rows["host_fault"] == "")]
    assert (list(again["attempt"]), again["worker"].iloc[0] != "host1") == ([2], True)
    whole, left_out = usable(rows)
    assert (len(whole), whole["run_key"].nunique(), left_out.host_faults) == (12, 12, 1)
    assert study.state.done == 12
    assert pool.cancelled >= 1


def test_a_host_with_three_faults_in_a_row_gets_no_more_runs(tmp_path: Path) -> None:
    def broken(_: Ticket, address: str) -> Reply | None:
        if address == "host0":
            return Reply(host_fault="no space left", host=environment())
        time.sleep(0.2)
        return None

    pool = Threads(counted(), broken)
    rows = study_on(pool, tmp_path / "out").run()
    assert len(usable(rows)[0]) == 12
    assert Counter(address for address, *_ in pool.sent)["host0"] == 3
    assert set(rows[rows["host_fault"] != ""]["attempt"]) == {1}
    assert set(rows[rows["host_fault"] == ""]["worker"]) == {"host1", "host2"}


def test_a_run_that_no_host_can_do_is_tried_three_times_and_next_time_again(tmp_path: Path) -> None:
    def cursed(ticket: Ticket, _: str) -> Reply | None:
        bad = ticket.plan.all_cells[0].label == "memory=2G" and ticket.planned.block == 1
        return Reply(host_fault="killed_from_outside", end=End.KILLED, host=environment()) if bad else None

    pool = Threads(counted(), cursed)
    study = study_on(pool, tmp_path / "out")
    rows = study.run()
    assert sorted(rows[rows["host_fault"] != ""]["attempt"]) == [1, 2, 3]
    assert [cell.state for cell in study.state.cells] == ["done", "failed", "done"]
    rows = study_on(Threads(counted()), tmp_path / "out").run()
    assert sorted(rows["attempt"])[-4:] == [1, 2, 3, 4]
    assert len(usable(rows)[0]) == 12


def test_a_stopped_study_goes_on_on_either_runner(tmp_path: Path) -> None:
    cancel = CancelToken()

    def stop(*_: object) -> None:
        if len(pool.sent) > 5:
            cancel.cancel()
            time.sleep(0.2)

    pool = Threads(counted(), stop)
    first = study_on(pool, tmp_path / "out")
    with pytest.raises(Cancelled):
        first.run(cancel=cancel)
    assert first.state.phase == "cancelled"
    assert not any(cell.running for cell in first.state.cells)
    assert pool.cancelled
    done = len(Store(tmp_path / "out").load("boot"))
    assert 0 < done < 12
    here = Study(plan=PLAN, experiment=Machine(PLAN), store=Store(tmp_path / "out"))
    assert len(here.run()) == 12
    assert sum(cell.kept for cell in here.state.cells) == done
    again = Threads(counted())
    last = study_on(again, tmp_path / "out")
    assert (len(last.run()), again.sent, last.state.done) == (12, [], 12)


def test_progress_counts_says_the_time_left_and_the_hosts(tmp_path: Path) -> None:
    said: list[Progress] = []
    study_on(Threads(counted()), tmp_path / "out").run(on_progress=said.append)
    assert said[-1].done == 1
    assert "12 of 12 runs: 3 hosts" in said[-1].text
    assert any("s left" in event.text for event in said)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Host(qemu="9.9.9"), "host1 has QEMU 9.9.9, the driver"),
        (Host(version="0.0.0"), "host1 has acon_nb 0.0.0, the driver"),
        (Host(error=ModuleNotFoundError("No module named 'acon_nb'")), "host1 cannot measure: ModuleNotFoundError"),
    ],
)
def test_workers_that_cannot_measure_are_named_before_anything_is_sent(tmp_path: Path, bad: Host, words: str) -> None:
    pool = Threads({"host0": Host(), "host1": bad})
    with pytest.raises(AconError, match="1 workers cannot measure") as caught:
        study_on(pool, tmp_path / "out").run()
    assert words in str(caught.value)
    assert pool.sent == []
    rows = study_on(pool, tmp_path / "out", skip_unfit=True).run()
    assert set(rows["worker"]) == {"host0"}


def test_a_resource_that_no_worker_has_is_refused_by_name(tmp_path: Path) -> None:
    pool = Threads({"host0": Host(slots=0)})
    with pytest.raises(AconError, match="none of 1 workers offers the resource vm") as caught:
        study_on(pool, tmp_path / "out").run()
    assert "--resources vm=1" in caught.value.hint
    pool.hosts["host1"] = Host()
    assert set(study_on(pool, tmp_path / "out").run()["worker"]) == {"host1"}


def test_hosts_of_two_classes_are_never_pooled(tmp_path: Path) -> None:
    hosts = {"old": Host("an old CPU"), "new0": Host("a new CPU"), "new1": Host("a new CPU")}
    with pytest.raises(InvalidInput, match="never pooled") as caught:
        study_on(Threads(hosts), tmp_path / "out").run()
    assert "1 hosts: an old CPU" in str(caught.value)
    assert "2 hosts: a new CPU" in str(caught.value)
    rows = study_on(Threads(hosts), tmp_path / "out", host_class="old").run()
    assert (set(rows["worker"]), rows["host_class"].nunique()) == ({"old"}, 1)
    more = replace(PLAN, runs=6)
    assert set(study_on(Threads(hosts), tmp_path / "out", more).run()["worker"]) == {
        "old"
    }  # as the rows that are there
    with pytest.raises(InvalidInput, match="is not the class of the rows in the store"):
        study_on(Threads(hosts), tmp_path / "out", more, host_class="new").run()
    with pytest.raises(InvalidInput, match="fits no host"):
        study_on(Threads(hosts), tmp_path / "other", host_class="newest").run()


def test_wall_clock_rows_of_another_class_stay_apart(tmp_path: Path) -> None:
    plan = Plan(name="wall", study="boot", runs=3, warmups=0)
    hosts = {"old": Host("an old CPU"), "new": Host("a new CPU")}
    for name in ("old", "new"):
        rows = study_on(Threads(hosts), tmp_path / "out", plan, host_class=name).run()
        assert (len(rows), set(rows["worker"])) == (3, {name})


def test_a_second_driver_of_a_study_follows_the_first(tmp_path: Path) -> None:
    seconds: list[Any] = []
    with ThreadPoolExecutor() as pool:

        def second(*_: object) -> None:
            if not seconds:
                other = study_on(Threads(counted()), tmp_path / "out")
                seconds.append(other)
                seconds.append(pool.submit(other.run))
                while other.state.phase != "running":
                    time.sleep(0.01)

        rows = study_on(Threads({"host0": Host()}, second), tmp_path / "out").run()
        assert len(seconds[1].result(timeout=60)) == len(rows)
    assert len(rows) == len(study_on(Threads(counted()), tmp_path / "out").store.load("boot"))


def test_a_run_that_was_measured_twice_counts_once(tmp_path: Path) -> None:
    study = study_on(Threads(counted()), tmp_path / "out")
    first = study.run()
    twin = {**first.iloc[0].to_dict(), "run_id": "0" * 32, "timestamp": "2999-01-01T00:00:00.000000+00:00"}
    study.store.add("boot", twin)
    rows = study.rows()
    assert (len(rows), rows.attrs["duplicates"]) == (12, 1)
    assert "0" * 32 not in set(rows["run_id"])


def test_workers_come_and_go_and_the_last_one_is_waited_for(tmp_path: Path) -> None:
    pool = Threads({"host0": Host()})

    def leaves(_: Ticket, address: str) -> None:
        if address == "host0" and len(pool.sent) == 3:
            pool.hosts["host0"].alive = False
            threading.Timer(0.3, lambda: pool.hosts.update(host9=Host())).start()
            time.sleep(0.2)

    pool.before = leaves
    rows = study_on(pool, tmp_path / "out", patience_s=20).run()
    assert len(usable(rows)[0]) == 12
    assert set(rows["worker"]) == {"host0", "host9"}


def test_a_study_without_a_host_ends_with_its_rows_kept(tmp_path: Path) -> None:
    pool = Threads({"host0": Host()})

    def leaves(*_: object) -> None:
        if len(pool.sent) == 3:
            pool.hosts["host0"].alive = False

    pool.before = leaves
    study = study_on(pool, tmp_path / "out", patience_s=0.1)
    with pytest.raises(AconError, match="no host is left"):
        study.run()
    assert (study.state.phase, study.state.done) == ("failed", 2)
    assert len(study_on(Threads(counted()), tmp_path / "out").run()) == 13


def test_an_error_of_ours_ends_the_study_and_names_the_worker(tmp_path: Path) -> None:
    def broken(ticket: Ticket, _: str) -> None:
        if ticket.planned.block == 2:
            raise AconError("the guest cannot be")

    study = study_on(Threads({"host0": Host()}, broken), tmp_path / "out")
    with pytest.raises(AconError, match="the guest cannot be") as caught:
        study.run()
    assert "worker: host0 on host0" in str(caught.value)
    assert len(study.rows()) >= 6
    assert not any(cell.running for cell in study.state.cells)


def test_a_run_whose_result_is_gone_with_its_worker_is_done_again(tmp_path: Path) -> None:
    def gone(ticket: Ticket, _: str) -> None:
        if len(pool.sent) == 4:
            raise Lost("the worker of a run is gone")

    pool = Threads({"host0": Host()}, gone)
    rows = study_on(pool, tmp_path / "out").run()
    assert len(usable(rows)[0]) == 12
    assert (rows["host_fault"] != "").sum() == 1


def test_files_go_to_each_place_once_and_again_when_its_cache_has_lost_them(tmp_path: Path) -> None:
    pool = Threads({"host0": Host()})
    place = tmp_path / "cache/acon_nb/cluster"

    def corrupts(*_: object) -> None:
        if len(pool.sent) == 5:
            (file,) = place.iterdir()
            file.chmod(0o600)
            file.write_text("another kernel")

    pool.before = corrupts
    rows = study_on(pool, tmp_path / "out").run()
    assert (len(rows), set(rows["attempt"]), set(rows["host_fault"])) == (12, {1}, {""})
    assert len(pool.sent) == 13  # one was refused before it began
    (file,) = place.iterdir()
    assert file.read_bytes() == Path(__file__).read_bytes()


def test_what_a_host_would_boot_must_be_what_the_driver_means(tmp_path: Path) -> None:
    class Other(Machine):
        def identity(self, cell: PlanCell) -> str:
            return f"{cell.label} {self.file.parent.name == 'cluster'}"

    study = ClusterStudy(plan=PLAN, experiment=Other(PLAN), store=Store(tmp_path / "out"), pool=Threads(counted()))
    study.patience_s = 0.1
    with pytest.raises(AconError, match="no host is left"):
        study.run()
    assert set(study.rows()["host_fault"]) == {"files_differ"}
    assert set(study.rows()["error"]) == {"the files that the worker has are not those of the driver"}


def test_a_plan_of_one_cell_has_its_label_and_its_levels() -> None:
    plan = Plan(name="p", study="boot", factors={"a": [1, 2], "b": ["x"]}, cells=[{"c": True}], fixed={"d": 0.5})
    for number, cell in enumerate(plan.all_cells):
        assert plan_of(plan, number).all_cells == (cell,)
    whole = Plan(name="p", study="boot", fixed={"d": 1})
    assert plan_of(whole, 0).all_cells == whole.all_cells


def test_an_experiment_that_cannot_travel_is_refused(tmp_path: Path) -> None:
    class Rooted:
        kind = "boot"

        def clock(self, cell: PlanCell) -> Clock:
            return Clock.WALL

    with pytest.raises(InvalidInput, match="cannot be measured on other hosts"):
        ClusterStudy(plan=PLAN, experiment=Rooted(), store=Store(tmp_path), pool=Threads({}))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="patience_s=-1"):
        study_on(Threads({}), tmp_path, patience_s=-1)


def test_many_rows_are_gathered_in_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_module, "_TOGETHER", 1)
    monkeypatch.setattr(dispatch_module, "_GATHERED", 4)
    assert len(study_on(Threads(counted()), tmp_path / "out").run()) == 12
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == 3


def test_a_row_is_not_held_back_while_others_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_module, "_TOGETHER_S", 0)
    written: list[int] = []

    def look(*_: object) -> None:
        written.append(len(list((tmp_path / "out").rglob("*.parquet"))))

    study_on(Threads({"host0": Host()}, look), tmp_path / "out").run()
    assert all(files >= number - 1 for number, files in enumerate(written))  # all but the one that just came


def test_rows_that_come_together_are_written_together_whatever_their_types(tmp_path: Path) -> None:
    plan = Plan(name="mixed", study="boot", factors={"level": [1, "two", 0.5]}, fixed={"clock": "instructions"}, runs=4)
    together = threading.Barrier(12, timeout=300)
    pool = Threads({f"host{number}": Host() for number in range(12)}, lambda *_: together.wait() and None)
    rows = study_on(pool, tmp_path / "out", plan).run()
    assert list(rows["factor_level"]) == [1] * 4 + ["two"] * 4 + [0.5] * 4
    assert len(list((tmp_path / "out").rglob("*.parquet"))) <= 12
