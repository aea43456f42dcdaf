"""Guest kernels: where the source comes from, what is wished of it, and the build."""

from acon_nb.kernel.browse import OptionInfo, describe, search
from acon_nb.kernel.build import (
    BuildSpec,
    Configuration,
    KernelImage,
    build,
    check,
    configure,
    difference,
    install,
    is_built,
    values_of,
)
from acon_nb.kernel.config import Difference, WishResult, diff
from acon_nb.kernel.distro import DistroKernel, debian_kernel, module_closure
from acon_nb.kernel.features import PROFILES, Feature, Wish, catalogue, groups, wishes
from acon_nb.kernel.source import SourceTree, fetch

__all__ = [
    "PROFILES",
    "BuildSpec",
    "Configuration",
    "Difference",
    "DistroKernel",
    "Feature",
    "KernelImage",
    "OptionInfo",
    "SourceTree",
    "Wish",
    "WishResult",
    "build",
    "catalogue",
    "check",
    "configure",
    "debian_kernel",
    "describe",
    "diff",
    "difference",
    "fetch",
    "groups",
    "install",
    "is_built",
    "module_closure",
    "search",
    "values_of",
    "wishes",
]
