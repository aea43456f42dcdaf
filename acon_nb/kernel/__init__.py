"""Guest kernels: their sources, the requested options, and the build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.kernel.browse import OptionInfo, describe, search
from acon_nb.kernel.build import (
    BuildSpec,
    Configuration,
    KernelImage,
    build,
    check,
    configure,
    install,
    is_built,
)
from acon_nb.kernel.difference import difference, values_of
from acon_nb.kernel.distro import DistroKernel, built_kernel, debian_kernel, module_closure
from acon_nb.kernel.dotconfig import OptionDifference, OptionResult, diff
from acon_nb.kernel.features import PROFILES, Feature, OptionRequest, catalogue, groups, requested_options
from acon_nb.kernel.packaged import SUITES, PackagedSource, PackagedSources, packaged
from acon_nb.kernel.prove import Proof, prove
from acon_nb.kernel.source import SourceTree, fetch
from acon_nb.lazy import submodules

__all__ = [
    "PROFILES",
    "SUITES",
    "BuildSpec",
    "Configuration",
    "DistroKernel",
    "Feature",
    "KernelImage",
    "OptionDifference",
    "OptionInfo",
    "OptionRequest",
    "OptionResult",
    "PackagedSource",
    "PackagedSources",
    "Proof",
    "SourceTree",
    "build",
    "built_kernel",
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
    "packaged",
    "prove",
    "requested_options",
    "search",
    "values_of",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
