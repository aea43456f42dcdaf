"""What is asked of an image: which swap it needs at which share of the memory that it takes, and what that costs."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from acon_nb.errors import InvalidInput
from acon_nb.swap.setups import by_name
from acon_nb.units import parse_bytes, parse_ns
from acon_nb.validation import Meta, OneOf, check_fields
from acon_nb.vm import Clock

_SHARE = re.compile(r"(\d+(?:\.\d+)?)x")
_PORT = re.compile(r"port:(\d{1,5})")
_LEAST_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class ImageQuestion:
    """A program of an image, and what is asked of it.

    `image` is as in `initrd.tree_of`; `command` replaces its own CMD, as for `docker run` (its ENTRYPOINT stays), and
    `environment` adds NAME=VALUE to its own. `at` are the shares of the measured peak ("0.5x") or sizes ("256M") that
    are available to the program; `setups` names what is compared; `seeds` is how often each is run.

    A server, which never ends, needs `run_for`, a time of the guest's ("30s"), or a `driver`, a second command of the
    image that starts when the server is `ready`: a text that it writes, or port:N on which it answers. `limit` is the
    time of the guest's after which a command that has not ended is refused. `clock` is instructions or wall; `kernel`
    is "build" (the study's own), a bzImage's path or debian:SERIES; `timeout_s` limits each guest on the wall.
    Errors: `InvalidInput` at construction.
    """

    image: str
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    at: tuple[str, ...] = ("0.5x", "0.75x", "1x")
    setups: tuple[str, ...] = ()
    seeds: Annotated[int, Meta(ge=1, le=1000)] = 5
    run_for: str = ""
    driver: tuple[str, ...] = ()
    ready: str = ""
    limit: str = "600s"
    clock: Annotated[str, OneOf(tuple(Clock))] = "instructions"
    kernel: str = "build"
    timeout_s: Annotated[float, Meta(ge=1, le=86400)] = 3600.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.image:
            raise InvalidInput("image", "", "is empty", hint="such as docker-archive:my.tar, or busybox+PACKAGE")
        if not self.at:
            raise InvalidInput("at", "", "is empty", hint="such as 0.5x,0.75x,1x of the peak, or 256M")
        for text in self.at:
            available_of(text, 1 << 30)
        for name in self.setups:
            by_name(name)
        if len(set(self.setups)) < len(self.setups):
            raise InvalidInput("setups", ",".join(self.setups), "has a set-up twice", hint="name each once")
        if len({available_of(text, 1 << 40) for text in self.at}) < len(self.at):
            raise InvalidInput("at", ",".join(self.at), "has a share twice", hint="name each once")
        if self.ready and not self.driver:
            raise InvalidInput("ready", self.ready, "is for a server with a driver", hint="give driver too")
        if self.driver and not self.ready:
            hint = "a text that the server writes when it is ready, or port:N on which it answers then"
            raise InvalidInput("driver", self.driver[0], "needs ready: when is it to start?", hint=hint)
        if self.driver and self.run_for:
            hint = "give one: a run with a driver ends with the driver"
            raise InvalidInput("run_for", self.run_for, "does not go with driver", hint=hint)
        if self.ready.startswith("port:"):
            match = _PORT.fullmatch(self.ready)
            if match is None or not 0 < int(match[1]) < 65536:
                raise InvalidInput("ready", self.ready, "is not a port", hint="port:1 to port:65535")
        for name in ("run_for", "limit"):
            if getattr(self, name) and not parse_ns(getattr(self, name), field=name):
                raise InvalidInput(name, getattr(self, name), "is not a time above 0", hint="such as 30s")
        if not self.limit:
            raise InvalidInput("limit", "", "is empty", hint="such as 600s of the guest's time")

    @property
    def for_ns(self) -> int:
        """How long the program runs, in ns of the guest's clock (0: until it ends)."""
        return parse_ns(self.run_for, field="run_for") if self.run_for else 0

    @property
    def limit_ns(self) -> int:
        """When a program must have ended, in ns of the guest's clock."""
        return parse_ns(self.limit, field="limit")

    @property
    def name(self) -> str:
        """The name of the study of it: that of the image in letters, digits and dashes."""
        last = re.split(r"[/@]", self.image.rstrip("/"))[-1].removesuffix(".tar")
        words = re.sub(r"[^A-Za-z0-9]+", "-", last).strip("-").lower()
        return f"image-{words[:40] or 'program'}".rstrip("-")


def available_of(text: str, peak_bytes: int) -> int:
    """The bytes that "0.5x" of a peak, or a size, stands for. Errors: `InvalidInput`."""
    match = _SHARE.fullmatch(text)
    hint = "a share of the peak such as 0.5x, or a size such as 256M"
    if match is None:
        try:
            size = parse_bytes(text, field="at")
        except InvalidInput as error:
            raise InvalidInput("at", text, "is neither a share nor a size", hint=hint) from error
    else:
        share = float(match[1])
        if not 0.01 <= share <= 8 or not math.isfinite(share):
            raise InvalidInput("at", text, "is not a share from 0.01x to 8x", hint=hint)
        size = round(share * peak_bytes)
    if size < _LEAST_BYTES:
        raise InvalidInput("at", text, f"leaves {size} bytes", hint="4M or more: a program needs some to start at all")
    return size // 4096 * 4096


def words_of(field: str, words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command: as they are, or of one text, taken apart as a shell does. Errors: `InvalidInput`."""
    if len(words) != 1 or not set(words[0]) & set(" \t\n'\"\\"):
        return tuple(words)
    try:
        return tuple(shlex.split(words[0]))
    except ValueError as error:
        reason = f"is not quoted as in a shell: {error}"
        raise InvalidInput(field, words[0], reason, hint="give the words one by one") from error
