"""`initrd sbom`: the packages of an image in CycloneDX and SPDX, valid and reproducible."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.cache import sha256_file
from acon_nb.cli import main
from acon_nb.errors import MissingRequirement
from acon_nb.initrd import FileTree, create
from acon_nb.initrd.sbom import NO_DATABASE, SbomFormat, sbom


def alpine() -> FileTree:
    tree = FileTree()
    tree.add_file("init", b"#!/bin/sh\n", mode=0o755)
    tree.add_file("lib/ld-musl-x86_64.so.1", b"musl")
    tree.add_file("etc/os-release", b"ID=alpine\nVERSION_ID=3.20.3\n")
    tree.add_file(
        "lib/apk/db/installed",
        b"P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nF:lib\nR:ld-musl-x86_64.so.1\n\n"
        b"P:odd\nV:1\nA:x86_64\nL:no SPDX at all\n\n",
    )
    return tree


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return create(alpine(), tmp_path / "alpine.cpio.gz").path


def run(*argv: object) -> str:
    result = CliRunner().invoke(main, ["initrd", "sbom", *map(str, argv)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_cyclonedx_lists_packages_with_their_purls(image: Path) -> None:
    made = json.loads(run(image))
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert made["metadata"]["component"]["name"] == "alpine.cpio.gz"
    assert made["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": sha256_file(image)}]
    assert "timestamp" not in made["metadata"]
    musl, odd = made["components"]
    assert musl["purl"] == "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.3"
    assert (musl["version"], musl["licenses"]) == ("1.2.5-r0", [{"license": {"id": "MIT"}}])
    assert odd["licenses"] == [{"license": {"name": "no SPDX at all"}}]


def test_spdx_lists_the_same_packages(image: Path) -> None:
    made = json.loads(run(image, "--format", "spdx"))
    assert made["spdxVersion"] == "SPDX-2.3"
    assert made["creationInfo"]["created"] == "2000-01-01T00:00:00Z"
    assert [part["name"] for part in made["packages"]] == ["alpine.cpio.gz", "musl", "odd"]
    assert made["packages"][1]["externalRefs"][0]["referenceLocator"].startswith("pkg:apk/alpine/musl@1.2.5-r0")


@pytest.mark.parametrize("form", [*SbomFormat])
def test_the_same_image_gives_the_same_bytes_and_the_variable_its_time(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: SbomFormat
) -> None:
    assert run(image, "--format", form) == run(image, "--format", form)
    monkeypatch.setenv("T", "202012310000")
    assert "2020-12-31T00:00:00" in run(image, "--format", form)
    stdout = run(image, "--format", form, "-o", tmp_path / "sbom.json")
    assert stdout == f"{tmp_path / 'sbom.json'}: 2 packages\n"
    other = alpine()
    other.add_file("lib/apk/db/installed", b"P:musl\nV:2\n\n")
    names = {"spdx": "documentNamespace", "cyclonedx": "serialNumber"}
    first, second = (json.loads(sbom(tree, "x", form).text)[names[form]] for tree in (alpine(), other))
    assert first != second


def test_purls_of_deb_and_rpm() -> None:
    from acon_nb.initrd.package_databases import InstalledPackage
    from acon_nb.initrd.sbom import _purl

    deb = InstalledPackage(kind="deb", name="libc6", version="2.36-9+deb12u8", architecture="amd64")
    assert (
        _purl(deb, ("debian", "12")).to_string() == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u8?arch=amd64&distro=debian-12"
    )
    rpm = InstalledPackage(kind="rpm", name="shadow", version="2:4.15-1", architecture="x86_64")
    assert (
        _purl(rpm, ("fedora", "40")).to_string() == "pkg:rpm/fedora/shadow@4.15-1?arch=x86_64&distro=fedora-40&epoch=2"
    )


def test_what_the_sbom_does_not_cover_is_said() -> None:
    assert sbom(FileTree(), "x", SbomFormat.CYCLONEDX).notes == (NO_DATABASE,)
    (note,) = sbom(alpine(), "x", SbomFormat.SPDX).notes
    assert note.startswith("3 files belong to no package")


def test_without_the_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cyclonedx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cyclonedx", None)
    with pytest.raises(MissingRequirement, match=r"acon-nb\[sbom\]"):
        sbom(alpine(), "x", SbomFormat.CYCLONEDX)
