"""Guest kernels: where the source comes from, what is wished of it, and the build."""

from acon_nb.kernel.build import BuildSpec, KernelImage, build, check, install, values_of
from acon_nb.kernel.config import Difference, WishResult, diff
from acon_nb.kernel.distro import DistroKernel, debian_kernel, module_closure
from acon_nb.kernel.features import PROFILES, Feature, Wish, catalogue, groups, wishes
from acon_nb.kernel.source import SourceTree, fetch

__all__ = [
    "PROFILES",
    "BuildSpec",
    "Difference",
    "DistroKernel",
    "Feature",
    "KernelImage",
    "SourceTree",
    "Wish",
    "WishResult",
    "build",
    "catalogue",
    "check",
    "debian_kernel",
    "diff",
    "fetch",
    "groups",
    "install",
    "module_closure",
    "values_of",
    "wishes",
]
