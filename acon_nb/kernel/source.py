"""Where a kernel's source comes from, and what identifies it.

A source is `debian:6.12` (a package, verified by apt), a folder, a tarball (`linux-6.12.tar.xz`, checked when written
as `FILE#sha256=HEX`), or a git repository and ref (`URL#REF`, fetched without its history). Patches come on top.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb import debian, process
from acon_nb.cache import Cache, key_of, require_space, sha256_file
from acon_nb.errors import AconError, CommandFailed, InvalidInput, MissingRequirement
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_DEBIAN = re.compile(r"debian:(\d+\.\d+)")
_TARBALL = re.compile(r"(?P<path>[^#]+\.(?:tar|tar\.\w+|tgz|txz))(?:#sha256=(?P<sha256>[0-9a-f]{64}))?")
_GIT = re.compile(r"(?P<url>(?:https?|ssh|git|file)://[^\s#]+|/[^\s#]+|\.{1,2}/[^\s#]+)#(?P<ref>[\w./][\w./-]*)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TREE_BYTES = 2 << 30
# What GNU tar starts for a compressed tarball
_UNPACKERS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".txz": "xz", ".zst": "zstd"}
_KINDS = "debian:VERSION, a folder, FILE.tar.xz[#sha256=HEX], or URL#REF (git)"


@dataclass(frozen=True, kw_only=True)
class SourceTree:
    """An unpacked kernel tree: its folder, what identifies its content, and its version as (major, minor)."""

    path: Path
    identity: str
    version: tuple[int, int]
    release: str


@dataclass(frozen=True, kw_only=True)
class _Fetcher:
    cache: Cache
    on_progress: OnProgress
    cancel: CancelToken | None


def fetch(
    source: str,
    *,
    patches: Sequence[Path] = (),
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> SourceTree:
    """Get the source tree that `source` names, with `patches` (files for `patch -p1`) applied to a copy.

    A folder is identified by its path and its newest change, and never written to; a tarball by its bytes, a git
    source by its commit. Errors: `InvalidInput` (no such source, not a kernel tree, a tarball that is cut short or has
    another hash, a patch that does not apply), `NoSpace`, `Cancelled`, `MissingRequirement` (git, patch).
    """
    for patch in patches:
        if not patch.is_file():
            raise InvalidInput("patches", patch, "is no file", hint="give files as git format-patch writes them")
    fetcher = _Fetcher(cache=cache or Cache(), on_progress=on_progress, cancel=cancel)
    tree = _fetch(source, fetcher)
    return _patched(tree, patches, fetcher) if patches else tree


def _fetch(source: str, fetcher: _Fetcher) -> SourceTree:
    if match := _DEBIAN.fullmatch(source):
        return _debian(match.group(1), fetcher)
    path = Path(source).expanduser()
    if path.is_dir():
        tree = path.absolute()
        release = _release(tree, source)
        return _tree(tree, f"dir:{tree}:{_newest_ns(tree)}", release)
    if match := _TARBALL.fullmatch(source):
        return _tarball(Path(match["path"]).expanduser(), match["sha256"], fetcher)
    if match := _GIT.fullmatch(source):
        return _git(match["url"], match["ref"], fetcher)
    raise InvalidInput("source", source, "is no source of a kernel", hint=f"one of {_KINDS}")


def _debian(series: str, fetcher: _Fetcher) -> SourceTree:
    name = f"linux-source-{series}"
    package = debian.find(name)

    def make(folder: Path) -> None:
        require_space(folder, _TREE_BYTES, "unpacking a kernel's source")
        _, unpacked = debian.unpack(name, cache=fetcher.cache, on_progress=fetcher.on_progress)
        _untar(next((unpacked.path / "root/usr/src").glob("*.tar.*")), folder, fetcher)

    inputs = {"source": name, "version": package.version, "sha256": package.sha256}
    place = fetcher.cache.get("source", inputs, make, hashed=False).path
    return _tree(place, f"{name}={package.version}:{package.sha256}", _release(place, name))


def _tarball(path: Path, sha256: str | None, fetcher: _Fetcher) -> SourceTree:
    if not path.is_file():
        raise InvalidInput("source", path, "is no file", hint=f"one of {_KINDS}")
    digest = sha256_file(path)
    if sha256 is not None and digest != sha256:
        raise InvalidInput("source", path, f"has the SHA-256 {digest}", hint="fetch it again, or mend the hash")

    def make(folder: Path) -> None:
        require_space(folder, _TREE_BYTES, "unpacking a kernel's source")
        try:
            _untar(path, folder, fetcher)
        except CommandFailed as error:
            why = f"does not unpack: {error.details[0] if error.details else error.what}"
            raise InvalidInput("source", path, why, hint="it is damaged or cut short: fetch it again") from error
        _release(folder, str(path))

    place = fetcher.cache.get("source", {"tarball": digest}, make, hashed=False).path
    return _tree(place, f"tarball:{digest}", _release(place, str(path)))


def _git(url: str, ref: str, fetcher: _Fetcher) -> SourceTree:
    if shutil.which("git") is None:
        raise MissingRequirement("git", "a kernel from a git repository", hint="apt-get install git")
    commit = ref if _COMMIT.fullmatch(ref) else _resolve(url, ref)

    def make(folder: Path) -> None:
        require_space(folder, _TREE_BYTES, "a kernel's git tree")
        task = f"fetch {url} at {commit[:12]}"
        fetcher.on_progress(Progress(task, 0.0))
        for argv in (
            ["init", "--quiet"],
            ["fetch", "--quiet", "--depth=1", "--no-tags", "--", url, commit],
            ["checkout", "--quiet", "--detach", "FETCH_HEAD"],
        ):
            _run_git(argv, folder, url, ref, fetcher.cancel)
        _release(folder, f"{url}#{ref}")
        fetcher.on_progress(Progress(task, 1.0))

    place = fetcher.cache.get("source", {"git": url, "commit": commit}, make, hashed=False).path
    return _tree(place, f"git:{commit}", _release(place, f"{url}#{ref}"))


def _resolve(url: str, ref: str) -> str:
    """The commit that a branch or tag of a repository names now."""
    try:
        text = process.output(
            ["git", "ls-remote", "--", url, ref, f"{ref}^{{}}"], env=_git_environment(), timeout_s=120
        )
    except CommandFailed as error:
        raise InvalidInput("source", url, "is no git repository that answers", hint=error.details[0]) from error
    commits = {name: commit for commit, name in (line.split("\t") for line in text.splitlines())}
    wanted = [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref]
    found = next((commits[name] for name in wanted if name in commits), None)
    if found is None:
        raise InvalidInput("source", f"{url}#{ref}", "has no such branch or tag", hint="a commit needs all 40 digits")
    return found


def _run_git(argv: list[str], folder: Path, url: str, ref: str, cancel: CancelToken | None) -> None:
    try:
        process.run(["git", *argv], cwd=folder, env=_git_environment(), cancel=cancel)
    except CommandFailed as error:
        said = error.details[0] if error.details else error.what
        raise InvalidInput("source", f"{url}#{ref}", f"cannot be fetched: {said}", hint="check URL and ref") from error


def _git_environment() -> dict[str, str]:
    """No prompts, and no transport that runs a command named in a URL (git-remote-ext(1))."""
    return {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}


def _patched(tree: SourceTree, patches: Sequence[Path], fetcher: _Fetcher) -> SourceTree:
    if shutil.which("patch") is None:
        raise MissingRequirement("patch", "patches on a kernel", hint="apt-get install patch")
    digests = [sha256_file(patch) for patch in patches]

    def make(folder: Path) -> None:
        require_space(folder, _TREE_BYTES, "a patched copy of a kernel's source")
        fetcher.on_progress(Progress("patch kernel", 0.0))
        process.run(["cp", "-a", "--reflink=auto", f"{tree.path}/.", folder], cancel=fetcher.cancel)
        for patch in patches:
            try:
                argv: list[str | Path] = [
                    "patch",
                    "--batch",
                    "--forward",
                    "-p1",
                    "--no-backup-if-mismatch",
                    "-i",
                    patch.absolute(),
                ]
                process.run(argv, cwd=folder)
            except CommandFailed as error:
                known = [line for line in error.details if re.search(r"FAILED|can't find|garbage", line)]
                said = "; ".join(known) or error.what
                reason = f"does not apply to {tree.release}: {said}"
                raise InvalidInput("patches", patch, reason, hint="rebase it on this source") from error
        fetcher.on_progress(Progress("patch kernel", 1.0))

    inputs = {"source": tree.identity, "patches": digests}
    place = fetcher.cache.get("source", inputs, make, hashed=False).path
    return _tree(place, f"{tree.identity}+patches:{key_of(inputs)}", _release(place, "the patched tree"))


def _untar(tarball: Path, folder: Path, fetcher: _Fetcher) -> None:
    """GNU tar takes no member out of the folder: it strips leading slashes and refuses `..`."""
    unpacker = _UNPACKERS.get(tarball.suffix)
    if unpacker and shutil.which(unpacker) is None:
        raise MissingRequirement(unpacker, f"unpacking {tarball.name}", hint="apt-get install xz-utils bzip2 zstd")
    task = f"unpack {tarball.name.split('.tar')[0]}"
    fetcher.on_progress(Progress(task, 0.0))
    argv = ["tar", "--extract", "--no-same-owner", f"--file={tarball.absolute()}", "--strip-components=1"]
    process.run(argv, cwd=folder, cancel=fetcher.cancel)
    fetcher.on_progress(Progress(task, 1.0))


def _tree(path: Path, identity: str, release: str) -> SourceTree:
    major, minor = release.split(".")[:2]
    return SourceTree(path=path, identity=identity, version=(int(major), int(minor)), release=release)


def _release(path: Path, named: str) -> str:
    """VERSION.PATCHLEVEL.SUBLEVEL of the tree's Makefile."""
    try:
        head = (path / "Makefile").read_text(errors="replace")[:4000]
    except OSError:
        head = ""
    numbers = [re.search(rf"^{word} = (\d+)$", head, re.MULTILINE) for word in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    if not all(numbers) or not (path / "Kconfig").is_file():
        raise InvalidInput("source", named, "is not a kernel tree", hint="its Makefile names no kernel version")
    return ".".join(number.group(1) for number in numbers if number)


def _newest_ns(path: Path) -> int:
    """The time of the newest change in a folder, its git database aside."""
    newest = 0
    folders = [str(path)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name == ".git" or entry.is_symlink():
                    continue
                newest = max(newest, entry.stat().st_mtime_ns)
                if entry.is_dir():
                    folders.append(entry.path)
    if not newest:
        raise AconError(f"{path} is empty")
    return newest
