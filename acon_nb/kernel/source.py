"""Fetches and identifies kernel sources.

A source is `debian:6.12` (a package, verified by apt; `debian:7.3@sid` from a suite that the host does not use), a
package's file (`deb:FILE`), a folder, a tarball (`linux-6.12.tar.xz`, verified if given as
`FILE#sha256=HEX`), or a git repository and ref (`URL#REF`, fetched without history). Patches are applied on top.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acon_nb import process
from acon_nb.cache import Cache, key_of, require_space, sha256_file
from acon_nb.errors import AconError, CommandFailed, InvalidInput, MissingRequirement
from acon_nb.host import apt, apt_suites
from acon_nb.kernel import contents
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

DEBIAN = re.compile(r"debian:(?P<series>\d+\.\d+)(?:=(?P<version>[^@\s]+))?(?:@(?P<suite>[a-z][a-z0-9-]*))?")
PACKAGE = "linux-source-"
_DEB = re.compile(r"deb:(?P<path>[^#]+\.deb)(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?")
_TARBALL = re.compile(r"(?P<path>[^#]+\.(?:tar|tar\.\w+|tgz|txz))(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?")
_GIT = re.compile(
    r"(?P<url>(?:https?|ssh|git|file)://[^\s#]+|/[^\s#]+|\.{1,2}/[^\s#]+|\w[\w.-]*@\w[\w.-]*:[^\s#]+)"
    r"#(?P<ref>[\w./][\w./-]*)"
)
_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
TREE_BYTES = 2 << 30
# The programs that GNU tar starts for compressed tarballs
_UNPACKERS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".txz": "xz", ".zst": "zstd"}
_KINDS = "debian:SERIES[=VERSION][@SUITE], deb:FILE, a folder, FILE.tar.xz[#sha256=HEX], or URL#REF (git)"


@dataclass(frozen=True, kw_only=True)
class SourceTree:
    """An unpacked kernel tree: its folder, the identity of its content, its version (major, minor), its release.

    `base` is the tree that it was patched from, if any. `place` ("": none) names the build folder of a folder whose
    content changes from one identity to the next, as a checkout does: it is built in again, so that make compiles what
    changed. `files` are the digests of a folder's files by name, `versions` tells whether one was written since (see
    `contents.Contents`), and `configuring` is the hash of those that decide its options (of other trees the identity).
    """

    path: Path
    identity: str
    version: tuple[int, int]
    release: str
    base: SourceTree | None = None
    place: str = ""
    files: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    configuring: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "configuring", self.configuring or self.identity)


@dataclass(frozen=True, kw_only=True)
class _Fetcher:
    cache: Cache
    on_progress: OnProgress
    cancel: CancelToken | None

    def get(self, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of a tree in the cache; it is made if the cache does not hold it."""
        made = self.cache.get("source", inputs, make, hashed=False, on_progress=self.on_progress, cancel=self.cancel)
        return made.path


def fetch(
    source: str,
    *,
    patches: Sequence[Path] = (),
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> SourceTree:
    """Fetch the source tree that `source` names, with `patches` (files for `patch -p1`) applied to a copy.

    A folder is identified by its content and, if it is a checkout, its commit (`contents`), and is never modified; a
    tarball is identified by its bytes, a git source by its commit. Errors: `InvalidInput` (no such source, not a kernel
    tree, a tarball that is truncated or has the wrong hash, a patch that does not apply), `NoSpace`, `Cancelled`,
    `MissingRequirement` (git, patch).
    """
    for patch in patches:
        if not patch.is_file():
            raise InvalidInput("patches", patch, "is not a file", hint="give files as git format-patch writes them")
    fetcher = _Fetcher(cache=cache or Cache(), on_progress=on_progress, cancel=cancel)
    tree = _fetch(source, fetcher)
    return _patched(tree, patches, fetcher) if patches else tree


def tree_in(folder: Path, *, identity: str, place: str = "") -> SourceTree:
    """The kernel tree in a folder whose content the caller identifies. Errors: `InvalidInput` (not a kernel tree)."""
    return replace(_tree(folder, identity, _release(folder, str(folder))), place=place)


def _fetch(source: str, fetcher: _Fetcher) -> SourceTree:
    if match := DEBIAN.fullmatch(source):
        return _debian(source, match["series"], match["version"] or "", match["suite"] or "", fetcher)
    if match := _DEB.fullmatch(source):
        return _deb(Path(match["path"]).expanduser(), match["sha256"], fetcher)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path.resolve(), source, fetcher)  # as kbuild names it
    if match := _TARBALL.fullmatch(source):
        return _tarball(Path(match["path"]).expanduser(), match["sha256"], fetcher)
    if match := _GIT.fullmatch(source):
        return _git(match["url"], match["ref"], fetcher)
    raise InvalidInput("source", source, "is not a valid kernel source", hint=f"one of {_KINDS}")


def _folder(path: Path, named: str, fetcher: _Fetcher) -> SourceTree:
    release = _release(path, named)
    _refuse_what_kbuild_refuses(path)
    held = contents.read(path, fetcher.cache, on_progress=fetcher.on_progress, cancel=fetcher.cancel)
    tree = _tree(path, f"content:{held.identity}", release)
    return replace(tree, place=f"dir:{path}", files=held.files, versions=held.versions, configuring=held.configuring)


def _refuse_what_kbuild_refuses(path: Path) -> None:
    if re.search(r"[\s:]", str(path)):
        raise InvalidInput("source", path, "has a blank or a colon in its path, which kbuild refuses", hint="rename it")
    used = [name for name in (".config", "include/config", "arch/x86/include/generated") if (path / name).exists()]
    if used:
        reason = (
            f"has been configured or built in (it has {used[0]}), and kbuild builds elsewhere only from clean trees"
        )
        hint = (
            "keep its .config elsewhere, for --config; then: make mrproper. Or make a clean copy: git worktree add DIR"
        )
        raise InvalidInput("source", path, reason, hint=hint)


def require_unchanged(tree: SourceTree, cache: Cache) -> None:
    """Look again at a folder that was built from. Errors: `AconError` if a file was written to since `fetch`.

    That holds for a file with its former content, too: another one may have been compiled in between.
    """
    if not tree.files:
        return
    now = _folder(tree.path, str(tree.path), _Fetcher(cache=cache, on_progress=silent, cancel=None))
    written = sorted(name for name in {*tree.files, *now.files} if now.versions.get(name) != tree.versions.get(name))
    if written or now.identity != tree.identity:
        what = f"{tree.path}: {', '.join(written[:3])}" if written else f"{tree.path} (what git says of it)"
        raise AconError(f"{what} changed while its kernel was built", hint="build again: only what changed is")


def _debian(source: str, series: str, version: str, suite: str, fetcher: _Fetcher) -> SourceTree:
    name = f"{PACKAGE}{series}"
    lists = apt_suites.lists_of(suite, fetcher.cache, fetcher.on_progress) if suite else apt.HOST
    try:
        package = apt.find(name, lists, version=version)
    except InvalidInput as error:
        hint = "acon-nb kernel sources lists what there is, by suite"
        raise InvalidInput("source", source, f"is not there: {error.value} {error.reason}", hint=hint) from error

    def make(folder: Path) -> None:
        require_space(folder, TREE_BYTES, "unpacking a kernel's source")
        unpacked = apt.unpack(name, lists, version=version, cache=fetcher.cache, on_progress=fetcher.on_progress)
        _untar_packaged(unpacked.root, f"{name} {package.version}", folder, fetcher)

    inputs = {"source": name, "version": package.version, "sha256": package.sha256}
    folder = fetcher.get(inputs, make)
    return _tree(folder, f"{name}={package.version}:{package.sha256}", _release(folder, name))


def _deb(path: Path, sha256: str | None, fetcher: _Fetcher) -> SourceTree:
    digest = _checked(path, sha256)

    def make(folder: Path) -> None:
        require_space(folder, TREE_BYTES, "unpacking a kernel's source")
        with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
            try:
                process.run(["dpkg-deb", "-x", path.absolute(), unpacked], timeout_s=300, cancel=fetcher.cancel)
            except CommandFailed as error:
                reason = f"is not a package: {error.details[0] if error.details else error.what}"
                raise InvalidInput("source", path, reason, hint="give a linux-source-*.deb") from error
            _untar_packaged(Path(unpacked), str(path), folder, fetcher)
        _release(folder, str(path))

    folder = fetcher.get({"deb": digest}, make)
    return _tree(folder, f"deb:{digest}", _release(folder, str(path)))


def _untar_packaged(root: Path, named: str, folder: Path, fetcher: _Fetcher) -> None:
    """Unpack the tarball that a package of a kernel's source holds."""
    tarball = next(iter(sorted((root / "usr/src").glob("linux-source-*.tar.*"))), None)
    if tarball is None:
        reason = "has no usr/src/linux-source-*.tar.*"
        raise InvalidInput("source", named, reason, hint=f"a linux-source package, or one of {_KINDS}")
    _untar(tarball, folder, fetcher)


def _checked(path: Path, sha256: str | None) -> str:
    """Return the hash of a file. Errors: `InvalidInput` (no file, or another hash than the given one)."""
    if not path.is_file():
        raise InvalidInput("source", path, "is not a file", hint=f"one of {_KINDS}")
    digest = sha256_file(path)
    if sha256 is not None and digest != sha256.lower():
        raise InvalidInput("source", path, f"has the SHA-256 {digest}", hint="fetch it again, or correct the hash")
    return digest


def _tarball(path: Path, sha256: str | None, fetcher: _Fetcher) -> SourceTree:
    digest = _checked(path, sha256)

    def make(folder: Path) -> None:
        require_space(folder, TREE_BYTES, "unpacking a kernel's source")
        try:
            _untar(path, folder, fetcher)
        except CommandFailed as error:
            reason = f"cannot be unpacked: {error.details[0] if error.details else error.what}"
            raise InvalidInput("source", path, reason, hint="it is damaged or truncated: fetch it again") from error
        _release(folder, str(path))

    folder = fetcher.get({"tarball": digest}, make)
    return _tree(folder, f"tarball:{digest}", _release(folder, str(path)))


def _git(url: str, ref: str, fetcher: _Fetcher) -> SourceTree:
    if shutil.which("git") is None:
        raise MissingRequirement("git", "a kernel from a git repository", hint="apt-get install git")
    commit = ref.lower() if _COMMIT.fullmatch(ref) else _resolve(url, ref)

    def make(folder: Path) -> None:
        require_space(folder, TREE_BYTES, "a kernel's git tree")
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

    folder = fetcher.get({"git": url, "commit": commit}, make)
    return _tree(folder, f"git:{commit}", _release(folder, f"{url}#{ref}"))


def _resolve(url: str, ref: str) -> str:
    """Return the commit that a branch or tag of a repository currently names."""
    try:
        text = process.output(
            ["git", "ls-remote", "--", url, ref, f"{ref}^{{}}"], env=_git_environment(), timeout_s=120
        )
    except CommandFailed as error:
        raise InvalidInput("source", url, "cannot be read as a git repository", hint=error.details[0]) from error
    commits = {name: commit for commit, name in (line.split("\t") for line in text.splitlines())}
    names = [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref]
    commit = next((commits[name] for name in names if name in commits), None)
    if commit is None:
        hint = "a commit needs all 40 digits"
        raise InvalidInput("source", f"{url}#{ref}", "has no such branch or tag", hint=hint)
    return commit


def _run_git(argv: list[str], folder: Path, url: str, ref: str, cancel: CancelToken | None) -> None:
    try:
        process.run(["git", *argv], cwd=folder, env=_git_environment(), cancel=cancel)
    except CommandFailed as error:
        reason = f"cannot be fetched: {error.details[0] if error.details else error.what}"
        raise InvalidInput("source", f"{url}#{ref}", reason, hint="check URL and ref") from error


def _git_environment() -> dict[str, str]:
    """Return git's environment: no prompts, and no transport that runs a command from a URL (git-remote-ext(1))."""
    return {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}


def _patched(tree: SourceTree, patches: Sequence[Path], fetcher: _Fetcher) -> SourceTree:
    if shutil.which("patch") is None:
        raise MissingRequirement("patch", "patches on a kernel", hint="apt-get install patch")
    digests = [sha256_file(patch) for patch in patches]

    def make(folder: Path) -> None:
        require_space(folder, TREE_BYTES, "a patched copy of a kernel's source")
        fetcher.on_progress(Progress("patch kernel", 0.0))
        # Links to a tree of the cache, which nobody edits: patch(1) replaces files and never writes into them
        link = ["--link"] if tree.path.is_relative_to(fetcher.cache.root) else ["--reflink=auto"]
        process.run(["cp", "-a", *link, f"{tree.path}/.", folder], cancel=fetcher.cancel)
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
                failures = [line for line in error.details if re.search(r"FAILED|can't find|garbage", line)]
                reason = f"does not apply to {tree.release}: {'; '.join(failures) or error.what}"
                raise InvalidInput("patches", patch, reason, hint="rebase it on this source") from error
        fetcher.on_progress(Progress("patch kernel", 1.0))

    inputs = {"source": tree.identity, "patches": digests}
    folder = fetcher.get(inputs, make)
    patched = _tree(folder, f"{tree.identity}+patches:{key_of(inputs)}", _release(folder, "the patched tree"))
    return patched if tree.files else replace(patched, base=tree)  # a folder's objects may be older than its files


def _untar(tarball: Path, folder: Path, fetcher: _Fetcher) -> None:
    """Unpack a tarball; GNU tar writes nothing outside the folder: it strips leading slashes and refuses `..`."""
    unpacker = _UNPACKERS.get(tarball.suffix)
    if unpacker and shutil.which(unpacker) is None:
        raise MissingRequirement(unpacker, f"unpacking {tarball.name}", hint="apt-get install xz-utils bzip2 zstd")
    task = f"unpack {tarball.name.split('.tar')[0]}"
    fetcher.on_progress(Progress(task, 0.0))
    process.run(
        ["tar", "--extract", "--no-same-owner", f"--file={tarball.absolute()}"], cwd=folder, cancel=fetcher.cancel
    )
    _without_top_folder(folder, tarball)
    fetcher.on_progress(Progress(task, 1.0))


def _without_top_folder(folder: Path, tarball: Path) -> None:
    """Move what the one folder of a tarball holds to the top; a tarball may also have the tree there already.

    Errors: `InvalidInput` if several folders hold a kernel tree.
    """
    if _is_tree(folder):
        return
    tops = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink()]
    trees = [path for path in tops if _is_tree(path)]
    if len(trees) > 1:
        names = ", ".join(path.name for path in trees)
        raise InvalidInput("source", tarball, f"holds several kernel trees: {names}", hint="pack one of them")
    for top in trees or tops[:1]:
        inner = top.rename(folder / f".{os.urandom(8).hex()}")  # its content may have its own name
        for path in inner.iterdir():
            path.rename(folder / path.name)
        inner.rmdir()


def _is_tree(path: Path) -> bool:
    return (path / "Makefile").is_file() and (path / "Kconfig").is_file()


def _tree(path: Path, identity: str, release: str) -> SourceTree:
    major, minor = release.split(".")[:2]
    return SourceTree(path=path, identity=identity, version=(int(major), int(minor)), release=release)


def _release(path: Path, named: str) -> str:
    """Return VERSION.PATCHLEVEL.SUBLEVEL of the tree's Makefile. Errors: `InvalidInput` (not a kernel tree)."""
    try:
        head = (path / "Makefile").read_text(errors="replace")[:4000]
    except OSError:
        head = ""
    numbers = [re.search(rf"^{word} = (\d+)$", head, re.MULTILINE) for word in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    if not all(numbers) or not (path / "Kconfig").is_file():
        raise InvalidInput("source", named, "is not a kernel tree", hint="its Makefile has no kernel version")
    return ".".join(number.group(1) for number in numbers if number)
