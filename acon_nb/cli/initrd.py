"""`acon-nb initrd`: make initrd images."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, main, print_json
from acon_nb.progress import TextProgress
from acon_nb.units import format_bytes


@main.group("initrd")
def initrd_group() -> None:
    """Make initrd images."""


@initrd_group.command("from")
@click.argument("image")
@click.option("-o", "output", type=click.Path(path_type=Path), required=True, help="FILE.cpio[.gz|.bz2|.xz|.zst|.lz4]")
@as_json_option
def initrd_from(image: str, output: Path, as_json: bool) -> None:
    """Make an initrd of IMAGE (busybox, dir:D, tar:F), with /init added; nothing is unpacked to disk."""
    from acon_nb import initrd

    tree = initrd.tree_of(image, on_progress=TextProgress())
    for warning in initrd.gen_init(tree):
        click.echo(f"warning: {warning}", err=True)
    _say_image(initrd.create(tree, output), as_json)


@initrd_group.command("create")
@click.argument("tree", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path), required=False)
@as_json_option
def initrd_create(tree: Path, image: Path | None, as_json: bool) -> None:
    """Pack the folder TREE (default IMAGE: initrd-NAME.cpio beside it; C=gz|bz2|xz|zst|lz4 compresses)."""
    from acon_nb import initrd

    suffix = os.environ.get("C", "")
    folder = tree.absolute()
    target = image or folder.parent / f"initrd-{folder.name}.cpio"
    if suffix:
        target = target.with_name(f"{target.name}.{suffix}")
    _say_image(initrd.create(initrd.from_folder(folder), target, mtime=None), as_json)


def _say_image(made: Any, as_json: bool) -> None:
    if as_json:
        print_json(asdict(made))
    else:
        click.echo(f"{made.path}: {format_bytes(made.bytes)} ({format_bytes(made.archive_bytes)} unpacked)")
