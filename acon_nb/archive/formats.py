"""Recognises what a file is by its first bytes, for messages about files that are something else than expected."""

from __future__ import annotations

from dataclasses import dataclass

from acon_nb.archive.decompress import MAGIC, program_of

HEAD_BYTES = 66 << 10  # as far as the signs below reach
_UNPACK = "unpack it into a folder, then give dir:FOLDER"
_MOUNT = "mount or unpack it, then give dir:FOLDER"
_DECOMPRESS = "decompress it first"


@dataclass(frozen=True)
class FileFormat:
    """A format: where its sign is, the sign, what such a file is ("a zip archive"), and how to read it here."""

    offset: int
    sign: bytes
    what: str
    hint: str


TAR = FileFormat(257, b"ustar", "a tar", "read it as tar:FILE (docker-archive:FILE or oci:FILE, if it is of an image)")
_FORMATS = (
    FileFormat(0, b"070701", "a cpio archive", "read it as cpio:FILE"),
    FileFormat(0, b"070702", "a cpio archive", "read it as cpio:FILE"),
    FileFormat(0, b"070707", "a cpio archive in the odc format", "write it with cpio -H newc, then give cpio:FILE"),
    FileFormat(0, b"\xc7\x71", "a cpio archive in the old binary format", "write it with cpio -H newc"),
    TAR,
    *(
        FileFormat(0, sign, f"{program_of(suffix)} data", _DECOMPRESS)
        for sign, suffix in MAGIC
        if suffix != "lzma"  # whose three bytes are too common
    ),
    FileFormat(0, b"LZIP", "lzip data", f"{_DECOMPRESS}: lzip -d FILE"),
    FileFormat(0, b"\x1f\x9d", "data of compress(1)", f"{_DECOMPRESS}: uncompress FILE"),
    FileFormat(0, b"\x89LZO\0", "lzop data", f"{_DECOMPRESS}: lzop -d FILE"),
    FileFormat(0, b"PK\x03\x04", "a zip archive", _UNPACK),
    FileFormat(0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    FileFormat(0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    FileFormat(0, b"xar!", "a xar archive", _UNPACK),
    FileFormat(0, b"!<arch>\ndebian-binary", "a Debian package", "dpkg-deb --fsys-tarfile FILE > FILE.tar"),
    FileFormat(0, b"!<arch>\n", "an ar archive", _UNPACK),
    FileFormat(0, b"\xed\xab\xee\xdb", "an RPM package", "rpm2archive FILE"),
    FileFormat(0, b"hsqs", "a squashfs image", "unpack it with unsquashfs, then give dir:FOLDER"),
    FileFormat(1080, b"\x53\xef", "an ext2, ext3 or ext4 file system", _MOUNT),
    FileFormat(0, b"XFSB", "an XFS file system", _MOUNT),
    FileFormat(65600, b"_BHRfS_M", "a Btrfs file system", _MOUNT),
    FileFormat(1024, b"\xe2\xe1\xf5\xe0", "an EROFS image", _MOUNT),
    FileFormat(32769, b"CD001", "an ISO 9660 image", _MOUNT),
    FileFormat(0, b"QFI\xfb", "a qcow2 disk image", _MOUNT),
    FileFormat(0, b"KDMV", "a VMDK disk image", _MOUNT),
    FileFormat(0, b"SIMG", "a Singularity image", "apptainer build --sandbox FOLDER FILE, then give dir:FOLDER"),
    FileFormat(514, b"HdrS", "a Linux kernel", "give the initrd or root file system that belongs to it"),
    FileFormat(
        0, b"MZ", "an EFI program", "for a unified kernel image: objcopy -O binary --only-section=.initrd FILE INITRD"
    ),
    FileFormat(0, b"\x7fELF", "an ELF program", "give the archive or folder of a root file system"),
    FileFormat(0, b"#!", "a script", "give the archive or folder of a root file system"),
    FileFormat(510, b"\x55\xaa", "a disk image with a boot sector", _MOUNT),
    FileFormat(0, b"{", "text that looks like JSON", "give the archive itself"),
    FileFormat(0, b"<", "text that looks like HTML or XML", "download it again: this may be an error page"),
)


def recognise(head: bytes) -> FileFormat | None:
    """Return the format of a file that begins with `head` (of `HEAD_BYTES`, if it has as many); None if unknown."""
    for form in _FORMATS:
        if head.startswith(form.sign, form.offset):
            return form
    return None
