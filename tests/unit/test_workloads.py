"""Workloads by name, and whole Debian packages as a root."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.archive.tree import FileTree
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.host.apt_closure import ClosurePackage
from acon_nb.initrd.sources import debian
from acon_nb.swap import SwapFactors, workloads
from acon_nb.swap.cell import image_of
from acon_nb.swap.program import program_of


@pytest.mark.parametrize("name", workloads.workloads())
def test_each_workload_is_a_program_that_a_cell_takes(name: str) -> None:
    factors = SwapFactors.of({"workload": "program", "workload_name": name})
    argv = program_of(factors).argv
    assert not any("{bytes}" in word for word in argv)
    assert image_of(factors).startswith("debian+dmsetup+")
    assert SwapFactors.of(factors.levels()) == factors
    assert workloads.named(name).source


def test_what_does_not_go_together_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"(?s)workload_name='redsi': is not known.*did you mean redis"):
        SwapFactors(workload_name="redsi")
    with pytest.raises(InvalidInput, match="is not that of redis"):
        SwapFactors(workload_name="redis", program="true")
    for packages in ("tar:my.tar", "oci:x", "Foo", "docker:debian"):
        with pytest.raises(InvalidInput, match="is not a Debian package") as error:
            SwapFactors(workload="program", program="true", packages=packages)
        assert error.value.field == "packages"


def test_packages_that_this_release_lacks_are_refused_by_the_workloads_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(names: list[str]) -> None:
        raise InvalidInput("package", names[0], "is not in apt's lists", hint="apt-get update")

    monkeypatch.setattr(workloads, "closure", none)
    with pytest.raises(InvalidInput, match=r"workload_name='valkey': needs.*Debian 13 \(trixie\) is the first"):
        workloads.check_packages("valkey")
    workloads.check_packages("redis")
    workloads.check_packages("")


def test_every_workload_that_swap_is_measured_with_is_known_by_name() -> None:
    names = {"redis", "valkey", "memcached", "compile", "usemem", "memhog", "sqlite", "postgres", "jvm", "node"}
    assert {*names, "stress-ng", "fio", "python"} == set(workloads.workloads())


def test_postgres_keeps_its_data_where_the_working_set_fits() -> None:
    """The root may take half of the memory and holds the packages: a database there filled it."""
    text = " ".join(program_of(SwapFactors(workload_name="postgres", memory="768M", pressure=0.2)).argv)
    assert "cd /fill" in text
    assert "/tmp" not in text


def test_the_command_lists_them() -> None:
    rows = json.loads(CliRunner().invoke(main, ["bench", "workloads", "--json"]).output)
    assert {"sqlite", "python", "redis", "postgres", "jvm", "node", "fio"} <= {row["name"] for row in rows}


def package(folder: Path, postinst: str) -> ClosurePackage:
    folder.mkdir(parents=True)
    (folder / "postinst").write_text(postinst)
    return ClosurePackage(name="x", version="1", control=folder)


def test_literal_alternatives_and_diversions_are_read_out_of_scripts(tmp_path: Path) -> None:
    script = (
        "#!/bin/sh\nset -e\nif true; then\n"
        "update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\\n"
        "  --slave /usr/bin/nawk nawk /usr/bin/mawk\nfi\n"
        'update-alternatives --install /usr/bin/$i $i "$basedir/bin/$i" 10\n'
        "dpkg-divert --package x --add --rename --divert /bin/sh.distrib /bin/sh\n"
    )
    one = package(tmp_path / "x.control", script)
    assert list(debian._alternatives(one)) == [
        ("/usr/bin/awk", "/usr/bin/mawk", 5),
        ("/usr/bin/nawk", "/usr/bin/mawk", 5),
    ]
    assert list(debian._diversions(one)) == [(b"bin/sh", b"bin/sh.distrib")]


def test_known_links_and_accounts_are_added() -> None:
    tree = FileTree()
    tree.add_file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    tree.add_file("usr/lib/postgresql/15/bin/initdb", b"program", mode=0o755)
    debian._add_known(tree, ClosurePackage(name="postgresql-15", version="15"))
    assert os.fsdecode(tree["usr/bin/initdb"].content.read()) == "/usr/lib/postgresql/15/bin/initdb"
    assert b"postgres:x:101:" in tree["etc/passwd"].content.read()
    assert tree["var/lib/postgresql"].uid == 101
