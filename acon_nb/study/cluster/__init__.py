"""Measures a plan on many hosts: a driver and a Dask distributed cluster (docs/cluster.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules
from acon_nb.study.cluster.driver import ClusterStudy, cluster_study_of
from acon_nb.study.cluster.pool import DaskPool, connect

__all__ = ["ClusterStudy", "DaskPool", "cluster_study_of", "connect"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
