"""Reads the files that a user names: whole, up to a limit, with errors that name the parameter and the file.

A name may lead anywhere: to nothing, to a folder, to a device without end, to a file of 30 GB, to a disk that fails.
Files of images and kernels are read by `archive` and `bootcheck`, in parts.
"""

from __future__ import annotations

from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes

MOST_BYTES = 64 << 20


def read_bytes(field: str, path: Path, *, hint: str, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the bytes of a file, or of a pipe, that a user named.

    Parameters: `field` is the parameter that named it, `hint` what to give instead, `most_bytes` the most that such a
    file can have. Errors: `InvalidInput` if it cannot be read, or is larger.
    """
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InvalidInput(field, path, error.strerror or "cannot be read", hint=hint) from error
    except ValueError as error:  # a NUL in its name
        raise InvalidInput(field, str(path), "is not the name of a file", hint=hint) from error
    if len(data) > most_bytes:
        raise InvalidInput(field, path, f"is larger than {format_bytes(most_bytes)}", hint=hint)
    return data


def read_text(field: str, path: Path, *, hint: str, most_bytes: int = MOST_BYTES, errors: str = "strict") -> str:
    """Return the text of a file that a user named, in UTF-8.

    `errors` is what happens to bytes that are not ("replace", or refused). Parameters and errors: as `read_bytes`.
    """
    data = read_bytes(field, path, hint=hint, most_bytes=most_bytes)
    try:
        return data.decode("utf-8-sig", errors).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(field, path, f"is not text in UTF-8 (byte {error.start})", hint=hint) from error
