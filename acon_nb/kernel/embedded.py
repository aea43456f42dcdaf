"""Files outside the source tree that options name and that a build copies into the kernel: they are part of its inputs.

A path alone would let the cache hand out a kernel with the file's former content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from acon_nb.cache import atomic_file, key_of, remove, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.kernel.pins import GENERATED_KEY
from acon_nb.kernel.source import SourceTree

_RECORD = "embedded.json"
# By option: what in the build folder is made of the file (patterns), to be made again when its content changes
_MADE = {
    "INITRAMFS_SOURCE": ("usr/*", "usr/.*"),
    "SYSTEM_TRUSTED_KEYS": ("certs/*", "certs/.*"),
    "SYSTEM_REVOCATION_KEYS": ("certs/*", "certs/.*"),
    "SYSTEM_BLACKLIST_HASH_LIST": ("certs/*", "certs/.*"),
    "MODULE_SIG_KEY": ("certs/*", "certs/.*"),
    "EXTRA_FIRMWARE": ("drivers/base/firmware_loader/builtin/*", "drivers/base/firmware_loader/builtin/.*"),
    "ACPI_CUSTOM_DSDT_FILE": ("drivers/acpi/tables.o",),
    "BOOT_CONFIG_EMBED_FILE": ("lib/*bootconfig*", "lib/.*bootconfig*"),
}
_LISTED = re.compile(r"^file\s+\S+\s+(\S+)", re.MULTILINE)  # gen_init_cpio's "file NAME LOCATION MODE UID GID"


def digests(values: Mapping[str, str], tree: SourceTree) -> dict[str, str]:
    """Return the hash of what each option's files hold, by option; those without a file are left out.

    Errors: `InvalidInput` for a file that is not there, or whose path is neither absolute nor one of the tree.
    """
    held = {}
    for option in _MADE:
        paths = tuple(_paths(option, values, tree))
        if paths:
            held[option] = key_of({str(path): _digest(option, path) for path in paths})
    return held


def remove_outdated(work: Path, held: Mapping[str, str]) -> None:
    """Remove from a build folder what was made of other content than `held` says, and record that."""
    record = work / _RECORD
    before = json.loads(record.read_text()) if record.is_file() else {}
    for option in _MADE:
        if before.get(option) != held.get(option):
            for pattern in _MADE[option]:
                for path in work.glob(pattern):
                    remove(path)
    if before != held:
        with atomic_file(record) as temporary:
            temporary.write_text(json.dumps(dict(held)))


def _paths(option: str, values: Mapping[str, str], tree: SourceTree) -> Iterator[Path]:
    folder = tree.path
    if option == "EXTRA_FIRMWARE":
        folder = tree.path / (values.get("EXTRA_FIRMWARE_DIR") or "/lib/firmware")
    for word in values.get(option, "").split():
        if word in ("n", GENERATED_KEY) or word.startswith("pkcs11:"):
            continue
        path = folder / word
        if not path.exists():
            reason = f"names a file that is not there: {path}"
            hint = "correct the path; one that is not absolute is looked for there"
            raise InvalidInput("settings", f"{option}={values[option]}", reason, hint=hint)
        if option == "INITRAMFS_SOURCE" and not Path(word).is_absolute():
            reason = "has a relative path, which kbuild would look for in its build folder"
            raise InvalidInput("settings", f"{option}={values[option]}", reason, hint="give an absolute path")
        yield path


def _digest(option: str, path: Path) -> str:
    if path.is_dir():
        names = (one for one in sorted(path.rglob("*")) if one.is_file() or one.is_symlink())
        return key_of({str(one.relative_to(path)): [one.lstat().st_mode, _content(one)] for one in names})
    if option != "INITRAMFS_SOURCE" or path.name.partition(".")[2].startswith("cpio"):
        return sha256_file(path)
    listed = _LISTED.findall(path.read_text(errors="replace"))
    return key_of({"list": sha256_file(path), **{name: _content(Path(name)) for name in listed}})


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    return sha256_file(path) if path.is_file() else ""
