"""Lists the packages of an image as an SBOM, in CycloneDX 1.6 or SPDX 2.3 (JSON).

The packages are those of the databases in the tree; the libraries that write the formats also validate the result.
The same image gives the same bytes: identifiers are derived from its content, and the time is the one that is given.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from acon_nb import __version__
from acon_nb.archive.tree import FileTree
from acon_nb.cache import sha256_file
from acon_nb.errors import AconError, MissingRequirement
from acon_nb.initrd.image import DEFAULT_MTIME
from acon_nb.initrd.package_databases import InstalledPackage, InstalledPackages, installed

NO_DATABASE = "no package database of dpkg, apk or rpm was read: the SBOM lists no package"
_NAMESPACE = uuid.UUID("6c1f4d8e-7a55-5b0e-9d0b-3a9e0f2c4b11")
_PURL_DISTRIBUTION = {"deb": "debian", "apk": "alpine", "rpm": "redhat"}  # without an os-release


class SbomFormat(StrEnum):
    """The formats of an SBOM."""

    SPDX = "spdx"
    CYCLONEDX = "cyclonedx"


@dataclass(frozen=True, kw_only=True)
class Sbom:
    """An SBOM as JSON, the packages that it lists, and sentences on what it lacks."""

    text: str
    packages: InstalledPackages
    notes: tuple[str, ...]


def sbom(tree: FileTree, name: str, form: SbomFormat, *, file: Path | None = None, time: int | None = None) -> Sbom:
    """List the packages of a tree.

    `name` is the image's, `file` its file, whose SHA-256 is included; `time` is the time of creation in s since 1970.
    Without it CycloneDX has none, and SPDX, which requires one, 2000-01-01.
    Errors: `MissingRequirement` (the libraries of acon-nb[sbom]), `AconError` (the result is not valid).
    """
    packages = installed(tree)
    owners = packages.owners()
    without = sum(entry.is_file and key not in owners for key, entry in tree.items())
    notes = list(packages.unread)
    if not packages.packages:
        notes.append(NO_DATABASE)
    elif without:
        notes.append(f"{without} files belong to no package, so the SBOM does not cover them")
    digest = None if file is None else sha256_file(file)
    with _libraries():
        text = _WRITERS[form](packages, name, digest, time)
    return Sbom(text=text, packages=packages, notes=tuple(notes))


@contextmanager
def _libraries() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        hint = "pip install 'acon-nb[sbom]'"
        raise MissingRequirement(str(error.name), "writing an SBOM", hint=hint) from error


def _identity(packages: InstalledPackages, name: str, digest: str | None) -> uuid.UUID:
    """Return an identifier that depends on the content alone."""
    text = json.dumps([name, digest, [(it.kind, it.name, it.version, it.architecture) for it in packages.packages]])
    return uuid.uuid5(_NAMESPACE, hashlib.sha256(text.encode()).hexdigest())


def _purl(package: InstalledPackage, distribution: tuple[str, str]) -> Any:
    from packageurl import PackageURL

    name, version = distribution
    qualifiers = {"arch": package.architecture} if package.architecture else {}
    if name and version:
        qualifiers["distro"] = f"{name}-{version}"
    number = package.version
    if package.kind == "rpm" and ":" in number:
        qualifiers["epoch"], _, number = number.partition(":")
    namespace = name or _PURL_DISTRIBUTION[package.kind]
    return PackageURL(package.kind, namespace, package.name, number or None, qualifiers)


def _cyclonedx(packages: InstalledPackages, name: str, digest: str | None, time: int | None) -> str:
    from cyclonedx.factory.license import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    bom = Bom(serial_number=_identity(packages, name, digest))
    bom.metadata.timestamp = None if time is None else datetime.fromtimestamp(time, UTC)  # type: ignore[assignment]
    bom.metadata.tools.components.add(Component(name="acon-nb", version=__version__, type=ComponentType.APPLICATION))
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else []
    root = Component(name=name, type=ComponentType.OPERATING_SYSTEM, bom_ref="image", hashes=hashes)
    bom.metadata.component = root
    components = []
    for package in packages.packages:
        purl = _purl(package, packages.distribution)
        components.append(
            Component(
                name=package.name,
                version=package.version,
                purl=purl,
                bom_ref=purl.to_string(),
                licenses=[LicenseFactory().make_from_string(package.license)] if package.license else [],
            )
        )
    bom.components.update(components)
    bom.register_dependency(root, components)
    text: str = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise AconError(f"the SBOM of {name} is not valid CycloneDX: {problem}", hint="report it with the image's name")
    return text


def _spdx(packages: InstalledPackages, name: str, digest: str | None, time: int | None) -> str:
    from spdx_tools.spdx.model import (
        Actor,
        ActorType,
        Checksum,
        ChecksumAlgorithm,
        CreationInfo,
        Document,
        ExternalPackageRef,
        ExternalPackageRefCategory,
        Package,
        PackagePurpose,
        Relationship,
        RelationshipType,
        SpdxNoAssertion,
    )
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
    from spdx_tools.spdx.writer.json.json_writer import write_document_to_stream

    identity = _identity(packages, name, digest)
    info = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=name,
        document_namespace=f"urn:uuid:{identity}",
        creators=[Actor(ActorType.TOOL, f"acon-nb-{__version__}")],
        created=datetime.fromtimestamp(DEFAULT_MTIME if time is None else time, UTC).replace(tzinfo=None),
    )
    image = Package(
        spdx_id="SPDXRef-image",
        name=name,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, digest)] if digest else [],
        primary_package_purpose=PackagePurpose.OPERATING_SYSTEM,
    )
    parts = []
    for number, package in enumerate(packages.packages):
        purl = _purl(package, packages.distribution).to_string()
        parts.append(
            Package(
                spdx_id=f"SPDXRef-package-{number}",
                name=package.name,
                version=package.version,
                download_location=SpdxNoAssertion(),
                files_analyzed=False,
                license_comment=package.license or None,
                external_references=[ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)],
            )
        )
    relationships = [Relationship(info.spdx_id, RelationshipType.DESCRIBES, image.spdx_id)]
    relationships += [Relationship(image.spdx_id, RelationshipType.CONTAINS, part.spdx_id) for part in parts]
    document = Document(info, [image, *parts], relationships=relationships)
    problems = [message.validation_message for message in validate_full_spdx_document(document)]
    if problems:
        raise AconError(f"the SBOM of {name} is not valid SPDX", details=problems[:5], hint="report it")
    out = io.StringIO()
    write_document_to_stream(document, out, validate=False)
    return out.getvalue() + "\n"


_WRITERS = {SbomFormat.CYCLONEDX: _cyclonedx, SbomFormat.SPDX: _spdx}
