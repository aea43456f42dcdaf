"""The files of a cluster's hosts: hostile caches, pieces out of order, full disks; and what is asked of a scheduler."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acon_nb.cli import main
from acon_nb.errors import AconError, InvalidInput, NoSpace
from acon_nb.study.cluster import artifacts, connect


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return artifacts.folder()


def send(data: bytes, digest: str = "") -> str:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(data)
    source = Path(file.name)
    name, upload = digest or hashlib.sha256(data).hexdigest(), uuid.uuid4().hex
    done = [artifacts.put(name, upload, offset, piece, len(data)) for offset, piece in artifacts.pieces(source)]
    source.unlink()
    assert done == [False] * (len(done) - 1) + [True]
    return name


@given(data=st.binary(max_size=40), piece=st.integers(1, 16))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_file_comes_in_pieces_and_is_what_it_was(place: Path, data: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "PIECE_BYTES", piece)
        name = send(data)
    found = artifacts.find(name)
    assert found is not None
    assert found.read_bytes() == data
    assert artifacts.missing([name]) == []
    assert [path.name for path in place.glob(".*")] == []


def test_a_file_with_another_hash_is_refused_and_not_kept(place: Path) -> None:
    digest = hashlib.sha256(b"a kernel").hexdigest()
    with pytest.raises(AconError, match="has the hash"):
        send(b"another", digest)
    assert list(place.iterdir()) == []


def test_a_piece_out_of_order_is_refused(place: Path) -> None:
    digest, upload = hashlib.sha256(b"abcd").hexdigest(), uuid.uuid4().hex
    with pytest.raises(FileNotFoundError):
        artifacts.put(digest, upload, 2, b"cd", 4)
    artifacts.put(digest, upload, 0, b"a", 4)
    with pytest.raises(AconError, match="out of order"):
        artifacts.put(digest, upload, 2, b"cd", 4)
    with pytest.raises(FileExistsError):
        artifacts.put(digest, upload, 0, b"a", 4)


@pytest.mark.parametrize("name", ["../" + "a" * 61, "/etc/passwd", "A" * 64, "", "a" * 64 + "\n"])
def test_a_name_that_is_no_hash_is_refused(place: Path, name: str) -> None:
    with pytest.raises(AconError, match="is not the name of a file"):
        artifacts.find(name)
    with pytest.raises(AconError, match="is not the name of a file"):
        artifacts.put(name, uuid.uuid4().hex, 0, b"", 0)
    with pytest.raises(AconError, match="is not the name of a file"):
        artifacts.put("a" * 64, name, 0, b"", 0)


def test_a_cache_that_was_meddled_with_is_thrown_away_and_harms_nothing_else(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"a kernel")
    digest = hashlib.sha256(b"a kernel").hexdigest()
    file = place / digest
    file.symlink_to(other)  # the right bytes, but not ours to keep
    assert artifacts.find(digest) is None
    os.mkfifo(file)
    assert artifacts.find(digest) is None
    file.mkdir()
    (file / "x").write_text("x")
    assert artifacts.missing([digest]) == [digest]
    file.write_bytes(b"a kernel")
    file.chmod(0o666)
    assert artifacts.find(digest) is None
    file.write_bytes(b"a kernel, changed")
    file.chmod(0o600)
    assert artifacts.find(digest) is None
    assert list(place.iterdir()) == []
    assert other.read_bytes() == b"a kernel"


def test_a_folder_that_others_can_write_to_is_refused(place: Path) -> None:
    place.chmod(0o777)
    with pytest.raises(AconError, match="only its user can write to"):
        artifacts.find("a" * 64)


def test_pieces_of_a_sender_that_died_go_after_a_day(place: Path) -> None:
    artifacts.put("a" * 64, "b" * 32, 0, b"x", 2)
    (part,) = place.iterdir()
    artifacts.missing([])
    assert part.exists()
    os.utime(part, (0, 0))
    artifacts.missing([])
    assert not part.exists()


def test_a_host_without_room_says_so_before_anything_is_sent(place: Path) -> None:
    with pytest.raises(NoSpace, match="the files of a study needs"):
        artifacts.missing(["a" * 64], 1 << 60)


def test_a_full_disk_is_named(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    with pytest.raises(NoSpace):
        send(b"x" * (1 << 20))


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("localhost:8786", "scheduler='localhost:8786': is not a valid address"),
        ("http://x", "is not a valid address"),
        ("/no/such.json", "is not a file"),
    ],
)
def test_a_scheduler_that_is_none_is_refused(scheduler: str, words: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InvalidInput, match=words):
        connect(scheduler)


def test_tls_needs_all_its_files(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InvalidInput, match="tls_cert=None: is missing"):
        connect("tls://127.0.0.1:1", tls={"ca": Path(__file__)})
    with pytest.raises(InvalidInput, match=r"tls_ca=.*is not a file"):
        connect("tls://127.0.0.1:1", tls={"ca": tmp_path / "no", "cert": Path(__file__), "key": Path(__file__)})


def test_without_distributed_the_error_names_the_extra(tmp_path: Path) -> None:
    argv = ["bench", "cluster", "quick", "--scheduler", "tcp://127.0.0.1:1", "--out", str(tmp_path)]
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        f"from acon_nb.cli import main\nmain({argv!r}, prog_name='acon-nb')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "distributed is missing; measuring on many hosts needs it" in done.stderr
    assert "pip install 'acon-nb[cluster]'" in done.stderr


def test_a_scheduler_that_does_not_answer_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("acon_nb.study.cluster.pool._CONNECT_S", 0.5)
    argv = ["bench", "cluster", "quick", "--scheduler", "tcp://127.0.0.1:1", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, argv)
    assert result.exit_code == 1
    assert result.stderr.startswith("acon-nb: no scheduler answers at tcp://127.0.0.1:1\n")
