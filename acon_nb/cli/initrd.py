"""`acon-nb initrd`: makes initrd images, including the guide's functions; F, C and T come from the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, main, print_json, warn
from acon_nb.progress import TextProgress, silent
from acon_nb.units import format_bytes, parse_bytes

_FOLDER = click.Path(path_type=Path)


@main.group("initrd")
def initrd_group() -> None:
    """Make initrd images."""


def _image_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--devices", is_flag=True, help="Keep the image's device nodes."),
        click.option("--limit", default="4G", show_default=True, help="Maximum unpacked size of the image."),
        click.option(
            "--platform", default="", help="linux/amd64, linux/amd64/v3, linux/arm/v7, ... (default: this machine's)."
        ),
        click.option("--pull", type=click.Choice(["missing", "always", "never"]), default="missing", show_default=True),
    ):
        command = option(command)
    return command


def _options(devices: bool, limit: str, pull: str, platform: str) -> dict[str, Any]:
    from acon_nb.initrd import ImageLimits

    limits = ImageLimits(total_bytes=parse_bytes(limit, field="limit"))
    return {"devices": devices, "limits": limits, "pull": pull, "platform": platform, "on_progress": TextProgress()}


def _build_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--build", "build", type=_FOLDER, help="Build the Dockerfile of this folder; no IMAGE then."),
        click.option("-f", "--file", "dockerfile", type=_FOLDER, help="The Dockerfile, if it is not in the folder."),
        click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="A build argument."),
        click.option("-t", "--tag", default="", help="A name for the image that is built."),
        click.option("--network", default="", help="The network of RUN lines, such as host or none."),
    ):
        command = option(command)
    return command


@initrd_group.command("from")
@click.argument("image", required=False)
@click.argument("dirs", nargs=-1)
@click.option("-o", "output", type=_FOLDER, required=True, help="FILE.cpio[.gz|.bz2|.xz|.zst|.lz4]; FILE.raw")
@click.option("--root", type=click.Choice(["erofs", "squashfs"]), help="Make a read-only root on a disk (FILE.raw).")
@click.option("--edits", type=_FOLDER, multiple=True, help="A folder of files to add to the image.")
@click.option("--early/--no-early", default=True, help="Keep the early archive (microcode) of cpio:F; default: yes.")
@_build_options
@_image_options
@as_json_option
def initrd_from(
    image: str | None,
    dirs: tuple[str, ...],
    output: Path,
    root: str | None,
    edits: tuple[Path, ...],
    early: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make an initrd from IMAGE (or DIRS of it), with /init added; nothing is unpacked to disk.

    With --root: a disk that the kernel mounts without an initrd and checks by dm-verity. It needs the printed words on
    the kernel command line, which have the root hash, and a kernel with the options of the profile verity-root.

    IMAGE: busybox, dir:D, tar:F, cpio:F (an initrd; it keeps its own /init), docker-archive:F, oci:P, docker:NAME,
    podman:NAME or an engine's NAME[:TAG]. After the F and P of archives, :NAME, @sha256:DIGEST or @0 selects one of
    several images.
    """
    from acon_nb import initrd
    from acon_nb.initrd import guide, root_disk
    from acon_nb.initrd.check import boot_warnings

    variables = guide.Variables.of_environment()
    target = output if root else guide.image_path(output, output, variables)
    if root is None:
        initrd.suffix_of(target)
    else:
        root_disk.require(target, root)
    tree = _built_or_named(image, dirs, **options)
    if not early:
        tree.early = None
    elif tree.early is not None:
        size = format_bytes(tree.early.size)
        click.echo(f"the early archive ({size}: microcode, ACPI tables) stays first, as it is; --no-early", err=True)
    for folder in edits:
        initrd.overlay(tree, folder)
    initrd.gen_init(tree, force=variables.force)
    if root is not None:
        root_disk.adapt(tree)
    warn([*tree.warnings(), *boot_warnings(tree)])
    if root is not None:
        _print_root(root_disk.create_root(tree, target, root, mtime=variables.mtime, on_progress=_progress()), as_json)
        return
    mtime = initrd.DEFAULT_MTIME if variables.mtime is None else variables.mtime
    _print_image(initrd.create(tree, target, mtime=mtime, owner=None, on_progress=TextProgress()), as_json)


def _built_or_named(
    image: str | None,
    dirs: tuple[str, ...],
    build: Path | None,
    dockerfile: Path | None,
    build_args: tuple[str, ...],
    tag: str,
    network: str,
    **options: Any,
) -> Any:
    from acon_nb import initrd
    from acon_nb.initrd import sources
    from acon_nb.initrd.sources import engine

    common = _options(**options)
    if build is None:
        if image is None or dockerfile or build_args or tag or network:
            raise click.UsageError("give IMAGE, or --build DIR and its options")
        return initrd.tree_of(image, dirs, **common)
    if common["pull"] == "never":
        raise click.UsageError("--pull never does not apply to --build: the engine pulls a base image that it lacks")
    spec = initrd.ContainerBuild.of_folder(
        build,
        dockerfile,
        tag=tag,
        arguments=engine.build_arguments(build_args),
        network=network,
        pull=common.pop("pull") == "always",
        platform=common.pop("platform"),
    )
    return sources.built(spec, (image, *dirs) if image else (), **common)


@initrd_group.command("tar")
@click.argument("container")
@click.argument("dirs", nargs=-1)
@_image_options
def initrd_tar(container: str, dirs: tuple[str, ...], **options: Any) -> None:
    """Write DIRS of CONTAINER (default: all) to standard output as a tar (the guide's tar_container)."""
    from acon_nb.initrd import guide

    warn(guide.tar_container(container, dirs, sys.stdout.buffer, **_options(**options)).warnings())


@initrd_group.command("gen")
@click.argument("tree", type=_FOLDER)
@click.argument("container")
@click.argument("dirs", nargs=-1)
@_image_options
@as_json_option
def initrd_gen(tree: Path, container: str, dirs: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Copy CONTAINER (or DIRS of it) to the folder TREE, add /init, pack it (the guide's gen_initrd; F, C, T)."""
    from acon_nb.initrd import guide

    made = guide.gen_initrd(tree, container, dirs, guide.Variables.of_environment(), **_options(**options))
    warn(made.warnings)
    _print_image(made.image, as_json)


@initrd_group.command("init")
@click.argument("tree", type=_FOLDER)
@click.argument("names", nargs=-1, metavar="[init|profile|fstab|resolv.conf|udhcpc]...")
def initrd_init(tree: Path, names: tuple[str, ...]) -> None:
    """Generate the named files in TREE, overwriting them; without names /init and all missing ones (F=1: all)."""
    from acon_nb.initrd import guide

    warn(guide.gen_init(tree, names, force=guide.Variables.of_environment().force))


@initrd_group.command("cpio")
@click.argument("tree", type=_FOLDER)
def initrd_cpio(tree: Path) -> None:
    """Write the folder TREE to standard output as a newc archive (the guide's cpio_initrd; T)."""
    from acon_nb.initrd import guide

    guide.cpio_initrd(tree, sys.stdout.buffer, guide.Variables.of_environment())
    sys.stdout.buffer.flush()


@initrd_group.command("create")
@click.argument("tree", type=_FOLDER)
@click.argument("image", type=_FOLDER, required=False)
@as_json_option
def initrd_create(tree: Path, image: Path | None, as_json: bool) -> None:
    """Pack the folder TREE into IMAGE (default: initrd-NAME.cpio next to it; C=gz|bz2|xz|zst|lz4 compresses; T)."""
    from acon_nb.initrd import guide

    _print_image(guide.create_initrd(tree, image, guide.Variables.of_environment(), on_progress=_progress()), as_json)


@initrd_group.command("xz")
@click.argument("file", type=_FOLDER)
@click.option("--keep", is_flag=True, help="Keep FILE.")
@as_json_option
def initrd_xz(file: Path, keep: bool, as_json: bool) -> None:
    """Compress FILE, an uncompressed image, to FILE.xz, which takes its place (the guide's xz_initrd)."""
    from acon_nb.initrd import guide

    _print_image(guide.xz_initrd(file, keep=keep, on_progress=_progress()), as_json)


@initrd_group.command("links")
@click.argument("root", type=_FOLDER, metavar="ROOT|FILE")
@click.argument("directory", type=_FOLDER, required=False)
@click.option("--hard", is_flag=True, help="Make hard links to FILE in DIRECTORY (default: its own) symbolic.")
@click.option("--hard-all", is_flag=True, help="Make every group of hard links below ROOT symbolic.")
def initrd_links(root: Path, directory: Path | None, hard: bool, hard_all: bool) -> None:
    """Make absolute symbolic links below ROOT relative (abs2rellinks), or hard links symbolic (hard2symlinks)."""
    from acon_nb.initrd import guide

    if (hard and hard_all) or (directory is not None and not hard):
        raise click.UsageError("give ROOT, --hard FILE [DIRECTORY], or --hard-all ROOT")
    if hard:
        count = guide.hard2symlinks(root, directory)
    else:
        count = guide.hard2symlinks_all(root) if hard_all else guide.abs2rellinks(root)
    click.echo(f"{count} links changed")


@initrd_group.command("diff")
@click.argument("left")
@click.argument("right")
@click.option("--by", type=click.Choice(["package", "layer", "folder"]), help="Attribute the sizes.")
@click.option("--depth", type=int, default=2, show_default=True, help="The depth of folders.")
@click.option("--plot", type=_FOLDER, help="With --by: draw RIGHT's sizes and growth (FILE.png, .svg or .pdf).")
@as_json_option
def initrd_diff(left: str, right: str, by: str | None, depth: int, plot: Path | None, as_json: bool) -> None:
    """Compare the images LEFT and RIGHT. Exit status 1 if they differ.

    Each is a file of any compression, or a source with its prefix, as for `initrd from` (oci:P, docker:NAME, ...).
    """
    from acon_nb import initrd

    if by is not None:
        _print_growth(left, right, by, depth, plot, as_json)
        return
    if plot is not None:
        raise click.UsageError("--plot needs --by")
    rows = initrd.diff(left, right)
    if as_json:
        print_json({"differences": [asdict(row) for row in rows]})
    else:
        for row in rows:
            click.echo(str(row))
    if rows:
        sys.exit(1)


@initrd_group.command("check")
@click.argument("image")
@click.option("--kernel", type=_FOLDER, help="The guest's bzImage.  [default: vmlinuz, if there is one here]")
@click.option("--memory", envvar="M", default="2g", show_default=True, help="The guest's memory (M).")
@click.option("--append", help="The kernel command line.  [default: that of acon-nb run, with KA]")
@_image_options
@as_json_option
def initrd_check(
    image: str, kernel: Path | None, memory: str, append: str | None, as_json: bool, **options: Any
) -> None:
    """Check whether IMAGE boots, and say why not. Exit status: 0 it boots, 1 it does not, 3 that cannot be known.

    IMAGE: an initrd, or an image as for `initrd from`, which is checked as that would make it (F as there).
    """
    from acon_nb.bootcheck import initrd as bootcheck
    from acon_nb.initrd import guide
    from acon_nb.vm import guide_append

    if kernel is None and Path("vmlinuz").is_file():
        kernel = Path("vmlinuz")
    spec = bootcheck.CheckSpec(
        image=image,
        kernel=kernel,
        memory_bytes=parse_bytes(memory, field="memory", bare="M"),
        append=guide_append(os.environ) if append is None else append,
        force=guide.Variables.of_environment().force,
    )
    answer = bootcheck.check(spec, **_options(**options))
    if as_json:
        print_json(bootcheck.as_json(answer))
    else:
        for finding in answer.findings:
            click.echo(str(finding))
        click.echo(bootcheck.summary(answer))
    sys.exit(answer.exit_status)


@initrd_group.command("sbom")
@click.argument("image")
@click.option("--format", "form", type=click.Choice(["spdx", "cyclonedx"]), default="cyclonedx", show_default=True)
@click.option("-o", "output", type=_FOLDER, help="Write to a file; default: standard output.")
def initrd_sbom(image: str, form: str, output: Path | None) -> None:
    """List the packages of IMAGE as an SBOM in JSON; T is its time.

    IMAGE is a file, or a source with its prefix, as for `initrd from` (oci:P, docker:NAME, ...).
    """
    from acon_nb import initrd
    from acon_nb.cache import atomic_file
    from acon_nb.initrd import guide
    from acon_nb.initrd.sbom import SbomFormat, sbom

    path = Path(image).expanduser()
    made = sbom(
        initrd.tree_of_image(image),
        path.name if path.is_file() else image,
        SbomFormat(form),
        file=path if path.is_file() else None,
        time=guide.Variables.of_environment().mtime,
    )
    if output is None:
        click.echo(made.text, nl=False)
    else:
        with atomic_file(output) as temporary:
            temporary.write_text(made.text)
        click.echo(f"{output}: {len(made.packages.packages)} packages")
    warn(made.notes)


def _print_growth(left: str, right: str, by: str, depth: int, plot: Path | None, as_json: bool) -> None:
    from acon_nb import initrd
    from acon_nb.initrd import growth, tables

    trees = initrd.tree_of_image(left), initrd.tree_of_image(right)
    rows = growth.growth(*trees, growth.Attribution(by), depth=depth)
    if plot is not None:
        from acon_nb import plots

        plots.picture_format(plot)
        plots.save(plots.plot_growth(rows), plot)
    if as_json:
        print_json(tables.growth_object(rows))
    else:
        click.echo(tables.growth_text(rows))
    warn(rows.notes)
    if rows.differs:
        sys.exit(1)


def _progress() -> Any:
    """Report progress to a terminal; in a log only the result counts."""
    return TextProgress() if sys.stderr.isatty() else silent


def _print_image(image: Any, as_json: bool) -> None:
    if as_json:
        print_json(asdict(image))
    else:
        click.echo(f"{image.path}: {format_bytes(image.bytes)} ({format_bytes(image.archive_bytes)} unpacked)")


def _print_root(disk: Any, as_json: bool) -> None:
    if as_json:
        print_json(asdict(disk))
        return
    size, data = format_bytes(disk.bytes), format_bytes(disk.data_bytes)
    click.echo(f"{disk.path}: {size} ({disk.filesystem} {data}, then its hash tree)\nroot hash: {disk.root_hash}")
    click.echo(f"boot it: {disk.launch}")
