import hashlib
import subprocess
from pathlib import Path

import pytest

from acon_nb.errors import InvalidInput, MissingRequirement
from acon_nb.kernel import BuildSpec, diff, fetch, tables, values_of

MAKEFILE = "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 9\n"
PATCH = """--- a/Kconfig
+++ b/Kconfig
@@ -1 +1 @@
-mainmenu "x"
+mainmenu "y"
"""


@pytest.fixture
def tree(tmp_path) -> Path:
    folder = tmp_path / "linux-6.12.9"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "Kconfig").write_text('mainmenu "x"\n')
    return folder


@pytest.fixture
def tarball(tree) -> Path:
    path = tree.parent / "linux-6.12.9.tar.xz"
    subprocess.run(["tar", "-cJf", path, "-C", tree.parent, tree.name], check=True)
    return path


@pytest.fixture
def repository(tree) -> Path:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for argv in (["init", "-q", "-b", "guest-next"], ["add", "."], ["commit", "-qm", "one"], ["tag", "-am", "t", "v1"]):
        subprocess.run([*git, *argv], cwd=tree, check=True)
    (tree / "Makefile").write_text(MAKEFILE.replace("9", "10"))
    subprocess.run([*git, "commit", "-qam", "two"], cwd=tree, check=True)
    return tree


def commit_of(repository: Path, ref: str) -> str:
    argv = ["git", "rev-parse", f"{ref}^{{commit}}"]
    return subprocess.run(argv, cwd=repository, check=True, capture_output=True, text=True).stdout.strip()


def test_a_folder_is_identified_by_its_content(tree, cache):
    first = fetch(str(tree), cache=cache)
    assert (first.version, first.release, first.path) == ((6, 12), "6.12.9", tree)
    (tree / "new").write_text("x")
    assert fetch(str(tree), cache=cache).identity != first.identity


@pytest.fixture
def deb(tree) -> Path:
    """A package as Debian makes linux-source-*: a tarball below usr/src."""
    root = tree.parent / "package"
    (root / "usr/src").mkdir(parents=True)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: linux-source-6.12\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
    )
    tarball = root / "usr/src/linux-source-6.12.tar.xz"
    subprocess.run(["tar", "-cJf", tarball, "-C", tree.parent, tree.name], check=True)
    path = tree.parent / "linux-source-6.12_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, path], check=True, capture_output=True)
    return path


def test_the_file_of_a_package_is_a_source_known_by_its_bytes(deb, cache):
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    fetched = fetch(f"deb:{deb}#sha256={digest.upper()}", cache=cache)
    assert (fetched.release, fetched.identity) == ("6.12.9", f"deb:{digest}")
    with pytest.raises(InvalidInput, match=f"has the SHA-256 {digest}"):
        fetch(f"deb:{deb}#sha256={'0' * 64}", cache=cache)


def test_a_file_that_is_no_package_of_a_source_is_refused(deb, cache):
    deb.write_bytes(deb.read_bytes()[:300])
    with pytest.raises(InvalidInput, match="is not a package"):
        fetch(f"deb:{deb}", cache=cache)
    root = deb.parent / "package"
    (root / "usr/src/linux-source-6.12.tar.xz").rename(root / "usr/src/other")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, deb], check=True, capture_output=True)
    with pytest.raises(InvalidInput, match=r"has no usr/src/linux-source"):
        fetch(f"deb:{deb}", cache=cache)
    with pytest.raises(InvalidInput, match="is not a file"):
        fetch("deb:/no/such.deb", cache=cache)


def test_a_tarball_is_identified_by_its_bytes_and_checked(tarball, cache):
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    found = fetch(f"{tarball}#sha256={digest}", cache=cache)
    assert found.release == "6.12.9"
    assert found.identity == f"tarball:{digest}"
    assert fetch(str(tarball), cache=cache).path == found.path
    with pytest.raises(InvalidInput, match=f"has the SHA-256 {digest}"):
        fetch(f"{tarball}#sha256={'0' * 64}", cache=cache)


def test_a_truncated_tarball_is_refused_and_leaves_nothing(tarball, cache):
    tarball.write_bytes(tarball.read_bytes()[:-40])
    with pytest.raises(InvalidInput, match="cannot be unpacked"):
        fetch(str(tarball), cache=cache)
    assert not any(path.is_dir() for path in (cache.root / "source").iterdir())


def test_a_branch_a_tag_and_a_commit_are_found(repository, cache):
    head, tag = commit_of(repository, "guest-next"), commit_of(repository, "v1")
    assert fetch(f"{repository}#guest-next", cache=cache).identity == f"git:{head}"
    old = fetch(f"file://{repository}#v1", cache=cache)
    assert (old.identity, old.release) == (f"git:{tag}", "6.12.9")
    assert fetch(f"file://{repository}#{head}", cache=cache).release == "6.12.10"


def test_a_clone_has_no_history_and_is_clean_for_localversion_auto(repository, cache):
    path = fetch(f"file://{repository}#guest-next", cache=cache).path
    log = subprocess.run(["git", "log", "--oneline"], cwd=path, check=True, capture_output=True, text=True).stdout
    assert len(log.splitlines()) == 1
    argv = ["git", "status", "--porcelain", "-uno"]
    assert subprocess.run(argv, cwd=path, check=True, capture_output=True).stdout == b""


def test_invalid_git_sources_are_refused(repository, cache):
    for source, why in (
        (f"file://{repository}#no-such", "no such branch or tag"),
        ("file:///no/such/repo#main", "cannot be read as a git repository"),
        ("ext::sh -c touch% /tmp/x#main", "not a valid kernel source"),
        (f"{repository}#--upload-pack=x", "not a valid kernel source"),
    ):
        with pytest.raises(InvalidInput, match=why):
            fetch(source, cache=cache)


def test_a_folder_that_is_not_a_kernel_tree_is_refused(tmp_path, cache):
    (tmp_path / "some").mkdir()
    (tmp_path / "some/file").write_text("x")
    with pytest.raises(InvalidInput, match="not a kernel tree"):
        fetch(str(tmp_path / "some"), cache=cache)


def test_patches_are_applied_to_a_copy(tree, tmp_path, cache):
    patch = tmp_path / "one.patch"
    patch.write_text(PATCH)
    plain = fetch(str(tree), cache=cache)
    patched = fetch(str(tree), patches=[patch], cache=cache)
    assert (patched.path / "Kconfig").read_text() == 'mainmenu "y"\n'
    assert (tree / "Kconfig").read_text() == 'mainmenu "x"\n'
    assert patched.identity != plain.identity
    (tree / "Kconfig").write_text("something else\n")
    with pytest.raises(InvalidInput, match=r"one\.patch.*does not apply to 6\.12\.9"):
        fetch(str(tree), patches=[patch], cache=cache)


def test_a_patched_tree_shares_the_files_of_the_caches_tree_and_leaves_it_alone(tarball, tmp_path, cache):
    patch = tmp_path / "one.patch"
    patch.write_text(PATCH)
    patched = fetch(str(tarball), patches=[patch], cache=cache)
    assert patched.base == fetch(str(tarball), cache=cache)
    assert (patched.path / "Makefile").samefile(patched.base.path / "Makefile")
    assert (patched.path / "Kconfig").read_text() == 'mainmenu "y"\n'
    assert (patched.base.path / "Kconfig").read_text() == 'mainmenu "x"\n'


def test_a_config_to_start_from_must_exist(tmp_path):
    with pytest.raises(InvalidInput, match="config="):
        BuildSpec(config=tmp_path / "none")
    with pytest.raises(InvalidInput, match="is empty"):
        BuildSpec(profiles=())


def test_profiles_and_configs_are_compared(tmp_path):
    config = tmp_path / "config"
    config.write_text('CONFIG_ZRAM=m\n# CONFIG_ZSWAP is not set\nCONFIG_LOCALVERSION="-x"\n')
    rows = {row.option: (row.left, row.right) for row in diff(values_of(str(config)), values_of("storage"))}
    assert rows["ZRAM"] == ("m", "y")
    assert rows["ZSWAP"] == ("n", "y")
    assert rows["LOCALVERSION"] == ("-x", "n")
    assert diff(values_of("guide"), values_of("guide")) == ()
    rows = {(6, 1): set(), (6, 12): set()}
    for version, options in rows.items():
        options.update(tables.diff_table("minimal", "container", version)["option"])
    assert rows[6, 1] - rows[6, 12] == {"RANDOM_TRUST_CPU"}
    with pytest.raises(InvalidInput, match="is empty"):
        values_of(",")


def test_a_tarball_without_its_unpacker_is_not_called_damaged(tarball, cache, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tar").symlink_to("/usr/bin/tar")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingRequirement, match="xz is missing"):
        fetch(str(tarball), cache=cache)


def test_an_invalid_patch_is_refused_with_the_message_of_patch(tree, tmp_path, cache):
    (tmp_path / "none.patch").write_text("no patch at all\n")
    with pytest.raises(InvalidInput, match="garbage"):
        fetch(str(tree), patches=[tmp_path / "none.patch"], cache=cache)


def test_a_config_without_options_is_refused(tmp_path):
    (tmp_path / "config").write_bytes(b"\x7fELF no config\n")
    with pytest.raises(InvalidInput, match="contains no kernel options"):
        BuildSpec(config=tmp_path / "config")


@pytest.mark.parametrize("name", ["a b", "a:b"])
def test_a_path_that_kbuild_refuses_is_refused_before_it(tree, cache, name):
    other = tree.rename(tree.parent / name)
    with pytest.raises(InvalidInput, match="blank or a colon in its path"):
        fetch(str(other), cache=cache)


@pytest.mark.parametrize("name", [".config", "include/config/auto.conf", "arch/x86/include/generated/x.h"])
def test_a_tree_that_was_built_in_is_refused_and_its_config_is_kept(tree, cache, name):
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text("x")
    with pytest.raises(InvalidInput, match="only from clean trees") as caught:
        fetch(str(tree), cache=cache)
    assert caught.value.hint.startswith("keep its .config elsewhere")


def test_a_read_only_tree_and_a_worktree_are_taken(repository, tree, cache):
    worktree = tree.parent / "worktree"
    subprocess.run(["git", "worktree", "add", "-q", worktree, "v1"], cwd=repository, check=True)
    assert fetch(str(worktree), cache=cache).release == "6.12.9"
    for path in worktree.iterdir():
        path.chmod(0o555 if path.is_dir() else 0o444)
    worktree.chmod(0o555)
    assert fetch(str(worktree), cache=cache).release == "6.12.9"


def test_bare_and_shallow_repositories_and_upper_case_hashes_are_taken(repository, tarball, tmp_path, cache):
    for name, option in (("bare.git", "--bare"), ("shallow", "--depth=1")):
        subprocess.run(["git", "clone", "-q", option, f"file://{repository}", tmp_path / name], check=True)
        assert fetch(f"{tmp_path / name}#guest-next", cache=cache).release == "6.12.10"
    commit = commit_of(repository, "guest-next").upper()
    assert fetch(f"{repository}#{commit}", cache=cache).release == "6.12.10"
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest().upper()
    assert fetch(f"{tarball}#sha256={digest}", cache=cache).release


def test_an_ssh_address_without_a_scheme_is_a_git_source(cache):
    with pytest.raises(InvalidInput, match="cannot be read as a git repository"):
        fetch("git@localhost.invalid:linux/linux.git#v6.12", cache=cache)


def test_a_tarball_may_have_its_tree_at_the_top(tree, cache, tmp_path):
    path = tmp_path / "top.tar"
    subprocess.run(["tar", "-cf", path, "-C", tree, "."], check=True)
    assert fetch(str(path), cache=cache).release == "6.12.9"
    (tree / tree.name).mkdir()  # a folder of the name of the one above
    (tree / tree.name / "file").write_text("x")
    subprocess.run(["tar", "-cf", path, "-C", tree.parent, tree.name], check=True)
    assert (fetch(str(path), cache=cache).path / tree.name / "file").read_text() == "x"


def test_a_tarball_with_several_trees_is_refused(tree, cache, tmp_path):
    subprocess.run(["cp", "-a", tree, tree.parent / "linux-other"], check=True)
    path = tmp_path / "two.tar"
    subprocess.run(["tar", "-cf", path, "-C", tree.parent, tree.name, "linux-other"], check=True)
    with pytest.raises(InvalidInput, match=r"several kernel trees: linux-6\.12\.9, linux-other"):
        fetch(str(path), cache=cache)
