"""Selects one of the images of an archive: by name, digest or position, and by platform.

What is the same image under several names is one choice. Signatures and attestations are never chosen. Whatever cannot
be decided is refused with a table of the ways to choose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from acon_nb.errors import InvalidInput
from acon_nb.initrd.sources.oci import platforms
from acon_nb.initrd.sources.oci.manifests import ArchivedImage
from acon_nb.initrd.sources.oci.platforms import ImagePlatform

_POSITION = re.compile(r"[0-9]{1,5}")
_DIGEST = re.compile(r"(?:(sha256|sha512):)?([0-9a-f]{6,128})")
_MOST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class ImageSelector:
    """What follows the path of an archive, `[:NAME[:TAG]][@DIGEST|@POSITION][@PLATFORM]`; all parts are optional.

    A digest is that of a manifest or of a configuration (an image id), or the first six digits of it or more.
    Errors: `InvalidInput` from `parse`.
    """

    name: str = ""
    digest: str = ""
    position: int | None = None
    platform: ImagePlatform | None = None

    @classmethod
    def parse(cls, text: str, platform: str = "") -> ImageSelector:
        """Parse a text that starts with ":" or "@" or is empty; `platform` is the value of `--platform`."""
        name, *parts = text.removeprefix(":").split("@")
        fields: dict[str, object] = {"name": name}
        if platform:
            fields["platform"] = ImagePlatform.parse(platform)
        for part in parts:
            key, value = _field(text, part)
            if fields.get(key, value) != value:
                raise InvalidInput("image", text, f"names two {key}s", hint=f"give one {key}")
            fields[key] = value
        return cls(**fields)  # type: ignore[arg-type]

    def __str__(self) -> str:
        position = "" if self.position is None else f"@{self.position}"
        return (f":{self.name}" if self.name else "") + position + (f"@{self.digest}" if self.digest else "")

    @property
    def is_exact(self) -> bool:
        """Whether it selects a manifest, not a name that may stand for several platforms."""
        return bool(self.digest) or self.position is not None

    def among(self, images: Sequence[ArchivedImage]) -> list[ArchivedImage]:
        """Return the images that it selects, whatever their platform."""
        chosen = [image for image in images if self.position is None or self.position in image.positions]
        if self.digest:
            chosen = [image for image in chosen if any(_starts(digest, self.digest) for digest in image.digests)]
        return _named(chosen, self.name) if self.name else chosen


def _field(text: str, part: str) -> tuple[str, object]:
    if _POSITION.fullmatch(part):
        return "position", int(part)
    if _DIGEST.fullmatch(part):
        return "digest", part
    if "/" in part:
        return "platform", ImagePlatform.parse(part)
    hint = "such as @sha256:4bcff63911fc, @0 (the first image) or @linux/amd64"
    raise InvalidInput("image", text, f"has {'@' + part!r}, which selects nothing", hint=hint)


def _starts(digest: str, start: str) -> bool:
    return digest.startswith(start) if ":" in start else digest.partition(":")[2].startswith(start)


def _named(images: Sequence[ArchivedImage], name: str) -> list[ArchivedImage]:
    """Return the images of that name: the whole one, else the end of a longer one, else its tag or its repository."""
    rules = (
        lambda each: each in (name, f"{name}:latest"),
        lambda each: each.endswith((f"/{name}", f"/{name}:latest")),
        lambda each: each.rpartition(":")[2] == name,
        lambda each: each.rpartition(":")[0] == name or each.rpartition(":")[0].endswith(f"/{name}"),
    )
    names = {image.key: image.names for image in images}
    for rule in rules:
        chosen = {key for key, each in names.items() if any(map(rule, each))}
        if chosen:
            return [image for image in images if image.key in chosen]
    return []


@dataclass(eq=False)
class _Choice:
    """One image that can be chosen, which an archive may list several times (for tags, or in both of its lists)."""

    images: list[ArchivedImage] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(self.images[0].names))  # which are the same for all

    @property
    def platforms(self) -> list[ImagePlatform]:
        """The platforms that the lists name; a configuration often omits the variant, which an index then has."""
        named = dict.fromkeys(image.platform for image in self.images if image.platform is not None)
        exact = {each.architecture for each in named if each.variant}
        return [each for each in named if each.variant or each.architecture not in exact]

    @property
    def positions(self) -> set[int]:
        return {position for image in self.images for position in image.positions}

    @property
    def missing(self) -> bool:
        return all(image.missing for image in self.images)

    @property
    def best(self) -> ArchivedImage:
        return min(self.images, key=lambda image: (image.missing, bool(image.problem)))

    def rank(self, order: Sequence[ImagePlatform]) -> int | None:
        """Return the place of its platform among those that run, the best being 0; None if it is not one of them."""
        return min((order.index(each) for each in self.platforms if each in order), default=None)

    def is_same_but_for_platform(self, other: _Choice) -> bool:
        """Whether both are variants of one image, so that the platform alone may decide."""
        mine, others = self.names, other.names
        return (
            bool(set(mine) & set(others)) or not (mine or others) or bool((self.positions & other.positions) - {None})
        )


def choose(
    images: Sequence[ArchivedImage], selector: ImageSelector, what: str, machine: ImagePlatform | None = None
) -> tuple[ArchivedImage, str]:
    """Return the selected image of an archive, and a warning or "".

    Parameters: `what` names the archive in errors; `machine` is this machine by default.
    Errors: `InvalidInput` with a table of what there is.
    """
    machine = machine or platforms.of_this_machine()
    listed = selector.among(images)
    choices = _merged([image for image in listed if not image.other])
    if not choices:
        raise _refused(_nothing(images, listed), images, selector, what)
    present = [choice for choice in choices if not choice.missing]
    order = selector.platform.runnable() if selector.platform else machine.runnable_here()
    fitting = present if selector.is_exact and len(present) == 1 and not selector.platform else _best(present, order)
    rest = set(present) - set(fitting)
    if not fitting:
        reason, hint = _unfit(choices, selector.platform or machine, order, foreign=selector.platform is None)
        raise _refused(reason, listed, selector, what, hint)
    if len(fitting) > 1 or not (selector.platform or all(map(fitting[0].is_same_but_for_platform, rest))):
        count = f"{len(fitting) + len(rest)} images"
        raise _refused(f"matches {count}" if str(selector) else f"contains {count}", listed, selector, what)
    image = fitting[0].best
    if image.problem:
        raise _refused(f"cannot be read: {image.problem}", listed, selector, what, "give an image that can be read")
    return image, _warning(image, machine)


def _merged(images: Sequence[ArchivedImage]) -> list[_Choice]:
    choices: dict[str, _Choice] = {}
    for image in images:
        choices.setdefault(image.key, _Choice()).images.append(image)
    return list(choices.values())


def _best(choices: Sequence[_Choice], order: Sequence[ImagePlatform]) -> list[_Choice]:
    """Return the choices of the best platform that runs, and those that do not say for which they are."""
    ranks = [(choice, choice.rank(order)) for choice in choices]
    best = min((rank for _, rank in ranks if rank is not None), default=None)
    return [choice for choice, rank in ranks if not choice.platforms or (rank is not None and rank == best)]


def _nothing(images: Sequence[ArchivedImage], listed: Sequence[ArchivedImage]) -> str:
    """Explain why there is nothing to choose from."""
    if not images:
        return "lists no images"
    if not listed:
        return "is not in the archive"
    others = ", ".join(dict.fromkeys(_printable(image.other) for image in listed))
    return f"is not an image, but: {others}" if len(listed) == 1 else f"contains no image, but: {others}"


def _unfit(
    choices: Sequence[_Choice], wanted: ImagePlatform, order: Sequence[ImagePlatform], *, foreign: bool
) -> tuple[str, str]:
    """Explain why no image fits, and what to do."""
    present = [choice for choice in choices if not choice.missing]
    names = " or ".join(str(each) for choice in present for each in choice.platforms)
    if not present or any(choice.missing and choice.rank(order) is not None for choice in choices):
        hint = "save it again, on a host that has pulled it" + (f"; or give --platform {names}" if names else "")
        return f"lists an image for {wanted}, but does not contain it", hint
    hint = f"to use another one: --platform {names}" if foreign else f"give --platform {names}"
    return f"contains no image for {wanted}", hint


def _warning(image: ArchivedImage, machine: ImagePlatform) -> str:
    actual = ImagePlatform.of_record(image.config or {})
    if image.platform is None:
        return ""
    if actual is not None and actual.architecture != image.platform.architecture:
        return f"the index says that the image is for {image.platform}, its configuration {actual}"
    return platforms.warning(image.platform, machine)


def _refused(
    reason: str, images: Sequence[ArchivedImage], selector: ImageSelector, what: str, hint: str = ""
) -> InvalidInput:
    """Create an error with a table of what can be chosen, and how."""
    choices = _merged(images)
    usable = [choice for choice in choices if not choice.best.other]
    few = [*usable, *(choice for choice in choices if choice.best.other)][:_MOST_ROWS]
    rows = [("name", "position", "digest", "platform", ""), *(_row(choice, choices) for choice in few)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(choices) > len(few):
        lines.append(f"and {len(choices) - len(few)} more")
    if not hint:
        way = next((word for cell in rows[1][:3] for word in cell.split(" ") if word), "") if usable else ""
        hint = f"choose one of them, such as {what}{way}" if way else "give the archive of an image"
    return InvalidInput("image", f"{what}{selector}", reason, hint=hint, details=lines if choices else ())


def _row(choice: _Choice, choices: Sequence[_Choice]) -> tuple[str, ...]:
    """Return the ways to choose an image (names, position, digest), its platform, and what is special about it."""
    others = {position for other in choices if other is not choice for position in other.positions}
    positions = sorted(choice.positions - others)
    digest = max(choice.images, key=lambda image: len(image.digests)).digests[0]
    algorithm, _, encoded = digest.partition(":")
    return (
        " ".join(f":{_printable(name)}" for name in choice.names[:3]),
        f"@{positions[0]}" if positions else "",
        f"@{algorithm}:{encoded[:12]}",
        " or ".join(map(str, choice.platforms)) or "unknown",
        _printable(choice.best.other or choice.best.problem),
    )


def _printable(text: str) -> str:
    """Escape a text of an archive, so that it cannot control a terminal."""
    return repr(text[:120])[1:-1]
