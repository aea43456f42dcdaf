"""The same plan on many hosts: a driver and a Dask distributed cluster, a guest a host at a time (docs/cluster.md)."""

from acon_nb.bench.cluster.driver import ClusterStudy, cluster_study_of
from acon_nb.bench.cluster.pool import DaskPool, connect

__all__ = ["ClusterStudy", "DaskPool", "cluster_study_of", "connect"]
