"""Parts of a guest: its disks, the ports that are forwarded to it, and the folders that it shares with its host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from acon_nb.errors import InvalidInput
from acon_nb.validation import Meta, check_fields

_PORT = Meta(ge=1, le=65535)


@dataclass(frozen=True, kw_only=True)
class DiskSpec:
    """A virtio-blk device backed by an image file; the suffix gives the format (guide: `DRV`)."""

    path: Path

    def __post_init__(self) -> None:
        check_fields(self)
        if self.path.suffix not in (".raw", ".qcow2"):
            raise InvalidInput(
                "disks", self.path, "is neither .raw nor .qcow2", hint="the suffix gives the format: rename the image"
            )
        if not self.path.is_file():
            raise InvalidInput("disks", self.path, "is not a file", hint="create it: acon-nb disk create")

    @property
    def format(self) -> str:
        """QEMU's name for the image format."""
        return self.path.suffix[1:]


@dataclass(frozen=True, kw_only=True)
class Forward:
    """A TCP port of the host that is forwarded to the guest (guide: `TCPFWD`); bound to 127.0.0.1 by default."""

    host_port: Annotated[int, _PORT]
    guest_port: Annotated[int, _PORT]
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        check_fields(self)
        if not re.fullmatch(r"([0-9]{1,3}\.){3}[0-9]{1,3}|", self.address):
            hint = "use an IPv4 address of this host (QEMU forwards only IPv4), or an empty one for all of them"
            raise InvalidInput("address", self.address, "is not a valid IPv4 address", hint=hint)


@dataclass(frozen=True, kw_only=True)
class Share:
    """A folder of the host in the guest, by 9p over virtio.

    It is at the absolute path `guest`, and read-only unless `writable`.
    """

    host: Path
    guest: str
    writable: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.host.is_dir():
            hint = "share a folder; one file goes into the guest by --put"
            raise InvalidInput("share", self.host, "is not a folder", hint=hint)
        if not self.guest.startswith("/") or self.guest.strip("/") == "" or "\0" in self.guest:
            raise InvalidInput("share", self.guest, "is not an absolute path of a folder in the guest", hint="/mnt")

    def tag(self, number: int) -> str:
        """The name by which the guest mounts it (mount -t 9p -o trans=virtio TAG FOLDER)."""
        return f"acon.share{number}"


def parse_share(text: str) -> Share:
    """Parse `HOST:GUEST`, with `:rw` behind it for one that the guest may write to. Errors: `InvalidInput`."""
    path, _, mode = text.rpartition(":")
    if mode not in ("ro", "rw"):
        path, mode = text, "ro"
    host, colon, guest = path.rpartition(":")
    if not colon or not host:
        raise InvalidInput("share", text, "is not HOST:GUEST or HOST:GUEST:rw", hint="such as data:/mnt")
    return Share(host=Path(host), guest=guest, writable=mode == "rw")


def check_shares(shares: tuple[Share, ...]) -> None:
    """Refuse two folders at one place. Errors: `InvalidInput`."""
    places = [share.guest.rstrip("/") for share in shares]
    for place in places:
        if places.count(place) > 1:
            raise InvalidInput("share", place, "is given twice", hint="one folder of the host at each of the guest's")


def parse_forward(text: str) -> Forward:
    """Parse `HOST:GUEST`, `PORT` (the same on both sides) or `ADDRESS:HOST:GUEST` (guide: TCPFWD)."""
    parts = text.strip().split(":")
    ports = parts[-2:] if len(parts) > 1 else parts * 2
    if len(parts) > 3 or not all(re.fullmatch(r"[0-9]{1,6}", port) for port in ports):
        raise InvalidInput("TCPFWD", text, "is not a valid port forward", hint="HOST:GUEST, PORT or ADDRESS:HOST:GUEST")
    address = parts[0] if len(parts) == 3 else "127.0.0.1"
    return Forward(host_port=int(ports[0]), guest_port=int(ports[1]), address=address)
