"""Makes a kernel's bytes depend on nothing but its inputs: what would differ from build to build is pinned or refused.

Times, users and hosts are pinned for each kernel (`make.PINS`). This module adds what only some options bring in: paths
in debug information, the generated key that signs modules, and the seed of the layout of structures.
Source: Documentation/kbuild/reproducible-builds.rst.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.kernel import dotconfig
from acon_nb.kernel.source import SourceTree

NOT_SECRET = (
    "the key that signs its modules is derived from the source, so that the same source gives the same kernel: it "
    "is not a secret. Give a key of your own with --set MODULE_SIG_KEY=/PATH/KEY.pem"
)
GENERATED_KEY = "certs/signing_key.pem"  # the default of MODULE_SIG_KEY, which kbuild would generate
_KEY_FILE = "acon-signing-key.pem"
_SEED_SCRIPT = "acon-randstruct-seed.sh"
_KEY_TYPE = "MODULE_SIG_KEY_TYPE_"
_KEY_BITS = 4096  # as in certs/default_x509.genkey
_FROM, _UNTIL = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_REFUSED = {
    "GCC_PLUGIN_LATENT_ENTROPY": "puts random numbers into each object",
    "GCOV_KERNEL": "puts the paths of its build folder into the kernel",
}
# Options whose change brings in or removes what is pinned here; their builds have a key of the cache of their own
_CONCERNED = ("DEBUG_INFO", "MODULE_SIG", "RANDSTRUCT", "GCC_PLUGINS", "IMA_APPRAISE_MODSIG")


def concern(values: Mapping[str, str]) -> bool:
    """Whether requested options bring in what is pinned here."""
    return any(name.startswith(_CONCERNED) and value not in ("n", "") for name, value in values.items())


def refuse(values: Mapping[str, str], tree: SourceTree) -> None:
    """Raise `InvalidInput` for an option of a configuration that would make each build of the same inputs differ."""
    refused = dict(_REFUSED)
    if _has_generated_key(values):  # the other types of keys sign with random numbers
        types = (option for option in values if option.startswith(_KEY_TYPE) and option != f"{_KEY_TYPE}RSA")
        refused |= dict.fromkeys(types, "signs with random numbers")
    for option, what in refused.items():
        if values.get(option) == "y":
            reason = f"{what}, so the same inputs would not give the same bytes"
            raise InvalidInput("settings", f"{option}=y", reason, hint=f"set {option}=n")
    if values.get("DEBUG_INFO_BTF") == "y" and not _btf_is_reproducible(tree.path):
        reason = f"is made by several threads of pahole in no fixed order in Linux {tree.release}"
        raise InvalidInput("settings", "DEBUG_INFO_BTF=y", reason, hint="set DEBUG_INFO_BTF=n, or take a later series")


def _btf_is_reproducible(tree: Path) -> bool:
    """Whether the tree gives up pahole's threads, or orders their output, where a build's time is pinned."""
    paths = (tree / "scripts/Makefile.btf", tree / "scripts/pahole-flags.sh")
    texts = [path.read_text(errors="replace") for path in paths if path.is_file()]
    return all("-j" not in text or "KBUILD_BUILD_TIMESTAMP" in text for text in texts)


def variables(tree: SourceTree, work: Path) -> tuple[str, ...]:
    """Return the variables of `make` that the options in `work`/.config ask for."""
    config = work / ".config"
    values = dotconfig.read(config) if config.is_file() else {}
    made: list[str] = []
    if values.get("DEBUG_INFO") == "y":
        maps = f"-fdebug-prefix-map={work}=. -fdebug-prefix-map={tree.path}=."
        made += [f"KCFLAGS={maps}", f"KAFLAGS={maps}"]
    if _has_generated_key(values):
        made.append(f"cmd_gen_key=cp {_KEY_FILE} $@")
    if values.get("RANDSTRUCT") == "y":
        made.append(f"gen-randstruct-seed={_SEED_SCRIPT}")
    return tuple(made)


def prepare(tree: SourceTree, work: Path) -> None:
    """Write the files that the `variables` name, and remove what kbuild made of others."""
    values = dotconfig.read(work / ".config")
    if _has_generated_key(values) and _is_new(work / f"{_KEY_FILE}.seed", tree.identity):
        (work / GENERATED_KEY).unlink(missing_ok=True)
        with atomic_file(work / _KEY_FILE) as temporary:
            temporary.write_bytes(_signing_key(tree.identity))
    if values.get("RANDSTRUCT") == "y" and _is_new(work / f"{_SEED_SCRIPT}.seed", tree.identity):
        (work / "scripts/basic/randstruct.seed").unlink(missing_ok=True)
        seed = hashlib.sha256(f"randstruct {tree.identity}".encode()).hexdigest()
        digest = hashlib.sha256(seed.encode()).hexdigest()
        script = f'printf \'%s\\n\' {seed} > "$1"\nprintf \'#define RANDSTRUCT_HASHED_SEED "%s"\\n\' {digest} > "$2"\n'
        (work / _SEED_SCRIPT).write_text(script)


def _is_new(record: Path, seed: str) -> bool:
    """Whether something is to be made of another seed than the record says; writes the record."""
    if record.is_file() and record.read_text() == seed:
        return False
    record.write_text(seed)
    return True


def has_public_key(config: Path) -> bool:
    """Whether a built kernel trusts the key that is derived from its source (`NOT_SECRET`)."""
    return _has_generated_key(dotconfig.read(config))


def _has_generated_key(values: Mapping[str, str]) -> bool:
    return values.get("MODULE_SIG_KEY") == GENERATED_KEY


def _signing_key(seed: str) -> bytes:
    """Return an RSA key and its certificate as PEM, always the same for a seed; no library makes keys that way."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    numbers = _numbers(f"signing key {seed}", _KEY_BITS // 2)
    exponent = 65537
    p, q = (next(n for n in numbers if n % exponent != 1 and _is_prime(n)) for _ in "pq")
    d = pow(exponent, -1, (p - 1) * (q - 1))
    private = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(exponent, p * q),
    ).private_key()
    public = private.public_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "acon_nb: key derived from the source")])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=public)
        .serial_number(int(hashlib.sha256(seed.encode()).hexdigest()[:30], 16) + 1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(private, hashes.SHA512())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    key = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return key + certificate.public_bytes(pem)


def _numbers(seed: str, bits: int) -> Iterator[int]:
    """Yield odd numbers of `bits` bits, the two highest of which are set, from the SHAKE-256 stream of a seed."""
    for counter in itertools.count():
        data = hashlib.shake_256(f"{seed} {counter}".encode()).digest(bits // 8)
        yield int.from_bytes(data) | 3 << (bits - 2) | 1


def _is_prime(number: int) -> bool:
    """Miller and Rabin's test: no small factor, and no witness among 40 bases (an error below 2^-80)."""
    if math.gcd(number, _small_numbers()) != 1:
        return False
    twos = ((number - 1) & -(number - 1)).bit_length() - 1
    return all(_passes(base, number, twos) for base in range(2, 42))


@functools.cache
def _small_numbers() -> int:
    """The product of the numbers up to 2000, which most candidates have a factor in common with."""
    return math.factorial(2000)


def _passes(base: int, number: int, twos: int) -> bool:
    value = pow(base, (number - 1) >> twos, number)
    if value in (1, number - 1):
        return True
    return any((value := value * value % number) == number - 1 for _ in range(twos - 1))
