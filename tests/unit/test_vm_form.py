"""The form of a launch: what a person writes becomes the spec, and each error belongs to a field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.vm import DiskSpec, Forward, VmSpec
from acon_nb.vm.form import read_texts, texts_of
from tests.unit import bzimages


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> VmSpec:
    folder = tmp_path_factory.mktemp("vm")
    bzimages.write(folder / "vmlinuz")
    (folder / "a.raw").touch()
    (folder / "b.qcow2").touch()
    disks = tuple(DiskSpec(path=folder / name) for name in ("a.raw", "b.qcow2"))
    rules = (Forward(host_port=22222, guest_port=22),)
    return VmSpec(
        kernel=folder / "vmlinuz", disks=disks, network=True, forwards=rules, extra=("-name", "a guest"), vsock_cid=5
    )


def test_a_spec_survives_the_form(base: VmSpec) -> None:
    assert read_texts(texts_of(base), base) == (base, {})


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("kernel", "", "is empty"),
        ("kernel", "/nowhere", "is not a file"),
        ("initrd", "/nowhere", "is not a file"),
        ("memory_bytes", "much", "is not a valid size"),
        ("memory_bytes", "8M", "give at least 24M"),
        ("vcpus", "two", "is not a whole number"),
        ("vcpus", "0", "is out of range"),
        ("disks", "swap.img", "is neither .raw nor .qcow2"),
        ("forwards", "22222:ssh", "is not a valid port forward"),
        ("forwards", "70000", "is out of range: give a whole number: 1 to 65535"),
        ("vsock_cid", "five", "is not a whole number"),
        ("td", "a b", "is not a valid name of a TD"),
        ("timeout_s", "soon", "is not a number"),
        ("timeout_s", "0", "is out of range"),
        ("extra", "-name 'a", "close the quotes"),
    ],
)
def test_an_error_belongs_to_its_field(base: VmSpec, field: str, text: str, message: str) -> None:
    spec, errors = read_texts({**texts_of(base), field: text}, base)
    assert spec is None
    assert list(errors) == [field]
    assert message in errors[field]


def test_errors_of_several_fields_are_reported_at_once(base: VmSpec) -> None:
    _, errors = read_texts({**texts_of(base), "disks": "a.img", "vcpus": "x", "memory_bytes": "8M"}, base)
    assert set(errors) == {"disks", "vcpus", "memory_bytes"}


def test_empty_fields_mean_none(base: VmSpec) -> None:
    empty = dict.fromkeys(("initrd", "firmware", "disks", "forwards", "vsock_cid", "td", "timeout_s", "extra"), "")
    spec, errors = read_texts({**texts_of(base), **empty}, base)
    assert errors == {}
    assert spec is not None
    assert (spec.disks, spec.forwards, spec.vsock_cid, spec.timeout_s, spec.extra) == ((), (), None, float("inf"), ())


@given(text=st.text(max_size=30), field=st.sampled_from(["memory_bytes", "vcpus", "forwards", "timeout_s", "extra"]))
def test_whatever_is_typed_is_a_spec_or_an_error_at_its_field(base: VmSpec, text: str, field: str) -> None:
    spec, errors = read_texts({**texts_of(base), field: text}, base)
    assert (spec is None) == bool(errors)
    assert set(errors) <= {field}


def test_fields_of_a_td_count_only_for_a_td(base: VmSpec) -> None:
    texts = {**texts_of(base), "td_flavour": "fork", "quote_socket": "vsock:2:4050"}
    assert read_texts(texts, base) == (base, {})
    _, errors = read_texts({**texts, "td": "guest"}, base)
    assert "TDVF" in errors["firmware"]


def test_what_a_path_holds_is_never_followed_into_a_crash(base: VmSpec) -> None:
    for text in ("a\0b.raw", "x" * 5000 + ".raw", str(Path("/") / "\udce4.raw")):
        spec, errors = read_texts({**texts_of(base), "disks": text}, base)
        assert spec is None
        assert list(errors) == ["disks"]
