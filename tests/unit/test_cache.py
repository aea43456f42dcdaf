from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from acon_nb import cache
from acon_nb.cache import Cache, atomic_file, default_root, key_of, require_space
from acon_nb.errors import Cancelled, NoSpace
from acon_nb.progress import CancelToken, Progress

MAKER = """
import sys, time
from pathlib import Path
from acon_nb.cache import Cache
root, made = sys.argv[1:3]
def make(folder):
    with open(made, "a") as file:
        file.write("made\\n")
    (folder / "half").write_text("half")
    time.sleep(float(sys.argv[3]))
Cache(Path(root)).get("thing", {"a": 1}, make)
"""


class Maker:
    def __init__(self, text: str = "hello") -> None:
        self.calls = 0
        self.text = text

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub/file").write_text(self.text)


def leftovers(cache: Cache) -> list[Path]:
    return list((cache.root / "thing").glob("*"))


def test_an_artifact_is_built_once_and_then_cached(cache: Cache) -> None:
    make = Maker()
    first = cache.get("thing", {"a": 1}, make)
    second = cache.get("thing", {"a": 1}, make)
    assert (first.cached, second.cached, make.calls) == (False, True, 1)
    assert first.path == second.path
    assert (second.path / "sub/file").read_text() == "hello"


def test_other_inputs_give_another_artifact(cache: Cache) -> None:
    make = Maker()
    paths = {cache.get("thing", inputs, make).path for inputs in ({"a": 1}, {"a": 2}, {"b": 1})}
    assert len(paths) == make.calls == 3
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


@pytest.mark.parametrize("damage", ["changed", "removed", "emptied"])
def test_a_damaged_file_is_logged_and_rebuilt(cache: Cache, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    make = Maker()
    file = cache.get("thing", {"a": 1}, make).path / "sub/file"
    if damage == "removed":
        file.unlink()
    else:
        file.write_text("jello" if damage == "changed" else "")
    with caplog.at_level(logging.WARNING):
        again = cache.get("thing", {"a": 1}, make)
    assert not again.cached
    assert file.read_text() == "hello"
    assert "sub/file" in caplog.text
    assert "corrupt" in caplog.text


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", "null", '{"files": null}', '{"files": []}', '{"files": 3}']
)
def test_a_damaged_manifest_is_logged_and_the_artifact_rebuilt(
    cache: Cache, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    make = Maker()
    manifest = cache.get("thing", {"a": 1}, make).path / "manifest.json"
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert not cache.get("thing", {"a": 1}, make).cached
    assert "corrupt" in caplog.text
    assert json.loads(manifest.read_text())["inputs"] == {"a": 1}
    assert cache.get("thing", {"a": 1}, make).cached


def test_a_large_tree_is_trusted_without_hashes(cache: Cache) -> None:
    make = Maker()
    path = cache.get("thing", {"a": 1}, make, hashed=False).path
    (path / "sub/file").write_text("changed")
    assert cache.get("thing", {"a": 1}, make, hashed=False).cached


def test_a_link_is_kept_as_a_link_whatever_the_host_does_to_its_target(cache: Cache, tmp_path: Path) -> None:
    target = tmp_path / "of-the-host"
    target.write_text("before")
    cache.get("thing", {"a": 1}, lambda folder: (folder / "link").symlink_to(target))
    target.write_text("after an update of the host")
    assert cache.get("thing", {"a": 1}, lambda _: pytest.fail("made again")).cached


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing(cache: Cache, error: BaseException) -> None:
    def fail(folder: Path) -> None:
        Maker()(folder)
        raise error

    with pytest.raises(type(error)):
        cache.get("thing", {"a": 1}, fail)
    assert leftovers(cache) == []
    assert not cache.get("thing", {"a": 1}, Maker()).cached


def test_threads_wait_for_each_other(cache: Cache) -> None:
    make, found = Maker(), []

    def slow(folder: Path) -> None:
        time.sleep(0.2)
        make(folder)

    threads = [threading.Thread(target=lambda: found.append(cache.get("thing", {}, slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make.calls == 1
    assert sorted(artifact.cached for artifact in found) == [False, True, True, True]


def test_processes_wait_for_each_other(cache: Cache, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", MAKER, str(cache.root), str(tmp_path / "made"), "0.3"]
    running = [subprocess.Popen(argv) for _ in range(3)]
    assert [program.wait() for program in running] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "made\n"


def test_what_a_killed_process_left_is_removed_and_its_lock_is_free(cache: Cache, tmp_path: Path) -> None:
    program = subprocess.Popen([sys.executable, "-c", MAKER, str(cache.root), str(tmp_path / "made"), "1000"])
    while not list(cache.root.glob("thing/.*/half")):
        time.sleep(0.02)
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert len(leftovers(cache)) == 1
    made = cache.get("thing", {"a": 1}, Maker())
    assert leftovers(cache) == [made.path]


def test_a_full_disk_is_reported_with_its_path(cache: Cache) -> None:
    def fill(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(NoSpace, match=str(cache.root)):
        cache.get("thing", {"a": 1}, fill)
    assert leftovers(cache) == []


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    small = Cache(small_disk / "cache")
    with pytest.raises(NoSpace, match="small-disk"):
        small.get("thing", {"a": 1}, Maker("x" * (1 << 20)))
    assert leftovers(small) == []
    assert not small.get("thing", {"a": 1}, Maker()).cached


def test_too_little_space_is_reported_before_the_work(tmp_path: Path) -> None:
    require_space(tmp_path / "not/there/yet", 1, "nothing much")
    with pytest.raises(NoSpace, match="a kernel needs"):
        require_space(tmp_path / "not/there/yet", 1 << 60, "a kernel")


def test_a_file_appears_complete_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new folder/file"
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_nothing_and_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError, match="no"), atomic_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ValueError("no")
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_a_file_on_a_full_disk_is_reported(small_disk: Path) -> None:
    with pytest.raises(NoSpace, match="small-disk/file"), atomic_file(small_disk / "file") as temporary:
        temporary.write_bytes(bytes(1 << 20))
    assert os.listdir(small_disk) == []


def test_the_user_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "acon_nb"
    assert Cache().root == tmp_path / "acon_nb"


def test_a_hash_is_reused_but_never_that_of_older_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"one")
    first = cache.sha256_file(path)
    path.write_bytes(b"two")  # at once, as long as before: the times may be the same
    assert cache.sha256_file(path) != first
    monkeypatch.setattr(cache, "_SETTLED_NS", -1)
    assert cache.sha256_file(path) == hashlib.sha256(b"two").hexdigest()
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was hashed before"))
    assert cache.sha256_file(path) == hashlib.sha256(b"two").hexdigest()
    monkeypatch.undo()
    (tmp_path / "new").write_bytes(b"three")
    (tmp_path / "new").replace(path)
    assert cache.sha256_file(path) == hashlib.sha256(b"three").hexdigest()


def test_old_working_folders_are_removed_except_those_in_use(cache: Cache) -> None:
    folders = [cache.workdir("work", {"number": number}) for number in range(4)]
    for number, folder in enumerate(folders):
        (folder / "file").write_text("x")
        os.utime(folder, ns=(number, number))
    with cache.lock(f"work-{folders[0].name}"):
        cache.keep_recent("work", 2)
        assert [folder.exists() for folder in folders] == [True, False, True, True]
    cache.keep_recent("work", 2)
    assert [folder.exists() for folder in folders] == [False, False, True, True]


def test_waiting_for_another_build_is_told_and_can_be_cancelled(cache: Cache) -> None:
    cancel = CancelToken()
    lines: list[str] = []

    def on_progress(event: Progress) -> None:
        lines.append(event.line)
        cancel.cancel()

    with cache.lock("thing-" + key_of({"a": 1})), pytest.raises(Cancelled):
        cache.get("thing", {"a": 1}, lambda _: None, on_progress=on_progress, cancel=cancel)
    assert re.fullmatch(rf"wait for another process  \d+ s: process {os.getpid()} \(.+\) works on the same", lines[0])
    assert cache.get("thing", {"a": 1}, lambda _: None, on_progress=on_progress).cached is False
    assert len(lines) == 1


def test_a_lock_that_is_held_is_not_acquired_without_waiting(cache: Cache) -> None:
    with cache.lock("a"), cache.lock("a", wait=False) as held, cache.lock("b", wait=False) as other:
        assert (held, other) == (False, True)
    with cache.lock("a", wait=False) as held:
        assert held
