"""`acon-nb bench cluster`: a plan on many hosts."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, out_option, print_json
from acon_nb.cli.bench import bench_group, end_of_study
from acon_nb.progress import TextProgress

if TYPE_CHECKING:
    from acon_nb.study.cluster import ClusterStudy, DaskPool

_PEM = click.Path(path_type=Path, dir_okay=False)


@bench_group.command("cluster")
@click.argument("plan_name", metavar="PLAN", shell_complete=completion.plans)
@click.option("--scheduler", required=True, help="tcp://127.0.0.1:8786, tls://HOST:8786, or a scheduler file (.json).")
@click.option("--tls-ca", type=_PEM, help="TLS: the authority's certificate.  [default: as Dask is configured]")
@click.option("--tls-cert", type=_PEM, help="TLS: this client's certificate.")
@click.option("--tls-key", type=_PEM, help="TLS: this client's key.")
@out_option
@click.option("--runs", type=int, help="Runs of each cell, in place of the plan's.")
@click.option("--again", is_flag=True, help="Measure again what an earlier run of the plan has measured.")
@click.option("--jobs", type=int, help="Compilers at a time on this host, for builds only.")
@click.option("--host-class", default="", help="Part of the name of the class of hosts to use, if there are several.")
@click.option("--skip-unfit", is_flag=True, help="Leave out workers that cannot measure instead of failing.")
@click.option("--patience", "patience_s", type=float, default=60.0, show_default=True, help="Seconds without a host.")
@click.option("--dry-run", is_flag=True, help="List the cells and the hosts, and exit.")
@as_json_option
def bench_cluster(
    plan_name: str,
    scheduler: str,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    out: Path,
    runs: int | None,
    again: bool,
    jobs: int | None,
    host_class: str,
    skip_unfit: bool,
    patience_s: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a plan on a Dask distributed cluster: rows come to this host; a stopped plan resumes (docs/cluster.md)."""
    import dataclasses

    from acon_nb.study import plan as plans
    from acon_nb.study.cluster import DaskPool, cluster_study_of, connect

    plan = plans.load(plan_name)
    if runs is not None:
        plan = dataclasses.replace(plan, runs=runs)
    tls = {name: path for name, path in (("ca", tls_ca), ("cert", tls_cert), ("key", tls_key)) if path is not None}
    with connect(scheduler, tls=tls) as client:
        pool = DaskPool(client)
        study = cluster_study_of(
            plan,
            out,
            pool,
            session=uuid.uuid4().hex if again else "",
            jobs=jobs,
            host_class=host_class,
            skip_unfit=skip_unfit,
            patience_s=patience_s,
        )
        if dry_run:
            _show(study, pool, as_json=as_json)
            return
        rows = study.run(on_progress=TextProgress())
    end_of_study(plan, rows, out, as_json=as_json, duplicates=rows.attrs["duplicates"])


def _show(study: ClusterStudy, pool: DaskPool, *, as_json: bool) -> None:
    """Print the cells with their runs, and the hosts of each class."""
    from acon_nb.study.cluster.membership import look_at

    workers = look_at(pool)
    if as_json:
        cells = [{"cell": cell.label, "runs": cell.planned, "clock": cell.clock} for cell in study.state.cells]
        print_json({"plan": study.plan.name, "cells": cells, "hosts": workers.hosts, "unfit": workers.unfit})
        return
    for cell in study.state.cells:
        click.echo(f"{cell.label}: {cell.planned} runs, {cell.clock} clock")
    for name, count in workers.hosts.items():
        click.echo(f"{count} hosts: {name}")
    for address, why in workers.unfit.items():
        click.echo(f"left out: {address} {why}")
