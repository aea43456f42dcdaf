"""Parses /etc/fstab of the guest, with its grammar of encrypted devices, and explains each line.

`/init` parses the same grammar in shell; a test keeps both in agreement. docs/encryption.md describes what the schemes
protect and what was measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from acon_nb.errors import InvalidInput

BLOCK_BYTES = 4096
FORMATTED = ("swap", "ext2", "ext3", "ext4")
MODES = {"xts": 64, "cbc": 32}  # bytes of the key; XTS takes two keys of 256 bits
# Bytes of the tag; crc32c has no keyed form
HASHES = {
    "crc32c": 4,
    "sha224": 28,
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "sha3-224": 28,
    "sha3-256": 32,
    "sha3-384": 48,
    "sha3-512": 64,
}
_KEYED = tuple(f"hmac_{name}" for name in HASHES if name != "crc32c")
MACS = ("", "cmac", *HASHES, *_KEYED)
_CMAC_BYTES = 16
_IV_BYTES = 16
_META_BYTES = 1 << 20  # dm-integrity's superblock and the journal, which it requires even if unused
_META_BUFFER_BYTES = 64 << 10
_BASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MAPPER = "/dev/mapper/"
_META_OPTION = "x-acon.meta="
_ESCAPES = {"040": " ", "011": "\t", "134": "\\"}


class TagStorage(StrEnum):
    """Where integrity tags are stored: a RAM disk, a zram device, or the disk itself."""

    RAM = "ram"
    ZRAM = "zram"
    DISK = "disk"


@dataclass(frozen=True, kw_only=True)
class CipherSpec:
    """How a device is encrypted: the part after the @, `[MODE][+MAC][+ae]`.

    An empty `mac` means no integrity. Without `ae`, dm-crypt is stacked on dm-integrity, which stores a hash of each
    encrypted block; with `ae`, dm-crypt computes MAC and random IV itself (AEAD), and dm-integrity only stores them.
    Errors: `InvalidInput` at construction.
    """

    mode: str = "xts"
    mac: str = "sha384"
    ae: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidInput("mode", self.mode, "is not a known mode", hint=f"one of {', '.join(MODES)}")
        if self.mac not in MACS:
            hint = f"cmac, one of {', '.join(HASHES)}, or hmac_ and one of these"
            raise InvalidInput("mac", self.mac, "is not a known MAC", hint=hint)
        if self.ae and self.mac == "crc32c":
            raise InvalidInput("mac", self.mac, "has no keyed form, which +ae needs", hint="+cmac+ae or +sha384+ae")

    @classmethod
    def parse(cls, text: str) -> CipherSpec:
        """Parse `[MODE][+MAC][+ae]`; "" is XTS with sha384, "+ae" is XTS with cmac."""
        scheme = text.removesuffix("+ae")
        ae = scheme != text
        mode, plus, mac = scheme.partition("+")
        return cls(mode=mode or "xts", mac=mac if plus else "cmac" if ae else "sha384", ae=ae)

    def __str__(self) -> str:
        mode = "" if self.mode == "xts" else self.mode
        default = "cmac" if self.ae else "sha384"
        return mode + ("" if self.mac == default else f"+{self.mac}") + ("+ae" if self.ae else "")

    @property
    def mac_bytes(self) -> int:
        """Bytes of the MAC or hash of a block."""
        if self.mac in ("", "cmac"):
            return _CMAC_BYTES if self.mac else 0
        return HASHES[self.mac.removeprefix("hmac_")]

    @property
    def tag_bytes(self) -> int:
        """Bytes stored for each block: the MAC, and the IV if it is random."""
        return self.mac_bytes + (_IV_BYTES if self.ae else 0)

    @property
    def key_bytes(self) -> int:
        """Bytes of dm-crypt's key."""
        return MODES[self.mode] + (self.mac_bytes if self.ae else 0)

    @property
    def cipher(self) -> str:
        """The cipher in dm-crypt's table."""
        if not self.ae:
            return f"capi:{self.mode}(aes)-plain64"
        if not self.mac:
            return f"capi:{self.mode}(aes)-random"
        mac = "cmac(aes)" if self.mac == "cmac" else f"hmac({self.mac.removeprefix('hmac_')})"
        return f"capi:authenc({mac},{self.mode}(aes))-random"

    @property
    def internal_hash(self) -> str:
        """The hash that dm-integrity computes itself; "" for none."""
        if self.ae or not self.mac:
            return ""
        if self.mac == "cmac":
            return "cmac(aes)"
        return f"hmac({self.mac[5:]})" if self.mac.startswith("hmac_") else self.mac

    @property
    def keyed(self) -> bool:
        """Whether computing a tag requires a key."""
        return bool(self.mac) and (self.ae or self.mac not in HASHES)

    def meta_bytes(self, disk_bytes: int) -> int:
        """Return the bytes of RAM that `/init` allocates for the tags of a disk of `disk_bytes`."""
        tags = disk_bytes // BLOCK_BYTES * self.tag_bytes
        return _META_BYTES + -(-tags // _META_BUFFER_BYTES) * _META_BUFFER_BYTES if tags else 0

    def explain(self, meta: TagStorage = TagStorage.RAM) -> tuple[str, ...]:
        """Explain what the scheme protects and what it does not, one sentence each."""
        sentences = [f"Encrypted with AES-256 in {self.mode.upper()} mode, with a new random key at every boot."]
        sentences.append(
            "Each write uses a new random IV, so equal data never looks equal."
            if self.ae
            else "The IV is the block number: an observer of the disk sees when a block returns to earlier content."
        )
        if not self.mac:
            sentences.append("No integrity: data can be changed on the disk without being detected.")
            return tuple(sentences)
        name = {"cmac": "CMAC of AES"}.get(self.mac, self.mac.replace("hmac_", "HMAC of "))
        if self.ae and self.mac in HASHES:
            name = f"HMAC of {self.mac}"
        sentences.append(f"Each block of {BLOCK_BYTES} bytes has a tag of {self.tag_bytes} bytes: {name}.")
        if self.mac == "crc32c":
            sentences.append(
                "crc32c detects accidents only: an attacker can write another block with the same checksum."
            )
        elif not self.keyed and meta is TagStorage.DISK:
            sentences.append("No integrity: the hash has no key and is on the disk, where an attacker can replace it.")
        else:
            sentences.append("Reading a block that was changed on the disk fails.")
        sentences.append(_STORAGE_TEXTS[meta])
        return tuple(sentences)


_STORAGE_TEXTS = {
    TagStorage.RAM: "The tags are in a RAM disk: restoring an old block is detected too.",
    TagStorage.ZRAM: "The tags are in zram: restoring an old block is detected too.",
    TagStorage.DISK: "The tags are on the disk: restoring an old block with its old tag is not detected.",
}


@dataclass(frozen=True, kw_only=True)
class EncryptedDevice:
    """A device `/dev/mapper/BASE@SPEC`: the block device /dev/BASE, encrypted."""

    base: str
    spec: CipherSpec

    def __post_init__(self) -> None:
        if not _BASE.fullmatch(self.base):
            raise InvalidInput("device", self.base, "is not a valid name of a block device", hint="such as vda")

    @classmethod
    def parse(cls, text: str) -> EncryptedDevice | None:
        """Parse the first field of an fstab line; None if it is not an encrypted device."""
        if not text.startswith(_MAPPER) or "@" not in text:
            return None
        base, _, spec = text.removeprefix(_MAPPER).partition("@")
        return cls(base=base, spec=CipherSpec.parse(spec))

    def __str__(self) -> str:
        return f"{_MAPPER}{self.base}@{self.spec}"


@dataclass(frozen=True, kw_only=True)
class FstabLine:
    """One line of fstab(5). Errors: `InvalidInput` at construction, naming the field."""

    device: str
    point: str
    type: str
    options: tuple[str, ...] = ("defaults",)

    def __post_init__(self) -> None:
        for field in ("device", "point", "type"):
            value = getattr(self, field)
            if not value or re.search(r"[\x00\n\r]", value):
                raise InvalidInput(field, value, "is empty or contains a line break", hint="give one word")
        if re.search(r"\s", self.type) or any(re.search(r"[\s,\x00]", word) or not word for word in self.options):
            raise InvalidInput(
                "options",
                ",".join(self.options),
                "contains white space or an empty word",
                hint="separate words by commas",
            )
        if self.type != "swap" and not self.point.startswith("/") and self.point != "none":
            raise InvalidInput("point", self.point, "is not a valid mount point", hint="an absolute path, or none")
        if self.device.startswith("-"):
            raise InvalidInput("device", self.device, "starts with -", hint="give the device's full path")
        if ".." in self.point.split("/"):
            raise InvalidInput("point", self.point, "contains ..", hint="give the path without ..")
        self._check_encrypted()

    def _check_encrypted(self) -> None:
        metas = [word.removeprefix(_META_OPTION) for word in self.options if word.startswith(_META_OPTION)]
        if any(meta not in list(TagStorage) for meta in metas):
            raise InvalidInput(_META_OPTION[:-1], metas[0], "is not a known tag storage", hint="one of ram, zram, disk")
        if self.encrypted is None:
            if metas:
                reason = "applies to encrypted devices only"
                raise InvalidInput("options", _META_OPTION + metas[0], reason, hint="/dev/mapper/vda@")
        elif self.type not in FORMATTED:
            hint = f"one of {', '.join(FORMATTED)}"
            raise InvalidInput("type", self.type, "cannot be formatted at boot, as encrypted devices are", hint=hint)

    @classmethod
    def parse(cls, text: str) -> FstabLine:
        """Parse a line of three to six fields; the last two are ignored. Errors: `InvalidInput`."""
        fields = re.findall(r"[^ \t\n]+", text)  # the only separators of /init's shell
        if not 3 <= len(fields) <= 6:
            hint = "DEVICE POINT TYPE OPTIONS 0 0"
            raise InvalidInput("fstab", text.strip(), f"has {len(fields)} fields", hint=hint)
        device, point = (_unescape(field) for field in fields[:2])
        options = fields[3] if len(fields) > 3 else "defaults"
        return cls(device=device, point=point, type=fields[2], options=tuple(options.split(",")))

    def __str__(self) -> str:
        return f"{_escape(self.device)}\t{_escape(self.point)}\t{self.type}\t{','.join(self.options)}\t0 0"

    @property
    def encrypted(self) -> EncryptedDevice | None:
        """The encrypted device of the line, or None."""
        return EncryptedDevice.parse(self.device)

    @property
    def meta(self) -> TagStorage:
        """Where the tags of an encrypted device are stored."""
        named = [word.removeprefix(_META_OPTION) for word in self.options if word.startswith(_META_OPTION)]
        return TagStorage(named[-1]) if named else TagStorage.RAM

    def explain(self) -> tuple[str, ...]:
        """Explain what `/init` does with the line, one sentence each."""
        use = "used as swap" if self.type == "swap" else f"mounted on {self.point} as {self.type}"
        device = self.encrypted
        if "noauto" in self.options:
            return (f"{self.device} is ignored at boot (noauto).",)
        if device is None:
            unprotected = self.type in FORMATTED and self.device.startswith("/dev/")
            warning = "It is neither encrypted nor checked: the host can read and change it."
            return (f"{self.device} is {use}.", *([warning] if unprotected else []))
        use = f"/dev/{device.base} is formatted at every boot and {use}."
        return (use, *device.spec.explain(self.meta), *_warnings(self, device))


def _warnings(line: FstabLine, device: EncryptedDevice) -> Iterator[str]:
    if line.type == "swap" and line.meta is TagStorage.ZRAM and device.spec.tag_bytes:
        yield "Do not use it as swap: with tags in zram the guest hangs when its memory is full (docs/encryption.md)."
    if "nofail" in line.options:
        yield f"If /dev/{device.base} does not exist, the line is skipped with a message."


@dataclass(frozen=True)
class Problem:
    """A line of fstab that `/init` cannot process: its number (from 1), its text, the reason, and a hint."""

    number: int
    text: str
    why: str
    hint: str = ""


def parse(text: str) -> tuple[tuple[FstabLine, ...], tuple[Problem, ...]]:
    """Parse an fstab into its lines, without comments, and the problems of invalid ones. Raises nothing."""
    lines: list[FstabLine] = []
    problems: list[Problem] = []
    used: dict[str, int] = {}
    for number, row in enumerate(text.split("\n"), 1):
        if not row.strip() or row.lstrip().startswith("#"):
            continue
        try:
            line = FstabLine.parse(row)
        except InvalidInput as error:
            problems.append(Problem(number, row, f"{error.field} {error.reason}", error.hint))
            continue
        lines.append(line)
        if line.encrypted is not None and "noauto" not in line.options:
            first = used.setdefault(line.encrypted.base, number)
            if first != number:
                problems.append(Problem(number, row, f"/dev/{line.encrypted.base} is already used by line {first}"))
    return tuple(lines), tuple(problems)


def _unescape(field: str) -> str:
    return re.sub(r"\\(040|011|134)", lambda match: _ESCAPES[match[1]], field)


def _escape(field: str) -> str:
    codes = {char: code for code, char in _ESCAPES.items()}
    return re.sub(r"[ \t\\]", lambda match: "\\" + codes[match[0]], field)
