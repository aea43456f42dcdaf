"""Options of `acon-nb bench swap --image`: commands as words of the command line, and the question that they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from acon_nb.cli import completion
from acon_nb.cli.base import print_json
from acon_nb.progress import TextProgress

if TYPE_CHECKING:
    from pathlib import Path

    from acon_nb.swap.image.question import ImageQuestion

_COMMANDS = ("--command", "--driver")


class CommandWords(click.Command):
    """A command whose --command and --driver take all words up to its next own option; behind `--`, all to the end."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the words of each into one, as a list in JSON."""
        own = {name for item in self.params for name in item.opts} | {"--help"}
        return super().parse_args(ctx, gathered(args, own))


def gathered(args: Sequence[str], own: set[str]) -> list[str]:
    """The arguments with the words behind --command and --driver in one each."""
    result: list[str] = []
    place = 0
    while place < len(args):
        word = args[place]
        place += 1
        name, equals, value = word.partition("=")
        if name not in _COMMANDS:
            result.append(word)
            continue
        words = [value] if equals else []
        if not equals and args[place : place + 1] == ["--"]:
            words, place = list(args[place + 1 :]), len(args)
        while not equals and place < len(args) and args[place].partition("=")[0] not in own:
            words.append(args[place])
            place += 1
        result += [name, json.dumps(words)]
    return result


def image_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a question about an image."""
    options = [
        click.option("--image", default="", help="Your image, as of `initrd from`, in place of a plan."),
        click.option("--command", default="", metavar="ARGV...", help="Its command.  [default: the image's own]"),
        click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable; may be given several times."),
        click.option("--at", default="", help="Shares of its peak, or sizes.  [default: 0.5x,0.75x,1x]"),
        click.option(
            "--setups",
            default="",
            shell_complete=completion.setups,
            help="Set-ups to compare: acon-nb bench setups lists them.",
        ),
        click.option("--seeds", type=int, help="Runs of each.  [default: 5]"),
        click.option("--for", "run_for", default="", help="End a server after a time of the guest's: 30s."),
        click.option(
            "--driver", default="", metavar="ARGV...", help="A second command, with which a server's run ends."
        ),
        click.option("--ready", default="", help="When the driver starts: port:N, or a text that the server writes."),
        click.option(
            "--limit", default="", help="The guest's time after which a command must have ended.  [default: 600s]"
        ),
        click.option(
            "--clock", type=click.Choice(["instructions", "wall"]), help="The guest's.  [default: instructions]"
        ),
        click.option(
            "--kernel", default="", help="A bzImage, or debian:SERIES.  [default: the kernel of swap studies, built]"
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def question_of(image: str, **options: Any) -> ImageQuestion:
    """The question that the options ask; those that are not given are as by default. Errors: `InvalidInput`."""
    from acon_nb.swap.image.question import ImageQuestion, words_of

    values = {name: value for name, value in options.items() if value not in ("", None, ())}
    for name in ("command", "driver"):
        if name in values:
            values[name] = words_of(name, json.loads(values[name]))
    for name in ("at", "setups"):
        if name in values:
            values[name] = tuple(filter(None, (word.strip() for word in values[name].split(","))))
    return ImageQuestion(image=image, **values)


def answer_image(
    question: ImageQuestion, out: Path, *, again: bool, jobs: int | None, dry_run: bool, as_json: bool
) -> None:
    """Measure the image, run its study, and print the answer."""
    from acon_nb.cli.bench import print_plan
    from acon_nb.swap.image.study import image_study

    made = image_study(question, jobs=jobs, on_progress=TextProgress())
    study = made.study(out, again=again, parallel=jobs)
    if dry_run:
        print_plan(study)
        return
    answer = made.answer(study.run(on_progress=TextProgress()))
    if as_json:
        print_json(answer.data)
    else:
        click.echo("\n".join(answer.lines))
