"""Secure boot: a kernel that the firmware refuses is reported before the boot, with exit status 5."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import struct
import subprocess
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from acon_nb import vm
from acon_nb.cli import main
from acon_nb.errors import WillNotBoot
from acon_nb.td import preflight, vtpm
from acon_nb.tdx import BootInputs, predict, secure_boot
from acon_nb.tdx.kernel_image import authenticode_library
from tests.unit.test_tdx_boot import GLOBAL, IMAGE_SECURITY, bzimage, store, tdvf

OWNER = uuid.UUID(int=7)
REFUSES = ("EnableLegacyLoader",)


def database(kind: bytes, *entries: bytes) -> bytes:
    """Signature lists with one entry each."""
    rows = [OWNER.bytes_le + entry for entry in entries]
    return b"".join(kind + struct.pack("<III", 28 + len(row), 0, len(row)) + row for row in rows)


def variables(db: bytes = b"", dbx: bytes = b"") -> dict[tuple[str, uuid.UUID], bytes]:
    return {("PK", GLOBAL): b"\1" * 40, ("db", IMAGE_SECURITY): db, ("dbx", IMAGE_SECURITY): dbx}


def firmware(db: bytes = b"", dbx: bytes = b"", texts: tuple[str, ...] = REFUSES) -> bytes:
    return tdvf(("TdTcg2Dxe", "SecureBootConfigDxe"), texts, cfv=store(variables(db, dbx)))


def sha256_of(image: bytes) -> bytes:
    lief = authenticode_library()
    return bytes(lief.PE.parse(list(image)).authentihash(lief.PE.ALGORITHMS.SHA_256))


def boot(folder: Path, image: bytes, kernel: bytes = b"", **fields: object) -> BootInputs:
    (folder / "OVMF.fd").write_bytes(image)
    (folder / "bzImage").write_bytes(kernel or bzimage())
    return BootInputs(firmware=folder / "OVMF.fd", kernel=folder / "bzImage", **fields)  # type: ignore[arg-type]


def test_a_kernel_that_the_firmware_refuses_ends_every_door_with_5(tmp_path: Path) -> None:
    inputs = boot(tmp_path, firmware())
    with pytest.raises(WillNotBoot, match="this TDVF will not boot this kernel: bzImage: it is unsigned"):
        predict(inputs)
    with pytest.raises(WillNotBoot, match="will not boot"):
        vtpm.run(inputs)
    words = ["--firmware", str(inputs.firmware), "--initrd", "-", str(inputs.kernel)]
    for command in (["measure", "predict"], ["measure", "twin"]):
        result = CliRunner().invoke(main, [*command, *words])
        assert result.exit_code == 5, result.output
        assert "RTMR" not in result.stdout
    spec = vm.VmSpec(kernel=inputs.kernel, firmware=inputs.firmware)
    assert [error.exit_status for error in preflight.refusals(spec) if isinstance(error, WillNotBoot)] == [5]
    shimmed = vm.VmSpec(kernel=inputs.kernel, firmware=inputs.firmware, extra=("-shim", "shimx64.efi"))
    assert not [error for error in preflight.refusals(shimmed) if isinstance(error, WillNotBoot)]


def test_a_kernel_whose_hash_is_in_db_boots_unless_it_is_in_dbx(tmp_path: Path) -> None:
    digest = database(secure_boot.SHA256, b"\0" * 32, sha256_of(bzimage()))
    found = predict(boot(tmp_path, firmware(db=digest)))
    assert found.registers["RTMR[1]"] is not None
    assert [event.label for event in found.unknown] == ["db"]
    with pytest.raises(WillNotBoot, match="its hash is in the firmware's dbx"):
        predict(boot(tmp_path, firmware(db=digest, dbx=digest)))


def test_older_firmware_falls_back_to_a_loader_that_is_not_predicted(tmp_path: Path) -> None:
    found = predict(boot(tmp_path, firmware(texts=())))
    assert found.registers["RTMR[1]"] is None
    assert any("legacy loader" in event.why for event in found.unknown)


def test_a_shim_is_judged_in_the_kernel_s_place(tmp_path: Path) -> None:
    shim = tmp_path / "shimx64.efi"
    shim.write_bytes(bzimage(text=b"shim"))
    image = firmware(db=database(secure_boot.SHA256, sha256_of(shim.read_bytes())))
    found = predict(boot(tmp_path, image, shim=shim))
    assert found.registers["RTMR[1]"] is None
    assert any("shim" in event.why for event in found.unknown)
    shim.write_bytes(bzimage(text=b"other"))
    with pytest.raises(WillNotBoot, match=r"shimx64\.efi: it is unsigned"):
        predict(boot(tmp_path, image, shim=shim))


def test_firmware_without_a_platform_key_starts_any_kernel(tmp_path: Path) -> None:
    image = tdvf(("TdTcg2Dxe", "SecureBootConfigDxe"), REFUSES, cfv=store({("db", IMAGE_SECURITY): b""}))
    assert predict(boot(tmp_path, image)).registers["RTMR[1]"] is not None


@given(st.binary(max_size=200))
def test_any_bytes_for_a_database_are_read_without_an_error(data: bytes) -> None:
    assert all(len(entry.data) > 0 for entry in secure_boot.signatures(data))


class Authority:
    """A certificate authority of this test, and a signer that it certified."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.ca = self._certificate(f"{name} CA", None)
        self.leaf = self._certificate(f"{name} signer", self.ca)

    def _certificate(
        self, name: str, issuer: tuple[x509.Certificate, rsa.RSAPrivateKey] | None
    ) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        start = dt.datetime(2015, 1, 1, tzinfo=dt.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
        builder = builder.issuer_name(issuer[0].subject if issuer else subject).serial_number(5)
        builder = builder.not_valid_before(start).not_valid_after(start + dt.timedelta(days=365))  # expired
        builder = builder.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key

    @property
    def der(self) -> bytes:
        return self.ca[0].public_bytes(serialization.Encoding.DER)

    @property
    def signer(self) -> bytes:
        return self.leaf[0].public_bytes(serialization.Encoding.DER)

    def sign(self, image: bytes) -> bytes:
        names = [self.folder / name for name in ("certificate.pem", "key.pem", "in.efi", "out.efi")]
        names[0].write_bytes(self.leaf[0].public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        names[1].write_bytes(self.leaf[1].private_bytes(*form))
        names[2].write_bytes(image)
        names[3].unlink(missing_ok=True)
        argv = ["osslsigncode", "sign", "-certs", *names[:1], "-key", names[1], "-in", names[2], "-out", names[3]]
        subprocess.run(argv, check=True, capture_output=True)
        return names[3].read_bytes()


@pytest.mark.skipif(shutil.which("osslsigncode") is None, reason="osslsigncode is missing")
def test_a_signature_counts_if_db_has_its_authority_and_the_image_is_unchanged(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    kernel = ours.sign(bzimage())

    def judged(db: bytes, dbx: bytes = b"", image: bytes = kernel) -> secure_boot.Admission:
        return secure_boot.admission(image, variables(db, dbx))

    ours_in_db = database(secure_boot.X509, other.der, ours.der)
    assert judged(ours_in_db).admitted
    assert judged(database(secure_boot.X509, ours.signer)).admitted  # the signer itself
    refused = judged(database(secure_boot.X509, other.der))
    assert "'ours signer' of 'ours CA', which is not in the firmware's db" in refused.why
    changed = bytearray(kernel)
    changed[0x900] ^= 1
    assert "its signature is not valid" in judged(ours_in_db, image=bytes(changed)).why
    assert "is in the firmware's dbx" in judged(ours_in_db, database(secure_boot.X509, ours.signer)).why
    part = hashlib.sha256(ours.leaf[0].tbs_certificate_bytes).digest() + bytes(16)
    assert "is in the firmware's dbx" in judged(ours_in_db, database(secure_boot.X509_SHA256, part)).why
    with pytest.raises(WillNotBoot) as caught:
        predict(boot(tmp_path, firmware(db=ours_in_db)))
    assert caught.value.details == ("the firmware's db has: other CA, ours CA",)
    found = predict(boot(tmp_path, firmware(db=ours_in_db), kernel))
    assert found.registers["RTMR[1]"] is not None
