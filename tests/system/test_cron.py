"""Launches where nothing is as at a desk: no HOME, C locale, closed descriptors, full /tmp, a user without rights.

Each ends as named: by the guest's own end, or by a sentence that says what to do; never by a traceback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
NOBODY = 65534
ROOT = Path(__file__).parents[2]
NOTHING = {"PATH": "/usr/bin:/bin"}  # what cron gives, but for HOME, LOGNAME and SHELL
BOOT = ("vmlinuz", "-append", "p")  # a guest that powers off
GUEST = {"BIOS": "-", "RD": "-", "M": "32m"}


@pytest.fixture
def place(tiny_kernel: Path) -> Iterator[Path]:
    """A folder that every user may enter, with a kernel; not below pytest's, which is closed to others."""
    with tempfile.TemporaryDirectory(prefix="cron-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(tiny_kernel, folder / "vmlinuz")
        (folder / "vmlinuz").chmod(0o644)
        yield folder


def python_of_all() -> str:
    """A Python that any user may start: that of the system, if ours lies in a home folder."""
    reachable = all(one.stat().st_mode & 0o001 for one in (Path(sys.executable).resolve(), *parents(sys.executable)))
    python = sys.executable if reachable else f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    if not os.access(python, os.X_OK):
        pytest.skip("Python lies in a home folder, and the system has none of this version")
    return python


def parents(path: str) -> list[Path]:
    return list(Path(path).resolve().parents)


def launch(
    place: Path, variables: Mapping[str, str], *words: str, shell: str = '"$@"', user: int | None = None
) -> subprocess.CompletedProcess[str]:
    """`acon-nb run` in a shell's surroundings, with nothing in the environment but `variables`."""
    paths = os.pathsep.join([str(ROOT), *site.getsitepackages()])
    env = {**variables, **GUEST, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    python = sys.executable if user is None else python_of_all()
    argv = [python, "-m", "acon_nb.cli", "run", "--timeout", "60", *(words or BOOT)]
    ids = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    return subprocess.run(
        ["sh", "-c", shell, "sh", *argv], cwd=place, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", check=False, timeout=120, **ids,  # type: ignore[call-overload]
    )  # fmt: skip


def ends_as_named(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done.stderr
    for word in words:
        assert word in done.stderr


def test_with_nothing_in_the_environment_a_guest_boots(place: Path) -> None:
    ends_as_named(launch(place, {**NOTHING, "XDG_CACHE_HOME": str(place / "cache")}), 0)


@pytest.mark.parametrize("locale", ["C", "POSIX", "no_SUCH.locale"])
def test_names_that_are_not_ascii_in_any_locale(place: Path, locale: str) -> None:
    odd = place / "kernel-ä-\udcff 🥨"
    (place / "vmlinuz").rename(odd)
    variables = {**NOTHING, "LC_ALL": locale, "XDG_CACHE_HOME": str(place / "cäche")}
    for settings in ({}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        done = launch(place, variables | settings, odd.name, "-append", "p")
        ends_as_named(done, 0)
    done = launch(place, variables, "no-such-kernel-ä-🥨", "-append", "p")
    ends_as_named(done, 2, "no-such-kernel-")


def test_all_descriptors_closed_and_nothing_set(place: Path) -> None:
    done = launch(place, {**NOTHING, "XDG_CACHE_HOME": str(place / "cache")}, shell='"$@" <&- >&- 2>&-')
    assert done.returncode == 0
    done = launch(place, {**NOTHING, "XDG_CACHE_HOME": str(place / "cache")}, "missing", shell='"$@" <&- >&- 2>&-')
    assert done.returncode == 2
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
class TestAnotherUser:
    def test_without_rights_groups_or_a_home_it_says_what_to_set(self, place: Path) -> None:
        done = launch(place, NOTHING, user=NOBODY)
        ends_as_named(done, 1, "cannot write", "XDG_CACHE_HOME")
        assert "/nonexistent" in done.stderr

    def test_with_a_cache_the_guest_boots_on_what_may_be_opened(self, place: Path) -> None:
        cache = place / "cache"
        cache.mkdir()
        os.chown(cache, NOBODY, NOBODY)
        ends_as_named(launch(place, {**NOTHING, "XDG_CACHE_HOME": str(cache)}, user=NOBODY), 0)

    def test_of_whom_nobody_knows_the_name(self, place: Path) -> None:
        done = launch(place, NOTHING, user=54321)
        ends_as_named(done, 2, "no home folder", "XDG_CACHE_HOME")

    def test_kvm_that_may_not_be_opened_is_named_with_its_remedy(self, place: Path) -> None:
        cache = place / "cache"
        cache.mkdir()
        os.chown(cache, NOBODY, NOBODY)
        variables = {**NOTHING, "XDG_CACHE_HOME": str(cache)}
        done = launch(place, variables, "--accelerator", "kvm", *BOOT, user=NOBODY)
        ends_as_named(done, 2, "accelerator", "/dev/kvm")

    def test_what_may_not_be_read_is_named(self, place: Path) -> None:
        (place / "vmlinuz").chmod(0o600)
        done = launch(place, {**NOTHING, "XDG_CACHE_HOME": str(place)}, user=NOBODY)
        assert "Traceback" not in done.stderr
        assert done.returncode in (1, 2)
        assert "vmlinuz" in done.stderr
        assert "ermission denied" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("options", ["size=4k", "size=4k,nr_inodes=1", "ro"])
def test_a_full_tmp_disturbs_nothing(place: Path, options: str) -> None:
    """In a mount namespace of its own, with the kernel and the cache elsewhere."""
    with contextlib.ExitStack() as stack:
        elsewhere = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp", prefix="cron-")))
        shutil.copy(place / "vmlinuz", elsewhere / "vmlinuz")
        fill = "head -c 8192 /dev/zero >/tmp/fill 2>/dev/null; "
        mount = f'mount --make-rprivate / && mount -t tmpfs -o {options} none /tmp && {{ {fill} "$@"; }}'
        wrapped = f"exec unshare --mount sh -c '{mount}' sh \"$@\""
        done = launch(elsewhere, {**NOTHING, "XDG_CACHE_HOME": str(elsewhere / "cache")}, shell=wrapped)
        if "unshare" in done.stderr:
            pytest.skip(done.stderr)
        ends_as_named(done, 0)
        full = launch(elsewhere, {**NOTHING, "XDG_CACHE_HOME": "/tmp/cache"}, shell=wrapped)
        ends_as_named(full, 1, "/tmp/cache")


def test_in_a_folder_that_is_gone(place: Path) -> None:
    shell = 'mkdir gone && cd gone && rmdir ../gone && "$@"'
    variables = {**NOTHING, "XDG_CACHE_HOME": str(place / "cache")}
    ends_as_named(launch(place, variables, f"{place}/vmlinuz", "-append", "p", shell=shell), 0)
    ends_as_named(launch(place, variables, shell=shell), 2, "vmlinuz")
