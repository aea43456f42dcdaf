from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.initrd import fstab
from acon_nb.initrd.fstab import CipherSpec, EncryptedDevice, FstabLine, TagStorage

# facts: spec -> dm-crypt's cipher, dm-integrity's own hash, bytes beside each block
SCHEMES = {
    "": ("capi:xts(aes)-plain64", "sha384", 48),
    "cbc": ("capi:cbc(aes)-plain64", "sha384", 48),
    "+hmac_sha512": ("capi:xts(aes)-plain64", "hmac(sha512)", 64),
    "xts+cmac": ("capi:xts(aes)-plain64", "cmac(aes)", 16),
    "+crc32c": ("capi:xts(aes)-plain64", "crc32c", 4),
    "+sha3-256": ("capi:xts(aes)-plain64", "sha3-256", 32),
    "+": ("capi:xts(aes)-plain64", "", 0),
    "+ae": ("capi:authenc(cmac(aes),xts(aes))-random", "", 32),
    "+sha384+ae": ("capi:authenc(hmac(sha384),xts(aes))-random", "", 64),
    "+hmac_sha384+ae": ("capi:authenc(hmac(sha384),xts(aes))-random", "", 64),
    "++ae": ("capi:xts(aes)-random", "", 16),
    "cbc+ae": ("capi:authenc(cmac(aes),cbc(aes))-random", "", 32),
}
specs = st.builds(
    CipherSpec, mode=st.sampled_from(list(fstab.MODES)), mac=st.sampled_from([m for m in fstab.MACS if m != "crc32c"]),
    ae=st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize("text", SCHEMES)
def test_every_spec_of_the_table_gives_its_scheme(text: str) -> None:
    spec = CipherSpec.parse(text)
    assert (spec.cipher, spec.internal_hash, spec.tag_bytes) == SCHEMES[text]


def test_keys_have_the_length_that_the_kernel_expects() -> None:
    lengths = {text: CipherSpec.parse(text).key_bytes for text in ("", "cbc", "+ae", "cbc+ae", "+sha384+ae", "++ae")}
    assert lengths == {"": 64, "cbc": 32, "+ae": 80, "cbc+ae": 48, "+sha384+ae": 112, "++ae": 64}


@given(specs)
def test_a_spec_is_read_back_from_its_text(spec: CipherSpec) -> None:
    assert CipherSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    "text", ["ctr", "+md5", "+crc32c+ae", "+hmac_crc32c", "+ae+ae", "ae", "+sha384+", "XTS", "+ae ", "+$(reboot)", "@"]
)
def test_an_invalid_spec_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CipherSpec.parse(text)
    assert caught.value.hint


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        EncryptedDevice.parse("/dev/mapper/" + text)
    lines, problems = fstab.parse(text)
    assert all(problem.why for problem in problems)
    for line in lines:
        assert line.explain()


@pytest.mark.parametrize("base", ["", "..", ".hidden", "-rf", "a/b", "vda;reboot", "v d", "$(x)", "vda\n", "vdä"])
def test_an_invalid_device_name_is_refused(base: str) -> None:
    with pytest.raises(InvalidInput, match="block device"):
        EncryptedDevice(base=base, spec=CipherSpec())


def test_the_guides_lines() -> None:
    text = (
        "/dev/mapper/vda@ none swap sw,discard\n/dev/mapper/vdb@+ae /ext4 ext4 defaults 0 0\n/dev/vda none swap sw 0 0"
    )
    lines, problems = fstab.parse(text)
    assert not problems
    assert [str(line.encrypted or "") for line in lines] == ["/dev/mapper/vda@", "/dev/mapper/vdb@+ae", ""]
    assert "authenc" in lines[1].encrypted.spec.cipher  # type: ignore[union-attr]
    assert any("neither encrypted nor checked" in said for said in lines[2].explain())


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("/dev/mapper/vda@ none", "2 fields"),
        ("/dev/mapper/vda@ /x xfs", "cannot be formatted at boot"),
        ("/dev/mapper/vda@rot13 none swap", "not a known mode"),
        ("/dev/mapper/vda@ none swap x-acon.meta=tape", "ram, zram, disk"),
        ("/dev/vda none swap x-acon.meta=ram", "encrypted devices"),
        ("tmpfs relative tmpfs", "not a valid mount point"),
        ("tmpfs /../x tmpfs", "contains .."),
        ("tmpfs /x tmpfs a,,b", "options"),
    ],
)
def test_an_invalid_line_is_reported_with_the_reason(row: str, why: str) -> None:
    lines, (problem,) = fstab.parse("# comment\n\nproc /proc proc\n" + row)
    assert len(lines) == 1
    assert problem.number == 4
    assert problem.text == row
    assert why in f"{problem.why}; {problem.hint}"


def test_a_disk_is_encrypted_once() -> None:
    _, (problem,) = fstab.parse("/dev/mapper/vda@ none swap\n/dev/mapper/vda@+ae /x ext4\n")
    assert (problem.number, "already used by line 1" in problem.why) == (2, True)


@given(st.text(st.sampled_from("ab\\ \t/0143"), min_size=1))
def test_blanks_and_backslashes_survive(name: str) -> None:
    line = FstabLine(device="tmpfs", point="/" + name, type="tmpfs")
    assert FstabLine.parse(str(line)) == line


def test_explanations_distinguish_the_schemes() -> None:
    def said(row: str) -> str:
        return " ".join(FstabLine.parse(row).explain())

    assert "restoring an old block is detected" in said("/dev/mapper/vda@ none swap")
    assert "not detected" in said("/dev/mapper/vda@+ae none swap x-acon.meta=disk")
    assert "No integrity" in said("/dev/mapper/vda@ none swap x-acon.meta=disk")
    assert "No integrity" in said("/dev/mapper/vda@+ none swap")
    assert "No integrity" in said("/dev/mapper/vda@++ae none swap")
    assert "accidents" in said("/dev/mapper/vda@+crc32c none swap")
    assert "random IV" in said("/dev/mapper/vda@+ae none swap")
    assert "Do not use it as swap" in said("/dev/mapper/vda@ none swap x-acon.meta=zram")
    assert "Do not use it as swap" not in said("/dev/mapper/vda@ /x ext4 x-acon.meta=zram")
    assert "ignored at boot" in said("/dev/mapper/vda@ none swap noauto")
    assert "skipped with a message" in said("/dev/mapper/vda@ none swap nofail")
    assert CipherSpec.parse("+sha384+ae").keyed


def test_a_disk_of_60_gb_with_tags_of_64_bytes_needs_about_1_gb() -> None:
    # the guide, BLK_DEV_RAM_SIZE
    assert 0.9e9 < CipherSpec.parse("+hmac_sha512").meta_bytes(60 * 10**9) < 1.1e9
    assert CipherSpec.parse("+").meta_bytes(60 * 10**9) == 0
    assert TagStorage("ram") is TagStorage.RAM
