"""`acon-nb initrd`: make initrd images. The guide's functions by their names; F, C and T come from the environment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, main, print_json
from acon_nb.progress import TextProgress, silent
from acon_nb.units import format_bytes, parse_bytes

_FOLDER = click.Path(path_type=Path)


@main.group("initrd")
def initrd_group() -> None:
    """Make initrd images."""


def _image_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--devices", is_flag=True, help="Keep the image's device nodes."),
        click.option("--limit", default="4G", show_default=True, help="What the image may unpack to."),
        click.option("--pull", type=click.Choice(["missing", "always", "never"]), default="missing", show_default=True),
    ):
        command = option(command)
    return command


def _options(devices: bool, limit: str, pull: str) -> dict[str, Any]:
    from acon_nb.initrd import Limits

    limits = Limits(total_bytes=parse_bytes(limit, field="limit"))
    return {"devices": devices, "limits": limits, "pull": pull, "on_progress": TextProgress()}


@initrd_group.command("from")
@click.argument("image")
@click.argument("dirs", nargs=-1)
@click.option("-o", "output", type=_FOLDER, required=True, help="FILE.cpio[.gz|.bz2|.xz|.zst|.lz4]")
@click.option("--edits", type=_FOLDER, multiple=True, help="A folder of your own files, laid over the image.")
@_image_options
@as_json_option
def initrd_from(
    image: str, dirs: tuple[str, ...], output: Path, edits: tuple[Path, ...], as_json: bool, **options: Any
) -> None:
    """Make an initrd of IMAGE (or DIRS of it), with /init added; nothing is unpacked to disk.

    IMAGE: busybox, dir:D, tar:F, docker-archive:F, oci:P, docker:NAME, podman:NAME or an engine's NAME[:TAG].
    """
    from acon_nb import initrd
    from acon_nb.initrd import guide

    variables = guide.Variables.of_environment()
    target = guide.image_path(output, output, variables)
    initrd.suffix_of(target)
    tree = initrd.tree_of(image, dirs, **_options(**options))
    for folder in edits:
        initrd.overlay(tree, folder)
    warnings = initrd.gen_init(tree, force=variables.force)
    _warn([*tree.warnings(), *warnings])
    mtime = initrd.DEFAULT_MTIME if variables.mtime is None else variables.mtime
    _say_image(initrd.create(tree, target, mtime=mtime, owner=None, on_progress=TextProgress()), as_json)


@initrd_group.command("tar")
@click.argument("container")
@click.argument("dirs", nargs=-1)
@_image_options
def initrd_tar(container: str, dirs: tuple[str, ...], **options: Any) -> None:
    """Write DIRS of CONTAINER (default: all) to standard output as a tar (the guide's tar_container)."""
    from acon_nb.initrd import guide

    _warn(guide.tar_container(container, dirs, sys.stdout.buffer, **_options(**options)).warnings())


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
    _warn(made.warnings)
    _say_image(made.image, as_json)


@initrd_group.command("init")
@click.argument("tree", type=_FOLDER)
@click.argument("names", nargs=-1, metavar="[init|profile|fstab|resolv.conf|udhcpc]...")
def initrd_init(tree: Path, names: tuple[str, ...]) -> None:
    """Generate /init and its files in TREE: those named, overwritten; else all that are missing (F=1: all)."""
    from acon_nb.initrd import guide

    _warn(guide.gen_init(tree, names, force=guide.Variables.of_environment().force))


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
    """Pack the folder TREE (default IMAGE: initrd-NAME.cpio beside it; C=gz|bz2|xz|zst|lz4 compresses; T)."""
    from acon_nb.initrd import guide

    _say_image(guide.create_initrd(tree, image, guide.Variables.of_environment(), on_progress=_progress()), as_json)


@initrd_group.command("links")
@click.argument("root", type=_FOLDER, metavar="ROOT|FILE")
@click.argument("directory", type=_FOLDER, required=False)
@click.option("--hard", is_flag=True, help="Hard links of FILE in DIRECTORY (default: its own) become symbolic.")
@click.option("--hard-all", is_flag=True, help="Every group of hard links below ROOT becomes symbolic.")
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
@click.argument("left", type=_FOLDER)
@click.argument("right", type=_FOLDER)
@as_json_option
def initrd_diff(left: Path, right: Path, as_json: bool) -> None:
    """What differs between the images LEFT and RIGHT, of any compression. Exit status 1 if anything does."""
    from acon_nb import initrd

    rows = initrd.diff(left, right)
    if as_json:
        print_json({"differences": [asdict(row) for row in rows]})
    else:
        for row in rows:
            click.echo(str(row))
    if rows:
        sys.exit(1)


def _progress() -> Any:
    """Events for a person who waits; nothing for a log, where the result alone counts."""
    return TextProgress() if sys.stderr.isatty() else silent


def _warn(warnings: Any) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _say_image(made: Any, as_json: bool) -> None:
    if as_json:
        print_json(asdict(made))
    else:
        click.echo(f"{made.path}: {format_bytes(made.bytes)} ({format_bytes(made.archive_bytes)} unpacked)")
