"""Whether an initrd boots, judged from its segments, its files and a kernel's options."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import stat
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb import initrd
from acon_nb.archive import segments, tar
from acon_nb.bootcheck import initrd as bootcheck
from acon_nb.cache import Cache
from acon_nb.cli import main
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import Content, FileTree
from acon_nb.initrd.check import BootVerdict, Image, Kernel, Memory, Severity, Start, judge
from acon_nb.initrd.init import FILES
from tests.unit.archives import TRAILER, archive, legacy_lz4, member
from tests.unit.test_check_programs import static_program

ROOM = Memory(bytes=2 << 30)
ALL = dict.fromkeys(
    (
        "X86_64", "BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT", "RD_GZIP", "RD_XZ", "RD_ZSTD", "RD_LZ4", "TMPFS",
        "PROC_FS", "SYSFS", "DEVTMPFS", "UNIX98_PTYS", "SERIAL_8250_CONSOLE", "SWAP", "DM_CRYPT", "DM_INTEGRITY",
        "CRYPTO_AES", "CRYPTO_XTS", "CRYPTO_SHA512", "BLK_DEV_RAM",
    ),
    "y",
)  # fmt: skip
KERNEL = Kernel(options=ALL, complete=True, image_bytes=16 << 20)
PLAIN = archive(data=static_program())


def judged(raw: bytes, kernel: Kernel = KERNEL, append: str = "", memory: Memory = ROOM) -> BootVerdict:
    def read(count: int) -> segments.UnpackedInitrd:
        return segments.read(Content.of(raw[:count]), "image")

    return judge(Image(packed_bytes=len(raw), unpacked=read(len(raw)), read=read), Start.of(append), kernel, memory)


def without(*options: str) -> Kernel:
    return Kernel(options={name: "y" for name in ALL if name not in options}, complete=True)


def said(found: BootVerdict, severity: Severity = Severity.ERROR) -> str:
    return "\n".join(str(one) for one in found.findings if one.severity is severity)


PACKED = {
    "RD_GZIP": gzip.compress(PLAIN),
    "RD_XZ": lzma.compress(PLAIN, check=lzma.CHECK_CRC32),
    "RD_ZSTD": zstandard.compress(PLAIN),
    "RD_LZ4": legacy_lz4(PLAIN),
    "RD_LZMA": lzma.compress(PLAIN, format=lzma.FORMAT_ALONE),
}


@pytest.mark.parametrize("option", PACKED)
def test_a_compression_needs_its_option(option: str) -> None:
    with_option = Kernel(options={**ALL, option: "y"}, complete=True)
    assert judged(PACKED[option], with_option).boots is True
    lacking = judged(PACKED[option], without(option))
    assert lacking.boots is False
    assert f"lacks CONFIG_{option}" in said(lacking)
    assert len(lacking.findings) == 1, "that /init is missing only follows"
    unknown = Kernel(options={name: "y" for name in ALL if name != option}, complete=False)
    assert judged(PACKED[option], unknown).boots is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (lz4.frame.compress(PLAIN), "the modern lz4 frame"),
        (lzma.compress(PLAIN, check=lzma.CHECK_CRC64), "CRC64"),
        (b"070707" + PLAIN[6:], "odc"),
        (b"hsqs" + bytes(600), "squashfs"),
        (b"", "no archive"),
    ],
)
def test_what_no_kernel_unpacks_does_not_boot(raw: bytes, words: str) -> None:
    found = judged(raw)
    assert found.boots is False
    assert words in said(found)


def test_what_comes_before_a_problem_boots_with_a_warning() -> None:
    raw = PLAIN + bytes(-len(PLAIN) % 4) + b"junk"
    found = judged(raw)
    assert found.boots is True
    assert "the kernel unpacks what is before it" in said(found, Severity.WARNING)


@pytest.mark.parametrize("before", [b"", PLAIN + bytes(-len(PLAIN) % 4)])
def test_what_kernels_read_but_we_do_not_leaves_the_verdict_open(before: bytes) -> None:
    """The files of an lzo segment may be all that an image needs, or replace what it has."""
    raw = before + b"\x89LZO\0\r\n\x1a\n" + bytes(40)
    with_lzo = Kernel(options={**ALL, "RD_LZO": "y"}, complete=True)
    found = judged(raw, with_lzo)
    assert found.boots is None
    assert [finding.severity for finding in found.findings] == [Severity.UNKNOWN]
    assert "lzo, which acon_nb does not decompress" in found.findings[0].what
    assert judged(raw, without()).boots is bool(before), "a kernel without RD_LZO stops there"


def test_a_segment_that_the_kernel_cannot_read_matters_if_init_is_in_it() -> None:
    extra = gzip.compress(member(b"etc-extra") + TRAILER)
    first = PLAIN + bytes(-len(PLAIN) % 4)
    assert judged(first + extra, without("RD_GZIP")).boots is True
    assert "lacks CONFIG_RD_GZIP" in said(judged(first + extra, without("RD_GZIP")), Severity.WARNING)
    assert judged(extra + first, without("RD_GZIP")).boots is False


@pytest.mark.parametrize("option", ["BLK_DEV_INITRD", "BINFMT_ELF", "X86_64"])
def test_a_kernel_without_what_every_initrd_needs_does_not_boot(option: str) -> None:
    found = judged(PLAIN, without(option))
    assert found.boots is False
    assert option in said(found)


def test_only_init_of_an_initrd_is_started() -> None:
    raw = member(b"sbin", mode=stat.S_IFDIR | 0o755) + member(b"sbin/init", static_program()) + TRAILER
    found = judged(raw)
    assert found.boots is False
    assert "/init is missing" in said(found)
    assert "rdinit=/sbin/init" in said(found)
    assert judged(raw, append="rdinit=/sbin/init").boots is True
    assert judged(raw, append="rdinit=/sbin/other").boots is False
    assert judged(raw, append="root=/dev/vda").boots is None


def test_what_the_kernel_drops_is_said_and_missed() -> None:
    raw = member(b"sbin/start", static_program()) + member(b"init", b"sbin/start", mode=stat.S_IFLNK | 0o777) + TRAILER
    found = judged(raw)
    assert found.boots is False
    assert "the folder does not exist yet" in said(found, Severity.WARNING)
    assert "/init is a link to sbin/start" in said(found)


def test_a_broken_init_says_what_the_kernel_starts_instead() -> None:
    found = judged(member(b"init", b"") + member(b"bin", mode=0o40755) + member(b"bin/sh", static_program()) + TRAILER)
    assert found.boots is False
    assert "the kernel starts /bin/sh" in said(found, Severity.NOTE)


# Memory


def filled(mib: int, name: bytes = b"big") -> bytes:
    return zstandard.compress(member(name, bytes(mib << 20)) + member(b"init", static_program()) + TRAILER)


@pytest.mark.parametrize(
    ("mib", "memory_mib", "append", "boots"),
    [
        (50, 256, "", True),
        (119, 256, "", False),
        (113, 256, "", True),
        (119, 256, "root=/dev/vda", True),
        (119, 128, "root=/dev/vda", False),
        (119, 384, "", True),
    ],
)
def test_the_unpacked_size_counts(mib: int, memory_mib: int, append: str, boots: bool) -> None:
    """As booted on the guide's kernel, whose image takes 16.1 MiB."""
    found = judged(filled(mib), append=append, memory=Memory(bytes=memory_mib << 20))
    assert found.boots is boots
    assert ("memory" in said(found)) is not boots
    if not boots:
        assert "MiB unpacked" in said(found)


def test_init_before_what_does_not_fit_starts() -> None:
    raw = zstandard.compress(member(b"init", static_program()) + member(b"zzz", bytes(119 << 20)) + TRAILER)
    found = judged(raw, memory=Memory(bytes=256 << 20))
    assert found.boots is True
    assert "stops there with a write error" in said(found, Severity.WARNING)


def test_the_memory_that_is_advised_is_enough() -> None:
    for append in ("", "root=/dev/vda"):
        found = judged(filled(150), append=append, memory=Memory(bytes=128 << 20))
        advised = int(found.findings[0].fix.removeprefix("give the guest ").partition("M")[0])
        assert judged(filled(150), append=append, memory=Memory(bytes=advised << 20)).boots is True


def test_firmware_and_bounce_buffers_take_memory_too() -> None:
    raw = filled(95)
    assert judged(raw, memory=Memory(bytes=256 << 20)).boots is True
    assert judged(raw, memory=Memory(bytes=256 << 20, firmware=True)).boots is None
    assert judged(raw, memory=Memory(bytes=256 << 20, firmware=True, td=True)).boots is False


# What /init and logins need


def ours(**files: bytes) -> FileTree:
    tree = FileTree()
    tree.add_file("bin/sh", static_program(), mode=0o755)
    for name in ("mount", "mkdir", "ln", "setsid", "swapon", "dmsetup", "od", "dd", "mkswap", "blkdiscard"):
        tree.add_symlink(f"bin/{name}", "sh")
    tree.add_file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    for name, data in files.items():
        tree.add_file(name.replace("__", "/"), data)
    initrd.gen_init(tree)
    return tree


def judged_tree(tree: FileTree, kernel: Kernel = KERNEL, append: str = "console=ttyS0") -> BootVerdict:
    unpacked = segments.UnpackedInitrd(segments=(), tree=tree, problem=None)
    image = Image(packed_bytes=1 << 20, unpacked=unpacked, read=lambda _: unpacked)
    return judge(image, Start.of(append), kernel, ROOM)


def test_a_complete_image_has_nothing_to_report() -> None:
    assert judged_tree(ours()) == BootVerdict(boots=True, findings=())


def test_debians_fstab_mounts_nothing() -> None:
    found = judged_tree(ours(etc__fstab=b"# UNCONFIGURED FSTAB FOR BASE SYSTEM\n"))
    assert found.boots is True
    assert "/etc/fstab does not mount /proc, /dev, /sys" in said(found, Severity.WARNING)
    assert "F=1" in said(found, Severity.WARNING)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("PROC_FS", "of type proc"),
        ("DEVTMPFS", "of type devtmpfs"),
        ("UNIX98_PTYS", "of type devpts"),
    ],
)
def test_lines_of_fstab_need_options(option: str, words: str) -> None:
    found = judged_tree(ours(), without(option))
    assert found.boots is True
    assert words in said(found, Severity.WARNING)
    assert f"CONFIG_{option}" in said(found, Severity.WARNING)


def test_a_module_counts_where_the_image_has_it() -> None:
    fstab = (FILES / "fstab").read_bytes() + b"/dev/vdb /data ext4 defaults 0 0\n"
    kernel = Kernel(options={**ALL, "EXT4_FS": "m", "VIRTIO_BLK": "y"}, complete=True, release="6.12.1")
    tree = ours(etc__fstab=fstab)
    assert "CONFIG_EXT4_FS is only a module" in said(judged_tree(tree, kernel), Severity.WARNING)
    tree.add_symlink("bin/modprobe", "sh")
    tree.add_file("lib/modules/6.12.1/kernel/fs/ext4/ext4.ko.xz", b"")
    assert judged_tree(tree, kernel).findings == ()


def test_modules_of_another_kernel_are_told() -> None:
    tree = ours(etc__modules=b"virtio_blk\n")
    tree.add_symlink("bin/modprobe", "sh")
    tree.add_file("lib/modules/6.1.0/x.ko", b"")
    kernel = Kernel(options=ALL, complete=True, release="6.12.1")
    assert "lib/modules has 6.1.0" in said(judged_tree(tree, kernel), Severity.WARNING)


@pytest.mark.parametrize(
    ("change", "append", "boots", "words"),
    [
        (lambda tree: tree.remove("bin/sh"), "", False, "/bin/sh"),
        (lambda tree: tree.remove("bin/setsid"), "", True, "setsid is missing"),
        (lambda tree: tree.remove("bin/mount"), "", True, "mount is missing"),
        (lambda tree: tree.add_file("bin/setsid", b"text", mode=0o755), "", False, "/bin/setsid is neither"),
        (lambda tree: tree.add_file("bin/mount", b"text", mode=0o755), "", True, "/bin/mount is neither"),
        (lambda tree: None, "INIT=/opt/run", True, "INIT=/opt/run is not in the image"),
        (lambda tree: tree.add_file("opt/run", b"#!/bin/bash\n", mode=0o755), "INIT=/opt/run", False, "/bin/bash"),
        (lambda tree: None, "console=hvc0", False, "VIRTIO_CONSOLE"),
        (lambda tree: None, 'console=hvc0 INIT="/bin/sh -c true"', True, ""),
        (lambda tree: tree.add_file("etc/passwd", b"root:x:0:0::/root:/bin/bash\n"), "", True, "root's shell"),
        (lambda tree: tree.add_file("etc/fstab", b"proc /proc\n"), "", True, "is not valid"),
    ],
)  # fmt: skip
def test_what_our_init_needs(change: object, append: str, boots: bool, words: str) -> None:
    tree = ours()
    change(tree)  # type: ignore[operator]
    found = judged_tree(tree, append=f"console=ttyS0 {append}")
    assert found.boots is boots
    assert words in "\n".join(map(str, found.findings))


SSHD = static_program() + b"\0/etc/ssh/sshd_config\0/usr/lib/openssh/sshd-session\0/run/sshd\0/var/empty\0"


def with_sshd() -> FileTree:
    tree = ours()
    tree.add_file("usr/sbin/sshd", SSHD, mode=0o755)
    tree.add_file("usr/lib/openssh/sshd-session", static_program(), mode=0o755)
    for name in ("ssh-keygen", "rm", "cat"):
        tree.add_symlink(f"bin/{name}", "sh")
    tree.add_file("etc/ssh/sshd_config", b"")
    tree.add_file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n")
    tree.add_file("etc/shadow", b"root:*::0:::::\n")
    tree.add_dir("var/empty", mode=0o711)
    tree.add_dir("root/.ssh", mode=0o700)
    tree.add_file("root/.ssh/authorized_keys", b"ssh-ed25519 AAAA me\n", mode=0o600)
    return tree


def test_an_sshd_with_all_that_it_needs() -> None:
    assert judged_tree(with_sshd()).findings == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.remove("etc/ssh/sshd_config"), "/etc/ssh/sshd_config is missing"),
        (lambda tree: tree.remove("usr/lib/openssh/sshd-session"), "sshd-session"),
        (lambda tree: tree.remove("var/empty"), "/var/empty is missing"),
        (lambda tree: tree.add_dir("var/empty", mode=0o777), "others than root may write to /var/empty"),
        (lambda tree: tree.remove("bin/ssh-keygen"), "ssh-keygen is missing"),
        (lambda tree: tree.add_file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"), "no user sshd"),
        (lambda tree: tree.add_file("etc/shadow", b"root:!:1::::::\n"), "begins with !"),
        (lambda tree: tree.add_dir("root", mode=0o777), "others than root may write to /root"),
        (lambda tree: tree.add_file("root/.ssh/authorized_keys", b"x", mode=0o666), "StrictModes"),
    ],
)  # fmt: skip
def test_what_sshd_lacks(change: object, words: str) -> None:
    tree = with_sshd()
    change(tree)  # type: ignore[operator]
    found = judged_tree(tree)
    assert found.boots is True
    assert words in said(found, Severity.WARNING)


# The command


def run(*argv: str) -> Result:
    return CliRunner().invoke(main, ["initrd", "check", *argv])


@pytest.mark.parametrize(
    ("raw", "boots", "status"), [(PLAIN, True, 0), (archive(data=b""), False, 1), (PACKED["RD_XZ"], None, 3)]
)
def test_the_command_answers_by_its_exit_status(
    raw: bytes, boots: bool | None, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "i").write_bytes(raw)
    for _ in range(2):  # the second verdict is the cached one
        done = run(str(tmp_path / "i"), "--json")
        assert done.exit_code == status, done.output
        answer = json.loads(done.stdout)
        assert answer["boots"] is boots
        for finding in answer["findings"]:
            assert finding.keys() == {"severity", "what", "why", "fix"}
            assert finding["severity"] in ("error", "unknown", "warning", "note")


def rootfs_tar(path: Path, **entries: bytes) -> Path:
    tree = FileTree()
    for name, data in entries.items():
        tree.add_file(name.replace("__", "/"), data, mode=0o755)
    with path.open("wb") as file:
        tar.write(tree, file)
    return path


def test_an_image_source_is_checked_as_initrd_from_would_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = rootfs_tar(tmp_path / "r.tar", bin__sh=static_program(), etc__fstab=b"# nothing\n")
    done = run(f"tar:{path}", "--json")
    found = json.loads(done.stdout)
    assert found["boots"] is True, done.output
    assert any("does not mount /proc" in one["what"] for one in found["findings"])
    monkeypatch.setenv("F", "1")
    assert not any(
        "does not mount" in one["what"] for one in json.loads(run(f"tar:{path}", "--json").stdout)["findings"]
    )


def test_a_file_that_does_not_exist_is_refused() -> None:
    for name in ("./none", "/none", "none.cpio.xz"):
        done = run(name)
        assert done.exit_code == 2
        assert "is not a file" in done.output


def test_the_cached_verdict_is_of_the_content(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    path = tmp_path / "i"
    path.write_bytes(PLAIN)
    spec = bootcheck.CheckSpec(image=str(path))
    assert bootcheck.check(spec, cache=cache).boots is True
    path.write_bytes(archive(data=b""))
    assert bootcheck.check(spec, cache=cache).boots is False


def test_a_kernel_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "i").write_bytes(PLAIN)
    (tmp_path / "k").write_bytes(bytes(1000))
    with pytest.raises(InvalidInput, match="is not a bzImage"):
        bootcheck.check(bootcheck.CheckSpec(image=str(tmp_path / "i"), kernel=tmp_path / "k"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(PLAIN) - 1), st.booleans())
def test_any_bytes_have_a_verdict(data: bytes, place: int, cut: bool) -> None:
    raw = PLAIN[:place] + data + (b"" if cut else PLAIN[place + len(data) :])
    with contextlib.suppress(TreeError):
        assert judged(raw).boots in (True, False, None)


def test_a_hostile_name_is_unknown_not_an_error(tmp_path: Path) -> None:
    path = tmp_path / "i"
    path.write_bytes(member(b"../../etc/passwd") + PLAIN)
    found = bootcheck.check(bootcheck.CheckSpec(image=str(path)), cache=Cache(tmp_path / "cache"))
    assert found.boots is None
    assert "leads out of the tree" in found.findings[0].what


def test_initrd_from_warns_of_what_will_not_boot_or_work(tmp_path: Path) -> None:
    fstab = b"# UNCONFIGURED FSTAB FOR BASE SYSTEM\n"
    path = rootfs_tar(tmp_path / "r.tar", bin__sh=b"#!/bin/shell\n", etc__fstab=fstab)
    done = CliRunner().invoke(main, ["initrd", "from", f"tar:{path}", "-o", str(tmp_path / "i.cpio")])
    assert done.exit_code == 0, done.output
    assert "warning: /bin/shell cannot be run" in done.stderr
    assert "warning: /etc/fstab does not mount /proc, /dev, /sys" in done.stderr
    tree = FileTree()
    tree.add_symlink("init", "usr/bin/systemd")
    with (tmp_path / "d.tar").open("wb") as file:
        tar.write(tree, file)
    done = CliRunner().invoke(main, ["initrd", "from", f"tar:{tmp_path / 'd.tar'}", "-o", str(tmp_path / "d.cpio")])
    assert "/init is a link that leads nowhere" in done.stderr


def test_a_file_in_the_place_of_the_console_ends_the_shell() -> None:
    tree = ours()
    tree.add_file("dev/console", b"")
    found = judged_tree(tree)
    assert found.boots is False
    assert "/dev/console is not the console's device" in said(found)
