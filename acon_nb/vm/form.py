"""Convert a spec to texts that a person edits, and back, with the errors of all fields at once."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.units import parse_bytes
from acon_nb.validation import read_text
from acon_nb.vm.parts import DiskSpec, parse_forward, parse_share
from acon_nb.vm.spec import DIGESTS, SWITCHES, VmSpec

_SAME_FIELD = dict.fromkeys(("TCPFWD", "host_port", "guest_port", "address", "network"), "forwards")
_SAME_FIELD["share"] = "shares"


def texts_of(spec: VmSpec) -> dict[str, str]:
    """Return the fields of `spec` that a form shows, as a person would write them."""
    firmware, cid = spec.firmware, spec.vsock_cid
    return {
        "kernel": str(spec.kernel),
        "initrd": str(spec.initrd or ""),
        "append": spec.append,
        "memory_bytes": f"{spec.memory_bytes >> 20}M",
        "vcpus": str(spec.vcpus),
        "machine": spec.machine,
        "accelerator": spec.accelerator,
        "firmware": str(firmware or ""),
        "disks": ",".join(str(disk.path) for disk in spec.disks),
        "forwards": ",".join(f"{rule.address}:{rule.host_port}:{rule.guest_port}" for rule in spec.forwards),
        "shares": ",".join(f"{one.host}:{one.guest}{':rw' if one.writable else ''}" for one in spec.shares),
        "vsock_cid": "" if cid is None else str(cid),
        "td": spec.td or "",
        "td_flavour": spec.td_flavour or "upstream",
        "quote_socket": spec.quote_socket or "",
        "mrconfigid": spec.mrconfigid or "",
        "mrowner": spec.mrowner or "",
        "mrownerconfig": spec.mrownerconfig or "",
        "attributes": spec.attributes or "",
        "sept_ve_disable": _switch(spec.sept_ve_disable),
        "debug": _switch(spec.debug),
        "memory_backend": spec.memory_backend or "",
        "hugepages": spec.hugepages or "",
        "numa": "" if spec.numa is None else str(spec.numa),
        "host_nodes": spec.host_nodes or "",
        "timeout_s": "" if math.isinf(spec.timeout_s) else f"{spec.timeout_s:g}",
        "extra": shlex.join(spec.extra),
    }


def read_texts(texts: Mapping[str, str], base: VmSpec) -> tuple[VmSpec | None, dict[str, str]]:
    """Return `base` with the fields of `texts` (None if any is invalid), and the errors by field."""
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, text in texts.items():
        try:
            values[name] = _READERS.get(name, str)(text.strip())
        except InvalidInput as error:
            errors[name] = error_text(error)
    if values.get("forwards"):
        values["network"] = True
    if not values.get("td", base.td):
        values |= dict.fromkeys(("td_flavour", "quote_socket", *DIGESTS, *SWITCHES))
    spec: VmSpec | None = None
    try:
        spec = replace(base, **values)
    except InvalidInput as error:
        errors.setdefault(field_of(error), error_text(error))
    return (None if errors else spec), errors


def field_of(error: InvalidInput) -> str:
    """Return the form's field that an error belongs to."""
    field = re.split(r"[.\[]", error.field)[0]  # disks[0] is shown with disks
    return _SAME_FIELD.get(field, field)


def error_text(error: InvalidInput) -> str:
    """Return an error as shown next to its field: the reason and the hint."""
    return f"{error.reason}: {error.hint}" if error.hint else error.reason


def _switch(value: bool | None) -> str:
    return "" if value is None else "on" if value else "off"


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text else None


def _field(name: str) -> Callable[[str], Any]:
    return lambda text: read_text(VmSpec, name, text)


def _path(field: str) -> Callable[[str], Path]:
    def read(text: str) -> Path:
        if not text:
            raise InvalidInput(field, text, "is empty", hint="name a file")
        path = Path(text)
        try:
            path.is_file()
        except OSError as error:  # a name too long, a loop of links
            raise InvalidInput(field, text, error.strerror or "not a valid path", hint="name a file") from error
        return path

    return read


def _disks(text: str) -> tuple[DiskSpec, ...]:
    return tuple(DiskSpec(path=_path("disks")(part.strip())) for part in text.split(",") if part.strip())


def _seconds(text: str) -> Any:
    return read_text(VmSpec, "timeout_s", text) if text else math.inf


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidInput("extra", text, str(error), hint="close the quotes") from error


_READERS: dict[str, Callable[[str], Any]] = {
    "kernel": _path("kernel"),
    "initrd": _optional(_path("initrd")),
    "memory_bytes": lambda text: parse_bytes(text, field="memory_bytes", bare="M"),
    "vcpus": _field("vcpus"),
    "firmware": _optional(_path("firmware")),
    "disks": _disks,
    "forwards": lambda text: tuple(parse_forward(part) for part in text.split(",") if part.strip()),
    "shares": lambda text: tuple(parse_share(part.strip()) for part in text.split(",") if part.strip()),
    "vsock_cid": _field("vsock_cid"),
    "td": _optional(str),
    "td_flavour": lambda text: None if text == "upstream" else text,
    "quote_socket": _optional(str),
    **dict.fromkeys(("mrconfigid", "mrowner", "mrownerconfig", "attributes", "host_nodes"), _optional(str)),
    **{name: _field(name) for name in ("sept_ve_disable", "debug", "numa")},
    **dict.fromkeys(("memory_backend", "hugepages"), _optional(str)),
    "timeout_s": _seconds,
    "extra": _words,
}
