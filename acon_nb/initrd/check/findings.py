"""What the check says: findings for people, and the troubles that become findings once the kernel is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs: the guest does not boot, cannot be known, boots but lacks something, a remark."""

    ERROR = "error"
    UNKNOWN = "unknown"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True)
class BootFinding:
    """One finding: what is wrong, why it matters, what to do about it ("" if there is nothing to do)."""

    severity: Severity
    what: str
    why: str
    fix: str = ""

    @property
    def line(self) -> str:
        """The finding as one line, without its severity."""
        return f"{self.what}: {self.why}" + (f" ({self.fix})" if self.fix else "")

    def __str__(self) -> str:
        text = f"{self.severity}: {self.what}: {self.why}"
        return f"{text}\n  fix: {self.fix}" if self.fix else text


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that does not work on some or all kernels.

    With `options` it is trouble only for a kernel that has none of them built in; one that is a module counts if
    `loadable`, that is if the image has the module. `sure` is False where it cannot be known from image and kernel.
    """

    severity: Severity
    what: str
    why: str
    fix: str = ""
    options: tuple[str, ...] = ()
    loadable: bool = False
    sure: bool = True


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What the check knows of a kernel.

    `options` holds values of its configuration ("y", "m", "n"), by name without CONFIG_; options that are not in it are
    not set if `complete`, and unknown otherwise. `given` is False if there is no kernel to look at: then what every
    usual kernel has is assumed. `image_bytes` is the memory that the kernel itself occupies (None: unknown).
    """

    options: Mapping[str, str]
    complete: bool
    given: bool = True
    release: str = ""
    image_bytes: int | None = None

    def value(self, option: str) -> str | None:
        """Return the value of an option; None if it is not known."""
        return self.options.get(option, "n" if self.complete else None)


# Options without which hardly any kernel is built, assumed of a kernel that is not given
USUAL = ("X86_64", "BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT", "VIRTIO_CONSOLE", "SERIAL_8250_CONSOLE")
NO_KERNEL = Kernel(options=dict.fromkeys(USUAL, "y"), complete=False, given=False)


@dataclass(frozen=True, kw_only=True)
class BootVerdict:
    """Whether a guest boots (None: cannot be known) and the findings, the gravest first.

    It boots if the kernel starts the image's init (`rdinit=`, by default /init), and that runs its program.
    """

    boots: bool | None
    findings: tuple[BootFinding, ...]

    @property
    def exit_status(self) -> int:
        """The exit status of `acon-nb initrd check`: 0 boots, 1 does not boot, 3 cannot know."""
        return {True: 0, False: 1, None: 3}[self.boots]


def weigh(trouble: Trouble, kernel: Kernel) -> BootFinding | None:
    """Return the finding that a trouble is on this kernel; None if it is none."""
    severity = trouble.severity
    why = trouble.why
    if trouble.options:
        values = [kernel.value(option) for option in trouble.options]
        if "y" in values or (trouble.loadable and "m" in values):
            return None
        names = " or ".join(f"CONFIG_{option}" for option in trouble.options)
        if None in values:
            if severity is not Severity.ERROR:
                return None  # no more than a guess
            return BootFinding(severity=Severity.UNKNOWN, what=trouble.what, why=f"{why}: {_unknown(names, kernel)}")
        module = next((option for option, value in zip(trouble.options, values, strict=True) if value == "m"), "")
        why = f"{why}, but {f'CONFIG_{module} is only a module' if module else f'the kernel lacks {names}'}"
    if severity is Severity.ERROR and not trouble.sure:
        severity = Severity.UNKNOWN
    return BootFinding(severity=severity, what=trouble.what, why=why, fix=trouble.fix)


def _unknown(names: str, kernel: Kernel) -> str:
    if not kernel.given:
        return f"{names} of the kernel is not known; give it with --kernel"
    return f"whether the kernel has {names} is not known; put its .config next to it as config-RELEASE"


def verdict(findings: Iterable[BootFinding]) -> BootVerdict:
    """Return the verdict that findings amount to."""
    order = list(Severity)
    ordered = tuple(sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.severity)))
    severities = {finding.severity for finding in ordered}
    boots = False if Severity.ERROR in severities else None if Severity.UNKNOWN in severities else True
    return BootVerdict(boots=boots, findings=ordered)
