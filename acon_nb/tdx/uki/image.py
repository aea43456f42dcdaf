"""A unified kernel image (UKI): a PE file of systemd-stub and the sections that it measures and starts.

What a stub does is read from the stub itself where it leaves a trace (the names of sections and files in its code, the
GUIDs of protocols), else from its version. Sources: systemd, src/boot (formerly src/boot/efi) stub.c, pe.c, cpio.c,
util.c, and src/fundamental/uki.h; compared: 252, 254, 257 and 262.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from acon_nb import bzimage
from acon_nb.errors import InvalidInput
from acon_nb.tdx.kernel_image import (
    CC_PROTOCOL,
    LIMIT_BYTES,
    TCG2_PROTOCOL,
    KernelFile,
    has_guid,
    kernel_of,
    read_image,
)

# In the order in which the stub measures them; it never measures .pcrsig, which signs the result.
ORDER = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrsig", ".pcrpkey"),
    *(".profile", ".dtbauto", ".hwids", ".efifw"),
)
UNMEASURED = ".pcrsig"
CHOSEN = (".dtbauto", ".efifw")  # the stub takes the one that fits the machine, and none on x86 as a rule
# Sections that the stub hands to the kernel as files of an initrd of its own, in this order.
FILES = (
    (".pcrsig", "tpm2-pcr-signature.json"),
    (".pcrpkey", "tpm2-pcr-public-key.pem"),
    (".osrel", "os-release"),
    (".profile", "profile"),
)
_INFO = re.compile(rb"#### LoaderInfo: systemd-stub ([0-9]{1,4})([^#\0]{0,80}) ####")
_SECTION = struct.Struct("<8sIIII16x")
_MOST_SECTIONS = 1024  # of 256 profiles; the format would allow 65,535
_FIRST_WITH_PROFILES = 257
_FIRST_THAT_TRIMS = 257  # the start of a command line, too; 252 and 254 trim its end alone
_LAST_THAT_LOADS = 257
_MAKE = "ukify build --linux=vmlinuz --initrd=initrd --cmdline=..."


@dataclass(frozen=True)
class UkiSection:
    """A section: its name, and what it is in memory (`data`, filled up with `zeros` bytes)."""

    name: str
    data: memoryview = field(repr=False)
    zeros: int

    @property
    def size(self) -> int:
        """Its size in memory, which is what the stub measures."""
        return len(self.data) + self.zeros

    @property
    def content(self) -> bytes:
        """Its bytes in memory."""
        return bytes(self.data) + bytes(self.zeros)

    def digest(self) -> bytes:
        """Return the SHA-384 hash of its bytes in memory."""
        state = hashlib.sha384(self.data)
        state.update(bytes(self.zeros))
        return state.digest()


@dataclass(frozen=True)
class Digests:
    """What is hashed for a profile: its sections by name, and the initrd that the kernel gets (None without one)."""

    sections: Mapping[str, bytes]
    initrd: tuple[bytes, int] | None


@dataclass(frozen=True, kw_only=True)
class Uki:
    """A UKI in memory. `stub` is systemd-stub's version as it names itself ("257.13-1~deb13u1"), `release` its number.

    `table` are all sections in the order of the file.
    """

    path: Path
    image: bytes = field(repr=False)
    stub: str
    release: int
    table: tuple[UkiSection, ...] = field(repr=False)
    _digests: dict[int, Digests] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _code(self) -> bytes:
        """The stub's own sections."""
        return b"\0".join(bytes(part.data) for part in self.table if part.name not in (*ORDER, ".sdmagic"))

    def knows(self, section: str) -> bool:
        """Whether the stub measures sections of that name: its code names them."""
        return section.encode() + b"\0" in self._code

    def has_text(self, text: str) -> bool:
        """Whether the stub's code contains a text in UTF-16."""
        return text.encode("utf-16-le") + b"\0\0" in self._code

    @cached_property
    def measures_cc(self) -> bool:
        """Whether the stub measures in a TD, through the CC protocol."""
        return has_guid(self._code, CC_PROTOCOL)

    @cached_property
    def measures_tpm(self) -> bool:
        """Whether the stub measures into a TPM."""
        return has_guid(self._code, TCG2_PROTOCOL)

    @property
    def has_profiles(self) -> bool:
        """Whether the stub reads a profile's number ("@1") at the start of the command line."""
        return self.release >= _FIRST_WITH_PROFILES

    @property
    def trims_start(self) -> bool:
        """Whether the stub removes spaces from both ends of a command line, and not from its end alone."""
        return self.release >= _FIRST_THAT_TRIMS

    @property
    def loads_kernel(self) -> bool:
        """Whether the stub starts the kernel by the firmware's LoadImage, and not in its own place."""
        return self.release <= _LAST_THAT_LOADS

    @property
    def adds_console(self) -> bool:
        """Whether the stub appends console= for the guest's devices to a command line that has none."""
        return self.has_text("* console=*")

    @property
    def measures_smbios(self) -> bool:
        """Whether the stub measures SMBIOS structures into a TPM (in a TD it does not)."""
        return self.has_text("smbios:type1")

    @property
    def makes_secret(self) -> bool:
        """Whether the stub, started from a disk, adds a random secret to the initrd if the firmware has a seed."""
        return self.has_text("LoaderBootSecret")

    def sections(self, profile: int = 0) -> Mapping[str, UkiSection]:
        """Return the sections that the stub uses for a profile, by name, in the order in which it measures them.

        Errors: `InvalidInput` if there is no such profile.
        """
        chosen = self._profile(profile) if self.has_profiles else self._last()
        return {name: chosen[name] for name in ORDER if name in chosen and self.knows(name)}

    def initrd(self, sections: Mapping[str, UkiSection]) -> bytes:
        """Return the initrd that the stub hands to the kernel: its sections, then an archive for each of `FILES`."""
        parts = [sections[name].content for name in (".ucode", ".initrd") if name in sections]
        files = [(section, name) for section, name in FILES if section in sections and self.has_text(name)]
        parts += [_archive(name, sections[section].content) for section, name in files]
        if len(parts) == 1:
            return parts[0]
        return b"".join(part + bytes(-len(part) % 4) for part in parts)

    def digests(self, profile: int = 0) -> Digests:
        """Return the hashes for a profile; they are computed once. Errors: `InvalidInput`."""
        if profile not in self._digests:
            sections = self.sections(profile)
            initrd = self.initrd(sections)
            self._digests[profile] = Digests(
                sections={name: part.digest() for name, part in sections.items()},
                initrd=(hashlib.sha384(initrd).digest(), len(initrd)) if initrd else None,
            )
        return self._digests[profile]

    def _profile(self, number: int) -> dict[str, UkiSection]:
        starts = [place for place, section in enumerate(self.table) if section.name == ".profile"]
        base = self.table[: starts[0] if starts else None]
        if number > 0 and number >= len(starts):
            hint = f"one of @0 to @{max(0, len(starts) - 1)}"
            raise InvalidInput("append", f"@{number}", f"{self.path.name} has no such profile", hint=hint)
        chosen = _first(base)
        if number < len(starts):
            end = starts[number + 1] if number + 1 < len(starts) else None
            chosen |= _first(self.table[starts[number] : end])
        return chosen

    def _last(self) -> dict[str, UkiSection]:
        """As stubs before profiles choose: the last section whose name begins with the wanted one."""
        rows = [(name, part) for part in self.table if part.size for name in ORDER if part.name.startswith(name)]
        return dict(rows)


def _first(table: tuple[UkiSection, ...]) -> dict[str, UkiSection]:
    chosen: dict[str, UkiSection] = {}
    for part in table:
        if part.size:
            chosen.setdefault(part.name, part)
    return chosen


def is_uki(path: Path) -> bool:
    """Whether a file looks like a UKI: a PE file with a section .linux."""
    try:
        with path.open("rb") as file:
            head = file.read(64 << 10)
    except OSError:
        return False
    if bzimage.is_bzimage(head):
        return False
    return any(name == b".linux" for name, *_ in _rows(head))


def read_boot_file(path: Path) -> tuple[KernelFile, Uki | None]:
    """Read what the firmware is to start: a bzImage, or a UKI with the kernel in it. Errors: `InvalidInput`."""
    image = read_image(path)
    rows = [] if bzimage.is_bzimage(image[: bzimage.HEADER_BYTES]) else list(_rows(image))
    if not any(name == b".linux" for name, *_ in rows):
        return kernel_of(image, path), None
    uki = _uki(path, image, rows)
    if ".linux" not in uki.sections():
        raise InvalidInput("uki", path, "has an empty .linux", hint="make it again with ukify")
    return kernel_of(uki.sections()[".linux"].content, path), uki


def require_uki(path: Path) -> None:
    """Refuse a file that does not look like a UKI. Errors: `InvalidInput`."""
    if not path.is_file():
        raise InvalidInput("uki", path, "is not a file", hint=_MAKE)
    if is_uki(path):
        return
    with path.open("rb") as file:
        if bzimage.is_bzimage(file.read(bzimage.HEADER_BYTES)):
            raise InvalidInput("uki", path, "is a bzImage, not a UKI", hint="give it as KERNEL, without --uki")
    raise InvalidInput("uki", path, "is not a UKI: a PE file with a section .linux", hint=_MAKE)


def _uki(path: Path, image: bytes, rows: list[tuple[bytes, int, int, int, int]]) -> Uki:
    info = _INFO.search(image)
    if info is None:
        raise InvalidInput("uki", path, "has a section .linux, but systemd-stub did not make it", hint=_MAKE)
    view, table = memoryview(image), []
    for name, size, _, raw_size, raw in rows:
        data = view[raw : raw + min(size, raw_size)]
        if len(data) < min(size, raw_size) or size > LIMIT_BYTES:
            label = name.decode("ascii", "replace")
            raise InvalidInput("uki", path, f"is cut off: its section {label} does not fit", hint="copy it again")
        table.append(UkiSection(name.decode("latin-1"), data, size - len(data)))
    stub = (info[1] + info[2]).decode("ascii", "replace")
    return Uki(path=path, image=image, stub=stub, release=int(info[1]), table=tuple(table))


def _rows(image: bytes) -> Iterator[tuple[bytes, int, int, int, int]]:
    """Yield name, size in memory, address, size and offset in the file of each section of a PE file."""
    if image[:2] != b"MZ" or len(image) < bzimage.PE_HEADER + 4:
        return
    header = struct.unpack_from("<I", image, bzimage.PE_HEADER)[0]
    if image[header : header + 4] != b"PE\0\0" or header + 24 > len(image):
        return
    count, optional = struct.unpack_from("<H12xH", image, header + 6)
    start = header + 24 + optional
    for number in range(min(count, _MOST_SECTIONS)):
        place = start + number * _SECTION.size
        if place + _SECTION.size > len(image):
            return
        name, size, address, raw_size, raw = _SECTION.unpack_from(image, place)
        yield name.rstrip(b"\0"), size, address, raw_size, raw


def command_line(section: UkiSection) -> str | None:
    """Return the command line of a section .cmdline as the stub decodes it; None if it is not UTF-8 of 16 bits."""
    raw = section.content.split(b"\0", 1)[0]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if all(ord(character) <= 0xFFFF for character in text) else None


def trimmed(text: str, *, both_ends: bool) -> str:
    """Return a command line as the stub cleans it: control characters become spaces, those at the end are removed."""
    if both_ends:
        spaced = "".join(" " if character <= " " or character == "\x7f" else character for character in text)
        return spaced.strip(" ")
    return "".join(" " if character <= "\x1f" else character for character in text).rstrip(" ")


def _archive(name: str, content: bytes) -> bytes:
    """An initrd of one file in /.extra, byte for byte as the stub writes it."""
    folder = _entry(b".extra", b"", inode=1, mode=0o40555)
    file = _entry(b".extra/" + name.encode(), content, inode=2, mode=0o100444)
    return folder + file + _entry(b"TRAILER!!!", b"", inode=0, mode=0)


def _entry(name: bytes, content: bytes, *, inode: int, mode: int) -> bytes:
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    digits = "".join(f"{value:08X}" if not inode else f"{value:08x}" for value in fields)
    head = b"070701" + digits.encode() + name + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
