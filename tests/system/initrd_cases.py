"""Generated initrds, about half of them broken, one for each seed. An init that runs powers the guest off.

The archives are written here, in the order and with the faults that a case wants.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import stat
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lz4.block
import lz4.frame
import zstandard

from acon_nb.cache import Cache
from acon_nb.host import apt
from acon_nb.initrd import FileTree, create, gen_init, tree_of

OFF = r"""
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
void _start(void) { for (;;) call(169, 0xfee1deadL, 672274793L, 0x4321fedcL); }
"""
OFF_32 = r"""
void _start(void) {
    for (;;) __asm__ volatile("int $0x80" :: "a"(88), "b"(0xfee1dead), "c"(672274793), "d"(0x4321fedc));
}
"""
USER = "int one(void); int reboot(int); void _start(void) { if (one() == 2) reboot(0x4321fedc); for (;;) ; }\n"
ONE = "int two(void); int one(void) { return two(); }\n"
TWO = "int two(void) { return 2; }\n"
VERSIONS = "OLD { global: old; }; NEW { global: two; } OLD;\n"
OLD_VERSION = "OLD { global: two; };\n"
_ALONE = ("-Os", "-ffreestanding", "-nostdlib", "-fno-stack-protector", "-fcf-protection=none", "-no-pie", "-fno-pic")
_LINKED = ("-nostdlib", "-fno-stack-protector", "-fcf-protection=none", "-fPIC", "-Wl,--allow-shlib-undefined")

Entry = tuple[str, int, bytes]
DIR, REG, LNK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777


@dataclass
class Case:
    """One initrd to boot: `entries` in the archive's order, and how they are packed."""

    name: str
    entries: list[Entry] = field(default_factory=list)
    append: str = ""
    memory_mib: int = 256
    pack: str = ""
    change: Callable[[bytes], bytes] = bytes
    raw: bytes | None = None

    def image(self) -> bytes:
        """Return the bytes of the initrd."""
        return self.change(PACK[self.pack](newc(self.entries))) if self.raw is None else self.change(self.raw)

    def put(self, name: str, data: bytes, mode: int = REG) -> None:
        """Add a file with its folders."""
        parts = name.split("/")
        have = {entry[0] for entry in self.entries}
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in have:
                self.entries.append((folder, DIR, b""))
        self.entries = [entry for entry in self.entries if entry[0] != name]
        self.entries.append((name, mode, data))

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self.put(name, target.encode(), LNK)

    def drop(self, name: str) -> None:
        """Remove an entry."""
        assert any(entry[0] == name for entry in self.entries), name
        self.entries = [entry for entry in self.entries if entry[0] != name]

    def edit(self, name: str, change: Callable[[bytes], bytes] = bytes, mode: int | None = None) -> None:
        """Change the data or the mode of an entry."""
        self.entries = [
            (key, old if mode is None or key != name else mode, change(data) if key == name else data)
            for key, old, data in self.entries
        ]


def newc(entries: list[Entry]) -> bytes:
    """Write a newc archive."""
    parts = []
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % one for one in fields) + raw
        parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
    return b"".join(parts)


def legacy_lz4(data: bytes) -> bytes:
    """Compress into the legacy frame."""
    out = struct.pack("<I", 0x184C2102)
    for start in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[start : start + (8 << 20)], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return out


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gz": lambda data: gzip.compress(data, 1, mtime=0),
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=0),
    "xz-crc64": lambda data: lzma.compress(data, check=lzma.CHECK_CRC64, preset=0),
    "xz-sha256": lambda data: lzma.compress(data, check=lzma.CHECK_SHA256, preset=0),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE, preset=0),
    "zst": zstandard.ZstdCompressor(level=1).compress,
    "lz4": legacy_lz4,
    "lz4-frame": lz4.frame.compress,
    "odc": lambda data: b"070707" + data[6:],
}
READ = ("", "gz", "bz2", "xz", "zst", "lz4")  # by the guide's kernel


class Parts:
    """Programs and libraries of which initrds are made, built once."""

    def __init__(self, folder: Path, store: Cache) -> None:
        self.store = store
        self.folder = folder
        self.off = self._gcc("off", OFF, *_ALONE, "-static")
        self.off_32 = self._gcc("off32", OFF_32, *_ALONE, "-static", "-m32")
        self.shell = apt.unpack("busybox-static", cache=store).path("bin/busybox").read_bytes()
        self.loader = Path("/lib64/ld-linux-x86-64.so.2").read_bytes()
        self.libc = Path("/lib/x86_64-linux-gnu/libc.so.6").read_bytes()
        self.musl = apt.unpack("musl", cache=store).path("lib/ld-musl-x86_64.so.1").resolve().read_bytes()
        (folder / "musl").mkdir()
        (folder / "musl/libc.so").write_bytes(self.musl)
        (folder / "versions.map").write_text(VERSIONS)
        (folder / "old.map").write_text(OLD_VERSION)
        two = ("-shared", "-Wl,-soname,libtwo.so")
        self.two = self._gcc("libtwo.so", TWO, *_LINKED, *two)
        self.one = self._gcc("libone.so", ONE, *_LINKED, "-shared", "-Wl,-soname,libone.so", "-L.", "-ltwo")
        new = TWO + "void old(void) {}\n"
        self.two_new = self._gcc("new/libtwo.so", new, *_LINKED, *two, "-Wl,--version-script,versions.map")
        self.two_old = self._gcc("old/libtwo.so", TWO, *_LINKED, *two, "-Wl,--version-script,old.map")
        self.one_new = self._gcc("n/libone.so", ONE, *_LINKED, "-shared", "-Wl,-soname,libone.so", "-Lnew", "-ltwo")

    def freestanding(self, name: str, source: str) -> bytes:
        """Build a static program without a C library."""
        return self._gcc(name, source, *_ALONE, "-static")

    def user(self, *flags: str, musl: bool = False) -> bytes:
        """Build the program that uses libone.so, which uses libtwo.so, with flags for the linker."""
        own = ("-Lmusl", "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1") if musl else ()
        return self._gcc("user", USER, "-nostartfiles", *_LINKED, "-L.", "-lone", *own, "-lc", *flags)

    def _gcc(self, name: str, source: str, *flags: str) -> bytes:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        text = path.with_suffix(".c")
        text.write_text(source)
        files = [flag for flag in flags if flag.startswith(("-l", "-L"))]
        others = [flag for flag in flags if flag not in files]
        argv = ["gcc", "-o", str(path), *others, str(text), *files]
        subprocess.run(argv, cwd=self.folder, check=True, capture_output=True)
        return path.read_bytes()


def static(parts: Parts, dice: random.Random) -> Case:
    case = Case("static", pack=dice.choice(READ))
    if dice.random() < 0.5:
        case.put("usr/lib/boot/start", parts.off)
        case.link("init", dice.choice(["usr/lib/boot/start", "/usr/lib/boot/start", "./usr/../usr/lib/boot/start"]))
    else:
        case.put("init", parts.off)
    return case


def script(parts: Parts, dice: random.Random) -> Case:
    case = Case("script", pack=dice.choice(READ))
    line = dice.choice(
        ["#!/bin/sh\n", "#! /bin/sh\n", "#!/bin/sh -e\n", "#!/bin/sh  \t\n", "#!bin/sh\n", "#!/usr/bin/env sh\n"]
    )
    case.put("bin/busybox", parts.shell)
    case.link("bin/sh", "busybox")
    case.put("bin/off", parts.off)
    if "env" in line:
        case.link("usr/bin/env", "../../bin/busybox")
    case.put("init", line.encode() + b"exec /bin/off\n")
    return case


def ours(parts: Parts, dice: random.Random) -> Case:
    tree = tree_of("busybox", cache=parts.store)
    tree.add_file("bin/off", parts.off, mode=0o755)
    gen_init(tree)
    return Case("ours", raw=_written(tree, parts), append="INIT=/bin/off", pack="")


def dynamic(parts: Parts, dice: random.Random) -> Case:
    case = Case("dynamic", pack=dice.choice(["", "lz4"]))
    folder, flags = dice.choice(
        [
            ("usr/lib", ()),
            ("lib/x86_64-linux-gnu", ()),
            ("opt/app", ("-Wl,--disable-new-dtags,-rpath,/opt/app",)),
            ("opt/a", ("-Wl,--disable-new-dtags,-rpath,/opt/none:/opt/a/",)),
        ]
    )
    case.put("init", parts.user(*flags))
    case.put("lib64/ld-linux-x86-64.so.2", parts.loader)
    case.put("lib/x86_64-linux-gnu/libc.so.6", parts.libc)
    case.put(f"{folder}/libone.so", parts.one)
    case.put(f"{folder}/libtwo.so", parts.two)
    return case


def musl(parts: Parts, dice: random.Random) -> Case:
    case = Case("musl", pack=dice.choice(["", "gz"]))
    folder, flags = dice.choice([("lib", ()), ("usr/lib", ()), ("opt/m", ("-Wl,--enable-new-dtags,-rpath,/opt/m",))])
    case.put("init", parts.user(*flags, musl=True))
    case.put("lib/ld-musl-x86_64.so.1", parts.musl)
    case.put(f"{folder}/libone.so", parts.one)
    case.put(f"{folder}/libtwo.so", parts.two)
    if dice.random() < 0.3:
        case.put("etc/ld-musl-x86_64.path", b"/lib\n/usr/lib\n/opt/m\n")
    return case


def elsewhere(parts: Parts, dice: random.Random) -> Case:
    case = Case("rdinit", pack=dice.choice(READ), append="rdinit=/sbin/init")
    case.put("sbin/init", parts.off)
    return case


def versioned(parts: Parts, dice: random.Random) -> Case:
    case = dynamic(parts, dice)
    for name, body in (("libone.so", parts.one_new), ("libtwo.so", parts.two_new)):
        path = next(entry[0] for entry in case.entries if entry[0].endswith(name))
        case.edit(path, lambda _, body=body: body)
    case.name = "versioned"
    return case


def _written(tree: FileTree, parts: Parts) -> bytes:
    path = parts.folder / "ours.cpio"
    create(tree, path)
    return path.read_bytes()


GOOD = (static, script, ours, dynamic, musl, elsewhere, versioned)


def _static(parts: Parts, pack: str = "") -> Case:
    case = Case("static", pack=pack)
    case.put("init", parts.off)
    return case


def _scripted(parts: Parts, text: bytes) -> Case:
    case = script(parts, random.Random(0))
    case.put("init", text)
    case.pack = ""
    return case


def _path(case: Case, end: str) -> str:
    """The name that ends in this way."""
    return next(entry[0] for entry in case.entries if entry[0].endswith(end))


Maker = Callable[[Parts, random.Random], Case]


def no_library(parts: Parts, dice: random.Random) -> Case:
    case = dice.choice([dynamic, musl])(parts, dice)
    case.drop(_path(case, dice.choice(["libone.so", "libtwo.so"])))
    return case


def no_libc(parts: Parts, dice: random.Random) -> Case:
    case = dynamic(parts, dice)
    case.drop("lib/x86_64-linux-gnu/libc.so.6")
    return case


def no_loader(parts: Parts, dice: random.Random) -> Case:
    case = dice.choice([dynamic, musl])(parts, dice)
    case.drop(_path(case, ".so.2" if case.name == "dynamic" else ".so.1"))
    return case


def loader_mode(parts: Parts, dice: random.Random) -> Case:
    case = dynamic(parts, dice)
    case.edit("lib64/ld-linux-x86-64.so.2", mode=stat.S_IFREG | 0o644)
    return case


def library_mode(parts: Parts, dice: random.Random) -> Case:
    """A library need not be executable."""
    case = dynamic(parts, dice)
    case.edit(_path(case, "libone.so"), mode=stat.S_IFREG | 0o444)
    return case


def library_elsewhere(parts: Parts, dice: random.Random) -> Case:
    """A folder that only ld.so.conf names is not searched: the loader reads ld.so.cache."""
    case = dynamic(parts, random.Random(dice.choice([0, 1])))
    case.put("init", parts.user())
    for name, body in (("libone.so", parts.one), ("libtwo.so", parts.two)):
        case.drop(_path(case, name))
        case.put(f"usr/local/lib/{name}", body)
    case.put("etc/ld.so.conf", b"/usr/local/lib\n")
    return case


def library_32(parts: Parts, dice: random.Random) -> Case:
    """The library of another machine is passed over, and found in a later folder, or not."""
    case = dynamic(parts, dice)
    case.put("init", parts.user("-Wl,--disable-new-dtags,-rpath,/first"))
    path = _path(case, "libtwo.so")
    wrong = parts.two[:18] + struct.pack("<H", 183) + parts.two[20:]
    case.put("first/libtwo.so", wrong)
    if path.startswith("opt"):
        for name, body in (("libone.so", parts.one), ("libtwo.so", parts.two)):
            case.put(f"usr/lib/{name}", body)
    if dice.random() < 0.5:
        for entry in [one[0] for one in case.entries if one[0].endswith("libtwo.so") and one[0] != "first/libtwo.so"]:
            case.drop(entry)
    return case


def library_text(parts: Parts, dice: random.Random) -> Case:
    case = dynamic(parts, dice)
    case.edit(_path(case, "libone.so"), lambda _: b"INPUT(libtwo.so)\n" * 10)
    return case


def library_cut(parts: Parts, dice: random.Random) -> Case:
    case = dynamic(parts, dice)
    case.edit("lib/x86_64-linux-gnu/libc.so.6", lambda data: data[: len(data) // 3])
    return case


def runpath_not_inherited(parts: Parts, dice: random.Random) -> Case:
    """RUNPATH is not searched for what a library needs; RPATH is."""
    case = dynamic(parts, dice)
    form = dice.choice(["--enable-new-dtags", "--disable-new-dtags"])
    case.put("init", parts.user(f"-Wl,{form},-rpath,/opt/r"))
    for name in ("libone.so", "libtwo.so"):
        case.drop(_path(case, name))
    case.put("opt/r/libone.so", parts.one)
    case.put("opt/r/libtwo.so", parts.two)
    return case


def origin(parts: Parts, dice: random.Random) -> Case:
    """$ORIGIN of the program needs /proc."""
    case = dice.choice([dynamic, musl])(parts, dice)
    case.put("init", parts.user("-Wl,--disable-new-dtags,-rpath,$ORIGIN/private", musl=case.name == "musl"))
    for name, body in (("libone.so", parts.one), ("libtwo.so", parts.two)):
        case.drop(_path(case, name))
        case.put(f"private/{name}", body)
    return case


def old_version(parts: Parts, dice: random.Random) -> Case:
    case = versioned(parts, dice)
    case.edit(_path(case, "libtwo.so"), lambda _: parts.two_old)
    return case


def no_versions(parts: Parts, dice: random.Random) -> Case:
    """A library without any version fails when a symbol is looked up."""
    case = versioned(parts, dice)
    case.edit(_path(case, "libtwo.so"), lambda _: parts.two)
    return case


def not_executable(parts: Parts, dice: random.Random) -> Case:
    case = dice.choice([static, script])(parts, dice)
    name = "usr/lib/boot/start" if any(one[1] == LNK and one[0] == "init" for one in case.entries) else "init"
    case.edit(name, mode=stat.S_IFREG | dice.choice([0o644, 0o600, 0o444]))
    return case


def one_x(parts: Parts, dice: random.Random) -> Case:
    """One right to execute is enough for root."""
    case = _static(parts)
    case.edit("init", mode=stat.S_IFREG | dice.choice([0o100, 0o010, 0o001]))
    return case


def dangling(parts: Parts, dice: random.Random) -> Case:
    case = Case("static")
    case.put("usr/bin/start", parts.off)
    case.link("init", dice.choice(["usr/bin/systemd", "/init", "init", "/usr/bin/start/", "usr/start"]))
    return case


def many_links(parts: Parts, dice: random.Random) -> Case:
    """40 links are followed, 41 are not."""
    count = dice.choice([1, 39, 40, 41])
    case = Case(f"{count} links")
    for number in range(count):
        case.link("init" if number == 0 else f"l{number}", f"l{number + 1}" if number + 1 < count else "start")
    case.put("start", parts.off)
    return case


def only_sbin(parts: Parts, dice: random.Random) -> Case:
    case = Case("sbin")
    case.put(dice.choice(["sbin/init", "bin/init", "etc/init", "bin/sh"]), parts.off)
    return case


def nothing(parts: Parts, dice: random.Random) -> Case:
    case = Case("empty")
    case.put("etc/motd", b"hello\n")
    return case


def init_is_folder(parts: Parts, dice: random.Random) -> Case:
    case = Case("folder")
    case.put("init/init", parts.off)
    return case


def other_interpreter(parts: Parts, dice: random.Random) -> Case:
    line = dice.choice(
        [b"#!/bin/bash\n", b"#!/bin/sh\r\n", b"#!/bin/sh -e\r\n", b"#!\n", b"#! \n", b"#!/usr/bin/python3 -u\n"]
    )
    return _scripted(parts, line + b"exec /bin/off\n")


def no_text(parts: Parts, dice: random.Random) -> Case:
    return _scripted(
        parts, dice.choice([b"", b"exec /bin/off\n", b"\xef\xbb\xbf#!/bin/sh\nexec /bin/off\n", b"\n#!/bin/sh\n"])
    )


def long_line(parts: Parts, dice: random.Random) -> Case:
    """A path that ends beyond 255 bytes is not found; an argument may be cut."""
    count = dice.choice([10, 200, 240, 243, 244, 245, 246, 247, 250, 300])
    case = _scripted(parts, b"#!/bin/" + b"s" * count + b"\nexec /bin/off\n")
    if count <= 255:
        case.link("bin/" + "s" * count, "busybox")
        case.put("bin/" + "s" * count, b"#!/bin/sh\nexec /bin/off\n")
    return case


def env(parts: Parts, dice: random.Random) -> Case:
    line = dice.choice([b"#!/usr/bin/env bash", b"#!/usr/bin/env", b"#!/usr/bin/env sh -e", b"#!/usr/bin/env /bin/sh"])
    case = _scripted(parts, line + b"\nexec /bin/off\n")
    case.link("usr/bin/env", "../../bin/busybox")
    return case


def no_newline(parts: Parts, dice: random.Random) -> Case:
    case = _scripted(parts, b"#!/bin/off")
    if dice.random() < 0.5:
        case.put("init", b"#!/bin/off" + b" " * dice.choice([0, 240, 300]) + b"x" * 20)
    return case


def scripts(parts: Parts, dice: random.Random) -> Case:
    """Scripts that are each other's interpreters: five are followed, six are not."""
    count = dice.choice([2, 4, 5, 6, 7])
    case = Case(f"{count} scripts")
    for number in range(count):
        last = number + 1 == count
        case.put("init" if number == 0 else f"s{number}", f"#!/{'off' if last else f's{number + 1}'}\n".encode())
    case.put("off", parts.off)
    return case


def self_script(parts: Parts, dice: random.Random) -> Case:
    return _scripted(parts, b"#!/init\n")


def cut_program(parts: Parts, dice: random.Random) -> Case:
    case = _scripted(parts, b"#!/bin/sh\nexec /bin/off\n")
    share = dice.choice([0.001, 0.2, 0.5])
    case.edit("bin/busybox", lambda data: data[: int(len(data) * share)])
    return case


def other_machine(parts: Parts, dice: random.Random) -> Case:
    case = _static(parts)
    machine = dice.choice([183, 243, 3, 40])
    case.edit("init", lambda data: data[:18] + struct.pack("<H", machine) + data[20:])
    return case


def bits_32(parts: Parts, dice: random.Random) -> Case:
    case = Case("32 bits")
    case.put("init", parts.off_32)
    return case


def damaged_header(parts: Parts, dice: random.Random) -> Case:
    case = _static(parts)
    offset, value = dice.choice([(16, 1), (16, 4), (54, 32), (56, 0)])
    case.edit("init", lambda data: data[:offset] + struct.pack("<H", value) + data[offset + 2 :])
    return case


def unsorted(parts: Parts, dice: random.Random) -> Case:
    """Folders after their files are too late; links before what they lead to are not."""
    case = dice.choice([static, script, dynamic, musl])(parts, dice)
    dice.shuffle(case.entries)
    return case


def merged_usr(parts: Parts, dice: random.Random) -> Case:
    """Names below a link: they go where it leads if it is there already."""
    case = Case("merged")
    entries: list[Entry] = [("usr", DIR, b""), ("usr/bin", DIR, b""), ("bin", LNK, b"usr/bin")]
    entries.append(("bin/start", REG, parts.off))
    if dice.random() < 0.5:
        entries = [entries[3], *entries[:3]]
    case.entries = [*entries, ("init", LNK, b"usr/bin/start")]
    return case


def long_name(parts: Parts, dice: random.Random) -> Case:
    count = dice.choice([200, 255, 256, 300])
    case = Case(f"name of {count}")
    case.put("bin/" + "n" * count, parts.off)
    case.link("init", "bin/" + "n" * count)
    return case


def replaced(parts: Parts, dice: random.Random) -> Case:
    """A later entry of a name counts, but not over a folder that is not empty."""
    case = _static(parts)
    case.entries = dice.choice(
        [
            [("init", REG, b"old"), ("init", REG, parts.off)],
            [("init", REG, parts.off), ("init", REG, b"new")],
            [("init", DIR, b""), ("init", REG, parts.off)],
            [("init", DIR, b""), ("init/x", REG, b""), ("init", REG, parts.off)],
            [("init", REG, parts.off), ("init", LNK, b"none")],
            [("init", LNK, b"none"), ("init", REG, parts.off)],
        ]
    )
    return case


def packed(parts: Parts, dice: random.Random) -> Case:
    return _static(parts, dice.choice(["xz-crc64", "xz-sha256", "lz4-frame", "lzma", "odc", *READ]))


def cut_stream(parts: Parts, dice: random.Random) -> Case:
    """What is unpacked before the end of a cut stream is there; /init is first or last."""
    case = _static(parts, dice.choice(READ))
    case.put("zzz", dice.randbytes(3 << 20))
    if dice.random() < 0.5:
        case.entries.reverse()
    share = dice.choice([0.3, 0.9])
    case.change = lambda data: data[: int(len(data) * share)]
    return case


def joined(parts: Parts, dice: random.Random) -> Case:
    """A second segment, after padding or not; /init is in the second one."""
    case = _static(parts, dice.choice(READ))
    first = PACK[dice.choice(READ)](newc([("etc", DIR, b""), ("etc/early", REG, b"x" * 99)]))
    gap = bytes(dice.choice([-len(first) % 4, 0, 512, -len(first) % 4 + 1]))
    case.change = lambda data: first + gap + data
    return case


def junk_after(parts: Parts, dice: random.Random) -> Case:
    case = _static(parts, dice.choice(READ))
    junk = dice.choice([b"junk", b"\0\0\0\0junk", bytes(700)])
    case.change = lambda data: data + junk
    return case


def memory(parts: Parts, dice: random.Random) -> Case:
    """A file of a share of the memory, before /init or after it, in a tmpfs or, with root=, a ramfs."""
    case = Case("memory", pack=dice.choice(["", "zst"]), memory_mib=dice.choice([128, 192, 256]))
    share = dice.choice([0.1, 0.25, 0.6, 0.8])
    body = dice.randbytes(1 << 16) * int(case.memory_mib * share * 16)
    if not case.pack:
        body = body[: int(case.memory_mib * min(share, 0.45)) << 20]
    case.put("big" if dice.random() < 0.5 else "zzz", body)
    case.put("init", parts.off)
    case.entries.sort()
    if dice.random() < 0.3:
        case.append = "root=/dev/vda"
    return case


def ours_broken(parts: Parts, dice: random.Random) -> Case:
    """Our /init without something that it needs, or may lack."""
    tree = tree_of("busybox", cache=parts.store)
    tree.add_file("bin/off", parts.off, mode=0o755)
    tree.add_file("bin/text", b"no program\n", mode=0o755)
    gen_init(tree)
    append = "INIT=/bin/off"
    kind = dice.choice(["sh", "setsid", "mount", "fstab", "INIT", "setsid text"])
    if kind == "sh":
        tree.remove("bin/sh")
    elif kind == "setsid":
        tree.remove("usr/bin/setsid")
    elif kind == "mount":
        tree.remove("bin/mount")
    elif kind == "fstab":
        tree.add_file("etc/fstab", b"# UNCONFIGURED FSTAB FOR BASE SYSTEM\n")
    elif kind == "INIT":
        append = "INIT=/bin/text"
    else:
        tree.add_symlink("usr/bin/setsid", "/bin/text")
    return Case(f"ours, {kind}", raw=_written(tree, parts), append=append)


BROKEN: tuple[Maker, ...] = (
    no_library, no_libc, no_loader, loader_mode, library_mode, library_elsewhere, library_32, library_text,
    library_cut, runpath_not_inherited, origin, old_version, no_versions, not_executable, one_x, dangling, many_links,
    only_sbin, nothing, init_is_folder, other_interpreter, no_text, long_line, env, no_newline, scripts, self_script,
    cut_program, other_machine, bits_32, damaged_header, unsorted, merged_usr, long_name, replaced, packed, cut_stream,
    joined, junk_after, memory, ours_broken,
)  # fmt: skip


def case_of(seed: int, parts: Parts) -> Case:
    """Return the image of a seed: of each breakage in turn, and a good one after every three."""
    dice = random.Random(seed)
    number, good = divmod(seed, 4)
    maker = GOOD[number % len(GOOD)] if good == 0 else BROKEN[(3 * number + good - 1) % len(BROKEN)]
    case = maker(parts, dice)
    case.name = f"{seed}: {maker.__name__} ({case.name})"
    return case
