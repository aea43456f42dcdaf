"""CoRIMs: against the CDDL, with signatures that are checked without the library that made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest
from click.testing import CliRunner
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.tdx import BootInputs, expected, predict, predict_reference_boot
from acon_nb.tdx.corim import corim, sign, write_corim
from tests.unit.test_tdx_boot import boot, tdvf

__all__ = ["boot"]
SCHEMA = pycddl.Schema((Path(__file__).parent / "data/corim.cddl").read_text())
Boot = Callable[..., BootInputs]
KEYS: dict[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


def pem(key: Any, password: bytes | None = None) -> bytes:
    algorithm = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    raw: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, algorithm)
    return raw


def check(data: bytes, key: Any) -> None:
    """Verify a COSE_Sign1 as RFC 9052, section 4.4, has it."""
    protected, _, payload, signature = cbor2.loads(data).value
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    if isinstance(key, ed25519.Ed25519PrivateKey):
        key.public_key().verify(signature, signed)
        return
    half = len(signature) // 2
    numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    algorithm = {-7: hashes.SHA256(), -35: hashes.SHA384()}[cbor2.loads(protected)[1]]
    key.public_key().verify(encode_dss_signature(*numbers), signed, ec.ECDSA(algorithm))


def validate(data: bytes) -> None:
    """Check a manifest against the schema, and all parts of a signed one."""
    SCHEMA.validate_cbor(data)
    manifest = cbor2.loads(data)
    for part in (manifest.value[0], manifest.value[2]) if manifest.tag == 18 else ():
        SCHEMA.validate_cbor(part)


def values_of(data: bytes) -> list[dict[int, Any]]:
    """The measurement-values-map of each triple."""
    manifest = cbor2.loads(data)
    if manifest.tag == 18:
        manifest = cbor2.loads(manifest.value[2])
    (tag,) = manifest.value[1]
    return [measurement[1] for _, (measurement,) in cbor2.loads(tag.value)[4][0]]


def test_a_manifest_has_what_is_known(boot: Boot) -> None:
    made = expected(predict(boot()))
    data = corim(made)
    validate(data)
    values = values_of(data)
    assert values[0][-83].value == [6, [[7, value] for value in sorted(made.mrtd.values())]]
    assert [value[14] for value in values[1:]] == [
        {number: [[7, made.registers[f"RTMR[{number}]"]]]} for number in (0, 1, 2)
    ]
    assert corim(expected(predict(boot()))) == data


def test_values_of_other_predictions_are_accepted_too(boot: Boot) -> None:
    made, other = expected(predict(boot())), expected(predict(boot(initrd=None)))
    values = [value[14] for value in values_of(corim(made, also=[other])) if 14 in value]
    assert {2: [[7, made.registers["RTMR[2]"]]]} in values
    assert {2: [[7, other.registers["RTMR[2]"]]]} in values
    assert len([value for value in values if 0 in value]) == 1


@pytest.mark.parametrize("kind", KEYS)
def test_a_signature_is_that_of_the_key(boot: Boot, tmp_path: Path, kind: str) -> None:
    key = KEYS[kind]()
    (tmp_path / "key.pem").write_bytes(pem(key))
    size = write_corim(tmp_path / "out.cbor", expected(predict(boot())), key=tmp_path / "key.pem", signer="me")
    data = (tmp_path / "out.cbor").read_bytes()
    assert len(data) == size
    validate(data)
    check(data, key)
    with pytest.raises(InvalidSignature):
        check(data, KEYS[kind]())
    protected, _, payload, signature = cbor2.loads(data).value
    changed = payload.replace(b"TDX", b"TDY")
    assert changed != payload
    with pytest.raises(InvalidSignature):
        check(cbor2.dumps(cbor2.CBORTag(18, [protected, {}, changed, signature])), key)
    assert cbor2.loads(cbor2.loads(protected)[8]) == {0: {0: "me"}}


def test_the_schema_refuses_other_manifests(boot: Boot) -> None:
    data = corim(expected(predict(boot())))
    for changed in (data[:-1], cbor2.dumps(cbor2.CBORTag(502, cbor2.loads(data).value)), b"\xa0"):
        with pytest.raises(pycddl.ValidationError):
            SCHEMA.validate_cbor(changed)


def test_unsuitable_keys_and_predictions_are_refused(boot: Boot, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    with pytest.raises(InvalidInput, match="No such file"):
        sign(b"", key)
    for raw, words in (
        (b"-----BEGIN PRIVATE KEY-----\n", "not a private key in PEM"),
        (pem(KEYS["P-256"](), b"secret"), "needs a password"),
        (pem(rsa.generate_private_key(65537, 2048)), "cannot sign"),
    ):
        key.write_bytes(raw)
        with pytest.raises(InvalidInput, match=words):
            sign(b"", key)
    with pytest.raises(InvalidInput, match="not that of a TD"):
        corim(expected(predict_reference_boot(boot())))
    unknown = expected(predict(boot(tdvf(texts=("ACPI DATA",)))))
    assert not any(0 in value.get(14, {}) for value in values_of(corim(unknown)))
    with pytest.raises(InvalidInput, match="cannot be known offline"):
        corim(unknown, only=["RTMR[0]"])


def test_the_command_writes_a_signed_manifest(boot: Boot, tmp_path: Path) -> None:
    inputs, key, out = boot(), KEYS["P-384"](), tmp_path / "values.cbor"
    (tmp_path / "key.pem").write_bytes(pem(key))
    argv = ["measure", "predict", str(inputs.kernel), "--firmware", str(inputs.firmware), "--initrd", "-"]
    argv += ["--qemu", "10.1", "--corim", str(out), "--only", "rtmr1"]
    result = CliRunner().invoke(main, [*argv, "--corim-key", str(tmp_path / "key.pem")], env={"VP": "", "M": "2g"})
    assert result.exit_code == 0, result.output
    check(out.read_bytes(), key)
    assert [list(value[14]) for value in values_of(out.read_bytes())] == [[1]]
    result = CliRunner().invoke(main, [*argv[:-4], "--corim-key", str(tmp_path / "key.pem")])
    assert result.exit_code == 2
    assert "--corim-key" in result.output
    result = CliRunner().invoke(main, [*argv, "--corim-key", str(out)], env={"VP": "", "M": "2g"})
    assert result.exit_code == 4
