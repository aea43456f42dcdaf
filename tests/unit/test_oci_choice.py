"""Which image of an archive is read: by name, digest, position and platform, in the shapes that tools write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.cli import main
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import InitrdSpec, load, plan, tree_of
from acon_nb.initrd.sources.oci import platforms
from acon_nb.initrd.sources.oci.platforms import ImagePlatform
from tests.unit.image_archives import (
    AMD64,
    ARM64,
    OCI_MANIFEST,
    REF_NAME,
    Layout,
    files_of,
    named,
    packed,
    saved_image,
    sha,
)

V3 = ImagePlatform("amd64", "v3")


@pytest.fixture(autouse=True)
def amd64_v3(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine, whatever it is, runs linux/amd64/v3."""
    monkeypatch.setattr(platforms, "of_this_machine", lambda: V3)


def who(image: object, **options: str) -> bytes:
    """The image that was read."""
    return files_of(tree_of(str(image), **options))["who"]


def refused(image: object, **options: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        tree_of(str(image), **options)
    assert "\x1b" not in str(caught.value)
    assert "none" not in caught.value.hint
    return caught.value


def saved_by_digest(layout: Layout) -> tuple[dict[str, bytes], list[str], list[str]]:
    """`docker save A@sha256:... B@sha256:...` of version 25: two images without a name, in both lists."""
    entries = [layout.image("one"), layout.image("two")]
    manifests = [layout.document(entry) for entry in entries]
    items = [
        {
            "Config": "blobs/" + manifest["config"]["digest"].replace(":", "/"),
            "RepoTags": None,
            "Layers": ["blobs/" + layer["digest"].replace(":", "/") for layer in manifest["layers"]],
        }
        for manifest in manifests
    ]
    files = {**layout.files(*entries), "manifest.json": json.dumps(items).encode()}
    return files, [entry["digest"] for entry in entries], [each["config"]["digest"] for each in manifests]


@pytest.mark.parametrize("door", ["docker-archive", "oci", "oci-archive"])
def test_images_without_names_are_selected_by_digest_image_id_or_position(tmp_path: Path, door: str) -> None:
    files, manifests, ids = saved_by_digest(Layout())
    path = f"{door}:{packed(files, tmp_path / 'x.tar')}"
    for number, name in enumerate([b"one", b"two"]):
        for digest in (manifests[number], ids[number]):
            for text in (digest, digest[:15], digest[7:19], digest[7:]):
                assert who(f"{path}@{text}") == name
        assert who(f"{path}@{number}") == who(f"{path}:@{number}") == who(f"{path}@{number}@{ids[number]}") == name
    error = refused(path)
    assert "contains 2 images" in str(error)
    for number, digest in enumerate(manifests):
        assert error.details[1 + number].split() == [f"@{number}", f"@{digest[:19]}", "linux/amd64"]
    assert error.hint.endswith(f"{path}@0")
    for wrong in ("@2", f"@{'0' * 64}", ":x", f"@0@{ids[1]}"):
        assert "is not in the archive" in str(refused(path + wrong))


@pytest.mark.parametrize(
    "wrong", ["@", "@x", "@12345g", "@sha256:", "@sha1:0123456789", "@0@1", "@linux/amd64@linux/386"]
)
def test_a_selection_that_makes_no_sense_is_refused(tmp_path: Path, wrong: str) -> None:
    path = packed(saved_by_digest(Layout())[0], tmp_path / "x.tar")
    assert wrong.rpartition("@")[2] in str(refused(f"oci:{path}{wrong}"))


def test_the_path_may_contain_what_separates_it_from_a_name(tmp_path: Path) -> None:
    layout = Layout()
    files = layout.files(layout.image("a", **named("v1")), layout.image("b", **named("v2")))
    for name in ("x:y", "y@0", "x", "x:y@v2"):
        path = packed(files, tmp_path / name)
        assert who(f"oci:{path}:v2") == b"b"
        assert who(f"oci:{path}@0") == b"a"
    with pytest.raises(InvalidInput):
        tree_of(f"oci::{path}")
    with pytest.raises(InvalidInput, match="path"):
        tree_of("oci:~nobody-of-that-name/x")


def test_one_image_under_several_tags_leaves_nothing_to_choose(tmp_path: Path) -> None:
    layout = Layout()
    image = layout.image()
    path = packed(layout.files({**image, **named("v1")}, {**image, **named("latest")}), tmp_path / "x")
    assert who(f"oci:{path}") == who(f"oci:{path}:v1") == who(f"oci:{path}:latest") == who(f"oci:{path}@1") == b"mine"


def test_the_same_tag_for_each_platform_gives_the_one_of_this_machine(tmp_path: Path) -> None:
    layout = Layout()
    mine = layout.image("amd64", platform=AMD64, **named("app:1"))
    other = layout.image("arm64", config=ARM64, platform=ARM64, **named("app:1"))
    path = packed(layout.files(other, mine), tmp_path / "x")
    assert who(f"oci:{path}:app:1") == who(f"oci:{path}") == b"amd64"
    for options in (
        {"image": f"oci:{path}:app:1", "platform": "linux/arm64"},
        {"image": f"oci:{path}:app:1@linux/arm64"},
    ):
        tree = tree_of(**options)
        assert files_of(tree)["who"] == b"arm64"
        assert "linux/arm64, whose programs this machine (linux/amd64/v3) does not run" in tree.warnings()[0]
    error = refused(f"oci:{path}:app:1", platform="linux/s390x")
    assert "contains no image for linux/s390x" in str(error)
    assert "linux/arm64 or linux/amd64" in error.hint


def test_platforms_do_not_decide_between_images_of_different_names(tmp_path: Path) -> None:
    layout = Layout()
    one, two = layout.image("one", **named("one:1")), layout.image("two", config=ARM64, **named("two:1"))
    path = packed(layout.files(one, two), tmp_path / "x")
    assert "contains 2 images" in str(refused(f"oci:{path}"))
    assert who(f"oci:{path}:one") == b"one"
    assert who(f"oci:{path}", platform="linux/arm64") == b"two"  # all that was requested fits one image


@pytest.mark.parametrize("nested", [False, True])
def test_an_image_of_another_platform_is_only_read_on_request(tmp_path: Path, nested: bool) -> None:
    layout = Layout()
    image = layout.image("arm64", config=ARM64)
    path = packed(layout.files(layout.index(image) if nested else image), tmp_path / "x")
    error = refused(f"oci:{path}")
    assert "contains no image for linux/amd64/v3" in str(error)
    assert "--platform linux/arm64" in error.hint
    for tree in (tree_of(f"oci:{path}", platform="linux/arm64"), tree_of(f"oci:{path}@{image['digest']}")):
        assert files_of(tree)["who"] == b"arm64"
        assert "does not run" in tree.warnings()[0]


def test_signatures_and_attestations_are_never_the_image(tmp_path: Path) -> None:
    layout = Layout()
    simple = "application/vnd.dev.cosign.simplesigning.v1+json"
    unknown = {"os": "unknown", "architecture": "unknown"}
    image = layout.image(annotations={"kind": "dev.cosignproject.cosign/image"})
    others = [
        layout.image("kind", annotations={"kind": "dev.cosignproject.cosign/sigs"}),
        layout.image("kind", annotations={"kind": "dev.cosignproject.cosign/atts"}),
        layout.image("layers", config={}, layer_type=simple, **named(f"{image['digest'].replace(':', '-')}.sig")),
        layout.image("buildkit", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
        layout.image("platform", platform=unknown),
        layout.image("config", config=unknown),
        layout.image("sbom", config_type="application/vnd.oci.empty.v1+json", artifactType="application/spdx+json"),
        layout.blob(b"{}", "application/vnd.oci.artifact.manifest.v1+json"),
    ]
    path = packed(layout.files(*others, image), tmp_path / "x")
    assert who(f"oci:{path}") == b"mine"
    path = packed(layout.files(layout.index(*others, image)), tmp_path / "y")
    assert who(f"oci:{path}") == b"mine"
    path = packed(layout.files(*others), tmp_path / "z")
    error = refused(f"oci:{path}")
    assert "contains no image, but: sigs of cosign, atts of cosign" in str(error)
    assert "attestation" in str(error)
    assert "is not an image, but: sigs of cosign" in str(refused(f"oci:{path}@0"))


def test_an_index_in_an_index_is_read(tmp_path: Path) -> None:
    layout = Layout()
    entry = layout.image()
    for _ in range(4):
        entry = layout.index(entry)
    assert who(f"oci:{packed(layout.files(entry), tmp_path / 'x')}@{entry['digest']}") == b"mine"
    with pytest.raises(TreeError, match="nested too deeply"):
        tree_of(f"oci:{packed(layout.files(layout.index(entry)), tmp_path / 'y')}")


def test_of_a_partly_saved_index_the_platform_that_is_there_is_read(tmp_path: Path) -> None:
    """With the containerd store, `docker save` lists all platforms of an image, but writes only the pulled one."""
    layout = Layout()
    mine, other = layout.image("mine", platform=AMD64), layout.image("other", config=ARM64, platform=ARM64)
    index = layout.index(other, mine, **named("x:1"))
    layout.remove(other)
    path = packed(layout.files(index), tmp_path / "x.tar")
    assert who(f"oci:{path}") == b"mine"
    error = refused(f"oci:{path}", platform="linux/arm64")
    assert "lists an image for linux/arm64, but does not contain it" in str(error)
    assert "or give --platform linux/amd64" in error.hint
    assert "the archive does not contain it" in error.details[1]


@pytest.mark.parametrize("door", ["docker-archive", "oci"])
def test_both_lists_of_an_archive_name_the_same_images(tmp_path: Path, door: str) -> None:
    files, manifests, _ = saved_by_digest(Layout())
    items, index = json.loads(files["manifest.json"]), json.loads(files["index.json"])
    items[0]["RepoTags"] = ["acme/one:1", "acme/one:latest"]
    index["manifests"][1]["annotations"] = {"io.containerd.image.name": "docker.io/acme/two:2", REF_NAME: "2"}
    items.reverse()
    files |= {"manifest.json": json.dumps(items).encode(), "index.json": json.dumps(index).encode()}
    path = f"{door}:{packed(files, tmp_path / 'x.tar')}"
    assert who(f"{path}:acme/one:1") == who(f"{path}:acme/one") == who(f"{path}:one:1") == b"one"
    assert who(f"{path}:acme/two:2") == who(f"{path}:two:2") == who(f"{path}:2") == who(f"{path}:two") == b"two"
    assert who(f"{path}@{manifests[1]}") == b"two"
    assert who(f"{path}@0") == (b"two" if door == "docker-archive" else b"one")
    assert "contains 2 images" in str(refused(path))


def test_two_lists_that_disagree_leave_the_choice_to_the_user(tmp_path: Path) -> None:
    layout = Layout()
    files = layout.files(layout.image("indexed"))
    entry, _ = saved_image(files, "saved")
    files["manifest.json"] = json.dumps([entry]).encode()
    path = packed(files, tmp_path / "x.tar")
    for door in ("docker-archive", "oci"):
        assert "contains 2 images" in str(refused(f"{door}:{path}"))
    assert who(f"docker-archive:{path}@0") == b"saved"
    assert who(f"oci:{path}@0") == b"indexed"


def test_a_whole_name_goes_before_a_part_of_one(tmp_path: Path) -> None:
    layout = Layout()
    entries = [layout.image(name, **named(name)) for name in ("v1", "app:v1", "x/app:latest", "y/app:latest")]
    path = packed(layout.files(*entries), tmp_path / "x")
    assert who(f"oci:{path}:v1") == b"v1"
    assert who(f"oci:{path}:app:v1") == b"app:v1"
    assert who(f"oci:{path}:x/app") == b"x/app:latest"
    assert "matches 2 images" in str(refused(f"oci:{path}:app"))


def test_many_tags_are_read_as_one_image_and_many_images_are_listed(tmp_path: Path) -> None:
    layout = Layout()
    image = layout.image()
    path = packed(layout.files(*({**image, **named(f"v{n}")} for n in range(1_000))), tmp_path / "x")
    assert who(f"oci:{path}:v999") == who(f"oci:{path}@999") == who(f"oci:{path}") == b"mine"
    entries = [layout.image(f"{n}", **named(f"v{n}")) for n in range(100)]
    path = packed(layout.files(*entries), tmp_path / "y.tar")
    assert who(f"oci:{path}:v99") == b"99"
    assert "contains 100 images" in str(refused(f"oci:{path}"))


def test_names_cannot_control_a_terminal_and_long_lists_are_cut(tmp_path: Path) -> None:
    layout = Layout()
    entries = [layout.image(f"{n}", **named(f"\x1b[31m{n}\n")) for n in range(50)]
    error = refused(f"oci:{packed(layout.files(*entries), tmp_path / 'x.tar')}")
    assert len(error.details) == 22
    assert error.details[-1] == "and 30 more"
    assert all("\n" not in line for line in error.details)


def test_shapes_of_kaniko_crane_jib_and_bazel_are_read(tmp_path: Path) -> None:
    """They name the configuration `sha256:HEX` or config.json, compress layers, or link blobs."""
    import gzip

    files: dict[str, bytes] = {}
    entry, config = saved_image(files, "mine", ["x:1"])
    layer = files[entry["Layers"][0]]
    for number, (config_name, layer_name, data) in enumerate(
        [
            (f"sha256:{sha(config)}", f"{sha(gzip.compress(layer))}.tar.gz", gzip.compress(layer)),
            ("config.json", "layer.tar.gz", gzip.compress(layer)),
            (f"blobs/sha256/{sha(config)}", f"blobs/sha256/{sha(layer)}.tar.gz", layer),
        ]
    ):
        item = {"Config": config_name, "RepoTags": ["x:1"], "Layers": [layer_name]}
        shape = {config_name: config, layer_name: data, "manifest.json": json.dumps([item]).encode()}
        path = packed(shape, tmp_path / f"{number}.tar")
        assert who(f"docker-archive:{path}") == who(f"oci:{path}:x:1") == who(f"oci:{path}@{sha(config)}") == b"mine"


def test_the_folder_of_podman_save_docker_dir_is_read(tmp_path: Path) -> None:
    layout = Layout()
    manifest = json.dumps(layout.document(layout.image())).encode()
    files = {name.rpartition("/")[2]: data for name, data in layout.blobs.items()}
    path = packed(
        {**files, "manifest.json": manifest, "version": b"Directory Transport Version: 1.1\n"}, tmp_path / "x"
    )
    assert who(f"docker-archive:{path}") == who(f"oci:{path}") == who(f"oci:{path}@{sha(manifest)}") == b"mine"
    assert refused(f"dir:{path}").hint == f"give docker-archive:{path}"


def test_the_folder_of_skopeo_with_an_index_is_read(tmp_path: Path) -> None:
    """As of `skopeo copy --all ... dir:FOLDER`: manifests are in HEX.manifest.json."""
    layout = Layout()
    entries = {"amd64": AMD64, "arm64": ARM64}
    manifests = [layout.image(name, config=fields, platform=fields) for name, fields in entries.items()]
    names = {entry["digest"].rpartition(":")[2] for entry in manifests}
    index = layout.remove(layout.index(*manifests))
    hexes = {name.rpartition("/")[2]: data for name, data in layout.blobs.items()}
    files = {f"{name}.manifest.json" if name in names else name: data for name, data in hexes.items()}
    path = packed({**files, "manifest.json": index, "version": b"Directory Transport Version: 1.1\n"}, tmp_path / "x")
    assert who(f"docker-archive:{path}") == who(f"oci:{path}@{manifests[0]['digest']}") == b"amd64"
    assert who(f"oci:{path}", platform="linux/arm64") == b"arm64"
    assert refused(f"dir:{path}").hint == f"give docker-archive:{path}"


def test_tags_of_a_legacy_archive_whose_layers_are_links_are_read(tmp_path: Path) -> None:
    """As skopeo writes them for old versions of Docker."""
    files: dict[str, bytes] = {}
    entry, config = saved_image(files, "mine")
    tags = {"RepoTags": ["x/y:1", "x/y:latest"], "Config": f"{sha(config)}.json", "Layers": ["aaa/layer.tar"]}
    shape = {
        "aaa/layer.tar": "../layer.tar",
        "layer.tar": files[entry["Layers"][0]],
        f"{sha(config)}.json": config,
        "manifest.json": json.dumps([tags]).encode(),
    }
    for form in ("x.tar", "x"):
        path = packed(shape, tmp_path / form)
        for name in ("", ":x/y:1", ":x/y", ":y:1", ":1", "@0"):
            assert who(f"docker-archive:{path}{name}") == b"mine"


def test_a_manifest_without_its_media_type_and_a_config_without_platform_are_read(tmp_path: Path) -> None:
    layout = Layout()
    image = layout.image(config={}, manifest={"mediaType": OCI_MANIFEST})
    document = {key: value for key, value in layout.document(image).items() if key != "mediaType"}
    plain = layout.blob(json.dumps(document).encode())
    path = packed(layout.files(plain), tmp_path / "x")
    assert who(f"oci:{path}") == who(f"oci:{path}", platform="linux/arm64") == b"mine"
    path = packed(layout.files(layout.image("other"), plain), tmp_path / "y")
    assert "contains 2 images" in str(refused(f"oci:{path}"))  # its platform is not known


def test_an_index_that_contradicts_the_configuration_is_warned_of(tmp_path: Path) -> None:
    layout = Layout()
    path = packed(layout.files(layout.image(config=ARM64, platform=AMD64)), tmp_path / "x")
    assert "for linux/amd64, its configuration linux/arm64" in tree_of(f"oci:{path}").warnings()[0]


def test_an_encrypted_copy_is_not_chosen_when_the_same_image_is_there_in_plain(tmp_path: Path) -> None:
    layout = Layout()
    plain = layout.image(**named("x:1"))
    encrypted = layout.image(layer_type="application/vnd.oci.image.layer.v1.tar+encrypted", **named("x:enc"))
    path = packed(layout.files(encrypted, plain), tmp_path / "x")
    assert who(f"oci:{path}") == who(f"oci:{path}:x:1") == b"mine"
    assert "encrypted" in str(refused(f"oci:{path}@{encrypted['digest']}"))


@pytest.mark.parametrize("prefix", ["tar", "dir", "busybox"])
def test_a_platform_is_refused_where_there_is_none_to_choose(tmp_path: Path, prefix: str) -> None:
    image = prefix if prefix == "busybox" else f"{prefix}:{tmp_path}"
    with pytest.raises(InvalidInput, match="platform='linux/arm64': does not apply"):
        tree_of(image, platform="linux/arm64")


def test_archives_and_root_file_systems_are_told_apart(tmp_path: Path) -> None:
    layout = Layout()
    layout_files = layout.files(layout.image())
    saved: dict[str, bytes] = {}
    entry, _ = saved_image(saved, "mine")
    saved["manifest.json"] = json.dumps([entry]).encode()
    root = {"etc/passwd": b"", "manifest.json": b'{"name": "a web page"}'}
    for number, (files, door) in enumerate([(layout_files, "oci"), (saved, "docker-archive")]):
        folder, tar = packed(files, tmp_path / f"{number}"), packed(files, tmp_path / f"{number}.tar")
        assert refused(f"dir:{folder}").hint == f"give {door}:{folder}"
        assert refused(f"tar:{tar}").hint == f"give {door}:{tar}"
    assert "etc/passwd" in tree_of(f"tar:{packed(root, tmp_path / 'root.tar')}")
    del root["manifest.json"]
    assert f"tar:{tmp_path}/r.tar" in refused(f"oci:{packed(root, tmp_path / 'r.tar')}").hint
    assert f"dir:{tmp_path}/r" in refused(f"docker-archive:{packed(root, tmp_path / 'r')}").hint
    inner = {f"folder/{name}": data for name, data in layout_files.items()}
    for form in ("in.tar", "in"):
        assert "its folder 'folder' may be one" in str(refused(f"oci:{packed(inner, tmp_path / form)}"))
    old = {"repositories": b"{}", "aa/layer.tar": b"", "aa/json": b"{}", "aa/VERSION": b"1.0"}
    assert "Docker before 1.10" in str(refused(f"docker-archive:{packed(old, tmp_path / 'old.tar')}"))


def test_commands_and_specs_take_a_platform(tmp_path: Path) -> None:
    layout = Layout()
    files = layout.files(
        *(layout.image(name, config={"os": "linux", "architecture": name}) for name in ("amd64", "arm64"))
    )
    image = f"oci:{packed(files, tmp_path / 'x.tar')}"
    target = tmp_path / "made.cpio"
    for argv in (["--platform", "linux/arm64"], []):
        source = image if argv else f"{image}@linux/arm64"
        result = CliRunner().invoke(main, ["initrd", "from", source, *argv, "-o", str(target)])
        assert result.exit_code == 0, result.output
        assert "warning: the image is for linux/arm64" in result.stderr
        assert load(target)["who"].content.read() == b"arm64"
    result = CliRunner().invoke(main, ["initrd", "tar", image, "--platform", "linux/amd64"])
    assert b"amd64" in result.stdout_bytes
    result = CliRunner().invoke(main, ["initrd", "gen", str(tmp_path / "tree"), image, "--platform", "linux/s390x"])
    assert result.exit_code == 2
    assert "contains no image for linux/s390x" in result.stderr
    assert "| " in result.stderr
    tree, warnings = plan(InitrdSpec(image=image, platform="linux/arm64"))
    assert tree["who"].content.read() == b"arm64"
    assert "linux/arm64" in warnings[0]
    with pytest.raises(InvalidInput, match="platform"):
        InitrdSpec(image=image, platform="linux/pdp11")


def test_a_build_on_the_command_line_needs_its_options() -> None:
    for argv in ([], ["--tag", "x"], ["busybox", "--file", "x"], ["busybox", "--build-arg", "A=1"]):
        result = CliRunner().invoke(main, ["initrd", "from", "-o", "x.cpio", *argv])
        assert result.exit_code == 2
        assert "give IMAGE, or --build DIR" in result.stderr
    result = CliRunner().invoke(main, ["initrd", "from", "-o", "x.cpio", "--build", ".", "--pull", "never"])
    assert "does not apply to --build" in result.stderr
