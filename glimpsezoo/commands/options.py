"""Options that mean the same in every command."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glimpsezoo import escaping, ranks
from glimpsezoo.commands import names, signals

if TYPE_CHECKING:  # help does without rich
    from rich.console import Console

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@cache  # one console, so that a line does not damage a progress bar
def stderr() -> "Console":
    """The console for progress and notes."""
    return _console(stderr=True)


def say(text: str) -> None:
    """Print a line on standard error as it is: without line breaks and markup. Of several processes, the first one does."""
    if ranks.speaks():
        stderr().print(escaping.line(text), markup=False, soft_wrap=True)


def tell(text: str, *, nl: bool = True) -> None:
    """Print one or more lines of a result on standard output."""
    click.echo(escaping.terminal(text), nl=nl)


def tell_drawn(text: str) -> None:
    """Print what a console of this module drew, with its colours, as it is."""
    click.echo(text, nl=False, color=True)


def stdout() -> "Console":
    """The console for results. A pipe gets 100 columns, so that tables look the same in a file."""
    console = _console()
    return console if console.is_terminal else _console(width=100)


def _console(**settings: Any) -> "Console":
    from rich.console import Console
    from rich.text import Text

    class Harmless(Console):
        """Escapes every text that it draws, before it is laid out."""

        def render(self, renderable: Any, options: Any = None) -> Any:
            if isinstance(renderable, str):
                renderable = escaping.terminal(renderable)
            elif isinstance(renderable, Text) and (plain := escaping.terminal(renderable.plain)) != renderable.plain:
                renderable = Text(plain, renderable.style, justify=renderable.justify, overflow=renderable.overflow, end=renderable.end)
            return super().render(renderable, options)

    console = Harmless(highlight=False, emoji=False, **settings)  # `folder:fish:` is a name, not a fish
    console.on_broken_pipe = signals.pipe_closed
    return console


def screen() -> dict[str, object]:
    """What decides how a table is drawn on standard output."""
    console = stdout()
    return {"width": console.width, "colours": console.color_system, "encoding": console.encoding, "terminal": console.is_terminal}


def on_terminal() -> bool:
    """Whether a person reads standard output, rather than a pipe or a file."""
    return sys.stdout.isatty()


def print_names(names: Iterable[str]) -> None:
    """Print each name once, one a line."""
    for name in dict.fromkeys(names):
        click.echo(escaping.line(name))


checkpoint = click.option(
    "--checkpoint",
    metavar="CARD",
    shell_complete=names.checkpoints,
    help="A card, or a file of weights; 'none' takes untrained weights, 'timm' timm's own.",
)
SEED = click.IntRange(0, 2**32 - 1)
data = click.option(
    "--data",
    metavar="NAME",
    shell_complete=names.data,
    help="Data set ('glimpsezoo list data').  [default: the data of the card; digits for a model without a card]",
)
data_dir = click.option("--data-dir", metavar="DIR", help="Read the data from this folder, which has the layout of the Hub.")
settings = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting: KEY, MODEL.KEY or data.KEY.")
device = click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, mps, or auto.")
seed = click.option("--seed", default=0, show_default=True, type=SEED, metavar="N", help="Seed of all random numbers.")
workers = click.option("--workers", default=0, show_default=True, type=click.IntRange(0), metavar="N", help="Processes that decode images.")
output = click.option("-o", "--output", metavar="DIR", help="Folder for the results.  [default: a new folder in runs/]")
store = click.option(
    "--store",
    envvar="GLIMPSEZOO_STORE",
    show_envvar=True,
    metavar="URL",
    help="Keep finished units in this folder or at this URL (s3://...), which machines share.  [default: runs/.units]",
)
force = click.option("--force", is_flag=True, help="Overwrite the contents of --output.")
fresh = click.option("--fresh", is_flag=True, help="Start over: reuse no finished work of an earlier run.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print only names, one per line, as in a pipe.")
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


def together(*options: Decorator) -> Decorator:
    """Combine several options into one decorator. --help lists them in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def as_card(checkpoint: str | None, models: Sequence[str], data: str | None) -> str | None:
    """What `--checkpoint` names. Weights in a file of another project are imported into the user's folder first, once."""
    if checkpoint is None or not os.path.isfile(checkpoint):
        return checkpoint
    from glimpsezoo.workflows.importing import import_for_models

    folder, notes = import_for_models(models, Path(checkpoint), data)
    for note in notes:
        say(note)
    return str(folder)


def pick_device(name: str) -> Any:
    """The torch device of this name. Raises `GlimpseZooError` if the machine does not have it."""
    import torch

    from glimpsezoo.evaluation.environment import usable_device

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    own = ranks.here()
    if name == "cuda" and own.world > 1 and torch.cuda.is_available():
        name = f"cuda:{own.local_rank % torch.cuda.device_count()}"
    return usable_device(name)
