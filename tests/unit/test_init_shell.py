"""The functions of /init, sourced by the shells that run it: dash here, Debian's busybox in the system tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.host import apt
from acon_nb.initrd import fstab
from acon_nb.initrd.init import FILES

LIMIT_S = 60
READ_SPECS = """
for name in "$@"; do
    if parse_spec "$name"; then
        echo "$base $cipher $hash $key_bytes $hash_key_bytes $tag_bytes"
    elif [ -n "$why" ]; then
        echo refused
    fi
done
"""
SPECS = st.one_of(
    st.lists(st.sampled_from([*fstab.MODES, *fstab.MACS, "", "ae", "+", "++", "hmac_", "md5", "XTS"]), max_size=4).map(
        "+".join
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), max_size=12),
)
BASES = st.one_of(st.just("vda"), st.text(st.sampled_from("ab.-_/$(`;| *?\\'\"#~!é"), max_size=6))


@pytest.fixture(scope="module", params=["dash", pytest.param("busybox", marks=pytest.mark.system)])
def shell(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "busybox":
        return [str(apt.unpack("busybox-static", cache=Cache()).path("bin/busybox")), "sh"]
    if shutil.which("dash") is None:
        pytest.skip("no dash here")
    return ["dash"]


def run(shell: list[str], script: str, *arguments: str, folder: Path = Path("/")) -> str:
    """Run a script after /init was sourced; nothing but what it prints counts."""
    argv = [*shell, "-c", f". {FILES / 'init'}\n{script}", "sh", *arguments]
    done = subprocess.run(argv, capture_output=True, cwd=folder, timeout=LIMIT_S, check=True)
    return done.stdout.decode(errors="surrogateescape")


def expected(text: str) -> str:
    try:
        device = fstab.EncryptedDevice.parse("/dev/mapper/" + text)
    except InvalidInput:
        return "refused"
    assert device is not None
    spec = device.spec
    hash_key = spec.mac_bytes if spec.internal_hash.startswith("hmac") else 32 if spec.mac == "cmac" else 0
    sizes = (spec.key_bytes, 0 if spec.ae else hash_key, spec.tag_bytes)
    return " ".join(map(str, (device.base, spec.cipher, spec.internal_hash, *sizes)))


@settings(max_examples=25, deadline=None)
@given(names=st.lists(st.builds("{}@{}".format, BASES, SPECS), min_size=20, max_size=40))
def test_the_shell_and_python_read_the_same_grammar(shell: list[str], names: list[str]) -> None:
    assert run(shell, READ_SPECS, *names).splitlines() == [expected(name) for name in names]


def test_every_valid_spec_is_parsed_alike(shell: list[str]) -> None:
    names = [
        f"vda@{mode}{mac}{ae}"
        for mode in ("", *fstab.MODES)
        for mac in ("", *(f"+{mac}" for mac in fstab.MACS))
        for ae in ("", "+ae")
    ]
    assert run(shell, READ_SPECS, *names).splitlines() == [expected(name) for name in names]


def test_sourcing_starts_nothing(shell: list[str]) -> None:
    assert run(shell, "echo here").split() == ["here"]
    script = "for name in mount_line start_encrypted start_sshd; do command -v $name; done"
    assert run(shell, script).split() == ["mount_line", "start_encrypted", "start_sshd"]


HOSTILE = """\
$(touch pwned) /a$(touch pwned) $(touch pwned) `touch pwned`
; /b;touch${IFS}pwned tmpfs ;touch pwned
* /* * *
-x /-y -z -w
/dev/mapper/$(touch${IFS}pwned)@$(touch${IFS}pwned) none swap sw
/dev/mapper/../../etc/passwd@ none swap sw
/dev/mapper/vda@99999999999999999999999999999999+sha384 none swap sw
a\\040b /c\\040d\\011e\\134040 tmpfs defaults
# comment
last /line tmpfs"""


def test_a_hostile_fstab_is_text(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "fstab").write_text(HOSTILE)
    script = """
    show() { printf '%s|%s|%s|%s\\n' "$1" "$2" "$3" "$4"; }
    each_line fstab show
    in_use() { return 1; }
    report() { :; }
    each_line fstab start_encrypted 2>&1
    """
    said = run(shell, script, folder=tmp_path).splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fstab"]
    assert said[0] == "$(touch|pwned)|/a$(touch|pwned)"
    assert said[2] == "*|/*|*|*"
    assert "a b|/c d\te\\040|tmpfs|defaults" in said
    assert "last|/line|tmpfs|" in said
    refused = [line for line in said if line.startswith("init: encryption /dev/mapper/")]
    assert len(refused) == 3
    assert all("block device" in line or "unknown mode" in line for line in refused)


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.binary(max_size=20).filter(lambda raw: b"\0" not in raw and b"\n" not in raw), min_size=1))
def test_what_is_reported_is_json(shell: list[str], texts: list[bytes]) -> None:
    script = """for text in "$@"; do printf '{"what":"%s"}\\n' "$(escape "$text")"; done"""
    argv = [*shell, "-c", f". {FILES / 'init'}\n{script}", "sh", *texts]
    done = subprocess.run(argv, capture_output=True, timeout=LIMIT_S, check=True)
    rows = done.stdout.decode("ascii").splitlines()
    assert len(rows) == len(texts)
    for row, text in zip(rows, texts, strict=True):
        what = json.loads(row)["what"]
        if text.isascii() and text.decode().isprintable():
            assert what == text.decode()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ("defaults", "defaults"),
        ("ro,x-acon.meta=zram,nofail", "ro"),
        ("nofail", "defaults"),
        ("size=500%,*", "size=500%,*"),
    ],
)
def test_options_for_init_do_not_reach_the_kernel(shell: list[str], options: str, kept: str) -> None:
    assert run(shell, 'kernel_options "$1"', options) == kept


def test_keys_are_random_and_have_the_requested_length(shell: list[str]) -> None:
    first, second = run(shell, "random_hex 64; echo; random_hex 64").split()
    assert len(first) == len(second) == 128
    assert first != second
    assert set(first) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("defaults", "/dev/vda"),
        ("sw,discard", "-d /dev/vda"),
        ("discard=once,pri=7", "-donce -p 7 /dev/vda"),
        ("pri=*", "-p * /dev/vda"),
    ],
)
def test_swapon_gets_the_options_of_fstab(shell: list[str], options: str, words: str) -> None:
    assert run(shell, 'swapon() { echo "$*"; }\nswap_on /dev/vda "$1"', options).strip() == words


def test_a_swapon_without_options_is_called_without_them(shell: list[str]) -> None:
    script = 'swapon() { [ $# = 1 ] && echo "on $1"; }\nswap_on /dev/vda pri=5,discard 2>&1'
    said = run(shell, script).splitlines()
    assert said[0] == "on /dev/vda"
    assert "without its options" in said[1]


def test_modules_are_loaded_with_their_options_without_a_final_newline(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "modules").write_text("# virtio\nvirtio_blk queue=1 x=*\n\nzram")
    script = 'modprobe() { echo "$@"; }; load_modules "$1"'
    said = run(shell, script, str(tmp_path / "modules"), folder=tmp_path)
    assert said.splitlines() == ["virtio_blk queue=1 x=*", "zram"]


def test_a_list_of_modules_counts_only_in_an_image_that_has_modules(shell: list[str], tmp_path: Path) -> None:
    """Alpine's images list af_packet and ipv6, but have no modules; those of the kernel are built in."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "modules/6.12.1").mkdir(parents=True)
    script = 'for each in "$@"; do has_modules "$each" && echo "${each##*/}"; done; true'
    folders = [str(tmp_path / name) for name in ("missing", "empty", "modules")]
    assert run(shell, script, *folders).split() == ["modules"]


@settings(max_examples=20, deadline=None)
@given(text=st.text(st.sampled_from("ab/ \t\r\v\f\u00a0\u2003"), min_size=1, max_size=12))
def test_the_shell_and_python_split_a_line_at_the_same_characters(
    shell: list[str], tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("fstab") / "fstab"
    path.write_text(f"/dev/vda{text} /point ext4 sw 0 0", newline="")
    script = 'show() { printf "%s|" "$1" "$2" "$3"; }; each_line "$1" show'
    device, point, kind, _ = run(shell, script, str(path)).split("|")
    try:
        line = fstab.FstabLine.parse(path.read_bytes().decode())
    except InvalidInput:
        return  # what Python refuses is said when the image is made
    assert (line.device, line.point, line.type) == (device, point, kind)
